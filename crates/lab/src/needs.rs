//! What this machine must have, asked all at once.

use crate::command::{finish, program};
use crate::folder::Folder;
use crate::{Result, fail, tree};
use std::path::Path;

/// Programs, and the Debian packages that have them.
const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("chroot", "coreutils"),
    ("cp", "coreutils"),
    ("python3", "python3-venv"),
];
/// Needed only while there is no root tree.
const TREE_PROGRAMS: &[(&str, &str)] = &[("debootstrap", "debootstrap"), ("dpkg-deb", "dpkg")];
/// The tree, the images and some machines.
const SPACE_MIB: u64 = 4096;

/// Whether this process may make machines at all: it must be root, and the kernel must let it.
///
/// # Errors
/// With the reason.
pub fn allowed() -> Result<()> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0);
    if !root {
        return fail(
            "the lab makes namespaces and mounts: run it as root, with your own cargo: \
             sudo -E env PATH=\"$PATH\" cargo xtask lab ...",
        );
    }
    let probe = "mount -t tmpfs tmpfs /mnt && mount -t proc proc /proc && ip link set lo up";
    let arguments = ["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--net", "--fork", "sh", "-ec", probe];
    let done = finish(&mut program("unshare", &arguments))?;
    if done.code == Some(0) {
        return Ok(());
    }
    fail(format!(
        "this machine does not let root make namespaces and mounts (is it a container without CAP_SYS_ADMIN?): {}",
        done.stderr.trim()
    ))
}

/// What is missing, with the command that mends it.
///
/// # Errors
/// When something is.
pub fn check(folder: &Folder) -> Result<()> {
    let tree: &[(&str, &str)] = if tree::is_built(folder) { &[] } else { TREE_PROGRAMS };
    let missing: Vec<_> = PROGRAMS.iter().chain(tree).filter(|(name, _)| !exists(name)).collect();
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
        let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        let (names, packages) = (names.join(", "), packages.join(" "));
        return fail(format!("the lab needs programs that are not here: {names}; apt-get install {packages}"));
    }
    allowed()?;
    let place = folder.path().ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let free = nix::sys::statvfs::statvfs(place)?;
    let free = free.blocks_available() * free.fragment_size() / 1024 / 1024;
    if free < SPACE_MIB {
        let place = place.display();
        return fail(format!("{place} has {free} MiB free; the lab needs {SPACE_MIB} (KUBESTRAP_LAB_DIR moves it)"));
    }
    Ok(())
}

fn exists(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}
