//! `cluster retire`: makes room for a rebuilt environment in the same store.

use super::compose::{self, StoreArgs};
use super::confirm::confirm;
use super::{Global, print};
use crate::observe::text::ago;
use clap::{Args, Subcommand};
use kubestrap_core::model::cause::{Cause, ExitCode, Failure, Outcome};
use kubestrap_core::model::plain::plain;
use kubestrap_core::model::register::RegisterState;
use kubestrap_core::ports::{Access, ApiRequest};
use kubestrap_core::store::Store;
use kubestrap_core::store::retire::Retirement;
use kubestrap_core::world::World;

/// Work with what the store knows of a whole cluster.
#[derive(Args)]
pub struct ClusterVerb {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Move everything of a cluster that ended to `retired/<uid>/`, so that its name can be used again.
    ///
    /// Refused while the cluster's endpoint still answers. Nothing is deleted.
    #[command(after_help = "Examples:
  kubestrap cluster retire               shows what it moves, and asks
  kubestrap cluster retire --yes prod    without a terminal
  kubestrap cluster retire --store s3://acme-clusters/k8s --cluster-name prod")]
    Retire {
        #[command(flatten)]
        store: StoreArgs,
        /// Confirm with the name of the cluster instead of typing it.
        #[arg(long, value_name = "CLUSTER")]
        yes: Option<String>,
    },
}

impl ClusterVerb {
    /// Retires after confirmation.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        let What::Retire { store: place, yes } = self.what;
        let (settings, world) = compose::reader(global, &place).await?;
        let store = Store::new(world.objects.clone(), world.time.clone(), settings.cluster.clone());
        let Some(plan) = store.retirement().await? else {
            print(&format!("Nothing to do: the store has nothing of cluster {}.\n", settings.cluster))?;
            return Ok(ExitCode::Done);
        };
        let endpoint = compose::endpoint_of(&store, &settings).await?;
        refuse_living(&world, endpoint).await?;
        confirm("retire the cluster", &story(&plan, &world), settings.cluster.as_str(), yes.as_deref())?;
        let retired = store.retire(&plan).await?;
        print(&format!("Retired {}: {} objects moved to retired/{}/.\n", retired.uid, retired.moved, retired.uid))?;
        Ok(ExitCode::Done)
    }
}

/// Whoever answers there may be the cluster: its CA cannot be checked from a machine without credentials, so any answer
/// counts.
async fn refuse_living(world: &World, endpoint: Option<kubestrap_core::model::names::Endpoint>) -> Outcome<()> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    let request = ApiRequest {
        access: Access::Unverified(endpoint.clone()),
        method: "GET",
        path: "/healthz".to_owned(),
        body: None,
    };
    match world.cluster.call(request).await {
        Ok(answer) => {
            let why = format!("{endpoint} still answers (HTTP {})", answer.status);
            Err(Failure::new(Cause::ForeignCluster, "retire the cluster", why)
                .advise("stop its masters first: a cluster that lives is not retired"))
        }
        Err(_) => Ok(()),
    }
}

fn story(plan: &Retirement, world: &World) -> String {
    let mut out = format!("Cluster uid {}: {} objects will be moved to retired/.\n", plan.uid, plan.keys.len());
    match plan.register.as_ref().map(|seen| &seen.register.state) {
        Some(RegisterState::Established { ca_sha256, created_by, created_at, .. }) => {
            let creator = plain(&created_by.node_name);
            out.push_str(&format!("Made by {creator} at {created_at:.0}, CA {ca_sha256}.\n"));
        }
        Some(RegisterState::Initialising { since, .. }) => {
            out.push_str(&format!("It was never established; `kubeadm init` began at {since:.0}.\n"));
        }
        None => out.push_str("Its register is missing.\n"),
    }
    for entry in &plan.reports {
        let line = match &entry.report {
            Ok(report) => format!(
                "  {} {}: {}, last report {}\n",
                report.role.as_str(),
                plain(&report.identity.node_name),
                report.phase.as_str(),
                ago(world.time.now(), report.reported_at)
            ),
            Err(failure) => format!("  {}: unreadable report ({})\n", plain(&entry.identity), plain(&failure.detail)),
        };
        out.push_str(&line);
    }
    out.push_str("A machine of this cluster that still runs will refuse to go on.");
    out
}
