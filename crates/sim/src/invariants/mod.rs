//! What must always hold. Each `judge_*` is called where its event happens and knows the whole truth: who is really
//! dead, which CA was really made, which machine was really clean. The numbers are the safety rules of the design.

mod bundle;
mod control_plane;
mod jobs;
mod leaving;
mod lock;
mod logins;
mod machines;
mod members;
mod register;
mod secrets;
mod settled;

pub use logins::Given;

use crate::machine::Machine;
use crate::store::{Stored, Writer};
use crate::universe::Universe;
use jiff::{SignedDuration, Timestamp};
use kubestrap_core::model::lock::JoinLock;
use kubestrap_core::model::names::CaHash;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// The name of every simulated cluster.
pub const CLUSTER: &str = "sim";

/// What the invariants remember.
#[derive(Debug, Default)]
pub struct Monitor {
    /// The first rule that was broken, and how.
    pub violation: Option<(u8, String)>,
    /// The cluster that was committed, with the machine that did it.
    pub committed: Option<(Uuid, CaHash, usize)>,
    /// Clusters that an operator retired, and when.
    pub retired: Vec<(Uuid, CaHash, Duration)>,
    /// Machines that sent a commit, whether or not it landed.
    pub commit_sent: BTreeSet<usize>,
    /// Machines that lost the register to an operator's `unlock init`, alive.
    pub unlocked: BTreeSet<usize>,
    /// Tokens that an administrator deleted: when they would have died, and how wrong their API server's clock is.
    pub revoked: BTreeMap<String, (Timestamp, SignedDuration)>,
    /// Machines whose join lock was taken from them by an operator, alive, and that have not taken it again.
    pub unlocked_joins: BTreeSet<usize>,
    /// Machines to which that happened ever.
    pub ever_unlocked_joins: BTreeSet<usize>,
    /// Join locks that were shown to an operator who wants to remove them.
    pub shown_locks: Vec<JoinLock>,
    /// Since when a master could refresh the bundle at any time.
    able_since: Option<Duration>,
    /// Logins of ECR, in the order in which they were given.
    logins: Vec<Given>,
    /// Until when a machine that was denied a login may be without one.
    denied: BTreeMap<usize, Duration>,
    /// Secret halves of all tokens ever made.
    secrets: BTreeSet<String>,
    /// How often each kind of thing happened: a scenario in which nothing happens proves nothing.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Monitor {
    /// Records a broken rule; the first counts.
    pub fn violate(&mut self, rule: u8, what: String) {
        self.violation.get_or_insert((rule, what));
    }

    /// A leader was lost: whoever follows it needs its time.
    pub fn begin_anew_to_be_able(&mut self) {
        self.able_since = None;
    }

    /// Counts something that happened.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

impl Universe {
    /// Counts something that happened.
    pub fn count(&self, what: &'static str) {
        self.monitor.borrow_mut().count(what);
    }

    /// A change of the store takes effect.
    pub fn judge_landing(&self, writer: Writer, key: &str, before: Option<&Stored>, after: Option<&Stored>) {
        if let Writer::Node(machine) = writer {
            self.judge_clone(machine, "writes to the store");
            let own = ["/selftest/conditions", lock::LOCK];
            let may = own.iter().any(|own| key.ends_with(own)) || self.is_archived(key, before);
            if after.is_none() && !may {
                self.violate(5, format!("{} deletes {key} from the store", self.machines[machine].name));
            }
        }
        match key.strip_prefix(CLUSTER).and_then(|rest| rest.strip_prefix('/')) {
            Some("cluster.json") => self.judge_register(writer, before, after),
            Some("join/worker.json") => self.judge_bundle(writer, before, after),
            Some(lock::LOCK) => self.judge_lock(writer, before, after),
            Some("pki/bundle") => self.judge_sealed(writer, before, after),
            Some(report) if report.starts_with("nodes/") => self.judge_report(writer, report, after),
            Some("selftest/conditions") => {}
            Some(copy) if copy.starts_with("retired/") && after.is_some() => self.count("archived"),
            _ => {
                if matches!(writer, Writer::Node(_)) {
                    self.note_world(format_args!("an unusual key: {key}"));
                }
            }
        }
    }

    /// Whether this is the report of a machine that is lost, and a copy of it is kept.
    fn is_archived(&self, key: &str, report: Option<&Stored>) -> bool {
        let identity = key.strip_prefix(CLUSTER).and_then(|rest| rest.strip_prefix("/nodes/"));
        let identity = identity.and_then(|rest| rest.strip_suffix("/report.json")).unwrap_or_default();
        let store = self.store.borrow();
        let is_copy = |(at, object): (&String, &Stored)| {
            at.starts_with(&format!("{CLUSTER}/retired/")) && Some(&object.body) == report.map(|report| &report.body)
        };
        self.machine_of(identity).is_some_and(Machine::is_dead) && store.objects.iter().any(is_copy)
    }

    /// A report is written by its owner alone, and holds no secret.
    fn judge_report(&self, writer: Writer, key: &str, after: Option<&Stored>) {
        // Whether it may be taken away was judged with everything else that is.
        let (Writer::Node(machine), Some(object)) = (writer, after) else { return };
        let identity = self.machines[machine].identity.key();
        if key != format!("nodes/{identity}/report.json") {
            self.violate(6, format!("{} wrote somebody else's {key}", self.machines[machine].name));
        }
        self.judge_text(6, "a report", &String::from_utf8_lossy(&object.body));
    }

    /// Machines that can still become something.
    pub fn survivors(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|machine| !machine.is_dead() && machine.is_launched())
    }
}
