//! `kubeadm certs renew all`: every leaf is made anew with the subject, the names and the life of the one before, signed
//! by the authority that is there (kubeadm `phases/certs/renewal`). Nothing is restarted, as with the real one.

use super::kubeconfig::{Kubeconfig, User};
use super::{Failure, Run};
use crate::pki::{self, Leaf, Pair, Usage};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use x509_cert::Certificate;
use x509_cert::der::{Decode, DecodePem, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Name, authority, usage and what kubeadm calls it; sorted by name, as the real one goes through them.
const LEAVES: &[(&str, &str, Usage, &str)] = &[
    (
        "admin.conf",
        "ca",
        Usage::Client,
        "certificate embedded in the kubeconfig file for the admin to use and for kubeadm itself",
    ),
    ("apiserver", "ca", Usage::Server, "certificate for serving the Kubernetes API"),
    ("apiserver-etcd-client", "etcd/ca", Usage::Client, "certificate the apiserver uses to access etcd"),
    ("apiserver-kubelet-client", "ca", Usage::Client, "certificate for the API server to connect to kubelet"),
    (
        "controller-manager.conf",
        "ca",
        Usage::Client,
        "certificate embedded in the kubeconfig file for the controller manager to use",
    ),
    ("etcd/healthcheck-client", "etcd/ca", Usage::Client, "certificate for liveness probes to healthcheck etcd"),
    ("etcd/peer", "etcd/ca", Usage::Both, "certificate for etcd nodes to communicate with each other"),
    ("etcd/server", "etcd/ca", Usage::Both, "certificate for serving etcd"),
    ("front-proxy-client", "front-proxy-ca", Usage::Client, "certificate for the front proxy client"),
    (
        "scheduler.conf",
        "ca",
        Usage::Client,
        "certificate embedded in the kubeconfig file for the scheduler manager to use",
    ),
    ("super-admin.conf", "ca", Usage::Client, "certificate embedded in the kubeconfig file for the super-admin"),
];
/// Certificates begin this long before they are made.
const BACKDATE: Duration = Duration::from_secs(300);

/// Renews all of them.
///
/// # Errors
/// When a file is damaged, or cannot be written.
pub fn main(run: &Run) -> Result<(), Failure> {
    println!("[renew] Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"...\n");
    for (name, authority, usage, shown) in LEAVES {
        run.enter(&format!("renew/{name}"))?;
        one(run, name, authority, *usage, shown)?;
        run.leave(&format!("renew/{name}"))?;
    }
    println!(
        "\nDone renewing certificates. You must restart the kube-apiserver, kube-controller-manager, kube-scheduler and \
         etcd, so that they can use the new certificates."
    );
    Ok(())
}

fn one(run: &Run, name: &str, authority: &str, usage: Usage, shown: &str) -> Result<(), Failure> {
    let folder = run.path("/etc/kubernetes/pki");
    let file = match name.ends_with(".conf") {
        true => run.path("/etc/kubernetes").join(name),
        false => folder.join(format!("{name}.crt")),
    };
    if !file.exists() {
        println!("MISSING! {shown}");
        return Ok(());
    }
    if !folder.join(format!("{authority}.key")).exists() {
        println!("Detected external {authority}, {shown} can't be renewed");
        return Ok(());
    }
    let root = pki::read_pair(&folder.join(authority))?;
    let failed = |e: io::Error| Failure::new(format!("failed to renew certificate {name}: {e}"));
    if name.ends_with(".conf") {
        embedded(&file, &root, usage).map_err(failed)?;
    } else {
        let old = pki::read_pair(&folder.join(name))?;
        pki::write_pair(&folder.join(name), &again(&root, &old.certificate, usage).map_err(failed)?)?;
    }
    println!("{shown} renewed");
    Ok(())
}

fn embedded(file: &Path, root: &Pair, usage: Usage) -> io::Result<()> {
    let mut kubeconfig = Kubeconfig::read(file)?;
    if let User::Embedded(old) = &kubeconfig.user {
        kubeconfig.user = User::Embedded(again(root, &old.certificate, usage)?);
        kubeconfig.write(file)?;
    }
    Ok(())
}

/// The real one takes the life from the ConfigMap, which is where the old one's was from.
fn again(root: &Pair, old: &str, usage: Usage) -> io::Result<Pair> {
    let old = Certificate::from_pem(old).map_err(io::Error::other)?;
    let (name, groups) = pki::certificate_subject(&old.to_der().map_err(io::Error::other)?)?;
    let validity = old.tbs_certificate().validity();
    let whole = validity.not_after.to_unix_duration().saturating_sub(validity.not_before.to_unix_duration());
    let sans = names(&old)?;
    let leaf = Leaf { name: &name, groups: &groups, sans: &sans, usage, life: whole.saturating_sub(BACKDATE) };
    pki::make_leaf(root, &leaf)
}

fn names(certificate: &Certificate) -> io::Result<Vec<String>> {
    const SUBJECT_ALT_NAME: &str = "2.5.29.17";
    let extensions = certificate.tbs_certificate().extensions().map(Vec::as_slice).unwrap_or_default();
    let Some(found) = extensions.iter().find(|it| it.extn_id.to_string() == SUBJECT_ALT_NAME) else {
        return Ok(Vec::new());
    };
    let SubjectAltName(all) = SubjectAltName::from_der(found.extn_value.as_bytes()).map_err(io::Error::other)?;
    Ok(all
        .iter()
        .filter_map(|name| match name {
            GeneralName::DnsName(text) => Some(text.to_string()),
            GeneralName::IpAddress(bytes) => address(bytes.as_bytes()),
            _ => None,
        })
        .collect())
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|address| address.to_string())
}
