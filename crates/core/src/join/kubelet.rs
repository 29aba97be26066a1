//! The kubelet of a further control plane, while `kubeadm join` runs.
//!
//! It is started before its machine has an API server, which is the only one that it asks (kubeadm's
//! `ControlPlaneKubeletLocalMode`), and tries again less and less often: after up to 8 s for its certificate, 7 s for its
//! Node, 19 s for the CSINode without which the Node is not Ready (kubelet 1.36: `certificate_manager.go`,
//! `kubelet_node_status.go`, `csi_plugin.go`). In the lab a master was Ready up to 16 s after kubeadm had ended. Started
//! anew as soon as there is somebody to answer, it does all of that at once.

use crate::journal::Attempt;
use crate::kube::Api;
use crate::model::cause::Outcome;
use crate::node::{Event, Node};
use crate::ports::JobSpec;
use std::time::Duration;

/// How often it is looked whether this machine's API server is ready: as long as the kubelet's first retries.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The kubelet of a machine with many pods may take its time to end.
const DEADLINE: Duration = Duration::from_secs(120);

/// Waits until the API server of this machine is ready, and starts the kubelet anew unless its Node is registered by then.
/// Nothing depends on it: what fails is told. A node below a folder has no kubelet of its own, and nothing happens.
pub async fn start_anew_when_served(node: &Node, attempt: &Attempt) {
    if node.rootfs.is_some() {
        return;
    }
    loop {
        node.world.time.sleep(LOOK_EVERY).await;
        match registered(node).await {
            Ok(Some(true)) => return,
            Ok(Some(false)) => break,
            // No answer is as good as "not yet".
            Ok(None) | Err(_) => {}
        }
    }
    let restart = JobSpec {
        name: "restart-kubelet".to_owned(),
        run: attempt.id.to_string(),
        argv: ["systemctl", "restart", "kubelet"].map(str::to_owned).to_vec(),
        deadline: DEADLINE,
    };
    match node.world.jobs.start(&restart).await {
        Ok(()) => node.tell(&Event::Note("the kubelet is started anew: the API server of this machine answers now")),
        Err(failure) => node.complain(&failure),
    }
}

/// Whether this machine's Node is registered; `None` while its API server is not ready.
async fn registered(node: &Node) -> Outcome<Option<bool>> {
    let api = Api::local(node)?;
    if !api.is_ready().await? {
        return Ok(None);
    }
    Ok(Some(api.node(&node.identity.node_name).await?.is_some()))
}
