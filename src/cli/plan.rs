//! `plan`: the steps, which are needed and why, and the kubeadm documents. Changes nothing: its gate refuses to.

use super::compose;
use super::install::PlanInstall;
use super::{Form, Global, Output, print, print_json};
use crate::observe::text::fold;
use clap::{Args, Subcommand};
use kubestrap_core::ecr::wiring;
use kubestrap_core::engine::{self, PlanRow, Wish};
use kubestrap_core::gate::ReadOnly;
use kubestrap_core::kubeadm::documents::{self, JoinTarget};
use kubestrap_core::kubeadm::tools;
use kubestrap_core::model::cause::{Cause, ExitCode, Failure, Outcome};
use kubestrap_core::model::identity::Role;
use kubestrap_core::model::names::BootstrapToken;
use kubestrap_core::model::plain::plain;
use kubestrap_core::model::register::SCHEMA;
use kubestrap_core::node::{Node, Silent};
use kubestrap_core::ports::Fetched;
use kubestrap_core::steps;
use kubestrap_core::store::Store;
use kubestrap_core::store::bundle::{Expectation, verify};
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::Duration;

/// Show what `run` would do on this machine and why, and the kubeadm configuration it would use. Changes nothing.
#[derive(Args)]
#[command(after_help = "Examples:
  kubestrap plan
  kubestrap plan install           what `kubestrap install` would change
  kubestrap plan -o json | jq '.steps[] | select(.wish == \"wanted\")'

Tokens and keys are shown as <secret>.")]
#[command(args_conflicts_with_subcommands = true)]
pub struct Plan {
    #[command(subcommand)]
    of: Option<PlanOf>,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand)]
enum PlanOf {
    /// Show what `install` would change on this machine, and why. Changes nothing, fetches nothing.
    Install(PlanInstall),
}

impl Plan {
    /// Prints the plan; exit code 0 whatever it says.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        if let Some(PlanOf::Install(plan)) = self.of {
            return plan.run(global).await;
        }
        let node = compose::node(global, Rc::new(ReadOnly), Rc::new(Silent)).await?;
        let rows = engine::plan(&node, &steps::of(&node.settings)).await;
        let documents = documents_for(&node).await.map(|documents| documents::masked(&documents));
        match self.output.output {
            Form::Human => print(&human(&node, &rows, &documents)?)?,
            Form::Json => print_json(&as_json(&node, &rows, &documents))?,
        }
        Ok(ExitCode::Done)
    }
}

/// The documents `run` would give to kubeadm. The token of an init does not exist yet.
async fn documents_for(node: &Node) -> Outcome<Vec<Value>> {
    let (settings, identity) = (&node.settings, &node.identity);
    let flags = wiring::intended_flags(node).await?;
    let master = settings.role == Role::Master;
    if master && !steps::follows(node).await? {
        let version = match &settings.kubernetes.version {
            Some(version) => version.clone(),
            None => tools::versions(node).await?.kubeadm,
        };
        let token = BootstrapToken::from_random(&[0; 32])
            .ok_or_else(|| Failure::new(Cause::Internal, "show the documents", "no token for them"))?;
        return Ok(documents::init(settings, identity, &version, &token, flags.as_ref()));
    }
    let store = Store::of(node);
    let register = store.register().await?;
    let Fetched::Found(object) = store.bundle(None).await?.fetched else {
        return Err(Failure::new(Cause::NoBundle, "show the documents", "there is no join bundle in the store yet"));
    };
    let expectation = Expectation {
        cluster: settings.cluster.clone(),
        uid: None,
        ca: None,
        ca_pin: settings.ca_pin.clone(),
        now: node.world.time.now(),
        min_life: Duration::ZERO,
        newest: None,
    };
    let verified = verify(&object.body, &expectation.with_register(register.as_ref().map(|seen| &seen.register)))?;
    let bundle = verified.bundle();
    let join = if master { documents::join_control_plane } else { documents::join };
    Ok(join(settings, identity, JoinTarget::from(bundle), flags.as_ref()))
}

fn word(wish: &Wish) -> &'static str {
    match wish {
        Wish::Done => "done",
        Wish::Wanted => "wanted",
        Wish::Later => "later",
        Wish::Failed => "failed",
    }
}

fn human(node: &Node, rows: &[PlanRow], documents: &Outcome<Vec<Value>>) -> Outcome<String> {
    let mut out = format!(
        "{} {} of cluster {} (nothing is changed)\n\n",
        node.settings.role.as_str(),
        node.identity.node_name,
        node.settings.cluster
    );
    let width = rows.iter().map(|row| row.step.len()).max().unwrap_or_default();
    for row in rows {
        out.push_str(&format!("{:6}  {:width$}  {}\n", word(&row.wish), row.step, row.describe));
        out.push_str(&format!("{:10}{}\n", "", fold(&plain(&row.why), 100, 10)));
    }
    out.push_str("\nThe kubeadm configuration:\n");
    match documents {
        Ok(documents) => out.push_str(&documents::render(documents)?),
        Err(failure) => out.push_str(&format!("not known yet: {}\n", fold(&plain(&failure.detail), 100, 2))),
    }
    Ok(out)
}

fn as_json(node: &Node, rows: &[PlanRow], documents: &Outcome<Vec<Value>>) -> Value {
    let steps = rows
        .iter()
        .map(|row| json!({ "step": row.step, "describe": row.describe, "wish": word(&row.wish), "why": row.why }));
    let (documents, unknown) = match documents {
        Ok(documents) => (documents.clone(), Value::Null),
        Err(failure) => (Vec::new(), json!(failure.detail)),
    };
    json!({
        "schema": SCHEMA,
        "cluster": node.settings.cluster,
        "role": node.settings.role,
        "node": node.identity.node_name,
        "steps": steps.collect::<Vec<_>>(),
        "kubeadm_documents": documents,
        "kubeadm_documents_unknown_because": unknown,
    })
}
