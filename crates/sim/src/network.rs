//! Partitions: a machine is cut off from the store, the API server, the cloud, or from everything, for a while.

use crate::machine::Machine;
use crate::universe::Universe;
use std::rc::Rc;
use std::time::Duration;

/// The shortest and the longest partition.
const SHORTEST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(600);

/// What a machine may be cut off from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Far {
    /// The object store.
    Store,
    /// Other machines' API servers, and by them its own.
    Api,
    /// EC2's API and the metadata service.
    Cloud,
}

/// A partition of one machine.
#[derive(Debug, Clone)]
pub struct Cut {
    from: Vec<Far>,
    until: Duration,
    /// Requests arrive, answers do not.
    one_way: bool,
}

/// How a request to somewhere fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It arrives and is answered.
    Open,
    /// It arrives, and the answer does not come back.
    Deaf,
    /// It does not arrive.
    Shut,
}

impl Machine {
    /// Whether it is cut off from anything.
    pub fn is_cut(&self, now: Duration) -> bool {
        self.cuts.borrow().iter().any(|cut| now < cut.until)
    }

    /// How a request that leaves now fares.
    pub fn way(&self, far: Far, now: Duration) -> Way {
        let cuts = self.cuts.borrow();
        let active = || cuts.iter().filter(|cut| now < cut.until && cut.from.contains(&far));
        match (active().next().is_some(), active().all(|cut| cut.one_way)) {
            (false, _) => Way::Open,
            (true, true) => Way::Deaf,
            (true, false) => Way::Shut,
        }
    }
}

impl Universe {
    /// Whether nobody reaches what runs on this machine, or gets an answer from it.
    pub fn api_cut(&self, machine: usize) -> bool {
        self.machines[machine].way(Far::Api, self.timeline.now()) != Way::Open
    }
}

/// Cuts a machine off from something, for minutes.
pub fn partition(universe: &Rc<Universe>, machine: usize) {
    let (from, name): (&[Far], _) = match universe.rng.below(4) {
        0 => (&[Far::Store], "cut-from-store"),
        1 => (&[Far::Api], "cut-from-api"),
        2 => (&[Far::Cloud], "cut-from-cloud"),
        _ => (&[Far::Store, Far::Api, Far::Cloud], "cut-from-everything"),
    };
    let one_way = universe.rng.below(3) == 0;
    let now = universe.timeline.now();
    let until = (now + universe.rng.between(SHORTEST, LONGEST)).min(universe.scenario.faults_last);
    universe.count(name);
    if one_way {
        universe.count("cut-one-way");
    }
    let how = if one_way { ", one-way (answers are lost)" } else { "" };
    let seconds = (until - now).as_secs();
    universe.note(machine, format_args!("CUT OFF ({name}) for {seconds} s{how}"));
    universe.machines[machine].cuts.borrow_mut().push(Cut { from: from.to_vec(), until, one_way });
}
