//! `leave`: this master goes away for good, and says so.

use super::confirm::confirm;
use super::state::Lock;
use super::{Global, compose, print};
use crate::observe::logs::Log;
use clap::Args;
use kubestrap_core::etcd::leave::{intent, leave};
use kubestrap_core::gate::Open;
use kubestrap_core::model::cause::{ExitCode, Outcome};
use std::rc::Rc;

/// Take this master out of its cluster: its etcd member and its Node go, and it never joins again by itself.
///
/// Stop the agent first (`systemctl stop kubestrap`). Pods of the node are not moved: drain it before. Refused for the last
/// master, and where etcd would lose its quorum.
#[derive(Args)]
#[command(after_help = "Examples:
  kubectl drain cp-2 --ignore-daemonsets && systemctl stop kubestrap && kubestrap leave
  kubestrap leave --yes cp-2   without a terminal")]
pub struct Leave {
    /// Confirm with the name of the node instead of typing it.
    #[arg(long, value_name = "NODE")]
    yes: Option<String>,
}

impl Leave {
    /// Leaves after confirmation.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        let _lock = Lock::take(global)?;
        let node = compose::node(global, Rc::new(Open), Rc::<Log>::default()).await?;
        let intent = intent(&node).await?;
        let own = match (intent.member, intent.leader) {
            (false, _) => "It has no member of etcd any more.",
            (true, true) => "It leads etcd and hands that over.",
            (true, false) => "It does not lead etcd.",
        };
        let warning = format!(
            "This master leaves its cluster. {own} {} voters stay; its API server stops, and its Node is deleted.\n\
             It does not join again before `kubestrap reset --force`.",
            intent.voters
        );
        confirm("leave the cluster", &warning, &node.identity.node_name, self.yes.as_deref())?;
        let farewell = leave(&node).await?;
        match farewell.node_left {
            None => print("Left. The machine can be switched off.\n")?,
            Some(failure) => print(&format!(
                "Left. Its Node is still there ({failure}); the master that leads deletes it when the machine is gone, or: \
                 kubectl delete node {}\n",
                node.identity.node_name
            ))?,
        }
        Ok(ExitCode::Done)
    }
}
