//! What is said of an installation. It is no part of [`super::Settings`]: a machine that is baked has no role yet.

pub use crate::config::document::Checksums;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What `kubestrap install` works by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstallSettings {
    /// Versions that were asked for, as their projects write them but for a leading `v`.
    pub versions: WantedVersions,
    /// Where the files are; the projects' own release locations when absent.
    pub source: Option<InstallSource>,
    /// SHA-256 of release files by component, version (without a leading `v`) and architecture.
    pub checksums: Checksums,
    /// SHA-256 of the bundle's index.
    pub index_sha256: Option<String>,
    /// Whether an unknown checksum is taken from the release location.
    pub trust_release_checksums: bool,
    /// Images to pull, each with its digest.
    pub images: Vec<String>,
    /// Whose containerd; `None`: the one that is there, else ours.
    pub containerd: Option<WhoseContainerd>,
    /// Settings of the machine.
    pub host: HostSettings,
    /// What the kubelet will be told (`kubeadm.KubeletConfiguration`), as far as the machine must fit it.
    pub kubelet: KubeletNeeds,
    /// The sandbox image (`images.sandbox`); the one of the Kubernetes version when absent.
    pub sandbox: Option<String>,
    /// containerd's `config_path` (`ecr.certs_dir`); containerd's usual one when absent.
    pub certs_dir: Option<PathBuf>,
}

/// Versions without a leading `v`; `None` is the newest that is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WantedVersions {
    /// kubeadm, kubelet and kubectl.
    pub kubernetes: Option<String>,
    /// containerd.
    pub containerd: Option<String>,
    /// runc.
    pub runc: Option<String>,
    /// The CNI plugins.
    pub cni_plugins: Option<String>,
    /// crictl.
    pub crictl: Option<String>,
}

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallSource {
    /// Below this base URL.
    Mirror(String),
    /// In this bundle, a file or a folder.
    Bundle(PathBuf),
    /// In the node's store.
    Store,
}

/// Whose containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhoseContainerd {
    /// Ours.
    Install,
    /// The one that is there.
    Keep,
}

/// Settings of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostSettings {
    /// More kernel modules.
    pub modules: Vec<String>,
    /// More settings of the kernel, by their names with dots.
    pub sysctls: BTreeMap<String, String>,
    /// What becomes of swap; `None`: it is not tolerated.
    pub swap: Option<Swap>,
}

/// What becomes of swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// It is turned off.
    Off,
    /// It stays.
    Keep,
}

/// What of the kubelet's configuration the machine must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KubeletNeeds {
    /// Not `cgroupDriver: cgroupfs`; containerd must use the same driver.
    pub systemd_cgroups: bool,
    /// Not `failCgroupV1: false`.
    pub fails_on_cgroup_v1: bool,
    /// Not `failSwapOn: false`.
    pub fails_on_swap: bool,
}

impl Default for KubeletNeeds {
    fn default() -> Self {
        KubeletNeeds { systemd_cgroups: true, fails_on_cgroup_v1: true, fails_on_swap: true }
    }
}
