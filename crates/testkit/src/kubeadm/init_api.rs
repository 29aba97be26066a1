//! The phases of `kubeadm init` that speak to the API server.

use super::config::InitInput;
use super::documents::Taint;
use super::init::{endpoint, local_endpoint};
use super::kubeconfig::{Kubeconfig, User};
use super::{Failure, Run, kubelet, token};
use crate::client::{self, Answer, Credentials};
use crate::files;
use crate::script::MEMORY;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// kubeadm `ControlPlaneComponentHealthCheckTimeout`.
pub(super) const HEALTH_TIMEOUT: Duration = Duration::from_secs(240);
/// kubeadm `KubernetesAPICallTimeout`.
pub(super) const API_CALL: Duration = Duration::from_secs(60);
const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const CONFIG_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";

/// Starts the API stand-in as a daemon with its own session; it outlives kubeadm. On a machine with systemd the kubelet
/// starts it, as the real one does: what kubeadm leaves in its own unit ends with that.
///
/// # Errors
/// When the program can not be started.
pub fn start_server(run: &Run) -> std::io::Result<()> {
    if kubelet::is_a_service(&run.root) {
        return kubelet::service("restart");
    }
    let log = run.path(MEMORY).join("apiserver.log");
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    Command::new(std::env::current_exe()?)
        .args(["standin-apiserver", "--detach", "--rootfs"])
        .arg(&run.root)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map(|_| ())
}

/// From wait-control-plane to addon.
///
/// # Errors
/// When the API server does not answer, or refuses.
pub fn main(run: &Run, input: &InitInput) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let given = input.init.timeouts.as_ref().and_then(|t| t.kubernetes_api_call.as_deref());
    let patience = run.timeout(given, API_CALL);
    let api = Api { runtime, admin: Kubeconfig::read(&run.path("/etc/kubernetes/super-admin.conf"))?, patience };
    run.phase("wait-control-plane", || wait(run, input, &api))?;
    run.phase("upload-config", || upload_config(input, &api))?;
    println!("[upload-certs] Skipping phase. Please see --upload-certs");
    run.phase("mark-control-plane", || mark_control_plane(run, input, &api))?;
    run.phase("bootstrap-token", || bootstrap_token(input, &api))?;
    run.phase("kubelet-finalize", || kubelet_finalize(run))?;
    run.phase("addon", || addons(input, &api))
}

struct Api {
    runtime: Runtime,
    admin: Kubeconfig,
    patience: Duration,
}

impl Api {
    fn call(&self, method: &str, path: &str, body: Option<(&str, &Value)>) -> Result<Answer, Failure> {
        let credentials = self.admin.credentials(std::path::Path::new("/"))?;
        let body = body.map(|(content_type, value)| (content_type, value.to_string().into_bytes()));
        let (endpoint, limit) = (self.admin.endpoint(), self.patience);
        Ok(self.runtime.block_on(client::patiently(endpoint, &credentials, method, path, body, limit))?)
    }

    /// `apiclient.CreateOrUpdate`.
    fn put(&self, collection: &str, object: &Value) -> Result<(), Failure> {
        let json = "application/json";
        let mut answer = self.call("POST", collection, Some((json, object)))?;
        if answer.status == 409 {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            answer = self.call("PUT", &format!("{collection}/{name}"), Some((json, object)))?;
        }
        if answer.status < 300 { Ok(()) } else { Err(Failure::new(answer.message())) }
    }
}

fn wait(run: &Run, input: &InitInput, api: &Api) -> Result<(), Failure> {
    println!("[wait-control-plane] Waiting for the kubelet to boot up the control plane as static Pods");
    let given = input.init.timeouts.as_ref().and_then(|t| t.control_plane_component_health_check.as_deref());
    local_health(&api.runtime, &local_endpoint(input), &api.admin.ca, run.timeout(given, HEALTH_TIMEOUT))
}

