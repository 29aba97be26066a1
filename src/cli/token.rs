//! `token rotate`: a new join bundle at once.

use super::compose;
use super::{Global, print};
use crate::observe::logs::Log;
use clap::{Args, Subcommand};
use kubestrap_core::gate::Open;
use kubestrap_core::join;
use kubestrap_core::model::cause::{Cause, ExitCode, Failure, Outcome};
use kubestrap_core::model::identity::Role;
use std::rc::Rc;

/// Work with the bootstrap token.
#[derive(Args)]
pub struct Token {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Publish a join bundle with a new token now, instead of at half of its life. Run it on a master.
    #[command(after_help = "Examples:
  kubestrap token rotate            nodes that are joining with the old token still can
  kubestrap token rotate --revoke   after a leak: every older token of ours stops working at once")]
    Rotate {
        /// Delete every older token that kubestrap made.
        #[arg(long)]
        revoke: bool,
    },
}

impl Token {
    /// Publishes, and revokes when it was asked to.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        let What::Rotate { revoke } = self.what;
        let node = compose::node(global, Rc::new(Open), Rc::<Log>::default()).await?;
        if node.settings.role != Role::Master {
            let why = "this machine is a worker; only a master can make tokens";
            return Err(Failure::new(Cause::Usage, "rotate the bootstrap token", why).advise("run it on a master"));
        }
        let revoked = join::publish::rotate(&node, revoke).await?;
        match revoke {
            true => print(&format!("A new join bundle is in the store; {revoked} older tokens were revoked.\n"))?,
            false => print("A new join bundle is in the store; older tokens expire by themselves.\n")?,
        }
        Ok(ExitCode::Done)
    }
}
