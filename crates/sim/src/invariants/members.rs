//! Rules 2 and 5 for a control plane of several machines: what is removed from etcd is gone or its own, one change at a
//! time, and never the quorum.

use crate::members::Member;
use crate::universe::Universe;
use std::time::Duration;

/// From a look at the members to a removal, on a bad network.
const JUST_NOW: Duration = Duration::from_secs(15);

impl Universe {
    /// A member is to be removed, by the agent or the kubeadm of a machine, or by an operator (`None`).
    pub fn judge_member_removal(&self, by: Option<usize>, number: usize, id: u64) {
        self.tend_members(number);
        let known = self.etcds.borrow()[number].member(id).cloned();
        // Whoever did not hear the answer asks again.
        let Some(member) = known else { return };
        let who = by.map_or("an operator", |by| self.machines[by].name.as_str());
        let of = &self.machines[member.machine];
        let what = format!("{who} removes the member of {}", of.name);
        let own = by == Some(member.machine);
        let unlocked = self.monitor.borrow().ever_unlocked_joins.contains(&member.machine);
        if !own && !member.started && self.runs_kubeadm(member.machine, "join") {
            // An operator said that it is gone; it begins anew.
            if !unlocked {
                self.violate(5, format!("{what}, whose join runs"));
            }
            self.count("learner-of-unlocked-removed");
        }
        // Nobody can ask etcd to remove a learner only if it has not started: of one whose join was unlocked, it may start
        // between the last look and the removal. It has no vote, and begins anew.
        let starts = member.learner && self.timeline.now() < member.runs_from.saturating_add(JUST_NOW);
        if !own && member.started && !of.is_dead() {
            if !unlocked || !starts {
                self.violate(5, format!("{what}, which is not gone"));
            }
            self.count("learner-of-unlocked-removed-as-it-started");
        }
        // A failed join takes its own learner away, which may start just then.
        if own && member.started && !starts {
            self.judge_own_removal(number, &member, &what);
        }
        if !member.learner {
            self.judge_voter_removal(number, &member, &what);
        }
        let reason = match (own, member.started) {
            (true, true) => "member-left",
            (true, false) => "own-learner-removed",
            (false, true) if of.is_dead() => "dead-member-removed",
            (false, _) => "learner-removed",
        };
        self.count(reason);
    }

    fn judge_voter_removal(&self, number: usize, member: &Member, what: &str) {
        let etcds = self.etcds.borrow();
        let etcd = &etcds[number];
        let left: Vec<&Member> = etcd.voters().filter(|voter| voter.id != member.id).collect();
        if left.is_empty() {
            // A control plane that was never joined by anybody is its maker's to undo (rule 5 says when).
            if !self.runs_kubeadm(member.machine, "reset") {
                drop(etcds);
                self.violate(5, format!("{what}, the last voter"));
            }
            return;
        }
        let running = left.iter().filter(|voter| self.member_runs(number, voter)).count();
        let (running, all) = (running, left.len());
        drop(etcds);
        if 2 * running <= all {
            self.violate(5, format!("{what}: {running} of {all} voters are left, no quorum"));
        }
    }

    /// A learner is about to be added for a machine: never beside another.
    pub fn judge_member_addition(&self, machine: usize, number: usize) {
        self.tend_members(number);
        let etcds = self.etcds.borrow();
        let other = etcds[number].members.iter().find(|member| member.learner && member.machine != machine);
        let other = other.map(|member| member.machine);
        drop(etcds);
        let excused = |machine: &usize| self.monitor.borrow().ever_unlocked_joins.contains(machine);
        if let Some(other) = other.filter(|other| !excused(&machine) && !excused(other)) {
            let (name, other) = (&self.machines[machine].name, &self.machines[other].name);
            self.violate(5, format!("{name} joins while {other} is still a learner"));
        }
    }

    /// A machine is about to be reset: its own member must be none, or a learner that never started, or all there is.
    pub fn judge_member_reset(&self, machine: usize) {
        let found = self.data_on(machine).or_else(|| {
            let etcds = self.etcds.borrow();
            let of = |number: usize| Some((number, etcds[number].member_of(machine)?.id));
            (0..etcds.len()).rev().find_map(of)
        });
        let Some((number, id)) = found else { return };
        self.tend_members(number);
        let etcds = self.etcds.borrow();
        let (started, others) =
            (etcds[number].member(id).is_some_and(|member| member.started), etcds[number].members.len() - 1);
        drop(etcds);
        if started && others > 0 {
            self.violate(5, format!("{} resets a started member of etcd", self.machines[machine].name));
        }
    }
}
