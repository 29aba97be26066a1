//! Logins of ECR: what containerd reads is the machine's own, lives, is private, and is not taken away while it lives.

use crate::machine::Machine;
use crate::universe::Universe;
use jiff::{SignedDuration, Timestamp};
use std::path::Path;
use std::time::Duration;

/// What the files of containerd's hosts are called.
const HOSTS: &str = "hosts.toml";
/// An hour, by the jitter half an hour more, and some minutes to be asked in.
const LONGEST_DENIAL: Duration = Duration::from_secs(95 * 60);

/// A login that ECR gave.
#[derive(Debug, Clone)]
pub struct Given {
    /// To whom.
    pub machine: usize,
    /// When it ends, by the true time.
    pub expires_at: Timestamp,
    /// What is written: base64 of user and password.
    pub authorization: String,
}

impl Universe {
    /// ECR gave a login; from now on it is looked for everywhere.
    pub fn give_login(&self, given: Given) {
        self.learn_secret(&given.authorization);
        self.monitor.borrow_mut().logins.push(given);
    }

    /// ECR denied a login. What only a person mends is not asked for every minute.
    pub fn deny_login(&self, machine: usize) {
        let until = self.timeline.now() + LONGEST_DENIAL;
        self.monitor.borrow_mut().denied.insert(machine, until);
    }

    /// The login that a text holds, newest first.
    fn login_in(&self, text: &str) -> Option<Given> {
        let monitor = self.monitor.borrow();
        monitor.logins.iter().rev().find(|given| text.contains(&given.authorization)).cloned()
    }

    /// The agent writes a file for containerd.
    pub fn judge_login(&self, machine: usize, path: &Path, body: &[u8], mode: u32) {
        if path.file_name().is_none_or(|name| name != HOSTS) {
            return;
        }
        let name = &self.machines[machine].name;
        self.count("logins");
        if mode != 0o600 {
            self.violate(6, format!("{name} writes {} with mode {mode:o}", path.display()));
        }
        let known = self.machines[machine].state.borrow().disk.has(path);
        if known {
            self.count("logins-refreshed");
        }
        match self.login_in(&String::from_utf8_lossy(body)) {
            Some(given) if given.machine == machine && given.expires_at > self.wall() => {}
            other => self.violate(8, format!("{name} writes {other:?}, which opens nothing, to {}", path.display())),
        }
    }

    /// The agent removes a file of containerd's.
    pub fn judge_login_removal(&self, machine: usize, path: &Path) {
        if path.file_name().is_none_or(|name| name != HOSTS) {
            return;
        }
        let text = self.machines[machine].state.borrow().disk.text(path).unwrap_or_default();
        // A wrong clock makes a login look dead. What its own clock says is all that a machine knows.
        // A file says whole seconds.
        let alive = |given: &Given| given.expires_at > self.wall_of(machine) + SignedDuration::from_secs(1);
        if self.login_in(&text).as_ref().is_some_and(alive) && !self.scenario.has_wrong_clocks() {
            self.violate(8, format!("{} takes away a login that lives", self.machines[machine].name));
        }
        self.count("logins-died");
    }

    /// What is wrong with the login of a machine that is a node, once ECR answers.
    pub(super) fn login_missing(&self, machine: &Machine) -> Option<String> {
        let ec2 = machine.identity.ec2()?;
        if self.monitor.borrow().denied.get(&machine.index).is_some_and(|until| self.timeline.now() < *until) {
            return None;
        }
        let host = format!("{}.dkr.ecr.{}.amazonaws.com", ec2.account, ec2.region);
        let text = machine.state.borrow().disk.text(format!("/etc/containerd/certs.d/{host}/{HOSTS}"));
        let Some(text) = text else { return Some(format!("{} has no login of ECR", machine.name)) };
        let lives = self.login_in(&text).is_some_and(|given| given.expires_at > self.wall());
        (!lives).then(|| format!("{} has a login of ECR that is dead", machine.name))
    }
}
