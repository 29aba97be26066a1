//! The operators' hook that replaces a machine outside of EC2: a job, once a grant.

use crate::journal::Entry;
use crate::kubeadm::output::tail;
use crate::model::cause::Outcome;
use crate::node::Node;
use crate::ports::{JobEnd, JobSpec, JobState};
use crate::steps::journal;
use std::time::Duration;
use uuid::Uuid;

/// One at a time, whatever the grant.
const JOB: &str = "replace-machine";
/// A machine that writes a new image onto its disk needs minutes.
const DEADLINE: Duration = Duration::from_secs(2 * 60 * 60);
const OUTPUT_BYTES: usize = 16 * 1024;

/// Where the hook stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hook {
    /// It has not been started for this grant.
    Due,
    /// It runs.
    Running,
    /// It ended well. What comes of it is seen in the verdict.
    Done,
    /// It ended otherwise.
    Failed(String),
    /// It was started, and there is no trace of how it ended: the machine was restarted, perhaps by the hook itself.
    Traceless,
}

/// Looks. The journal remembers a start when a restart of the machine took the job's record away.
pub(super) async fn look(node: &Node, grant: Uuid) -> Outcome<Hook> {
    let run = grant.to_string();
    let jobs = &node.world.jobs;
    Ok(match jobs.observe(JOB).await? {
        JobState::Running { run: of } if of == run => Hook::Running,
        JobState::Ended { run: of, end: JobEnd::Exited(0) } if of == run => Hook::Done,
        JobState::Ended { run: of, end } if of == run => {
            let output = jobs.output(JOB, OUTPUT_BYTES).await.unwrap_or_default();
            // The limit may have cut a secret in its first line; half of one is not recognised.
            let whole = if output.len() < OUTPUT_BYTES {
                output.as_str()
            } else {
                output.split_once('\n').map_or("", |(_, rest)| rest)
            };
            Hook::Failed(format!("the hook {}: {}", ending(&end), tail(whole).join(" | ")))
        }
        _ if journal(node).lines()?.iter().any(|line| line.entry == Entry::HookStarted { grant }) => Hook::Traceless,
        _ => Hook::Due,
    })
}

/// Starts it: first the journal, so that it never runs twice for one grant, then the job.
pub(super) async fn start(node: &Node, grant: Uuid, argv: &[String]) -> Outcome<()> {
    let jobs = &node.world.jobs;
    if let JobState::Ended { .. } = jobs.observe(JOB).await? {
        jobs.forget(JOB).await?;
    }
    journal(node).note(Entry::HookStarted { grant })?;
    let job = JobSpec { name: JOB.to_owned(), run: grant.to_string(), argv: argv.to_vec(), deadline: DEADLINE };
    jobs.start(&job).await
}

fn ending(end: &JobEnd) -> String {
    match end {
        JobEnd::Exited(code) => format!("ended with exit code {code}"),
        JobEnd::Killed(signal) => format!("was ended by signal {signal}"),
        JobEnd::TimedOut => format!("did not end within {} min and was killed", DEADLINE.as_secs() / 60),
        JobEnd::NotStarted(why) => format!("could not be started ({why})"),
    }
}
