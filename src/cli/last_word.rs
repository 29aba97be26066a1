//! The file with the agent's last word: written by `run`, read by `status`. It says why a machine is not a node yet, or
//! why its agent ended, also when the store that has the report is what is missing.

use kubestrap_core::journal::STATE_FOLDER;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::report::{Phase, ReportedError};
use kubestrap_core::node::Status;
use kubestrap_core::ports::Files;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A message names a key or a path, and has the tail of a failed kubeadm.
const LIMIT: u64 = 64 * 1024;

/// What the agent was at when it changed its mind last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastWord {
    /// Where it stood.
    pub phase: Phase,
    /// The step it was at.
    pub step: Option<String>,
    /// What the step waited for.
    pub waiting_for: Option<String>,
    /// Why it was not further.
    pub error: Option<ReportedError>,
}

impl LastWord {
    /// The word of now. What was waited for is told while it is waited for.
    pub fn of(status: &Status) -> LastWord {
        LastWord {
            phase: status.phase,
            step: status.step.map(str::to_owned),
            waiting_for: status.waiting_for.clone().filter(|_| status.phase == Phase::Waiting),
            error: status.error.clone().filter(|_| status.phase != Phase::Ready),
        }
    }

    /// The kept one; `None` when there is none, or none that can be read: nothing depends on it.
    pub fn load(files: &dyn Files) -> Option<LastWord> {
        serde_json::from_slice(&files.read(&path(), LIMIT).ok()??).ok()
    }

    /// Replaces the kept one.
    pub fn keep(&self, files: &dyn Files) -> Outcome<()> {
        let body = serde_json::to_vec(self)
            .map_err(|error| Failure::new(Cause::Internal, "write the agent's last word", error.to_string()))?;
        files.write(&path(), &body, 0o600)
    }

    /// For people: what it waits for, or why it ended.
    pub fn words(&self) -> Option<String> {
        let error = self.error.as_ref().map(|error| error.message.clone());
        self.waiting_for.as_ref().map(|what| format!("waits for {what}")).or(error)
    }
}

fn path() -> PathBuf {
    Path::new(STATE_FOLDER).join("agent.json")
}
