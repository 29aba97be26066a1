//! What the arbiter reads and writes in the cluster: Nodes by the page, the ConfigMap of the ledger, etcd's Pods.

use super::ledger::{self, Ledger};
use super::view::{NodeFacts, View, api_clock};
use super::wire::{self, Annotation, Grant};
use crate::kube::{Api, encode_segment, refused};
use crate::model::cause::{Cause, Failure, Outcome};
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
const CONFIG_MAP: &str = "/api/v1/namespaces/kube-system/configmaps/kubestrap-rollout";
const LEDGER_KEY: &str = "ledger.json";
const PAUSE_KEY: &str = "pause";
const NODES: &str = "/api/v1/nodes";
/// Members of a stacked etcd are static Pods with this label, by kubeadm.
const ETCD_PODS: &str = "/api/v1/namespaces/kube-system/pods?labelSelector=component%3Detcd&limit=50";
/// A Node has up to some 40 KiB, most of it the names of its images, and an answer of 4 MiB is read.
const PAGE: usize = 50;
/// Kubernetes supports 5000 nodes.
const MAX_PAGES: usize = 200;

/// The ConfigMap as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The whole object; `None` when there is none.
    object: Option<Value>,
    /// The ledger; an empty one when there is none.
    pub ledger: Ledger,
    /// Why an operator paused every rollout.
    pub paused: Option<String>,
}

/// Reads the ledger; one that cannot be acted on is a failure (`ObjectRejected`), and nothing is written over it.
pub async fn read_ledger(api: &Api) -> Outcome<Stored> {
    let Some(object) = api.get(CONFIG_MAP).await? else {
        return Ok(Stored { object: None, ledger: Ledger::default(), paused: None });
    };
    let text = |key: &str| object.get("data").and_then(|data| data.get(key)).and_then(Value::as_str);
    let ledger = text(LEDGER_KEY).map_or_else(|| Ok(Ledger::default()), Ledger::parse)?;
    let paused = text(PAUSE_KEY).map(str::trim).filter(|why| !why.is_empty()).map(wire::shortened);
    Ok(Stored { paused, ledger, object: Some(object) })
}

/// Writes a ledger over the version that was read. `false`: somebody else was first. A failure: it may be written, or be
/// written yet; the next reading tells.
pub async fn write_ledger(api: &Api, over: &Stored, ledger: &Ledger) -> Outcome<bool> {
    let text = ledger.write()?;
    change(api, over, |data| {
        data.insert(LEDGER_KEY.to_owned(), text.into());
    })
    .await
}

/// Sets or, with `None`, clears the operators' switch over the version that was read, as [`write_ledger`] does.
pub async fn write_pause(api: &Api, over: &Stored, why: Option<&str>) -> Outcome<bool> {
    change(api, over, |data| match why {
        Some(why) => {
            data.insert(PAUSE_KEY.to_owned(), why.into());
        }
        None => {
            data.remove(PAUSE_KEY);
        }
    })
    .await
}

async fn change(api: &Api, over: &Stored, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Outcome<bool> {
    let mut object = over.object.clone().unwrap_or_else(|| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "kubestrap-rollout", "namespace": "kube-system",
                "labels": {"app.kubernetes.io/managed-by": "kubestrap"}}})
    });
    let attempted = || format!("write {}", ledger::TITLE);
    let map = object.as_object_mut().ok_or_else(|| Failure::new(Cause::ApiRefused, attempted(), "it is no object"))?;
    if !map.get("data").is_some_and(Value::is_object) {
        map.insert("data".to_owned(), json!({}));
    }
    if let Some(data) = map.get_mut("data").and_then(Value::as_object_mut) {
        edit(data);
    }
    let (method, path) = if over.object.is_some() { ("PUT", CONFIG_MAP) } else { ("POST", CONFIG_MAPS) };
    let answer = api.call(method, path, Some(("application/json", &object))).await?;
    match answer.status {
        200 | 201 => Ok(true),
        // 404: it was deleted in between; and so whatever was read is no truth any more.
        409 | 404 => Ok(false),
        _ => Err(Failure { attempted: attempted(), ..refused("write", path, &answer) }),
    }
}

