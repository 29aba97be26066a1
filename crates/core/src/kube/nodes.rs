//! The node's own object.

use super::{Api, encode_segment};
use crate::model::cause::Outcome;
use serde_json::Value;

/// What is known of a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Whether its Ready condition is True.
    pub ready: bool,
    /// The Ready condition's message when it is not.
    pub not_ready_because: Option<String>,
    /// `status.nodeInfo.kubeletVersion`.
    pub kubelet_version: Option<String>,
    /// `spec.providerID`.
    pub provider_id: Option<String>,
}

impl Api {
    /// The Node of this name; `None` when it is not registered.
    pub async fn node(&self, name: &str) -> Outcome<Option<NodeView>> {
        Ok(self.get(&format!("/api/v1/nodes/{}", encode_segment(name))).await?.as_ref().map(view))
    }
}

fn view(node: &Value) -> NodeView {
    let text = |pointer: &str| node.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.and_then(|all| all.iter().find(|c| c.get("type").and_then(Value::as_str) == Some("Ready")));
    let is_ready = ready.and_then(|c| c.get("status")).and_then(Value::as_str) == Some("True");
    let message = ready.and_then(|c| c.get("message")).and_then(Value::as_str);
    NodeView {
        ready: is_ready,
        not_ready_because: (!is_ready).then(|| explain(message.unwrap_or("the kubelet has not reported yet"))),
        kubelet_version: text("/status/nodeInfo/kubeletVersion"),
        provider_id: text("/spec/providerID"),
    }
}

/// The commonest reason by its name: a cluster without a pod network never becomes Ready.
fn explain(message: &str) -> String {
    if message.contains("cni plugin not initialized") || message.contains("NetworkPluginNotReady") {
        format!("no CNI: {message}")
    } else {
        message.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn readiness_and_its_reason_are_read() {
        let node = |status: &str, message: &str| {
            view(&json!({"status": {"conditions": [{"type": "Ready", "status": status, "message": message}]}}))
        };
        assert!(node("True", "").ready);
        let waiting =
            node("False", "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady");
        assert!(waiting.not_ready_because.is_some_and(|why| why.starts_with("no CNI: ")));
        assert!(view(&json!({})).not_ready_because.is_some());
    }
}
