//! The leaf certificates of a control plane: which there are, how long they live, and when they are due for a renewal.
//!
//! Those that kubeadm renews (kubeadm `phases/certs/renewal/manager.go`), no others. The authorities are not among them,
//! and neither are the kubelet's own certificates, which it rotates by itself.

use crate::model::cause::Outcome;
use crate::ports::{FileKind, Files};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;
use x509_cert::Certificate;
use x509_cert::der::DecodePem;
use x509_cert::time::Time;
use zeroize::Zeroizing;

/// A certificate and a kubeconfig with one in it are a few KiB.
const MAX_FILE: u64 = 256 * 1024;
/// Certificates that live long are renewed when this is left (ten times a long weekend).
const AT_MOST: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Those that live shorter, when this part of their life is left.
const PART: i32 = 3;

const CLUSTER_KEY: &str = "/etc/kubernetes/pki/ca.key";
const FRONT_PROXY_KEY: &str = "/etc/kubernetes/pki/front-proxy-ca.key";
const ETCD_KEY: &str = "/etc/kubernetes/pki/etcd/ca.key";
/// Files with a leaf, and the key of the authority that signs it.
const LEAVES: &[(&str, &str)] = &[
    ("/etc/kubernetes/pki/apiserver.crt", CLUSTER_KEY),
    ("/etc/kubernetes/pki/apiserver-kubelet-client.crt", CLUSTER_KEY),
    ("/etc/kubernetes/pki/apiserver-etcd-client.crt", ETCD_KEY),
    ("/etc/kubernetes/pki/front-proxy-client.crt", FRONT_PROXY_KEY),
    ("/etc/kubernetes/pki/etcd/server.crt", ETCD_KEY),
    ("/etc/kubernetes/pki/etcd/peer.crt", ETCD_KEY),
    ("/etc/kubernetes/pki/etcd/healthcheck-client.crt", ETCD_KEY),
    (crate::kube::ADMIN_CONF, CLUSTER_KEY),
    ("/etc/kubernetes/super-admin.conf", CLUSTER_KEY),
    ("/etc/kubernetes/controller-manager.conf", CLUSTER_KEY),
    ("/etc/kubernetes/scheduler.conf", CLUSTER_KEY),
];

/// One leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The file it is in.
    pub path: &'static str,
    /// From when it is valid.
    pub begins: Timestamp,
    /// Until when.
    pub ends: Timestamp,
    /// The key of its authority, which is not on this machine; `None`: it is, so that kubeadm can renew the leaf.
    pub missing_key: Option<&'static str>,
}

impl Leaf {
    /// With how much left it is renewed. `made_after` bounds its life where `begins` does not: up to kubeadm 1.32 leaves
    /// begin when their authority does.
    fn window(&self, made_after: Timestamp) -> SignedDuration {
        let life = self.ends.duration_since(self.begins.max(made_after.min(self.ends)));
        (life / PART).min(AT_MOST)
    }

    fn due_at(&self, made_after: Timestamp) -> Timestamp {
        self.ends - self.window(made_after)
    }
}

/// The leaves of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leaves {
    /// In a fixed order; what is not there, or is no certificate, is left out.
    pub list: Vec<Leaf>,
    /// Tells these certificates from others: 32 hexadecimal digits. Nothing of a key is in it.
    pub digest: String,
}

impl Leaves {
    /// Reads them. Empty on a worker.
    pub fn read(files: &dyn Files) -> Outcome<Leaves> {
        let (mut list, mut digest) = (Vec::new(), Sha256::new());
        for (path, key) in LEAVES {
            let Some(pem) = certificate(files, path)? else { continue };
            let Some((begins, ends)) = validity(&pem) else { continue };
            let has_key = files.stat(Path::new(key))?.is_some();
            list.push(Leaf { path, begins, ends, missing_key: (!has_key).then_some(*key) });
            digest.update(path.as_bytes());
            digest.update(&pem);
        }
        let digest = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Ok(Leaves { list, digest })
    }

    /// When the first of them ends; `None` when there are none.
    pub fn first_end(&self) -> Option<Timestamp> {
        self.list.iter().map(|leaf| leaf.ends).min()
    }

    /// Those that are to be renewed now. All of them were made after `made_after`.
    pub fn due(&self, now: Timestamp, made_after: Timestamp) -> Vec<&Leaf> {
        self.list.iter().filter(|leaf| leaf.due_at(made_after) <= now).collect()
    }

    /// When the first is due; `None` when there are none.
    pub fn first_due(&self, made_after: Timestamp) -> Option<Timestamp> {
        self.list.iter().map(|leaf| leaf.due_at(made_after)).min()
    }

