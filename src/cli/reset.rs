//! `reset`: takes away what kubestrap made on this machine, and nothing else.

use super::compose;
use super::confirm::confirm;
use super::state::Lock;
use super::{Global, print};
use crate::observe::logs::Log;
use clap::Args;
use kubestrap_core::gate::Open;
use kubestrap_core::model::cause::{ExitCode, Outcome};
use kubestrap_core::operator::{self, ResetPlan};
use std::rc::Rc;

/// Undo what kubestrap made of this machine (`kubeadm reset`), so that `run` can begin anew.
///
/// It needs the proof in our journal that the machine was clean before; state that was there before kubestrap is
/// refused in any case.
#[derive(Args)]
#[command(after_help = "Examples:
  kubestrap reset                    a half-finished init or join
  kubestrap reset --force            also a finished node; its Node object in the cluster stays
  kubestrap reset --yes ip-10-0-1-7  without a terminal")]
pub struct Reset {
    /// Also reset a machine that became a node. On the only master this ends the cluster.
    #[arg(long)]
    force: bool,
    /// Confirm with the name of the node instead of typing it.
    #[arg(long, value_name = "NODE")]
    yes: Option<String>,
}

impl Reset {
    /// Resets after confirmation.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        let _lock = Lock::take(global)?;
        let node = compose::node(global, Rc::new(Open), Rc::<Log>::default()).await?;
        let plan = operator::plan_reset(&node, self.force)?;
        if !plan.is_needed() {
            print("Nothing to do: this machine carries nothing of kubestrap's.\n")?;
            return Ok(ExitCode::Done);
        }
        let warning = warning(&plan);
        confirm("reset this machine", &warning, &node.identity.node_name, self.yes.as_deref())?;
        operator::carry_out_reset(&node, plan).await?;
        print("Reset. The next `kubestrap run` begins a new attempt.\n")?;
        Ok(ExitCode::Done)
    }
}

/// What goes, for the person who is asked.
fn warning(plan: &ResetPlan) -> String {
    let mut text = match (plan.runs_kubeadm(), plan.traces.is_empty()) {
        (false, _) => format!("{}.", plan.story),
        (true, true) => format!("{}.\nA reset of it was interrupted; this runs `kubeadm reset` again.", plan.story),
        (true, false) => format!(
            "{}.\nThis runs `kubeadm reset`, which stops its containers and removes:\n  {}",
            plan.story,
            plan.traces.join("\n  ")
        ),
    };
    if !plan.credentials.is_empty() {
        let files: Vec<String> = plan.credentials.iter().map(|file| file.display().to_string()).collect();
        text.push_str(&format!("\nWhat kubestrap wrote for pulls from ECR is taken out of:\n  {}", files.join("\n  ")));
    }
    text
}
