//! What the kubelet does during init and join: its files, its flags, its certificate, its Node object. Also the
//! `kubelet` stand-in, which answers `--version`.

use super::documents::{Arg, NodeRegistrationOptions};
use super::init_api::taint;
use super::{Failure, Kubeconfig, Run, validation};
use crate::client::{self, Credentials};
use crate::files;
use crate::pki::{self, Pair};
use crate::script::Script;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Flags of the kubelet 1.36 that a kubeadm document may pass. A kubelet does not start with an unknown flag.
const FLAGS: &[&str] = &[
    "address",
    "allowed-unsafe-sysctls",
    "bootstrap-kubeconfig",
    "cert-dir",
    "cgroup-driver",
    "cloud-provider",
    "cluster-dns",
    "cluster-domain",
    "config",
    "config-dir",
    "container-runtime-endpoint",
    "eviction-hard",
    "eviction-soft",
    "fail-swap-on",
    "feature-gates",
    "hostname-override",
    "image-credential-provider-bin-dir",
    "image-credential-provider-config",
    "image-service-endpoint",
    "kube-reserved",
    "kubeconfig",
    "log-file",
    "max-pods",
    "node-ip",
    "node-labels",
    "node-status-max-images",
    "pod-manifest-path",
    "provider-id",
    "read-only-port",
    "register-node",
    "register-with-taints",
    "resolv-conf",
    "root-dir",
    "rotate-certificates",
    "rotate-server-certificates",
    "runtime-cgroups",
    "system-reserved",
    "tls-cert-file",
    "tls-private-key-file",
    "v",
    "vmodule",
    "volume-plugin-dir",
];
/// Labels of kubernetes.io that a kubelet may set on itself (`pkg/apis/core/... kubeletapis.IsKubeletLabel`).
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// What a kubelet is told on a machine with systemd; it is looked at before it serves.
const CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// How often it looks for a manifest that came or went.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// `kubelet --version`; with `--config`, as its unit starts it, it runs the API server's manifest as the real one does.
/// Other arguments are refused. The exit code.
pub fn main(arguments: &[String]) -> u8 {
    let mut root = Path::new("/");
    let mut rest = arguments.iter();
    let (mut version, mut serves) = (false, false);
    while let Some(argument) = rest.next() {
        match (argument.as_str(), argument.strip_prefix("--rootfs=")) {
            ("--version", _) | ("--version=true", _) => version = true,
            ("--rootfs", _) => root = rest.next().map_or(root, Path::new),
            (_, Some(path)) => root = Path::new(path),
            (flag, None) if flag == format!("--config={CONFIG}") => serves = true,
            (flag, None) if is_flag(flag) => {}
            (other, None) => {
                eprintln!("Error: failed to parse kubelet flag: unknown flag: {other}");
                return 1;
            }
        }
    }
    let ended = match Script::load(root) {
        Ok(script) if version => {
            println!("Kubernetes {}", script.kubelet_version);
            return 0;
        }
        Ok(_) if serves => serve(root),
        Ok(_) => Err("the kubelet stand-in answers --version, and runs with --config".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    ended.err().map_or(0, |why| {
        eprintln!("{why}");
        1
    })
}

fn is_flag(argument: &str) -> bool {
    let name = argument.strip_prefix("--").and_then(|flag| flag.split_once('=')).map(|(name, _)| name);
    name.is_some_and(|name| FLAGS.contains(&name) || ["bootstrap-kubeconfig", "kubeconfig", "config"].contains(&name))
}

/// Runs what the manifests ask for: the API server alone, which is a program and not a container here.
fn serve(root: &Path) -> Result<(), String> {
    if !files::under(root, CONFIG).exists() {
        return Err(format!("failed to load kubelet config file, path: {CONFIG}: no such file or directory"));
    }
    let manifest = files::under(root, "/etc/kubernetes/manifests/kube-apiserver.yaml");
    let mut server: Option<Child> = None;
    loop {
        let ended = server.as_mut().is_none_or(|server| matches!(server.try_wait(), Ok(Some(_)) | Err(_)));
        // An API server that finds no etcd ends again and again: a joining machine's member comes late.
        let is_whole = manifest.exists() && files::under(root, crate::etcd::MANIFEST).exists();
        match (is_whole, &mut server) {
            (true, _) if ended => {
                let mut command = Command::new("kubeadm");
                command.args(["standin-apiserver", "--rootfs"]).arg(root);
                server = Some(command.spawn().map_err(|error| format!("failed to start the API server: {error}"))?);
            }
            (false, Some(running)) => {
                // It fails only when it has ended.
                let _ = running.kill();
                let _ = running.wait();
                server = None;
            }
            _ => {}
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether systemd runs a kubelet for this root, as it does on a machine.
pub fn is_a_service(root: &Path) -> bool {
    root == Path::new("/") && Path::new("/run/systemd/system").is_dir()
}

/// `systemctl start kubelet`, or another verb.
///
/// # Errors
/// When systemd refuses.
pub fn service(verb: &str) -> std::io::Result<()> {
    let status = Command::new("systemctl").args([verb, "kubelet.service"]).status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("systemctl {verb} kubelet: {status}"))) }
}

/// The configuration with what kubeadm sets in it (`componentconfigs/kubelet.go`).
pub fn configuration(given: &Value) -> Value {
    let mut config = given.as_object().cloned().unwrap_or_default();
    let mut default = |name: &str, value: Value| {
        config.entry(name).or_insert(value);
    };
    default("apiVersion", json!("kubelet.config.k8s.io/v1beta1"));
    default("kind", json!("KubeletConfiguration"));
    default("staticPodPath", json!("/etc/kubernetes/manifests"));
    default("clusterDNS", json!(["10.96.0.10"]));
    default("clusterDomain", json!("cluster.local"));
    default("cgroupDriver", json!("systemd"));
    default("rotateCertificates", json!(true));
    default("healthzBindAddress", json!("127.0.0.1"));
    default("healthzPort", json!(10248));
    default("authentication", json!({"x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"}}));
    Value::Object(config)
}

/// Writes `config.yaml` and `kubeadm-flags.env`; with `taints`, those go on the command line (workers).
///
/// # Errors
/// When a file can not be written.
pub fn write_files(run: &Run, node: &NodeRegistrationOptions, config: &Value, taints: bool) -> Result<(), Failure> {
    let mut args = vec![Arg { name: "container-runtime-endpoint".into(), value: node.cri_socket.clone() }];
    if let (true, Some(list)) = (taints, node.taints.as_ref().filter(|list| !list.is_empty())) {
        let texts: Vec<String> = list.iter().map(|t| format!("{}={}:{}", t.key, t.value, t.effect)).collect();
        args.push(Arg { name: "register-with-taints".into(), value: texts.join(",") });
    }
    let hostname = nix::unistd::gethostname().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    if node.name != hostname {
        args.push(Arg { name: "hostname-override".into(), value: node.name.clone() });
    }
    args.retain(|arg| node.kubelet_arg(&arg.name).is_none());
    args.extend(node.kubelet_extra_args.iter().flatten().cloned());
    args.sort_by(|a, b| a.name.cmp(&b.name));
    let line: Vec<String> = args.iter().map(|arg| format!("--{}={}", arg.name, arg.value)).collect();
    println!(
        "[kubelet-start] Writing kubelet environment file with flags to file \"/var/lib/kubelet/kubeadm-flags.env\""
    );
    let env = format!("KUBELET_KUBEADM_ARGS={:?}\n", line.join(" "));
    files::make_folder(&run.path("/var/lib/kubelet"), 0o700)?;
    files::write(&run.path("/var/lib/kubelet/kubeadm-flags.env"), env.as_bytes(), 0o644)?;
    println!("[kubelet-start] Writing kubelet configuration to file \"/var/lib/kubelet/config.yaml\"");
    let yaml = files::yaml(&configuration(config)).map_err(Failure::from)?;
    Ok(files::write(&run.path("/var/lib/kubelet/config.yaml"), yaml.as_bytes(), 0o644)?)
}

/// Whether the kubelet would start with these flags and labels.
///
/// # Errors
/// The kubelet's own words.
pub fn check_flags(node: &NodeRegistrationOptions) -> Result<(), String> {
    for arg in node.kubelet_extra_args.iter().flatten() {
        if !FLAGS.contains(&arg.name.as_str()) {
            return Err(format!("kubelet: failed to parse kubelet flag: unknown flag: --{}", arg.name));
        }
    }
    let foreign: Vec<String> = labels(node).keys().filter(|label| !may_set(label)).cloned().collect();
    if foreign.is_empty() {
        return Ok(());
    }
    Err(format!("kubelet: unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: {foreign:?}"))
}

fn may_set(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return true };
    let within = |suffix: &str| domain == suffix || domain.ends_with(&format!(".{suffix}"));
    let reserved = within("kubernetes.io") || within("k8s.io");
    !reserved || OWN_LABELS.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}

