//! The real gate: a span for every call, and its time for metrics and `analyze`.

use kubestrap_core::gate::{Admission, Call, Delivery, Gate};
use kubestrap_core::model::cause::Failure;
use kubestrap_core::model::secret::redact;
use kubestrap_core::ports::Time;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;
use tracing::{Span, debug, debug_span};

/// How many finished calls are kept: a bootstrap makes some hundreds. About 100 bytes each.
const KEPT: usize = 2048;
/// Calls that were cut off from outside never come back; the oldest are let go beyond this many.
const OPEN: usize = 64;

/// A finished call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// Port and method.
    pub name: String,
    /// What it was about; no secrets.
    pub subject: String,
    /// When it began, since the gate was made.
    pub began: Duration,
    /// How long it took.
    pub took: Duration,
    /// The label of the cause of its failure.
    pub failure: Option<String>,
}

/// Wants every finished call (metrics).
pub trait CallSink {
    /// Called after each call; must not block.
    fn record(&self, call: &CallRecord);
}

/// The gate of the real world: lets everything pass, and remembers.
pub struct Traced {
    time: Rc<dyn Time>,
    start: Duration,
    sink: Option<Rc<dyn CallSink>>,
    open: RefCell<BTreeMap<u64, (Duration, Span)>>,
    done: RefCell<VecDeque<CallRecord>>,
}

impl Traced {
    /// A gate whose offsets count from now.
    pub fn new(time: Rc<dyn Time>, sink: Option<Rc<dyn CallSink>>) -> Self {
        let start = time.uptime();
        Traced { time, start, sink, open: RefCell::default(), done: RefCell::default() }
    }

    /// The last finished calls, oldest first, which are forgotten here.
    pub fn drain(&self) -> Vec<CallRecord> {
        self.done.borrow_mut().drain(..).collect()
    }
}

impl Gate for Traced {
    fn before(&self, call: &Call, ticket: u64) -> Admission {
        let span = debug_span!("call", name = call.name, subject = %redact(&call.subject), changes = call.changes);
        let mut open = self.open.borrow_mut();
        open.insert(ticket, (self.time.uptime(), span));
        if open.len() > OPEN {
            open.pop_first();
        }
        Admission::Pass
    }

    fn after(&self, call: &Call, ticket: u64, result: Result<(), &Failure>) -> Delivery {
        let Some((began, span)) = self.open.borrow_mut().remove(&ticket) else { return Delivery::Deliver };
        let took = self.time.uptime().saturating_sub(began);
        let failure = result.err().map(|failure| failure.cause.row().label.to_owned());
        span.in_scope(|| match result {
            Ok(()) => debug!(ms = took.as_millis(), "done"),
            Err(failure) => debug!(ms = took.as_millis(), cause = failure.cause.row().label, "{failure}"),
        });
        let record = CallRecord {
            name: call.name.to_owned(),
            subject: redact(&call.subject),
            began: began.saturating_sub(self.start),
            took,
            failure,
        };
        if let Some(sink) = &self.sink {
            sink.record(&record);
        }
        let mut done = self.done.borrow_mut();
        if done.len() == KEPT {
            done.pop_front();
        }
        done.push_back(record);
        Delivery::Deliver
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::time::SystemTime;
    use kubestrap_core::model::cause::Cause;

    fn call(subject: &str) -> Call {
        Call { name: "objects.get", subject: subject.to_owned(), changes: false, deadline: None }
    }

    #[test]
    fn every_end_is_recorded_without_secrets_and_within_bounds() {
        let gate = Traced::new(Rc::new(SystemTime), None);
        let failure = Failure::new(Cause::Dns, "x", "y");
        let secret = call("abcdef.0123456789abcdef");
        assert_eq!(gate.before(&secret, 1), Admission::Pass);
        gate.after(&secret, 1, Err(&failure));
        let records = gate.drain();
        assert_eq!(records[0].failure.as_deref(), Some("dns"));
        assert_eq!(records[0].subject, "<secret>");
        for ticket in 2..4000 {
            gate.before(&call("k"), ticket);
            gate.after(&call("k"), ticket, Ok(()));
        }
        assert_eq!(gate.drain().len(), KEPT);
        assert!(gate.drain().is_empty());
    }

    #[test]
    fn calls_that_never_end_are_let_go() {
        let gate = Traced::new(Rc::new(SystemTime), None);
        for ticket in 0..1000 {
            gate.before(&call("k"), ticket);
        }
        assert_eq!(gate.open.borrow().len(), OPEN);
        gate.after(&call("k"), 0, Ok(()));
        assert!(gate.drain().is_empty(), "its beginning was let go");
    }
}
