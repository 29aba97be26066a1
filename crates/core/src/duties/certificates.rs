//! `watch-certificates`: when the certificates of this node expire.

use crate::engine::Duty;
use crate::kubeadm::certificates::Leaves;
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

/// The earliest expiry of the certificates kubeadm and the kubelet made; `None` when there are none.
pub(super) fn earliest_expiry(node: &Node) -> Outcome<Option<Timestamp>> {
    let mut earliest = Leaves::read(&*node.world.files)?.first_end();
    for folder in FOLDERS {
        for name in in_use(node.world.files.list(Path::new(folder))?) {
            let body = node.world.files.read(&Path::new(folder).join(&name), MAX_CERTIFICATE)?;
            if let Some(at) = body.as_deref().and_then(expiry) {
                earliest = Some(earliest.map_or(at, |known| known.min(at)));
            }
        }
    }
    Ok(earliest)
}

/// Of the names in a folder, those of certificates that are in use. The kubelet keeps its old client certificates
/// (`kubelet-client-<date>.pem`) beside the newest; `kubelet-client-current.pem` is a link to that, and links are not
/// followed.
fn in_use(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    let dated = |name: &&String| name.starts_with("kubelet-client-2") && name.ends_with(".pem");
    let newest = names.iter().rfind(dated).cloned();
    names.into_iter().filter(|name| name.ends_with(".crt")).chain(newest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_kubelets_certificates_the_newest_counts() {
        let names = [
            "kubelet-client-current.pem",
            "kubelet-client-2026-11-21-03-33-36.pem",
            "kubelet.crt",
            "kubelet.key",
            "kubelet-client-2025-11-21-03-33-36.pem",
        ];
        let names = in_use(names.map(str::to_owned).to_vec());
        assert_eq!(names, ["kubelet.crt", "kubelet-client-2026-11-21-03-33-36.pem"]);
    }
}
