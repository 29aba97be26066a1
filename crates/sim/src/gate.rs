//! The gate of a simulated node: notes every call, kills the agent before, after or within one, and keeps rule 7.

use crate::faults::Fault;
use crate::killpoints::How;
use crate::universe::Universe;
use kubestrap_core::gate::{Admission, Call, Delivery, Gate};
use kubestrap_core::model::cause::Failure;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// A call may end this much after its deadline: the answer may come in the same instant as the cut.
const GRACE: Duration = Duration::from_millis(1);

/// The gate of one life of one agent.
pub struct SimGate {
    universe: Rc<Universe>,
    machine: usize,
    began: RefCell<BTreeMap<u64, Duration>>,
}

impl SimGate {
    /// A gate for a new life.
    pub fn new(universe: Rc<Universe>, machine: usize) -> Self {
        SimGate { universe, machine, began: RefCell::default() }
    }

    fn dying(&self) -> bool {
        self.universe.machines[self.machine].dying.get()
    }

    fn strike(&self, fault: Fault, when: &str, call: &Call) -> bool {
        let struck = self.universe.strikes(fault);
        if struck {
            self.universe.kill_agent(self.machine, &format!("{when} {call}"));
        }
        struck
    }

    /// A planned death; true when the agent is gone now.
    fn fall(&self, how: Option<How>, call: &Call) -> bool {
        let universe = &self.universe;
        match how {
            None | Some(How::Torn) => return false,
            Some(How::PowerCut) => universe.reboot(self.machine),
            Some(How::Death) => universe.die(self.machine),
            Some(how) => universe.kill_agent(self.machine, &format!("{how} {call}")),
        }
        true
    }
}

impl Gate for SimGate {
    fn before(&self, call: &Call, ticket: u64) -> Admission {
        if self.dying() {
            return Admission::Die;
        }
        *self.universe.calls.borrow_mut().entry((self.machine, call.name)).or_default() += 1;
        self.universe.judge_text(6, "the subject of a call", &call.subject);
        let ready = self.universe.machines[self.machine].ready.get();
        let planned = self.universe.deaths.borrow_mut().before(self.machine, ready, call, ticket);
        match planned {
            // Their time is when the call has ended.
            None | Some(How::After | How::Late | How::Death) => {}
            Some(How::Torn) => self.universe.machines[self.machine].torn.set(true),
            how => return if self.fall(how, call) { Admission::Die } else { Admission::Pass },
        }
        let fault = if call.changes { Fault::KilledBefore } else { Fault::KilledReading };
        if self.strike(fault, "before", call) {
            return Admission::Die;
        }
        let file = matches!(call.name, "files.write" | "files.append");
        if file && self.universe.strikes(Fault::KilledWithin) {
            self.universe.machines[self.machine].torn.set(true);
        }
        if call.deadline.is_some() {
            self.began.borrow_mut().insert(ticket, self.universe.timeline.now());
        }
        Admission::Pass
    }

    fn after(&self, call: &Call, ticket: u64, result: Result<(), &Failure>) -> Delivery {
        if let (Some(deadline), Some(began)) = (call.deadline, self.began.borrow_mut().remove(&ticket)) {
            let now = self.universe.timeline.now();
            // An agent that was not scheduled cannot cut anything.
            let awake = now.saturating_sub(deadline + GRACE) > self.universe.machines[self.machine].stalled_until.get();
            if now > began + deadline + GRACE && awake {
                self.universe.violate(7, format!("{call} took {:?}, its deadline is {deadline:?}", now - began));
            }
        }
        let fallen = self.universe.deaths.borrow_mut().after(self.machine, ticket);
        if self.fall(fallen, call) {
            return Delivery::Die;
        }
        if self.universe.machines[self.machine].torn.replace(false) {
            self.universe.kill_agent(self.machine, &format!("within {call}"));
            return Delivery::Die;
        }
        if self.dying() {
            return Delivery::Die;
        }
        match result {
            Err(failure) => {
                self.universe.judge_text(6, "an error", &failure.detail);
                self.universe
                    .routine(self.machine, format_args!("{call}: {} ({})", failure.cause.row().label, failure.detail));
            }
            Ok(()) if call.changes && call.name != "objects.put" => {
                self.universe.routine(self.machine, format_args!("{call}"));
            }
            Ok(()) => {}
        }
        if call.changes && self.strike(Fault::KilledAfter, "after", call) {
            return Delivery::Die;
        }
        Delivery::Deliver
    }
}
