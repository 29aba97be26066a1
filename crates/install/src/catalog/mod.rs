//! What can be installed: components, architectures, versions, the names of released files, and their places.

mod placements;
mod versions;

pub use placements::{CNI_BIN_DIR, Member, Placement, placements};
pub use versions::{Versions, Wanted, check_version};

use crate::lock::{ChecksumFrom, Checksums};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use serde::{Deserialize, Serialize};
use std::fmt;

/// An architecture that releases exist for, by its name in Go and in container images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86_64.
    Amd64,
    /// aarch64.
    Arm64,
}

impl Arch {
    /// Every architecture.
    pub const ALL: [Arch; 2] = [Arch::Amd64, Arch::Arm64];

    /// `amd64` or `arm64`.
    pub fn label(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
        }
    }

    /// Reads `amd64`, `arm64`, or what `uname -m` says of them.
    pub fn parse(text: &str) -> Outcome<Arch> {
        match text {
            "amd64" | "x86_64" => Ok(Arch::Amd64),
            "arm64" | "aarch64" => Ok(Arch::Arm64),
            _ => {
                let why = format!("there are releases for amd64 and arm64, not for {text:?}");
                Err(Failure::new(Cause::Configuration, "choose the architecture", why))
            }
        }
    }

    /// The architecture that this program was built for, which is the machine's.
    pub fn of_this_program() -> Outcome<Arch> {
        Arch::parse(std::env::consts::ARCH)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A project whose released files are installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// The container runtime, as a static archive.
    Containerd,
    /// What containerd starts containers with.
    Runc,
    /// The reference plugins (loopback, bridge, host-local, ...) that network addons build on.
    CniPlugins,
    /// The CRI's command line; kubeadm's preflight looks for it.
    Crictl,
    /// Makes and joins clusters.
    Kubeadm,
    /// The node's agent.
    Kubelet,
    /// The API's command line.
    Kubectl,
}

impl Component {
    /// Every component, in the order of installation.
    pub const ALL: [Component; 7] = [
        Component::Containerd,
        Component::Runc,
        Component::CniPlugins,
        Component::Crictl,
        Component::Kubeadm,
        Component::Kubelet,
        Component::Kubectl,
    ];

