//! From a configuration file to checked documents with kubeadm's defaults.

use super::documents::{
    ApiEndpoint, BootstrapToken, ClusterConfiguration, InitConfiguration, JoinConfiguration, LocalEtcd,
    NodeRegistrationOptions, ResetConfiguration, Taint, Timeouts,
};
use super::{Failure, component, validation};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const KUBEADM: &str = "kubeadm.k8s.io/v1beta4";
const CONTROL_PLANE_TAINT: &str = "node-role.kubernetes.io/control-plane";
/// What `kubeadm init` works with.
#[derive(Debug, Clone)]
pub struct InitInput {
    /// Defaulted.
    pub init: InitConfiguration,
    /// Defaulted.
    pub cluster: ClusterConfiguration,
    /// `KubeletConfiguration`, as given.
    pub kubelet: Value,
    /// `KubeProxyConfiguration`, as given.
    pub kube_proxy: Value,
}

/// Reads a configuration file: documents by kind, each strictly decoded.
fn read_documents(path: &Path) -> Result<BTreeMap<String, Value>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::new(format!("unable to read config from {:?} : {e}", path.to_string_lossy())))?;
    let parsed: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|e| {
        Failure::new(format!("error converting YAML to JSON: yaml: {} ({shown})", e.to_string().replace('\n', " ")))
    })?;
    let mut documents = BTreeMap::new();
    for document in parsed.into_iter().filter(|document| !document.is_null()) {
        let text = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version.is_empty() || kind.is_empty() {
            return Err(Failure::new(format!(
                "invalid configuration for GroupVersionKind {}: kind and apiVersion is mandatory information that must \
                 be specified",
                if kind.is_empty() { "/, Kind=" } else { &kind }
            )));
        }
        check_document(&api_version, &kind, &document)?;
        if documents.insert(kind.clone(), document).is_some() {
            return Err(Failure::new(format!("invalid configuration: kind {kind:?} is specified twice in YAML file")));
        }
    }
    Ok(documents)
}

fn check_document(api_version: &str, kind: &str, document: &Value) -> Result<(), Failure> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = format!("schema.GroupVersionKind{{Group:{group:?}, Version:{version:?}, Kind:{kind:?}}}");
    if let Some(release) = old_version(api_version) {
        return Err(Failure::new(format!(
            "your configuration file uses an old API spec: {api_version:?} (kind: {kind:?}). Please use kubeadm \
             {release} instead and run 'kubeadm config migrate --old-config old-config-file --new-config \
             new-config-file', which will write the new, similar spec using a newer API version."
        )));
    }
    let checked = match (api_version, kind) {
        (KUBEADM, "InitConfiguration") => decode::<InitConfiguration>(document).map(|_| ()),
        (KUBEADM, "ClusterConfiguration") => decode::<ClusterConfiguration>(document).map(|_| ()),
        (KUBEADM, "JoinConfiguration") => decode::<JoinConfiguration>(document).map(|_| ()),
        (KUBEADM, "ResetConfiguration") => decode::<ResetConfiguration>(document).map(|_| ()),
        ("kubelet.config.k8s.io/v1beta1", "KubeletConfiguration")
        | ("kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration") => component::check(kind, document),
        _ => return Err(Failure::new(format!("unknown configuration {gvk}"))),
    };
    checked.map_err(|e| Failure::new(format!("error unmarshaling configuration {gvk}: {e}")))
}

/// The release that last knew an old API version (kubeadm `validateSupportedVersion`); v1beta3, which 1.36 still reads
/// with a warning, is refused here, for kubestrap must not write it.
fn old_version(api_version: &str) -> Option<&'static str> {
    match api_version {
        "kubeadm.k8s.io/v1alpha1" => Some("v1.11"),
        "kubeadm.k8s.io/v1alpha2" => Some("v1.12"),
        "kubeadm.k8s.io/v1alpha3" => Some("v1.14"),
        "kubeadm.k8s.io/v1beta1" => Some("v1.15"),
        "kubeadm.k8s.io/v1beta2" => Some("v1.22"),
        "kubeadm.k8s.io/v1beta3" => Some("v1.30"),
        _ => None,
    }
}

fn decode<T: DeserializeOwned>(document: &Value) -> Result<T, String> {
    serde_json::from_value(document.clone()).map_err(|e| format!("strict decoding error: {e}"))
}

/// Loads, defaults and validates what `kubeadm init --config` is given.
///
/// # Errors
/// Everything the real one refuses, with its texts as far as they matter.
pub fn load_init(path: &Path, kubeadm_version: &str) -> Result<InitInput, Failure> {
    let mut documents = read_documents(path)?;
    if !documents.contains_key("InitConfiguration") && !documents.contains_key("ClusterConfiguration") {
        return Err(Failure::new(
            "no InitConfiguration or ClusterConfiguration kind was found in the configuration file",
        ));
    }
    let mut take = |kind: &str| documents.remove(kind).unwrap_or(Value::Object(serde_json::Map::new()));
    let mut input = InitInput {
        init: decode(&take("InitConfiguration")).map_err(Failure::new)?,
        cluster: decode(&take("ClusterConfiguration")).map_err(Failure::new)?,
        kubelet: take("KubeletConfiguration"),
        kube_proxy: take("KubeProxyConfiguration"),
    };
    default_init(&mut input.init)?;
    default_cluster(&mut input.cluster, kubeadm_version);
    validation::aggregate(validation::init(&input.init, &input.cluster))?;
    validation::control_plane_version(&input.cluster.kubernetes_version, kubeadm_version)?;
    if input.cluster.certificates_dir != "/etc/kubernetes/pki" {
        return Err(Failure::new("the stand-in only knows the certificatesDir /etc/kubernetes/pki"));
    }
    Ok(input)
}

