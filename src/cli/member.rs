//! `member`: etcd's members, and the word that the machine of one is gone.

use super::confirm::confirm;
use super::{Form, Global, Output, compose, print, print_json};
use crate::observe::text::table;
use clap::{Args, Subcommand};
use kubestrap_core::etcd::operator;
use kubestrap_core::gate::Open;
use kubestrap_core::model::cause::{ExitCode, Outcome};
use kubestrap_core::model::plain::plain;
use kubestrap_core::model::report::MemberReport;
use kubestrap_core::node::Silent;
use std::rc::Rc;

/// Look at etcd's members, and remove one whose machine is gone. Run it on a master.
///
/// Members whose EC2 instance is terminated are removed without you. For everything else a person has to say so.
#[derive(Args)]
pub struct Member {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Every member: its role, whether it is healthy, its machine, and what would be done about it.
    List(Output),
    /// Remove a member, its Node and the Pods of its control plane. Refused for a healthy one, and where etcd would lose
    /// its quorum.
    #[command(after_help = "Examples:
  kubestrap member remove cp-3                        one whose instance EC2 says is gone
  kubestrap member remove cp-3 --machine-is-gone      you know it: bare metal, a machine that burnt down
  kubestrap member remove cp-3 --machine-is-gone --yes cp-3")]
    Remove {
        /// The node's name, or the id of a member that never started.
        name: String,
        /// You know that its machine is gone for good. If it is not, it can never be a member again without a reset.
        #[arg(long)]
        machine_is_gone: bool,
        /// Confirm with the name of the member instead of typing it.
        #[arg(long, value_name = "NAME")]
        yes: Option<String>,
    },
}

impl Member {
    /// Looks, or removes after confirmation.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        let node = compose::node(global, Rc::new(Open), Rc::new(Silent)).await?;
        match self.what {
            What::List(Output { output }) => {
                let members = operator::list(&node).await?;
                match output {
                    Form::Human => print(&shown(&members))?,
                    Form::Json => print_json(&members)?,
                }
            }
            What::Remove { name, machine_is_gone, yes } => {
                let removal = operator::plan_removal(&node, &name, machine_is_gone).await?;
                confirm("remove the member", &removal.warning, &removal.name, yes.as_deref())?;
                match operator::remove(&node, &removal).await? {
                    true => print("Removed.\n")?,
                    false => print("It was gone already.\n")?,
                }
            }
        }
        Ok(ExitCode::Done)
    }
}

/// The members as a table; what would be done stands below its member.
fn shown(members: &[MemberReport]) -> String {
    let head = ["NAME", "ID", "ROLE", "HEALTHY", "LEADER", "MACHINE"].map(str::to_owned).to_vec();
    let row = |member: &MemberReport| {
        let name = if member.name.is_empty() { "-" } else { &member.name };
        vec![
            plain(name),
            plain(&member.id),
            plain(&member.role),
            if member.healthy { "yes" } else { "no" }.to_owned(),
            if member.leader { "yes" } else { "-" }.to_owned(),
            plain(member.machine.as_deref().unwrap_or("-")),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(members.iter().map(row)).collect();
    let (text, mut out) = (table(&rows), String::new());
    let todos = std::iter::once(None).chain(members.iter().map(|member| member.todo.as_deref()));
    for (line, todo) in text.lines().zip(todos) {
        out.push_str(&format!("{line}\n"));
        if let Some(todo) = todo {
            out.push_str(&format!("  {}\n", plain(todo)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_done_stands_below_its_member() {
        let one = MemberReport {
            id: "8e9e05c52164694d".to_owned(),
            name: "cp-1".to_owned(),
            role: "voter".to_owned(),
            healthy: true,
            leader: true,
            machine: Some("i-1 is running".to_owned()),
            todo: None,
        };
        let learner = MemberReport {
            id: "7".to_owned(),
            name: String::new(),
            role: "unstarted".to_owned(),
            healthy: false,
            leader: false,
            machine: None,
            todo: Some("it is removed: a failed join left it".to_owned()),
        };
        let text = shown(&[one, learner]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("cp-1 ") && lines[1].ends_with("i-1 is running"), "{text}");
        assert!(lines[2].starts_with("- ") && lines[3] == "  it is removed: a failed join left it", "{text}");
    }
}
