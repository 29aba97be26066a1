//! The wrapper's side: run the program, keep its deadline, record its end.

use super::record::{Record, Spec};
use super::try_lock;
use crate::adapters::killpoint::{Point, cross};
use kubestrap_core::ports::JobEnd;
use nix::fcntl::FlockArg;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long a program may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// How often the size of the output is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Runs the job recorded in `folder` as run `run`, to its end. Does nothing when another run was begun meanwhile, or
/// this one has ended: a wrapper may come late, after the agent that started it died.
pub fn supervise(folder: &Path, run: &str) -> io::Result<()> {
    cross(Point::WrapperStarted, folder);
    // A session of its own: the agent's terminal and its signals do not reach it. Fails only where it is done already.
    let _ = nix::unistd::setsid();
    let record = Record::at(folder.to_owned());
    let Some(lock) = try_lock(&record, FlockArg::LockExclusive)? else { return Ok(()) };
    cross(Point::WrapperLocked, folder);
    let spec = match record.spec()? {
        Some(spec) if spec.run == run && record.end(run).is_none() && !record.orphan_is_alive() => spec,
        _ => return Ok(()),
    };
    let end = match start(&record, &spec, lock.try_clone()?) {
        Ok(child) => {
            cross(Point::WrapperChildStarted, folder);
            record.write_child(child.id())?;
            cross(Point::WrapperChildNoted, folder);
            conclude(child, Duration::from_secs(spec.deadline_s), &record)?
        }
        Err(error) => JobEnd::NotStarted(format!("{}: {error}", spec.argv.first().map_or("", String::as_str))),
    };
    cross(Point::WrapperChildEnded, folder);
    record.write_end(run, &end)?;
    cross(Point::WrapperEndNoted, folder);
    Ok(())
}

/// `lock` becomes the program's standard input, an empty file: should we be killed at any moment, the job's lock is held
/// until the program has ended. Otherwise there would be a moment in which nobody knows of it, and a second one would be
/// started beside it. What the program leaves running does not hold it longer than us: letting go of it is explicit.
fn start(record: &Record, spec: &Spec, lock: File) -> io::Result<Child> {
    let (program, arguments) = spec.argv.split_first().ok_or_else(|| io::Error::other("the job has no program"))?;
    let output = record.open_output()?;
    cross(Point::WrapperOutputOpened, record.folder());
    let mut command = Command::new(program);
    command.args(arguments).stdin(lock).stdout(output.try_clone()?).stderr(output).process_group(0);
    command.env_clear().envs(&spec.environment);
    command.spawn()
}

fn conclude(mut child: Child, deadline: Duration, record: &Record) -> io::Result<JobEnd> {
    let group = Pid::from_raw(child.id().cast_signed());
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(child.wait()));
    let began = Instant::now();
    while began.elapsed() < deadline {
        if let Some(status) = wait(&ended, LOOK_EVERY.min(deadline.saturating_sub(began.elapsed())))? {
            return Ok(how(status));
        }
        // Best effort: a full disk must not end the job.
        let _ = record.cut_output();
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // It fails only when the group is gone, which the wait then shows.
        let _ = killpg(group, signal);
        if wait(&ended, GRACE)?.is_some() {
            break;
        }
    }
    // What the program left running in its group would go on changing the machine.
    let _ = killpg(group, Signal::SIGKILL);
    Ok(JobEnd::TimedOut)
}

fn wait(ended: &Receiver<io::Result<ExitStatus>>, at_most: Duration) -> io::Result<Option<ExitStatus>> {
    ended.recv_timeout(at_most).ok().transpose()
}

fn how(status: ExitStatus) -> JobEnd {
    match (status.code(), status.signal()) {
        (Some(code), _) => JobEnd::Exited(code),
        (None, signal) => JobEnd::Killed(signal.unwrap_or_default()),
    }
}
