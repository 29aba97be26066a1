//! Everything that exists in a run: time, chance, the store, the machines, the clusters, and what is known to be true
//! of them (which no node may see).

use crate::account::Account;
use crate::cluster::Etcd;
use crate::faults::Fault;
use crate::invariants::Monitor;
use crate::killpoints::Strikes;
use crate::machine::Machine;
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::store::Store;
use crate::timeline::Timeline;
use crate::trace::{Keep, Trace};
use jiff::{SignedDuration, Timestamp};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// The moment at which every run begins, in true time: 2026-11-21T00:00:00Z.
const EPOCH_SECONDS: i64 = 1_795_219_200;

/// The simulated world.
pub struct Universe {
    /// Virtual time.
    pub timeline: Rc<Timeline>,
    /// Chance.
    pub rng: Rng,
    /// The record.
    pub trace: Trace,
    /// What is simulated.
    pub scenario: Scenario,
    /// The bucket.
    pub store: RefCell<Store>,
    /// Images, parameters, launch templates, the Auto Scaling group.
    pub account: Account,
    /// The machines, masters first.
    pub machines: Vec<Machine>,
    /// Every etcd that was ever made, by number.
    pub etcds: RefCell<Vec<Etcd>>,
    /// The invariants and what they know.
    pub monitor: RefCell<Monitor>,
    /// Deaths that are planned and not left to chance.
    pub deaths: RefCell<Strikes>,
    /// How many holders of the register still have to die.
    pub deaths_due: Cell<u32>,
    /// How many holders of the register still have to be stopped for long.
    pub stops_due: Cell<u32>,
    /// How many senders of a commit still have to lose their admin.conf.
    pub losses_due: Cell<u32>,
    /// Until when the cluster's API server is down.
    pub api_away_until: Cell<Duration>,
    /// Until when EC2 shows nobody anything.
    pub blind_until: Cell<Duration>,
    /// Until when ECR gives no logins.
    pub ecr_away_until: Cell<Duration>,
    /// Calls by machine and name since everything settled (before that: since the beginning).
    pub calls: RefCell<BTreeMap<(usize, &'static str), u64>>,
}

impl Universe {
    /// The world before anything happened.
    pub fn new(seed: u64, scenario: &Scenario, keep: Keep) -> Rc<Universe> {
        let rng = Rng::new(seed);
        let machines = crate::machine::build(scenario, &rng);
        Rc::new(Universe {
            timeline: Rc::new(Timeline::default()),
            trace: Trace::new(keep),
            store: RefCell::new(Store::new(rng.below(3) == 0)),
            account: Account::default(),
            machines,
            etcds: RefCell::default(),
            monitor: RefCell::default(),
            deaths: RefCell::default(),
            deaths_due: Cell::new(0),
            stops_due: Cell::new(0),
            losses_due: Cell::new(0),
            api_away_until: Cell::new(Duration::ZERO),
            blind_until: Cell::new(Duration::ZERO),
            ecr_away_until: Cell::new(Duration::ZERO),
            calls: RefCell::default(),
            scenario: scenario.clone(),
            rng,
        })
    }

    /// True time.
    pub fn wall(&self) -> Timestamp {
        self.wall_at(self.timeline.now())
    }

    /// True time at a moment of the run.
    pub fn wall_at(&self, at: Duration) -> Timestamp {
        let since = SignedDuration::try_from(at).unwrap_or_default();
        Timestamp::from_second(EPOCH_SECONDS).unwrap_or_default() + since
    }

    /// A machine's own clock.
    pub fn wall_of(&self, machine: usize) -> Timestamp {
        self.wall() + self.machines[machine].clock.skew()
    }

    /// Whether faults still happen.
    pub fn faulty(&self) -> bool {
        self.timeline.now() < self.scenario.faults_last
    }

    /// Whether this fault strikes here and now; counted when it does.
    pub fn strikes(&self, fault: Fault) -> bool {
        let per_100k = self.scenario.rates.of(fault);
        let struck = per_100k > 0 && self.faulty() && self.rng.chance(per_100k);
        if struck {
            self.count(fault.name());
        }
        struck
    }

    /// Time on the network, there or back.
    pub fn travel(&self) -> Duration {
        if self.faulty() && self.rng.below(50) == 0 {
            self.rng.between(Duration::from_millis(200), Duration::from_secs(6))
        } else {
            self.rng.between(Duration::from_millis(5), Duration::from_millis(60))
        }
    }

    /// Sleeps in true time.
    pub async fn sleep(&self, duration: Duration) {
        self.timeline.sleep(duration).await;
    }

    /// Notes something a machine did or suffered.
    pub fn note(&self, machine: usize, what: fmt::Arguments<'_>) {
        self.trace.note(self.timeline.now(), &self.machines[machine].name, what);
    }

    /// Notes something a machine does again and again.
    pub fn routine(&self, machine: usize, what: fmt::Arguments<'_>) {
        self.trace.routine(self.timeline.now(), &self.machines[machine].name, what);
    }

    /// Notes something the world did.
    pub fn note_world(&self, what: fmt::Arguments<'_>) {
        self.trace.note(self.timeline.now(), "world", what);
    }

    /// Records that a rule was broken; the first time counts.
    pub fn violate(&self, rule: u8, what: impl Into<String>) {
        let what = what.into();
        self.note_world(format_args!("VIOLATION of rule {rule}: {what}"));
        self.monitor.borrow_mut().violate(rule, what);
    }

    /// The machine with this identity key.
    pub fn machine_of(&self, identity: &str) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.identity.key() == identity)
    }
}
