//! The documents kubeadm is given (v1beta4, Kubernetes 1.31 and newer; `kubernetes.io/docs/reference/config-api`).
//!
//! Secrets belong here and not in flags. The documents live in files of mode 0600 below the state folder for as long
//! as kubeadm runs; `plan` shows them with [`masked`].

use crate::config::settings::{CloudProvider, EndSettings, NodeSettings, Settings};
use crate::ecr::wiring::{BIN_FLAG, CONFIG_FLAG, KubeletFlags};
use crate::model::bundle::JoinBundle;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::Identity;
use crate::model::names::{BootstrapToken, CaHash, Endpoint};
use crate::model::secret::MASK;
use crate::model::version::KubeVersion;
use crate::node::Node;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Duration;

const API_VERSION: &str = "kubeadm.k8s.io/v1beta4";
/// The life of the token that init is given so that it does not make one of 24 h by itself; nobody ever learns it.
const INIT_TOKEN_TTL: &str = "10m0s";
/// How long a join looks for its token's signature before it gives up and we fetch a newer bundle (kubeadm's own
/// default is 5 min; a revoked token is replaced within one).
const DISCOVERY_TIMEOUT: &str = "1m0s";

/// What the controller-manager may ask of the API server per second, and at once. By its own default (20 and 30) it
/// spends 5 s of its start on the service account of every controller, and no token is signed and no node approved
/// before (measured with 1.36: a worker that starts with its master is Ready after 11 s instead of 15). These are the
/// kubelet's defaults since 1.27; whoever sets other ones in `kubeadm.ClusterConfiguration` has his way.
const CONTROLLER_MANAGER_RATE: [(&str, &str); 2] = [("kube-api-qps", "50"), ("kube-api-burst", "100")];

/// Where the document of a command lies while it runs.
pub fn path(command: &str) -> PathBuf {
    PathBuf::from(format!("{}/kubeadm/{command}.yaml", crate::journal::STATE_FOLDER))
}

/// Where the API server of this machine listens: its address and 6443, or what a patch of `localAPIEndpoint` says.
pub fn local_endpoint(node: &Node) -> Outcome<Endpoint> {
    let patches = &node.settings.kubeadm;
    let of = |key: &str| {
        let in_join = patches.join.get("controlPlane").and_then(|part| part.get("localAPIEndpoint")?.get(key));
        in_join.or_else(|| patches.init.get("localAPIEndpoint")?.get(key))
    };
    let port = of("bindPort").and_then(Value::as_u64).unwrap_or(6443);
    let patched = of("advertiseAddress").and_then(Value::as_str).and_then(|text| text.parse().ok());
    let text = match patched.unwrap_or(node.identity.address) {
        std::net::IpAddr::V4(address) => format!("{address}:{port}"),
        std::net::IpAddr::V6(address) => format!("[{address}]:{port}"),
    };
    Endpoint::parse(&text).map_err(|why| Failure::new(Cause::Configuration, "name this machine's API server", why))
}

/// `--rootfs DIR` when the node's files are below a folder: kubeadm changes its root to it.
pub fn root_flags(node: &Node) -> Vec<String> {
    node.rootfs.iter().flat_map(|root| ["--rootfs".to_owned(), root.clone()]).collect()
}

/// The documents of `kubeadm init`; `providers` are the kubelet's flags for credential providers, where there are any.
pub fn init(
    settings: &Settings,
    identity: &Identity,
    version: &KubeVersion,
    token: &BootstrapToken,
    providers: Option<&KubeletFlags>,
) -> Vec<Value> {
    let patches = &settings.kubeadm;
    let init = json!({
        "apiVersion": API_VERSION,
        "kind": "InitConfiguration",
        "bootstrapTokens": [{
            "token": token.expose().expose(),
            "ttl": INIT_TOKEN_TTL,
            "usages": ["signing", "authentication"],
            "groups": ["system:bootstrappers:kubeadm:default-node-token"],
        }],
        "localAPIEndpoint": { "advertiseAddress": identity.address.to_string() },
        "nodeRegistration": registration(settings, identity, providers),
    });
    let mut documents = vec![merged(init, &patches.init), merged(cluster(settings, version), &patches.cluster)];
    for (kind, api, own, patch) in [
        ("KubeletConfiguration", "kubelet.config.k8s.io/v1beta1", kubelet(&settings.end), &patches.kubelet),
        ("KubeProxyConfiguration", "kubeproxy.config.k8s.io/v1alpha1", Map::new(), &patches.kube_proxy),
    ] {
        if !own.is_empty() || !patch.is_empty() {
            documents.push(merged(merged(json!({ "apiVersion": api, "kind": kind }), &own), patch));
        }
    }
    documents
}

