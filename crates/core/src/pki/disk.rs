//! The same keys as files on a master, where kubeadm looks for them.

use crate::kubeadm::machine::CA_CERTIFICATE;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::secret::Secret;
use crate::ports::{Authorities, Files, KeyPair};
use std::path::Path;
use zeroize::Zeroizing;

/// etcd's CA.
pub const ETCD_CA: &str = "/etc/kubernetes/pki/etcd/ca.crt";

/// Public and private file of each pair, in the order of [`Authorities`]: what a further control plane needs.
pub const FILES: [(&str, &str); 4] = [
    (CA_CERTIFICATE, "/etc/kubernetes/pki/ca.key"),
    ("/etc/kubernetes/pki/front-proxy-ca.crt", "/etc/kubernetes/pki/front-proxy-ca.key"),
    (ETCD_CA, "/etc/kubernetes/pki/etcd/ca.key"),
    ("/etc/kubernetes/pki/sa.pub", "/etc/kubernetes/pki/sa.key"),
];

/// The largest that kubeadm makes has some 4 KiB (RSA-4096); a certificate may have its chain with it.
const MAX_FILE: u64 = 16 * 1024;

/// The pairs in the order of [`FILES`].
pub(super) fn pairs(authorities: &Authorities) -> [&KeyPair; 4] {
    [&authorities.cluster, &authorities.front_proxy, &authorities.etcd, &authorities.service_accounts]
}

/// The keys that this machine has; inside, the first file that is missing.
pub(super) fn authorities(files: &dyn Files) -> Outcome<Result<Authorities, &'static str>> {
    let mut pairs = Vec::new();
    for (public, private) in FILES {
        let Some(certificate) = text(files, public)? else { return Ok(Err(public)) };
        let Some(key) = text(files, private)? else { return Ok(Err(private)) };
        pairs.push(KeyPair { public: String::clone(&certificate), private: Secret::new(String::clone(&key)) });
    }
    let mut pairs = pairs.into_iter();
    match (pairs.next(), pairs.next(), pairs.next(), pairs.next()) {
        (Some(cluster), Some(front_proxy), Some(etcd), Some(service_accounts)) => {
            Ok(Ok(Authorities { cluster, front_proxy, etcd, service_accounts }))
        }
        _ => Ok(Err(CA_CERTIFICATE)),
    }
}

/// `None` for a file that is missing or empty.
fn text(files: &dyn Files, path: &str) -> Outcome<Option<Zeroizing<String>>> {
    let Some(bytes) = files.read(Path::new(path), MAX_FILE)?.filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
    let failed = |_| Failure::new(Cause::ForeignState, format!("read {path}"), "it is not PEM text");
    String::from_utf8(bytes).map(|text| Some(Zeroizing::new(text))).map_err(failed)
}
