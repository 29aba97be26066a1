//! The members of an etcd: voters and learners on the disks of machines, who of them is reached, and what becomes of a
//! change of the membership. Texts and codes are etcd 3.6's (server/etcdserver/errors, api/v3rpc/rpctypes).

use crate::cluster::{ETCD_DATA, ETCD_MANIFEST, Etcd};
use crate::kubeadm::KUBE_VERSION;
use crate::network::{Far, Way};
use crate::universe::Universe;
use serde_json::{Value, json};
use std::time::Duration;

/// Pods of a control plane, by the beginning of their names.
pub const STATIC_PODS: &[&str] = &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// A member that came back counts as connected after this (etcdserver.HealthInterval).
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// A member as the others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// The machine that its peer URL names.
    pub machine: usize,
    /// It has no vote yet.
    pub learner: bool,
    /// It has told the others its name: it ran once.
    pub started: bool,
    /// From when on its process runs, once there is data on its disk.
    pub runs_from: Duration,
}

/// Why a request about members was refused: gRPC code and text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub u8, pub &'static str);

/// `etcdserver: unhealthy cluster`
pub const UNHEALTHY: Refusal = Refusal(14, "etcdserver: unhealthy cluster");
/// `etcdserver: request timed out`
pub const TIMED_OUT: Refusal = Refusal(14, "etcdserver: request timed out");
/// `etcdserver: member not found`
pub const NOT_FOUND: Refusal = Refusal(5, "etcdserver: member not found");
const NOT_STARTED: Refusal = Refusal(9, "etcdserver: re-configuration failed due to not enough started members");
const TOO_MANY: Refusal = Refusal(9, "etcdserver: too many learner members in cluster");
const EXISTS: Refusal = Refusal(9, "etcdserver: Peer URLs already exists");
const NOT_LEARNER: Refusal = Refusal(9, "etcdserver: can only promote a learner member");
const NOT_READY: Refusal = Refusal(9, "etcdserver: can only promote a learner member which is in sync with leader");
const BAD_TRANSFEREE: Refusal = Refusal(9, "etcdserver: bad leader transferee");
const NOT_LEADER: Refusal = Refusal(9, "etcdserver: not leader");

impl Etcd {
    /// A member by its id.
    pub fn member(&self, id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The member of a machine.
    pub fn member_of(&self, machine: usize) -> Option<&Member> {
        self.members.iter().find(|member| member.machine == machine)
    }

    /// Those that vote.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.learner)
    }
}

/// What is on the disk of a member.
pub fn data(number: usize, id: u64) -> String {
    format!("{number}:{id}")
}

impl Universe {
    /// The etcd and the member that a machine's disk belongs to. Data that was copied to another disk is nobody's.
    pub fn data_on(&self, machine: usize) -> Option<(usize, u64)> {
        let text = self.machines[machine].state.borrow().disk.text(ETCD_DATA)?;
        let (number, id) = text.split_once(':')?;
        let (number, id) = (number.parse().ok()?, id.parse().ok()?);
        let etcds = self.etcds.borrow();
        let known = etcds.get::<usize>(number).and_then(|etcd| etcd.member(id));
        // What was removed knows it from its own log, and does not run any more.
        known.is_some_and(|member| member.machine == machine).then_some((number, id))
    }

    /// Whether this member's process runs.
    pub fn member_runs(&self, number: usize, member: &Member) -> bool {
        let machine = member.machine;
        let state = self.machines[machine].state.borrow();
        let on_disk = || state.disk.text(ETCD_DATA).is_some_and(|text| text == data(number, member.id));
        member.runs_from <= self.timeline.now() && state.disk.has(ETCD_MANIFEST) && on_disk() && self.runs_pods(machine)
    }

    /// Whether a member runs and is reached from a machine.
    fn member_seen(&self, number: usize, member: &Member, from: usize) -> bool {
        let open = |machine: usize| self.machines[machine].way(Far::Api, self.timeline.now()) == Way::Open;
        self.member_runs(number, member) && (member.machine == from || (open(from) && open(member.machine)))
    }

    /// How many voters are seen from a machine, and how many there are.
    pub fn votes(&self, number: usize, etcd: &Etcd, from: usize) -> (usize, usize) {
        let seen = etcd.voters().filter(|member| self.member_seen(number, member, from)).count();
        (seen, etcd.voters().count())
    }

    /// Whether a majority of the voters is seen from a machine.
    pub fn has_quorum(&self, number: usize, etcd: &Etcd, from: usize) -> bool {
        let (seen, all) = self.votes(number, etcd, from);
        2 * seen > all
    }

