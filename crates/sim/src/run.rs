//! A run: agents are polled, time goes on, faults strike, and the invariants watch, until all has settled.

use crate::agent::{self, Life};
use crate::calamity;
use crate::machine::Agent;
use crate::scenario::Scenario;
use crate::story::Violation;
use crate::trace::{Keep, Line};
use crate::universe::Universe;
use kubestrap_core::model::cause::{ExitCode, Failure};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// How often it is looked whether everything has settled.
const LOOKS: Duration = Duration::from_secs(5);

/// What a run was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// Equal for equal histories.
    pub digest: u64,
    /// Events noted.
    pub events: u64,
    /// Virtual time at the end.
    pub lasted: Duration,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// Calls of settled nodes, by machine (masters first) and name of the call.
    pub calls: BTreeMap<(usize, &'static str), u64>,
}

/// Runs one seed; a failing one is run again to tell what happened. Two runs that differ are a violation themselves.
pub fn run_seed(seed: u64, scenario: &Scenario) -> Result<Summary, Box<Violation>> {
    let (digest, quiet) = history(seed, scenario, Keep::Nothing);
    let Err((rule, what)) = quiet.verdict else {
        let History { events, lasted, counts, calls, .. } = quiet;
        return Ok(Summary { seed, digest, events, lasted, counts, calls });
    };
    let (second, told) = history(seed, scenario, Keep::Story);
    let what =
        if second == digest { what } else { format!("{what} (and a second run was different: not deterministic)") };
    let (at, counts) = (quiet.lasted, quiet.counts);
    let (machines, story) = (told.machines, told.lines);
    Err(Box::new(Violation { seed, scenario: scenario.name, only: None, rule, at, what, machines, counts, story }))
}

/// The whole story of a seed, line by line, whether or not it ends well.
pub fn tell(seed: u64, scenario: &Scenario) -> Vec<String> {
    history(seed, scenario, Keep::Everything).1.lines.iter().map(ToString::to_string).collect()
}

struct History {
    verdict: Result<(), (u8, String)>,
    events: u64,
    lasted: Duration,
    counts: BTreeMap<&'static str, u64>,
    calls: BTreeMap<(usize, &'static str), u64>,
    machines: Vec<String>,
    lines: Vec<Line>,
}

fn history(seed: u64, scenario: &Scenario, keep: Keep) -> (u64, History) {
    let universe = Universe::new(seed, scenario, keep);
    let verdict = play(&universe);
    let lines = match (&verdict, keep) {
        (Err((_, what)), Keep::Story) => universe.story_of(what),
        _ => universe.trace.lines(),
    };
    let verdict = verdict.map_err(|(rule, what)| (rule, universe.short(&what)));
    let (events, lasted, machines) = (universe.trace.events(), universe.timeline.now(), universe.introduced());
    let (counts, calls) = (universe.monitor.borrow().counts.clone(), universe.calls.borrow().clone());
    (universe.trace.digest(), History { verdict, events, lasted, counts, calls, machines, lines })
}

/// Runs a universe to its end.
pub(crate) fn play(universe: &Rc<Universe>) -> Result<(), (u8, String)> {
    let verdict = Runner::new(universe.clone()).run();
    // What is still to come holds the universe, which holds it: thousands of them would stay in memory.
    universe.timeline.clear();
    verdict
}

/// Set when a future is woken.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn flag() -> (Arc<Flag>, Waker) {
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    (flag.clone(), Waker::from(flag))
}

struct Task<F: ?Sized> {
    flag: Arc<Flag>,
    waker: Waker,
    future: Pin<Box<F>>,
}

impl<F: Future + ?Sized> Task<F> {
    fn new(future: Pin<Box<F>>) -> Self {
        let (flag, waker) = flag();
        Task { flag, waker, future }
    }

    /// Polls it when it was woken; `None` when it was not.
    fn poll(&mut self) -> Option<Poll<F::Output>> {
        let woken = self.flag.0.swap(false, Ordering::Relaxed);
        woken.then(|| self.future.as_mut().poll(&mut Context::from_waker(&self.waker)))
    }
}

type LifeTask = Task<dyn Future<Output = <Life as Future>::Output>>;

struct Runner {
    universe: Rc<Universe>,
    lives: Vec<Option<LifeTask>>,
    operator: Task<dyn Future<Output = ()>>,
    looked_at: Duration,
    settled_at: Option<Duration>,
    /// Planned deaths so far, as of then: one that falls later unsettles the world rightly.
    struck: usize,
}

impl Runner {
    fn new(universe: Rc<Universe>) -> Self {
        let lives = universe.machines.iter().map(|_| None).collect();
        let operator: Pin<Box<dyn Future<Output = ()>>> = Box::pin(crate::operator::work(universe.clone()));
        for machine in universe.machines.iter().filter(|machine| machine.is_launched()) {
            let (world, index) = (universe.clone(), machine.index);
            universe.timeline.after(machine.starts_at.get(), move || world.booted(index));
            universe.start_agent(machine.index, machine.starts_at.get());
        }
        calamity::schedule(&universe);
        Runner {
            universe,
            lives,
            operator: Task::new(operator),
            looked_at: Duration::ZERO,
            settled_at: None,
            struck: 0,
        }
    }

