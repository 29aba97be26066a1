//! `completions`: shell completions from the command line's own definition.

use super::{Cli, print};
use clap::{Args, CommandFactory};
use kubestrap_core::model::cause::{ExitCode, Outcome};

/// Print shell completions.
#[derive(Args)]
#[command(after_help = "Examples:
  kubestrap completions bash > /usr/share/bash-completion/completions/kubestrap
  source <(kubestrap completions zsh)")]
pub struct Completions {
    /// The shell.
    shell: clap_complete::Shell,
}

impl Completions {
    /// Prints them.
    pub fn run(self) -> Outcome<ExitCode> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "kubestrap", &mut text);
        print(&String::from_utf8_lossy(&text))?;
        Ok(ExitCode::Done)
    }
}
