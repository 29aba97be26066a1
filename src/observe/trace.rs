//! Where bootstrap time went: a gate and an observer that remember spans, kept for `kubestrap analyze`.
//!
//! Only lives of the agent that applied a step are kept, so that a restart of a finished node does not push the
//! interesting ones out. Subjects of calls are keys, paths and unit names; never secrets.

use jiff::Timestamp;
use kubestrap_core::gate::{Admission, Call, Delivery, Gate};
use kubestrap_core::model::cause::Failure;
use kubestrap_core::model::report::Phase;
use kubestrap_core::node::{Event, Observer};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The file below the state directory, mode 0600.
pub const TRACE: &str = "/var/lib/kubestrap/bootstrap-trace.json";
/// Calls beyond this are only counted; repeated ones are one line.
const MAX_CALLS: usize = 2000;
/// Lives of the agent that are kept: a bootstrap with more restarts than that has another problem.
const MAX_LIVES: usize = 8;
/// The largest trace that is read back.
pub const MAX_TRACE: u64 = 16 * 1024 * 1024;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Major version of the form.
    pub schema: u32,
    /// Oldest first.
    pub lives: Vec<Life>,
}

impl Default for Trace {
    fn default() -> Self {
        Trace { schema: 1, lives: Vec::new() }
    }
}

impl Trace {
    /// Adds a life, or replaces the one that began at the same time; drops the oldest beyond the limit.
    pub fn keep(&mut self, life: Life) {
        self.lives.retain(|other| other.started_at != life.started_at);
        self.lives.push(life);
        let surplus = self.lives.len().saturating_sub(MAX_LIVES);
        self.lives.drain(..surplus);
    }
}

/// One life of the agent, from its start to Ready or to its end. Offsets are milliseconds since its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// When it began, by the local clock.
    pub started_at: Timestamp,
    /// When it ended or became Ready; `None` when it was killed.
    pub ended_ms: Option<u64>,
    /// Whether it became Ready.
    pub ready: bool,
    /// Runs of steps.
    pub steps: Vec<Span>,
    /// What steps waited for.
    pub waits: Vec<Span>,
    /// Calls to ports.
    pub calls: Vec<Span>,
    /// How many calls more there were.
    pub calls_dropped: u64,
}

/// Something that took time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// A step, or a port's method.
    pub name: String,
    /// Why it ran, what it waited for, what the call was about.
    pub subject: String,
    /// When it began.
    pub began_ms: u64,
    /// How long it took; `None` when it did not end. The sum, when it was made several times.
    pub took_ms: Option<u64>,
    /// How often a call was repeated without another one in between (polling).
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub times: u64,
    /// The failure's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

fn once() -> u64 {
    1
}

fn is_once(times: &u64) -> bool {
    *times == 1
}

/// Remembers spans of this life.
pub struct Recorder {
    began: Instant,
    state: RefCell<State>,
}

struct State {
    life: Life,
    pending: BTreeMap<u64, Duration>,
    changed: bool,
}

impl Recorder {
    /// A recorder for the life that begins now.
    pub fn new(started_at: Timestamp) -> Self {
        let life = Life {
            started_at,
            ended_ms: None,
            ready: false,
            steps: Vec::new(),
            waits: Vec::new(),
            calls: Vec::new(),
            calls_dropped: 0,
        };
        let state = State { life, pending: BTreeMap::new(), changed: false };
        Recorder { began: Instant::now(), state: RefCell::new(state) }
    }

    /// This life so far, when a step was applied and something changed since the last call; `None` otherwise.
    pub fn news(&self) -> Option<Life> {
        let mut state = self.state.borrow_mut();
        let news = std::mem::take(&mut state.changed) && !state.life.steps.is_empty();
        news.then(|| state.life.clone())
    }

    fn at(&self) -> u64 {
        millis(self.began.elapsed())
    }

