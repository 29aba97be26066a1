//! Patches for kubeadm's documents: what may not be patched.

use crate::config::problem::{Place, Problem};
use crate::config::tree::{Entry, Kind, Node};

/// Why a patched path is refused.
const SECRET: &str = "is a secret; kubestrap makes it itself, and a configuration file can be read by others";
const BUNDLE: &str = "comes from the verified join bundle";
const PATHS: &str = "is where kubestrap looks for the cluster's PKI";

/// Kind (`*` for every one), path, reason.
const REFUSED: &[(&str, &[&str], &str)] = &[
    ("*", &["apiVersion"], "is fixed: kubestrap writes the version it knows"),
    ("*", &["kind"], "is fixed by the key the patch stands under"),
    ("InitConfiguration", &["bootstrapTokens"], SECRET),
    ("InitConfiguration", &["certificateKey"], SECRET),
    ("JoinConfiguration", &["controlPlane", "certificateKey"], SECRET),
    ("JoinConfiguration", &["discovery"], BUNDLE),
    ("JoinConfiguration", &["caCertPath"], PATHS),
    ("ClusterConfiguration", &["certificatesDir"], PATHS),
    ("ClusterConfiguration", &["clusterName"], "is said by `cluster`"),
    ("ClusterConfiguration", &["controlPlaneEndpoint"], "is said by `control_plane_endpoint`"),
    ("ClusterConfiguration", &["kubernetesVersion"], "is said by `kubernetes.version`"),
    ("InitConfiguration", &["nodeRegistration", "name"], "is said by `node.name`"),
    ("JoinConfiguration", &["nodeRegistration", "name"], "is said by `node.name`"),
];

/// The problems of the `kubeadm` part of the merged tree.
pub fn check(kubeadm: &Node) -> Vec<Problem> {
    let Kind::Map(kinds) = &kubeadm.kind else { return Vec::new() };
    let rules = |kind: &Entry| {
        let applies = move |rule: &&(&str, &[&str], &str)| rule.0 == "*" || rule.0 == kind.key;
        let broken = |(_, path, why): &(&str, &[&str], &str)| {
            let place = find(&kind.node, path)?;
            Some(Problem::at(&place, format!("`kubeadm.{}.{}` cannot be patched: it {why}", kind.key, path.join("."))))
        };
        REFUSED.iter().filter(applies).filter_map(broken).collect::<Vec<_>>()
    };
    kinds.iter().flat_map(rules).collect()
}

/// Where a patch changes what is behind a path: also by a null, a text or a list above it, which would remove it.
/// Compared without case: JSON decoders of older Kubernetes did so too.
fn find(node: &Node, path: &[&str]) -> Option<Place> {
    let Some((first, rest)) = path.split_first() else { return Some(node.place.clone()) };
    let Kind::Map(entries) = &node.kind else { return Some(node.place.clone()) };
    let matching = entries.iter().filter(|entry| entry.key.eq_ignore_ascii_case(first));
    let below = |entry: &Entry| if rest.is_empty() { Some(entry.place.clone()) } else { find(&entry.node, rest) };
    matching.into_iter().find_map(below)
}
