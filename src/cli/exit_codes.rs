//! `exit-codes`: the exit codes and the causes that lead to them; the README's table is compared with this.

use super::{Form, Output, print, print_json};
use crate::observe::text::table;
use clap::Args;
use kubestrap_core::model::cause::{CAUSES, ExitCode, Outcome};
use serde_json::json;

/// List the exit codes, and the causes of failure that lead to each.
#[derive(Args)]
pub struct ExitCodes {
    #[command(flatten)]
    output: Output,
}

impl ExitCodes {
    /// Prints the table.
    pub fn run(self) -> Outcome<ExitCode> {
        match self.output.output {
            Form::Human => print(&human())?,
            Form::Json => {
                let rows = ExitCode::TABLE
                    .iter()
                    .map(|(code, meaning)| json!({ "code": *code as u8, "meaning": meaning, "causes": causes(*code) }));
                print_json(&rows.collect::<Vec<_>>())?;
            }
        }
        Ok(ExitCode::Done)
    }
}

fn causes(code: ExitCode) -> Vec<&'static str> {
    CAUSES.iter().filter(|row| row.exit == code).map(|row| row.label).collect()
}

fn human() -> String {
    let mut rows = vec![["CODE", "MEANING", "CAUSES"].map(str::to_owned).to_vec()];
    for (code, meaning) in ExitCode::TABLE {
        rows.push(vec![(*code as u8).to_string(), (*meaning).to_owned(), causes(*code).join(", ")]);
    }
    table(&rows)
}
