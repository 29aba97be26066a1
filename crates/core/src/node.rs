//! A node: its settings, who it is, the world it lives in, and what it is doing right now.

use crate::config::settings::Settings;
use crate::kube::lease::Leading;
use crate::model::cause::Failure;
use crate::model::identity::Identity;
use crate::model::report::{DriftReport, EndReport, MemberReport, Phase, ReportedError, StepReport};
use crate::world::World;
use jiff::Timestamp;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

/// Something that happened, for logs, metrics, systemd and terminals. Contains no secrets.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// The node entered a phase.
    Phase(Phase),
    /// A step's check said that nothing is to be done (told once per life and step).
    StepDone {
        /// The step.
        step: &'static str,
        /// Why.
        why: &'a str,
    },
    /// A step is being applied.
    StepStarted {
        /// The step.
        step: &'static str,
        /// Why it is wanted.
        why: &'a str,
    },
    /// A step's *apply* ended.
    StepEnded {
        /// The step.
        step: &'static str,
        /// How long it took.
        took: Duration,
        /// How it ended.
        result: Result<(), &'a Failure>,
    },
    /// A step waits for something; told again when the text changes.
    Waiting {
        /// The step.
        step: &'static str,
        /// For what.
        for_what: &'a str,
    },
    /// A failed attempt will be repeated.
    Retrying {
        /// The step or duty.
        what: &'a str,
        /// Whether it is a duty: the bootstrap does not wait for it.
        beside: bool,
        /// Why it failed.
        failure: &'a Failure,
        /// When it is tried again.
        after: Duration,
    },
    /// A duty's tick ended.
    DutyTicked {
        /// The duty.
        duty: &'static str,
        /// How long it took.
        took: Duration,
        /// How it ended.
        result: Result<(), &'a Failure>,
    },
    /// A join bundle is in the store.
    BundlePublished {
        /// When its token dies.
        expires_at: Timestamp,
        /// Its number.
        sequence: u64,
    },
    /// Something a person should know, in one line.
    Note(&'a str),
    /// No tick exceeds its deadline: the watchdog may be fed.
    Alive,
}

/// Wants to know what happens.
pub trait Observer {
    /// Called for each event; must not block.
    fn on(&self, event: &Event<'_>);
}

/// Looks at nothing.
pub struct Silent;

impl Observer for Silent {
    fn on(&self, _event: &Event<'_>) {}
}

/// How the rollouts of the cluster stand, as the arbiter saw it last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolloutStatus {
    /// Grants that count against the budget.
    pub open: usize,
    /// Rollouts that stand until an operator resumes them.
    pub paused: usize,
    /// Rollouts that stand until their reason ends by itself.
    pub refused: usize,
    /// Why nothing more is granted.
    pub held_because: Option<String>,
}

/// What the node is doing; written by the engine and the duties, read by the report and the metrics.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Where it stands.
    pub phase: Phase,
    /// The step it is at.
    pub step: Option<&'static str>,
    /// What the step waits for.
    pub waiting_for: Option<String>,
    /// Why it is not further.
    pub error: Option<ReportedError>,
    /// The steps so far, in order.
    pub steps: Vec<StepReport>,
    /// The cluster's uid, once known.
    pub uid: Option<Uuid>,
    /// Versions of what is installed.
    pub versions: BTreeMap<String, String>,
    /// Expiry of the published bundle (masters).
    pub bundle_expires_at: Option<Timestamp>,
    /// Earliest expiry of the certificates.
    pub certificates_expire_at: Option<Timestamp>,
    /// When the first of the logins that containerd has for ECR ends.
    pub registry_login_expires_at: Option<Timestamp>,
    /// Whether it is what it should be, where something is compared.
    pub drift: Option<DriftReport>,
    /// How the node ends, when its machine is about to be taken away.
    pub end: Option<EndReport>,
    /// etcd's members, on the master that looks after them.
    pub members: Option<Vec<MemberReport>>,
    /// Whether this agent carries out the duties of which a cluster needs one.
    pub leads: bool,
    /// The last lines of a failed kubeadm, redacted.
    pub log_tail: Vec<String>,
    /// How the rollouts stand, on a master that arbitrates.
    pub rollout: Option<RolloutStatus>,
    /// When the last report was accepted by the store.
    pub last_report_at: Option<Timestamp>,
}

