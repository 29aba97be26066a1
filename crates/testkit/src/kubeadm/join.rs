//! `kubeadm join`: discovery as in `discovery/token/token.go`, then kubelet-start and TLS bootstrap; what a
//! control plane does in between is in [`super::join_control_plane`].

use super::config::load_join;
use super::documents::{BootstrapTokenDiscovery, JoinConfiguration};
use super::etcd_client::Limits;
use super::flags::Flags;
use super::join_control_plane::{self, ControlPlane, PHASES};
use super::kubeconfig::{Kubeconfig, User};
use super::{Failure, Run, kubelet, preflight, token};
use crate::client::{self, Credentials};
use crate::script::seconds;
use crate::{files, jws, pki};
use serde_json::Value;
use std::time::{Duration, Instant};

/// kubeadm `DiscoveryTimeout` and `TLSBootstrapTimeout`.
const FIVE_MINUTES: Duration = Duration::from_secs(300);
const BOOTSTRAP: &str = "/etc/kubernetes/bootstrap-kubelet.conf";

/// `kubeadm join --config F [--skip-phases ...]`.
///
/// # Errors
/// Whatever the real one fails with, and what the script asks for.
pub fn main(run: &Run, flags: &Flags) -> Result<(), Failure> {
    let join = load_join(&run.config_path(flags)?)?;
    run.refuse_unknown_phases(&PHASES)?;
    let Some(discovery) = join.discovery.bootstrap_token.clone() else {
        return Err(Failure::new("the stand-in does not discover by file"));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    run.phase("preflight", || {
        println!("[preflight] Running pre-flight checks");
        preflight::join(run, &join)
    })?;
    run.enter("discovery")?;
    let cluster = runtime.block_on(discover(run, &join, &discovery)).map_err(|failure| {
        let why = format!("couldn't validate the identity of the API Server: {}", failure.message);
        Failure { message: why, ..failure }.in_phase("preflight")
    })?;
    run.leave("discovery")?;
    let config = runtime.block_on(fetch_configuration(run, &join, &cluster)).map_err(|f| f.in_phase("preflight"))?;
    let own = join.control_plane.as_ref();
    let own =
        own.map(|own| ControlPlane::new(run, &join, own, &runtime, &config.cluster, &config.kubelet)).transpose()?;
    if let Some(own) = &own {
        if !run.skips("preflight") {
            own.preflight().map_err(|failure| failure.in_phase("preflight"))?;
        }
        run.phases("control-plane-prepare", || own.prepare())?;
        run.phase("check-etcd", || own.check_etcd())?;
    }
    let local = own.as_ref().map(ControlPlane::local_endpoint);
    let kubelet = Cluster {
        server: local.map_or_else(|| cluster.server.clone(), |at| format!("https://{at}")),
        ca: cluster.ca.clone(),
    };
    run.phase("kubelet-start", || runtime.block_on(kubelet_start(run, &join, &cluster, &kubelet, &config)))?;
    if let Some(own) = &own {
        run.phase("etcd-join", || own.join_etcd())?;
    }
    run.phase("kubelet-wait-bootstrap", || {
        let waited = own.as_ref().map_or(Ok(()), ControlPlane::wait_local);
        let done = waited.and_then(|()| runtime.block_on(wait_bootstrap(run, &join, &kubelet)));
        // The real phase removes it whatever happens (`runKubeletWaitBootstrapPhase`).
        let _ = std::fs::remove_file(run.path(BOOTSTRAP));
        done
    })?;
    if let Some(own) = &own {
        run.phases("control-plane-join", || run.phase("control-plane-join/mark-control-plane", || own.mark()))?;
        run.phase("wait-control-plane", || own.wait())?;
        join_control_plane::print_done();
        return Ok(());
    }
    println!(
        "\nThis node has joined the cluster:\n* Certificate signing request was sent to apiserver and a response was \
         received.\n* The Kubelet was informed of the new secure connection details.\n\nRun 'kubectl get nodes' on the \
         control-plane to see this node join the cluster.\n"
    );
    Ok(())
}

/// A cluster whose identity was verified.
struct Cluster {
    server: String,
    ca: String,
}

impl Cluster {
    fn endpoint(&self) -> &str {
        self.server.trim_start_matches("https://")
    }

    fn with_token(&self, join: &JoinConfiguration) -> Credentials {
        let token = Some(join.discovery.tls_bootstrap_token.clone());
        Credentials { ca: Some(self.ca.clone()), identity: None, token }
    }
}

async fn discover(
    run: &Run,
    join: &JoinConfiguration,
    discovery: &BootstrapTokenDiscovery,
) -> Result<Cluster, Failure> {
    let timeout = run.timeout(join.timeouts.as_ref().and_then(|t| t.discovery.as_deref()), FIVE_MINUTES);
    let endpoint = &discovery.api_server_endpoint;
    let (id, secret) = token::parse(&discovery.token).ok_or_else(|| Failure::new("the bootstrap token is invalid"))?;
    let insecure = cluster_info(run, endpoint, &Credentials::default(), id, timeout).await?;
    let pins = pins(discovery)?;
    let text = insecure["data"]["kubeconfig"].as_str().unwrap_or_default();
    if text.is_empty() {
        return Err(Failure::new(
            "there is no kubeconfig key in the cluster-info ConfigMap. This API Server isn't set up for token \
             bootstrapping, can't connect",
        ));
    }
    let signature = insecure["data"][format!("jws-kubeconfig-{id}")].as_str().unwrap_or_default();
    if signature.is_empty() {
        return Err(Failure::new(format!(
            "token id {id:?} is invalid for this cluster or it has expired. Use \"kubeadm token create\" on the \
             control-plane node to create a new valid token"
        )));
    }
    if !jws::is_valid(signature, text, id, secret) {
        return Err(Failure::new(
            "failed to verify JWS signature of received cluster info object, can't trust this API Server",
        ));
    }
    let config = Kubeconfig::parse(text)
        .map_err(|e| Failure::new(format!("couldn't parse the kubeconfig file in the cluster-info ConfigMap: {e}")))?;
    if pins.is_empty() {
        return Ok(Cluster { server: config.server, ca: config.ca });
    }
    let pin = pki::pin(&config.ca)?;
    if !pins.contains(&pin) {
        return Err(Failure::new(format!(
            "cluster CA found in cluster-info ConfigMap is invalid: none of the public keys {pin:?} are pinned"
        )));
    }
    let verified = Credentials { ca: Some(config.ca.clone()), ..Credentials::default() };
    let secure = cluster_info(run, endpoint, &verified, id, timeout).await?;
    if secure["data"]["kubeconfig"].as_str() != Some(text) {
        return Err(Failure::new(
            "the second kubeconfig from the cluster-info ConfigMap (using validated TLS) was different from the first",
        ));
    }
    Ok(Cluster { server: config.server, ca: config.ca })
}

/// Asks until the signature for this token is there; the last reason is the error.
async fn cluster_info(
    run: &Run,
    endpoint: &str,
    credentials: &Credentials,
    id: &str,
    timeout: Duration,
) -> Result<Value, Failure> {
    let (began, interval) = (Instant::now(), seconds(run.script.poll_seconds).min(timeout));
    let path = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    loop {
        let last = match client::call(endpoint, credentials, "GET", path, None).await {
            Err(error) => format!(
                "failed to request the cluster-info ConfigMap: Get \"https://{endpoint}{path}?timeout=10s\": {error}"
            ),
            Ok(answer) if answer.status != 200 => {
                format!("failed to request the cluster-info ConfigMap: {}", answer.message())
            }
            Ok(answer) if answer.body["data"][format!("jws-kubeconfig-{id}")].is_string() => return Ok(answer.body),
            Ok(_) => format!("could not find a JWS signature in the cluster-info ConfigMap for token ID {id:?}"),
        };
        if began.elapsed() + interval >= timeout {
            return Err(Failure::new(last));
        }
        tokio::time::sleep(interval).await;
    }
}

/// `pubkeypin.Set.Allow`; hex is compared without regard to case, as there.
fn pins(discovery: &BootstrapTokenDiscovery) -> Result<Vec<String>, Failure> {
    let bad = |why: String| Failure::new(format!("invalid discovery token CA certificate hash: {why}"));
    let mut pins = Vec::new();
    for hash in discovery.ca_cert_hashes.iter().flatten() {
        let Some((format, value)) = hash.split_once(':').filter(|(_, value)| !value.contains(':')) else {
            return Err(bad(format!("invalid hash {hash:?}, expected \"format:hex-value\"")));
        };
        if !format.eq_ignore_ascii_case("sha256") {
            return Err(bad(format!("unknown hash format {format:?}")));
        }
        if !value.bytes().all(|b| b.is_ascii_hexdigit()) || value.len() % 2 != 0 {
            return Err(bad("could not decode SHA-256 from hex: encoding/hex: invalid byte".to_owned()));
        }
        if value.len() != 64 {
            return Err(bad(format!("expected a 32 byte SHA-256 hash, found {} bytes", value.len() / 2)));
        }
        pins.push(format!("sha256:{}", value.to_lowercase()));
    }
    Ok(pins)
}

/// What the cluster says of itself.
struct Configuration {
    /// `ClusterConfiguration`
    cluster: Value,
    /// `KubeletConfiguration`
    kubelet: Value,
}

/// The cluster's configuration, read with the token.
async fn fetch_configuration(run: &Run, join: &JoinConfiguration, cluster: &Cluster) -> Result<Configuration, Failure> {
    println!("[preflight] Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"...");
    let mut parsed = Vec::new();
    for (map, key) in [("kubeadm-config", "ClusterConfiguration"), ("kubelet-config", "kubelet")] {
        let path = format!("/api/v1/namespaces/kube-system/configmaps/{map}");
        let limit = Limits::of(run, join.timeouts.as_ref()).api;
        let shown = cluster.with_token(join);
        let answer = client::patiently(cluster.endpoint(), &shown, "GET", &path, None, limit).await?;
        if answer.status != 200 {
            let why =
                format!("unable to fetch the kubeadm-config ConfigMap: failed to get config map: {}", answer.message());
            return Err(Failure::new(why));
        }
        let text = answer.body["data"][key].as_str().unwrap_or_default();
        parsed.push(serde_saphyr::from_str::<Value>(text).map_err(|e| Failure::new(e.to_string()))?);
    }
    let kubelet = parsed.pop().unwrap_or_default();
    Ok(Configuration { cluster: parsed.pop().unwrap_or_default(), kubelet })
}

async fn kubelet_start(
    run: &Run,
    join: &JoinConfiguration,
    cluster: &Cluster,
    kubelet: &Cluster,
    config: &Configuration,
) -> Result<(), Failure> {
    let node = &join.node_registration;
    Kubeconfig {
        server: kubelet.server.clone(),
        ca: cluster.ca.clone(),
        cluster: "kubernetes".to_owned(),
        name: "tls-bootstrap-token-user".to_owned(),
        user: User::Token(join.discovery.tls_bootstrap_token.clone()),
    }
    .write(&run.path(BOOTSTRAP))?;
    let ca = run.path(&join.ca_cert_path);
    if !ca.exists() {
        files::write(&ca, cluster.ca.as_bytes(), 0o644)?;
    }
    let path = format!("/api/v1/nodes/{}", node.name);
    let existing = client::call(cluster.endpoint(), &cluster.with_token(join), "GET", &path, None).await?;
    if existing.status != 200 && existing.status != 404 {
        return Err(Failure::new(format!("cannot get Node {:?}: {}", node.name, existing.message())));
    }
    let conditions = existing.body["status"]["conditions"].as_array().cloned().unwrap_or_default();
    if conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
        return Err(Failure::new(format!(
            "a Node with name {:?} and status \"Ready\" already exists in the cluster. You must delete the existing \
             Node or change the name of this new joining Node",
            node.name
        )));
    }
    // A control plane gets its taints with its mark.
    kubelet::write_files(run, node, &config.kubelet, join.control_plane.is_none())?;
    println!("[kubelet-start] Starting the kubelet");
    if kubelet::is_a_service(&run.root) {
        kubelet::service("restart")?;
    }
    let version = config.cluster["kubernetesVersion"].as_str().unwrap_or_default();
    if run.script.check_kubelet_version && !kubelet::skew_allowed(&run.script.kubelet_version, version) {
        // The real kubelet may well start; a cluster outside of the skew policy is what a test wants to notice.
        eprintln!(
            "W kubelet {} and control plane {version} are outside of the skew policy",
            run.script.kubelet_version
        );
    }
    Ok(())
}

async fn wait_bootstrap(run: &Run, join: &JoinConfiguration, cluster: &Cluster) -> Result<(), Failure> {
    println!("[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap");
    let node = &join.node_registration;
    kubelet::check_flags(node)
        .map_err(|why| Failure::new(format!("failed while waiting for the kubelet to start: {why}")))?;
    let timeout = run.timeout(join.timeouts.as_ref().and_then(|t| t.tls_bootstrap.as_deref()), FIVE_MINUTES);
    let pair = kubelet::bootstrap(cluster.endpoint(), &cluster.with_token(join), &node.name, timeout)
        .await
        .map_err(|f| Failure::new(format!("failed while waiting for TLS bootstrap: {}", f.message)))?;
    let config = Kubeconfig {
        server: cluster.server.clone(),
        ca: cluster.ca.clone(),
        cluster: "default-cluster".to_owned(),
        name: "default-auth".to_owned(),
        user: User::File(kubelet::write_client_certificate(run, &pair)?),
    };
    config.write(&run.path("/etc/kubernetes/kubelet.conf"))?;
    run.enter("kubelet-register")?;
    kubelet::register(run, node, &config, &run.script.kubelet_version, join.control_plane.is_none()).await?;
    run.leave("kubelet-register")
}
