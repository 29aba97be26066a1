//! Preflight checks that do not need a container runtime (kubeadm `preflight/checks.go`).

use super::documents::{InitConfiguration, JoinConfiguration};
use super::{Failure, Run, config::InitInput, validation};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// A failed check: its name and why.
type Finding = (String, String);

/// What `kubeadm init` looks at.
///
/// # Errors
/// `preflight checks failed`, after the findings were printed.
pub fn init(run: &Run, input: &InitInput) -> Result<(), Failure> {
    let mut found = control_plane(run, input);
    let (wanted, kubelet) = (&input.cluster.kubernetes_version, &run.script.kubelet_version);
    if run.script.check_kubelet_version && validation::minor(kubelet) > validation::minor(wanted) {
        found.push((
            "KubeletVersion".to_owned(),
            format!(
                "the kubelet version is higher than the control plane version. This is not a supported version skew \
                 and may lead to a malfunctional cluster. Kubelet version: \"{}\" Control plane version: \"{}\"",
                kubelet.trim_start_matches('v'),
                wanted.trim_start_matches('v')
            ),
        ));
    }
    report(run, found, input.init.node_registration.ignore_preflight_errors.as_deref())
}

/// What `kubeadm join` looks at where a further control plane is to be, once it knows the cluster's configuration.
///
/// # Errors
/// `preflight checks failed`, after the findings were printed.
pub fn further_control_plane(run: &Run, input: &InitInput) -> Result<(), Failure> {
    report(run, control_plane(run, input), input.init.node_registration.ignore_preflight_errors.as_deref())
}

/// Ports, manifests and etcd's data.
fn control_plane(run: &Run, input: &InitInput) -> Vec<Finding> {
    let mut found = Vec::new();
    port(&input.init, input.init.local_api_endpoint.bind_port, &mut found);
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"] {
        absent(run, &format!("/etc/kubernetes/manifests/{component}.yaml"), &mut found);
    }
    if let Some(local) = &input.cluster.etcd.local {
        // Machines of tests share 127.0.0.1, where no member listens then.
        if input.init.local_api_endpoint.advertise_address != "127.0.0.1" {
            port(&input.init, 2379, &mut found);
        }
        let folder = run.path(&local.data_dir);
        if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            found.push((
                format!("DirAvailable-{}", dashes(&local.data_dir)),
                format!("{} is not empty", local.data_dir),
            ));
        }
    }
    found
}

/// What `kubeadm join` looks at before it knows the cluster.
///
/// # Errors
/// `preflight checks failed`, after the findings were printed.
pub fn join(run: &Run, join: &JoinConfiguration) -> Result<(), Failure> {
    let mut found = Vec::new();
    absent(run, "/etc/kubernetes/kubelet.conf", &mut found);
    absent(run, "/etc/kubernetes/bootstrap-kubelet.conf", &mut found);
    // On a control plane it has to be there.
    if join.control_plane.is_none() {
        absent(run, &join.ca_cert_path, &mut found);
    }
    report(run, found, join.node_registration.ignore_preflight_errors.as_deref())
}

fn port(init: &InitConfiguration, port: i32, found: &mut Vec<Finding>) {
    // The real check binds to every address; several machines share this one, so only our own address counts.
    let port = u16::try_from(port).unwrap_or_default();
    let address = init.local_api_endpoint.advertise_address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    for address in [address, IpAddr::V4(Ipv4Addr::LOCALHOST)] {
        let bound = TcpListener::bind(SocketAddr::from((address, port)));
        match bound.map_err(|error| error.kind()) {
            Err(std::io::ErrorKind::AddrInUse) => {
                found.push((format!("Port-{port}"), format!("Port {port} is in use")))
            }
            // Not of this machine: its loopback address stands for it.
            Err(std::io::ErrorKind::AddrNotAvailable) => continue,
            _ => {}
        }
        return;
    }
}

fn absent(run: &Run, path: &str, found: &mut Vec<Finding>) {
    if run.path(path).exists() {
        found.push((format!("FileAvailable-{}", dashes(path)), format!("{path} already exists")));
    }
}

fn dashes(path: &str) -> String {
    path.replace('/', "-")
}

fn report(run: &Run, found: Vec<Finding>, ignored: Option<&[String]>) -> Result<(), Failure> {
    let ignored: Vec<String> =
        run.ignore.iter().cloned().chain(ignored.into_iter().flatten().map(|name| name.to_lowercase())).collect();
    let is_ignored = |name: &str| ignored.iter().any(|i| i == "all" || *i == name.to_lowercase());
    let (warnings, errors): (Vec<Finding>, Vec<Finding>) = found.into_iter().partition(|(name, _)| is_ignored(name));
    for (name, why) in warnings {
        eprintln!("\t[WARNING {name}]: {why}");
    }
    if errors.is_empty() {
        return Ok(());
    }
    eprintln!("[preflight] Some fatal errors occurred:");
    for (name, why) in errors {
        eprintln!("\t[ERROR {name}]: {why}");
    }
    eprintln!(
        "[preflight] If you know what you are doing, you can make a check non-fatal with \
         `--ignore-preflight-errors=...`"
    );
    Err(Failure { message: "preflight checks failed".to_owned(), code: run.script.preflight_exit_code })
}