    /// Its name in configuration, in the lock and in bundles.
    pub fn label(self) -> &'static str {
        match self {
            Component::Containerd => "containerd",
            Component::Runc => "runc",
            Component::CniPlugins => "cni-plugins",
            Component::Crictl => "crictl",
            Component::Kubeadm => "kubeadm",
            Component::Kubelet => "kubelet",
            Component::Kubectl => "kubectl",
        }
    }

    /// The component with this label.
    pub fn by_label(label: &str) -> Option<Component> {
        Component::ALL.into_iter().find(|component| component.label() == label)
    }

    /// The name of the released file. `version` is without `v`.
    ///
    /// containerd is its static archive: the other one needs the glibc of the Ubuntu it was built on, which is newer
    /// than that of Amazon Linux 2023.
    pub fn file(self, version: &str, arch: Arch) -> String {
        match self {
            Component::Containerd => format!("containerd-static-{version}-linux-{arch}.tar.gz"),
            Component::Runc => format!("runc.{arch}"),
            Component::CniPlugins => format!("cni-plugins-linux-{arch}-v{version}.tgz"),
            Component::Crictl => format!("crictl-v{version}-linux-{arch}.tar.gz"),
            Component::Kubeadm | Component::Kubelet | Component::Kubectl => self.label().to_owned(),
        }
    }

    /// The folder of a release upstream; the file follows after a slash. `version` is without `v`.
    fn release(self, version: &str, arch: Arch) -> String {
        let github = |project: &str| format!("https://github.com/{project}/releases/download/v{version}");
        match self {
            Component::Containerd => github("containerd/containerd"),
            Component::Runc => github("opencontainers/runc"),
            Component::CniPlugins => github("containernetworking/plugins"),
            Component::Crictl => github("kubernetes-sigs/cri-tools"),
            Component::Kubeadm | Component::Kubelet | Component::Kubectl => {
                format!("https://dl.k8s.io/release/v{version}/bin/linux/{arch}")
            }
        }
    }

    /// Where the project publishes the released file.
    pub fn url(self, version: &str, arch: Arch) -> String {
        format!("{}/{}", self.release(version, arch), self.file(version, arch))
    }

    /// Where the project publishes the file's SHA-256: one hex digest, or lines of digest and name.
    pub fn checksum_url(self, version: &str, arch: Arch) -> String {
        let url = self.url(version, arch);
        match self {
            Component::Containerd => format!("{url}.sha256sum"),
            Component::Runc => format!("{}/runc.sha256sum", self.release(version, arch)),
            _ => format!("{url}.sha256"),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A released file whose content is known before it is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Whose it is.
    pub component: Component,
    /// Without `v`.
    pub version: String,
    /// Of which architecture.
    pub arch: Arch,
    /// Its name as released.
    pub file: String,
    /// Where its project publishes it.
    pub url: String,
    /// What its content must be: 64 lower-case hex digits.
    pub sha256: String,
    /// Who says so.
    pub checksum_from: ChecksumFrom,
}

impl Artifact {
    pub(crate) fn new(component: Component, version: &str, arch: Arch, sha256: String, from: ChecksumFrom) -> Artifact {
        Artifact {
            component,
            version: version.to_owned(),
            arch,
            file: component.file(version, arch),
            url: component.url(version, arch),
            sha256,
            checksum_from: from,
        }
    }

    /// `kubelet 1.36.4 (amd64)`.
    pub fn title(&self) -> String {
        format!("{} {} ({})", self.component, self.version, self.arch)
    }
}

/// The files of all components, with the checksums of the configuration, then of the shipped lock.
///
/// A file that neither knows is an error that names the setting to write. When releases themselves are to be
/// trusted, call
/// [`crate::lock::trust_releases`] first.
pub fn artifacts(versions: &Versions, arch: Arch, checksums: &Checksums) -> Outcome<Vec<Artifact>> {
    let pinned = |component: Component| {
        let version = versions.of(component);
        let (sha256, from) = checksums.require(component, version, arch)?;
        Ok(Artifact::new(component, version, arch, sha256, from))
    };
    Component::ALL.into_iter().map(pinned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_back() {
        for component in Component::ALL {
            assert_eq!(Component::by_label(component.label()), Some(component));
            assert_eq!(serde_json::to_value(component).expect("json"), component.label());
        }
        for arch in Arch::ALL {
            assert_eq!(Arch::parse(arch.label()), Ok(arch));
            assert_eq!(serde_json::to_value(arch).expect("json"), arch.label());
        }
        assert_eq!(Arch::parse("x86_64"), Ok(Arch::Amd64));
        assert!(Arch::parse("riscv64").expect_err("no releases").detail.contains("riscv64"));
    }

    #[test]
    fn urls_are_those_of_the_projects() {
        let url = |component: Component, version| component.url(version, Arch::Arm64);
        assert_eq!(url(Component::Kubeadm, "1.36.4"), "https://dl.k8s.io/release/v1.36.4/bin/linux/arm64/kubeadm");
        let runc = "https://github.com/opencontainers/runc/releases/download/v1.4.3/runc.arm64";
        assert_eq!(url(Component::Runc, "1.4.3"), runc);
        assert!(url(Component::Containerd, "2.3.4").ends_with("/v2.3.4/containerd-static-2.3.4-linux-arm64.tar.gz"));
        assert!(url(Component::CniPlugins, "1.9.1").ends_with("/v1.9.1/cni-plugins-linux-arm64-v1.9.1.tgz"));
        assert!(url(Component::Crictl, "1.36.0").ends_with("/v1.36.0/crictl-v1.36.0-linux-arm64.tar.gz"));
        let sum = |component: Component| component.checksum_url("1.4.3", Arch::Arm64);
        assert!(sum(Component::Runc).ends_with("/v1.4.3/runc.sha256sum"));
        assert!(sum(Component::Containerd).ends_with("-arm64.tar.gz.sha256sum"));
        assert!(sum(Component::Kubelet).ends_with("/arm64/kubelet.sha256"));
    }
}
