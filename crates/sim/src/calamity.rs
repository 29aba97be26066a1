//! What befalls the world while faults last, each calamity at a random time.

use crate::cluster::ENDPOINT;
use crate::invariants::CLUSTER;
use crate::machine::furnish;
use crate::network::partition;
use crate::scenario::Calamity;
use crate::store::Writer;
use crate::universe::Universe;
use jiff::SignedDuration;
use kubestrap_core::kube::ADMIN_CONF;
use kubestrap_core::model::identity::Role;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Lifecycle rules count in days; here an object must at least have been left alone for this long.
const LIFECYCLE_AGE: SignedDuration = SignedDuration::from_mins(30);

/// The longest that an API server is away: less than the half hour for which joins are tried.
const LONGEST_API_OUTAGE: Duration = Duration::from_secs(25 * 60);
/// The longest that ECR is away.
const LONGEST_ECR_OUTAGE: Duration = Duration::from_secs(60 * 60);
/// How long EC2 is blind at most.
const LONGEST_BLINDNESS: Duration = Duration::from_secs(40 * 60);

/// Schedules everything.
pub fn schedule(universe: &Rc<Universe>) {
    crate::fleet::schedule(universe);
    for calamity in universe.scenario.calamities.iter().copied() {
        let at = universe.rng.between(Duration::from_secs(5), universe.scenario.faults_last);
        // Most of a bootstrap happens in its first minutes.
        let needs_time =
            matches!(calamity, Calamity::Lifecycle | Calamity::Ec2Blind | Calamity::MasterLost | Calamity::LeaderLost);
        let early = universe.rng.below(2) == 0 && !needs_time;
        let at = if early { at / 16 } else { at };
        let world = universe.clone();
        match calamity {
            Calamity::DeathOfHolder => universe.deaths_due.set(universe.deaths_due.get() + 1),
            Calamity::HolderStopped => universe.stops_due.set(universe.stops_due.get() + 1),
            Calamity::AdminConfLost => universe.losses_due.set(universe.losses_due.get() + 1),
            _ => universe.timeline.after(at, move || strike(&world, calamity)),
        }
    }
    let clones = universe.machines.iter().filter(|machine| machine.is_clone(&universe.scenario));
    for machine in clones {
        let (world, index) = (universe.clone(), machine.index);
        universe.timeline.after(machine.starts_at.get(), move || copy_disk(&world, index));
    }
    if universe.scenario.rebuilt {
        let world = universe.clone();
        universe.timeline.after(universe.scenario.faults_last * 4 / 10, move || tear_down(&world));
    }
}

fn strike(universe: &Rc<Universe>, calamity: Calamity) {
    let machine = universe.rng.below(universe.machines.len() as u64) as usize;
    match calamity {
        Calamity::Kill => {
            universe.count(calamity.name());
            universe.kill_agent(machine, "at random");
        }
        Calamity::Reboot => universe.reboot(machine),
        Calamity::Stall => stall(universe, machine),
        Calamity::Death => lose(universe, machine, calamity),
        Calamity::MasterLost => lose_master(universe),
        Calamity::MasterLeaves => crate::leaving::ask(universe),
        Calamity::SpotNotice => crate::leaving::take_back(universe),
        Calamity::RebootNotice => crate::leaving::announce_reboot(universe),
        Calamity::LeaderLost => crate::leader::lose(universe),
        Calamity::DeathOfHolder | Calamity::HolderStopped | Calamity::AdminConfLost => {}
        Calamity::Lifecycle => expire(universe),
        Calamity::Tampering => tamper(universe),
        Calamity::TokensRevoked => revoke(universe),
        Calamity::Partition => {
            universe.count(calamity.name());
            partition(universe, machine);
        }
        Calamity::ClockStep => universe.step_clock(machine),
        Calamity::DiskFull => fill_disk(universe, machine),
        Calamity::ApiAway => {
            let lasts = for_a_while(universe, Duration::from_secs(60), LONGEST_API_OUTAGE);
            universe.count(calamity.name());
            universe.note_world(format_args!("the API server is DOWN for {} s", lasts.as_secs()));
            universe.api_away_until.set(universe.timeline.now() + lasts);
        }
        Calamity::EcrAway => {
            let lasts = for_a_while(universe, Duration::from_secs(300), LONGEST_ECR_OUTAGE);
            universe.count(calamity.name());
            universe.note_world(format_args!("ECR is AWAY for {} s", lasts.as_secs()));
            universe.ecr_away_until.set(universe.timeline.now() + lasts);
        }
        Calamity::Ec2Blind => {
            let lasts = for_a_while(universe, Duration::from_secs(300), LONGEST_BLINDNESS);
            universe.note_world(format_args!("EC2 shows nobody anything for {} s", lasts.as_secs()));
            universe.blind_until.set(universe.timeline.now() + lasts);
        }
    }
}

