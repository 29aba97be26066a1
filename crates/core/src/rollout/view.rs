//! What the arbiter sees in one round, as plain data: Nodes, what EC2 says, etcd's voters.
//!
//! Durations that decide are those the arbiter itself has watched ([`Watch`], by uptime), so that neither another
//! machine's clock nor a change of the arbiter makes anything happen early.

use super::ledger::{Entry, Ledger, Phase};
use super::wire::{self, Annotation, Grant, Progress, Request};
use crate::model::cause::Failure;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// A Node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its version, for changes of what was read.
    pub resource_version: String,
    /// `spec.providerID`.
    pub provider_id: Option<String>,
    /// `i-…` of its providerID.
    pub instance: Option<String>,
    /// Whether it is labelled as part of the control plane.
    pub master: bool,
    /// When it was created, by the API server.
    pub created_at: Option<Timestamp>,
    /// Whether its Ready condition is True.
    pub ready: bool,
    /// Since when, as it is written there: a text that changes when the condition did.
    pub ready_since: String,
    /// How long the arbiter has seen it Ready without a break.
    pub ready_for: Duration,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// Its request, when there is one that can be read.
    pub request: Option<Request>,
    /// The grant it carries: `Err` when that cannot be read.
    pub grant: Option<Result<Grant, Failure>>,
    /// How far it says to be.
    pub progress: Option<Progress>,
    /// The id of the grant that ended last on it.
    pub ended: Option<String>,
    /// Its taints, as they are.
    pub taints: Vec<Value>,
    /// Annotations of ours that could not be read.
    pub faults: Vec<Failure>,
}

impl NodeFacts {
    /// What a Node object says; `None` for one without a name or uid.
    pub fn read(node: &Value) -> Option<NodeFacts> {
        let text = |pointer: &str| node.pointer(pointer).and_then(Value::as_str);
        let name = text("/metadata/name")?.to_owned();
        let annotation = |key: &str| node.pointer("/metadata/annotations")?.get(key)?.as_str();
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
        let ready =
            conditions.and_then(|all| all.iter().find(|c| c.get("type").and_then(Value::as_str) == Some("Ready")));
        let of_ready = |key: &str| ready.and_then(|ready| ready.get(key)).and_then(Value::as_str).unwrap_or_default();
        let mut faults = Vec::new();
        let request = annotation(wire::REQUEST).map(|text| Request::parse(&name, text));
        let progress = annotation(wire::PROGRESS).map(|text| Progress::parse(&name, text));
        Some(NodeFacts {
            uid: text("/metadata/uid")?.to_owned(),
            resource_version: text("/metadata/resourceVersion").unwrap_or_default().to_owned(),
            provider_id: text("/spec/providerID").map(str::to_owned),
            instance: text("/spec/providerID").and_then(instance_of),
            master: node
                .pointer("/metadata/labels")
                .and_then(|labels| labels.get("node-role.kubernetes.io/control-plane"))
                .is_some(),
            created_at: text("/metadata/creationTimestamp").and_then(|at| at.parse().ok()),
            ready: of_ready("status") == "True",
            ready_since: of_ready("lastTransitionTime").to_owned(),
            ready_for: Duration::ZERO,
            unschedulable: node.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true),
            request: request.and_then(|request| request.map_err(|failure| faults.push(failure)).ok()),
            grant: annotation(wire::GRANT).map(|text| Grant::parse(&name, text)),
            progress: progress.and_then(|progress| progress.map_err(|failure| faults.push(failure)).ok()),
            ended: annotation(wire::ENDED).map(str::to_owned),
            taints: node.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default(),
            faults,
            name,
        })
    }

    /// The group in which its replacement is expected.
    pub fn group(&self) -> Option<&str> {
        self.request.as_ref()?.group.as_deref()
    }

    /// Whether it wants to be drained at least.
    pub fn wants(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.is_drifted() && request.action >= wire::Action::Drain)
    }

    /// Whether it runs what it should.
    pub fn is_current(&self) -> bool {
        self.request.as_ref().is_some_and(Request::is_current)
    }

    /// What it says of this grant.
    pub fn progress_of(&self, grant: Uuid) -> Option<&Progress> {
        self.progress.as_ref().filter(|progress| progress.id == grant)
    }

    /// Whether it carries our taint.
    pub fn is_tainted(&self) -> bool {
        self.taints.iter().any(is_ours)
    }

    /// Whether it carries anything that the arbiter put there and may have to take away.
    pub fn is_touched(&self) -> bool {
        self.grant.is_some() || self.is_tainted()
    }
}

