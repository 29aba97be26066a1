//! What kubeadm is started with: rule 1 (init), 4 and 9 (join), 5 (reset), 8 (one at a time).

use super::CLUSTER;
use crate::store::{Stored, Writer};
use crate::universe::Universe;
use jiff::{SignedDuration, Timestamp};
use kubestrap_core::kubeadm::machine::BOOTSTRAP_CONF;
use kubestrap_core::model::bundle::JoinBundle;
use kubestrap_core::model::names::CaHash;
use kubestrap_core::model::register::{Register, RegisterState};
use kubestrap_core::ports::JobSpec;
use serde_json::{Value, json};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

/// What kubeadm made; nothing below it may be removed by hand but on the same ground as a reset.
const KUBERNETES: &str = "/etc/kubernetes";

/// Core tolerates a minute; the store's Date has whole seconds, and an answer may be seconds old.
const WRONG_CLOCK: SignedDuration = SignedDuration::from_secs(75);

impl Universe {
    /// A job is about to start.
    pub fn judge_job(&self, machine: usize, job: &JobSpec, documents: &[Value]) {
        self.judge_clone(machine, "starts a job");
        let busy = {
            let state = self.machines[machine].state.borrow();
            state
                .jobs
                .iter()
                .find(|(name, job)| job.end.is_none() && name.starts_with("kubeadm"))
                .map(|(name, _)| name.clone())
        };
        if let Some(other) = busy.filter(|_| job.name.starts_with("kubeadm")) {
            self.violate(8, format!("{} is started while {other} runs", job.name));
        }
        match job.argv.get(1).map(String::as_str) {
            Some("init") => self.judge_init(machine, job),
            Some("join") => self.judge_join(machine, documents),
            Some("reset") => self.judge_reset(machine),
            _ => {}
        }
    }

    fn judge_init(&self, machine: usize, job: &JobSpec) {
        self.count("inits");
        let machine = &self.machines[machine];
        let name = &machine.name;
        if self.monitor.borrow().unlocked.contains(&machine.index) {
            // An operator gave the register away over the head of a living holder; only the commit protects then.
            return;
        }
        let journal = machine.state.borrow().disk.text("/var/lib/kubestrap/journal.jsonl").unwrap_or_default();
        let register = self.object(&format!("{CLUSTER}/cluster.json"));
        let register = register.and_then(|object| serde_json::from_slice::<Register>(&object.body).ok());
        match register.map(|register| register.state) {
            Some(RegisterState::Initialising { attempt, holder, .. }) => {
                if holder.is_none_or(|holder| holder.identity != machine.identity.key()) {
                    self.violate(1, format!("{name} runs init while somebody else holds the register"));
                } else if !journal.contains(&attempt.to_string()) || job.run != attempt.to_string() {
                    self.violate(1, format!("{name} runs init for another attempt than the register's {attempt}"));
                }
            }
            Some(RegisterState::Established { .. }) => {
                self.violate(1, format!("{name} runs init on an established cluster"))
            }
            None => self.violate(1, format!("{name} runs init without a register")),
        }
    }

    fn judge_join(&self, machine: usize, documents: &[Value]) {
        self.count("joins");
        if documents.iter().any(|document| document.get("controlPlane").is_some()) {
            self.judge_turn(machine);
        }
        let name = &self.machines[machine].name;
        let Some(discovery) = documents.iter().find_map(|document| document.pointer("/discovery/bootstrapToken"))
        else {
            return self.violate(4, format!("{name} joins without token and CA hash"));
        };
        let text = |key: &str| discovery.get(key).and_then(Value::as_str).unwrap_or_default();
        let pins = discovery.get("caCertHashes").cloned().unwrap_or_default();
        let (_, read_at) = self.machines[machine].clock.at_last_reading();
        let retired_since = |(_, ca, at): &(Uuid, CaHash, Duration)| pins == json!([ca.as_str()]) && read_at <= *at;
        if self.monitor.borrow().retired.iter().any(retired_since) {
            // It was the cluster's when the bundle was read.
            return;
        }
        let Some((uid, ca, _)) = self.monitor.borrow().committed.clone() else {
            return self.violate(4, format!("{name} joins a cluster that was never committed"));
        };
        if pins != json!([ca.as_str()]) {
            self.violate(4, format!("{name} joins with CA {pins}, and the cluster's is {ca}"));
        }
        if text("apiServerEndpoint") != crate::cluster::ENDPOINT {
            self.violate(4, format!("{name} joins at {}", text("apiServerEndpoint")));
        }
        let id = text("token").split('.').next().unwrap_or_default();
        let Some((expires_at, skew)) = self.issued(id) else {
            return self.violate(4, format!("{name} joins {uid} with token {id}, which was never in this cluster"));
        };
        // What was judged was judged by the clock as it was then, of a bundle as it was then.
        let (own, read_at) = self.machines[machine].clock.at_last_reading();
        if own.abs() > WRONG_CLOCK {
            self.violate(9, format!("{name} joins with a clock that is wrong by {} s", own.as_secs()));
        }
        // A node may be wrong about the time by its own clock's error and the publisher's, not by more.
        let error = own.abs() + skew.abs() + SignedDuration::from_secs(30);
        let read_at = self.wall_at(read_at);
        if expires_at + error < read_at {
            self.violate(9, format!("{name} joins with a token that had died at {expires_at}, read at {read_at}"));
        }
    }

