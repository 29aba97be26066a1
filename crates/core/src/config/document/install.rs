//! The key `install`.

use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// By component, version and architecture.
pub type Checksums = BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>;

/// What `kubestrap install` puts on a machine, and from where. Nothing else reads it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallPart {
    /// Versions; those that kubestrap ships checksums for and knows as the newest when absent.
    pub versions: Option<VersionsPart>,
    /// Base URL of a mirror: the upstream files are looked for below it by host and path, for example
    /// `<mirror>/dl.k8s.io/release/v1.36.4/bin/linux/amd64/kubeadm` (kubespray's `files_repo` has the same layout).
    pub mirror: Option<String>,
    /// A bundle of `kubestrap install --download-only`: a `.tar` file or a folder, an absolute path.
    pub bundle: Option<String>,
    /// SHA-256 of the bundle's index, as `--download-only` printed it: checksums that are neither here nor shipped are
    /// then taken from the bundle.
    pub index_sha256: Option<String>,
    /// Whether the files come from the node's store, below `install/` (default false). It needs `store`.
    pub from_store: Option<bool>,
    /// SHA-256 (64 hex digits) of release files that kubestrap ships no checksum for: component, version, architecture
    /// (`amd64`, `arm64`).
    pub checksums: Option<Checksums>,
    /// Whether a checksum that is neither here nor shipped is taken from the release location itself (default false):
    /// who can change the file there can change the checksum too.
    pub trust_release_checksums: Option<bool>,
    /// Images that are pulled when containerd runs, each with its registry and its digest.
    pub images: Option<Vec<String>>,
    /// Whose containerd (default: `keep` where another one is there).
    pub containerd: Option<ContainerdKind>,
    /// Settings of the machine.
    pub host: Option<HostPart>,
}

/// Versions, with or without the leading `v`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionsPart {
    /// kubeadm, kubelet and kubectl, for example `v1.36.1`; `kubernetes.version` when absent and that is set.
    pub kubernetes: Option<String>,
    /// kubeadm alone. It must be the version of the other two: write `kubernetes` instead.
    pub kubeadm: Option<String>,
    /// The kubelet alone. It must be the version of the other two: write `kubernetes` instead.
    pub kubelet: Option<String>,
    /// kubectl alone. It must be the version of the other two: write `kubernetes` instead.
    pub kubectl: Option<String>,
    /// containerd.
    pub containerd: Option<String>,
    /// runc.
    pub runc: Option<String>,
    /// The CNI plugins.
    pub cni_plugins: Option<String>,
    /// crictl.
    pub crictl: Option<String>,
}

/// Whose containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContainerdKind {
    /// Ours, beside another one when there is one.
    Install,
    /// The one that is there, for example the distribution's; it is configured all the same.
    Keep,
}

/// Settings of the machine.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostPart {
    /// More kernel modules to load at boot and now; `overlay` and `br_netfilter` always are.
    pub modules: Option<Vec<String>>,
    /// More settings of the kernel, such as `fs.inotify.max_user_instances: "8192"`; forwarding and bridge filtering
    /// always are.
    pub sysctls: Option<BTreeMap<String, String>>,
    /// What becomes of swap (default: the installation is refused while there is some).
    pub swap: Option<SwapKind>,
}

/// What becomes of swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SwapKind {
    /// It is turned off, and its lines in /etc/fstab become comments.
    Off,
    /// It stays; the kubelet then needs `failSwapOn: false`.
    Keep,
}