/// A random time that ends with the faults at the latest.
fn for_a_while(universe: &Universe, least: Duration, most: Duration) -> Duration {
    let left = universe.scenario.faults_last.saturating_sub(universe.timeline.now());
    universe.rng.between(least, most).min(left)
}

fn fill_disk(universe: &Rc<Universe>, machine: usize) {
    let lasts = for_a_while(universe, Duration::from_secs(10), Duration::from_secs(600));
    universe.count("disk-full");
    universe.note(machine, format_args!("DISK FULL for {} s", lasts.as_secs()));
    universe.machines[machine].full_until.set(universe.timeline.now() + lasts);
}

/// An instance is made from the disk of another one, as it is at this moment.
fn copy_disk(universe: &Rc<Universe>, machine: usize) {
    let others = universe.machines.iter().filter(|other| !other.is_clone(&universe.scenario)).count();
    let from = &universe.machines[universe.rng.below(others as u64) as usize];
    let mut disk = from.state.borrow().disk.clone();
    disk.wipe("/run");
    furnish(&mut disk, &universe.machines[machine].identity);
    let bound = disk.has("/var/lib/kubestrap/identity.json");
    universe.machines[machine].cloned.set(bound);
    let how = if bound { "which has state on it" } else { "which has no state yet" };
    universe.note(machine, format_args!("is made from the disk of {}, {how}", from.name));
    universe.machines[machine].state.borrow_mut().disk = disk;
}

/// Every machine of the first generation is terminated.
fn tear_down(universe: &Rc<Universe>) {
    universe.note_world(format_args!("the environment is torn down"));
    for machine in universe.machines.iter().filter(|machine| machine.generation == 0) {
        universe.die(machine.index);
    }
}

fn stall(universe: &Rc<Universe>, machine: usize) {
    let duration = universe.rng.between(Duration::from_secs(30), Duration::from_secs(900));
    universe.count("stall");
    universe.note(machine, format_args!("STALLS for {} s", duration.as_secs()));
    universe.machines[machine].stalled_until.set(universe.timeline.now() + duration);
    // The executor looks again when there is an entry at the end of the stall.
    let (world, up) = (universe.clone(), universe.has_live_agent(machine));
    universe.timeline.after(duration, move || {
        if up && world.has_live_agent(machine) && world.monitor.borrow().unlocked.contains(&machine) {
            world.count("woke-after-takeover");
            world.note(machine, format_args!("wakes up, and has lost the register meanwhile"));
        }
    });
}

/// Loses a machine, but never the last master.
fn lose(universe: &Rc<Universe>, machine: usize, calamity: Calamity) {
    let masters = universe.survivors().filter(|machine| machine.role == Role::Master).count();
    // A cluster that is lost shows nothing but that; the worst moment may well be too early for the others.
    let kept = calamity == Calamity::DeathOfHolder || !universe.scenario.pki || universe.can_miss(machine);
    if universe.machines[machine].role == Role::Worker || (masters > 1 && kept) {
        universe.count(calamity.name());
        universe.die(machine);
    }
}