    /// When the time to renew the first of them is half over: what is not perfect is no longer waited for then. `None` when
    /// there are none.
    pub fn urgent_at(&self, made_after: Timestamp) -> Option<Timestamp> {
        self.list.iter().map(|leaf| leaf.ends - leaf.window(made_after) / 2).min()
    }

    /// Whether one has ended: this control plane cannot be asked for anything.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.list.iter().any(|leaf| leaf.ends <= now)
    }
}

/// The PEM certificate in a file, or in a kubeconfig; `None` when there is none.
fn certificate(files: &dyn Files, path: &str) -> Outcome<Option<Vec<u8>>> {
    if files.stat(Path::new(path))?.is_none_or(|info| info.kind != FileKind::File) {
        return Ok(None);
    }
    // A kubeconfig holds a key: it is wiped when it was read.
    let Some(body) = files.read(Path::new(path), MAX_FILE)?.map(Zeroizing::new) else { return Ok(None) };
    Ok(if path.ends_with(".conf") { of_kubeconfig(&body) } else { Some(body.to_vec()) })
}

/// The certificate of a kubeconfig's first user.
fn of_kubeconfig(body: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok()?;
    let parsed: Value = serde_saphyr::from_str(text).ok()?;
    STANDARD.decode(parsed.pointer("/users/0/user/client-certificate-data")?.as_str()?).ok()
}

fn validity(pem: &[u8]) -> Option<(Timestamp, Timestamp)> {
    // A chain begins with the leaf.
    let text = std::str::from_utf8(pem).ok()?;
    let end = text.find("-----END CERTIFICATE-----")? + "-----END CERTIFICATE-----".len();
    let certificate = Certificate::from_pem(text.get(..end)?.as_bytes()).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let at = |time: &Time| {
        let seconds = i64::try_from(time.to_unix_duration().as_secs()).ok()?;
        Timestamp::from_second(seconds).ok()
    };
    Some((at(&validity.not_before)?, at(&validity.not_after)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn leaves(begins: i64, ends: i64) -> Leaves {
        let leaf = Leaf { path: LEAVES[0].0, begins: at(begins), ends: at(ends), missing_key: None };
        Leaves { list: vec![leaf], digest: String::new() }
    }

    #[test]
    fn a_year_is_renewed_a_month_before_its_end_and_minutes_at_two_thirds() {
        let year = leaves(0, 365 * DAY);
        assert!(year.due(at(335 * DAY - 1), Timestamp::MIN).is_empty());
        assert_eq!(year.due(at(335 * DAY), Timestamp::MIN).len(), 1);
        let minutes = leaves(0, 900);
        assert!(minutes.due(at(599), Timestamp::MIN).is_empty());
        assert_eq!(minutes.due(at(600), Timestamp::MIN).len(), 1);
        assert_eq!(minutes.first_due(Timestamp::MIN), Some(at(600)));
        assert_eq!(minutes.urgent_at(Timestamp::MIN), Some(at(750)));
        assert!(!minutes.is_expired(at(899)) && minutes.is_expired(at(900)));
    }

    #[test]
    fn a_leaf_that_begins_with_its_old_authority_is_not_renewed_for_ever() {
        // The authority is a day old, the leaf was made just now and lives for ten minutes.
        let leaf = leaves(0, DAY + 600);
        assert_eq!(leaf.due(at(DAY), Timestamp::MIN).len(), 1, "its begin misleads");
        assert!(leaf.due(at(DAY), at(DAY)).is_empty());
        assert_eq!(leaf.due(at(DAY + 400), at(DAY)).len(), 1);
    }

    #[test]
    fn a_clock_that_was_ahead_when_it_was_made_does_no_harm() {
        assert_eq!(leaves(0, 900).due(at(900), at(5000)).len(), 1);
        assert!(leaves(0, 900).due(at(800), at(5000)).is_empty());
    }

    #[test]
    fn of_a_kubeconfig_nothing_but_the_certificate_is_read() {
        let text = "apiVersion: v1\nkind: Config\nusers:\n- name: a\n  user:\n    client-certificate-data: aGVsbG8=\n    client-key-data: c2VjcmV0\n";
        assert_eq!(of_kubeconfig(text.as_bytes()).as_deref(), Some(b"hello".as_slice()));
        for other in ["users:\n- name: a\n  user:\n    token: x\n", "users: []\n", "pin", "\u{fffd}{", ""] {
            assert_eq!(of_kubeconfig(other.as_bytes()), None, "{other:?}");
        }
    }
}
