//! What Kubernetes keeps of a machine that is gone: its Node, and the mirror Pods of its control plane.

use super::machines::ControlPlane;
use crate::kube::{Api, encode_segment, refused};
use crate::model::cause::Outcome;
use crate::rollout::cluster;
use crate::rollout::view::NodeFacts;
use serde_json::{Value, json};

/// With it Pods of a node that is gone end at once and its volumes are detached ("Non-graceful node shutdown").
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const PODS: &str = "/api/v1/namespaces/kube-system/pods";
/// The static Pods of kubeadm's control plane.
const STATIC: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Deletes the mirror Pods of a master without waiting for its kubelet. kubeadm reads etcd's endpoints from their
/// annotations (kubeadm#2071): with those of a dead master the next join waits minutes for it.
pub async fn mirror_pods(api: &Api, name: &str) -> Outcome<()> {
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    for component in STATIC {
        let path = format!("{PODS}/{}", encode_segment(&format!("{component}-{name}")));
        let answer = api.call("DELETE", &path, Some(("application/json", &options))).await?;
        if !matches!(answer.status, 200 | 202 | 404 | 409) {
            return Err(refused("delete", &path, &answer));
        }
    }
    Ok(())
}

/// Whether it carries the taint.
pub fn is_out_of_service(facts: &NodeFacts) -> bool {
    facts.taints.iter().any(|taint| taint.get("key").and_then(Value::as_str) == Some(OUT_OF_SERVICE))
}

/// Taints it, over the version that was read; nothing happens when it is tainted.
pub async fn taint(api: &Api, facts: &NodeFacts) -> Outcome<()> {
    if is_out_of_service(facts) {
        return Ok(());
    }
    let mut taints = facts.taints.clone();
    taints.push(json!({"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}));
    cluster::set_taints(api, facts, &taints).await
}

/// Takes away what is left of a master of which no member is listed any more: mirror Pods, then the Node. A Node that
/// belongs to another machine by now stays.
pub async fn master(api: &Api, name: &str, node: Option<&ControlPlane>) -> Outcome<()> {
    mirror_pods(api, name).await?;
    let Some(node) = node else { return Ok(()) };
    taint(api, &node.facts).await?;
    cluster::remove_node(api, &node.facts).await
}
