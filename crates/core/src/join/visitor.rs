//! A further master's way into a cluster that it is not part of yet: credentials of an hour, made with the cluster's own
//! authorities, so that it can look at the members before it becomes one. They go when the join is over.

use crate::etcd::Credentials;
use crate::kube::Api;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::names::Endpoint;
use crate::node::Node;
use crate::pki::PkiMaterial;
use crate::ports::{ClientRequest, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const KUBECONFIG: &str = "/var/lib/kubestrap/join/admin.conf";
const ETCD_CA: &str = "/var/lib/kubestrap/join/etcd-ca.crt";
const ETCD_CERTIFICATE: &str = "/var/lib/kubestrap/join/etcd-client.crt";
const ETCD_KEY: &str = "/var/lib/kubestrap/join/etcd-client.key";
/// A join takes seconds and is given up after a quarter of an hour.
const LIFE: Duration = Duration::from_secs(60 * 60);
/// Who may do what admin.conf may (kubeadm 1.29 and newer, `ClusterAdminsGroupAndClusterRoleBinding`).
const ADMINS: &str = "kubeadm:cluster-admins";

/// How a joining master speaks to the cluster.
pub struct Visitor {
    /// The API server behind the endpoint, as an administrator.
    pub api: Api,
    /// The files of an etcd client.
    pub etcd: Credentials,
}

/// Makes the credentials and writes them to files of mode 0600 in the state folder.
pub fn enter(node: &Node, material: &PkiMaterial, endpoint: &Endpoint) -> Outcome<Visitor> {
    let vault = &node.world.vault;
    let user = format!("kubestrap-join:{}", node.identity.node_name);
    let admin = ClientRequest { user: user.clone(), group: ADMINS.to_owned(), life: LIFE };
    let client = ClientRequest { user, group: String::new(), life: LIFE };
    let authorities = &material.authorities;
    let admin = vault.client(&authorities.cluster, &admin)?;
    let client = vault.client(&authorities.etcd, &client)?;
    let kubeconfig = kubeconfig(endpoint, &authorities.cluster.public, &admin);
    let kubeconfig = serde_json::to_vec(&kubeconfig)
        .map_err(|error| Failure::new(Cause::Internal, format!("write {KUBECONFIG}"), error.to_string()))?;
    for (path, body) in [
        (KUBECONFIG, kubeconfig.as_slice()),
        (ETCD_CA, authorities.etcd.public.as_bytes()),
        (ETCD_CERTIFICATE, client.public.as_bytes()),
        (ETCD_KEY, client.private.expose().as_bytes()),
    ] {
        node.world.files.write(Path::new(path), body, 0o600)?;
    }
    let etcd = Credentials { ca: ETCD_CA.into(), certificate: ETCD_CERTIFICATE.into(), key: ETCD_KEY.into() };
    Ok(Visitor { api: Api::with(&node.world.cluster, KUBECONFIG), etcd })
}

/// Removes them; nothing happens when there are none.
pub fn forget(node: &Node) -> Outcome<()> {
    [KUBECONFIG, ETCD_KEY, ETCD_CERTIFICATE, ETCD_CA]
        .iter()
        .try_for_each(|path| node.world.files.remove(Path::new(path)))
}

/// JSON is YAML.
fn kubeconfig(endpoint: &Endpoint, ca: &str, admin: &KeyPair) -> Value {
    let data = |text: &str| BASE64_STANDARD.encode(text);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "cluster", "cluster": {
            "server": format!("https://{endpoint}"), "certificate-authority-data": data(ca),
        } }],
        "users": [{ "name": "admin", "user": {
            "client-certificate-data": data(&admin.public), "client-key-data": data(admin.private.expose()),
        } }],
        "contexts": [{ "name": "admin", "context": { "cluster": "cluster", "user": "admin" } }],
        "current-context": "admin",
    })
}
