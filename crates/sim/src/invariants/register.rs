//! Rules 1, 2 and 3: the register's three transitions and no others.

use super::CLUSTER;
use crate::store::{Stored, Writer};
use crate::universe::Universe;
use kubestrap_core::model::names::CaHash;
use kubestrap_core::model::register::{Holder, Register, RegisterState};
use serde_json::Value;
use uuid::Uuid;

fn parse(object: Option<&Stored>) -> Option<Result<Register, String>> {
    object.map(|object| serde_json::from_slice(&object.body).map_err(|error| error.to_string()))
}

impl Universe {
    pub(super) fn judge_register(&self, writer: Writer, before: Option<&Stored>, after: Option<&Stored>) {
        let (before, after) = match (parse(before), parse(after)) {
            (Some(Err(why)), _) | (_, Some(Err(why))) => return self.violate(1, format!("a broken register: {why}")),
            (before, after) => (before.and_then(Result::ok), after.and_then(Result::ok)),
        };
        let Some(after) = after else {
            match (writer, before) {
                (Writer::Node(machine), _) => {
                    self.violate(1, format!("{} deleted the register", self.machines[machine].name));
                }
                (Writer::Operator, Some(before)) => self.judge_retirement(&before),
                _ => {}
            }
            return;
        };
        if let Some(before) = &before
            && before.uid != after.uid
        {
            self.violate(1, format!("the uid changed from {} to {}", before.uid, after.uid));
        }
        match (before.map(|before| before.state), &after.state) {
            (None, RegisterState::Initialising { holder, .. }) => self.judge_claim(writer, holder.as_ref()),
            (None, RegisterState::Established { ca_sha256, .. }) => self.judge_put_back(writer, after.uid, ca_sha256),
            (Some(RegisterState::Initialising { holder, .. }), RegisterState::Initialising { holder: new, .. }) => {
                self.judge_takeover(writer, holder.as_ref(), new.as_ref());
            }
            (
                Some(RegisterState::Initialising { attempt, holder, .. }),
                RegisterState::Established { attempt: made_by, ca_sha256, .. },
            ) => {
                if attempt != *made_by {
                    self.violate(1, "a commit over another attempt".to_owned());
                }
                self.judge_commit(writer, after.uid, holder.as_ref(), ca_sha256);
            }
            (Some(RegisterState::Established { .. }), _) => {
                self.violate(1, "an established register was changed".to_owned());
            }
        }
    }

    /// `cluster retire`: what follows is another cluster.
    fn judge_retirement(&self, before: &Register) {
        self.count("retirements");
        let mut monitor = self.monitor.borrow_mut();
        let committed = monitor.committed.take();
        if let Some((uid, ca, _)) = committed {
            monitor.retired.push((uid, ca, self.timeline.now()));
            if uid != before.uid {
                monitor.violate(1, format!("{} was retired, and {uid} was the cluster", before.uid));
            }
        }
    }

    fn writer_of(&self, writer: Writer, holder: Option<&Holder>) -> Option<usize> {
        match writer {
            Writer::Node(machine) if holder.is_some_and(|h| h.identity == self.machines[machine].identity.key()) => {
                Some(machine)
            }
            _ => None,
        }
    }

    fn judge_claim(&self, writer: Writer, holder: Option<&Holder>) {
        self.count("claims");
        if !self.monitor.borrow().retired.is_empty() {
            self.count("second-cluster");
        }
        if self.writer_of(writer, holder).is_none() {
            self.violate(1, "the register was claimed for somebody else".to_owned());
        }
        let committed = self.monitor.borrow().committed.clone();
        if let Some((uid, ..)) = committed {
            return self.violate(3, format!("a second cluster is begun after {uid} was committed"));
        }
        if let Some(evidence) = self.evidence_of_a_cluster() {
            self.violate(3, format!("a second cluster is begun while {evidence} names one"));
        }
    }

