//! What befalls the world while faults last, each calamity at a random time.

use crate::cluster::ENDPOINT;
use crate::invariants::CLUSTER;
use crate::scenario::Calamity;
use crate::store::Writer;
use crate::universe::Universe;
use jiff::SignedDuration;
use kubestrap_core::model::identity::Role;
use std::rc::Rc;
use std::time::Duration;

/// Lifecycle rules count in days; here an object must at least have been left alone for this long.
const LIFECYCLE_AGE: SignedDuration = SignedDuration::from_mins(30);

/// Schedules everything.
pub fn schedule(universe: &Rc<Universe>) {
    for calamity in universe.scenario.calamities {
        let at = universe.rng.between(Duration::from_secs(5), universe.scenario.faults_last);
        // Most of a bootstrap happens in its first minutes.
        let at = if universe.rng.below(2) == 0 && *calamity != Calamity::Lifecycle { at / 16 } else { at };
        let world = universe.clone();
        match calamity {
            Calamity::DeathOfHolder => universe.deaths_due.set(universe.deaths_due.get() + 1),
            _ => universe.timeline.after(at, move || strike(&world, *calamity)),
        }
    }
}

fn strike(universe: &Rc<Universe>, calamity: Calamity) {
    let machine = universe.rng.below(universe.machines.len() as u64) as usize;
    match calamity {
        Calamity::Kill => universe.kill_agent(machine, "at random"),
        Calamity::Reboot => universe.reboot(machine),
        Calamity::Stall => stall(universe, machine),
        Calamity::Death => lose(universe, machine),
        Calamity::DeathOfHolder => {}
        Calamity::Lifecycle => expire(universe),
        Calamity::Tampering => tamper(universe),
        Calamity::TokensRevoked => revoke(universe),
    }
}

fn stall(universe: &Rc<Universe>, machine: usize) {
    let duration = universe.rng.between(Duration::from_secs(30), Duration::from_secs(900));
    universe.note(machine, format_args!("STALLS for {} s", duration.as_secs()));
    universe.machines[machine].stalled_until.set(universe.timeline.now() + duration);
    // The executor looks again when there is an entry at the end of the stall.
    universe.timeline.after(duration, || {});
}

/// Loses a machine, but never the last master.
fn lose(universe: &Rc<Universe>, machine: usize) {
    let masters = universe.survivors().filter(|machine| machine.role == Role::Master).count();
    if universe.machines[machine].role == Role::Worker || masters > 1 {
        universe.count("deaths");
        universe.die(machine);
    }
}

impl Universe {
    /// This machine changed the register: perhaps the last thing it did.
    pub fn tempt_fate(self: &Rc<Self>, machine: usize) {
        if self.deaths_due.get() > 0 && self.faulty() && self.rng.below(3) > 0 {
            self.deaths_due.set(self.deaths_due.get() - 1);
            let delay = self.rng.between(Duration::ZERO, Duration::from_secs(15));
            let universe = self.clone();
            self.timeline.after(delay, move || lose(&universe, machine));
        }
    }
}

fn expire(universe: &Rc<Universe>) {
    let key = *universe.rng.pick(&["cluster.json", "join/worker.json"]);
    let Some(object) = universe.shared(key) else { return };
    // A fast-moving lifecycle rule would race with a claim that is on its way; S3's work once a day.
    let old = universe.wall().duration_since(object.modified) > LIFECYCLE_AGE;
    let witnessed = universe.monitor.borrow().committed.is_none() || universe.reports_name_a_cluster();
    if old && witnessed {
        universe.count("lifecycle");
        universe.note_world(format_args!("a lifecycle rule deletes {key}"));
        universe.force(Writer::World, &format!("{CLUSTER}/{key}"), None);
    }
}

fn revoke(universe: &Rc<Universe>) {
    universe.note_world(format_args!("an administrator deletes all bootstrap tokens"));
    let mut etcds = universe.etcds.borrow_mut();
    let mut monitor = universe.monitor.borrow_mut();
    for etcd in etcds.iter_mut() {
        let skew = universe.machines[etcd.machine].skew;
        let tokens = std::mem::take(&mut etcd.tokens);
        monitor.revoked.extend(tokens.into_iter().map(|(id, token)| (id, (token.expires_at, skew))));
    }
}

/// What an intruder with write access (or a restored backup) leaves in the place of the bundle.
fn tamper(universe: &Rc<Universe>) {
    if universe.shared("cluster.json").is_none() {
        // A bundle before there is a register is evidence of a lost cluster: rightly, nobody would ever begin.
        return;
    }
    let key = format!("{CLUSTER}/join/worker.json");
    let now = universe.wall();
    let hour = SignedDuration::from_hours(1);
    let mut bundle = serde_json::json!({
        "schema": 1, "cluster": CLUSTER, "uid": "7f1e6f0a-2f5c-4b52-9d5c-0e5e5f3f7a11", "endpoint": ENDPOINT,
        "ca_sha256": format!("sha256:{}", "ab".repeat(32)), "server_version": crate::kubeadm::KUBE_VERSION,
        "token": "abcdef.0123456789abcdef", "issued_at": now.to_string(), "expires_at": (now + hour).to_string(),
        "sequence": 1, "publisher": "intruder", "write_id": "7f1e6f0a-2f5c-4b52-9d5c-0e5e5f3f7a12",
    });
    let mut genuine: Option<serde_json::Value> =
        universe.object(&key).and_then(|object| serde_json::from_slice(&object.body).ok());
    let kind = universe.rng.below(6);
    match (kind, genuine.as_mut()) {
        (0, _) => bundle["cluster"] = "other".into(),
        (1, Some(genuine)) => {
            bundle = genuine.take();
            bundle["expires_at"] = (now - hour).to_string().into();
        }
        (2, Some(genuine)) => {
            bundle = genuine.take();
            bundle["endpoint"] = "evil.example.com:6443".into();
            bundle["ca_sha256"] = format!("sha256:{}", "cd".repeat(32)).into();
        }
        (3, Some(genuine)) => {
            bundle = genuine.take();
            bundle["issued_at"] = (now + hour * 2).to_string().into();
            bundle["expires_at"] = (now + hour * 3).to_string().into();
        }
        (4, _) => bundle = "not a bundle".into(),
        _ => {}
    }
    universe.count("tampered");
    universe.note_world(format_args!("an intruder replaces the bundle (kind {kind})"));
    universe.force(Writer::World, &key, Some(bundle.to_string().into_bytes()));
}
