//! The static pods of a control plane, as far as anybody looks into them: names, labels, images, the annotations that
//! kubeadm reads back, and who the etcd member is (`phases/controlplane/manifests.go`, `phases/etcd/local.go`).

use super::config::InitInput;
use super::init::{etcd_folder, local_endpoint};
use super::{Failure, Run};
use crate::files;
use serde_json::{Value, json};

/// Where other machines read how a member is reached.
pub const ETCD_ANNOTATION: &str = "kubeadm.kubernetes.io/etcd.advertise-client-urls";
/// Where `kubeadm reset` reads which address this machine's API server has.
pub const API_ANNOTATION: &str = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint";

/// `https://address:port` of this machine, in brackets when it is IPv6.
pub fn etcd_url(input: &InitInput, port: u16) -> String {
    let address = &input.init.local_api_endpoint.advertise_address;
    if address.contains(':') { format!("https://[{address}]:{port}") } else { format!("https://{address}:{port}") }
}

fn write(run: &Run, component: &str, image: &str, command: Vec<String>, annotations: &Value) -> Result<(), Failure> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": component, "namespace": "kube-system", "annotations": annotations,
            "labels": {"component": component, "tier": "control-plane"},
        },
        "spec": {"hostNetwork": true, "containers": [{"name": component, "image": image, "command": command}]},
    });
    let text = files::yaml(&pod).map_err(Failure::from)?;
    files::make_folder(&run.path("/etc/kubernetes/manifests"), 0o700)?;
    Ok(files::write(&run.path(&format!("/etc/kubernetes/manifests/{component}.yaml")), text.as_bytes(), 0o600)?)
}

/// API server, controller manager and scheduler.
///
/// # Errors
/// When a file can not be written.
pub fn control_plane(run: &Run, input: &InitInput) -> Result<(), Failure> {
    println!("[control-plane] Using manifest folder \"/etc/kubernetes/manifests\"");
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        println!("[control-plane] Creating static Pod manifest for {component:?}");
        let image = format!("{}/{component}:{}", input.cluster.image_repository, input.cluster.kubernetes_version);
        let annotations = match component {
            "kube-apiserver" => json!({API_ANNOTATION: local_endpoint(input)}),
            _ => json!({}),
        };
        write(run, component, &image, vec![component.to_owned()], &annotations)?;
    }
    Ok(())
}

/// etcd; `others` are the members of the cluster it joins, itself included, as `name=peer URL`.
///
/// # Errors
/// When a file can not be written.
pub fn etcd(run: &Run, input: &InitInput, others: &[String]) -> Result<(), Failure> {
    files::make_folder(&etcd_folder(run, input), 0o700)?;
    let name = &input.init.node_registration.name;
    let (client, peer) = (etcd_url(input, 2379), etcd_url(input, 2380));
    let mut command = vec![
        "etcd".to_owned(),
        format!("--advertise-client-urls={client}"),
        "--client-cert-auth=true".to_owned(),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--listen-client-urls=https://127.0.0.1:2379,{client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--name={name}"),
    ];
    if others.is_empty() {
        command.push(format!("--initial-cluster={name}={peer}"));
    } else {
        command.push(format!("--initial-cluster={}", others.join(",")));
        command.push("--initial-cluster-state=existing".to_owned());
    }
    let image = format!("{}/etcd:3.6.6-0", input.cluster.image_repository);
    write(run, "etcd", &image, command, &json!({ETCD_ANNOTATION: client}))
}