    /// What members do by themselves: a new one tells its name, a leader is elected, what waited for a quorum is done.
    pub fn tend_members(&self, number: usize) {
        let known = self.etcds.borrow()[number].members.clone();
        let quorate = |from: usize| self.has_quorum(number, &self.etcds.borrow()[number], from);
        let Some(from) = known.iter().map(|member| member.machine).find(|machine| quorate(*machine)) else { return };
        for member in known.iter().filter(|member| !member.started) {
            if self.member_seen(number, member, from) {
                self.change_member(number, member.id, |member| member.started = true);
            }
        }
        let leads = |id: u64| {
            let etcds = self.etcds.borrow();
            etcds[number].member(id).is_some_and(|member| !member.learner && self.member_seen(number, member, from))
        };
        let leader = self.etcds.borrow()[number].leader;
        if !leads(leader)
            && let Some(next) = known.iter().find(|member| leads(member.id))
        {
            self.etcds.borrow_mut()[number].leader = next.id;
        }
        let pending = std::mem::take(&mut self.etcds.borrow_mut()[number].pending);
        for id in pending {
            self.count("removed-when-quorum-came-back");
            self.drop_member(number, id);
        }
        self.keep_mirrors(number);
    }

    /// The kubelets of living masters keep the mirror pods of their static pods.
    fn keep_mirrors(&self, number: usize) {
        let running: Vec<usize> = {
            let etcds = self.etcds.borrow();
            let runs = |member: &&Member| self.member_runs(number, member);
            etcds[number].members.iter().filter(runs).map(|member| member.machine).collect()
        };
        for machine in running {
            let name = &self.machines[machine].identity.node_name;
            if self.is_registered(number, name) {
                let pods = STATIC_PODS.iter().map(|pod| format!("{pod}-{name}"));
                self.etcds.borrow_mut()[number].mirrors.extend(pods);
            }
        }
    }

    fn change_member(&self, number: usize, id: u64, change: impl FnOnce(&mut Member)) {
        let mut etcds = self.etcds.borrow_mut();
        if let Some(member) = etcds[number].members.iter_mut().find(|member| member.id == id) {
            change(member);
        }
    }

    fn drop_member(&self, number: usize, id: u64) {
        let Some(machine) = self.etcds.borrow()[number].member(id).map(|member| member.machine) else { return };
        self.note_world(format_args!("etcd removes the member of {}", self.machines[machine].name));
        self.etcds.borrow_mut()[number].members.retain(|member| member.id != id);
    }

    /// Whether every voter has been connected for a while: without that etcd adds nobody.
    fn fully_connected(&self, number: usize, etcd: &Etcd, from: usize) -> bool {
        let now = self.timeline.now();
        let steady = |member: &Member| now >= member.runs_from + HEALTH_INTERVAL || etcd.voters().count() == 1;
        etcd.voters().all(|member| self.member_seen(number, member, from) && steady(member))
    }

    /// `MemberAdd` of a learner, asked at the member of a machine.
    ///
    /// # Errors
    /// With etcd's own refusal.
    pub fn add_learner(&self, number: usize, at: usize, machine: usize) -> Result<u64, Refusal> {
        self.tend_members(number);
        {
            let etcds = self.etcds.borrow();
            let etcd = &etcds[number];
            if !self.has_quorum(number, etcd, at) {
                return Err(TIMED_OUT);
            }
            if !self.fully_connected(number, etcd, at) {
                return Err(UNHEALTHY);
            }
            if etcd.member_of(machine).is_some() {
                return Err(EXISTS);
            }
            if etcd.members.iter().any(|member| member.learner) {
                return Err(TOO_MANY);
            }
        }
        let id = self.rng.next();
        let member = Member { id, machine, learner: true, started: false, runs_from: Duration::MAX };
        self.etcds.borrow_mut()[number].members.push(member);
        self.note(machine, format_args!("is added to etcd as a learner"));
        self.count("members-added");
        Ok(id)
    }

    /// `MemberPromote`.
    ///
    /// # Errors
    /// With etcd's own refusal.
    pub fn promote(&self, number: usize, at: usize, id: u64) -> Result<(), Refusal> {
        self.tend_members(number);
        {
            let etcds = self.etcds.borrow();
            let etcd = &etcds[number];
            let member = etcd.member(id).ok_or(NOT_FOUND)?;
            if !member.learner {
                return Err(NOT_LEARNER);
            }
            if !self.has_quorum(number, etcd, at) {
                return Err(TIMED_OUT);
            }
            if !member.started || !self.member_seen(number, member, at) {
                return Err(NOT_READY);
            }
        }
        self.change_member(number, id, |member| member.learner = false);
        self.count("members-promoted");
        Ok(())
    }

