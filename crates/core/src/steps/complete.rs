//! `complete`: the machine is a node; what only its bootstrap needed is removed.

use super::{HALF_AN_HOUR, journal};
use crate::engine::{Step, Verdict};
use crate::journal::Entry;
use crate::kubeadm::machine::BOOTSTRAP_CONF;
use crate::kubeadm::{documents, run};
use crate::model::cause::Outcome;
use crate::node::Node;
use async_trait::async_trait;
use std::path::Path;
use std::time::Duration;

/// Marks the node complete.
pub struct Complete;

#[async_trait(?Send)]
impl Step for Complete {
    fn name(&self) -> &'static str {
        "complete"
    }

    fn describe(&self) -> &'static str {
        "remove what only the bootstrap needed, and mark the node complete"
    }

    fn patience(&self, _node: &Node) -> Duration {
        HALF_AN_HOUR
    }

    async fn check(&self, node: &Node) -> Outcome<Verdict> {
        match journal(node).attempt()? {
            Some(attempt) if attempt.completed => Ok(Verdict::Done(format!("node of cluster {}", attempt.uid))),
            _ => Ok(Verdict::Wanted("it is not marked complete".into())),
        }
    }

    async fn apply(&self, node: &Node) -> Outcome<()> {
        // Documents, job outputs and the bootstrap kubeconfig hold tokens; none is needed any more.
        for command in ["init", "join"] {
            node.world.files.remove(&documents::path(command))?;
            node.world.jobs.forget(&run::job_name(command)).await?;
        }
        node.world.files.remove(Path::new(BOOTSTRAP_CONF))?;
        journal(node).note(Entry::Completed)
    }
}
