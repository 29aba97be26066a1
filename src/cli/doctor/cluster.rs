//! The control plane's endpoint, and this node in it.

use super::Check;
use crate::cli::compose;
use kubestrap_core::kube::{Api, KUBELET_CONF};
use kubestrap_core::model::cause::Cause;
use kubestrap_core::model::names::Endpoint;
use kubestrap_core::node::Node;
use kubestrap_core::ports::{Access, ApiRequest};
use kubestrap_core::store::Store;
use std::path::Path;

/// Endpoint, then the node.
pub async fn checks(node: &Node) -> Vec<Check> {
    // A bundle that cannot be read is another check's complaint.
    let endpoint = compose::endpoint_of(&Store::of(node), &node.settings).await.ok().flatten();
    vec![reach(node, endpoint).await, registered(node).await]
}

/// DNS, TCP and TLS in one request: the cause tells which of them failed.
async fn reach(node: &Node, endpoint: Option<Endpoint>) -> Check {
    const WHAT: &str = "control plane endpoint";
    let Some(endpoint) = endpoint else {
        return Check::skipped(WHAT, "not known yet: it comes with the join bundle");
    };
    let request = ApiRequest {
        access: Access::Unverified(endpoint.clone()),
        method: "GET",
        path: "/healthz".to_owned(),
        body: None,
    };
    match node.world.cluster.call(request).await {
        Ok(answer) => Check::ok(WHAT, format!("{endpoint} answers over TLS (HTTP {})", answer.status)),
        // Before the first `kubeadm init` nobody can answer; that is no fault.
        Err(failure) if !exists(node).await => {
            Check::skipped(WHAT, format!("there is no cluster yet, and {endpoint} does not answer: {}", failure.detail))
        }
        Err(failure) => Check::failed(WHAT, &failure),
    }
}

/// Whether the register says so; when it cannot be read, another check complains.
async fn exists(node: &Node) -> bool {
    let register = Store::of(node).register().await;
    register.ok().flatten().is_some_and(|seen| seen.register.ca().is_some())
}

async fn registered(node: &Node) -> Check {
    const WHAT: &str = "node";
    match node.world.files.stat(Path::new(KUBELET_CONF)) {
        Ok(None) => return Check::skipped(WHAT, "this machine has not joined yet"),
        Err(failure) => return Check::failed(WHAT, &failure),
        Ok(Some(_)) => {}
    }
    let name = &node.identity.node_name;
    match Api::kubelet(&node.world.cluster).node(name).await {
        Err(failure) => Check::failed(WHAT, &failure),
        Ok(None) => {
            let failure = kubestrap_core::model::cause::Failure::new(
                Cause::NotRegistered,
                format!("find the Node {name}"),
                "the API server does not know it",
            );
            Check::failed(WHAT, &failure)
        }
        Ok(Some(view)) => match view.not_ready_because {
            None => Check::ok(WHAT, format!("{name} is Ready ({})", view.kubelet_version.unwrap_or_default())),
            Some(why) => {
                let fix = if why.starts_with("no CNI") {
                    "install a pod network, for example as an addon (README, \"A pod network\")"
                } else {
                    "see `journalctl -u kubelet`"
                };
                Check::warning(WHAT, format!("NotReady: {why}"), fix)
            }
        },
    }
}
