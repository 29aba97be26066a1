//! What Kubernetes state a machine carries: the truth for what exists, beside the journal, which says what is ours.

use crate::journal::Attempt;
use crate::kube::{ADMIN_CONF, KUBELET_CONF};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::names::CaHash;
use crate::ports::{FileKind, Files};
use sha2::{Digest, Sha256};
use std::path::Path;
use x509_cert::Certificate;
use x509_cert::der::{DecodePem, Encode};

/// The cluster CA's certificate.
pub const CA_CERTIFICATE: &str = "/etc/kubernetes/pki/ca.crt";
/// The kubelet's first kubeconfig, with the bootstrap token in it.
pub const BOOTSTRAP_CONF: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
/// Static pod manifests.
pub const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// etcd's data; its presence means a member lived here.
pub const ETCD_MEMBER: &str = "/var/lib/etcd/member";
/// A certificate bundle is a few KiB.
const MAX_CERTIFICATE: u64 = 256 * 1024;

/// Files that only a kubeadm init or join leaves behind (kubeadm `reset` removes the same ones). Not
/// `/var/lib/kubelet/config.yaml`: images ship it.
const TRACES: &[&str] = &[
    ADMIN_CONF,
    "/etc/kubernetes/super-admin.conf",
    KUBELET_CONF,
    BOOTSTRAP_CONF,
    "/etc/kubernetes/controller-manager.conf",
    "/etc/kubernetes/scheduler.conf",
    CA_CERTIFICATE,
    ETCD_MEMBER,
];

/// Kubernetes state on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Every trace that is there.
    pub traces: Vec<String>,
    /// The pin of the CA certificate, when there is one.
    pub ca: Option<CaHash>,
    /// Whether the kubelet has credentials of its own.
    pub kubelet_conf: bool,
    /// Whether the administrator's kubeconfig is there: a control plane was made here.
    pub admin_conf: bool,
}

impl Machine {
    /// Reads it. An unreadable CA certificate is an error: without it nothing can be said of whose state this is.
    pub fn look(files: &dyn Files) -> Outcome<Machine> {
        let mut traces = Vec::new();
        for path in TRACES {
            if files.stat(Path::new(path))?.is_some() {
                traces.push((*path).to_owned());
            }
        }
        for name in files.list(Path::new(MANIFESTS))? {
            if name.ends_with(".yaml") {
                traces.push(format!("{MANIFESTS}/{name}"));
            }
        }
        Ok(Machine {
            kubelet_conf: traces.iter().any(|trace| trace == KUBELET_CONF),
            admin_conf: traces.iter().any(|trace| trace == ADMIN_CONF),
            ca: local_ca(files)?,
            traces,
        })
    }

    /// Whether it carries no Kubernetes state.
    pub fn is_clean(&self) -> bool {
        self.traces.is_empty()
    }

    /// Refuses a machine with state that the journal does not account for. `attempted` reads after "failed to".
    pub fn refuse_foreign(&self, attempt: Option<&Attempt>, attempted: &str) -> Outcome<()> {
        if self.is_clean() || attempt.is_some_and(|attempt| attempt.machine_was_clean) {
            return Ok(());
        }
        let first: Vec<&str> = self.traces.iter().take(3).map(String::as_str).collect();
        let ca = self.ca.as_ref().map_or_else(String::new, |ca| format!(" of a cluster with CA {ca}"));
        let why = format!(
            "this machine carries Kubernetes state{ca} that kubestrap did not make ({}, ...)",
            first.join(", ")
        );
        Err(Failure::new(Cause::ForeignState, attempted, why))
    }
}

/// The pin of the machine's CA certificate; `None` when there is none.
fn local_ca(files: &dyn Files) -> Outcome<Option<CaHash>> {
    let path = Path::new(CA_CERTIFICATE);
    if files.stat(path)?.is_none_or(|info| info.kind != FileKind::File || info.len == 0) {
        return Ok(None);
    }
    let Some(pem) = files.read(path, MAX_CERTIFICATE)? else { return Ok(None) };
    ca_hash(&pem).map(Some).map_err(|why| {
        Failure::new(Cause::ForeignState, format!("read {CA_CERTIFICATE}"), why)
            .advise("restore the certificate; nothing is changed on a machine whose cluster is unknown")
    })
}

/// The pin of a PEM certificate: SHA-256 of its DER SubjectPublicKeyInfo (kubeadm `pubkeypin`).
pub fn ca_hash(pem: &[u8]) -> Result<CaHash, String> {
    let certificate = Certificate::from_pem(pem).map_err(|error| format!("not a PEM certificate: {error}"))?;
    let spki = certificate.tbs_certificate().subject_public_key_info().to_der();
    let digest = Sha256::digest(spki.map_err(|error| format!("its public key cannot be encoded: {error}"))?);
    Ok(CaHash::from_digest(&digest.into()))
}

/// When a PEM certificate expires.
pub fn expiry(pem: &[u8]) -> Option<jiff::Timestamp> {
    let certificate = Certificate::from_pem(pem).ok()?;
    let until = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    jiff::Timestamp::from_second(i64::try_from(until.as_secs()).ok()?).ok()
}
