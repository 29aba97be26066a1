//! What befalls the cluster, at times that follow from the seed.

use super::world::{MACHINES, World};
use kubestrap_testkit::s3stub::{Action, Fault};
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

/// A write that lands when nobody expects it any more.
const LATE: f64 = 20.0;
/// Longer than the deadline of a request to the store.
const SLOW: f64 = 12.0;

/// What the store does wrong; each with the seconds it needs.
const STORE: &[(&str, Action, f64)] = &[
    ("throttled", Action::SlowDown, 0.0),
    ("internal errors", Action::InternalError, 0.0),
    ("done, but 500", Action::DoneButError, 0.0),
    ("lost answers", Action::LostAnswer, 0.0),
    ("lost requests", Action::LostRequest, 0.0),
    ("late writes", Action::LateWrite, LATE),
    ("answers after the deadline", Action::Slow, SLOW),
    ("conflicts", Action::Conflict, 0.0),
    ("denied", Action::AccessDenied, 0.0),
    ("garbage", Action::Garbage, 0.0),
    ("endless bodies", Action::Endless, 0.0),
];

/// What else happens.
const OTHERS: &[&str] = &[
    "API server restarts",
    "tokens deleted",
    "register deleted",
    "bundle deleted",
    "bundle replaced by rubbish",
    "agent stopped (SIGSTOP)",
    "agent killed",
    "agent restarted",
];

/// The faults of a run: when the next one comes, and what must be mended when.
pub struct Weather {
    chance: fastrand::Rng,
    /// Between the beginnings of two faults, at most; a fault lasts a little longer at most, so that some overlap.
    pause: Duration,
    next: Instant,
    store_until: Option<Instant>,
    stopped: Option<(usize, Instant)>,
    seen: BTreeMap<&'static str, u64>,
    last: &'static str,
}

impl Weather {
    /// Calm at first.
    pub fn new(seed: u64, pause: Duration) -> Weather {
        let next = Instant::now() + Duration::from_secs(5);
        let chance = fastrand::Rng::with_seed(seed);
        Weather { chance, pause, next, store_until: None, stopped: None, seen: BTreeMap::new(), last: "none yet" }
    }

    /// Lets happen what is due.
    pub fn blow(&mut self, world: &mut World) -> io::Result<()> {
        self.mend(world, Instant::now())?;
        if Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + self.between(Duration::from_secs(3), self.pause);
        let which = self.chance.usize(..STORE.len() + OTHERS.len());
        let name = match STORE.get(which) {
            Some((name, action, seconds)) => {
                let fault = Fault {
                    method: None,
                    key: String::new(),
                    action: *action,
                    times: None,
                    after: 0,
                    seconds: *seconds,
                };
                world.store.set_faults(vec![fault]);
                self.store_until = Some(Instant::now() + self.between(Duration::from_secs(2), self.lasts()));
                name
            }
            None => {
                let name = OTHERS[which - STORE.len()];
                self.befall(name, world)?;
                name
            }
        };
        *self.seen.entry(name).or_default() += 1;
        self.last = name;
        Ok(())
    }

    fn befall(&mut self, name: &str, world: &mut World) -> io::Result<()> {
        match name {
            "API server restarts" => world.stop_server(self.between(Duration::from_secs(1), self.lasts()), |_| {}),
            "tokens deleted" => world.stop_server(Duration::from_secs(1), |state| {
                if let Some(objects) = state["objects"].as_object_mut() {
                    objects.retain(|path, _| !path.contains("/bootstrap-token-"));
                }
            }),
            "register deleted" => {
                world.store.remove(&World::key("cluster.json"));
                Ok(())
            }
            "bundle deleted" => {
                world.store.remove(&World::key("join/worker.json"));
                Ok(())
            }
            "bundle replaced by rubbish" => {
                world.store.store(&World::key("join/worker.json"), "rubbish");
                Ok(())
            }
            "agent stopped (SIGSTOP)" => {
                let machine = self.chance.usize(..MACHINES.len());
                if self.stopped.is_none() && world.is_up(machine) {
                    world.signal(machine, "STOP")?;
                    self.stopped = Some((machine, Instant::now() + self.between(Duration::from_secs(1), self.lasts())));
                }
                Ok(())
            }
            _ => {
                let again = self.between(Duration::from_secs(1), Duration::from_secs(15));
                // A stopped process does not hear SIGTERM.
                self.wake(world)?;
                world.end_mortal(if name == "agent killed" { "KILL" } else { "TERM" }, again)
            }
        }
    }

    fn wake(&mut self, world: &World) -> io::Result<()> {
        match self.stopped.take() {
            Some((machine, _)) => world.signal(machine, "CONT"),
            None => Ok(()),
        }
    }

    fn mend(&mut self, world: &World, now: Instant) -> io::Result<()> {
        if self.store_until.is_some_and(|until| until <= now) {
            self.store_until = None;
            world.store.set_faults(Vec::new());
        }
        if self.stopped.is_some_and(|(_, until)| until <= now) {
            self.wake(world)?;
        }
        Ok(())
    }

    /// Mends everything at once; nothing when all is well.
    pub fn clear(&mut self, world: &World) -> io::Result<()> {
        if self.store_until.take().is_some() {
            world.store.set_faults(Vec::new());
        }
        self.last = "quiet";
        self.wake(world)
    }

    fn lasts(&self) -> Duration {
        self.pause * 4 / 3
    }

    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        Duration::from_millis(self.chance.u64(least.as_millis() as u64..most.as_millis() as u64))
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.seen.values().sum()
    }

    /// For the person who watches.
    pub fn summary(&self) -> String {
        format!("{} faults, the last: {}", self.count(), self.last)
    }

    /// How often what happened.
    pub fn all(&self) -> String {
        let all: Vec<String> = self.seen.iter().map(|(name, count)| format!("{name} {count}")).collect();
        all.join(", ")
    }
}
