//! `kubeadm init`: the phases in the order of `cmd/init.go`, and the files each of them leaves behind.

use super::config::{InitInput, load_init};
use super::flags::Flags;
use super::kubeconfig::{Kubeconfig, User};
use super::{Failure, Run, init_api, kubelet, preflight};
use crate::pki::{self, CA_LIFE, LEAF_LIFE, Leaf, Pair, Usage};
use crate::{files, golang};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `kubeadm init --config F [--skip-token-print]`.
///
/// # Errors
/// Whatever the real one fails with, and what the script asks for.
pub fn main(run: &Run, flags: &Flags) -> Result<(), Failure> {
    let input = load_init(&run.config_path(flags)?, &run.script.kubeadm_version)?;
    println!("[init] Using Kubernetes version: {}", input.cluster.kubernetes_version);
    run.phase("preflight", || {
        println!("[preflight] Running pre-flight checks");
        preflight::init(run, &input)
    })?;
    run.phase("certs", || certificates(run, &input))?;
    run.phase("kubeconfig", || kubeconfigs(run, &input))?;
    run.phase("etcd", || etcd(run, &input))?;
    run.phase("control-plane", || control_plane(run, &input))?;
    run.phase("kubelet-start", || {
        kubelet::write_files(run, &input.init.node_registration, &input.kubelet, false)?;
        println!("[kubelet-start] Starting the kubelet");
        // The kubelet starts the static pods; etcd makes its data folder first.
        files::make_folder(&etcd_folder(run, &input).join("member"), 0o700)?;
        Ok(init_api::start_server(run)?)
    })?;
    init_api::main(run, &input)?;
    run.phase("show-join-command", || show_join_command(run, &input, flags.is_set("skip-token-print")))
}

/// Where the certificates are, below the root.
fn pki_folder(run: &Run, input: &InitInput) -> PathBuf {
    run.path(&input.cluster.certificates_dir)
}

fn etcd_folder(run: &Run, input: &InitInput) -> PathBuf {
    run.path(input.cluster.etcd.local.as_ref().map_or("/var/lib/etcd", |local| &local.data_dir))
}

/// `advertiseAddress:bindPort`, in brackets when it is IPv6.
pub(super) fn local_endpoint(input: &InitInput) -> String {
    let local = &input.init.local_api_endpoint;
    let address = &local.advertise_address;
    if address.contains(':') {
        format!("[{address}]:{}", local.bind_port)
    } else {
        format!("{address}:{}", local.bind_port)
    }
}

/// The control plane endpoint, with the bind port when it has none.
pub(super) fn endpoint(input: &InitInput) -> String {
    let given = &input.cluster.control_plane_endpoint;
    match given.as_str() {
        "" => local_endpoint(input),
        host if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => given.clone(),
        host => format!("{host}:{}", input.init.local_api_endpoint.bind_port),
    }
}

fn life(text: Option<&String>, default: Duration) -> Duration {
    text.and_then(|text| golang::parse_duration(text).ok()).unwrap_or(default)
}

/// An existing CA is used, as the real one does: a second init never makes another one.
fn ca(run: &Run, base: &Path, name: &str, shown: &str, life: Duration) -> Result<Pair, Failure> {
    if base.with_file_name(format!("{}.crt", base.file_name().unwrap_or_default().display())).exists() {
        println!("[certs] Using existing {shown} certificate authority");
        return pki::read_pair(base).map_err(|e| Failure::new(format!("failure loading {shown} certificate: {e}")));
    }
    println!("[certs] Generating \"{shown}\" certificate and key");
    let pair = pki::make_ca(name, life)?;
    run.enter(&format!("certs/{shown}"))?;
    pki::write_pair(base, &pair)?;
    run.leave(&format!("certs/{shown}"))?;
    Ok(pair)
}

fn leaf(base: &Path, shown: &str, ca: &Pair, leaf: &Leaf<'_>) -> Result<(), Failure> {
    if base.with_file_name(format!("{}.crt", base.file_name().unwrap_or_default().display())).exists() {
        println!("[certs] Using existing {shown} certificate and key on disk");
        return Ok(());
    }
    println!("[certs] Generating \"{shown}\" certificate and key");
    Ok(pki::write_pair(base, &pki::make_leaf(ca, leaf)?)?)
}

