//! Programs: named jobs that outlive the agent, and short tools.
//!
//! A job is run by a wrapper, which is this program again (`kubestrap job --dir DIR --run RUN`). The wrapper holds a
//! lock for as long as the job runs, so *running* is "the lock is held": no pid can be reused, and after a reboot nobody
//! holds it. The program has the lock too, as its standard input: it is seen to run whenever its wrapper is killed, also
//! between its start and the note of its pid. The wrapper writes how the job ended before it lets go. With systemd it is
//! a transient unit, outside the agent's own control group and sandbox; without, it is a process of its own session.

mod record;
mod supervise;
mod tool;
mod unit;

pub use supervise::supervise;

use self::record::{Record, Spec};
use crate::adapters::durable;
use crate::adapters::killpoint::{self, Point, cross};
use async_trait::async_trait;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{JobSpec, JobState, Jobs as JobsPort, ToolOutput};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A wrapper takes its lock within milliseconds of its start; systemd under load takes longer.
const WRAPPER_START: Duration = Duration::from_secs(20);
/// A killed process ends at once, unless it hangs in the kernel.
const STOP: Duration = Duration::from_secs(20);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Starts and observes programs.
pub struct Jobs {
    folder: PathBuf,
    wrapper: PathBuf,
    systemd: bool,
}

impl Jobs {
    /// Jobs with their records below `folder` (a real path), wrapped by the program `wrapper`. `systemd` says whether
    /// they become transient units.
    pub fn new(folder: PathBuf, wrapper: PathBuf, systemd: bool) -> Self {
        Jobs { folder, wrapper, systemd }
    }

    /// Whether this machine is run by systemd and we may ask it to start units.
    pub fn has_systemd(root: &Path) -> bool {
        root == Path::new("/") && Path::new("/run/systemd/system").is_dir() && runs_as_root()
    }

    fn record(&self, name: &str) -> Outcome<Record> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(Failure::new(Cause::Internal, format!("name the job {name:?}"), "it is not kebab-case"));
        }
        Ok(Record::at(self.folder.join(name)))
    }

    /// Starts the wrapper; it is not a child that anybody waits for.
    fn launch(&self, record: &Record, job: &JobSpec) -> io::Result<()> {
        let mut command = if self.systemd {
            let mut command = Command::new("systemd-run");
            command.args(unit::options(&job.name)).arg(&self.wrapper);
            command
        } else {
            Command::new(&self.wrapper)
        };
        command.arg("job").arg("--dir").arg(record.folder()).args(["--run", &job.run]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        tool::minimal_environment(&mut command);
        killpoint::pass_on(&mut command);
        let mut child = command.process_group(0).spawn()?;
        if self.systemd && !child.wait()?.success() {
            return Err(io::Error::other("systemd-run refused to start the transient unit"));
        }
        if !self.systemd {
            // Reaped when it ends; a wrapper that outlives us is reaped by init.
            std::thread::spawn(move || child.wait());
        }
        Ok(())
    }
}

/// The owner of our own process's folder: `geteuid` would need nix's `user` feature, which brings NSS in.
fn runs_as_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0)
}

