//! Rule 8: when faults stop, everything that can become a node does, and what cannot says why.

use crate::leaving::Leaving;
use crate::machine::{Agent, Machine};
use crate::universe::Universe;
use kubestrap_core::model::cause::{Cause, Failure};
use kubestrap_core::model::identity::Role;
use kubestrap_core::model::register::{Register, RegisterState};

impl Universe {
    /// Why the world has not settled yet; `None` when it has.
    pub fn unsettled(&self) -> Option<String> {
        let creator = self.monitor.borrow().committed.as_ref().map(|(.., machine)| *machine);
        match creator {
            Some(creator) if self.scenario.rebuilt && self.machines[creator].is_dead() => {
                Some("the cluster of the old environment was not retired".to_owned())
            }
            Some(_) if self.scenario.pki => self.unsettled_control_plane(),
            Some(creator) if self.machines[creator].is_dead() || self.has_refused(creator) => {
                self.survivors().find_map(|m| self.refused_wrongly(m))
            }
            Some(creator) => self
                .survivors()
                .find_map(|m| self.unsettled_member(m, creator))
                .or_else(|| self.register_lost())
                .or_else(|| self.unrolled()),
            None if self.may_yet_begin() => Some("no cluster was made".to_owned()),
            None => self.survivors().find_map(|machine| self.refused_wrongly(machine)),
        }
    }

    fn has_refused(&self, machine: usize) -> bool {
        matches!(self.machines[machine].state.borrow().agent, Agent::Refused(_))
    }

    /// Whether a master is left that could still make the cluster.
    fn may_yet_begin(&self) -> bool {
        let alive = |machine: &Machine| !matches!(machine.state.borrow().agent, Agent::Refused(_));
        self.survivors().any(|machine| machine.role == Role::Master && alive(machine))
    }

    fn unsettled_member(&self, machine: &Machine, creator: usize) -> Option<String> {
        if let Agent::Refused(_) = machine.state.borrow().agent {
            return self.refused_wrongly(machine);
        }
        if machine.role == Role::Master && machine.index != creator {
            // It waits or stops; both are right, and it never runs init (rule 1).
            return None;
        }
        if !machine.ready.get() {
            return Some(format!("{} is not ready", machine.name));
        }
        let committed = self.monitor.borrow().committed.as_ref().map(|(_, ca, _)| ca.clone());
        let pem = machine.state.borrow().disk.text("/etc/kubernetes/pki/ca.crt").unwrap_or_default();
        if crate::kubeadm::ca::pin(&pem) != committed {
            return Some(format!("{} says that it is ready and carries another CA", machine.name));
        }
        let etcd = self.api_on(creator)?;
        let registered = self.is_registered(etcd, &machine.identity.node_name);
        if !registered {
            return Some(format!("{} says that it is ready and is not in the cluster", machine.name));
        }
        self.login_missing(machine)
    }

    pub(super) fn register_lost(&self) -> Option<String> {
        let register = self.shared("cluster.json").and_then(|o| serde_json::from_slice::<Register>(&o.body).ok());
        match register.map(|register| register.state) {
            Some(RegisterState::Established { .. }) => None,
            _ => Some("the creator lives and has not put the register back".to_owned()),
        }
    }

    /// A refusal must be one of those that the scenario makes right.
    pub(super) fn refused_wrongly(&self, machine: &Machine) -> Option<String> {
        let state = machine.state.borrow();
        let Agent::Refused(failure) = &state.agent else { return None };
        let journal = state.disk.text("/var/lib/kubestrap/journal.jsonl").unwrap_or_default();
        (!self.may_refuse(machine, failure, &journal)).then(|| format!("{} stopped for ever: {failure}", machine.name))
    }

    fn may_refuse(&self, machine: &Machine, failure: &Failure, journal: &str) -> bool {
        let monitor = self.monitor.borrow();
        let creator = monitor.committed.as_ref().map(|(.., creator)| *creator);
        match failure.cause {
            Cause::AlreadyEstablished => machine.role == Role::Master && creator.is_some_and(|c| c != machine.index),
            Cause::TakenOver => monitor.unlocked.contains(&machine.index),
            // It cannot know what was lost after its commit, so it leaves everything as it is.
            Cause::ForeignState if monitor.commit_sent.contains(&machine.index) => {
                self.scenario.refusals.contains(&failure.cause)
            }
            Cause::ForeignState | Cause::ForeignCluster => machine.foreign,
            // While the creator lives it puts the register back, so only those who came in between may refuse.
            // And a creator that never learned that its commit had landed cannot know that it is one.
            Cause::RegisterMissing => {
                let knows = creator == Some(machine.index) && journal.contains("\"entry\":\"committed\"");
                self.scenario.refusals.contains(&failure.cause) && !knows
            }
            Cause::ClonedState => machine.cloned.get(),
            Cause::LeftCluster => machine.leaving.get() != Leaving::No,
            cause => self.scenario.refusals.contains(&cause),
        }
    }

    /// Whether a report in the store names a cluster.
    pub fn reports_name_a_cluster(&self) -> bool {
        let store = self.store.borrow();
        let names_uid = |body: &[u8]| {
            let report: Option<serde_json::Value> = serde_json::from_slice(body).ok();
            report.is_some_and(|report| report.get("uid").is_some_and(serde_json::Value::is_string))
        };
        store.objects.iter().any(|(key, object)| key.contains("/nodes/") && names_uid(&object.body))
    }
}