    /// When the token of this id dies or died, and how wrong the clock of its API server is.
    fn issued(&self, id: &str) -> Option<(Timestamp, SignedDuration)> {
        let clusters = self.etcds.borrow().len();
        let of_token = |etcd: usize| {
            let expires_at = self.etcds.borrow()[etcd].tokens.get(id)?.expires_at;
            Some((expires_at, self.machines[self.clock_of(etcd)].clock.skew()))
        };
        (0..clusters).find_map(of_token).or_else(|| self.monitor.borrow().revoked.get(id).copied())
    }

    fn judge_reset(&self, machine: usize) {
        self.count("resets");
        let name = &self.machines[machine].name;
        if self.machines[machine].foreign {
            self.violate(5, format!("{name} resets a control plane that somebody else made"));
        }
        if self.monitor.borrow().commit_sent.contains(&machine) {
            self.violate(5, format!("{name} resets after it sent a commit"));
        }
        if self.machines[machine].has_joined.get() {
            self.violate(5, format!("{name} resets a node that had become ready"));
        }
        self.judge_member_reset(machine);
    }

    /// A file is about to be removed by the agent itself.
    pub fn judge_removal(&self, machine: usize, path: &Path) {
        self.judge_login_removal(machine, path);
        let name = &self.machines[machine].name;
        if path.starts_with(KUBERNETES) && self.machines[machine].foreign {
            self.violate(5, format!("{name} removes {} of somebody else", path.display()));
        }
        // The token that a join leaves is all that may go without kubeadm's own reset, which a proof is needed for.
        if path.starts_with(KUBERNETES) && path != Path::new(BOOTSTRAP_CONF) {
            self.violate(5, format!("{name} removes {} by hand", path.display()));
        }
    }

    /// A write leaves a machine for the store.
    pub fn judge_sending(self: &Rc<Self>, writer: Writer, key: &str, body: Option<&[u8]>) {
        let (Writer::Node(machine), Some(body)) = (writer, body) else { return };
        if key.ends_with("/cluster.json")
            && let Ok(register) = serde_json::from_slice::<Register>(body)
            && register.ca().is_some()
        {
            self.monitor.borrow_mut().commit_sent.insert(machine);
            self.tempt_tidiness(machine);
        }
        if key.ends_with("/join/worker.json") {
            self.judge_publication(machine, body);
        }
    }

    /// A bundle is published only when cluster-info carries the signature for its token (facts: kubeadm).
    fn judge_publication(&self, machine: usize, body: &[u8]) {
        let Ok(bundle) = serde_json::from_slice::<JoinBundle>(body) else { return };
        let etcds = self.etcds.borrow().len();
        let signed = (0..etcds).any(|etcd| self.is_signed(etcd, bundle.token.id()));
        let revoked = self.monitor.borrow().revoked.contains_key(bundle.token.id());
        if !signed && !revoked && bundle.expires_at > self.wall() {
            let name = &self.machines[machine].name;
            self.violate(
                4,
                format!("{name} publishes token {} before cluster-info is signed for it", bundle.token.id()),
            );
        }
    }

    /// The object of a key of the simulated cluster.
    pub fn shared(&self, key: &str) -> Option<Stored> {
        self.object(&format!("{CLUSTER}/{key}"))
    }
}
