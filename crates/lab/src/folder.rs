//! Where everything of the lab lies. A cache that is kept (`tree`, `images`, `programs`, `vm`), and what one lab needs
//! while it is up (`run`).

use crate::Result;
use std::path::{Path, PathBuf};

/// Where the cache is unless `KUBESTRAP_LAB_DIR` says otherwise.
const DEFAULT: &str = "/var/cache/kubestrap-lab";
/// The folder with the Kubernetes binaries.
pub const KUBERNETES: &str = "KUBESTRAP_LAB_K8S";

/// The lab's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// As the environment says.
    pub fn from_environment() -> Folder {
        Folder(std::env::var_os("KUBESTRAP_LAB_DIR").map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from))
    }

    /// A folder of somebody's choice.
    pub fn at(path: impl Into<PathBuf>) -> Folder {
        Folder(path.into())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The root tree.
    pub fn tree(&self) -> PathBuf {
        self.0.join("tree")
    }

    /// Containerd's folder with the images of a Kubernetes folder, by fingerprint.
    pub fn images(&self, fingerprint: &str) -> PathBuf {
        self.0.join("images").join(fingerprint)
    }

    /// Programs that registries have and scenarios need: moto, an S3 server.
    pub fn programs(&self, name: &str) -> PathBuf {
        self.0.join("programs").join(name)
    }

    /// The image of virtual machines.
    pub fn vm(&self) -> PathBuf {
        self.0.join("vm")
    }

    /// What a running lab needs.
    pub fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// The folder of a machine.
    pub fn machine(&self, name: &str) -> PathBuf {
        self.run().join("nodes").join(name)
    }

    /// Logs of failed scenarios.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// Removes the cache; the folder must not be in use.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn clean(&self) -> Result<()> {
        for name in ["tree", "images", "programs", "vm", "run", "logs"] {
            remove(&self.0.join(name))?;
        }
        Ok(())
    }
}

/// Removes a folder and what is in it; nothing when it is not there. What is mounted there is unmounted first: a tree that
/// was left half-built must not lead into this machine's own /proc.
///
/// # Errors
/// When something cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    crate::mounts::unmount_below(path);
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            crate::attempted(Err(error), format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Where the Kubernetes binaries are: `KUBESTRAP_LAB_K8S`, else `k8s` in the lab's folder; `None` without `kubeadm` in
/// it.
pub fn kubernetes(folder: &Folder) -> Option<PathBuf> {
    let named = std::env::var_os(KUBERNETES).map(PathBuf::from);
    let place = named.unwrap_or_else(|| folder.path().join("k8s"));
    place.join("kubeadm").is_file().then_some(place)
}
