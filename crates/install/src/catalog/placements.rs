//! Where the files of a component belong on the machine.
//!
//! All of it is below `/usr/local` and `/opt`, which a distribution's packages never write: `install` and a package
//! of containerd or of Kubernetes do not overwrite each other's files, and `/usr/local` comes first in the PATH of
//! systemd's services. The unit files that kubestrap installs name these paths.

use super::Component;

/// Where containerd looks for CNI plugins by default.
pub const CNI_BIN_DIR: &str = "/opt/cni/bin";

/// What of a released file is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// The released file itself is the program.
    Whole,
    /// This member of the archive.
    Named(&'static str),
    /// Every executable file of the archive's top level; `to` is a folder. A link there is refused.
    TopLevel,
}

/// One file, or one folder of files, on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// What is placed.
    pub member: Member,
    /// Absolute path of the file; of the folder for [`Member::TopLevel`].
    pub to: &'static str,
    /// Permission bits of the files.
    pub mode: u32,
}

const fn program(member: Member, to: &'static str) -> Placement {
    Placement { member, to, mode: 0o755 }
}

/// Where the files of `component` belong. What an archive has beside them (stress tests, licences) is not placed.
pub fn placements(component: Component) -> &'static [Placement] {
    match component {
        // containerd looks for its shim beside itself.
        Component::Containerd => {
            const {
                &[
                    program(Member::Named("bin/containerd"), "/usr/local/bin/containerd"),
                    program(Member::Named("bin/containerd-shim-runc-v2"), "/usr/local/bin/containerd-shim-runc-v2"),
                    program(Member::Named("bin/ctr"), "/usr/local/bin/ctr"),
                ]
            }
        }
        Component::Runc => const { &[program(Member::Whole, "/usr/local/sbin/runc")] },
        Component::CniPlugins => const { &[program(Member::TopLevel, CNI_BIN_DIR)] },
        Component::Crictl => const { &[program(Member::Named("crictl"), "/usr/local/bin/crictl")] },
        Component::Kubeadm => const { &[program(Member::Whole, "/usr/local/bin/kubeadm")] },
        Component::Kubelet => const { &[program(Member::Whole, "/usr/local/bin/kubelet")] },
        Component::Kubectl => const { &[program(Member::Whole, "/usr/local/bin/kubectl")] },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_files_share_a_place_and_none_is_a_distributions() {
        let mut seen = BTreeSet::new();
        for placement in Component::ALL.into_iter().flat_map(placements) {
            assert!(placement.to.starts_with("/usr/local/") || placement.to.starts_with("/opt/"), "{placement:?}");
            assert!(seen.insert(placement.to), "{placement:?}");
            assert_eq!(placement.mode, 0o755);
        }
    }
}