/// Everything a step or duty needs. Immutable but for [`Status`] and [`Leading`], which it
/// shares with its clones.
#[derive(Clone)]
pub struct Node {
    /// Validated configuration.
    pub settings: Rc<Settings>,
    /// Who this machine is.
    pub identity: Rc<Identity>,
    /// The only way out.
    pub world: World,
    /// When this life of the agent began.
    pub started_at: Timestamp,
    /// This agent's part in the election of the one that leads.
    pub lease: Rc<Leading>,
    /// The folder the node's files are below (`--root`), when it is not `/`; kubeadm is told so.
    pub rootfs: Option<String>,
    status: Rc<RefCell<Status>>,
    /// How often the status may have changed.
    revision: Rc<Cell<u64>>,
}

impl Node {
    /// A node at the beginning of a life of its agent.
    pub fn new(settings: Rc<Settings>, identity: Rc<Identity>, world: World) -> Self {
        let started_at = world.time.now();
        let (lease, status, revision) = (Rc::default(), Rc::default(), Rc::default());
        Node { settings, identity, world, started_at, lease, rootfs: None, status, revision }
    }

    /// The same node with its files below a folder.
    #[must_use]
    pub fn below(mut self, rootfs: Option<String>) -> Self {
        self.rootfs = rootfs;
        self
    }

    /// A copy of what it is doing.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Changes what it is doing.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.borrow_mut());
        self.revision.set(self.revision.get() + 1);
    }

    /// The same number twice: the status has not changed in between.
    pub fn revision(&self) -> u64 {
        self.revision.get()
    }

    /// Tells the observer.
    pub fn tell(&self, event: &Event<'_>) {
        self.world.observer.on(event);
    }

    /// Enters a phase; told only when it is another one.
    pub fn enter(&self, phase: Phase) {
        let before = std::mem::replace(&mut self.status.borrow_mut().phase, phase);
        if before != phase {
            self.revision.set(self.revision.get() + 1);
            self.tell(&Event::Phase(phase));
        }
    }

    /// Says what the current step waits for; told only when the text is another one.
    pub fn wait_for(&self, for_what: impl Into<String>) {
        let for_what = for_what.into();
        let (step, news) = {
            let mut status = self.status.borrow_mut();
            let news = status.waiting_for.as_deref() != Some(for_what.as_str());
            status.waiting_for = Some(for_what.clone());
            self.revision.set(self.revision.get() + u64::from(news));
            (status.step, news)
        };
        if let (Some(step), true) = (step, news) {
            self.enter(Phase::Waiting);
            self.tell(&Event::Waiting { step, for_what: &for_what });
        }
    }

    /// Says in the status, and so in the report, why the node is not further. The same cause keeps its time.
    pub fn complain(&self, failure: &Failure) {
        let (cause, message) = (failure.cause.row().label, failure.to_string());
        if self.status.borrow().error.as_ref().is_some_and(|known| known.cause == cause && known.message == message) {
            return;
        }
        let now = self.world.time.now();
        self.update(|status| {
            let since = status.error.as_ref().filter(|e| e.cause == cause).map_or(now, |e| e.since);
            status.error = Some(ReportedError { cause: cause.to_owned(), message, since });
        });
    }

    /// A fresh random (version 4) uuid from the world's randomness.
    pub fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.world.time.random(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// A duration between half of `base` and one and a half of it, so that nodes do not act in step.
    pub fn jitter(&self, base: Duration) -> Duration {
        let mut bytes = [0; 4];
        self.world.time.random(&mut bytes);
        base / 2 + base.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
    }
}
