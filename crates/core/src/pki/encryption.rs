//! The configuration of encryption at rest: whoever serves the API without it cannot read what others wrote with it.

use super::{PkiMaterial, api_server_argument};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::secret::Secret;
use crate::node::Node;
use std::path::{Component, Path, PathBuf};

/// The API server's flag (kubernetes.io/docs/tasks/administer-cluster/encrypt-data).
const FLAG: &str = "encryption-provider-config";
/// Some hundred bytes per key; it must fit into the bundle beside the authorities.
const MAX_FILE: u64 = 16 * 1024;

/// The API server's file with the keys of encryption at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// Where it lies on every master.
    pub path: PathBuf,
    /// What it says; it has keys in it.
    pub content: Secret,
}

/// Where `kubeadm.ClusterConfiguration` says that the file lies; `None` without encryption at rest.
pub(super) fn path(node: &Node) -> Outcome<Option<PathBuf>> {
    let Some(path) = api_server_argument(&node.settings, FLAG).map(PathBuf::from) else { return Ok(None) };
    let plain =
        path.is_absolute() && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if plain { Ok(Some(path)) } else { Err(failed(&path, "it is not an absolute path without `..`".to_owned())) }
}

/// What this machine has; `None` without encryption at rest.
///
/// Errors: `Configuration` when it is configured and the file is missing: an API server does not start without it.
pub(super) fn on_disk(node: &Node) -> Outcome<Option<Encryption>> {
    let Some(path) = path(node)? else { return Ok(None) };
    match read(node, &path)? {
        Some(content) => Ok(Some(Encryption { path, content })),
        None => Err(failed(&path, format!("the API server's {FLAG} names it, and there is no such file"))),
    }
}

fn read(node: &Node, path: &Path) -> Outcome<Option<Secret>> {
    let Some(bytes) = node.world.files.read(path, MAX_FILE)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| failed(path, "it is not UTF-8 text".to_owned()))?;
    Ok(Some(Secret::new(text)))
}

fn failed(path: &Path, why: String) -> Failure {
    Failure::new(Cause::Configuration, format!("read the encryption configuration {}", path.display()), why)
}

/// Refuses (`Configuration`) when this machine's encryption at rest is not the one that was sealed: another path, none
/// where there is one, or a file that is there and says something else. A file that is not there yet is no difference:
/// [`super::place()`] writes it.
pub fn encryption_matches(node: &Node, material: &PkiMaterial) -> Outcome<()> {
    let differs = |why: String| {
        let attempted = "use the encryption at rest that the cluster's other masters have";
        Err(Failure::new(Cause::Configuration, attempted, why).advise(
            "give all masters the same `kubeadm.ClusterConfiguration` and the same file; the leader seals a changed one within minutes",
        ))
    };
    match (path(node)?, &material.encryption) {
        (None, None) => Ok(()),
        (None, Some(sealed)) => {
            differs(format!("they have {}, and this machine's settings name none", sealed.path.display()))
        }
        (Some(own), None) => differs(format!("this machine's settings name {}, and they have none", own.display())),
        (Some(own), Some(sealed)) if own != sealed.path => {
            differs(format!("theirs is {}, and this machine's settings name {}", sealed.path.display(), own.display()))
        }
        (Some(own), Some(sealed)) => match read(node, &own)? {
            Some(content) if content != sealed.content => {
                differs(format!("{} of this machine differs from theirs", own.display()))
            }
            _ => Ok(()),
        },
    }
}
