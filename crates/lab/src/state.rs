//! What runs, written down before it is made: a lab that crashed is cleaned up by the next one.

use crate::folder::Folder;
use crate::{Result, attempted};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A killed process is gone within this time, or hangs in the kernel.
const DEATH: Duration = Duration::from_secs(30);

/// A process that cannot be mistaken for a later one with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// The process with this number, while it lives.
    pub fn of(pid: i32) -> Option<Process> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let started = fields.get(19)?.parse().ok()?;
        (*fields.first()? != "Z").then_some(Process { pid, started })
    }

    /// Whether it still runs.
    pub fn alive(&self) -> bool {
        Process::of(self.pid) == Some(*self)
    }

    /// Kills it and waits until it is gone; nothing when it is gone already.
    pub fn kill(&self) {
        let began = Instant::now();
        while self.alive() && began.elapsed() < DEATH {
            let pid = nix::unistd::Pid::from_raw(self.pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The last byte of its address.
    pub number: u8,
    /// PID 1, as this machine sees it; none while it is off.
    pub init: Option<Process>,
}

/// What is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Left up on purpose (`lab up`, `--keep`).
    pub kept: bool,
    /// Machines by name.
    pub machines: BTreeMap<String, Saved>,
    /// Servers by name.
    pub servers: BTreeMap<String, Process>,
}

impl State {
    /// What was written down; nothing when there is nothing, or it was cut short.
    pub fn load(folder: &Folder) -> State {
        let text = std::fs::read(folder.run().join("state.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes it down.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, folder: &Folder) -> Result<()> {
        let path = folder.run().join("state.json");
        let fresh = folder.run().join("state.json.new");
        attempted(std::fs::create_dir_all(folder.run()), "make the lab's folder")?;
        let text = serde_json::to_vec_pretty(self)?;
        attempted(std::fs::write(&fresh, text), format!("write {}", fresh.display()))?;
        attempted(std::fs::rename(&fresh, &path), format!("write {}", path.display()))
    }

    /// Whether it was left up on purpose, and is still there.
    pub fn is_kept(&self) -> bool {
        self.kept && self.machines.values().any(|machine| machine.init.is_some_and(|init| init.alive()))
    }

    /// The number a new machine gets: addresses below 11 are the fabric's.
    pub fn free_number(&self) -> Option<u8> {
        (11..=250).find(|number| self.machines.values().all(|machine| machine.number != *number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let own = Process::of(std::process::id().cast_signed()).expect("own");
        assert!(own.alive());
        assert!(!Process { started: own.started + 1, ..own }.alive());
        assert_eq!(Process::of(i32::MAX), None);
    }

    #[test]
    fn state_survives_and_a_broken_file_is_no_state() {
        let place = tempfile::tempdir().expect("folder");
        let folder = Folder::at(place.path());
        assert_eq!(State::load(&folder), State::default());
        let mut state = State { kept: true, ..State::default() };
        state.machines.insert("m1".into(), Saved { number: 11, init: Some(Process { pid: 1, started: 2 }) });
        state.save(&folder).expect("save");
        assert_eq!(State::load(&folder), state);
        assert_eq!(state.free_number(), Some(12));
        std::fs::write(folder.run().join("state.json"), "{").expect("write");
        assert_eq!(State::load(&folder), State::default());
    }
}
