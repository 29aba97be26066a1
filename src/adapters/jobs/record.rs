//! What is kept about a job, in a folder of mode 0700.
//!
//! | file | what |
//! |---|---|
//! | `lock` | held (flock) by the wrapper and its program while the job runs |
//! | `spec.json` | which run, what it executes; written before it starts |
//! | `child.json` | the program's pid and start time, should the wrapper be killed |
//! | `output` | both streams of the program; mode 0600, for kubeadm prints secrets |
//! | `end.json` | how it ended; written before the lock is released |

use crate::adapters::durable;
use crate::adapters::killpoint::{Point, cross};
use kubestrap_core::ports::{JobEnd, JobSpec};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const LIMIT: u64 = 64 * 1024;
/// An output that has grown beyond this, in bytes, is cut: kubeadm writes some kilobytes, and a program that never stops
/// writing must not fill the disk.
const MAX_OUTPUT: u64 = 8 * 1024 * 1024;
/// What is kept of it then, in bytes: its end, of which core asks for half as much at most.
const KEPT_OUTPUT: u64 = 64 * 1024;

/// Which run of a job, and what it executes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub run: String,
    pub argv: Vec<String>,
    pub deadline_s: u64,
    /// What the program may know of the agent's environment. Here and not in the transient unit, whose environment every
    /// user may ask systemd for: a proxy's URL may hold a password.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

impl Spec {
    pub fn new(job: &JobSpec) -> Self {
        Spec {
            run: job.run.clone(),
            argv: job.argv.clone(),
            deadline_s: job.deadline.as_secs(),
            environment: super::tool::passed().collect(),
        }
    }
}

/// A process that cannot be mistaken for a later one with its pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Child {
    pid: u32,
    /// Field 22 of `/proc/<pid>/stat`, in clock ticks since boot.
    start_time: u64,
    boot_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    run: String,
    #[serde(flatten)]
    how: How,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    Exited(i32),
    Killed(i32),
    TimedOut(bool),
    NotStarted(String),
}

/// The folder of a job.
#[derive(Debug, Clone)]
pub struct Record {
    folder: PathBuf,
}

impl Record {
    pub fn at(folder: PathBuf) -> Self {
        Record { folder }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn lock(&self) -> PathBuf {
        self.folder.join("lock")
    }

    /// Begins a run: what is known of the one before is gone, and the spec is durable. The caller holds the lock.
    pub fn begin(&self, spec: &Spec) -> io::Result<()> {
        durable::sweep_dead(&self.folder, Path::new(""));
        for name in ["end.json", "child.json", "output"] {
            match std::fs::remove_file(self.folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        cross(Point::JobCleared, &self.folder);
        self.write("spec.json", spec)
    }

    /// The run that was begun last; `None` when there was none.
    pub fn spec(&self) -> io::Result<Option<Spec>> {
        self.read("spec.json")
    }

    /// The output, opened for appending.
    pub fn open_output(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(self.folder.join("output"))
    }

    /// Leaves the last [`KEPT_OUTPUT`] bytes of an output of more than [`MAX_OUTPUT`]. Nobody else writes but the
    /// program, which appends; what it writes in just this moment is lost.
    pub fn cut_output(&self) -> io::Result<()> {
        let path = self.folder.join("output");
        if std::fs::metadata(&path)?.len() <= MAX_OUTPUT {
            return Ok(());
        }
        let mut file = OpenOptions::new().read(true).append(true).open(path)?;
        let mut tail = Vec::new();
        file.seek(SeekFrom::End(-KEPT_OUTPUT.cast_signed()))?;
        (&file).take(KEPT_OUTPUT).read_to_end(&mut tail)?;
        file.set_len(0)?;
        file.write_all(&tail)
    }

    /// The last bytes of the output.
    pub fn output_tail(&self, limit: usize) -> io::Result<String> {
        let mut file = match File::open(self.folder.join("output")) {
            Err(error) if durable::is_missing(&error) => return Ok(String::new()),
            opened => opened?,
        };
        let limit = limit as u64;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(limit)))?;
        let mut tail = Vec::new();
        file.take(limit).read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    }

    /// How this run ended; `None` while it has not, or when another one did.
    pub fn end(&self, run: &str) -> Option<JobEnd> {
        let end: End = self.read("end.json").ok()??;
        (end.run == run).then_some(match end.how {
            How::Exited(code) => JobEnd::Exited(code),
            How::Killed(signal) => JobEnd::Killed(signal),
            How::TimedOut(_) => JobEnd::TimedOut,
            How::NotStarted(why) => JobEnd::NotStarted(why),
        })
    }

    pub fn write_end(&self, run: &str, end: &JobEnd) -> io::Result<()> {
        let how = match end {
            JobEnd::Exited(code) => How::Exited(*code),
            JobEnd::Killed(signal) => How::Killed(*signal),
            JobEnd::TimedOut => How::TimedOut(true),
            JobEnd::NotStarted(why) => How::NotStarted(why.clone()),
        };
        self.write("end.json", &End { run: run.to_owned(), how })
    }

    /// Notes the program's process, for the case that its wrapper is killed.
    pub fn write_child(&self, pid: u32) -> io::Result<()> {
        match identify(pid) {
            Some(child) => self.write("child.json", &child),
            // It has ended already: its end is what will be written.
            None => Ok(()),
        }
    }

    /// Whether the program still runs although its wrapper does not.
    pub fn orphan_is_alive(&self) -> bool {
        let child: Option<Child> = self.read("child.json").ok().flatten();
        child.is_some_and(|child| identify(child.pid).as_ref() == Some(&child))
    }

    /// Kills the program and what it started, all of its process group. Nothing happens when it does not run.
    pub fn kill_child(&self) {
        let child: Option<Child> = self.read("child.json").ok().flatten();
        if let Some(child) = child.filter(|child| identify(child.pid).as_ref() == Some(child)) {
            // It fails only when the group has just ended.
            let _ = killpg(Pid::from_raw(child.pid.cast_signed()), Signal::SIGKILL);
        }
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        durable::replace(&self.folder.join(name), &serde_json::to_vec(value)?, 0o600)
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> io::Result<Option<T>> {
        let mut file = match File::open(self.folder.join(name)) {
            Err(error) if durable::is_missing(&error) => return Ok(None),
            opened => opened?,
        };
        match durable::read_bounded(&mut file, LIMIT)? {
            Some(body) => Ok(Some(serde_json::from_slice(&body)?)),
            None => Err(io::Error::other(format!("{name} is larger than {LIMIT} bytes"))),
        }
    }
}

/// The process of this pid, unless it is a zombie or there is none.
fn identify(pid: u32) -> Option<Child> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let alive = !matches!(*fields.first()?, "Z" | "X");
    alive.then_some(Child { pid, start_time: fields.get(19)?.parse().ok()?, boot_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_and_not_by_its_pid_alone() {
        let own = identify(std::process::id()).unwrap();
        assert!(own.start_time > 0);
        let folder = tempfile::tempdir().unwrap();
        let record = Record::at(folder.path().to_owned());
        assert!(!record.orphan_is_alive());
        record.write_child(std::process::id()).unwrap();
        assert!(record.orphan_is_alive());
        record.write("child.json", &Child { start_time: own.start_time + 1, ..own }).unwrap();
        assert!(!record.orphan_is_alive());
    }
}
