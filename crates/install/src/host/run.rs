//! Programs of the machine, by name and arguments: no shell.

use super::Host;
use async_trait::async_trait;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How much of a program's words goes into an error, in bytes.
const WORDS: usize = 2000;

/// A program that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    /// Whether it ended with 0.
    pub fn is_well(&self) -> bool {
        self.code == Some(0)
    }

    /// Its output, or a failure with its last words.
    pub fn well(self, attempted: &str) -> Outcome<String> {
        if self.is_well() {
            return Ok(self.stdout);
        }
        let said = format!("{}{}", self.stdout, self.stderr);
        let tail = &said[said.ceil_char_boundary(said.len().saturating_sub(WORDS))..];
        let code = self.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
        Err(Failure::new(Cause::ToolFailed, attempted, format!("it ended with {code}: {}", tail.trim())))
    }
}

/// The programs of a machine.
#[async_trait(?Send)]
pub trait Programs: std::fmt::Debug {
    /// Runs one to its end; it is killed at the deadline (`ToolHung`). `ToolMissing` when it is not there.
    async fn run(&self, argv: &[&str], deadline: Duration) -> Outcome<Ended>;
}

impl Host {
    /// Runs a program of this machine to its end; it is killed at the deadline (`ToolHung`). `ToolMissing` when it is
    /// not found in PATH.
    pub async fn run(&self, argv: &[&str], deadline: Duration) -> Outcome<Ended> {
        self.programs.run(argv, deadline).await
    }
}

/// Those of the machine this process runs on, in PATH.
#[derive(Debug)]
pub(super) struct InPath;

#[async_trait(?Send)]
impl Programs for InPath {
    #[allow(clippy::disallowed_methods)]
    async fn run(&self, argv: &[&str], deadline: Duration) -> Outcome<Ended> {
        let attempted = format!("run `{}`", argv.join(" "));
        let (name, arguments) =
            argv.split_first().ok_or_else(|| Failure::new(Cause::Internal, &attempted, "no name"))?;
        let mut command = Command::new(name);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).env("LC_ALL", "C");
        match tokio::time::timeout(deadline, command.output()).await {
            Err(_) => {
                let why = format!("it did not end within {} s", deadline.as_secs());
                Err(Failure::new(Cause::ToolHung, attempted, why))
            }
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
                Err(Failure::new(Cause::ToolMissing, attempted, format!("{name} is not in PATH")))
            }
            Ok(Err(error)) => Err(Failure::new(Cause::ToolFailed, attempted, error.to_string())),
            Ok(Ok(output)) => Ok(Ended {
                code: output.status.code(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn run(argv: &[&str], millis: u64) -> Outcome<Ended> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(Host::new(Path::new("/")).run(argv, Duration::from_millis(millis)))
    }

    #[test]
    fn every_end_is_told_apart() {
        assert_eq!(run(&["printf", "a"], 5000).and_then(|ended| ended.well("print")).as_deref(), Ok("a"));
        let failed = run(&["ls", "/nonexistent"], 5000).and_then(|ended| ended.well("list")).expect_err("fails");
        assert!(failed.cause == Cause::ToolFailed && failed.detail.contains("No such file"), "{failed}");
        assert_eq!(run(&["kubestrap-no-such-program"], 5000).map_err(|f| f.cause), Err(Cause::ToolMissing));
        assert_eq!(run(&["sleep", "60"], 10).map_err(|f| f.cause), Err(Cause::ToolHung));
    }
}
