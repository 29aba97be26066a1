//! A machine in a folder: its programs act on files, so that what they did outlives the installation that ran them.

use super::pass;
use crate::host::{Ended, Programs, digest_of};
use async_trait::async_trait;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::fmt::Write as _;
use std::fs::{create_dir_all, read_to_string, write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What systemd has read of the units.
const READ: &str = "sim/units-read";
/// What containerd runs with; absent while it does not run.
const RUNS_WITH: &str = "sim/containerd-runs-with";
/// Names and digests of containerd's images.
const IMAGES: &str = "sim/images";
/// containerd's store: manifests by digest.
const CONTENT: &str = "sim/content";
const UNITS: &str = "usr/local/lib/systemd/system";

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) root: PathBuf,
    /// Whether containerd counts as started long after its files were written, or in the same second.
    pub(super) starts_late: bool,
}

impl Machine {
    /// A live one with nothing but a kernel, systemd, and a line of swap.
    pub(super) fn make(root: &Path) {
        let folders = ["proc/sys/net/ipv4", "sys/module", "sys/fs/cgroup", "run/systemd/system", "run/containerd"];
        for folder in folders.iter().chain(&["lib/modules/6.12.0", "etc", "sim"]) {
            create_dir_all(root.join(folder)).expect("mkdir");
        }
        put(root, "proc/sys/kernel/osrelease", "6.12.0\n");
        put(root, "proc/sys/net/ipv4/ip_forward", "0\n");
        put(root, "proc/filesystems", "nodev\tproc\n");
        put(root, "proc/swaps", "Filename Type Size Used Priority\n/swapfile file 1 0 -2\n");
        put(root, "sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
        put(root, "etc/fstab", "/dev/vda1 / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n");
    }

    fn read(&self, path: &str) -> String {
        read_to_string(self.root.join(path)).unwrap_or_default()
    }

    fn units(&self) -> String {
        ["containerd.service", "kubelet.service", "kubelet.service.d/10-kubeadm.conf"]
            .iter()
            .map(|unit| digest_of(&self.read(&format!("{UNITS}/{unit}"))))
            .collect()
    }

    /// What containerd would be started with now. systemd starts it by the unit that it has read.
    fn inputs(&self) -> String {
        let program = ["usr/local/bin/containerd", "usr/bin/containerd"].iter().map(|path| self.read(path));
        let program = program.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
        digest_of(&format!("{program}{}{}", self.read("etc/containerd/config.toml"), self.read(READ)))
    }

    /// Why the machine is not one whose services run with what is there now.
    pub(super) fn complaint(&self) -> Option<String> {
        let checks = [
            ("systemd has not read its units", self.read(READ) == self.units()),
            ("containerd runs with something else", self.read(RUNS_WITH) == self.inputs()),
            ("there is swap", self.read("proc/swaps").lines().count() == 1),
            ("a module is not loaded", self.root.join("sys/module/br_netfilter").exists()),
            ("nothing is forwarded", self.read("proc/sys/net/ipv4/ip_forward").trim() == "1"),
            ("bridges are not filtered", self.read("proc/sys/net/bridge/bridge-nf-call-iptables").trim() == "1"),
        ];
        checks.iter().find(|(_, is_well)| !is_well).map(|(why, _)| (*why).to_owned())
    }

    fn show(&self, property: &str) -> String {
        let has_read = self.read(READ);
        match property {
            "NeedDaemonReload" if !has_read.is_empty() && has_read != self.units() => "yes",
            "NeedDaemonReload" => "no",
            "ActiveState" if self.root.join(RUNS_WITH).exists() => "active",
            "ActiveState" => "inactive",
            _ if self.starts_late => "@99999999999",
            _ => "@0",
        }
        .to_owned()
    }

    fn modprobe(&self, name: &str) {
        create_dir_all(self.root.join("sys/module").join(name)).expect("mkdir");
        if name == "br_netfilter" {
            create_dir_all(self.root.join("proc/sys/net/bridge")).expect("mkdir");
            put(&self.root, "proc/sys/net/bridge/bridge-nf-call-iptables", "0\n");
            put(&self.root, "proc/sys/net/bridge/bridge-nf-call-ip6tables", "0\n");
        }
    }

    fn name_image(&self, name: &str, digest: &str) {
        let mut images: Vec<String> = self.read(IMAGES).lines().map(str::to_owned).collect();
        images.retain(|line| line.split(' ').next() != Some(name));
        images.push(format!("{name} application/x {digest} 1.0 MiB - -"));
        images.sort();
        put(&self.root, IMAGES, &(images.join("\n") + "\n"));
    }

    /// What only looks; `None` for what changes something.
    fn look(&self, argv: &[&str]) -> Option<(i32, String)> {
        Some(match argv {
            ["systemctl", "show", .., property, _unit] => (0, self.show(property)),
            ["ctr", _, _, "images", "list", ..] => (0, format!("REF TYPE DIGEST\n{}", self.read(IMAGES))),
            ["ctr", _, _, "content", "get", digest] => match self.read(&format!("{CONTENT}/{digest}")) {
                text if text.is_empty() => (1, String::new()),
                text => (0, text),
            },
            ["/usr/bin/containerd", "--version"] => (0, "containerd x 2.0.5".to_owned()),
            ["dpkg-query", _, "-S", "/etc/containerd/config.toml"] => {
                (0, "containerd: /etc/containerd/config.toml\n".to_owned())
            }
            ["dpkg-query", ..] => (1, String::new()),
            ["dpkg", _, "--verify", "containerd"] => {
                let is_the_packages = self.read("etc/containerd/config.toml") == "of the package\n";
                (0, if is_the_packages { String::new() } else { "??5?????? c /etc/containerd/config.toml\n".into() })
            }
            _ => return None,
        })
    }

    fn change(&self, argv: &[&str]) {
        match argv {
            ["systemctl", "daemon-reload"] => put(&self.root, READ, &self.units()),
            ["systemctl", "restart", "containerd.service"] => {
                if self.read(READ).is_empty() {
                    put(&self.root, READ, &self.units());
                }
                put(&self.root, RUNS_WITH, &self.inputs());
            }
            ["modprobe", name] => self.modprobe(name),
            ["swapoff", "--all"] => put(&self.root, "proc/swaps", "Filename Type Size Used Priority\n"),
            ["ctr", _, _, "images", "pull", .., name] => {
                self.name_image(name, name.split_once('@').expect("by digest").1);
            }
            ["ctr", _, _, "images", "tag", "--force", from, name] => {
                self.name_image(name, from.split_once('@').expect("by digest").1);
            }
            ["ctr", _, _, "images", "import", path] => {
                for line in read_to_string(path).expect("an archive").lines() {
                    let words: Vec<&str> = line.splitn(3, ' ').collect();
                    let [name, digest, manifest] = words[..] else { panic!("no image: {line}") };
                    put(&self.root, &format!("{CONTENT}/{digest}"), manifest);
                    self.name_image(name, digest);
                }
            }
            ["ctr", _, _, "images", "label", name, label] => {
                let listed = self.read(IMAGES);
                let labelled = listed.lines().map(|line| match line.strip_suffix('-') {
                    Some(row) if line.starts_with(&format!("{name} ")) => format!("{row}{label}\n"),
                    _ => format!("{line}\n"),
                });
                put(&self.root, IMAGES, &labelled.collect::<String>());
            }
            _ => panic!("a program that no test knows: {argv:?}"),
        }
    }
}

#[async_trait(?Send)]
impl Programs for Machine {
    async fn run(&self, argv: &[&str], _deadline: Duration) -> Outcome<Ended> {
        if argv.iter().any(|word| word.is_empty()) {
            return Err(Failure::new(Cause::Internal, "run", "an empty word"));
        }
        let (code, stdout) = self.look(argv).unwrap_or_else(|| {
            pass(&format!("run {}", argv.join(" ")), None);
            self.change(argv);
            (0, String::new())
        });
        Ok(Ended { code: Some(code), stdout, stderr: String::new() })
    }
}

/// Writes a file, with its folders.
pub(super) fn put(root: &Path, path: &str, text: &str) {
    let place = root.join(path);
    create_dir_all(place.parent().expect("a folder")).expect("mkdir");
    write(place, text).expect("write");
}

/// Everything below a folder: a line each, with its kind, mode and content.
pub(super) fn picture(root: &Path) -> String {
    use std::os::unix::fs::PermissionsExt;
    let (mut text, mut folders) = (String::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().expect("read").flatten() {
            let (path, data) = (entry.path(), entry.path().symlink_metadata().expect("metadata"));
            let content = if data.is_dir() {
                folders.push(path.clone());
                "folder".to_owned()
            } else if data.is_symlink() {
                format!("to {}", path.read_link().expect("link").display())
            } else {
                String::from_utf8_lossy(&std::fs::read(&path).expect("read")).into_owned()
            };
            let name = path.strip_prefix(root).expect("below").display().to_string();
            let _ = writeln!(text, "{name}\t{:04o}\t{content:?}", data.permissions().mode() & 0o7777);
        }
    }
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// A new folder, in memory where that is possible.
pub(super) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("folder")
}

/// A copy of a machine, with modes and links.
pub(super) fn copy_of(machine: &Path) -> tempfile::TempDir {
    let (copy, mut folders) = (folder(), vec![PathBuf::new()]);
    while let Some(below) = folders.pop() {
        for entry in machine.join(&below).read_dir().expect("read").flatten() {
            let (from, name) = (entry.path(), below.join(entry.file_name()));
            let (to, data) = (copy.path().join(&name), from.symlink_metadata().expect("metadata"));
            if data.is_dir() {
                std::fs::create_dir(&to).expect("mkdir");
                std::fs::set_permissions(&to, data.permissions()).expect("chmod");
                folders.push(name);
            } else if data.is_symlink() {
                std::os::unix::fs::symlink(from.read_link().expect("link"), &to).expect("link");
            } else {
                std::fs::copy(&from, &to).expect("copy");
            }
        }
    }
    copy
}
