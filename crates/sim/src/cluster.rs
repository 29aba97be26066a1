//! Kubernetes clusters: what an etcd knows, where its API servers are, and which of them answer. Who belongs to an etcd:
//! [`crate::members`].

use crate::machine::{Agent, Power};
use crate::members::Member;
use crate::network::{Far, Way};
use crate::objects::Objects;
use crate::pods::Pod;
use crate::universe::Universe;
use jiff::Timestamp;
use kubestrap_core::model::names::CaHash;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The control plane endpoint of every simulated cluster.
pub const ENDPOINT: &str = "api.sim.example.com:6443";
/// The file that ties a machine's disk to a member of an [`Etcd`].
pub const ETCD_DATA: &str = "/var/lib/etcd/member/snap/db";
/// The manifest whose presence makes the kubelet run an API server.
pub const API_MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
/// The manifest whose presence makes the kubelet run an etcd member.
pub const ETCD_MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";
/// After a boot the control plane needs this long.
const BOOT: Duration = Duration::from_secs(20);
/// The controller-manager's signer needs this long after a token was made, or after the first start.
const SIGNING: Duration = Duration::from_secs(4);

/// A bootstrap token in a cluster.
#[derive(Debug, Clone)]
pub struct Token {
    /// The secret half.
    pub secret: String,
    /// When it dies.
    pub expires_at: Timestamp,
    /// When it was made.
    pub made_at: Duration,
    /// Its description, when it has one.
    pub description: Option<String>,
}

/// The data of one control plane: made by one init, gone with the last of its members.
#[derive(Debug, Clone)]
pub struct Etcd {
    /// The machine whose init made it.
    pub creator: usize,
    /// The pin of the CA that its clients trust.
    pub ca: CaHash,
    /// The certificate.
    pub ca_pem: String,
    /// The certificate of etcd's own CA.
    pub etcd_ca: String,
    /// From when on it answers.
    pub healthy_from: Duration,
    /// Its members, oldest first.
    pub members: Vec<Member>,
    /// The member that leads it.
    pub leader: u64,
    /// Removals that were asked for without a quorum: carried out when there is one.
    pub pending: Vec<u64>,
    /// Mirror pods of static pods, by name.
    pub mirrors: BTreeSet<String>,
    /// Tokens by id.
    pub tokens: BTreeMap<String, Token>,
    /// Registered nodes by name, with the moment of their registration.
    pub nodes: BTreeMap<String, Duration>,
    /// What else it keeps.
    pub objects: Objects,
    /// The pods of a service, where workers are rolled.
    pub pods: Vec<Pod>,
}

impl Universe {
    /// Whether the machine is on and has had the time to start static pods.
    pub fn runs_pods(&self, machine: usize) -> bool {
        let state = self.machines[machine].state.borrow();
        match state.power {
            Power::On(since) => state.boots == 0 || self.timeline.now() >= since + BOOT,
            _ => false,
        }
    }

    /// The number of the etcd whose API server on this machine answers now: its own member is a voter that sees a
    /// quorum.
    pub fn api_on(&self, machine: usize) -> Option<usize> {
        let now = self.timeline.now();
        if !self.runs_pods(machine) || !self.machines[machine].state.borrow().disk.has(API_MANIFEST) {
            return None;
        }
        let (number, id) = self.data_on(machine)?;
        let etcds = self.etcds.borrow();
        let etcd = etcds.get(number)?;
        let member = etcd.member(id).filter(|member| !member.learner)?;
        let runs = self.member_runs(number, member) && self.has_quorum(number, etcd, machine);
        (runs && etcd.healthy_from <= now && self.api_away_until.get() <= now).then_some(number)
    }

    /// The etcd behind the endpoint, as this machine reaches it: its own API server, or the first that answers.
    pub fn api_behind_endpoint(&self, caller: usize) -> Option<usize> {
        let connected = |machine: usize| self.machines[machine].way(Far::Api, self.timeline.now()) == Way::Open;
        // Whoever was told that it lost the register is taken out of the load balancer by its operator: the static pods
        // of a control plane outlive the kubelet that the agent stops.
        let in_service = |machine: &usize| {
            let refused = matches!(self.machines[*machine].state.borrow().agent, Agent::Refused(_));
            connected(*machine) && !refused
        };
        let other = || (0..self.machines.len()).filter(in_service).find_map(|machine| self.api_on(machine));
        self.api_on(caller).or_else(|| connected(caller).then(other).flatten())
    }

    /// The etcd behind the API server of one machine, as another reaches it.
    pub fn api_at(&self, caller: usize, machine: usize) -> Option<usize> {
        let connected = |machine: usize| self.machines[machine].way(Far::Api, self.timeline.now()) == Way::Open;
        let reached = caller == machine || (connected(caller) && connected(machine));
        reached.then(|| self.api_on(machine)).flatten()
    }

    /// The machine whose clock is the API server's: the oldest member that runs, or whoever made it.
    pub fn clock_of(&self, number: usize) -> usize {
        let etcds = self.etcds.borrow();
        let etcd = &etcds[number];
        let running = etcd.members.iter().find(|member| !member.learner && self.member_runs(number, member));
        running.map_or(etcd.creator, |member| member.machine)
    }

    /// A token of this cluster that has not expired by its API server's clock (which removes those that have).
    pub fn token(&self, etcd: usize, id: &str) -> Option<Token> {
        let token = self.etcds.borrow().get(etcd)?.tokens.get(id)?.clone();
        (token.expires_at > self.wall_of(self.clock_of(etcd))).then_some(token)
    }

    /// Whether cluster-info carries this token's signature.
    pub fn is_signed(&self, etcd: usize, id: &str) -> bool {
        let Some(token) = self.token(etcd, id) else { return false };
        let healthy_from = self.etcds.borrow()[etcd].healthy_from;
        self.timeline.now() >= token.made_at.max(healthy_from) + SIGNING
    }

    /// Whether a node of this name is registered in the cluster.
    pub fn is_registered(&self, etcd: usize, node: &str) -> bool {
        self.etcds.borrow().get(etcd).is_some_and(|etcd| etcd.nodes.contains_key(node))
    }
}
