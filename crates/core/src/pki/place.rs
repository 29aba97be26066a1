//! Verified keys become files, where kubeadm finds and uses them.

use super::{FILES, PkiMaterial, disk, encryption_matches};
use crate::kubeadm::machine::Machine;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use std::path::Path;

/// Private keys and what has keys in it.
const PRIVATE: u32 = 0o600;
/// Certificates and public keys.
const PUBLIC: u32 = 0o644;

/// Writes `ca`, `front-proxy-ca`, `etcd/ca` and `sa` below /etc/kubernetes/pki, and the file of encryption at rest where
/// there is one. Writing again is safe. The CA's certificate comes first: it is the trace by which an interrupted
/// placing is found and reset.
///
/// Errors: `ForeignCluster` when the machine has another CA, `Configuration` when its encryption at rest differs; then
/// nothing is written.
pub fn place(node: &Node, material: &PkiMaterial) -> Outcome<()> {
    let files = &*node.world.files;
    if let Some(other) = Machine::look(files)?.ca.filter(|ca| *ca != material.ca) {
        let why = format!("this machine has CA {other}, and the cluster's is {}", material.ca);
        return Err(Failure::new(Cause::ForeignCluster, "place the keys of the cluster", why));
    }
    encryption_matches(node, material)?;
    for ((public, private), pair) in FILES.into_iter().zip(disk::pairs(&material.authorities)) {
        files.write(Path::new(public), pair.public.as_bytes(), PUBLIC)?;
        files.write(Path::new(private), pair.private.expose().as_bytes(), PRIVATE)?;
    }
    match &material.encryption {
        // Its owner may have given it a mode of its own.
        Some(file) if files.stat(&file.path)?.is_none() => {
            files.write(&file.path, file.content.expose().as_bytes(), PRIVATE)
        }
        _ => Ok(()),
    }
}
