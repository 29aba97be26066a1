//! Processes of the program under test: run to their end, or started and watched. Nothing outlives its test.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// No case waits for more than some seconds of work; the rest is for a machine that is busy with builds.
pub const PATIENCE: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(10);

/// The program under test.
pub const KUBESTRAP: &str = env!("CARGO_BIN_EXE_kubestrap");

/// The folder of the program and of the stand-ins, which a build of the workspace puts beside it.
pub fn programs() -> PathBuf {
    let folder = Path::new(KUBESTRAP).parent().expect("the program has a folder").to_owned();
    for name in ["kubeadm", "kubelet", "ctr", "autoscaling-standin", "imds-standin", "s3-stub"] {
        let missing = "build the stand-ins first: cargo build --workspace --all-targets";
        assert!(folder.join(name).exists(), "{name} is not beside {KUBESTRAP}: {missing}");
    }
    folder
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error: the log, and the last words.
    pub stderr: String,
}

impl Finished {
    /// Both streams.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Asserts the exit code; shows what was said otherwise.
    #[track_caller]
    pub fn expect(self, code: i32) -> Finished {
        assert_eq!(self.code, Some(code), "exit code; it said:\n{}", self.said());
        self
    }

    /// Asserts that all of these were said.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Finished {
        for text in texts {
            assert!(self.said().contains(text), "{text:?} was not said:\n{}", self.said());
        }
        self
    }
}

/// Runs a command to its end; a command that does not end is killed and fails the test.
#[track_caller]
pub fn finish(command: &mut Command) -> Finished {
    Agent::start(command).finished(PATIENCE)
}

/// A process that runs. Killed when it is dropped.
pub struct Agent {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Agent {
    /// Starts it, and collects what it says.
    pub fn start(command: &mut Command) -> Agent {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start");
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().expect("piped"), &stdout),
            collect(child.stderr.take().expect("piped"), &stderr),
        ];
        Agent { child, stdout, stderr, readers }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks what it has printed on standard output so far.
    pub fn output(&self) -> impl Fn() -> String + use<> {
        let stdout = self.stdout.clone();
        move || stdout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks what it has logged since now.
    pub fn news(&self) -> impl Fn() -> String + use<> {
        let (stderr, from) = (self.stderr.clone(), self.log().len());
        move || stderr.lock().unwrap_or_else(PoisonError::into_inner)[from..].to_owned()
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Waits until something is so; fails with the log when it takes too long or the process ends first.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(self.runs() || is_so(), "it ended before {what}:\n{}", self.log());
            assert!(began.elapsed() < PATIENCE, "not within {} s: {what}\n{}", PATIENCE.as_secs(), self.log());
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until its log contains a text.
    #[track_caller]
    pub fn until_logged(&mut self, text: &str) {
        let log = self.stderr.clone();
        let heard = move || log.lock().unwrap_or_else(PoisonError::into_inner).contains(text);
        self.until(&format!("the log contains {text:?}"), heard);
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        signal(self.pid(), nix::sys::signal::Signal::SIGTERM);
    }

    /// kill -9, and waits for its end. What it started lives on.
    pub fn kill(mut self) -> Finished {
        self.child.kill().expect("kill");
        self.finished(PATIENCE)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finished(mut self, at_most: Duration) -> Finished {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            assert!(began.elapsed() < at_most, "it did not end within {} s:\n{}", at_most.as_secs(), self.log());
            std::thread::sleep(PAUSE);
        };
        // Its descendants do not hold the pipes: jobs have streams of their own.
        for reader in self.readers.drain(..) {
            reader.join().expect("reader");
        }
        let text = |stream: &Mutex<String>| stream.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Finished { code: status.code(), stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(stream: impl Read + Send + 'static, into: &Arc<Mutex<String>>) -> std::thread::JoinHandle<()> {
    let into = into.clone();
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            into.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

/// Sends a signal; a process that is gone already is fine.
pub fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal);
}

/// Every process whose command line contains a text: the pid and the command line.
pub fn processes_of(text: &str) -> Vec<(u32, String)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter_map(|pid| Some((pid, std::fs::read(format!("/proc/{pid}/cmdline")).ok()?)))
        .map(|(pid, line)| (pid, String::from_utf8_lossy(&line).replace('\0', " ")))
        .filter(|(_, line)| line.contains(text))
        .collect()
}

/// Waits until something is so that no agent of ours is asked about.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(PAUSE);
    }
}
