//! What a control plane of several machines has come to in the end: every master is a voter whose API server answers,
//! nothing is left of the dead, and the bundle lives while somebody could refresh it.

use crate::leaving::Leaving;
use crate::machine::{Agent, Machine};
use crate::members::Member;
use crate::scenario::Ground;
use crate::universe::Universe;
use kubestrap_core::model::bundle::JoinBundle;
use kubestrap_core::model::identity::Role;
use std::time::Duration;

/// A worker that is started while a master could refresh the bundle all the time is a node after this, on a good network.
const NEWCOMER: Duration = Duration::from_secs(10 * 60);

impl Universe {
    /// Whether so many voters are dead for ever that the rest will never be a majority.
    pub fn is_over(&self, number: usize) -> bool {
        let etcds = self.etcds.borrow();
        let alive = etcds[number].voters().filter(|voter| !self.machines[voter.machine].is_dead()).count();
        2 * alive <= etcds[number].voters().count()
    }

    /// Whether the cluster lives on when this machine is lost.
    pub fn can_miss(&self, machine: usize) -> bool {
        let Some(number) = self.etcd_of_cluster() else { return true };
        let etcds = self.etcds.borrow();
        let voters = || etcds[number].voters();
        let alive = voters().filter(|voter| voter.machine != machine && self.member_runs(number, voter)).count();
        !voters().any(|voter| voter.machine == machine) || 2 * alive > voters().count()
    }

    /// Why the cluster of several masters has not settled; `None` when it has, or when it is lost.
    pub(super) fn unsettled_control_plane(&self) -> Option<String> {
        let number = self.etcd_of_cluster()?;
        if self.is_over(number) {
            self.count("cluster-lost");
            return self.survivors().find_map(|machine| self.refused_wrongly(machine));
        }
        self.tend_members(number);
        self.survivors()
            .find_map(|machine| self.unsettled_machine(machine, number))
            .or_else(|| self.left_of_the_dead(number))
            .or_else(|| self.register_lost())
            .or_else(|| self.keys_missing())
            .or_else(|| self.place_is_empty())
            .or_else(|| self.left_cordoned(number))
    }

    /// The group has not started a machine yet in the place of one that was lost.
    fn place_is_empty(&self) -> Option<String> {
        let masters = self.machines.iter().filter(|machine| machine.role == Role::Master);
        let lost = masters.clone().filter(|machine| machine.is_dead()).count() as u64;
        let launched = masters.filter(|machine| machine.is_launched()).count() as u64;
        let in_place = launched.saturating_sub(self.scenario.masters);
        (in_place < lost.min(self.scenario.spare_masters)).then(|| "the place of a lost master is empty".to_owned())
    }

    fn unsettled_machine(&self, machine: &Machine, number: usize) -> Option<String> {
        let name = &machine.name;
        if machine.leaving.get() != Leaving::No || machine.notice.borrow().is_some() {
            return Some(format!("{name} is about to go, or to be rebooted"));
        }
        if let Agent::Refused(_) = machine.state.borrow().agent {
            return self.refused_wrongly(machine);
        }
        if !machine.ready.get() {
            return Some(format!("{name} is not ready"));
        }
        let ca = self.etcds.borrow()[number].ca.clone();
        let pem = machine.state.borrow().disk.text("/etc/kubernetes/pki/ca.crt").unwrap_or_default();
        if crate::kubeadm::ca::pin(&pem) != Some(ca) {
            return Some(format!("{name} says that it is ready and carries another CA"));
        }
        if !self.is_registered(number, &machine.identity.node_name) {
            return Some(format!("{name} says that it is ready and is not in the cluster"));
        }
        if machine.role == Role::Master {
            let member = self.etcds.borrow()[number].member_of(machine.index).cloned();
            if !member.is_some_and(|member| member.started && !member.learner) {
                return Some(format!("{name} says that it is ready and is no voter of etcd"));
            }
            if self.api_on(machine.index) != Some(number) {
                return Some(format!("the API server of {name} does not answer"));
            }
        }
        self.login_missing(machine)
    }

    fn left_of_the_dead(&self, number: usize) -> Option<String> {
        let etcds = self.etcds.borrow();
        let dead = |member: &&Member| self.machines[member.machine].is_dead();
        if let Some(member) = etcds[number].members.iter().find(dead) {
            return Some(format!("etcd still has {}, which is gone", self.machines[member.machine].name));
        }
        let of_dead = |machine: &&Machine| {
            let known = etcds[number].nodes.contains_key(&machine.identity.node_name);
            machine.is_dead() && known && self.scenario.ground == Ground::Ec2
        };
        let node = self.machines.iter().find(of_dead);
        node.map(|machine| format!("the Node of {} is left, which is gone", machine.name))
    }

    /// The bundle never expires while a master could have refreshed it.
    pub fn judge_bundle_life(&self) {
        if !self.scenario.pki {
            return;
        }
        let now = self.timeline.now();
        let able = |machine: &Machine| {
            machine.role == Role::Master
                && machine.ready.get()
                && machine.stalled_until.get() <= now
                && !machine.is_cut(now)
                && self.etcd_of_cluster().is_some_and(|number| self.api_on(machine.index) == Some(number))
        };
        let able = self.machines.iter().any(able);
        let since = {
            let mut monitor = self.monitor.borrow_mut();
            monitor.able_since = able.then(|| monitor.able_since.unwrap_or(now));
            monitor.able_since
        };
        let bundle = self.shared("join/worker.json");
        let bundle = bundle.and_then(|object| serde_json::from_slice::<JoinBundle>(&object.body).ok());
        let able_for = since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        if able_for > self.scenario.refresh_within
            && let Some(bundle) = bundle
            && bundle.expires_at < self.wall()
        {
            self.violate(8, format!("the bundle died at {}, and a quorum of masters lives", bundle.expires_at));
        }
        self.judge_newcomers(able_for);
    }

    /// A worker that is started after the leader was lost joins.
    fn judge_newcomers(&self, able_for: Duration) {
        if self.scenario.spare_workers == 0 || able_for <= NEWCOMER {
            return;
        }
        let late = |machine: &&Machine| {
            let launched = machine.is_launched() && machine.starts_at.get() + NEWCOMER < self.timeline.now();
            launched && !machine.has_joined.get()
        };
        if let Some(late) = self.newcomers().find(late) {
            self.violate(8, format!("{} was started after the loss of a leader, and does not join", late.name));
        }
    }

    /// A reboot that was announced is over, and its machine takes no pods yet.
    fn left_cordoned(&self, number: usize) -> Option<String> {
        let cordoned = |machine: &&Machine| {
            let node = self.node_object(number, &machine.identity.node_name);
            node.is_some_and(|node| node.pointer("/spec/unschedulable") == Some(&true.into()))
        };
        let found = self.survivors().find(cordoned).filter(|_| self.scenario.announces());
        found.map(|machine| format!("{} is still cordoned", machine.name))
    }
}
