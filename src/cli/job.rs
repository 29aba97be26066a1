//! `job`: what a job of the agent is wrapped in. Hidden: the agent starts it.

use crate::adapters::jobs;
use clap::Args;
use kubestrap_core::model::cause::{Cause, ExitCode, Failure, Outcome};
use std::path::PathBuf;

/// Supervise one program: start it, keep its output, record how it ended.
#[derive(Args)]
pub struct Job {
    /// The folder of the job's records.
    #[arg(long)]
    dir: PathBuf,
    /// The run that was asked for; another one in the record is left alone.
    #[arg(long)]
    run: String,
}

impl Job {
    /// Runs the job to its end.
    pub fn run(self) -> Outcome<ExitCode> {
        jobs::supervise(&self.dir, &self.run).map(|()| ExitCode::Done).map_err(|error| {
            Failure::new(Cause::ToolFailed, format!("supervise the job in {}", self.dir.display()), error.to_string())
        })
    }
}