fn apiserver_sans(input: &InitInput) -> Vec<String> {
    let host = endpoint(input);
    let host = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host);
    let domain = &input.cluster.networking.dns_domain;
    let mut sans: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "10.96.0.1", "127.0.0.1"]
            .iter()
            .map(ToString::to_string)
            .collect();
    sans.push(format!("kubernetes.default.svc.{domain}"));
    sans.push(input.init.node_registration.name.clone());
    sans.push(input.init.local_api_endpoint.advertise_address.clone());
    sans.push(host.trim_start_matches('[').trim_end_matches(']').to_owned());
    sans.extend(input.cluster.api_server.cert_sans.iter().flatten().cloned());
    sans.sort();
    sans.dedup();
    sans
}

fn certificates(run: &Run, input: &InitInput) -> Result<(), Failure> {
    let folder = pki_folder(run, input);
    println!("[certs] Using certificateDir folder {:?}", input.cluster.certificates_dir);
    let ca_life = life(input.cluster.ca_certificate_validity_period.as_ref(), CA_LIFE);
    let life = life(input.cluster.certificate_validity_period.as_ref(), LEAF_LIFE);
    let none: &[String] = &[];
    let masters = &["kubeadm:cluster-admins".to_owned()][..];
    let node = &input.init.node_registration.name;
    let sans = apiserver_sans(input);
    let etcd_sans = [
        node.clone(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        input.init.local_api_endpoint.advertise_address.clone(),
    ];

    let root = ca(run, &folder.join("ca"), "kubernetes", "ca", ca_life)?;
    let make = |name: &str, signer: &Pair, user: &str, groups: &[String], sans: &[String], usage: Usage| {
        leaf(&folder.join(name), name, signer, &Leaf { name: user, groups, sans, usage, life })
    };
    make("apiserver", &root, "kube-apiserver", none, &sans, Usage::Server)?;
    make("apiserver-kubelet-client", &root, "kube-apiserver-kubelet-client", masters, none, Usage::Client)?;
    let front = ca(run, &folder.join("front-proxy-ca"), "front-proxy-ca", "front-proxy-ca", ca_life)?;
    make("front-proxy-client", &front, "front-proxy-client", none, none, Usage::Client)?;
    if input.cluster.etcd.external.is_none() {
        let etcd = ca(run, &folder.join("etcd/ca"), "etcd-ca", "etcd/ca", ca_life)?;
        make("etcd/server", &etcd, node, none, &etcd_sans, Usage::Both)?;
        make("etcd/peer", &etcd, node, none, &etcd_sans, Usage::Both)?;
        make("etcd/healthcheck-client", &etcd, "kube-etcd-healthcheck-client", none, none, Usage::Client)?;
        make("apiserver-etcd-client", &etcd, "kube-apiserver-etcd-client", none, none, Usage::Client)?;
    }
    if folder.join("sa.key").exists() {
        println!("[certs] Using the existing \"sa\" key");
    } else {
        println!("[certs] Generating \"sa\" key and public key");
        let (private, public) = pki::make_service_account_key()?;
        files::write(&folder.join("sa.key"), private.as_bytes(), 0o600)?;
        files::write(&folder.join("sa.pub"), public.as_bytes(), 0o600)?;
    }
    Ok(())
}

fn kubeconfigs(run: &Run, input: &InitInput) -> Result<(), Failure> {
    println!("[kubeconfig] Using kubeconfig folder \"/etc/kubernetes\"");
    let root = pki::read_pair(&pki_folder(run, input).join("ca"))?;
    let (outer, local) = (format!("https://{}", endpoint(input)), format!("https://{}", local_endpoint(input)));
    let node = format!("system:node:{}", input.init.node_registration.name);
    let group = |name: &str| vec![name.to_owned()];
    let wanted = [
        ("admin.conf", "kubernetes-admin", group("kubeadm:cluster-admins"), &outer),
        ("super-admin.conf", "kubernetes-super-admin", group("system:masters"), &outer),
        ("kubelet.conf", node.as_str(), group("system:nodes"), &local),
        ("controller-manager.conf", "system:kube-controller-manager", Vec::new(), &local),
        ("scheduler.conf", "system:kube-scheduler", Vec::new(), &local),
    ];
    let life = life(input.cluster.certificate_validity_period.as_ref(), LEAF_LIFE);
    for (file, name, groups, server) in wanted {
        let path = run.path("/etc/kubernetes").join(file);
        if path.exists() {
            let existing = Kubeconfig::read(&path)?;
            if existing.ca.trim() != root.certificate.trim() {
                let shown = format!("/etc/kubernetes/{file}");
                let why = "exists already but has got the wrong CA cert";
                return Err(Failure::new(format!("a kubeconfig file {shown:?} {why}")));
            }
            println!("[kubeconfig] Using existing kubeconfig file: \"/etc/kubernetes/{file}\"");
            continue;
        }
        println!("[kubeconfig] Writing {file:?} kubeconfig file");
        let pair = pki::make_leaf(&root, &Leaf { name, groups: &groups, sans: &[], usage: Usage::Client, life })?;
        let (server, cluster) = (server.clone(), input.cluster.cluster_name.clone());
        let ca = root.certificate.clone();
        Kubeconfig { server, ca, cluster, name: name.to_owned(), user: User::Embedded(pair) }.write(&path)?;
    }
    Ok(())
}

fn manifest(run: &Run, component: &str, image: &str) -> Result<(), Failure> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": component, "namespace": "kube-system", "labels": {"component": component, "tier": "control-plane"}},
        "spec": {"hostNetwork": true, "containers": [{"name": component, "image": image, "command": [component]}]},
    });
    let text = files::yaml(&pod).map_err(Failure::from)?;
    files::make_folder(&run.path("/etc/kubernetes/manifests"), 0o700)?;
    Ok(files::write(&run.path(&format!("/etc/kubernetes/manifests/{component}.yaml")), text.as_bytes(), 0o600)?)
}

