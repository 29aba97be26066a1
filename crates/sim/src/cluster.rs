//! Kubernetes clusters: what an etcd knows, where its API server is, and whether it answers.

use crate::machine::{Agent, Power};
use crate::network::{Far, Way};
use crate::objects::Objects;
use crate::pods::Pod;
use crate::universe::Universe;
use jiff::Timestamp;
use kubestrap_core::model::names::CaHash;
use std::collections::BTreeMap;
use std::time::Duration;

/// The control plane endpoint of every simulated cluster.
pub const ENDPOINT: &str = "api.sim.example.com:6443";
/// The file that ties a machine's disk to its [`Etcd`].
pub const ETCD_DATA: &str = "/var/lib/etcd/member/snap/db";
/// The manifest whose presence makes the kubelet run an API server.
pub const API_MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
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

/// The data of one control plane: made by one init, gone with its machine or with a reset.
#[derive(Debug, Clone)]
pub struct Etcd {
    /// The machine it lives on.
    pub machine: usize,
    /// The pin of the CA that its clients trust.
    pub ca: CaHash,
    /// The certificate.
    pub ca_pem: String,
    /// From when on it answers.
    pub healthy_from: Duration,
    /// Tokens by id.
    pub tokens: BTreeMap<String, Token>,
    /// Registered nodes by name, with the moment of their registration.
    pub nodes: BTreeMap<String, Duration>,
    /// What else it keeps, where workers are rolled.
    pub objects: Objects,
    /// The pods of a service, likewise.
    pub pods: Vec<Pod>,
}

impl Universe {
    /// The number of the etcd whose API server on this machine answers now.
    pub fn api_on(&self, machine: usize) -> Option<usize> {
        let now = self.timeline.now();
        let state = self.machines[machine].state.borrow();
        let Power::On(since) = state.power else { return None };
        if (state.boots > 0 && now < since + BOOT) || !state.disk.has(API_MANIFEST) {
            return None;
        }
        let number: usize = state.disk.text(ETCD_DATA)?.parse().ok()?;
        let etcds = self.etcds.borrow();
        // Data that was copied to another disk does not make that machine a member.
        let etcd = etcds.get(number).filter(|etcd| etcd.machine == machine)?;
        (etcd.healthy_from <= now && self.api_away_until.get() <= now).then_some(number)
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

    /// A token of this cluster that has not expired by its API server's clock (which removes those that have).
    pub fn token(&self, etcd: usize, id: &str) -> Option<Token> {
        let etcds = self.etcds.borrow();
        let etcd = etcds.get(etcd)?;
        let token = etcd.tokens.get(id)?;
        (token.expires_at > self.wall_of(etcd.machine)).then(|| token.clone())
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
