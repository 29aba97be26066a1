//! Rules 5 and 8 for a master that leaves: only one that is to leave, never on a reboot, and before its machine is gone;
//! and then it stays away.

use crate::leaving::Leaving;
use crate::members::Member;
use crate::universe::Universe;
use kubestrap_core::model::identity::Role;

/// What kept a machine from leaving in time: whoever compares two of them knows whether anything did in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disturbances {
    /// How often something was started on it.
    starts: u32,
    /// How often a master booted, or was lost.
    outages: u64,
    /// Whether etcd can do without it, and its agent runs and is not held up.
    able: bool,
}

impl Universe {
    /// A machine removes its own member, which had started: a reset of the only one is judged elsewhere.
    pub(super) fn judge_own_removal(&self, number: usize, member: &Member, what: &str) {
        let alone = self.etcds.borrow()[number].members.len() == 1;
        let asked = matches!(self.machines[member.machine].leaving.get(), Leaving::Now | Leaving::Noticed);
        if !asked && !alone {
            self.violate(5, format!("{what}, and nobody wants it to leave"));
        }
    }

    /// A machine was told that it has left: its member is gone, and the others are a cluster.
    pub fn judge_farewell(&self, machine: usize) {
        let Some(number) = self.etcd_of_cluster() else { return };
        let name = &self.machines[machine].name;
        let etcds = self.etcds.borrow();
        if etcds[number].member_of(machine).is_some() {
            self.violate(5, format!("{name} is told that it has left, and its member is still there"));
        }
        let mut voters = etcds[number].voters();
        if !voters.any(|voter| self.has_quorum(number, &etcds[number], voter.machine)) && self.others_run(machine) {
            self.violate(5, format!("{name} has left, and no quorum answers"));
        }
    }

    /// Whether every other master that lives is on.
    fn others_run(&self, machine: usize) -> bool {
        let mut others = self.survivors().filter(|other| other.role == Role::Master && other.index != machine);
        others.all(|other| self.runs_pods(other.index))
    }

    /// A machine says that it is a node that works.
    pub fn judge_ready(&self, machine: usize) {
        if self.machines[machine].leaving.get() == Leaving::Left {
            self.violate(5, format!("{} says that it is ready although it has left", self.machines[machine].name));
        }
    }

    /// What has disturbed a machine and its etcd so far.
    pub fn disturbances(&self, machine: usize) -> Disturbances {
        let masters = || self.machines.iter().filter(|machine| machine.role == Role::Master);
        let boots: u64 = masters().map(|machine| machine.state.borrow().boots).sum();
        let lost = masters().filter(|machine| machine.is_dead()).count() as u64;
        let awake = self.has_live_agent(machine) && self.machines[machine].stalled_until.get() <= self.timeline.now();
        Disturbances {
            starts: self.machines[machine].starts.get(),
            outages: boots + lost,
            able: self.can_miss(machine) && awake && self.others_run(machine),
        }
    }

    /// EC2 takes a machine back, two minutes after it said so: when nothing disturbed it, it is no member any more.
    pub fn judge_taken_back(&self, machine: usize, before: Disturbances) {
        let member = self.etcd_of_cluster().is_some_and(|number| {
            let etcds = self.etcds.borrow();
            etcds[number].member_of(machine).is_some()
        });
        let undisturbed = before.able && self.disturbances(machine) == before;
        match (member, undisturbed) {
            (true, true) => {
                let name = &self.machines[machine].name;
                self.violate(5, format!("{name} had two minutes to leave, and ends as a member of etcd"));
            }
            (true, false) => self.count("ended-as-a-member"),
            (false, true) => self.count("left-in-time"),
            (false, false) => self.count("left-in-spite-of-trouble"),
        }
    }
}
