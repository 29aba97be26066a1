//! The master that leads is lost at the worst moment for the bundle: when its renewal is due, or when it is about to end
//! because nobody could renew it. Another one has to lead and to renew it, and a worker that is started then has to join.

use crate::machine::{Machine, SPARE};
use crate::scenario::Calamity;
use crate::universe::Universe;
use jiff::SignedDuration;
use kubestrap_core::model::bundle::JoinBundle;
use kubestrap_core::model::identity::Role;
use serde_json::Value;
use std::rc::Rc;
use std::time::Duration;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kubestrap-leader";
/// How often it is looked whether there is a leader that can be missed.
const LOOKS: Duration = Duration::from_secs(30);
/// How long before the renewal of the bundle is due its publisher is lost, at most.
const BEFORE_RENEWAL: Duration = Duration::from_secs(20);
/// An API server that was away is back this long before the bundle ends at most, or as long after its end.
const AROUND_THE_END: Duration = Duration::from_secs(90);
/// Then somebody leads, and is lost within this time: before it has published, or right after it.
const IN_OFFICE: Duration = Duration::from_secs(12);
/// A bundle is no good to workers when it lives less than this.
const NO_GOOD: SignedDuration = SignedDuration::from_secs(120);

impl Universe {
    /// The machine whose agent holds the Lease of the leader.
    pub fn leader(&self) -> Option<usize> {
        let number = self.etcd_of_cluster()?;
        let etcds = self.etcds.borrow();
        let holder = etcds[number].objects.get(LEASE)?.pointer("/spec/holderIdentity").and_then(Value::as_str)?;
        let (_, identity) = holder.rsplit_once('_')?;
        self.machine_of(identity).map(|machine| machine.index)
    }

    /// How long the bundle in the store lives; nothing when it is over, or not there.
    pub fn bundle_lives(&self) -> SignedDuration {
        let bundle = self.shared("join/worker.json").and_then(|object| serde_json::from_slice(&object.body).ok());
        bundle.map_or(SignedDuration::ZERO, |bundle: JoinBundle| bundle.expires_at.duration_since(self.wall()))
    }

    /// The workers that are started after a loss.
    pub fn newcomers(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|machine| machine.role == Role::Worker && machine.generation == SPARE)
    }

    fn leader_to_miss(&self) -> Option<usize> {
        self.leader().filter(|leader| !self.machines[*leader].is_dead() && self.can_miss(*leader))
    }
}

/// Chooses the moment, once there is a leader and a cluster that can do without it; nothing happens after the faults.
pub fn lose(universe: &Rc<Universe>) {
    let lives = Duration::try_from(universe.bundle_lives()).unwrap_or_default();
    let away = universe.timeline.now() < universe.api_away_until.get();
    let leader = universe.leader_to_miss().filter(|leader| universe.machines[*leader].ready.get() && !away);
    let Some(leader) = leader.filter(|_| !lives.is_zero()) else { return later(universe, lose) };
    if universe.rng.below(2) == 0 {
        // The token of a bundle is replaced at half of its life.
        let due = lives.saturating_sub(universe.machines[leader].token_ttl / 2);
        let before = universe.rng.between(Duration::ZERO, BEFORE_RENEWAL);
        return strike_after(universe, due.saturating_sub(before));
    }
    let back = (lives + AROUND_THE_END).saturating_sub(universe.rng.between(Duration::ZERO, 2 * AROUND_THE_END));
    if universe.timeline.now() + back + IN_OFFICE > universe.scenario.faults_last {
        return;
    }
    universe.note_world(format_args!("the API servers are DOWN for {} s, as long as the bundle lives", back.as_secs()));
    universe.count("api-away");
    universe.api_away_until.set(universe.timeline.now() + back);
    strike_after(universe, back + universe.rng.between(Duration::ZERO, IN_OFFICE));
}

fn strike_after(universe: &Rc<Universe>, wait: Duration) {
    if universe.timeline.now() + wait <= universe.scenario.faults_last {
        let world = universe.clone();
        universe.timeline.after(wait, move || strike(&world));
    }
}

fn later(universe: &Rc<Universe>, look: fn(&Rc<Universe>)) {
    if universe.faulty() {
        let world = universe.clone();
        universe.timeline.after(LOOKS, move || look(&world));
    }
}

/// The leader's machine is lost for ever, and a worker is started within a minute.
fn strike(universe: &Rc<Universe>) {
    let Some(leader) = universe.leader_to_miss() else { return later(universe, lose) };
    let lives = universe.bundle_lives();
    universe.count(Calamity::LeaderLost.name());
    if lives < NO_GOOD {
        universe.count("leader-lost-as-bundle-ends");
    }
    universe.note_world(format_args!("the bundle lives {} s more, and its publisher is lost", lives.as_secs().max(0)));
    universe.die(leader);
    universe.monitor.borrow_mut().begin_anew_to_be_able();
    let (world, after) = (universe.clone(), universe.rng.between(Duration::ZERO, Duration::from_secs(60)));
    universe.timeline.after(after, move || {
        let newcomer = world.newcomers().find(|machine| !machine.is_launched()).map(|machine| machine.index);
        newcomer.into_iter().for_each(|newcomer| world.launch(newcomer));
    });
}