    fn run(&mut self) -> Result<(), (u8, String)> {
        let scenario = &self.universe.scenario;
        let end = scenario.faults_last + scenario.patience + scenario.afterwards + LOOKS * 2;
        loop {
            let mut busy = true;
            while busy {
                busy = self.operator.poll().is_some();
                for machine in 0..self.lives.len() {
                    busy |= self.tend(machine);
                }
                self.verdict()?;
            }
            let now = self.universe.timeline.now();
            if now >= self.looked_at + LOOKS {
                self.looked_at = now;
                self.universe.judge_bundle_life();
                if self.settle(now)? {
                    self.universe.audit_secrets();
                    return self.verdict();
                }
            }
            if !self.universe.timeline.step(end) {
                return Err((8, "nothing happens any more".to_owned()));
            }
            self.verdict()?;
        }
    }

    fn verdict(&self) -> Result<(), (u8, String)> {
        self.universe.monitor.borrow().violation.clone().map_or(Ok(()), Err)
    }

    /// Starts, polls and buries one agent; true when anything was done.
    fn tend(&mut self, index: usize) -> bool {
        let universe = self.universe.clone();
        let machine = &universe.machines[index];
        if machine.dying.get() {
            self.bury(index);
            return true;
        }
        if matches!(machine.state.borrow().agent, Agent::Due) {
            machine.starts.set(machine.starts.get() + 1);
            universe.note(index, format_args!("agent starts"));
            self.lives[index] = Some(Task::new(agent::begin(&universe, index)));
        }
        if matches!(machine.state.borrow().agent, Agent::Due) {
            machine.state.borrow_mut().agent = Agent::Up;
        }
        if universe.timeline.now() < machine.stalled_until.get() {
            return false;
        }
        match self.lives[index].as_mut().and_then(Task::poll) {
            None => false,
            Some(Poll::Pending) => true,
            Some(Poll::Ready(Ok(never))) => match never {},
            Some(Poll::Ready(Err(_))) if machine.dying.get() => true,
            Some(Poll::Ready(Err(failure))) => {
                self.ended(index, failure);
                true
            }
        }
    }

    /// The agent was killed: its future is dropped, and systemd starts another unless the machine is off.
    fn bury(&mut self, index: usize) {
        let machine = &self.universe.machines[index];
        self.lives[index] = None;
        machine.dying.set(false);
        machine.torn.set(false);
        machine.ready.set(false);
        machine.stalled_until.set(Duration::ZERO);
        let was_up = matches!(machine.state.borrow().agent, Agent::Up);
        if was_up {
            machine.state.borrow_mut().agent = Agent::Down;
            let most = if self.universe.rng.below(4) == 0 { 300 } else { 10 };
            let delay = self.universe.rng.between(Duration::from_secs(1), Duration::from_secs(most));
            self.universe.start_agent(index, delay);
        }
    }

    /// The agent ended by itself: the unit starts it again, but not after what waiting cannot mend.
    fn ended(&mut self, index: usize, failure: Failure) {
        let machine = &self.universe.machines[index];
        let exit = failure.cause.row().exit;
        self.universe.judge_text(6, "the last words of the agent", &failure.to_string());
        self.universe.note(index, format_args!("agent EXITS {}: {failure}", exit as u8));
        self.universe.judge_end(index, &failure);
        self.lives[index] = None;
        machine.ready.set(false);
        if matches!(exit, ExitCode::Usage | ExitCode::Configuration | ExitCode::Refused) {
            machine.state.borrow_mut().agent = Agent::Refused(failure);
        } else {
            machine.state.borrow_mut().agent = Agent::Down;
            self.universe.start_agent(index, Duration::from_secs(5));
        }
    }

    /// Whether the run is over: everything settled, and stayed so for a while.
    fn settle(&mut self, now: Duration) -> Result<bool, (u8, String)> {
        let scenario = &self.universe.scenario;
        if now < scenario.faults_last {
            return Ok(false);
        }
        let struck = self.universe.deaths.borrow().struck();
        if struck != self.struck {
            (self.struck, self.settled_at) = (struck, None);
        }
        let unsettled = self.universe.unsettled();
        match (unsettled, self.settled_at) {
            (None, None) => {
                self.settled_at = Some(now);
                self.universe.calls.borrow_mut().clear();
                Ok(false)
            }
            (None, Some(since)) => Ok(now >= since + scenario.afterwards),
            (Some(why), Some(_)) => Err((8, format!("it had settled, and now {why}"))),
            (Some(why), None) if now > scenario.faults_last + scenario.patience => {
                Err((8, format!("not settled {} min after the last fault: {why}", scenario.patience.as_secs() / 60)))
            }
            (Some(_), None) => Ok(false),
        }
    }
}
