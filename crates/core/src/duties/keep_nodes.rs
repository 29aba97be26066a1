//! `keep-nodes`: Nodes of workers whose machine is gone are taken away, so that their Pods and volumes move, and what
//! those machines reported is archived. The master that leads sees to it. Without EC2 nobody can know that a machine is
//! gone, and nothing happens; with a cloud controller the Nodes are its.

use crate::config::settings::CloudProvider;
use crate::engine::Duty;
use crate::etcd::{clean, machines};
use crate::journal::Journal;
use crate::kube::Api;
use crate::kube::lease::{FOLLOWING, leads};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::{Event, Node};
use crate::rollout::cluster;
use crate::rollout::view::NodeFacts;
use crate::store::{MachineGone, MachineWatch, Store};
use async_trait::async_trait;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One list of the Nodes. A node is NotReady for five minutes before its Pods are evicted.
const LOOK_EVERY: Duration = Duration::from_secs(2 * 60);
/// While a Node is on its way out.
const SOON: Duration = Duration::from_secs(15);
/// Where nobody can be asked about machines.
const NEVER: Duration = Duration::from_secs(60 * 60);
/// How often reports without a Node are looked for: one list of keys.
const ARCHIVE_EVERY: Duration = Duration::from_secs(30 * 60);
/// So many machines are asked about in one round.
const AT_ONCE: usize = 16;
/// So many reports without a Node are asked about in one round.
const ARCHIVED_AT_ONCE: usize = 64;
/// A tainted Node stays this long at least: its Pods must end and its volumes be detached before the Node goes.
const TAINTED_FOR: Duration = Duration::from_secs(45);
/// And so long at most; the attach-detach controller forces a detachment after six minutes.
const TAINTED_AT_MOST: Duration = Duration::from_secs(7 * 60);

#[derive(Default)]
pub(super) struct NodesDuty {
    watch: MachineWatch,
    /// Since when a Node of this uid was seen tainted, by uptime.
    tainted: RefCell<BTreeMap<String, Duration>>,
    archived_at: Cell<Option<Duration>>,
    told: Cell<Option<Cause>>,
}

#[async_trait(?Send)]
impl Duty for NodesDuty {
    fn name(&self) -> &'static str {
        "keep-nodes"
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(5 * 60)
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        if node.identity.ec2().is_none() {
            return Ok(NEVER);
        }
        if !leads(node).await? {
            return Ok(FOLLOWING);
        }
        let api = Api::admin(&node.world.cluster);
        let view = cluster::read_nodes(&api, &node.identity.node_name).await?;
        let lost = view.nodes.iter().filter(|facts| is_lost(facts)).take(AT_ONCE);
        let mut known: BTreeSet<&str> = view.nodes.iter().filter_map(|facts| facts.instance.as_deref()).collect();
        let mut after = LOOK_EVERY;
        let controlled = node.settings.node.cloud_provider == CloudProvider::External;
        for facts in lost.filter(|_| !controlled) {
            let Some(machine) = machines::of_node(node, facts, view.api_clock) else { continue };
            let record = MachineWatch::record_of(&machine.holder.identity);
            if let Ok(proof) = self.watch.look(node, &machine.holder, record, machine.age).await? {
                after = SOON;
                if self.take_away(node, &api, facts, &proof).await? {
                    // Its report is looked for in this very round.
                    self.archived_at.set(None);
                    known.retain(|instance| Some(*instance) != facts.instance.as_deref());
                }
            }
        }
        self.archive(node, &known).await;
        Ok(after)
    }
}

/// A worker that is not Ready and has a machine that can be asked about. Masters go with their member.
fn is_lost(facts: &NodeFacts) -> bool {
    !facts.master && !facts.ready && facts.instance.is_some()
}

impl NodesDuty {
    /// Taints, and deletes when nothing is attached to it any more. Whether it was deleted.
    async fn take_away(&self, node: &Node, api: &Api, facts: &NodeFacts, proof: &MachineGone) -> Outcome<bool> {
        let now = node.world.time.uptime();
        if !clean::is_out_of_service(facts) {
            clean::taint(api, facts).await?;
            node.tell(&Event::Note(&format!("node {} is out of service: {}", facts.name, proof.why())));
        }
        let since = *self.tainted.borrow_mut().entry(facts.uid.clone()).or_insert(now);
        let tainted_for = now.saturating_sub(since);
        if tainted_for < TAINTED_FOR || (tainted_for < TAINTED_AT_MOST && holds_volumes(api, &facts.name).await?) {
            return Ok(false);
        }
        cluster::remove_node(api, facts).await?;
        self.tainted.borrow_mut().remove(&facts.uid);
        node.tell(&Event::Note(&format!("the Node {} was deleted: {}", facts.name, proof.why())));
        Ok(true)
    }

    /// Archives the reports of machines that are gone and have no Node. What fails is told once and tried again much
    /// later: an archive is no reason to look at Nodes more often.
    async fn archive(&self, node: &Node, known: &BTreeSet<&str>) {
        let now = node.world.time.uptime();
        if self.archived_at.get().is_some_and(|at| now.saturating_sub(at) < ARCHIVE_EVERY) {
            return;
        }
        self.archived_at.set(Some(now));
        match self.archive_all(node, known).await {
            Ok(()) => self.told.set(None),
            Err(failure) => self.tell(node, &failure),
        }
    }

    fn tell(&self, node: &Node, failure: &Failure) {
        if self.told.replace(Some(failure.cause)) != Some(failure.cause) {
            node.tell(&Event::Retrying { what: self.name(), beside: true, failure, after: ARCHIVE_EVERY });
        }
    }

    async fn archive_all(&self, node: &Node, known: &BTreeSet<&str>) -> Outcome<()> {
        let journal = Journal::new(node.world.files.clone(), node.world.time.clone());
        let Some(uid) = journal.attempt()?.map(|attempt| attempt.uid) else { return Ok(()) };
        let store = Store::of(node);
        let orphans: Vec<String> = store
            .reporters()
            .await?
            .into_iter()
            .filter(|identity| identity.rsplit_once("instance/").is_some_and(|(_, id)| !known.contains(id)))
            .filter(|identity| *identity != node.identity.key())
            .collect();
        for identity in orphans.iter().take(ARCHIVED_AT_ONCE) {
            let Some(entry) = store.report_of(identity).await else { continue };
            let Some(machine) = machines::of_report(&entry) else { continue };
            let record = MachineWatch::record_of(identity);
            if let Ok(proof) = self.watch.look(node, &machine.holder, record, machine.age).await? {
                store.archive_report(&proof, uid).await?;
            }
        }
        Ok(())
    }
}

async fn holds_volumes(api: &Api, name: &str) -> Outcome<bool> {
    let found = api.get(&format!("/api/v1/nodes/{}", crate::kube::encode_segment(name))).await?;
    let attached = found.as_ref().and_then(|node| node.pointer("/status/volumesAttached"));
    Ok(attached.and_then(Value::as_array).is_some_and(|volumes| !volumes.is_empty()))
}

#[cfg(test)]
mod tests;
