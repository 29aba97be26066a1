//! `seal-pki`: the keys of the cluster's authorities are in the store, sealed, before `kubeadm init` makes anything of
//! them. Whatever point this machine dies at after that, its successor makes the same cluster.

use super::journal;
use crate::engine::{Step, Verdict};
use crate::journal::{Attempt, AttemptKind};
use crate::kubeadm::machine::Machine;
use crate::kubeadm::run;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use crate::pki;
use crate::ports::JobState;
use crate::store::Store;
use async_trait::async_trait;
use std::time::Duration;

/// A key service, or its policy, that was just made is usable within minutes.
const PATIENCE: Duration = super::HALF_AN_HOUR;

/// Seals the authorities, or finds them sealed.
pub struct SealPki;

#[async_trait(?Send)]
impl Step for SealPki {
    fn name(&self) -> &'static str {
        "seal-pki"
    }

    fn describe(&self) -> &'static str {
        "seal the keys of the cluster's authorities in the store, so that other masters can follow"
    }

    fn patience(&self, _node: &Node) -> Duration {
        PATIENCE
    }

    async fn check(&self, node: &Node) -> Outcome<Verdict> {
        let Some(attempt) = journal(node).attempt()? else {
            return Ok(Verdict::Wanted("there is no cluster yet".into()));
        };
        if attempt.kind != AttemptKind::Init {
            return Ok(Verdict::Done("this machine joins a cluster whose keys exist".into()));
        }
        if attempt.master_of().is_some() {
            return Ok(Verdict::Done("this machine is a master; `keep-pki` keeps the sealed keys".into()));
        }
        let machine = Machine::look(&*node.world.files)?;
        let Some(seen) = Store::of(node).pki().await? else {
            return without_bundle(node, &attempt, &machine).await;
        };
        let bundle = seen.bundle?;
        let another =
            |why: String| Err(Failure::new(Cause::PkiRejected, "use pki/bundle, the sealed keys of the cluster", why));
        if bundle.uid != attempt.uid {
            return another(format!("they are of cluster {}, and this one is {}", bundle.uid, attempt.uid));
        }
        // The machine would become a cluster that nobody else can join.
        match attempt.initialised.as_ref().filter(|ca| **ca != bundle.ca_sha256) {
            Some(ca) => another(format!("they are of CA {}, and `kubeadm init` used CA {ca}", bundle.ca_sha256)),
            None => Ok(Verdict::Done(format!("sealed with {}, CA {}", bundle.key.describe(), bundle.ca_sha256))),
        }
    }

    async fn apply(&self, node: &Node) -> Outcome<()> {
        let not_held = |why| Failure::new(Cause::HeldByOther, "seal the keys of the cluster", why);
        let Some(attempt) = journal(node).attempt()? else { return Err(not_held("no attempt was recorded")) };
        let Some(held) = Store::of(node).held(attempt.id).await? else {
            return Err(not_held("the register does not name our attempt"));
        };
        pki::seal_new(node, &held).await.map(|_| ())
    }
}

/// An init that was begun before the setting `pki` goes on with its own keys, which are sealed when they are there.
async fn without_bundle(node: &Node, attempt: &Attempt, machine: &Machine) -> Outcome<Verdict> {
    let job = node.world.jobs.observe(&run::job_name("init")).await?;
    if attempt.commit_attempted {
        return Ok(Verdict::Done("the cluster was made without; `keep-pki` seals its keys".into()));
    }
    if attempt.initialised.is_none() && matches!(job, JobState::Running { .. }) {
        return Ok(Verdict::Done("an init that began without it runs; its keys are sealed afterwards".into()));
    }
    Ok(Verdict::Wanted(match &machine.ca {
        Some(ca) => format!("the keys of CA {ca} are on this machine alone"),
        None => "the cluster has no keys yet".into(),
    }))
}