/// Every Node, in one consistent list, and the API server's clock as far as it shows in it.
pub async fn read_nodes(api: &Api, me: &str) -> Outcome<View> {
    let mut view = View { me: me.to_owned(), ..View::default() };
    let mut token = String::new();
    for _ in 0..MAX_PAGES {
        let path = match token.as_str() {
            "" => format!("{NODES}?limit={PAGE}"),
            token => format!("{NODES}?limit={PAGE}&continue={}", encode_segment(token)),
        };
        let page = api.get(&path).await?.unwrap_or_default();
        let items = page.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        view.api_clock = view.api_clock.max(api_clock(items.iter()));
        view.nodes.extend(items.iter().filter_map(NodeFacts::read));
        token = page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default().to_owned();
        if token.is_empty() {
            return Ok(view);
        }
    }
    Err(Failure::new(
        Cause::ApiRefused,
        "list the nodes at the API server",
        format!("there are more than {MAX_PAGES} pages"),
    ))
}

/// The number of etcd's Pods that are Ready.
pub async fn read_voters(api: &Api) -> Outcome<usize> {
    let list = api.get(ETCD_PODS).await?.unwrap_or_default();
    let is_ready = |pod: &&Value| {
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        let is = |c: &Value, key: &str, value: &str| c.get(key).and_then(Value::as_str) == Some(value);
        conditions.is_some_and(|all| all.iter().any(|c| is(c, "type", "Ready") && is(c, "status", "True")))
    };
    Ok(list.get("items").and_then(Value::as_array).map_or(0, |pods| pods.iter().filter(is_ready).count()))
}

/// One Node, as it is now.
pub async fn read_node(api: &Api, name: &str) -> Outcome<Option<NodeFacts>> {
    Ok(api.get(&node_path(name)).await?.as_ref().and_then(NodeFacts::read))
}

/// Shows a grant, over the version of the Node that was read; nothing happens when it has another one.
pub async fn show_grant(api: &Api, node: &NodeFacts, grant: &Grant) -> Outcome<()> {
    let text = grant.write()?;
    patch(api, node, json!({"metadata": {"annotations": {wire::GRANT: text}}})).await
}

/// Takes a grant away and leaves the mark of its end, likewise.
pub async fn take_away(api: &Api, node: &NodeFacts, id: &str) -> Outcome<()> {
    let mut annotations = json!({wire::GRANT: null});
    if !id.is_empty() {
        annotations[wire::ENDED] = id.into();
    }
    patch(api, node, json!({"metadata": {"annotations": annotations}})).await
}

/// Replaces the taints, likewise.
pub async fn set_taints(api: &Api, node: &NodeFacts, taints: &[Value]) -> Outcome<()> {
    patch(api, node, json!({"spec": {"taints": taints}})).await
}

/// Removes a Node of this uid; nothing happens when it is gone, or another one.
pub async fn remove_node(api: &Api, node: &NodeFacts) -> Outcome<()> {
    let path = node_path(&node.name);
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": node.uid}});
    let answer = api.call("DELETE", &path, Some(("application/json", &options))).await?;
    match answer.status {
        200 | 202 | 404 | 409 => Ok(()),
        _ => Err(refused("delete", &path, &answer)),
    }
}

async fn patch(api: &Api, node: &NodeFacts, mut change: Value) -> Outcome<()> {
    change["metadata"]["resourceVersion"] = node.resource_version.clone().into();
    let path = node_path(&node.name);
    let answer = api.call("PATCH", &path, Some(("application/merge-patch+json", &change))).await?;
    match answer.status {
        // Whoever was first may have changed what the change follows from: the next round looks again.
        200 | 404 | 409 => Ok(()),
        _ => Err(refused("change", &path, &answer)),
    }
}

fn node_path(name: &str) -> String {
    format!("{NODES}/{}", encode_segment(name))
}