fn etcd(run: &Run, input: &InitInput) -> Result<(), Failure> {
    if input.cluster.etcd.external.is_some() {
        println!("[etcd] External etcd mode. Skipping the creation of a manifest for local etcd");
        return Ok(());
    }
    println!("[etcd] Creating static Pod manifest for local etcd in \"/etc/kubernetes/manifests\"");
    files::make_folder(&etcd_folder(run, input), 0o700)?;
    manifest(run, "etcd", &format!("{}/etcd:3.6.6-0", input.cluster.image_repository))
}

fn control_plane(run: &Run, input: &InitInput) -> Result<(), Failure> {
    println!("[control-plane] Using manifest folder \"/etc/kubernetes/manifests\"");
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        println!("[control-plane] Creating static Pod manifest for {component:?}");
        let image = format!("{}/{component}:{}", input.cluster.image_repository, input.cluster.kubernetes_version);
        manifest(run, component, &image)?;
    }
    Ok(())
}

fn show_join_command(run: &Run, input: &InitInput, hide: bool) -> Result<(), Failure> {
    let root = files::read_text(&pki_folder(run, input).join("ca.crt"))?;
    let pin = pki::pin(&root)?;
    println!("\nYour Kubernetes control-plane has initialized successfully!\n");
    println!("To start using your cluster, you need to run the following as a regular user:\n");
    println!("  mkdir -p $HOME/.kube\n  sudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config");
    println!("  sudo chown $(id -u):$(id -g) $HOME/.kube/config\n");
    println!("You should now deploy a pod network to the cluster.\n");
    println!("Then you can join any number of worker nodes by running the following on each as root:\n");
    for token in input.init.bootstrap_tokens.iter().flatten() {
        let shown = if hide { "<value withheld>" } else { &token.token };
        println!("kubeadm join {} --token {shown} \\\n\t--discovery-token-ca-cert-hash {pin} ", endpoint(input));
    }
    Ok(())
}
