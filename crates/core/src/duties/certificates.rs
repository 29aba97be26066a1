//! `watch-certificates`: when the certificates of this node expire.

use crate::engine::Duty;
use crate::kubeadm::machine::expiry;
use crate::model::cause::Outcome;
use crate::node::Node;
use async_trait::async_trait;
use jiff::Timestamp;
use std::path::Path;
use std::time::Duration;

/// Certificates live a year; an hour shows a renewal soon enough.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
const FOLDERS: &[&str] = &["/etc/kubernetes/pki", "/etc/kubernetes/pki/etcd", "/var/lib/kubelet/pki"];
const MAX_CERTIFICATE: u64 = 256 * 1024;

pub(super) struct CertificatesDuty;

#[async_trait(?Send)]
impl Duty for CertificatesDuty {
    fn name(&self) -> &'static str {
        "watch-certificates"
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        let earliest = earliest_expiry(node)?;
        node.update(|status| status.certificates_expire_at = earliest);
        Ok(LOOK_EVERY)
    }
}

/// The earliest expiry of the certificates kubeadm and the kubelet made; `None` when there are none. The kubelet keeps
/// its old ones beside the one in use, so of its folder only what is in use counts.
fn earliest_expiry(node: &Node) -> Outcome<Option<Timestamp>> {
    let mut earliest: Option<Timestamp> = None;
    for folder in FOLDERS {
        for name in node.world.files.list(Path::new(folder))? {
            if !(name.ends_with(".crt") || name == "kubelet-client-current.pem") {
                continue;
            }
            // Unreadable ones are none of ours: the kubelet's current file is a link, which is read through.
            let body = node.world.files.read(&Path::new(folder).join(&name), MAX_CERTIFICATE)?;
            if let Some(at) = body.as_deref().and_then(expiry) {
                earliest = Some(earliest.map_or(at, |known| known.min(at)));
            }
        }
    }
    Ok(earliest)
}