/// What every kubelet of the cluster is told: kubeadm keeps it in a ConfigMap, from which workers take it when they join.
fn kubelet(end: &EndSettings) -> Map<String, Value> {
    let periods =
        [("shutdownGracePeriod", end.shutdown_grace), ("shutdownGracePeriodCriticalPods", end.shutdown_grace_critical)];
    let period =
        |(name, period): (&str, Option<Duration>)| Some((name.to_owned(), json!(format!("{}s", period?.as_secs()))));
    periods.into_iter().filter_map(period).collect()
}

fn cluster(settings: &Settings, version: &KubeVersion) -> Value {
    let kubernetes = &settings.kubernetes;
    let mut document = json!({
        "apiVersion": API_VERSION,
        "kind": "ClusterConfiguration",
        "clusterName": settings.cluster.as_str(),
        "kubernetesVersion": kubernetes.version.as_ref().unwrap_or(version).to_string(),
        "controllerManager": {
            "extraArgs": CONTROLLER_MANAGER_RATE.map(|(name, value)| json!({ "name": name, "value": value })),
        },
    });
    let mut set = |pointer: &[&str], value: Value| {
        let nested = pointer.iter().rev().fold(value, |inner, key| json!({ *key: inner }));
        merge(&mut document, &nested);
    };
    if let Some(endpoint) = &settings.control_plane_endpoint {
        set(&["controlPlaneEndpoint"], json!(endpoint.as_str()));
    }
    for (pointer, text) in [
        (["networking", "podSubnet"], &kubernetes.pod_subnet),
        (["networking", "serviceSubnet"], &kubernetes.service_subnet),
        (["networking", "dnsDomain"], &kubernetes.dns_domain),
    ] {
        if let Some(text) = text {
            set(&pointer, json!(text));
        }
    }
    if let Some(repository) = &kubernetes.image_repository {
        set(&["imageRepository"], json!(repository));
    }
    if !kubernetes.cert_sans.is_empty() {
        set(&["apiServer", "certSANs"], json!(kubernetes.cert_sans));
    }
    document
}

/// The cluster that `kubeadm join` is told: where it is, whose it is, and what lets one in.
#[derive(Debug, Clone, Copy)]
pub struct JoinTarget<'a> {
    /// Of the control plane.
    pub endpoint: &'a Endpoint,
    /// The pin of the cluster CA.
    pub ca: &'a CaHash,
    /// A bootstrap token of the cluster.
    pub token: &'a BootstrapToken,
}

impl<'a> From<&'a JoinBundle> for JoinTarget<'a> {
    fn from(bundle: &'a JoinBundle) -> Self {
        JoinTarget { endpoint: &bundle.endpoint, ca: &bundle.ca_sha256, token: &bundle.token }
    }
}

/// The document of a worker's `kubeadm join`, by token and CA hash; `providers` as for [`init`].
pub fn join(
    settings: &Settings,
    identity: &Identity,
    target: JoinTarget<'_>,
    providers: Option<&KubeletFlags>,
) -> Vec<Value> {
    let join = json!({
        "apiVersion": API_VERSION,
        "kind": "JoinConfiguration",
        "discovery": { "bootstrapToken": {
            "apiServerEndpoint": target.endpoint.as_str(),
            "caCertHashes": [target.ca.as_str()],
            "token": target.token.expose().expose(),
        } },
        "nodeRegistration": registration(settings, identity, providers),
        "timeouts": { "discovery": DISCOVERY_TIMEOUT },
    });
    vec![merged(join, &settings.kubeadm.join)]
}

/// The document of a further control plane: a worker's, and where its own API server listens.
pub fn join_control_plane(
    settings: &Settings,
    identity: &Identity,
    target: JoinTarget<'_>,
    providers: Option<&KubeletFlags>,
) -> Vec<Value> {
    let own = json!({ "controlPlane": { "localAPIEndpoint": { "advertiseAddress": identity.address.to_string() } } });
    let mut documents = join(settings, identity, target, providers);
    for document in &mut documents {
        let patched = std::mem::replace(document, own.clone());
        // What a patch says of it wins.
        merge(document, &patched);
    }
    documents
}

