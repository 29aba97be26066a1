//! Commands in a machine, and its files.

use super::{Machine, disk, paths};
use crate::command::{Finished, finish};
use crate::{Result, attempted, fail};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// Where programs are, in every machine.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Machine {
    /// A command in the machine that is not started yet.
    ///
    /// # Errors
    /// When the machine is off.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let Some(init) = self.init() else { return fail(format!("{} is off", self.name())) };
        let mut command = Command::new("nsenter");
        command.args(["-t", &init.pid.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]);
        command.args(arguments).env_clear();
        command.env("PATH", PATH).env("HOME", "/root").env("USER", "root").env("LANG", "C.UTF-8");
        command.env("KUBECONFIG", "/etc/kubernetes/admin.conf");
        Ok(command)
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When the machine is off; a command that fails is none.
    pub fn exec(&self, arguments: &[&str]) -> Result<Finished> {
        finish(&mut self.command(arguments)?)
    }

    /// Runs a script that must end well; what it printed.
    ///
    /// # Errors
    /// When it fails, with its last words.
    pub fn shell(&self, script: &str) -> Result<String> {
        self.exec(&["sh", "-c", script])?.success(format!("run `{script}` on {}", self.name()))
    }

    /// `kubectl ... -o json`, with the rights of the cluster's administrator: on a master.
    ///
    /// # Errors
    /// When kubectl fails, or its answer is not JSON.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Value> {
        let all = [&["kubectl", "--request-timeout=10s"], arguments, &["-o", "json"]].concat();
        let what = format!("run `kubectl {}` on {}", arguments.join(" "), self.name());
        let text = self.exec(&all)?.success(&what)?;
        attempted(serde_json::from_str(&text), what)
    }

    /// `kubestrap status --output json`.
    ///
    /// # Errors
    /// When it fails, or its answer is not JSON.
    pub fn status(&self) -> Result<Value> {
        let done = self.exec(&["kubestrap", "status", "--output", "json"])?;
        let what = format!("run `kubestrap status` on {}", self.name());
        // Its exit code tells about the node; what it says is wanted here.
        match serde_json::from_str(&done.stdout) {
            Ok(value) => Ok(value),
            Err(error) => fail(format!("failed to {what}: {error}: {}{}", done.stdout, done.stderr)),
        }
    }

    /// The whole lines of kubestrap's journal.
    pub fn journal(&self) -> Vec<Value> {
        let text = self.read("/var/lib/kubestrap/journal.jsonl").unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Kills the agent, as `kill -9` does.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_agent(&self) -> Result<()> {
        self.shell("systemctl kill --kill-whom=main --signal=KILL kubestrap.service").map(drop)
    }

    /// Where a file is here; also while the machine is off.
    ///
    /// # Errors
    /// When the path is not absolute, or its links lead in circles.
    pub fn place(&self, path: &str) -> Result<PathBuf> {
        disk::place(self, path, true)
    }

    /// Reads a file; `None` when it is not there.
    pub fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.place(path).ok()?).ok()
    }

    /// Whether a file is there.
    pub fn exists(&self, path: &str) -> bool {
        disk::place(self, path, false)
            .is_ok_and(|place| place.symlink_metadata().is_ok() && !paths::is_whiteout(&place))
    }

    /// Writes a file with its folders.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str, mode: u32) -> Result<()> {
        crate::tree::write(&disk::writable(self, path)?, text, mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;
    use crate::machine::Shared;
    use crate::state::{Process, Saved, State};
    use std::cell::RefCell;
    use std::rc::Rc;

    fn machine(place: &std::path::Path, init: Option<Process>) -> Machine {
        let mut state = State::default();
        state.machines.insert("m1".into(), Saved { number: 11, init });
        let shared = Rc::new(Shared {
            folder: Folder::at(place),
            hierarchies: Vec::new(),
            programs: Vec::new(),
            kubernetes: None,
            images: RefCell::default(),
            state: RefCell::new(state),
            children: RefCell::default(),
        });
        Machine::find(&shared, "m1").expect("m1")
    }

    #[test]
    fn files_of_a_machine_that_is_off_hide_those_of_the_tree_and_leave_them_alone() {
        let place = tempfile::tempdir().expect("folder");
        let machine = machine(place.path(), None);
        crate::tree::write(&place.path().join("tree/etc/hosts"), "tree", 0o644).expect("tree");
        crate::tree::link("/etc", &place.path().join("tree/other")).expect("link");
        assert_eq!(machine.read("/etc/hosts").as_deref(), Some("tree"));
        machine.write("/other/hosts", "own", 0o644).expect("write");
        assert_eq!(
            (machine.read("/etc/hosts"), machine.read("/other/hosts")),
            (Some("own".into()), Some("own".into()))
        );
        let tree = std::fs::read_to_string(place.path().join("tree/etc/hosts")).expect("tree");
        assert_eq!((tree.as_str(), machine.exists("/etc/none")), ("tree", false));
        machine.write("/var/lib/etcd/x", "bound", 0o600).expect("write");
        assert!(place.path().join("run/nodes/m1/disk/etcd/x").is_file());
    }

    #[test]
    fn files_of_a_machine_that_is_on_are_those_of_its_first_process() {
        let place = tempfile::tempdir().expect("folder");
        let machine = machine(place.path(), Process::of(std::process::id().cast_signed()));
        let inside = |name: &str| place.path().join(name).display().to_string();
        std::fs::create_dir(inside("folder")).expect("mkdir");
        crate::tree::link(&inside("folder"), &place.path().join("link")).expect("link");
        machine.write(&inside("link/file"), "text", 0o600).expect("write");
        assert_eq!(machine.read(&inside("folder/file")).as_deref(), Some("text"));
        assert!(machine.exists(&inside("link")) && !machine.exists(&inside("link/none")));
    }
}