    /// An object, besides the register, that names a cluster which was not retired.
    pub fn evidence_of_a_cluster(&self) -> Option<String> {
        let (store, monitor) = (self.store.borrow(), self.monitor.borrow());
        let uid = |body: &[u8]| {
            let value: Option<Value> = serde_json::from_slice(body).ok();
            value.and_then(|value| value.get("uid")?.as_str().map(str::to_owned))
        };
        let retired = |uid: &str| monitor.retired.iter().any(|(known, ..)| known.to_string() == uid);
        let found = store.objects.iter().find(|(key, object)| {
            let key = key.strip_prefix(CLUSTER).unwrap_or(key).trim_start_matches('/');
            let shared = ["pki/", "snapshots/", "join/"].iter().any(|prefix| key.starts_with(prefix));
            match uid(&object.body) {
                Some(uid) => (shared || key.starts_with("nodes/")) && !retired(&uid),
                None => shared,
            }
        });
        found.map(|(key, _)| key.clone())
    }

    fn judge_put_back(&self, writer: Writer, uid: Uuid, ca: &CaHash) {
        self.count("put-back");
        let committed = self.monitor.borrow().committed.clone();
        match (committed, writer) {
            (Some((known_uid, known_ca, _)), _) if known_uid == uid && known_ca == *ca => {}
            // The register vanished before the commit landed; putting it back is the commit.
            (None, Writer::Node(machine)) => {
                self.monitor.borrow_mut().committed = Some((uid, ca.clone(), machine));
            }
            _ => self.violate(1, format!("a register was put back that was never committed: {ca}")),
        }
    }

    fn judge_takeover(&self, writer: Writer, old: Option<&Holder>, new: Option<&Holder>) {
        let old_machine = old.and_then(|holder| self.machine_of(&holder.identity));
        let Some(new) = new else {
            if writer != Writer::Operator {
                self.violate(2, "somebody but an operator emptied the holder".to_owned());
            }
            self.count("unlocks");
            if let Some(machine) = old_machine.filter(|machine| !machine.is_dead()) {
                self.monitor.borrow_mut().unlocked.insert(machine.index);
            }
            return;
        };
        self.count("takeovers");
        let Some(taker) = self.writer_of(writer, Some(new)) else {
            return self.violate(2, "the register was taken for somebody else".to_owned());
        };
        match old_machine {
            // The holder was emptied by an operator.
            None if old.is_none() => {}
            // A new attempt of the same machine.
            Some(machine) if machine.index == taker => {}
            Some(machine) if machine.ec2_state(self.timeline.now()) == Some("terminated") => {}
            Some(machine) if machine.is_dead() && machine.ec2_state(self.timeline.now()).is_none() => {
                self.count("taken-from-forgotten");
            }
            _ => {
                let holder = old.map(|holder| holder.node_name.as_str()).unwrap_or_default();
                self.violate(
                    2,
                    format!("{} took the register from {holder}, which is not gone", self.machines[taker].name),
                );
            }
        }
    }

    fn judge_commit(&self, writer: Writer, uid: Uuid, holder: Option<&Holder>, ca: &CaHash) {
        self.count("commits");
        self.judge_running_inits();
        let Some(machine) = self.writer_of(writer, holder) else {
            return self.violate(1, "a commit by somebody who does not hold the register".to_owned());
        };
        let known = self.monitor.borrow().committed.clone();
        if known.is_some_and(|(known_uid, known_ca, _)| known_uid != uid || known_ca != *ca) {
            self.violate(1, format!("a second CA was committed: {ca}"));
        }
        // A late commit may land after its machine was lost; the disk is still the truth about what it made.
        let pem = self.machines[machine].state.borrow().disk.text("/etc/kubernetes/pki/ca.crt");
        if pem.and_then(|pem| crate::kubeadm::ca::pin(&pem)).as_ref() != Some(ca) {
            self.violate(1, format!("{} committed {ca}, which it does not have", self.machines[machine].name));
        }
        self.monitor.borrow_mut().committed = Some((uid, ca.clone(), machine));
    }
}