    fn end(&self, phase: Phase) {
        let at = self.at();
        let mut state = self.state.borrow_mut();
        close(&mut state.life.waits, at, None);
        if state.life.ended_ms.is_none() {
            state.life.ended_ms = Some(at);
            state.life.ready = phase == Phase::Ready;
            state.changed = true;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn close(spans: &mut [Span], at: u64, cause: Option<&str>) {
    if let Some(span) = spans.last_mut().filter(|span| span.took_ms.is_none()) {
        span.took_ms = Some(at.saturating_sub(span.began_ms));
        span.cause = cause.map(str::to_owned);
    }
}

/// Adds a call; one that repeats the last is counted there, so that an hour of polling stays one line.
fn add(life: &mut Life, span: Span) {
    let same = |last: &&mut Span| last.name == span.name && last.subject == span.subject && last.cause == span.cause;
    if let Some(last) = life.calls.last_mut().filter(same) {
        last.times += 1;
        last.took_ms = Some(last.took_ms.unwrap_or_default() + span.took_ms.unwrap_or_default());
    } else if life.calls.len() < MAX_CALLS {
        life.calls.push(span);
    } else {
        life.calls_dropped += 1;
    }
}

impl Observer for Recorder {
    fn on(&self, event: &Event<'_>) {
        let at = self.at();
        let open = |name: &str, subject: &str| Span {
            name: name.to_owned(),
            subject: subject.to_owned(),
            began_ms: at,
            took_ms: None,
            times: 1,
            cause: None,
        };
        match event {
            Event::Phase(phase @ (Phase::Ready | Phase::Failed | Phase::Stopped)) => self.end(*phase),
            Event::StepStarted { step, why } => {
                let mut state = self.state.borrow_mut();
                state.life.steps.push(open(step, why));
                state.changed = true;
            }
            Event::Waiting { step, for_what } => {
                let mut state = self.state.borrow_mut();
                close(&mut state.life.waits, at, None);
                state.life.waits.push(open(step, for_what));
            }
            Event::StepEnded { result, .. } => {
                let mut state = self.state.borrow_mut();
                close(&mut state.life.waits, at, None);
                close(&mut state.life.steps, at, result.err().map(|failure| failure.cause.row().label));
                state.changed = true;
            }
            _ => {}
        }
    }
}

impl Gate for Recorder {
    fn before(&self, _call: &Call, ticket: u64) -> Admission {
        let mut state = self.state.borrow_mut();
        if state.life.ended_ms.is_none() {
            state.pending.insert(ticket, self.began.elapsed());
        }
        Admission::Pass
    }

    fn after(&self, call: &Call, ticket: u64, result: Result<(), &Failure>) -> Delivery {
        let now = self.began.elapsed();
        let mut state = self.state.borrow_mut();
        if let Some(began) = state.pending.remove(&ticket) {
            let span = Span {
                name: call.name.to_owned(),
                subject: call.subject.clone(),
                began_ms: millis(began),
                took_ms: Some(millis(now.saturating_sub(began))),
                times: 1,
                cause: result.err().map(|failure| failure.cause.row().label.to_owned()),
            };
            add(&mut state.life, span);
        }
        if state.life.ended_ms.is_some() {
            state.pending.clear();
        }
        Delivery::Deliver
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubestrap_core::model::cause::Cause;

    fn recorder() -> Recorder {
        Recorder::new(Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_life_without_steps_is_not_news() {
        let recorder = recorder();
        recorder.on(&Event::StepDone { step: "preflight", why: "fine" });
        recorder.on(&Event::Phase(Phase::Ready));
        assert_eq!(recorder.news(), None);
    }

    #[test]
    fn waits_end_with_the_next_wait_or_the_step() {
        let recorder = recorder();
        recorder.on(&Event::StepStarted { step: "join", why: "not joined" });
        recorder.on(&Event::Waiting { step: "join", for_what: "a bundle" });
        recorder.on(&Event::Waiting { step: "join", for_what: "kubeadm" });
        let failure = Failure::new(Cause::ToolHung, "run kubeadm", "late");
        recorder.on(&Event::StepEnded { step: "join", took: Duration::ZERO, result: Err(&failure) });
        let life = recorder.news().expect("news");
        assert!(life.waits.iter().all(|wait| wait.took_ms.is_some()), "{life:?}");
        assert_eq!(life.steps[0].cause.as_deref(), Some("tool-hung"));
        assert_eq!(recorder.news(), None, "told once");
    }

    fn call(subject: &str) -> Call {
        Call { name: "objects.get", subject: subject.to_owned(), changes: false, deadline: None }
    }

    #[test]
    fn calls_are_recorded_until_ready_and_bounded() {
        let recorder = recorder();
        recorder.on(&Event::StepStarted { step: "join", why: "x" });
        for ticket in 0..(MAX_CALLS as u64 + 5) {
            let call = call(&ticket.to_string());
            recorder.before(&call, ticket);
            recorder.after(&call, ticket, Ok(()));
        }
        recorder.on(&Event::Phase(Phase::Ready));
        recorder.before(&call("late"), 99_999);
        recorder.after(&call("late"), 99_999, Ok(()));
        let life = recorder.news().expect("news");
        assert_eq!((life.calls.len(), life.calls_dropped, life.ready), (MAX_CALLS, 5, true));
    }

    #[test]
    fn polling_is_one_span_until_its_answer_changes() {
        let recorder = recorder();
        recorder.on(&Event::StepStarted { step: "join", why: "x" });
        let failure = Failure::new(Cause::Throttled, "read", "503");
        for (ticket, result) in [Ok(()), Ok(()), Err(&failure), Ok(())].into_iter().enumerate() {
            recorder.before(&call("k"), ticket as u64);
            recorder.after(&call("k"), ticket as u64, result);
        }
        let times: Vec<u64> = recorder.news().expect("news").calls.iter().map(|call| call.times).collect();
        assert_eq!(times, [2, 1, 1]);
    }

    #[test]
    fn the_newest_lives_are_kept_and_one_life_is_kept_once() {
        let mut trace = Trace::default();
        for second in 0..20 {
            let mut life = recorder().state.into_inner().life;
            life.started_at = Timestamp::from_second(second).expect("time");
            trace.keep(life.clone());
            trace.keep(life);
        }
        assert_eq!(trace.lives.len(), MAX_LIVES);
        assert_eq!(trace.lives[0].started_at, Timestamp::from_second(12).expect("time"));
    }
}
