//! One run of kubeadm: where, with which script, and what happens to it on the way.

use super::Failure;
use super::flags::Flags;
use crate::files;
use crate::script::{Action, MEMORY, Moment, Script, seconds};
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Phases of an init or join, about: the whole time is spread over them.
const PHASES: f64 = 12.0;

/// One run.
pub struct Run {
    /// `init`, `join`, `reset`.
    pub command: &'static str,
    /// The machine's root folder.
    pub root: PathBuf,
    /// How to behave.
    pub script: Script,
    /// `--ignore-preflight-errors`, lower case.
    pub ignore: Vec<String>,
    /// `--skip-phases`.
    skip: Vec<String>,
    pace: Duration,
}

impl Run {
    /// A run of a command.
    ///
    /// # Errors
    /// None at present; flags that do not fit are refused here.
    pub(super) fn new(command: &'static str, root: PathBuf, script: Script, flags: &Flags) -> Result<Self, Failure> {
        let whole = match command {
            "init" => script.init_seconds,
            "join" => script.join_seconds,
            _ => 0.0,
        };
        let ignore = flags.text("ignore-preflight-errors").unwrap_or_default();
        let ignore = ignore.split(',').filter(|name| !name.is_empty()).map(str::to_lowercase).collect();
        let skip = flags.text("skip-phases").unwrap_or_default();
        let skip = skip.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Ok(Run { command, root, script, ignore, skip, pace: seconds(whole / PHASES) })
    }

    /// A path of the machine, below the root.
    pub fn path(&self, absolute: &str) -> PathBuf {
        files::under(&self.root, absolute)
    }

    /// The file behind `--config`: as chroot would have it, and as given when there is nothing at that place.
    ///
    /// # Errors
    /// When the flag is missing: the stand-in does not know the flags that could take its place.
    pub(super) fn config_path(&self, flags: &Flags) -> Result<PathBuf, Failure> {
        let given = flags.text("config").ok_or_else(|| Failure::new("the stand-in needs --config"))?;
        let inside = self.path(given);
        Ok(if inside.exists() { inside } else { Path::new(given).to_owned() })
    }

    /// A timeout of the documents, scaled by the script.
    pub fn timeout(&self, text: Option<&str>, default: Duration) -> Duration {
        let given = text.and_then(|text| crate::golang::parse_duration(text).ok()).unwrap_or(default);
        given.mul_f64(self.script.timeout_scale.max(0.0))
    }

    /// Does a phase: takes its time and its faults. One that `--skip-phases` names is not even logged.
    ///
    /// # Errors
    /// The phase's own, with its name, or a fault's.
    pub fn phase(&self, name: &str, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        if self.skips(name) {
            return Ok(());
        }
        self.enter(name)?;
        work().map_err(|failure| failure.in_phase(name))?;
        self.leave(name)
    }

    /// Does the parts of a phase; each of them takes its own time and faults.
    ///
    /// # Errors
    /// A part's, with its name.
    pub fn phases(&self, name: &str, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        if self.skips(name) {
            return Ok(());
        }
        self.enter(name)?;
        work()?;
        self.leave(name)
    }

    /// Whether `--skip-phases` names it.
    pub fn skips(&self, name: &str) -> bool {
        self.skip.iter().any(|skipped| skipped == name)
    }

    /// What the workflow runner says of names in `--skip-phases` that are no phases.
    ///
    /// # Errors
    /// For the first one.
    pub fn refuse_unknown_phases(&self, known: &[&str]) -> Result<(), Failure> {
        let unknown = self.skip.iter().find(|name| !known.contains(&name.as_str()));
        unknown.map_or(Ok(()), |name| Err(Failure::new(format!("invalid phase name: {name}"))))
    }

    /// The beginning of a phase.
    ///
    /// # Errors
    /// A fault's.
    pub fn enter(&self, name: &str) -> Result<(), Failure> {
        self.log(&json!({"event": "phase", "phase": name}))?;
        std::thread::sleep(self.pace);
        self.fault(name, Moment::Before)
    }

    /// The end of a phase.
    ///
    /// # Errors
    /// A fault's.
    pub fn leave(&self, name: &str) -> Result<(), Failure> {
        self.fault(name, Moment::After)
    }

    fn fault(&self, phase: &str, at: Moment) -> Result<(), Failure> {
        let Some(fault) = self.script.take_fault(&self.root, self.command, phase, at)? else { return Ok(()) };
        self.log(&json!({"event": "fault", "phase": phase, "action": format!("{:?}", fault.action)}))?;
        match fault.action {
            Action::Fail => Err(Failure::new("the stand-in was told to fail here").in_phase(phase)),
            Action::Slow => {
                std::thread::sleep(seconds(fault.seconds));
                Ok(())
            }
            Action::Hang => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            Action::Die => {
                kill(Pid::this(), Signal::SIGKILL).map_err(|e| Failure::new(e.to_string()))?;
                Ok(())
            }
        }
    }

    /// Appends a line to the run log (`runs.jsonl` in [`MEMORY`], mode 0600): what tests and benches count and measure.
    ///
    /// # Errors
    /// When the log can not be written: a test that can not count must not go on.
    pub fn log(&self, event: &Value) -> Result<(), Failure> {
        let folder = self.path(MEMORY);
        files::make_folder(&folder, 0o755)?;
        let mut line = event.clone();
        line["at_us"] = json!(Timestamp::now().as_microsecond());
        line["pid"] = json!(std::process::id());
        line["command"] = json!(self.command);
        let mut log = OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join("runs.jsonl"))?;
        Ok(log.write_all(format!("{line}\n").as_bytes())?)
    }
}
