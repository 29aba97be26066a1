//! What kubelets do for static pods: every manifest of a machine has a mirror in the API, and a mirror without a manifest
//! goes away. A kubelet that is gone does nothing any more, and its mirrors stay.

use super::state::State;
use crate::files;
use serde_json::{Value, json};
use std::io;
use std::path::Path;

/// Marks a pod as the mirror of a static one.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
const PODS: &str = "/api/v1/namespaces/kube-system/pods";

/// A machine that was switched off has this file below its root: its kubelet is gone, whatever else is there.
pub const OFF: &str = "/run/kubestrap-standin/off";

/// Whether the kubelet of a root lives: it is configured, its machine is on, and on a control plane its static pods run.
pub(super) fn kubelet_lives(root: &Path) -> bool {
    let has = |path: &str| files::under(root, path).exists();
    let runs_nothing = !has("/etc/kubernetes/manifests/kube-apiserver.yaml");
    has("/etc/kubernetes/kubelet.conf") && !has(OFF) && (runs_nothing || super::lives(root))
}

/// The mirrors of one node, whose kubelet lives.
pub(super) fn keep(state: &mut State, node: &Value, root: &Path) -> io::Result<()> {
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    for component in COMPONENTS {
        let manifest = files::under(root, &format!("/etc/kubernetes/manifests/{component}.yaml"));
        let path = format!("{PODS}/{component}-{name}");
        match (manifest.exists(), state.objects.get(&path)) {
            // One that is being deleted is deleted, and comes back while its manifest is there.
            (true, Some(pod)) if pod["metadata"]["deletionTimestamp"].is_null() => {}
            (true, _) => {
                state.remove(&path)?;
                let text = files::read_text(&manifest)?;
                let pod: Value = serde_saphyr::from_str(&text).map_err(io::Error::other)?;
                state.put(&path, mirror(pod, node, &format!("{component}-{name}")))?;
            }
            (false, Some(_)) => drop(state.remove(&path)?),
            (false, None) => {}
        }
    }
    Ok(())
}

fn mirror(mut pod: Value, node: &Value, name: &str) -> Value {
    pod["metadata"]["name"] = json!(name);
    for (key, value) in [(MIRROR, "standin"), ("kubernetes.io/config.source", "file")] {
        pod["metadata"]["annotations"][key] = json!(value);
    }
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "Node", "name": node["metadata"]["name"], "uid": node["metadata"]["uid"], "controller": true,
    }]);
    pod["spec"]["nodeName"] = node["metadata"]["name"].clone();
    pod["spec"]["priorityClassName"] = json!("system-node-critical");
    pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    pod
}
