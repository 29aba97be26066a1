//! Rules 8 and 9, about whole machines: who they are, and what ends their agents.

use crate::machine::Agent;
use crate::universe::Universe;
use kubestrap_core::model::cause::{Cause, Failure};
use kubestrap_core::model::identity::Identity;

impl Universe {
    /// A machine found out who it is.
    pub fn judge_identity(&self, machine: usize, found: &Identity) {
        let truth = &self.machines[machine].identity;
        let told = |identity: &Identity| (identity.key(), identity.node_name.clone(), identity.address);
        if told(found) != told(truth) {
            self.violate(8, format!("{} takes itself for {}", self.machines[machine].name, found.key()));
        }
    }

    /// State that was made by another machine is not worked with: nothing is written, sent or started (rule 8).
    pub fn judge_clone(&self, machine: usize, does: &str) {
        if self.machines[machine].cloned.get() {
            self.violate(8, format!("{} {does} with state that another machine made", self.machines[machine].name));
        }
    }

    /// An agent ended by itself.
    pub fn judge_end(&self, machine: usize, failure: &Failure) {
        match failure.cause {
            Cause::ClockSkew => self.judge_clock_refusal(machine),
            Cause::ClonedState if self.machines[machine].cloned.get() => self.count("clone-refused"),
            Cause::ForeignState if self.monitor.borrow().commit_sent.contains(&machine) => {
                self.count("refused-after-commit");
            }
            Cause::ForeignState | Cause::ForeignCluster if self.machines[machine].foreign => {
                self.count("foreign-refused");
            }
            Cause::MetadataUnavailable => self.count("imds-gave-up"),
            Cause::LeftCluster => self.count("stays-away"),
            Cause::AlreadyEstablished if self.machines[machine].generation > 0 && self.cluster_is_lost() => {
                self.count("refused-until-retired");
            }
            _ => {}
        }
    }

    /// Whether a cluster was made, and its control plane is gone for ever.
    fn cluster_is_lost(&self) -> bool {
        self.monitor.borrow().committed.as_ref().is_some_and(|(.., creator)| self.machines[*creator].is_dead())
    }

    /// Init runs on one machine at a time, but for those that an operator took the register from (rule 1).
    pub fn judge_running_inits(&self) {
        let unlocked = self.monitor.borrow().unlocked.clone();
        let allowed = |machine: usize| !unlocked.contains(&machine) && self.runs_kubeadm(machine, "init");
        let running: Vec<usize> = (0..self.machines.len()).filter(|machine| allowed(*machine)).collect();
        if let [one, two, ..] = running.as_slice() {
            let name = |machine: usize| &self.machines[machine].name;
            self.violate(1, format!("init runs on {} and on {} at the same time", name(*one), name(*two)));
        }
    }

    /// The agents that stopped for ever, for an operator who looks after them.
    pub fn refused(&self) -> impl Iterator<Item = (usize, Cause)> {
        self.machines.iter().filter_map(|machine| match &machine.state.borrow().agent {
            Agent::Refused(failure) => Some((machine.index, failure.cause)),
            _ => None,
        })
    }
}
