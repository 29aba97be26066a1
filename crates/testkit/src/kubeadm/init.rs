//! `kubeadm init`: the phases in the order of `cmd/init.go`, and the files each of them leaves behind.

use super::config::{InitInput, load_init};
use super::flags::Flags;
use super::kubeconfig::{Kubeconfig, User};
use super::{Failure, Run, certs, init_api, kubelet, manifests, preflight};
use crate::files;
use crate::pki::{self, Leaf, Usage};
use std::path::PathBuf;

/// `kubeadm init --config F [--skip-token-print]`.
///
/// # Errors
/// Whatever the real one fails with, and what the script asks for.
pub fn main(run: &Run, flags: &Flags) -> Result<(), Failure> {
    let input = load_init(&run.config_path(flags)?, &run.script.kubeadm_version)?;
    certs::refuse_incomplete(run, &input)?;
    println!("[init] Using Kubernetes version: {}", input.cluster.kubernetes_version);
    run.phase("preflight", || {
        println!("[preflight] Running pre-flight checks");
        preflight::init(run, &input)
    })?;
    run.phase("certs", || certs::make(run, &input))?;
    run.phase("kubeconfig", || {
        println!("[kubeconfig] Using kubeconfig folder \"/etc/kubernetes\"");
        kubeconfigs(run, &input, &["admin", "super-admin", "kubelet", "controller-manager", "scheduler"])
    })?;
    run.phase("etcd", || etcd(run, &input))?;
    run.phase("control-plane", || manifests::control_plane(run, &input))?;
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
pub(super) fn pki_folder(run: &Run, input: &InitInput) -> PathBuf {
    run.path(&input.cluster.certificates_dir)
}

/// Where etcd's data are, below the root.
pub(super) fn etcd_folder(run: &Run, input: &InitInput) -> PathBuf {
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

/// Writes these kubeconfigs, unless they are there with the right CA.
///
/// # Errors
/// When one is there with another CA.
pub(super) fn kubeconfigs(run: &Run, input: &InitInput, files: &[&str]) -> Result<(), Failure> {
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
    let life = certs::leaf_life(input);
    for (file, name, groups, server) in wanted {
        if !files.contains(&file.trim_end_matches(".conf")) {
            continue;
        }
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

fn etcd(run: &Run, input: &InitInput) -> Result<(), Failure> {
    if input.cluster.etcd.external.is_some() {
        println!("[etcd] External etcd mode. Skipping the creation of a manifest for local etcd");
        return Ok(());
    }
    println!("[etcd] Creating static Pod manifest for local etcd in \"/etc/kubernetes/manifests\"");
    manifests::etcd(run, input, &[])
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
