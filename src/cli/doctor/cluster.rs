//! The control plane's endpoint, and this node in it.

use super::Check;
use crate::cli::compose;
use kubestrap_core::etcd::even_masters;
use kubestrap_core::kube::{ADMIN_CONF, Api, KUBELET_CONF};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::names::Endpoint;
use kubestrap_core::node::Node;
use kubestrap_core::ports::{Access, ApiRequest};
use kubestrap_core::steps::refuse_own_endpoint;
use kubestrap_core::store::Store;
use std::path::Path;

/// The Nodes of control planes.
const MASTERS: &str = "/api/v1/nodes?labelSelector=node-role.kubernetes.io%2Fcontrol-plane";

/// Endpoint, other masters, then the node.
pub async fn checks(node: &Node) -> Vec<Check> {
    // A bundle that cannot be read is another check's complaint.
    let endpoint = compose::endpoint_of(&Store::of(node), &node.settings).await.ok().flatten();
    vec![reach(node, endpoint).await, control_planes(node).await, registered(node).await]
}

/// DNS, TCP, TLS and the API server behind in one request: the cause tells which of them failed.
async fn reach(node: &Node, endpoint: Option<Endpoint>) -> Check {
    const WHAT: &str = "control plane endpoint";
    let Some(endpoint) = endpoint else {
        return Check::skipped(WHAT, "not known yet: it comes with the join bundle");
    };
    if let Err(failure) = refuse_own_endpoint(node) {
        return Check::failed(WHAT, &failure);
    }
    match credentials(node) {
        Some(kubeconfig) => verified(node, &endpoint, kubeconfig).await,
        None => unverified(node, &endpoint).await,
    }
}

/// Before this machine is a node it has no CA to verify anybody with: any answer is a good one.
async fn unverified(node: &Node, endpoint: &Endpoint) -> Check {
    const WHAT: &str = "control plane endpoint";
    match get(node, Access::Unverified(endpoint.clone()), "/healthz").await {
        Ok(status) => Check::ok(
            WHAT,
            format!("{endpoint} answers over TLS (HTTP {status}); nothing here can verify whom it belongs to"),
        ),
        // Before the first `kubeadm init` nobody can answer; that is no fault.
        Err(failure) if !exists(node).await => {
            Check::skipped(WHAT, format!("there is no cluster yet, and {endpoint} does not answer: {}", failure.detail))
        }
        Err(failure) => Check::failed(WHAT, &failure),
    }
}

/// Whether a healthy API server of this very cluster is behind the endpoint.
async fn verified(node: &Node, endpoint: &Endpoint, kubeconfig: &str) -> Check {
    const WHAT: &str = "control plane endpoint";
    let through = Access::KubeconfigAt(kubeconfig.into(), endpoint.clone());
    match get(node, through, "/readyz").await {
        Ok(200) if is_loopback(endpoint) && node.settings.pki.is_some() => Check::warning(
            WHAT,
            format!("{endpoint} reaches a healthy API server of this cluster, from this machine"),
            "a loopback address needs a proxy on every machine that leads to every master; docs/ha.md has other ways",
        ),
        Ok(200) => Check::ok(WHAT, format!("{endpoint} reaches a healthy API server of this cluster")),
        Ok(status) => {
            let attempted = format!("reach a healthy API server through {endpoint}");
            let why = format!("GET /readyz is answered with HTTP {status}");
            let fix = "the API server that was reached is not ready: `crictl logs` of kube-apiserver and etcd on the masters; a \
                       balancer that checks /readyz would not send anybody there (docs/ha.md)";
            Check::failed(WHAT, &Failure::new(Cause::ApiUnavailable, attempted, why).advise(fix))
        }
        Err(failure) => {
            let own = match Api::local(node) {
                Ok(api) if kubeconfig == ADMIN_CONF => api.is_ready().await.unwrap_or(false),
                _ => false,
            };
            Check::failed(
                WHAT,
                &match unreachable_fix(&failure, endpoint, own) {
                    Some(fix) => failure.advise(fix),
                    None => failure,
                },
            )
        }
    }
}

/// What to do about an endpoint that cannot be asked; `own`: this machine's own API server is healthy. `None`: the failure
/// says it better.
fn unreachable_fix(failure: &Failure, endpoint: &Endpoint, own: bool) -> Option<String> {
    match failure.cause {
        Cause::Tls => Some(format!(
            "either somebody else answers at {endpoint}, or the API server's certificate lacks the name: then add {} to \
             `kubernetes.cert_sans`, remove /etc/kubernetes/pki/apiserver.crt and .key, and run `kubeadm init phase certs apiserver`",
            endpoint.host()
        )),
        Cause::Network | Cause::ApiUnavailable | Cause::Deadline if own => Some(format!(
            "this machine's own API server is healthy, so look at what is in between: the targets of {endpoint} and their health \
             check, security groups, and on a network load balancer preserve_client_ip, which keeps a target from reaching itself \
             (docs/ha.md)"
        )),
        _ => None,
    }
}

fn is_loopback(endpoint: &Endpoint) -> bool {
    let address = endpoint.host().parse::<std::net::IpAddr>();
    endpoint.host() == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A kubeconfig of this machine: with it comes the cluster's CA. `None` before it is a node.
fn credentials(node: &Node) -> Option<&'static str> {
    let is_there = |path: &&str| matches!(node.world.files.stat(Path::new(path)), Ok(Some(_)));
    [ADMIN_CONF, KUBELET_CONF].into_iter().find(is_there)
}

async fn get(node: &Node, access: Access, path: &str) -> Outcome<u16> {
    let request = ApiRequest { access, method: "GET", path: path.to_owned(), body: None };
    Ok(node.world.cluster.call(request).await?.status)
}

/// How many masters there are.
async fn control_planes(node: &Node) -> Check {
    const WHAT: &str = "control planes";
    if credentials(node) != Some(ADMIN_CONF) {
        return Check::skipped(WHAT, "known on a master");
    }
    match Api::admin(&node.world.cluster).get(MASTERS).await {
        // That the endpoint does not answer is another check's complaint.
        Err(failure) => Check::skipped(WHAT, format!("not known: {}", failure.detail)),
        Ok(list) => {
            let items = list.as_ref().and_then(|list| list.get("items")).and_then(|items| items.as_array());
            let count = items.map_or(0, Vec::len);
            match even_masters(count) {
                Some(why) => Check::warning(
                    WHAT,
                    why,
                    "start another master with the same configuration, or let one go: `kubestrap leave`",
                ),
                None => Check::ok(WHAT, format!("{count}")),
            }
        }
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
            let failure =
                Failure::new(Cause::NotRegistered, format!("find the Node {name}"), "the API server does not know it");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fix_names_what_is_in_between() {
        let endpoint = Endpoint::parse("api.prod.example.com:6443").expect("an endpoint");
        let fix = |cause, own| unreachable_fix(&Failure::new(cause, "ask", "x"), &endpoint, own).unwrap_or_default();
        assert!(fix(Cause::Tls, true).contains("add api.prod.example.com to `kubernetes.cert_sans`"));
        assert!(fix(Cause::Network, true).contains("preserve_client_ip"));
        assert_eq!(fix(Cause::Network, false), "", "nothing is known of this machine's own API server");
        assert_eq!(fix(Cause::Dns, true), "");
    }
}