/// Loads, defaults and validates what `kubeadm join --config` is given.
///
/// # Errors
/// Everything the real one refuses, with its texts as far as they matter.
pub fn load_join(path: &Path) -> Result<JoinConfiguration, Failure> {
    let mut documents = read_documents(path)?;
    let document = documents.remove("JoinConfiguration").ok_or_else(|| {
        Failure::new(format!("no JoinConfiguration found in config file {:?}", path.to_string_lossy()))
    })?;
    let mut join: JoinConfiguration = decode(&document).map_err(Failure::new)?;
    default_node(&mut join.node_registration, join.control_plane.is_some())?;
    if let Some(own) = &mut join.control_plane {
        default_endpoint(&mut own.local_api_endpoint);
    }
    set_default(&mut join.ca_cert_path, "/etc/kubernetes/pki/ca.crt");
    // kubeadm `SetDefaults_Discovery`: the discovery token serves for TLS bootstrap too.
    if let (true, Some(discovery)) = (join.discovery.tls_bootstrap_token.is_empty(), &join.discovery.bootstrap_token) {
        join.discovery.tls_bootstrap_token = discovery.token.clone();
    }
    validation::aggregate(validation::join(&join))?;
    Ok(join)
}

/// The `ClusterConfiguration` that the cluster keeps of itself, defaulted.
///
/// # Errors
/// When it does not decode.
pub fn cluster(document: &Value, kubeadm_version: &str) -> Result<ClusterConfiguration, Failure> {
    let decoded = decode(document).map_err(|e| format!("failed to decode cluster configuration data: {e}"));
    let mut cluster: ClusterConfiguration =
        decoded.map_err(|e| Failure::new(format!("unable to fetch the kubeadm-config ConfigMap: {e}")))?;
    default_cluster(&mut cluster, kubeadm_version);
    Ok(cluster)
}

/// Loads what `kubeadm reset --config` is given.
///
/// # Errors
/// When it does not decode.
pub fn load_reset(path: &Path) -> Result<ResetConfiguration, Failure> {
    let document = read_documents(path)?.remove("ResetConfiguration").ok_or_else(|| {
        Failure::new(format!("no ResetConfiguration found in config file {:?}", path.to_string_lossy()))
    })?;
    decode(&document).map_err(Failure::new)
}

fn set_default(field: &mut String, value: &str) {
    if field.is_empty() {
        value.clone_into(field);
    }
}

fn default_node(node: &mut NodeRegistrationOptions, control_plane: bool) -> Result<(), Failure> {
    if node.name.is_empty() {
        let name = nix::unistd::gethostname().map_err(|e| Failure::new(format!("unable to get hostname: {e}")))?;
        node.name = name.to_string_lossy().trim().to_lowercase();
    }
    set_default(&mut node.cri_socket, "unix:///var/run/containerd/containerd.sock");
    set_default(&mut node.image_pull_policy, "IfNotPresent");
    // Only an absent list is defaulted: `taints: []` is how one asks for none.
    if node.taints.is_none() && control_plane {
        let taint = Taint { key: CONTROL_PLANE_TAINT.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        node.taints = Some(vec![taint]);
    }
    Ok(())
}

fn default_endpoint(endpoint: &mut ApiEndpoint) {
    set_default(&mut endpoint.advertise_address, "127.0.0.1");
    if endpoint.bind_port == 0 {
        endpoint.bind_port = 6443;
    }
}

fn default_init(init: &mut InitConfiguration) -> Result<(), Failure> {
    default_endpoint(&mut init.local_api_endpoint);
    default_node(&mut init.node_registration, true)?;
    init.timeouts.get_or_insert_with(Timeouts::default);
    let tokens = init.bootstrap_tokens.get_or_insert_with(Vec::new);
    if tokens.is_empty() {
        // kubeadm makes a token of its own, which lives for a day.
        tokens.push(BootstrapToken { token: super::token::random()?, ..BootstrapToken::default() });
    }
    for token in tokens {
        if token.ttl.is_none() && token.expires.is_none() {
            token.ttl = Some("24h0m0s".to_owned());
        }
        token.usages.get_or_insert_with(|| vec!["signing".to_owned(), "authentication".to_owned()]);
        token.groups.get_or_insert_with(|| vec!["system:bootstrappers:kubeadm:default-node-token".to_owned()]);
    }
    Ok(())
}

fn default_cluster(cluster: &mut ClusterConfiguration, kubeadm_version: &str) {
    set_default(&mut cluster.kubernetes_version, kubeadm_version);
    set_default(&mut cluster.certificates_dir, "/etc/kubernetes/pki");
    set_default(&mut cluster.image_repository, "registry.k8s.io");
    set_default(&mut cluster.cluster_name, "kubernetes");
    set_default(&mut cluster.networking.service_subnet, "10.96.0.0/12");
    set_default(&mut cluster.networking.dns_domain, "cluster.local");
    if !cluster.kubernetes_version.starts_with('v') {
        cluster.kubernetes_version.insert(0, 'v');
    }
    if cluster.etcd.local.is_none() && cluster.etcd.external.is_none() {
        cluster.etcd.local = Some(LocalEtcd::default());
    }
    if let Some(local) = &mut cluster.etcd.local {
        set_default(&mut local.data_dir, "/var/lib/etcd");
    }
}