/// `nodeRegistration`, the same for init and join: what follows from settings and identity.
fn registration(settings: &Settings, identity: &Identity, providers: Option<&KubeletFlags>) -> Value {
    let node = &settings.node;
    let mut registration = json!({
        "name": identity.node_name,
        "kubeletExtraArgs": kubelet_arguments(node, identity, providers),
    });
    if let Some(socket) = &node.cri_socket {
        merge(&mut registration, &json!({ "criSocket": socket }));
    }
    if let Some(taints) = &node.taints {
        let taint = |t: &crate::config::settings::Taint| json!({ "key": t.key, "value": t.value, "effect": t.effect });
        merge(&mut registration, &json!({ "taints": taints.iter().map(taint).collect::<Vec<_>>() }));
    }
    registration
}

/// Kubelet flags that differ from node to node, and so cannot be in the KubeletConfiguration all nodes share.
fn kubelet_arguments(node: &NodeSettings, identity: &Identity, providers: Option<&KubeletFlags>) -> Vec<Value> {
    let mut labels = identity.labels.clone();
    labels.extend(node.labels.clone());
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut arguments = Vec::new();
    let mut add = |name: &str, value: String| arguments.push(json!({ "name": name, "value": value }));
    if node.cloud_provider == CloudProvider::External {
        add("cloud-provider", "external".to_owned());
    }
    if let Some(flags) = providers {
        add(BIN_FLAG, flags.bin_dir.to_string_lossy().into_owned());
        add(CONFIG_FLAG, flags.config.to_string_lossy().into_owned());
    }
    add("node-ip", identity.address.to_string());
    if !labels.is_empty() {
        add("node-labels", labels.join(","));
    }
    if let Some(provider_id) = &identity.provider_id {
        add("provider-id", provider_id.clone());
    }
    arguments
}

fn merged(mut document: Value, patch: &Map<String, Value>) -> Value {
    merge(&mut document, &Value::Object(patch.clone()));
    document
}

/// JSON merge patch (RFC 7386): maps merge, null removes, everything else replaces. Lists of arguments
/// (`kubeletExtraArgs`) are the exception: they merge by name, or one more flag would drop the node's labels.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            match (target.get_mut(key), value) {
                (_, Value::Null) => {
                    target.remove(key);
                }
                (Some(Value::Array(ours)), Value::Array(theirs)) if key.to_ascii_lowercase().ends_with("extraargs") => {
                    merge_arguments(ours, theirs);
                }
                _ => merge(target.entry(key.clone()).or_insert(Value::Null), value),
            }
        }
    }
}

fn merge_arguments(ours: &mut Vec<Value>, theirs: &[Value]) {
    for argument in theirs {
        let name = argument.get("name");
        match ours.iter_mut().find(|known| known.get("name") == name) {
            Some(known) => *known = argument.clone(),
            None => ours.push(argument.clone()),
        }
    }
}