    /// `MemberRemove`, with the checks of `--strict-reconfig-check`.
    ///
    /// # Errors
    /// With etcd's own refusal. After [`TIMED_OUT`] it may be done later.
    pub fn remove_member(&self, number: usize, at: usize, id: u64) -> Result<(), Refusal> {
        self.tend_members(number);
        let quorate = {
            let etcds = self.etcds.borrow();
            let etcd = &etcds[number];
            let member = etcd.member(id).ok_or(NOT_FOUND)?;
            if !member.learner {
                self.may_remove_voter(number, etcd, at, member)?;
            }
            self.has_quorum(number, etcd, at)
        };
        if !quorate {
            self.count("removal-without-quorum");
            self.etcds.borrow_mut()[number].pending.push(id);
            return Err(TIMED_OUT);
        }
        self.drop_member(number, id);
        self.count("members-removed");
        Ok(())
    }

    fn may_remove_voter(&self, number: usize, etcd: &Etcd, at: usize, member: &Member) -> Result<(), Refusal> {
        let left = || etcd.voters().filter(|voter| voter.id != member.id);
        let started = left().filter(|voter| voter.started).count();
        if left().count() == 0 || started < left().count() / 2 + 1 {
            return Err(NOT_STARTED);
        }
        let (seen, all) = self.votes(number, etcd, at);
        let is_down = member.machine != at && !self.member_seen(number, member, at);
        if !is_down && seen < 2 + (all - 1) / 2 {
            return Err(UNHEALTHY);
        }
        Ok(())
    }

    /// `MoveLeader`, asked at the member of a machine.
    ///
    /// # Errors
    /// With etcd's own refusal.
    pub fn move_leader(&self, number: usize, at: usize, to: u64) -> Result<(), Refusal> {
        self.tend_members(number);
        {
            let etcds = self.etcds.borrow();
            let etcd = &etcds[number];
            if etcd.member_of(at).map(|member| member.id) != Some(etcd.leader) {
                return Err(NOT_LEADER);
            }
            let target = etcd.member(to).filter(|member| !member.learner);
            target.filter(|member| self.member_seen(number, member, at)).ok_or(BAD_TRANSFEREE)?;
        }
        self.etcds.borrow_mut()[number].leader = to;
        self.count("leader-moved");
        Ok(())
    }

    /// A member as the JSON gateway shows it: what is empty is absent, and 64-bit numbers are strings.
    pub fn shown_member(&self, member: &Member) -> Value {
        let about = &self.machines[member.machine].identity;
        let mut shown = json!({ "ID": member.id.to_string(), "peerURLs": [format!("https://{}:2380", about.address)] });
        if member.started {
            shown["name"] = about.node_name.clone().into();
            shown["clientURLs"] = json!([format!("https://{}:2379", about.address)]);
        }
        if member.learner {
            shown["isLearner"] = true.into();
        }
        shown
    }

    /// The answer to a status request.
    pub fn shown_status(&self, number: usize, member: &Member) -> Value {
        let etcds = self.etcds.borrow();
        let etcd = &etcds[number];
        let mut shown = json!({ "version": "3.6.4", "dbSize": "4096000", "dbSizeInUse": "2048000",
            "raftIndex": "1000", "raftAppliedIndex": "1000", "raftTerm": "2", "storageVersion": "3.6.0" });
        if self.has_quorum(number, etcd, member.machine) {
            shown["leader"] = etcd.leader.to_string().into();
        } else {
            shown["errors"] = json!(["etcdserver: no leader"]);
        }
        if member.learner {
            shown["isLearner"] = true.into();
        }
        shown
    }

    /// A pod of a control plane as the API shows it.
    pub fn shown_mirror(&self, name: &str) -> Value {
        let node = STATIC_PODS.iter().find_map(|pod| name.strip_prefix(&format!("{pod}-"))).unwrap_or_default();
        let component = name.strip_suffix(&format!("-{node}")).unwrap_or_default();
        let address = self.machines.iter().find(|machine| machine.identity.node_name == node);
        let url = address.map(|machine| format!("https://{}:2379", machine.identity.address)).unwrap_or_default();
        json!({ "metadata": { "name": name, "namespace": "kube-system", "uid": format!("mirror-{name}"),
                "labels": { "component": component, "tier": "control-plane" },
                "annotations": { "kubeadm.kubernetes.io/etcd.advertise-client-urls": url, "kubernetes.io/config.mirror": "x" } },
            "spec": { "nodeName": node, "containers": [{ "name": component, "image": format!("{component}:{KUBE_VERSION}") }] },
            "status": { "phase": "Running" } })
    }
}
