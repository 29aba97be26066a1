//! `packer/scripts/clean.sh` and `check.sh` against the tree of an image: every kind of dirt alone is found and named, all
//! of it is removed, and what was installed stays.

use super::{as_root, expect, put};
use kubestrap_lab::command::{Finished, finish};
use kubestrap_lab::{Result, attempted, fail};
use std::os::unix::fs::symlink;
use std::path::Path;

/// What must not be in an image.
const DIRT: &[&str] = &[
    "var/lib/dbus/machine-id",
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_rsa_key.pub",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "etc/udev/rules.d/70-persistent-net.rules",
    "etc/netplan/50-cloud-init.yaml",
    "var/lib/dhcp/dhclient.eth0.leases",
    "var/lib/cloud/instance/boot-finished",
    "var/lib/cloud/instances/i-0abc/user-data.txt",
    "var/lib/cloud/data/instance-id",
    "root/.ssh/authorized_keys",
    "home/admin/.ssh/authorized_keys",
    "home/admin/.ssh/id_ed25519",
    "root/.aws/credentials",
    "home/admin/.docker/config.json",
    "root/.kube/config",
    "root/.bash_history",
    "var/lib/kubestrap/journal.json",
    "var/cache/kubestrap/install/sha256/abc",
    "etc/kubestrap/config.yaml",
    "etc/kubestrap/config.d/10-node.yaml",
    "var/lib/kubelet/config.yaml",
    "var/lib/kubelet/pki/kubelet.key",
    "etc/kubernetes/pki/ca.key",
    "etc/kubernetes/kubelet.conf",
    "etc/kubernetes/manifests/etcd.yaml",
    "var/lib/etcd/member/wal",
    "var/lib/cni/networks/pod",
    "etc/cni/net.d/10-node.conflist",
    "var/lib/containerd/io.containerd.runtime.v2.task/k8s.io/abc/config.json",
    "var/log/journal/0123/system.journal",
    "var/log/cloud-init.log",
    "var/log/apt/history.log",
    "var/tmp/kubestrap-bake/bundle.tar",
    "tmp/script.sh",
];
/// What clean-up leaves as it is.
const KEPT: &[&str] = &[
    "etc/containerd/config.toml",
    "etc/crictl.yaml",
    "var/lib/cloud/seed/nocloud/meta-data",
    "var/lib/containerd/io.containerd.content.v1.content/blobs/sha256/abc",
    "etc/ssh/sshd_config",
    "opt/cni/bin/bridge",
];
const UNITS: [&str; 3] = ["kubestrap.service", "kubelet.service", "containerd.service"];
const WANTS: &str = "etc/systemd/system/multi-user.target.wants";
const MANIFEST: &str = "usr/lib/kubestrap/manifest.json";
const BAKED: &str = r#"{"schema":1,"components":[{"name":"kubelet","version":"v1.36.1","path":"/usr/bin/kubelet",
    "sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}"#;
const SHADOW: &str = "root:*:20000:0:99999:7:::\nadmin:!:20000:0:99999:7:::\ndaemon:*:20000:0:99999:7:::\n";