/// Whether a taint is the arbiter's.
pub fn is_ours(taint: &Value) -> bool {
    let is = |key: &str, value: &str| taint.get(key).and_then(Value::as_str) == Some(value);
    is("key", wire::DRIFTED_TAINT) && is("effect", wire::TAINT_EFFECT)
}

/// `aws:///<zone>/<instance>`.
fn instance_of(provider_id: &str) -> Option<String> {
    let id = provider_id.strip_prefix("aws://")?.rsplit('/').next()?;
    (id.starts_with("i-") && id.len() > 2 && id[2..].bytes().all(|b| b.is_ascii_alphanumeric())).then(|| id.to_owned())
}

/// What EC2 says of an instance, in an answer that also shows the asker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceFacts {
    /// `running`, `terminated`, ...; empty when EC2 does not know it any more, in enough looks.
    pub state: String,
    /// The image it was started from.
    pub image: Option<String>,
}

impl InstanceFacts {
    /// *Gone* in the sense of the design.
    pub fn is_gone(&self) -> bool {
        self.state.is_empty() || self.state == "terminated"
    }

    /// Whether it runs or will.
    pub fn is_alive(&self) -> bool {
        !self.is_gone() && self.state != "shutting-down"
    }
}

/// What the Auto Scaling group of an instance would start in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launches {
    /// This image, whatever the type of the instance.
    Image(String),
    /// Nothing that can be relied on, and why.
    Nothing(String),
}

/// One round's facts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// The name of the arbiter's own Node.
    pub me: String,
    /// All Nodes.
    pub nodes: Vec<NodeFacts>,
    /// EC2's answers by instance; none for what was not asked or is not known yet.
    pub instances: BTreeMap<String, InstanceFacts>,
    /// What groups would start, by instance, as far as it was asked.
    pub launches: BTreeMap<String, Launches>,
    /// Ready etcd Pods (static Pods of kube-system with `component=etcd`): each stands for a healthy voter.
    pub voters: usize,
    /// The operators' switch: everything stands, and why.
    pub paused: Option<String>,
    /// The API server's clock, or earlier.
    pub api_clock: Option<Timestamp>,
    /// How long the arbiter has seen each grant in its phase.
    pub waited: BTreeMap<(Uuid, Phase), Duration>,
}

impl View {
    /// The Node of this uid.
    pub fn node(&self, uid: &str) -> Option<&NodeFacts> {
        self.nodes.iter().find(|node| node.uid == uid)
    }

    /// Whether the instance is known to be gone.
    pub fn is_gone(&self, instance: Option<&String>) -> bool {
        instance.and_then(|id| self.instances.get(id)).is_some_and(InstanceFacts::is_gone)
    }

    /// How long this arbiter has seen the grant in its phase.
    pub fn waited(&self, entry: &Entry) -> Duration {
        self.waited.get(&(entry.id, entry.phase)).copied().unwrap_or_default()
    }

    /// How long the Node has existed, by the API server's clock alone.
    pub fn age(&self, node: &NodeFacts) -> Option<SignedDuration> {
        Some(self.api_clock?.duration_since(node.created_at?))
    }
}

/// What one arbiter has watched, by its uptime. It forgets with the process, which only delays.
#[derive(Debug, Default)]
pub struct Watch {
    ready: BTreeMap<(String, String), Duration>,
    grants: BTreeMap<(Uuid, Phase), Duration>,
}

impl Watch {
    /// Notes what is seen now, forgets what is not, and fills in the durations.
    pub fn observe(&mut self, view: &mut View, ledger: &Ledger, now: Duration) {
        let before = std::mem::take(&mut self.ready);
        for node in view.nodes.iter_mut().filter(|node| node.ready) {
            let key = (node.uid.clone(), node.ready_since.clone());
            let since = before.get(&key).copied().unwrap_or(now);
            node.ready_for = now.saturating_sub(since);
            self.ready.insert(key, since);
        }
        let before = std::mem::take(&mut self.grants);
        for entry in &ledger.grants {
            let key = (entry.id, entry.phase);
            let since = before.get(&key).copied().unwrap_or(now);
            view.waited.insert(key, now.saturating_sub(since));
            self.grants.insert(key, since);
        }
    }
}