/// Takes the lock of a job, or tells that it is held.
fn try_lock(record: &Record, arg: FlockArg) -> io::Result<Option<Flock<File>>> {
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(record.lock());
    let file = match open {
        Err(error) if durable::is_missing(&error) => return Ok(None),
        opened => opened?,
    };
    match Flock::lock(file, arg) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn failed(verb: &str, name: &str) -> impl Fn(io::Error) -> Failure {
    let attempted = format!("{verb} the job {name}");
    move |error| durable::failure(attempted.clone(), &error)
}

#[async_trait(?Send)]
impl JobsPort for Jobs {
    async fn start(&self, job: &JobSpec) -> Outcome<()> {
        let record = self.record(&job.name)?;
        let failed = failed("start", &job.name);
        durable::make_folders(record.folder()).map_err(&failed)?;
        cross(Point::JobFolderMade, record.folder());
        let Some(lock) = try_lock(&record, FlockArg::LockExclusiveNonblock).map_err(&failed)? else {
            return Ok(());
        };
        cross(Point::JobLocked, record.folder());
        if record.orphan_is_alive() {
            return Ok(());
        }
        record.begin(&Spec::new(job)).map_err(&failed)?;
        cross(Point::JobBegun, record.folder());
        // From here to the wrapper's own lock nobody holds it; the wrapper checks that the record is still its own.
        drop(lock);
        cross(Point::JobReleased, record.folder());
        self.launch(&record, job).map_err(|error| {
            Failure::new(Cause::ToolFailed, format!("start the job {}", job.name), error.to_string())
        })?;
        cross(Point::JobLaunched, record.folder());
        let began = Instant::now();
        while began.elapsed() < WRAPPER_START {
            let held = try_lock(&record, FlockArg::LockExclusiveNonblock).map_err(&failed)?.is_none();
            if held || record.end(&job.run).is_some() {
                cross(Point::JobConfirmed, record.folder());
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let why = format!("its wrapper did not start within {} s", WRAPPER_START.as_secs());
        Err(Failure::new(Cause::ToolHung, format!("start the job {}", job.name), why))
    }

    async fn observe(&self, name: &str) -> Outcome<JobState> {
        let record = self.record(name)?;
        let Some(spec) = record.spec().map_err(failed("observe", name))? else { return Ok(JobState::Absent) };
        let held = try_lock(&record, FlockArg::LockSharedNonblock).map_err(failed("observe", name))?.is_none();
        if held {
            return Ok(JobState::Running { run: spec.run });
        }
        match record.end(&spec.run) {
            Some(end) => Ok(JobState::Ended { run: spec.run, end }),
            None if record.orphan_is_alive() => Ok(JobState::Running { run: spec.run }),
            None => Ok(JobState::Absent),
        }
    }

    async fn stop(&self, name: &str) -> Outcome<()> {
        let record = self.record(name)?;
        let failed = failed("stop", name);
        let began = Instant::now();
        while began.elapsed() < STOP {
            // The wrapper sees its program end, records it and lets go.
            record.kill_child();
            let free = try_lock(&record, FlockArg::LockSharedNonblock).map_err(&failed)?.is_some();
            if (free || !record.folder().exists()) && !record.orphan_is_alive() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let why = format!("it did not end within {} s of being killed", STOP.as_secs());
        Err(Failure::new(Cause::ToolHung, format!("stop the job {name}"), why))
    }

    async fn output(&self, name: &str, limit: usize) -> Outcome<String> {
        self.record(name)?.output_tail(limit).map_err(failed("read the output of", name))
    }

    async fn forget(&self, name: &str) -> Outcome<()> {
        let record = self.record(name)?;
        if !record.folder().exists() {
            return Ok(());
        }
        match try_lock(&record, FlockArg::LockExclusiveNonblock).map_err(failed("forget", name))? {
            Some(_lock) => {
                std::fs::remove_dir_all(record.folder()).map_err(failed("forget", name))?;
                cross(Point::JobForgotten, record.folder());
                Ok(())
            }
            None => Err(Failure::new(Cause::Internal, format!("forget the job {name}"), "it still runs")),
        }
    }

    async fn run(&self, argv: &[String], deadline: Duration) -> Outcome<ToolOutput> {
        tool::run(argv, deadline).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubestrap_core::ports::JobEnd;

    fn jobs(folder: &Path) -> Jobs {
        Jobs::new(folder.join("jobs"), "/bin/false".into(), false)
    }

    fn spec(run: &str) -> JobSpec {
        let argv = ["true".to_owned()].to_vec();
        JobSpec { name: "kubeadm-init".into(), run: run.into(), argv, deadline: Duration::from_secs(5) }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_job_runs_while_its_lock_is_held_and_is_absent_when_it_vanished() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = jobs(folder.path());
        let observe = || block_on(jobs.observe("kubeadm-init")).unwrap();
        assert_eq!(observe(), JobState::Absent);
        let record = jobs.record("kubeadm-init").unwrap();
        durable::make_folders(record.folder()).unwrap();
        record.begin(&Spec::new(&spec("a"))).unwrap();
        let lock = try_lock(&record, FlockArg::LockExclusiveNonblock).unwrap().unwrap();
        assert_eq!(observe(), JobState::Running { run: "a".into() });
        drop(lock);
        assert_eq!(observe(), JobState::Absent);
        record.write_end("a", &JobEnd::Exited(3)).unwrap();
        assert_eq!(observe(), JobState::Ended { run: "a".into(), end: JobEnd::Exited(3) });
        // The end of an earlier run says nothing about a new one.
        record.begin(&Spec::new(&spec("b"))).unwrap();
        assert_eq!(observe(), JobState::Absent);
        block_on(jobs.forget("kubeadm-init")).unwrap();
        assert_eq!(observe(), JobState::Absent);
        block_on(jobs.forget("kubeadm-init")).unwrap();
    }

    #[test]
    fn the_wrapper_runs_records_and_times_out() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = jobs(folder.path());
        let record = jobs.record("kubeadm-init").unwrap();
        durable::make_folders(record.folder()).unwrap();
        let run = |run: &str, script: &str, deadline: u64| {
            let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
            let job = JobSpec { argv, deadline: Duration::from_secs(deadline), ..spec(run) };
            record.begin(&Spec::new(&job)).unwrap();
            supervise(record.folder(), run).unwrap();
            (record.end(run), block_on(jobs.output("kubeadm-init", 100)).unwrap())
        };
        assert_eq!(run("a", "echo out; echo err >&2; exit 4", 5), (Some(JobEnd::Exited(4)), "out\nerr\n".to_owned()));
        assert_eq!(run("b", "kill -9 $$", 5).0, Some(JobEnd::Killed(9)));
        assert_eq!(run("c", "sleep 60 & sleep 60", 1).0, Some(JobEnd::TimedOut));
        let job = JobSpec { argv: ["/nowhere/kubeadm".to_owned()].to_vec(), ..spec("d") };
        record.begin(&Spec::new(&job)).unwrap();
        supervise(record.folder(), "d").unwrap();
        assert!(matches!(record.end("d"), Some(JobEnd::NotStarted(_))));
        // A wrapper that comes late finds that its run has ended, or is not wanted any more, and does nothing.
        supervise(record.folder(), "d").unwrap();
        supervise(record.folder(), "a").unwrap();
        assert!(matches!(record.end("d"), Some(JobEnd::NotStarted(_))));
    }

    #[test]
    fn a_program_that_never_stops_writing_does_not_fill_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = jobs(folder.path());
        let record = jobs.record("kubeadm-init").unwrap();
        durable::make_folders(record.folder()).unwrap();
        // What it writes last comes after the look that cuts the rest.
        let script = "head -c 64000000 /dev/zero; sleep 1; echo last words; exit 1";
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        record.begin(&Spec::new(&JobSpec { argv, deadline: Duration::from_secs(30), ..spec("a") })).unwrap();
        supervise(record.folder(), "a").unwrap();
        assert_eq!(record.end("a"), Some(JobEnd::Exited(1)));
        let kept = std::fs::metadata(record.folder().join("output")).unwrap().len();
        assert!(kept < 8 << 20, "{kept} bytes are on the disk");
        assert!(block_on(jobs.output("kubeadm-init", 100)).unwrap().ends_with("\0last words\n"));
    }

    #[test]
    fn a_program_gets_the_environment_of_its_record_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = jobs(folder.path());
        let record = jobs.record("kubeadm-init").unwrap();
        durable::make_folders(record.folder()).unwrap();
        let argv = ["/usr/bin/env".to_owned()].to_vec();
        let mut spec = Spec::new(&JobSpec { argv, ..spec("a") });
        assert_eq!(spec.environment.get("PATH"), std::env::var("PATH").ok().as_ref());
        assert!(spec.environment.keys().all(|name| !name.starts_with("CARGO")), "{:?}", spec.environment);
        spec.environment = [("HTTPS_PROXY".to_owned(), "http://proxy.example.com".to_owned())].into();
        record.begin(&spec).unwrap();
        supervise(record.folder(), "a").unwrap();
        assert_eq!(block_on(jobs.output("kubeadm-init", 1000)).unwrap(), "HTTPS_PROXY=http://proxy.example.com\n");
    }

    #[test]
    fn a_stopped_job_is_killed_with_what_it_started_and_its_end_is_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = jobs(folder.path());
        block_on(jobs.stop("kubeadm-init")).unwrap();
        let record = jobs.record("kubeadm-init").unwrap();
        durable::make_folders(record.folder()).unwrap();
        let argv = ["sh", "-c", "sleep 60 & sleep 60"].map(str::to_owned).to_vec();
        record.begin(&Spec::new(&JobSpec { argv, deadline: Duration::from_secs(30), ..spec("a") })).unwrap();
        let place = record.folder().to_owned();
        let wrapper = std::thread::spawn(move || supervise(&place, "a"));
        while !record.orphan_is_alive() {
            std::thread::sleep(LOOK_EVERY);
        }
        block_on(jobs.stop("kubeadm-init")).unwrap();
        wrapper.join().unwrap().unwrap();
        let state = block_on(jobs.observe("kubeadm-init")).unwrap();
        assert_eq!(state, JobState::Ended { run: "a".into(), end: JobEnd::Killed(9) });
    }

    #[test]
    fn tools_are_bounded_in_time_and_output() {
        let run = |script: &str, seconds| {
            let argv = ["sh", "-c", script].map(str::to_owned);
            block_on(tool::run(&argv, Duration::from_secs(seconds)))
        };
        let output = run("echo a; echo b >&2; exit 3", 5).unwrap();
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (Some(3), "a\n", "b\n"));
        assert_eq!(run("head -c 1000000 /dev/zero", 5).unwrap().stdout.len(), 64 * 1024);
        assert_eq!(run("sleep 60", 1).map_err(|f| f.cause), Err(Cause::ToolHung));
        assert_eq!(
            block_on(tool::run(&["/nowhere".to_owned()], Duration::from_secs(1))).map_err(|f| f.cause),
            Err(Cause::ToolMissing)
        );
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["", "../x", "a/b", "A", &"a".repeat(65)] {
            assert!(jobs(folder.path()).record(bad).is_err(), "{bad:?}");
        }
    }
}
