//! Where an agent dies, and how.

use kubestrap_core::gate::Call;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A write that lands this long after its sender died.
const LATE: Duration = Duration::from_secs(150);

/// A death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// Killed before the call.
    Before,
    /// Killed after it was done; the answer is lost.
    After,
    /// Killed within: a part of the file is written.
    Torn,
    /// Killed when the write was under way: it lands minutes later.
    Late,
    /// The machine loses its power before the call: jobs end, the disk stays.
    PowerCut,
    /// The machine loses its power for ever after the call. Only for the machines of a prologue.
    Death,
}

impl How {
    /// What a victim is struck with.
    pub const ALL: &'static [How] = &[How::Before, How::After, How::Torn, How::Late, How::PowerCut];

    /// Whether the agent can die so in this call.
    pub fn is_possible(self, crossing: &Crossing) -> bool {
        match self {
            How::Before | How::PowerCut => true,
            // After a call that changes nothing is before the next one.
            How::After => crossing.changes && crossing.answered,
            How::Torn => matches!(crossing.name, "files.write" | "files.append"),
            How::Late => matches!(crossing.name, "objects.put" | "objects.delete"),
            How::Death => false,
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            How::Before => "before",
            How::After => "after",
            How::Torn => "within",
            How::Late => "lands late",
            How::PowerCut => "power cut",
            How::Death => "for ever",
        })
    }
}

/// Which crossing.
#[derive(Debug, Clone)]
pub(super) enum At {
    /// The so-many-th of the victim.
    Crossing(usize),
    /// The first call of this name whose subject ends so.
    First(&'static str, &'static str),
}

/// One planned death.
#[derive(Debug, Clone)]
pub(super) struct Strike {
    pub machine: usize,
    pub at: At,
    pub how: How,
}

/// A crossing of the gate by the victim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    /// Port and method.
    pub name: &'static str,
    /// What it was about.
    pub subject: String,
    /// Whether it may change something outside of the process.
    pub changes: bool,
    /// Whether it came to an end: a call may be given up by whoever made it.
    pub answered: bool,
}

impl fmt::Display for Crossing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, general(&self.subject))
    }
}

/// The subject without what is another one in each run: uuids and token ids.
fn general(subject: &str) -> String {
    let is_id = |word: &str| uuid::Uuid::try_parse(word).is_ok();
    let words = subject.split_inclusive(['/', ' ', '.', ',']).map(|word| {
        let (bare, end) = match word.char_indices().last() {
            Some((at, last)) if !last.is_ascii_alphanumeric() => word.split_at(at),
            _ => (word, ""),
        };
        let bare = match bare.strip_prefix("bootstrap-token-") {
            Some(_) => "bootstrap-token-<id>",
            None if is_id(bare) => "<uuid>",
            None => bare,
        };
        format!("{bare}{end}")
    });
    words.collect()
}

/// The plan of a run, and the log of the victim's crossings. Empty in runs that are left to chance.
#[derive(Debug, Default)]
pub struct Strikes {
    planned: Vec<Strike>,
    struck: usize,
    victim: Option<usize>,
    /// Crossings count from the moment on at which the victim is a node.
    from_ready: bool,
    log: Vec<Crossing>,
    open: BTreeMap<u64, usize>,
    after: BTreeMap<u64, How>,
    late: Option<Duration>,
    job_fails: Option<(&'static str, &'static str)>,
}

impl Strikes {
    /// The first job of this name that comes to this phase fails there.
    pub(super) fn with_failure(mut self, job_and_phase: Option<(&'static str, &'static str)>) -> Strikes {
        self.job_fails = job_and_phase;
        self
    }

    /// Whether the job fails in this phase now.
    pub(crate) fn fails(&mut self, job: &str, phase: &str) -> bool {
        self.job_fails.take_if(|(name, at)| *name == job && *at == phase).is_some()
    }

    pub(super) fn new(planned: Vec<Strike>, victim: usize, from_ready: bool) -> Strikes {
        Strikes { planned, victim: Some(victim), from_ready, ..Strikes::default() }
    }

    pub(super) fn crossings(&self) -> Vec<Crossing> {
        self.log.clone()
    }

    /// How many planned deaths fell so far.
    pub(crate) fn struck(&self) -> usize {
        self.struck
    }

    /// A machine is about to make a call: how it dies there, if it does.
    pub(crate) fn before(&mut self, machine: usize, ready: bool, call: &Call, ticket: u64) -> Option<How> {
        self.victim?;
        let mut number = None;
        if self.victim == Some(machine) && (ready || !self.from_ready) {
            number = Some(self.log.len());
            self.open.insert(ticket, self.log.len());
            self.log.push(Crossing {
                name: call.name,
                subject: call.subject.clone(),
                changes: call.changes,
                answered: false,
            });
        }
        let falls = |strike: &Strike| {
            strike.machine == machine
                && match strike.at {
                    At::Crossing(at) => number == Some(at),
                    At::First(name, subject) => call.name == name && call.subject.ends_with(subject),
                }
        };
        let at = self.planned.iter().position(falls)?;
        let how = self.planned.remove(at).how;
        if matches!(how, How::After | How::Late | How::Death) {
            self.after.insert(ticket, how);
        } else {
            self.struck += 1;
        }
        if how == How::Late {
            self.late = Some(LATE);
        }
        Some(how)
    }

    /// A call came to its end: how the machine dies now, if it does.
    pub(crate) fn after(&mut self, machine: usize, ticket: u64) -> Option<How> {
        if self.victim == Some(machine)
            && let Some(number) = self.open.remove(&ticket)
        {
            self.log[number].answered = true;
        }
        let how = self.after.remove(&ticket)?;
        self.struck += 1;
        Some(how)
    }

    /// The write that is sent now lands this much later, if it was so planned.
    pub(crate) fn take_late(&mut self) -> Option<Duration> {
        self.late.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_taken_out_of_a_subject() {
        let id = "7f1e6f0a-2f5c-4b52-9d5c-0e5e5f3f7a11";
        assert_eq!(general(&format!("/var/lib/{id}/x")), "/var/lib/<uuid>/x");
        assert_eq!(
            general("DELETE /api/v1/secrets/bootstrap-token-abcdef via /etc/x.conf"),
            "DELETE /api/v1/secrets/bootstrap-token-<id> via /etc/x.conf"
        );
        assert_eq!(general("/etc/kubernetes/pki/ca.crt"), "/etc/kubernetes/pki/ca.crt");
    }
}