fn labels(node: &NodeRegistrationOptions) -> Map<String, Value> {
    let text = node.kubelet_arg("node-labels").unwrap_or_default();
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (k.to_owned(), json!(v))).collect()
}

/// Writes `kubelet-client-current.pem` (0600), where a kubelet keeps what it rotates; its path as the node sees it, for
/// kubeadm changes its root and knows no other.
///
/// # Errors
/// When it can not be written.
pub fn write_client_certificate(run: &Run, pair: &Pair) -> Result<String, Failure> {
    let path = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    files::make_folder(&run.path("/var/lib/kubelet/pki"), 0o700)?;
    files::write(&run.path(path), format!("{}{}", pair.certificate, pair.key).as_bytes(), 0o600)?;
    Ok(path.to_owned())
}

/// TLS bootstrap: a signing request with the token's rights, and the certificate that comes back.
///
/// # Errors
/// When the API server refuses, or no certificate comes within `timeout`.
pub async fn bootstrap(endpoint: &str, token: &Credentials, node: &str, timeout: Duration) -> Result<Pair, Failure> {
    let name = format!("system:node:{node}");
    let (key, request) = pki::make_request(&name, &["system:nodes".to_owned()])?;
    let csr = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": format!("node-csr-{}", files::hex(&files::random_bytes::<16>()?))},
        "spec": {
            "request": STANDARD.encode(request), "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        },
    });
    let json = Some(("application/json", csr.to_string().into_bytes()));
    let created = client::patiently(endpoint, token, "POST", CSRS, json, timeout).await?;
    if created.status != 201 {
        return Err(Failure::new(format!("cannot create certificate signing request: {}", created.message())));
    }
    let path = format!("{CSRS}/{}", csr["metadata"]["name"].as_str().unwrap_or_default());
    let began = Instant::now();
    loop {
        let answer = client::patiently(endpoint, token, "GET", &path, None, timeout).await?;
        if let Some(certificate) = answer.body["status"]["certificate"].as_str() {
            let pem = STANDARD.decode(certificate).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let certificate = pem.ok_or_else(|| Failure::new("the API server sent no PEM certificate"))?;
            return Ok(Pair { certificate, key });
        }
        if began.elapsed() > timeout {
            return Err(Failure::new("context deadline exceeded"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Registers the Node, as a kubelet does when it starts: an existing one keeps its own labels and taints.
///
/// # Errors
/// When the flags are not a kubelet's, or the API server refuses.
pub async fn register(
    run: &Run,
    node: &NodeRegistrationOptions,
    config: &Kubeconfig,
    version: &str,
    taints: bool,
) -> Result<(), Failure> {
    check_flags(node).map_err(Failure::new)?;
    let object = node_object(run, node, taints);
    let (endpoint, credentials) = (config.endpoint(), config.credentials(&run.root)?);
    let body = Some(("application/json", object.to_string().into_bytes()));
    let answer = client::call(endpoint, &credentials, "POST", "/api/v1/nodes", body).await?;
    match answer.status {
        201 => Ok(()),
        409 => {
            let patch = json!({"metadata": {"labels": object["metadata"]["labels"], "annotations": object["metadata"]["annotations"]}, "status": object["status"]});
            let path = format!("/api/v1/nodes/{}", node.name);
            let body = Some(("application/merge-patch+json", patch.to_string().into_bytes()));
            let answer = client::call(endpoint, &credentials, "PATCH", &path, body).await?;
            if answer.status == 200 { Ok(()) } else { Err(Failure::new(answer.message())) }
        }
        _ => Err(Failure::new(format!("Unable to register node with API server {version}: {}", answer.message()))),
    }
}

fn node_object(run: &Run, node: &NodeRegistrationOptions, taints: bool) -> Value {
    let mut all = labels(node);
    for (name, value) in
        [("kubernetes.io/hostname", node.name.as_str()), ("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")]
    {
        all.insert(name.to_owned(), json!(value));
    }
    let mut spec = Map::new();
    if let Some(id) = node.kubelet_arg("provider-id") {
        spec.insert("providerID".to_owned(), json!(id));
    }
    let mut list: Vec<Value> = node.taints.iter().flatten().filter(|_| taints).map(taint).collect();
    if node.kubelet_arg("cloud-provider") == Some("external") {
        list.push(
            json!({"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"}),
        );
    }
    if !list.is_empty() {
        spec.insert("taints".to_owned(), json!(list));
    }
    let address = node.kubelet_arg("node-ip").unwrap_or("127.0.0.1");
    let root = run.root.canonicalize().unwrap_or_else(|_| run.root.clone());
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node.name, "labels": all, "annotations": {
            "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            // The API stand-in looks there whether the kubelet still has its configuration.
            "standin.kubestrap.dev/rootfs": root.to_string_lossy(),
        }},
        "spec": spec,
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": node.name}],
            "nodeInfo": {"kubeletVersion": run.script.kubelet_version, "operatingSystem": "linux", "architecture": "amd64"},
            "conditions": [{
                "type": "Ready", "status": "False", "reason": "KubeletNotReady",
                "message": "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized",
            }],
        },
    })
}

/// Whether a kubelet of version `kubelet` may talk to a control plane of version `server`: not newer, and at most
/// three minors older.
pub fn skew_allowed(kubelet: &str, server: &str) -> bool {
    match (validation::minor(kubelet), validation::minor(server)) {
        (Some(kubelet), Some(server)) => kubelet.0 == server.0 && kubelet.1 <= server.1 && server.1 - kubelet.1 <= 3,
        _ => false,
    }
}