/// The documents as one YAML stream.
pub fn render(documents: &[Value]) -> Outcome<String> {
    let mut text = String::new();
    for document in documents {
        let yaml = serde_saphyr::to_string(document)
            .map_err(|error| Failure::new(Cause::Internal, "write a kubeadm document", error.to_string()))?;
        text.push_str("---\n");
        text.push_str(yaml.trim_start_matches("---\n"));
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

/// The documents with every secret replaced, for `plan`.
pub fn masked(documents: &[Value]) -> Vec<Value> {
    let mut shown = documents.to_vec();
    shown.iter_mut().for_each(mask);
    shown
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                if matches!(key.as_str(), "token" | "tlsBootstrapToken" | "certificateKey") && inner.is_string() {
                    *inner = json!(MASK);
                } else {
                    mask(inner);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::String(text) => *text = crate::model::secret::redact(text),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn token() -> BootstrapToken {
        BootstrapToken::parse("abcdef.0123456789abcdef").expect("token")
    }

    fn flags() -> KubeletFlags {
        KubeletFlags {
            config: "/etc/kubernetes/kubestrap/credential-providers.yaml".into(),
            bin_dir: "/usr/bin".into(),
        }
    }

    #[test]
    fn init_documents_carry_what_is_known_and_nothing_else() {
        let mut settings = testing::settings("role: master\ncontrol_plane_endpoint: api.example.com:6443\n");
        settings.kubernetes.pod_subnet = Some("10.244.0.0/16".to_owned());
        settings.node.labels.insert("team".to_owned(), "web".to_owned());
        settings.kubeadm.kubelet.insert("failCgroupV1".to_owned(), json!(false));
        settings.kubeadm.init.insert("localAPIEndpoint".to_owned(), json!({ "bindPort": 7443 }));
        let version = KubeVersion::parse("v1.36.1").expect("version");
        let documents = init(&settings, &testing::identity("m1"), &version, &token(), Some(&flags()));
        insta::assert_snapshot!(render(&masked(&documents)).expect("yaml"));
        assert!(render(&documents).expect("yaml").contains("abcdef.0123456789abcdef"));
    }

    #[test]
    fn the_kubelets_own_graceful_shutdown_is_set_and_a_patch_wins() {
        let mut settings = testing::settings("role: master\n");
        let version = KubeVersion::parse("v1.36.1").expect("version");
        let kubelet = |settings: &Settings| {
            let documents = init(settings, &testing::identity("m1"), &version, &token(), None);
            documents.into_iter().find(|document| document["kind"] == "KubeletConfiguration")
        };
        assert_eq!(kubelet(&settings), None);
        settings.end.shutdown_grace = Some(Duration::from_secs(60));
        settings.end.shutdown_grace_critical = Some(Duration::from_secs(20));
        let head = json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"});
        let with = |more: Value| {
            let mut document = head.clone();
            merge(&mut document, &more);
            Some(document)
        };
        let expected = json!({"shutdownGracePeriod": "60s", "shutdownGracePeriodCriticalPods": "20s"});
        assert_eq!(kubelet(&settings), with(expected));
        settings.kubeadm.kubelet.insert("shutdownGracePeriod".to_owned(), json!("90s"));
        let expected = json!({"shutdownGracePeriod": "90s", "shutdownGracePeriodCriticalPods": "20s"});
        assert_eq!(kubelet(&settings), with(expected));
    }

    #[test]
    fn join_documents_pin_the_ca_and_name_the_node() {
        let settings = testing::settings("role: worker\n");
        let endpoint = Endpoint::parse("api.example.com:6443").expect("endpoint");
        let ca = CaHash::from_digest(&[1; 32]);
        let target = JoinTarget { endpoint: &endpoint, ca: &ca, token: &token() };
        let documents = join(&settings, &testing::identity("w1"), target, None);
        insta::assert_snapshot!(render(&masked(&documents)).expect("yaml"));
    }

    #[test]
    fn a_further_control_plane_is_a_worker_that_listens_at_its_own_address() {
        let mut settings = testing::settings("role: master\n");
        let endpoint = Endpoint::parse("api.example.com:6443").expect("endpoint");
        let (identity, ca) = (testing::identity("m2"), CaHash::from_digest(&[1; 32]));
        let token = token();
        let target = JoinTarget { endpoint: &endpoint, ca: &ca, token: &token };
        let own = |settings: &Settings| {
            let mut documents = join_control_plane(settings, &identity, target, None);
            let own = documents[0].as_object_mut().and_then(|document| document.remove("controlPlane"));
            assert_eq!(documents, join_without_own(settings, &identity, target));
            own.expect("a control plane")["localAPIEndpoint"].clone()
        };
        assert_eq!(own(&settings), json!({ "advertiseAddress": "10.0.0.1" }));
        let patch = json!({ "localAPIEndpoint": { "bindPort": 7443 } });
        settings.kubeadm.join.insert("controlPlane".to_owned(), patch);
        assert_eq!(own(&settings), json!({ "advertiseAddress": "10.0.0.1", "bindPort": 7443 }));
    }

    fn join_without_own(settings: &Settings, identity: &Identity, target: JoinTarget<'_>) -> Vec<Value> {
        let mut documents = join(settings, identity, target, None);
        if let Some(document) = documents[0].as_object_mut() {
            document.remove("controlPlane");
        }
        documents
    }

    #[test]
    fn merge_follows_rfc_7386() {
        let mut value = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut value, &json!({"a": {"b": null, "e": 3}, "d": [2]}));
        assert_eq!(value, json!({"a": {"c": 2, "e": 3}, "d": [2]}));
        let mut value =
            json!({"kubeletExtraArgs": [{"name": "node-labels", "value": "a=b"}, {"name": "v", "value": "2"}]});
        merge(
            &mut value,
            &json!({"kubeletExtraArgs": [{"name": "v", "value": "4"}, {"name": "max-pods", "value": "9"}]}),
        );
        let merged = json!([{"name": "node-labels", "value": "a=b"}, {"name": "v", "value": "4"}, {"name": "max-pods", "value": "9"}]);
        assert_eq!(value, json!({"kubeletExtraArgs": merged}));
    }
}
