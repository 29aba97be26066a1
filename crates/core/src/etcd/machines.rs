//! Which machine a member or a Node stands for, and whether it is gone.

use super::api::{Member, address_of};
use crate::kube::Api;
use crate::model::cause::Outcome;
use crate::model::identity::Ec2;
use crate::model::register::Holder;
use crate::node::Node;
use crate::rollout::view::NodeFacts;
use crate::store::{MachineGone, MachineWatch, ReportEntry, Store};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::net::IpAddr;

/// The Nodes that kubeadm made control planes.
const CONTROL_PLANES: &str = "/api/v1/nodes?labelSelector=node-role.kubernetes.io%2Fcontrol-plane&limit=50";

/// A Node of the control plane.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// The Node.
    pub facts: NodeFacts,
    /// Its internal addresses.
    pub addresses: Vec<IpAddr>,
}

/// Every Node of the control plane. Fifty masters are more than etcd bears.
pub async fn control_planes(api: &Api) -> Outcome<Vec<ControlPlane>> {
    let list = api.get(CONTROL_PLANES).await?.unwrap_or_default();
    let items = list.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Ok(items.iter().filter_map(read).filter(|node| node.facts.master).collect())
}

/// What a Node object says; `None` for one without a name or uid.
pub fn read(node: &Value) -> Option<ControlPlane> {
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array).into_iter().flatten();
    let internal = addresses.filter(|address| address.get("type").and_then(Value::as_str) == Some("InternalIP"));
    Some(ControlPlane {
        facts: NodeFacts::read(node)?,
        addresses: internal.filter_map(|address| address.get("address")?.as_str()?.parse().ok()).collect(),
    })
}

/// Whose machine is looked for.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// The node of this name.
    Name(&'a str),
    /// Whoever has this address: a member that never started has no name.
    Address(IpAddr),
}

impl<'a> Whose<'a> {
    /// The machine of a member.
    pub fn of(member: &'a Member) -> Option<Self> {
        if member.is_started() {
            return Some(Whose::Name(&member.name));
        }
        member.peers.first().and_then(|peer| address_of(peer)).map(Whose::Address)
    }
}

/// A machine and what is known of how old its record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Who it is.
    pub holder: Holder,
    /// How old what names it is, by one server's clock.
    pub age: Option<SignedDuration>,
}

/// The machine of a Node, by its providerID. `api_clock`: the API server's clock now, or earlier.
pub fn of_node(node: &Node, facts: &NodeFacts, api_clock: Option<Timestamp>) -> Option<Machine> {
    let instance = facts.instance.clone()?;
    let provider_id = facts.provider_id.as_deref()?;
    let own = node.identity.ec2()?;
    // `aws:///eu-west-1a/i-...`; account and partition are not in it: a cluster lives in one.
    let zone = provider_id.trim_start_matches("aws://").trim_start_matches('/').split('/').next().unwrap_or_default();
    let region = if zone.starts_with(own.region.as_str()) { own.region.as_str() } else { zone };
    let ec2 = Ec2 {
        instance_id: instance,
        zone: zone.to_owned(),
        region: region.to_owned(),
        instance_type: String::new(),
        image_id: String::new(),
        ..own.clone()
    };
    let age = api_clock.zip(facts.created_at).map(|(now, created)| now.duration_since(created));
    let holder = Holder { identity: ec2.arn(), node_name: facts.name.clone(), ec2: Some(ec2) };
    Some(Machine { holder, age })
}

/// The machine that wrote a report.
pub fn of_report(entry: &ReportEntry) -> Option<Machine> {
    let identity = &entry.report.as_ref().ok()?.identity;
    let holder =
        Holder { identity: identity.key(), node_name: identity.node_name.clone(), ec2: identity.ec2().cloned() };
    let age = entry.served_at.zip(entry.modified).map(|(served, modified)| served.duration_since(modified));
    Some(Machine { holder, age })
}

/// Looks for machines; reads the reports only when they are needed, and once.
pub struct Finder<'a> {
    node: &'a Node,
    nodes: &'a [ControlPlane],
    reports: Option<Vec<ReportEntry>>,
}

impl<'a> Finder<'a> {
    /// Over these Nodes.
    pub fn new(node: &'a Node, nodes: &'a [ControlPlane]) -> Self {
        Finder { node, nodes, reports: None }
    }

    /// The machines that may be meant: the one that the Node names, else every one that reported so. A machine that is
    /// asking for itself is never meant: what it looks for is not what it is.
    pub async fn machines(&mut self, whose: Whose<'_>) -> Outcome<Vec<Machine>> {
        let clock = self.node.lease.api_clock(self.node);
        let is_it = |found: &&ControlPlane| match whose {
            Whose::Name(name) => found.facts.name == name,
            Whose::Address(address) => found.addresses.contains(&address),
        };
        let own = self.node.identity.key();
        if let Some(found) = self.nodes.iter().find(is_it)
            && let Some(machine) = of_node(self.node, &found.facts, clock)
            && machine.holder.identity != own
        {
            return Ok(vec![machine]);
        }
        if self.reports.is_none() {
            self.reports = Some(Store::of(self.node).reports().await?);
        }
        let reports = self.reports.iter().flatten().filter(|entry| {
            entry.report.as_ref().is_ok_and(|report| match whose {
                Whose::Name(name) => report.identity.node_name == name,
                Whose::Address(address) => report.identity.address == address,
            })
        });
        Ok(reports.filter_map(of_report).filter(|machine| machine.holder.identity != own).collect())
    }

    /// Whether the machine is gone: every one that may be meant must be. Why not, for people, otherwise; what cannot be
    /// asked is a reason like any other.
    pub async fn is_gone(&mut self, watch: &MachineWatch, whose: Whose<'_>) -> Result<MachineGone, String> {
        let machines = self.machines(whose).await.map_err(|failure| format!("its machine is not known: {failure}"))?;
        let mut proof = None;
        for machine in machines {
            let record = MachineWatch::record_of(&machine.holder.identity);
            let looked = watch.look(self.node, &machine.holder, record, machine.age).await;
            proof = Some(looked.map_err(|failure| failure.to_string())??);
        }
        proof.ok_or_else(|| {
            "neither a Node nor a report names its machine; if you know that it is gone, `kubestrap member remove`"
                .to_owned()
        })
    }
}
