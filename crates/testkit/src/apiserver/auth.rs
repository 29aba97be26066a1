//! Who asks, and what they may do. Not RBAC, but the rules RBAC has in a fresh kubeadm cluster.

use super::resources::Target;
use super::state::State;
use crate::http::Request;
use crate::pki;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// `system:anonymous`, `kubernetes-admin`, `system:node:x`, `system:bootstrap:abcdef`.
    pub name: String,
    /// Groups.
    pub groups: Vec<String>,
}

impl User {
    fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node's name, for a kubelet.
    pub(super) fn node(&self) -> Option<&str> {
        self.name.strip_prefix("system:node:").filter(|_| self.is_in("system:nodes"))
    }
}

/// A field of a Secret's data as text.
pub(super) fn field(secret: &Value, name: &str) -> Option<String> {
    let bytes = STANDARD.decode(secret["data"][name].as_str()?).ok()?;
    String::from_utf8(bytes).ok()
}

/// Whether a bootstrap token Secret is past its expiration; one that does not parse is.
pub(super) fn is_expired(secret: &Value) -> bool {
    field(secret, "expiration").is_some_and(|at| at.parse::<Timestamp>().map_or(true, |at| at <= Timestamp::now()))
}

/// Finds out who asks; `None` for credentials that are no good (401).
pub(super) fn authenticate(request: &Request, state: &State) -> Option<User> {
    if let Some(der) = &request.client_certificate {
        // rustls has verified that our CA signed it and that it is valid now.
        let (name, mut groups) = pki::certificate_subject(der).ok()?;
        groups.push("system:authenticated".to_owned());
        return Some(User { name, groups });
    }
    let Some(header) = request.header("authorization") else {
        return Some(User { name: "system:anonymous".to_owned(), groups: vec!["system:unauthenticated".to_owned()] });
    };
    let (id, secret) = header.strip_prefix("Bearer ")?.split_once('.')?;
    let stored = state.objects.get(&format!("/api/v1/namespaces/kube-system/secrets/bootstrap-token-{id}"))?;
    let is = |name: &str, value: &str| field(stored, name).as_deref() == Some(value);
    let good = stored["type"] == "bootstrap.kubernetes.io/token"
        && is("token-id", id)
        && is("token-secret", secret)
        && is("usage-bootstrap-authentication", "true")
        && !is_expired(stored);
    if !good {
        return None;
    }
    let mut groups = vec!["system:bootstrappers".to_owned(), "system:authenticated".to_owned()];
    let extra = field(stored, "auth-extra-groups").unwrap_or_default();
    groups.extend(extra.split(',').filter(|group| !group.is_empty()).map(ToOwned::to_owned));
    Some(User { name: format!("system:bootstrap:{id}"), groups })
}

/// Whether a user may do this. `verb` is `get`, `list`, `create`, `update`, `patch` or `delete`.
pub(super) fn may(user: &User, verb: &str, target: &Target, state: &State) -> bool {
    if user.is_in("system:masters") || user.is_in("kubeadm:cluster-admins") {
        return true;
    }
    let (resource, name) = (target.resource.qualified(), target.name.as_deref());
    let namespace = target.namespace.as_deref();
    if (verb, resource.as_str(), namespace, name) == ("get", "configmaps", Some("kube-public"), Some("cluster-info")) {
        return true;
    }
    let configuration = matches!(name, Some("kubeadm-config" | "kubelet-config"));
    let reads_configuration =
        (verb, resource.as_str(), namespace) == ("get", "configmaps", Some("kube-system")) && configuration;
    let signs = resource == "certificatesigningrequests.certificates.k8s.io";
    if user.is_in("system:bootstrappers:kubeadm:default-node-token") {
        // kubeadm:nodes-kubeadm-config, kubeadm:get-nodes and system:node-bootstrapper.
        let own = || state.objects.get(&target.path()).is_some_and(|csr| csr["spec"]["username"] == user.name.as_str());
        return reads_configuration
            || (verb == "get" && resource == "nodes" && name.is_some())
            || (signs && (verb == "create" || (verb == "get" && own())));
    }
    if let Some(node) = user.node() {
        let own_node = resource == "nodes" && name == Some(node) && ["get", "patch", "update"].contains(&verb);
        let evicts = resource == "pods" && target.subresource.as_deref() == Some("eviction");
        let pods = resource == "pods" && ["get", "list"].contains(&verb);
        return own_node || (resource == "nodes" && verb == "create") || reads_configuration || signs || evicts || pods;
    }
    false
}

/// What the NodeRestriction admission plugin says of a kubelet's change to a Node; `None` when it has no objection.
pub(super) fn node_restriction(user: &User, name: &str, before: Option<&Value>, after: &Value) -> Option<String> {
    let node = user.node()?;
    if name != node {
        return Some(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    // Measured with a real 1.36: a kubelet may register with taints but not change them.
    if before.is_some_and(|before| before["spec"]["taints"] != after["spec"]["taints"]) {
        return Some(format!("node {node:?} is not allowed to modify taints"));
    }
    None
}
