//! The join lock and the sealed keys: one master joins at a time, a lock is taken from the dead alone (rule 2), and the
//! keys of a cluster are made once (rule 1).

use crate::leaving::Leaving;
use crate::machine::Machine;
use crate::store::{Stored, Writer};
use crate::universe::Universe;
use jiff::SignedDuration;
use kubestrap_core::model::lock::JoinLock;
use kubestrap_core::model::names::CaHash;
use serde_json::Value;

/// The key of the lock.
pub const LOCK: &str = "join/control-plane.lock";
/// The key of the sealed keys.
const SEALED: &str = "pki/bundle";

/// A master looks for a lock of its own that is over this often.
const NOTICED: SignedDuration = SignedDuration::from_mins(16);

fn lock_in(object: Option<&Stored>) -> Option<JoinLock> {
    serde_json::from_slice(&object?.body).ok()
}

fn text(object: &Stored, key: &str) -> Option<String> {
    let value: Value = serde_json::from_slice(&object.body).ok()?;
    value.get(key)?.as_str().map(str::to_owned)
}

impl Universe {
    pub(super) fn judge_lock(&self, writer: Writer, before: Option<&Stored>, after: Option<&Stored>) {
        let (before, after) = (lock_in(before), lock_in(after));
        let holder = |lock: &JoinLock| self.machine_of(&lock.holder.identity).map(|machine| machine.index);
        let (old, new) = (before.as_ref().and_then(holder), after.as_ref().and_then(holder));
        let name = |machine: Option<usize>| machine.map_or("nobody", |machine| self.machines[machine].name.as_str());
        match writer {
            Writer::Node(by) if after.is_some() && new != Some(by) => {
                self.violate(2, format!("{} locks the joins for {}", name(Some(by)), name(new)));
            }
            Writer::Node(by) if after.is_none() && old != Some(by) => {
                self.violate(2, format!("{} gives back the join lock of {}", name(Some(by)), name(old)));
            }
            Writer::Node(by)
                if after.is_some() && old.is_some_and(|old| old != by && !self.machines[old].is_dead()) =>
            {
                self.violate(
                    2,
                    format!("{} takes the join lock from {}, which is not gone", name(Some(by)), name(old)),
                );
            }
            Writer::Node(by) => {
                if after.is_some() {
                    self.monitor.borrow_mut().unlocked_joins.remove(&by);
                }
                let what = match (old, after.is_some()) {
                    (None, _) => "join-locks",
                    (Some(old), true) if old != by => "join-locks-taken-over",
                    (Some(_), true) => "join-locks-renewed",
                    (Some(_), false) => "join-locks-given-back",
                };
                self.count(what);
            }
            Writer::Operator => {
                self.count("joins-unlocked");
                if before.as_ref().is_some_and(|lock| !self.monitor.borrow().shown_locks.contains(lock)) {
                    self.violate(2, format!("an operator removes a lock of {} that nobody showed", name(old)));
                }
                if let Some(old) = old.filter(|old| !self.machines[*old].is_dead()) {
                    let works = if self.runs_kubeadm(old, "join") { "join-unlocked-in-work" } else { "join-unlocked" };
                    self.count(works);
                    let mut monitor = self.monitor.borrow_mut();
                    monitor.unlocked_joins.insert(old);
                    monitor.ever_unlocked_joins.insert(old);
                }
            }
            Writer::World => {}
        }
    }

    /// A further control plane is about to join: its machine holds the lock.
    pub(super) fn judge_turn(&self, machine: usize) {
        self.count("control-plane-joins");
        if self.machines[machine].leaving.get() == Leaving::Left {
            self.violate(5, format!("{} joins again although it has left", self.machines[machine].name));
        }
        let holder = lock_in(self.shared(LOCK).as_ref()).map(|lock| lock.holder.identity);
        let ours = holder.as_deref() == Some(self.machines[machine].identity.key().as_str());
        if !ours && !self.monitor.borrow().unlocked_joins.contains(&machine) {
            let name = &self.machines[machine].name;
            self.violate(2, format!("{name} joins the control plane without the join lock"));
        }
    }

    /// The keys are sealed, or sealed anew: their cluster and their CA never change.
    pub(super) fn judge_sealed(&self, writer: Writer, before: Option<&Stored>, after: Option<&Stored>) {
        let Writer::Node(machine) = writer else { return };
        let Some(after) = after else { return };
        self.count("pki-sealed");
        let same = |key: &str| before.is_none_or(|before| text(before, key) == text(after, key));
        if !same("ca_sha256") || !same("uid") {
            self.violate(1, format!("{} replaces the cluster's keys by others", self.machines[machine].name));
        }
        let committed = self.monitor.borrow().committed.as_ref().map(|(_, ca, _)| ca.to_string());
        if committed.is_some() && committed != text(after, "ca_sha256") {
            self.violate(1, format!("{} seals keys of another CA", self.machines[machine].name));
        }
    }

    /// Init makes its certificates: with the authorities that are sealed, and no others.
    pub fn judge_authorities(&self, machine: usize, ca: Option<&CaHash>) {
        if !self.scenario.pki || self.monitor.borrow().unlocked.contains(&machine) {
            return;
        }
        let sealed = self.shared(SEALED).and_then(|object| text(&object, "ca_sha256"));
        if sealed.is_none() || sealed.as_deref() != ca.map(CaHash::as_str) {
            let name = &self.machines[machine].name;
            self.violate(1, format!("{name} runs init with CA {ca:?}, and {sealed:?} is sealed"));
        }
    }

    /// Why the cluster's keys and lock are not as they should be in the end.
    pub(super) fn keys_missing(&self) -> Option<String> {
        if self.shared(SEALED).is_none() {
            return Some("the cluster's keys are not in the store".to_owned());
        }
        let object = self.shared(LOCK)?;
        let lock = lock_in(Some(&object))?;
        // A write that came late is noticed by its sender after a while. What a machine left that is gone is taken over by
        // the next one that joins.
        let old = self.wall().duration_since(object.modified) > NOTICED;
        let free = |machine: &Machine| machine.is_dead() || (machine.ready.get() && !old);
        let free = self.machine_of(&lock.holder.identity).is_some_and(free);
        (!free).then(|| format!("the join lock of {} is left over", lock.holder.node_name))
    }
}
