//! The certificates of a control plane: authorities that are there are used, leaves are made and signed by them
//! (`phases/certs/certs.go`, `certlist.go`, `cmd/phases/init/certs.go`).

use super::config::InitInput;
use super::init::{endpoint, pki_folder};
use super::{Failure, Run};
use crate::pki::{self, CA_LIFE, LEAF_LIFE, Leaf, Pair, Usage};
use crate::{files, golang, tls};
use std::path::Path;
use std::time::Duration;

/// File, name in texts, common name, and the leaves that need it.
const AUTHORITIES: [(&str, &str, &str, &str, &[&str]); 3] = [
    ("ca", "CA", "kubernetes", "external CA", &["apiserver", "apiserver-kubelet-client"]),
    ("front-proxy-ca", "front-proxy CA", "front-proxy-ca", "external front-proxy CA", &["front-proxy-client"]),
    (
        "etcd/ca",
        "etcd CA",
        "etcd-ca",
        "external etcd CA",
        &["etcd/server", "etcd/peer", "etcd/healthcheck-client", "apiserver-etcd-client"],
    ),
];

fn missing(what: &str, path: &str) -> String {
    format!("couldn't load the {what} {path}: open {path}: no such file or directory")
}

fn shown(base: &str, ending: &str) -> String {
    format!("/etc/kubernetes/pki/{base}.{ending}")
}

/// What `kubeadm init` says of an authority without its key before it does anything: its leaves have to be there.
///
/// # Errors
/// When they are not.
pub fn refuse_incomplete(run: &Run, input: &InitInput) -> Result<(), Failure> {
    let folder = pki_folder(run, input);
    // etcd's is not looked at: its phase fails instead.
    for (base, _, _, name, leaves) in &AUTHORITIES[..2] {
        if !folder.join(format!("{base}.crt")).exists() || folder.join(format!("{base}.key")).exists() {
            continue;
        }
        for leaf in *leaves {
            if !folder.join(format!("{leaf}.key")).exists() {
                let why = missing("private key file", &shown(leaf, "key"));
                return Err(Failure::new(format!(
                    "invalid or incomplete {name}: failure loading key for {leaf}: {why}"
                )));
            }
        }
    }
    Ok(())
}

