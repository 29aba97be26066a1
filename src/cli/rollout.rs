//! `rollout`: how the rollout of a new image stands; to stop it, and to let it go on.

use super::{Form, Global, Output, compose, print, print_json};
use clap::{Args, Subcommand};
use kubestrap_core::gate::Open;
use kubestrap_core::kube::Api;
use kubestrap_core::model::cause::{Cause, ExitCode, Failure, Outcome};
use kubestrap_core::model::identity::Role;
use kubestrap_core::node::Silent;
use kubestrap_core::rollout::operator;
use std::rc::Rc;

/// Look at the rollout of a new image, stop it, let it go on. Run it on a master.
#[derive(Args)]
pub struct Rollout {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// How the rollouts stand: groups, open grants, nodes that are not what they should be.
    Status(Output),
    /// Pause every rollout of the cluster: nothing begins, and no machine is ended. What drains goes on.
    #[command(after_help = "Examples:
  kubestrap rollout pause 'release freeze until Monday'")]
    Pause {
        /// Why; the others read it.
        reason: String,
    },
    /// Let rollouts go on: the cluster's pause ends, and groups that stand begin again with one node.
    #[command(after_help = "Examples:
  kubestrap rollout resume               everything that stands
  kubestrap rollout resume --group web   the rollouts of this group only")]
    Resume {
        /// Only the rollouts of this group.
        #[arg(long)]
        group: Option<String>,
    },
    /// End the grant of a node whose machine will not come back. On EC2 a terminated one is noticed without you.
    Release {
        /// The node's name.
        node: String,
    },
}

impl Rollout {
    /// Asks the API server, and shows or changes.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        let node = compose::node(global, Rc::new(Open), Rc::new(Silent)).await?;
        if node.settings.role != Role::Master {
            let why = "this machine is a worker; only a master may read and change it";
            return Err(Failure::new(Cause::Usage, "look at the rollout", why).advise("run it on a master"));
        }
        let api = Api::admin(&node.world.cluster);
        match self.what {
            What::Status(Output { output }) => {
                let standing = operator::standing(&api).await?;
                match output {
                    Form::Human => print(&operator::table(&standing))?,
                    Form::Json => print_json(&standing)?,
                }
            }
            What::Pause { reason } => {
                operator::pause(&api, &reason).await?;
                print("Paused: nothing begins until `kubestrap rollout resume`.\n")?;
            }
            What::Resume { group } => {
                let resumed = operator::resume(&api, group.as_deref()).await?;
                match resumed.as_slice() {
                    [] => print("Nothing stood.\n")?,
                    all => all.iter().try_for_each(|what| print(&format!("Resumed {what}.\n")))?,
                }
            }
            What::Release { node } => match operator::release(&api, &node).await? {
                true => print(&format!("The grant of {node} ends.\n"))?,
                false => print(&format!("{node} has no grant.\n"))?,
            },
        }
        Ok(ExitCode::Done)
    }
}
