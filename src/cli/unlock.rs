//! `unlock init`: an operator's word that the holder of the register is gone.

use super::compose;
use super::confirm::confirm;
use super::{Global, print};
use clap::{Args, Subcommand};
use kubestrap_core::gate::Open;
use kubestrap_core::model::cause::{ExitCode, Outcome};
use kubestrap_core::node::{Node, Silent};
use kubestrap_core::operator;
use kubestrap_core::store::Store;
use std::rc::Rc;

/// Take the register away from a master that is gone.
///
/// kubestrap never judges by a clock that a machine is gone. On EC2 a terminated instance is noticed without you; for
/// everything else a person has to say so, with this command.
#[derive(Args)]
pub struct Unlock {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The register of a cluster whose first master never finished `kubeadm init`.
    #[command(after_help = "Examples:
  kubestrap unlock init              asks, and shows what it breaks
  kubestrap unlock init --yes prod   without a terminal")]
    Init {
        /// Confirm with the name of the cluster instead of typing it.
        #[arg(long, value_name = "CLUSTER")]
        yes: Option<String>,
    },
    /// The lock of a further master that joins the control plane and is gone.
    #[command(after_help = "Examples:
  kubestrap unlock join              asks, and shows what it breaks
  kubestrap unlock join --yes prod   without a terminal")]
    Join {
        /// Confirm with the name of the cluster instead of typing it.
        #[arg(long, value_name = "CLUSTER")]
        yes: Option<String>,
    },
}

impl Unlock {
    /// Unlocks after confirmation.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        let node = compose::node(global, Rc::new(Open), Rc::new(Silent)).await?;
        match self.what {
            What::Init { yes } => Unlock::init(&node, yes.as_deref()).await,
            What::Join { yes } => Unlock::join(&node, yes.as_deref()).await,
        }
    }

    async fn join(node: &Node, yes: Option<&str>) -> Outcome<ExitCode> {
        let store = Store::of(node);
        let (etag, warning) = operator::lock_to_unlock(&store).await?;
        confirm("remove the join lock", &warning, node.settings.cluster.as_str(), yes)?;
        store.unlock_join(&etag).await?;
        print("Unlocked: the next master that waits joins.\n")?;
        Ok(ExitCode::Done)
    }

    async fn init(node: &Node, yes: Option<&str>) -> Outcome<ExitCode> {
        let store = Store::of(node);
        let seen = operator::register_to_unlock(&store).await?;
        let warning = operator::unlock_warning(&seen.register);
        confirm("unlock the cluster register", &warning, node.settings.cluster.as_str(), yes)?;
        store.unlock_init(&seen).await?;
        print("Unlocked: the next master that runs takes over and keeps the cluster's uid.\n")?;
        Ok(ExitCode::Done)
    }
}