/// Waits until the API server at `local` is alive.
///
/// # Errors
/// When it is not within `limit`.
pub(super) fn local_health(runtime: &Runtime, local: &str, ca: &str, limit: Duration) -> Result<(), Failure> {
    let began = Instant::now();
    let credentials = Credentials { ca: Some(ca.to_owned()), ..Credentials::default() };
    loop {
        let answer = runtime.block_on(client::call(local, &credentials, "GET", "/livez", None));
        let last = match answer {
            Ok(answer) if answer.status == 200 => break,
            Ok(answer) => format!("status {}", answer.status),
            Err(error) => error.to_string(),
        };
        if began.elapsed() >= limit {
            return Err(Failure::new(format!(
                "failed while waiting for the control plane to start: kube-apiserver check failed at \
                 https://{local}/livez: {last}"
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("[control-plane-check] kube-apiserver is healthy after {}ms", began.elapsed().as_millis());
    Ok(())
}

fn upload_config(input: &InitInput, api: &Api) -> Result<(), Failure> {
    println!(
        "[upload-config] Storing the configuration used in ConfigMap \"kubeadm-config\" in the \"kube-system\" Namespace"
    );
    let yaml = |value: &Value| files::yaml(value).map_err(Failure::from);
    let mut cluster = serde_json::to_value(&input.cluster).map_err(|e| Failure::new(e.to_string()))?;
    cluster["apiVersion"] = json!("kubeadm.k8s.io/v1beta4");
    cluster["kind"] = json!("ClusterConfiguration");
    let map = |name: &str, key: &str, text: String| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "kube-system"}, "data": {key: text}});
    api.put(CONFIG_MAPS, &map("kubeadm-config", "ClusterConfiguration", yaml(&cluster)?))?;
    api.put(CONFIG_MAPS, &map("kubelet-config", "kubelet", yaml(&kubelet::configuration(&input.kubelet))?))
}

fn mark_control_plane(run: &Run, input: &InitInput, api: &Api) -> Result<(), Failure> {
    let node = &input.init.node_registration;
    println!("[mark-control-plane] Marking the node {} as control-plane", node.name);
    let credentials = Kubeconfig::read(&run.path("/etc/kubernetes/kubelet.conf"))?;
    api.runtime.block_on(kubelet::register(run, node, &credentials, &input.cluster.kubernetes_version, false))?;
    let taints: Vec<Value> = node.taints.iter().flatten().map(taint).collect();
    let path = format!("/api/v1/nodes/{}", node.name);
    let answer = api.call("PATCH", &path, Some(("application/merge-patch+json", &marks(&taints))))?;
    if answer.status == 200 { Ok(()) } else { Err(Failure::new(answer.message())) }
}

/// The patch that makes a Node a control plane's.
pub(super) fn marks(taints: &[Value]) -> Value {
    json!({
        "metadata": {"labels": {
            "node-role.kubernetes.io/control-plane": "",
            "node.kubernetes.io/exclude-from-external-load-balancers": "",
        }},
        "spec": {"taints": if taints.is_empty() { Value::Null } else { json!(taints) }},
    })
}

/// A taint as JSON.
pub(super) fn taint(taint: &Taint) -> Value {
    let mut json = json!({"key": taint.key, "effect": taint.effect});
    if !taint.value.is_empty() {
        json["value"] = json!(taint.value);
    }
    json
}

fn bootstrap_token(input: &InitInput, api: &Api) -> Result<(), Failure> {
    println!("[bootstrap-token] Using token(s) and creating the cluster-info ConfigMap");
    for token in input.init.bootstrap_tokens.iter().flatten() {
        api.put(SECRETS, &token::secret(token)?)?;
    }
    println!("[bootstrap-token] Creating the \"cluster-info\" ConfigMap in the \"kube-public\" namespace");
    let info = Kubeconfig {
        server: format!("https://{}", endpoint(input)),
        ca: api.admin.ca.clone(),
        cluster: String::new(),
        name: String::new(),
        user: User::Nobody,
    };
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": info.to_yaml()?},
    });
    api.put("/api/v1/namespaces/kube-public/configmaps", &object)
}

/// The kubelet's kubeconfig is made to point to the file that the kubelet rotates.
fn kubelet_finalize(run: &Run) -> Result<(), Failure> {
    println!(
        "[kubelet-finalize] Updating \"/etc/kubernetes/kubelet.conf\" to point to a rotatable kubelet client certificate and key"
    );
    let path = run.path("/etc/kubernetes/kubelet.conf");
    let mut config = Kubeconfig::read(&path)?;
    if let User::Embedded(pair) = &config.user {
        config.user = User::File(kubelet::write_client_certificate(run, pair)?);
        config.write(&path)?;
    }
    Ok(())
}

fn addons(input: &InitInput, api: &Api) -> Result<(), Failure> {
    let repository = &input.cluster.image_repository;
    let workload = |kind: &str, name: &str, image: String| {
        json!({
            "apiVersion": "apps/v1", "kind": kind,
            "metadata": {"name": name, "namespace": "kube-system", "labels": {"k8s-app": name}},
            "spec": {"selector": {"matchLabels": {"k8s-app": name}}, "template": {
                "metadata": {"labels": {"k8s-app": name}},
                "spec": {"containers": [{"name": name, "image": image}]},
            }},
        })
    };
    if !input.cluster.dns.disabled {
        println!("[addons] Applied essential addon: CoreDNS");
        let object = workload("Deployment", "coredns", format!("{repository}/coredns/coredns:v1.13.1"));
        api.put("/apis/apps/v1/namespaces/kube-system/deployments", &object)?;
    }
    if !input.cluster.proxy.disabled {
        println!("[addons] Applied essential addon: kube-proxy");
        let object = workload(
            "DaemonSet",
            "kube-proxy",
            format!("{repository}/kube-proxy:{}", input.cluster.kubernetes_version),
        );
        api.put("/apis/apps/v1/namespaces/kube-system/daemonsets", &object)?;
        let yaml = files::yaml(&input.kube_proxy).map_err(Failure::from)?;
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-proxy", "namespace": "kube-system"}, "data": {"config.conf": yaml}});
        api.put(CONFIG_MAPS, &map)?;
    }
    Ok(())
}
