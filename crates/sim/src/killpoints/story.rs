//! The stories whose every point is a death.

use super::strike::{At, How, Strike};
use crate::calamity;
use crate::invariants::CLUSTER;
use crate::scenario::{self, Scenario};
use crate::store::Writer;
use crate::trace::Keep;
use crate::universe::Universe;
use std::rc::Rc;
use std::time::Duration;

/// What happens to the world at a fixed time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Happening {
    /// An administrator deletes all bootstrap tokens.
    TokensDeleted,
    /// A bucket rule deletes this object.
    Deleted(&'static str),
}

/// What befalls the cluster whose master carries out its duties.
const HAPPENINGS: &[(Duration, Happening)] = &[
    (minutes(15), Happening::TokensDeleted),
    (minutes(25), Happening::Deleted("cluster.json")),
    (minutes(35), Happening::Deleted("join/worker.json")),
];

/// A story.
#[derive(Debug, Clone)]
pub struct Story {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    pub(super) scenario: Scenario,
    /// Chosen so that the machines start in the order that the story needs.
    pub(super) seed: u64,
    pub(super) victim: usize,
    pub(super) from_ready: bool,
    /// A duty makes the same calls every minute: the first ones of each kind are struck.
    pub(super) most_of_a_kind: usize,
    pub(super) prologue: Vec<Strike>,
    /// The job and the phase that fail once.
    pub(super) failure: Option<(&'static str, &'static str)>,
    happenings: &'static [(Duration, Happening)],
}

impl Story {
    pub(super) fn schedule(&self, universe: &Rc<Universe>) {
        for (at, happening) in self.happenings {
            let world = universe.clone();
            let happening = *happening;
            universe.timeline.after(*at, move || match happening {
                Happening::TokensDeleted => calamity::revoke(&world),
                Happening::Deleted(key) => {
                    world.note_world(format_args!("a lifecycle rule deletes {key}"));
                    world.force(Writer::World, &format!("{CLUSTER}/{key}"), None);
                }
            });
        }
    }
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// No fault by chance; long enough afterwards for a write that lands late.
fn calm(masters: u64, workers: u64) -> Scenario {
    Scenario {
        masters,
        workers,
        faults_last: Duration::ZERO,
        patience: minutes(90),
        afterwards: minutes(5),
        token_minutes: &[20],
        ..scenario::calm()
    }
}

/// The first seed with which these machines start in this order, half a minute apart at least.
fn seed_of_order(scenario: &Scenario, order: &[usize]) -> u64 {
    let in_order = |seed: &u64| {
        let universe = Universe::new(*seed, scenario, Keep::Nothing);
        let starts = |machine: &usize| universe.machines[*machine].starts_at.get();
        order.windows(2).all(|pair| starts(&pair[0]) + Duration::from_secs(30) < starts(&pair[1]))
    };
    (0..1000).find(in_order).unwrap_or_default()
}

fn bootstrap(name: &'static str, about: &'static str, scenario: Scenario, victim: usize, order: &[usize]) -> Story {
    Story {
        name,
        about,
        seed: seed_of_order(&scenario, order),
        scenario,
        victim,
        from_ready: false,
        most_of_a_kind: usize::MAX,
        prologue: Vec::new(),
        failure: None,
        happenings: &[],
    }
}

/// Masters that hand the cluster's keys over.
fn sealed(masters: u64) -> Scenario {
    Scenario { pki: true, ..calm(masters, 0) }
}

/// All of them.
pub fn stories() -> Vec<Story> {
    let claimed = Strike { machine: 0, at: At::First("objects.put", "/cluster.json"), how: How::Death };
    let rolled = Scenario { rolls: true, faults_last: minutes(30), ..calm(1, 2) };
    let duties = Scenario { faults_last: minutes(50), afterwards: minutes(10), ..calm(1, 1) };
    let mut all = vec![
        bootstrap("first master", "a master makes the cluster", calm(1, 0), 0, &[]),
        bootstrap("worker", "a worker joins the cluster that is there", calm(1, 1), 1, &[0, 1]),
        bootstrap("early worker", "a worker waits for the cluster, and joins", calm(1, 1), 1, &[1, 0]),
        Story {
            prologue: vec![claimed],
            ..bootstrap(
                "takeover",
                "the machine that claimed the register is gone; a second master finishes its work",
                calm(2, 0),
                1,
                &[0, 1],
            )
        },
        Story {
            failure: Some(("kubeadm-init", "kubeconfig")),
            ..bootstrap("failed init", "kubeadm init fails half-way; it is reset and run again", calm(1, 0), 0, &[])
        },
        Story {
            failure: Some(("kubeadm-join", "kubelet-start")),
            ..bootstrap("failed join", "kubeadm join fails half-way; it is run again", calm(1, 1), 1, &[0, 1])
        },
        bootstrap(
            "images",
            "a worker pulls images while it waits for the cluster",
            Scenario { images: true, ..calm(1, 1) },
            1,
            &[1, 0],
        ),
        Story {
            from_ready: true,
            most_of_a_kind: 8,
            happenings: HAPPENINGS,
            ..bootstrap("duties", "a master keeps tokens, bundle and register for an hour", duties, 0, &[0, 1])
        },
        Story {
            from_ready: true,
            most_of_a_kind: 1,
            ..bootstrap("arbiter", "a master has two workers replaced", rolled.clone(), 0, &[])
        },
        Story {
            from_ready: true,
            most_of_a_kind: 1,
            ..bootstrap("rolled worker", "a worker is drained and replaced", rolled, 1, &[])
        },
    ];
    all.extend(of_masters());
    all
}

/// The keys are handed over.
fn of_masters() -> Vec<Story> {
    vec![
        bootstrap("sealed master", "a master seals the keys, and makes the cluster with them", sealed(1), 0, &[]),
        Story {
            most_of_a_kind: 2,
            ..bootstrap("further master", "a master joins the control plane", sealed(2), 1, &[0, 1])
        },
        Story {
            most_of_a_kind: 1,
            failure: Some(("kubeadm-join", "etcd-join")),
            ..bootstrap(
                "failed control plane",
                "kubeadm join fails when its member was added; it is taken back and joins again",
                sealed(2),
                1,
                &[0, 1],
            )
        },
    ]
}
