//! What this machine must have, asked all at once.

use crate::command::{self, Finished, finish};
use crate::folder::Folder;
use crate::{Result, attempted, fail, tree};
use std::path::{Path, PathBuf};

/// Programs, and the Debian packages that have them.
const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("chroot", "coreutils"),
    ("cp", "coreutils"),
    ("python3", "python3-venv"),
];
/// Needed only while there is no root tree.
const TREE_PROGRAMS: &[(&str, &str)] = &[("debootstrap", "debootstrap"), ("dpkg-deb", "dpkg")];
/// What some machines write, stand-ins or real nodes.
const MACHINES_MIB: u64 = 512;
/// The root tree (600 MiB), what `debootstrap` downloads for it, and the servers that are built and installed into it.
const TREE_MIB: u64 = 1024;
/// Unpacked container images of a Kubernetes folder, and what etcd and the images' copies on each node need.
const KUBERNETES_MIB: u64 = 2048;
/// What a machine's start does, once, in namespaces that go with it. `$1` is an empty folder on the lab's disk.
const PROBE: &str = "mkdir -p \"$1/upper\" \"$1/work\" \"$1/root\"
mount -t overlay overlay -o \"lowerdir=/usr,upperdir=$1/upper,workdir=$1/work\" \"$1/root\"
mount -t tmpfs tmpfs /mnt
mount -t proc proc /proc
ip link add br0 type bridge
ip link add eth0 type veth peer name eth1";

/// Whether this process is root.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0)
}

/// Whether this process may make machines at all: it must be root, and the kernel must let it.
///
/// # Errors
/// With the reason.
pub fn allowed(folder: &Folder) -> Result<()> {
    if !is_root() {
        return fail(
            "the lab makes namespaces and mounts: run it as root, with your own cargo: \
             sudo -E env \"PATH=$PATH:/usr/sbin:/sbin\" cargo xtask lab ...",
        );
    }
    let place = folder.path().join("probe");
    attempted(std::fs::create_dir_all(&place), format!("make {}", place.display()))?;
    let done = probe(&place);
    crate::folder::remove(&place)?;
    let done = done?;
    if done.code == Some(0) {
        return Ok(());
    }
    fail(format!(
        "this machine does not let root make namespaces, mounts or network links (is it a container? it needs \
         CAP_SYS_ADMIN and CAP_NET_ADMIN, and {} on a disk that is no overlay itself; KUBESTRAP_LAB_DIR moves it): {}",
        folder.path().display(),
        done.stderr.trim()
    ))
}

fn probe(place: &Path) -> Result<Finished> {
    let namespaces = ["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--net", "--fork", "--propagation", "private"];
    finish(command::program("unshare", &namespaces).args(["sh", "-ec", PROBE, "probe"]).arg(place))
}

/// What is missing, all of it, with the command that mends it.
///
/// # Errors
/// When something is.
pub fn check(folder: &Folder) -> Result<()> {
    let tree: &[(&str, &str)] = if tree::is_built(folder) { &[] } else { TREE_PROGRAMS };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let wanted: Vec<_> = PROGRAMS.iter().chain(tree).copied().collect();
    let problems = [missing(&wanted, &places), allowed(folder).err().map(|error| error.to_string()), space(folder)?];
    let problems: Vec<String> = problems.into_iter().flatten().collect();
    if problems.is_empty() { Ok(()) } else { fail(problems.join("\n")) }
}

/// One program that only some scenario needs.
///
/// # Errors
/// When it is not there, with the package that has it.
pub fn program(name: &str, package: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    missing(&[(name, package)], &places).map_or(Ok(()), fail)
}

/// The programs that are in none of these folders.
pub(crate) fn missing(wanted: &[(&str, &str)], places: &[PathBuf]) -> Option<String> {
    let here = |name: &str| places.iter().any(|place| place.join(name).is_file());
    let missing: Vec<_> = wanted.iter().filter(|(name, _)| !here(name)).collect();
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    let (names, packages) = (names.join(", "), packages.join(" "));
    (!missing.is_empty())
        .then(|| format!("the lab needs programs that are not in PATH: {names}; apt-get install {packages}"))
}

/// What is still to be written below the folder, in MiB.
fn wanted_space(tree_is_built: bool, with_kubernetes: bool) -> u64 {
    let tree = if tree_is_built { 0 } else { TREE_MIB };
    let kubernetes = if with_kubernetes { KUBERNETES_MIB } else { 0 };
    MACHINES_MIB + tree + kubernetes
}

fn space(folder: &Folder) -> Result<Option<String>> {
    let wanted = wanted_space(tree::is_built(folder), crate::folder::kubernetes(folder).is_some());
    let place = folder.path().ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let free = attempted(nix::sys::statvfs::statvfs(place), format!("ask for the space on {}", place.display()))?;
    let free = free.blocks_available() * free.fragment_size() / 1024 / 1024;
    let place = place.display();
    Ok((free < wanted)
        .then(|| format!("{place} has {free} MiB free, and the lab needs {wanted}; KUBESTRAP_LAB_DIR moves it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_without_kubernetes_asks_for_less() {
        assert_eq!(wanted_space(true, false), MACHINES_MIB);
        assert!(wanted_space(false, false) < 2048, "what a small CI machine has left beside a build");
        assert_eq!(wanted_space(false, true), MACHINES_MIB + TREE_MIB + KUBERNETES_MIB);
    }

    #[test]
    fn all_that_is_missing_is_named_with_its_packages_once() {
        let place = tempfile::tempdir().expect("folder");
        std::fs::write(place.path().join("ip"), "").expect("write");
        let wanted =
            [("unshare", "util-linux"), ("ip", "iproute2"), ("chroot", "coreutils"), ("nsenter", "util-linux")];
        let text = missing(&wanted, &[place.path().to_owned()]).expect("something");
        assert!(text.ends_with("unshare, chroot, nsenter; apt-get install coreutils util-linux"), "{text}");
        assert_eq!(missing(&wanted[1..2], &[place.path().to_owned()]), None);
    }
}