pub(super) fn judge(kubestrap: &Path) -> Result<()> {
    let folder = attempted(tempfile::tempdir(), "make a folder")?;
    let root = folder.path();
    install(root, kubestrap)?;
    expect(&check(root, true)?, 0, &["clean; content sha256:"], "check.sh of a clean image")?;

    for dirt in DIRT {
        put(&root.join(dirt), "x", 0o600)?;
        // Where a whole folder must not be, it is the folder that is named.
        let above = Path::new(dirt).parent().unwrap_or(Path::new("")).display().to_string();
        let done = check(root, true)?;
        expect(&done, 1, &["wrong with this image"], &format!("check.sh with {dirt}"))?;
        if !done.stderr.contains(dirt) && !done.stderr.contains(&above) {
            return fail(format!("check.sh does not name {dirt}:\n{}", done.stderr));
        }
        std::fs::remove_file(root.join(dirt))?;
        std::fs::remove_dir(root.join(&above)).ok();
    }
    what_is_missing(root)?;

    for dirt in DIRT {
        put(&root.join(dirt), "x", 0o600)?;
    }
    put(&root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n", 0o444)?;
    expect(&check(root, true)?, 1, &["/etc/machine-id: has a value"], "check.sh of a dirty image")?;
    let done = finish(as_root("packer/scripts/clean.sh")?.arg(root))?;
    expect(&done, 0, &[], "clean.sh")?;
    expect(&check(root, true)?, 0, &["clean; content sha256:"], "check.sh after clean.sh")?;
    if let Some(gone) = KEPT.iter().find(|kept| !root.join(kept).exists()) {
        return fail(format!("clean.sh removed {gone}"));
    }
    println!("packer/: check.sh finds {} kinds of dirt, clean.sh removes them and nothing else", DIRT.len() + 1);
    Ok(())
}

/// A tree as `kubestrap install` leaves it.
fn install(root: &Path, kubestrap: &Path) -> Result<()> {
    let wrapper = format!("#!/bin/sh\nexec '{}' \"$@\"\n", kubestrap.display());
    put(&root.join("usr/bin/kubestrap"), &wrapper, 0o755)?;
    for program in ["containerd", "runc", "crictl", "kubeadm", "kubelet", "kubectl"] {
        put(&root.join("usr/bin").join(program), "", 0o755)?;
    }
    put(&root.join(MANIFEST), BAKED, 0o644)?;
    put(&root.join("etc/machine-id"), "", 0o444)?;
    put(&root.join("etc/shadow"), SHADOW, 0o600)?;
    for kept in KEPT {
        put(&root.join(kept), "x", 0o644)?;
    }
    std::fs::create_dir_all(root.join(WANTS))?;
    for unit in UNITS {
        symlink(Path::new("/usr/lib/systemd/system").join(unit), root.join(WANTS).join(unit))?;
    }
    // Folders that are there and empty are no dirt.
    for folder in ["var/lib/kubelet", "etc/kubernetes/manifests", "var/log/journal", "tmp", "root", "home/admin"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    put(&root.join("var/log/wtmp"), "the reboot", 0o644)
}

fn check(root: &Path, enabled: bool) -> Result<Finished> {
    let mut command = as_root("packer/scripts/check.sh")?;
    finish(command.arg(root).env("BAKE_ENABLE", enabled.to_string()))
}

/// What an image needs, taken away one by one.
fn what_is_missing(root: &Path) -> Result<()> {
    for (path, complaint) in [
        ("etc/machine-id", "must be an empty file"),
        ("usr/bin/kubestrap", "/usr/bin/kubestrap: is not there"),
        ("usr/bin/runc", "runc: is not there"),
        (MANIFEST, "kubestrap cannot read it"),
        ("etc/systemd/system/multi-user.target.wants/kubelet.service", "kubelet.service: does not start"),
        ("etc/systemd/system/multi-user.target.wants/kubestrap.service", "kubestrap.service: does not start"),
    ] {
        let aside = root.join("usr/aside");
        std::fs::rename(root.join(path), &aside)?;
        expect(&check(root, true)?, 1, &[complaint], &format!("check.sh without {path}"))?;
        std::fs::rename(aside, root.join(path))?;
    }
    for (path, text, complaint) in [
        (MANIFEST, "{\"schema\":1", "kubestrap cannot read it"),
        ("etc/shadow", "admin:$y$j9T$abc:20000::::::\n", "admin has a password"),
        ("etc/shadow", "admin::20000::::::\n", "admin needs no password"),
    ] {
        let before = std::fs::read_to_string(root.join(path))?;
        put(&root.join(path), text, 0o600)?;
        expect(&check(root, true)?, 1, &[complaint], &format!("check.sh with {text:?} in {path}"))?;
        put(&root.join(path), &before, 0o644)?;
    }
    expect(&check(root, false)?, 1, &["kubestrap.service: starts at boot"], "check.sh with BAKE_ENABLE=false")
}
