//! A kubeadm run as a named job that outlives the agent.

use super::documents;
use crate::model::cause::{Failure, Outcome};
use crate::node::Node;
use crate::ports::{JobEnd, JobSpec, JobState};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

/// How often a running job is looked at. It is a lock and a small file, and every worker waits for it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Enough for the tail of kubeadm's output.
const OUTPUT_BYTES: usize = 32 * 1024;
/// A job's wrapper that has just ended needs a moment to record how.
const VANISHED_LOOKS: u32 = 3;

/// The job of a kubeadm command: `kubeadm-init`, `kubeadm-join`, `kubeadm-reset`.
pub fn job_name(command: &str) -> String {
    format!("kubeadm-{command}")
}

/// How a job that was started ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With exit code 0.
    Well,
    /// Otherwise; with the failure for it.
    Badly(Failure),
    /// It vanished without a trace (power loss, or its wrapper was killed).
    Vanished,
}

/// Waits until the job of this command has ended. The outer deadline is the job's own.
pub async fn wait(node: &Node, command: &str) -> Outcome<Ended> {
    let mut vanished = 0;
    loop {
        match node.world.jobs.observe(&job_name(command)).await? {
            JobState::Running { .. } => vanished = 0,
            JobState::Ended { end: JobEnd::Exited(0), .. } => return Ok(Ended::Well),
            JobState::Ended { end, .. } => return Ok(Ended::Badly(failed(node, command, &end).await)),
            JobState::Absent if vanished >= VANISHED_LOOKS => return Ok(Ended::Vanished),
            JobState::Absent => vanished += 1,
        }
        node.world.time.sleep(LOOK_EVERY).await;
    }
}

async fn failed(node: &Node, command: &str, end: &JobEnd) -> Failure {
    let output = node.world.jobs.output(&job_name(command), OUTPUT_BYTES).await.unwrap_or_default();
    let output = whole_lines(&output);
    let failure = super::output::failure(command, end, output);
    node.update(|status| status.log_tail = super::output::tail(output));
    failure
}

/// The end of an output without the line that the limit cut: half a secret is not recognised as one.
fn whole_lines(output: &str) -> &str {
    if output.len() < OUTPUT_BYTES {
        return output;
    }
    output.split_once('\n').map_or("", |(_, whole)| whole)
}

/// Starts a kubeadm command.
pub async fn start(node: &Node, command: &str, run: &str, argv: &[&str], deadline: Duration) -> Outcome<()> {
    let job = JobSpec {
        name: job_name(command),
        run: run.to_owned(),
        argv: argv.iter().map(|part| (*part).to_owned()).collect(),
        deadline,
    };
    node.world.jobs.start(&job).await
}

/// A kubeadm command that is told in documents what to do.
#[derive(Debug, Clone, Copy)]
pub struct Documented<'a> {
    /// `init` or `join`.
    pub command: &'a str,
    /// Which attempt it belongs to.
    pub attempt: Uuid,
    /// They hold a token.
    pub documents: &'a [Value],
    /// Further arguments.
    pub more: &'a [&'a str],
    /// After which it is ended.
    pub deadline: Duration,
}

/// Writes the documents to a file of mode 0600 ([`documents::path`]), which is the caller's to remove when kubeadm has
/// ended, and starts the command.
pub async fn start_documented(node: &Node, run: &Documented<'_>) -> Outcome<()> {
    let path = documents::path(run.command);
    node.world.files.write(&path, documents::render(run.documents)?.as_bytes(), 0o600)?;
    let (path, root_flags) = (path.to_string_lossy(), documents::root_flags(node));
    let mut argv = vec!["kubeadm", run.command, "--config", &*path];
    argv.extend_from_slice(run.more);
    argv.extend(root_flags.iter().map(String::as_str));
    start(node, run.command, &run.attempt.to_string(), &argv, run.deadline).await
}

/// Starts a kubeadm command and waits for its end. A vanished job is a failure, to be repeated.
pub async fn start_and_wait(node: &Node, command: &str, run: &str, argv: &[&str], deadline: Duration) -> Outcome<()> {
    start(node, command, run, argv, deadline).await?;
    match wait(node, command).await? {
        Ended::Well => Ok(()),
        Ended::Badly(failure) => Err(failure),
        Ended::Vanished => Err(super::output::failure(command, &JobEnd::Killed(9), "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_the_limit_cut_is_not_shown() {
        let whole = format!("{} abcdef.0123456789abcdef it failed\nbecause\n", "x".repeat(OUTPUT_BYTES));
        let cut = &whole[whole.find("cdef.").expect("the token")..];
        let padded = format!("{cut}{}", "y".repeat(OUTPUT_BYTES - cut.len()));
        assert_eq!(whole_lines(cut), cut, "all of a short output is there");
        let tail = crate::kubeadm::output::tail(whole_lines(&padded)).join("\n");
        assert!(tail.starts_with("because") && !tail.contains("0123456789abcdef"), "{tail}");
        assert_eq!(whole_lines(&"z".repeat(OUTPUT_BYTES)), "");
    }
}
