//! `config`: what the configuration says, and whether it can be used.

use super::compose;
use super::{Form, Global, Output, print, print_json};
use crate::observe::text::table;
use clap::{Args, Subcommand};
use kubestrap_core::config::{self, Problem};
use kubestrap_core::model::cause::{ExitCode, Outcome};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Check and show the configuration.
#[derive(Args)]
#[command(after_help = "Layers, of which later ones win:
  built-in defaults
  /usr/lib/kubestrap/config.d/*.yaml   baked into the image
  /etc/kubestrap/config.yaml           (--config FILE reads that file instead of all files)
  /etc/kubestrap/config.d/*.yaml
  EC2 user-data: the whole of it, or a MIME part of type application/x-kubestrap+yaml
  KUBESTRAP_* environment variables")]
pub struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Show every problem at once, each with its place and the nearest valid key. Exit code 10 when there is one.
    #[command(after_help = "Examples:
  kubestrap config check
  kubestrap config check --user-data worker.mime     before an instance is started with it")]
    Check {
        /// Check this file as the user-data of an instance: all of it ours, or a MIME multipart, as it is or gzip.
        #[arg(long, value_name = "FILE")]
        user_data: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Show every value in force and where it comes from. What looks like a secret is masked.
    Show {
        #[command(flatten)]
        output: Output,
    },
    /// Print the JSON Schema of a configuration file, for editors.
    #[command(after_help = "Example:
  kubestrap config schema > kubestrap.schema.json
  # first line of config.yaml, for editors with the YAML language server:
  # yaml-language-server: $schema=kubestrap.schema.json")]
    Schema,
}

impl Config {
    /// Carries it out.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        match self.what {
            What::Schema => print_json(&config::schema()).map(|()| ExitCode::Done),
            What::Check { user_data, output } => check(global, user_data.as_deref(), output).await,
            What::Show { output } => show(global, output).await,
        }
    }
}

async fn check(global: &Global, user_data: Option<&Path>, output: Output) -> Outcome<ExitCode> {
    let early = compose::early(global)?;
    let result = match user_data {
        Some(file) => compose::configuration_with(global, &early, file)?,
        None => compose::configuration(global, &early).await?,
    };
    match (&result, output.output) {
        (Ok(effective), Form::Human) => {
            let settings = &effective.settings;
            print(&format!(
                "The configuration is good: {} of cluster {}.\n",
                settings.role.as_str(),
                settings.cluster
            ))?;
        }
        (Err(problems), Form::Human) => {
            let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
            print(&format!("{}\n\n{} problems\n", lines.join("\n"), problems.len()))?;
        }
        (Ok(_), Form::Json) => print_json(&json!({ "problems": [] }))?,
        (Err(problems), Form::Json) => {
            let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
            print_json(&json!({ "problems": lines }))?;
        }
    }
    Ok(if result.is_ok() { ExitCode::Done } else { ExitCode::Configuration })
}

async fn show(global: &Global, output: Output) -> Outcome<ExitCode> {
    let effective = compose::configuration(global, &compose::early(global)?).await?;
    let rows = effective.map_err(|problems| config::failure(&problems))?.show();
    match output.output {
        Form::Human => {
            let mut lines = vec![["KEY", "VALUE", "ORIGIN"].map(str::to_owned).to_vec()];
            lines.extend(rows.into_iter().map(|row| vec![row.path, row.value, row.origin.to_string()]));
            print(&table(&lines))?;
        }
        Form::Json => {
            let rows = rows
                .into_iter()
                .map(|row| json!({ "key": row.path, "value": row.value, "origin": row.origin.to_string() }));
            print_json(&rows.collect::<Vec<_>>())?;
        }
    }
    Ok(ExitCode::Done)
}