/// Whether what control planes share is there (`SharedCertificateExists`). A key that is missing is only warned of.
///
/// # Errors
/// What is not, in kubeadm's words.
pub fn shared_exist(run: &Run, input: &InitInput) -> Result<(), String> {
    let folder = pki_folder(run, input);
    let mut found = Vec::new();
    for (base, name, ..) in AUTHORITIES {
        match files::read_text(&folder.join(format!("{base}.crt"))) {
            Err(_) => {
                let why = missing("certificate file", &shown(base, "crt"));
                found.push(format!("failure loading certificate for {name}: {why}"));
            }
            Ok(text) => match pki::is_authority(&text) {
                Ok(true) => {}
                Ok(false) => found.push(format!("certificate {name} is not a CA")),
                Err(why) => found.push(format!(
                    "failure loading certificate for {name}: couldn't load the certificate file {}: {why}",
                    shown(base, "crt")
                )),
            },
        }
        if !folder.join(format!("{base}.key")).exists() {
            eprintln!("W assuming external key for {name}: {}", missing("private key file", &shown(base, "key")));
        }
        if base == "ca" {
            let halves = [("key", "private key file"), ("pub", "public key file")];
            if let Some((ending, what)) = halves.into_iter().find(|(end, _)| !folder.join(format!("sa.{end}")).exists())
            {
                let why = missing(what, &shown("sa", ending));
                found.push(format!("failure loading key for service account: {why}"));
            }
        }
    }
    match found.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

fn life(text: Option<&String>, default: Duration) -> Duration {
    text.and_then(|text| golang::parse_duration(text).ok()).unwrap_or(default)
}

/// An existing CA is used, as the real one does: a second init never makes another one. `None` for one without a key.
fn authority(run: &Run, folder: &Path, base: &str, name: &str, life: Duration) -> Result<Option<Pair>, Failure> {
    let at = |ending: &str| folder.join(format!("{base}.{ending}"));
    if at("crt").exists() {
        let certificate = files::read_text(&at("crt"))?;
        let is_ca = pki::is_authority(&certificate)
            .map_err(|e| Failure::new(format!("failure loading {base} certificate: {e}")))?;
        if !is_ca {
            return Err(Failure::new(format!("certificate {name:?} is not a CA")));
        }
        if !at("key").exists() {
            println!("[certs] Using existing {base} keyless certificate authority");
            return Ok(None);
        }
        println!("[certs] Using existing {base} certificate authority");
        return Ok(Some(Pair { certificate, key: files::read_text(&at("key"))? }));
    }
    println!("[certs] Generating \"{base}\" certificate and key");
    let pair = pki::make_ca(name, life)?;
    run.enter(&format!("certs/{base}"))?;
    pki::write_pair(&folder.join(base), &pair)?;
    run.leave(&format!("certs/{base}"))?;
    Ok(Some(pair))
}

fn leaf(folder: &Path, base: &str, ca: (&str, Option<&Pair>), leaf: &Leaf<'_>) -> Result<(), Failure> {
    let (ca_name, ca) = ca;
    let at = |ending: &str| folder.join(format!("{base}.{ending}"));
    let Some(ca) = ca else {
        if at("crt").exists() && at("key").exists() {
            return Ok(());
        }
        let why = missing("private key file", &shown(base, "key"));
        return Err(Failure::new(format!(
            "error creating PKI assets: could not load expected certificate {base:?} or validate the existence of key \
             {ca_name:?} for it: failure loading key for {base}: {why}"
        )));
    };
    if at("crt").exists() {
        if !tls::is_signed_by(&files::read_text(&at("crt"))?, &ca.certificate)? {
            return Err(Failure::new(format!(
                "error creating PKI assets: failed to write or validate certificate {base:?}: certificate {base} is \
                 not signed by corresponding CA"
            )));
        }
        println!("[certs] Using existing {base} certificate and key on disk");
        return Ok(());
    }
    if !pki::belong_together(ca)? {
        return Err(Failure::new(
            "error creating PKI assets: unable to sign certificate: x509: provided PrivateKey doesn't match parent's \
             PublicKey",
        ));
    }
    println!("[certs] Generating \"{base}\" certificate and key");
    Ok(pki::write_pair(&folder.join(base), &pki::make_leaf(ca, leaf)?)?)
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

/// Makes what is missing, and keeps what is there.
///
/// # Errors
/// When something that is there is not what it should be.
pub fn make(run: &Run, input: &InitInput) -> Result<(), Failure> {
    let folder = pki_folder(run, input);
    println!("[certs] Using certificateDir folder {:?}", input.cluster.certificates_dir);
    let ca_life = life(input.cluster.ca_certificate_validity_period.as_ref(), CA_LIFE);
    let life = life(input.cluster.certificate_validity_period.as_ref(), LEAF_LIFE);
    let none: &[String] = &[];
    let masters = &["kubeadm:cluster-admins".to_owned()][..];
    let node = input.init.node_registration.name.as_str();
    let sans = apiserver_sans(input);
    let address = &input.init.local_api_endpoint.advertise_address;
    let etcd_sans = [node.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned(), address.clone()];
    for (base, _, name, _, leaves) in AUTHORITIES {
        if base == "etcd/ca" && input.cluster.etcd.external.is_some() {
            continue;
        }
        let ca = authority(run, &folder, base, name, ca_life)?;
        for file in leaves {
            let (user, groups, sans, usage) = match *file {
                "apiserver" => ("kube-apiserver", none, &sans[..], Usage::Server),
                "apiserver-kubelet-client" => ("kube-apiserver-kubelet-client", masters, none, Usage::Client),
                "etcd/server" | "etcd/peer" => (node, none, &etcd_sans[..], Usage::Both),
                "etcd/healthcheck-client" => ("kube-etcd-healthcheck-client", none, none, Usage::Client),
                "apiserver-etcd-client" => ("kube-apiserver-etcd-client", none, none, Usage::Client),
                other => (other, none, none, Usage::Client),
            };
            leaf(&folder, file, (name, ca.as_ref()), &Leaf { name: user, groups, sans, usage, life })?;
        }
    }
    service_account_key(&folder)
}

fn service_account_key(folder: &Path) -> Result<(), Failure> {
    if folder.join("sa.key").exists() {
        println!("[certs] Using the existing \"sa\" key");
        return Ok(());
    }
    println!("[certs] Generating \"sa\" key and public key");
    let (private, public) = pki::make_service_account_key()?;
    files::write(&folder.join("sa.key"), private.as_bytes(), 0o600)?;
    Ok(files::write(&folder.join("sa.pub"), public.as_bytes(), 0o600)?)
}

/// The life of the kubeconfigs' certificates.
pub fn leaf_life(input: &InitInput) -> Duration {
    life(input.cluster.certificate_validity_period.as_ref(), LEAF_LIFE)
}
