//! The root tree every machine begins with: Debian bookworm, whose systemd 252 is the last that runs on cgroup v1, with
//! containerd 2 of a newer Debian (it needs only glibc 2.34) and the runc of bookworm. Built once; the stamp is written
//! last, so a half-built tree is built again.

pub mod files;
pub mod images;

use crate::command::{program, run};
use crate::folder::{Folder, remove};
use crate::{Result, attempted, fail};
use sha2::{Digest, Sha256};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const SUITE: &str = "bookworm";
const NEWER_SUITE: &str = "forky";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,iptables,nftables,conntrack,ethtool,socat,runc,kmod,procps,\
                        ca-certificates,curl,jq,mount,openssl";
/// Installed by apt afterwards: debootstrap cannot order what Python packages need.
const LATER_PACKAGES: &str = "cloud-init";
/// What is taken from the newer suite, without its dependencies.
const NEWER_PACKAGES: &[&str] = &["containerd", "containernetworking-plugins"];
/// Mirror of Debian; that of this machine's own sources, or debootstrap's, when it is not set.
const MIRROR: &str = "KUBESTRAP_LAB_MIRROR";

/// What the tree is made of: another recipe is another tree.
pub(crate) fn recipe() -> String {
    let mut hash = Sha256::new();
    for part in [SUITE, NEWER_SUITE, PACKAGES, LATER_PACKAGES, &NEWER_PACKAGES.join(","), &files::MASKED.join(",")] {
        hash.update(part);
        hash.update([0]);
    }
    for (path, text) in files::FILES {
        hash.update(path);
        hash.update(text);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn stamp(folder: &Folder) -> PathBuf {
    folder.path().join("tree.stamp")
}

/// Whether the tree of today's recipe is there.
pub fn is_built(folder: &Folder) -> bool {
    std::fs::read_to_string(stamp(folder)).is_ok_and(|text| text == recipe())
}

/// Builds the tree unless it is there. It takes some minutes and a network.
///
/// # Errors
/// When debootstrap or a download fails; what was built is removed by the next try.
pub fn build(folder: &Folder, say: &dyn Fn(&str)) -> Result<()> {
    if is_built(folder) {
        return Ok(());
    }
    let tree = folder.tree();
    let _ = std::fs::remove_file(stamp(folder));
    remove(&tree)?;
    // The images in the cache were imported by another containerd.
    remove(&folder.path().join("images"))?;
    attempted(std::fs::create_dir_all(folder.path()), format!("make {}", folder.path().display()))?;
    say("building the root tree (once; Debian bookworm by debootstrap, some minutes)");
    let mirror = std::env::var(MIRROR).ok().or_else(own_mirror);
    let mut debootstrap = builder("debootstrap", &["--variant=minbase", &format!("--include={PACKAGES}"), SUITE]);
    debootstrap.arg(&tree).args(mirror);
    run(&mut debootstrap)?;
    say("adding cloud-init");
    later_packages(&tree)?;
    say("adding containerd and the CNI plugins of a newer Debian");
    newer_packages(&tree)?;
    furnish(&tree)?;
    attempted(std::fs::write(stamp(folder), recipe()), "write the stamp of the root tree")
}

/// A program that builds the tree. It has its own mounts, and dies with this process, however that dies: debootstrap
/// mounts /proc, and must not go on in a tree that the next lab builds anew.
pub(crate) fn builder(name: &str, arguments: &[&str]) -> Command {
    let mut command = program("setpriv", &["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]);
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", name]).args(arguments);
    command
}

/// The mirror this machine installs its own packages from, when it is a Debian.
fn own_mirror() -> Option<String> {
    let release = std::fs::read_to_string("/etc/os-release").ok()?;
    if !release.lines().any(|line| line == "ID=debian") {
        return None;
    }
    let texts = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    texts.iter().find_map(|path| mirror_in(&std::fs::read_to_string(path).ok()?))
}

/// The first mirror in a file of apt, in either form.
fn mirror_in(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        match words.next()? {
            "URIs:" => words.next(),
            "deb" => words.find(|word| word.contains("://")),
            _ => None,
        }
        .filter(|uri| uri.starts_with("http"))
        .map(str::to_owned)
    })
}

fn later_packages(tree: &Path) -> Result<()> {
    attempted(std::fs::copy("/etc/resolv.conf", tree.join("etc/resolv.conf")), "copy /etc/resolv.conf")?;
    // Nothing is started in a tree.
    let policy = tree.join("usr/sbin/policy-rc.d");
    write(&policy, "#!/bin/sh\nexit 101\n", 0o755)?;
    let script = format!(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q -o Acquire::Check-Valid-Until=false && \
         apt-get install -q -y --no-install-recommends {LATER_PACKAGES}"
    );
    run(builder("chroot", &[]).arg(tree).args(["sh", "-ec", &script]))?;
    attempted(std::fs::remove_file(&policy), "remove the tree's policy")
}

fn newer_packages(tree: &Path) -> Result<()> {
    let list = attempted(std::fs::read_to_string(tree.join("etc/apt/sources.list")), "read the tree's apt sources")?;
    let Some(mirror) = mirror_in(&list) else { return fail("the new tree's apt sources name no mirror") };
    let sources = tree.join("etc/apt/sources.list.d/newer.list");
    attempted(std::fs::write(&sources, format!("deb {mirror} {NEWER_SUITE} main\n")), "name the newer suite")?;
    let names: Vec<String> = NEWER_PACKAGES.iter().map(|name| format!("{name}/{NEWER_SUITE}")).collect();
    // A mirror may be older than its own signature says it may be.
    let script = format!(
        "mkdir -p /newer && cd /newer && apt-get update -q -o Acquire::Check-Valid-Until=false && apt-get download {}",
        names.join(" ")
    );
    run(builder("chroot", &[]).arg(tree).args(["sh", "-ec", &script]))?;
    for package in attempted(std::fs::read_dir(tree.join("newer")), "read the downloaded packages")? {
        let package = package?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            run(program("dpkg-deb", &["-x"]).arg(&package).arg(tree))?;
        }
    }
    remove(&tree.join("newer"))?;
    attempted(std::fs::remove_file(&sources), "forget the newer suite")?;
    let version = run(builder("chroot", &[]).arg(tree).args(["containerd", "--version"]))?;
    if version.contains(" 1.") {
        return fail(format!("the tree's containerd is too old for a current kubelet: {}", version.trim()));
    }
    Ok(())
}

/// Files of our own, masked units, and room for package lists given back.
fn furnish(tree: &Path) -> Result<()> {
    for (path, text) in files::FILES {
        write(&tree.join(path), text, 0o644)?;
    }
    for unit in files::MASKED {
        link("/dev/null", &tree.join("etc/systemd/system").join(unit))?;
    }
    let wants = tree.join("etc/systemd/system/multi-user.target.wants");
    for unit in ["containerd.service", "kubelet.service"] {
        link(&format!("/usr/lib/systemd/system/{unit}"), &wants.join(unit))?;
    }
    // The network is there already: cloud-init would ask for an address for five minutes.
    let _ = std::fs::remove_file(tree.join("usr/sbin/dhclient"));
    // Debian's CNI plugins are where nobody looks for them.
    link("/usr/lib/cni", &tree.join("opt/cni/bin"))?;
    for folder in ["var/lib/etcd", "etc/kubernetes/manifests", "etc/cni/net.d"] {
        attempted(std::fs::create_dir_all(tree.join(folder)), format!("make {folder}"))?;
    }
    for folder in ["var/lib/apt/lists", "var/cache/apt/archives"] {
        remove(&tree.join(folder))?;
    }
    for identity in ["etc/machine-id", "etc/hostname", "var/lib/dbus/machine-id"] {
        let _ = std::fs::remove_file(tree.join(identity));
    }
    Ok(())
}

/// Writes a file with its folders; a link in its place is replaced, not followed.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, text: impl AsRef<[u8]>, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let what = || format!("write {}", path.display());
    if let Some(folder) = path.parent() {
        attempted(std::fs::create_dir_all(folder), what())?;
    }
    if path.is_symlink() {
        attempted(std::fs::remove_file(path), what())?;
    }
    attempted(std::fs::write(path, text), what())?;
    attempted(std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)), what())
}

/// Makes a link, in place of what is there.
///
/// # Errors
/// When it cannot be made.
pub fn link(target: &str, path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        attempted(std::fs::create_dir_all(folder), format!("make {}", folder.display()))?;
    }
    let _ = std::fs::remove_file(path);
    attempted(symlink(target, path), format!("link {} to {target}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_found_in_both_forms() {
        let old = "# x\ndeb [signed-by=/a] http://mirror.example.com/debian bookworm main\n";
        let new = "Types: deb\n# URIs: http://no.example.com\nURIs: http://mirror.example.com/debian\n";
        for text in [old, new] {
            assert_eq!(mirror_in(text).as_deref(), Some("http://mirror.example.com/debian"));
        }
        assert_eq!(mirror_in("deb cdrom:[x]/ bookworm main\n"), None);
    }

    #[test]
    fn a_tree_counts_only_with_todays_stamp() {
        let place = tempfile::tempdir().expect("folder");
        let folder = Folder::at(place.path());
        assert!(!is_built(&folder));
        std::fs::write(stamp(&folder), recipe()).expect("stamp");
        assert!(is_built(&folder));
        std::fs::write(stamp(&folder), "another").expect("stamp");
        assert!(!is_built(&folder));
    }
}
