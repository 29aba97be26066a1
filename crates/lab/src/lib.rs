//! EC2-like nodes on one machine, at native speed: process trees with their own mount, pid, uts, ipc, cgroup and network
//! namespaces, whose PID 1 is a real systemd with a real containerd, kubelet and kubeadm. IMDS and AWS are stand-ins
//! over real HTTP. `docs/lab.md` is the user's guide.
//!
//! | module | what |
//! |---|---|
//! | [`folder`], [`state`] | where everything lies; what runs, so that a crashed lab is cleaned up |
//! | [`claim`] | who has the lab of this machine, and what it took from the kernel |
//! | [`interrupt`] | Ctrl-C |
//! | [`needs`] | what this machine lacks, all at once |
//! | [`programs`] | what is under test, and whether it starts in a machine |
//! | [`tree`] | the root tree every machine begins with, and the container images |
//! | [`cgroups`], [`mounts`], [`network`], [`sysctls`] | what machines take from the kernel, and give back |
//! | [`machine`] | one node: its disk, its start, its power cut, commands in it |
//! | [`fabric`] | what surrounds it: IMDS, S3 and EC2 |
//! | [`account`] | images, launch templates and Auto Scaling groups, for the scenarios that replace machines |
//! | [`registry`] | ECR and its registry, for the scenarios that pull |
//! | [`vm`] | a machine with firmware and a kernel of its own |
//! | [`lab`] | all of it together |
//! | [`scenarios`] | stories that are told with it |
//! | [`shipped`] | the units and the user-data of the repository |

pub mod account;
pub mod cgroups;
pub mod claim;
pub mod command;
pub mod fabric;
pub mod folder;
pub mod http;
pub mod interrupt;
pub mod lab;
pub mod logs;
pub mod machine;
pub mod mounts;
pub mod needs;
pub mod network;
pub mod programs;
pub mod registry;
pub mod scenarios;
pub mod shipped;
pub mod state;
pub mod sysctls;
pub mod tree;
pub mod vm;

/// What went wrong: what was attempted, on what, why, what to do.
pub type Result<T> = std::io::Result<T>;

/// An error with this text.
pub fn fail<T>(text: impl Into<String>) -> Result<T> {
    Err(std::io::Error::other(text.into()))
}

/// Says before an error what was attempted.
pub fn attempted<T, E: std::fmt::Display>(
    result: std::result::Result<T, E>,
    what: impl std::fmt::Display,
) -> Result<T> {
    result.map_err(|error| std::io::Error::other(format!("failed to {what}: {error}")))
}