/// The latest time that an API server wrote into these objects: its clock, or earlier. `managedFields` carries it for
/// each writer, by the server's clock and not the writer's.
pub fn api_clock<'a>(objects: impl Iterator<Item = &'a Value>) -> Option<Timestamp> {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let of_object = |object: &Value| {
        let created = object.pointer("/metadata/creationTimestamp").and_then(time);
        let writers = object.pointer("/metadata/managedFields").and_then(Value::as_array);
        let written = writers.into_iter().flatten().filter_map(|writer| writer.get("time").and_then(time)).max();
        created.max(written)
    };
    objects.filter_map(of_object).max()
}

/// Instances that EC2 is asked about: of grants, of Nodes that are away, and of those that may be replacements.
pub fn suspects(view: &View, ledger: &Ledger) -> BTreeSet<String> {
    let is_replacing = ledger.grants.iter().any(|entry| entry.phase == Phase::Replacing);
    let of_grants = ledger.grants.iter().filter_map(|entry| entry.instance.clone());
    let may_replace = |node: &NodeFacts| is_replacing && node.is_current() && is_new(ledger, node);
    let of_nodes = view.nodes.iter().filter(|node| !node.ready || may_replace(node));
    of_grants.chain(of_nodes.filter_map(|node| node.instance.clone())).collect()
}

fn is_new(ledger: &Ledger, node: &NodeFacts) -> bool {
    ledger.grants.iter().any(|entry| Some(entry.group.as_str()) == node.group() && !entry.knew(&node.uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_is_read_and_what_cannot_be_is_named() {
        let node = json!({
            "metadata": {"name": "a", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-11-21T10:00:00Z",
                "labels": {"node-role.kubernetes.io/control-plane": ""},
                "annotations": {"kubestrap.io/drift": "{}", "kubestrap.io/grant": "x"}},
            "spec": {"providerID": "aws:///eu-west-1a/i-0abc", "unschedulable": true,
                "taints": [{"key": "kubestrap.io/drifted", "effect": "PreferNoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "t"}]}});
        let facts = NodeFacts::read(&node).expect("a node");
        assert!(facts.master && facts.ready && facts.unschedulable && facts.is_tainted() && facts.is_touched());
        assert_eq!(facts.instance.as_deref(), Some("i-0abc"));
        assert!(facts.request.is_none() && facts.faults.len() == 1 && facts.grant.is_some_and(|grant| grant.is_err()));
        assert_eq!(NodeFacts::read(&json!({"metadata": {"name": "a"}})), None);
        for other in ["i-1", "aws:///z/", "aws:///z/i-", "gce://x/i-1", "aws:///z/i-1/../x"] {
            assert_eq!(instance_of(other), None, "{other}");
        }
    }

    #[test]
    fn ready_is_counted_by_the_own_clock_without_a_break() {
        let node = |since: &str, status: &str| {
            NodeFacts::read(&json!({"metadata": {"name": "a", "uid": "u"}, "status": {"conditions":
                [{"type": "Ready", "status": status, "lastTransitionTime": since}]}}))
            .expect("a node")
        };
        let mut watch = Watch::default();
        let mut seen = |since: &str, status: &str, at: u64| {
            let mut view = View { nodes: vec![node(since, status)], ..View::default() };
            watch.observe(&mut view, &Ledger::default(), Duration::from_secs(at));
            view.nodes[0].ready_for.as_secs()
        };
        assert_eq!(seen("1999", "True", 100), 0);
        assert_eq!(seen("1999", "True", 150), 50);
        assert_eq!(seen("2000", "True", 160), 0, "it was away in between");
        assert_eq!(seen("2000", "True", 170), 10);
        assert_eq!(seen("2001", "False", 180), 0);
        assert_eq!(seen("2000", "True", 190), 0);
    }

    #[test]
    fn the_api_servers_clock_is_what_it_wrote() {
        let objects = [
            json!({"metadata": {"creationTimestamp": "2026-11-21T10:00:00Z"}}),
            json!({"metadata": {"managedFields": [{"time": "2026-11-21T12:00:00Z"}, {"time": "2026-11-21T11:00:00Z"}]}}),
        ];
        assert_eq!(api_clock(objects.iter()), "2026-11-21T12:00:00Z".parse().ok());
        assert_eq!(api_clock([].iter()), None);
    }
}