/// Loses a master that is a voter, and not the only way to a quorum; later, when there is none yet.
fn lose_master(universe: &Rc<Universe>) {
    let voters: Vec<usize> = universe.etcd_of_cluster().map_or_else(Vec::new, |number| {
        let etcds = universe.etcds.borrow();
        etcds[number].voters().map(|voter| voter.machine).collect()
    });
    let missed: Vec<usize> = voters
        .into_iter()
        .filter(|machine| !universe.machines[*machine].is_dead() && universe.can_miss(*machine))
        .collect();
    if missed.is_empty() {
        if universe.faulty() {
            let world = universe.clone();
            universe.timeline.after(Duration::from_secs(60), move || lose_master(&world));
        }
        return;
    }
    universe.count("master-lost");
    universe.die(*universe.rng.pick(&missed));
}

impl Universe {
    /// Whether a calamity that waits for its moment strikes now.
    fn comes_due(&self, due: &Cell<u32>) -> bool {
        let struck = due.get() > 0 && self.faulty() && self.rng.below(3) > 0;
        due.set(due.get() - u32::from(struck));
        struck
    }

    /// This machine changed the register: perhaps the last thing it did, or the last for long.
    pub fn tempt_fate(self: &Rc<Self>, machine: usize) {
        let (universe, soon) = (self.clone(), || self.rng.between(Duration::ZERO, Duration::from_secs(15)));
        if self.comes_due(&self.deaths_due) {
            self.timeline.after(soon(), move || lose(&universe, machine, Calamity::DeathOfHolder));
        } else if self.monitor.borrow().committed.is_none() && self.comes_due(&self.stops_due) {
            // Whoever has committed holds nothing any more that could be taken.
            self.timeline.after(soon(), move || universe.stop_for_long(machine));
        }
    }

    /// This machine sent a commit: perhaps somebody tidies up in /etc/kubernetes just then.
    pub fn tempt_tidiness(self: &Rc<Self>, machine: usize) {
        if !self.comes_due(&self.losses_due) {
            return;
        }
        let Some(text) = self.machines[machine].state.borrow().disk.text(ADMIN_CONF) else { return };
        self.count("admin-conf-lost");
        self.note(machine, format_args!("somebody removes {ADMIN_CONF}"));
        self.machines[machine].state.borrow_mut().disk.remove(ADMIN_CONF);
        let universe = self.clone();
        let lasts = self.rng.between(Duration::from_secs(60), Duration::from_secs(480));
        self.timeline.after(lasts, move || {
            universe.note(machine, format_args!("somebody puts {ADMIN_CONF} back"));
            universe.machines[machine].state.borrow_mut().disk.put(ADMIN_CONF, text, 0o600);
        });
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

/// All bootstrap tokens of all clusters are deleted.
pub fn revoke(universe: &Rc<Universe>) {
    universe.count("tokens-revoked");
    universe.note_world(format_args!("an administrator deletes all bootstrap tokens"));
    let clusters = universe.etcds.borrow().len();
    for etcd in 0..clusters {
        let skew = universe.machines[universe.clock_of(etcd)].clock.skew();
        let tokens = std::mem::take(&mut universe.etcds.borrow_mut()[etcd].tokens);
        let mut monitor = universe.monitor.borrow_mut();
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
    let what = match (kind, genuine.as_mut()) {
        (0, _) => {
            bundle["cluster"] = "other".into();
            "one of cluster \"other\""
        }
        (1, Some(genuine)) => {
            bundle = genuine.take();
            bundle["expires_at"] = (now - hour).to_string().into();
            "the genuine one, expired an hour ago"
        }
        (2, Some(genuine)) => {
            bundle = genuine.take();
            bundle["endpoint"] = "evil.example.com:6443".into();
            bundle["ca_sha256"] = format!("sha256:{}", "cd".repeat(32)).into();
            "the genuine one with another endpoint and CA"
        }
        (3, Some(genuine)) => {
            bundle = genuine.take();
            bundle["issued_at"] = (now + hour * 2).to_string().into();
            bundle["expires_at"] = (now + hour * 3).to_string().into();
            "the genuine one, issued in two hours"
        }
        (4, _) => {
            bundle = "not a bundle".into();
            "one that is no bundle"
        }
        _ => "one of this name with another uid, CA and token",
    };
    universe.count("tampering");
    universe.note_world(format_args!("an intruder puts {what} in the place of the bundle"));
    universe.force(Writer::World, &key, Some(bundle.to_string().into_bytes()));
}
