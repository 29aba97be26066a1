//! A machine's disk: an overlay over the root tree, and folders of this machine's real disk where an overlay will not
//! do (overlays do not stack).

use super::{Boot, Machine, Spec, paths};
use crate::tree::{link, write};
use crate::{Result, attempted, cgroups, command, folder, mounts, network};
use nix::mount::MsFlags;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Bound from the real disk: folder here, path there.
pub const BOUND: &[(&str, &str)] =
    &[("disk/kubelet", "/var/lib/kubelet"), ("disk/etcd", "/var/lib/etcd"), ("containerd", "/var/lib/containerd")];
/// Where the repository's own files are.
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The folder of what is different from the tree.
pub fn upper(machine: &Machine) -> PathBuf {
    machine.folder().join("disk/upper")
}

/// Makes the disk of a new machine.
pub fn create(machine: &Machine, spec: &Spec) -> Result<()> {
    let home = machine.folder();
    remove(machine)?;
    attempted(std::fs::create_dir_all(home.join("disk")), format!("make {}", home.display()))?;
    if let Some(size) = spec.disk_mib {
        write(&home.join("disk-mib"), size.to_string(), 0o644)?;
    }
    if !spec.metadata {
        write(&home.join("bare-metal"), "", 0o644)?;
    }
    mount(machine)?;
    for name in ["disk/upper", "disk/work", "disk/kubelet", "disk/etcd", "root"] {
        attempted(std::fs::create_dir_all(home.join(name)), format!("make the disk of {}", machine.name()))?;
    }
    images(machine)?;
    furnish(machine, spec)?;
    for file in &spec.files {
        write(&upper(machine).join(file.path.trim_start_matches('/')), &file.text, file.mode)?;
    }
    Ok(())
}

/// Mounts a disk of limited size, unless it is mounted or there is no limit.
pub fn mount(machine: &Machine) -> Result<()> {
    let home = machine.folder();
    let Ok(size) = std::fs::read_to_string(home.join("disk-mib")) else { return Ok(()) };
    let disk = home.join("disk");
    if mounts::is_mounted(&disk) {
        return Ok(());
    }
    let options = format!("size={size}m,mode=755");
    attempted(
        nix::mount::mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::MS_NODEV, Some(&*options)),
        format!("mount a disk of {size} MiB on {}", disk.display()),
    )
}

/// Removes the disk; nothing when there is none.
pub fn remove(machine: &Machine) -> Result<()> {
    let home = machine.folder();
    folder::remove(&home)
}

/// Containerd's folder: layers never change and are hard links; its data bases are copied.
fn images(machine: &Machine) -> Result<()> {
    let place = machine.folder().join("containerd");
    let Some(template) = machine.shared.images.borrow().clone() else {
        return attempted(std::fs::create_dir_all(&place), format!("make {}", place.display()));
    };
    command::run(command::program("cp", &["-al"]).arg(&template).arg(&place))?;
    unlink(&place)
}

fn unlink(folder: &Path) -> Result<()> {
    for entry in attempted(std::fs::read_dir(folder), format!("read {}", folder.display()))? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            if !["snapshots", "blobs"].contains(&&*entry.file_name().to_string_lossy()) {
                unlink(&path)?;
            }
        } else if kind.is_file() {
            let copy = path.with_extension("copy");
            attempted(std::fs::copy(&path, &copy), format!("copy {}", path.display()))?;
            attempted(std::fs::rename(&copy, &path), format!("replace {}", path.display()))?;
        }
    }
    Ok(())
}

fn furnish(machine: &Machine, spec: &Spec) -> Result<()> {
    let upper = upper(machine);
    let put = |path: &str, text: &str| write(&upper.join(path), text, 0o644);
    put("etc/hostname", &format!("{}\n", machine.name()))?;
    put("etc/machine-id", &format!("{}\n", super::random_uuid().replace('-', "")))?;
    put("etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost\n")?;
    put("etc/cni/net.d/10-lab.conflist", &cni(machine.number()))?;
    put("etc/containerd/config.toml", &containerd(machine, Kernel::Shared))?;
    put("usr/lib/kubestrap/config.d/50-lab.yaml", &baked(machine, spec))?;
    for (path, _) in &machine.shared.programs {
        // Something for the program to be bound over.
        write(&upper.join(path.trim_start_matches('/')), "", 0o755)?;
    }
    units(&upper)?;
    if spec.boot != Boot::CloudInit {
        put("etc/cloud/cloud-init.disabled", "")?;
    }
    if spec.boot == Boot::Baked {
        let wanted = upper.join("etc/systemd/system/multi-user.target.wants/kubestrap.service");
        link("/usr/lib/systemd/system/kubestrap.service", &wanted)?;
    }
    Ok(())
}

/// The units as the repository has them, in the places of its packages.
fn units(upper: &Path) -> Result<()> {
    let source = Path::new(REPOSITORY).join("systemd");
    for (from, to) in [
        ("kubestrap.service", "usr/lib/systemd/system/kubestrap.service"),
        ("kubestrap.tmpfiles.conf", "usr/lib/tmpfiles.d/kubestrap.conf"),
        ("kubelet.service.d/20-kubestrap.conf", "usr/lib/systemd/system/kubelet.service.d/20-kubestrap.conf"),
    ] {
        let text = attempted(std::fs::read(source.join(from)), format!("read systemd/{from}"))?;
        write(&upper.join(to), text, 0o644)?;
    }
    Ok(())
}

fn cni(number: u8) -> String {
    let text = json!({
        "cniVersion": "1.0.0",
        "name": "lab",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": network::pods(number) }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    format!("{text:#}\n")
}

/// Whose kernel a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// This machine's, with what it has and lets namespaces do.
    Shared,
    /// One of its own.
    Own,
}

/// Only cgroup v1 needs the cgroupfs driver; a kernel without CAP_SYS_RESOURCE may not lower anybody's OOM score.
pub fn containerd(machine: &Machine, kernel: Kernel) -> String {
    let shared = kernel == Kernel::Shared;
    let systemd = !shared || cgroups::pure_v2(&machine.shared.hierarchies);
    let sandbox = crate::tree::images::sandbox(machine.shared.kubernetes.as_deref());
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{sandbox}"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = {shared}
  enable_selinux = false
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/opt/cni/bin"]
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "/usr/sbin/runc"
  SystemdCgroup = {systemd}
"#
    )
}

/// What an image builder would bake for this place: where AWS is, and what this kernel cannot do.
fn baked(machine: &Machine, spec: &Spec) -> String {
    let aws = network::AWS;
    let v1 = !cgroups::pure_v2(&machine.shared.hierarchies);
    let mut config = json!({
        "node": { "cri_socket": "unix:///run/containerd/containerd.sock" },
        "kubeadm": {
            "KubeletConfiguration": { "failSwapOn": false, "oomScoreAdj": 0 },
            "KubeProxyConfiguration": { "oomScoreAdj": 0, "conntrack": { "maxPerCore": 0, "min": 0 } },
        },
    });
    if spec.metadata {
        config["identity"] = json!("ec2");
        config["s3"] = json!({ "endpoint": format!("http://{aws}:5000"), "region": "us-east-1" });
        let endpoint = format!("http://{aws}:5000");
        config["aws"] = json!({
            "ec2_endpoint": endpoint, "ssm_endpoint": endpoint, "autoscaling_endpoint": endpoint,
            "kms_endpoint": endpoint,
        });
    } else {
        config["identity"] = json!("host");
    }
    let mut ignored = vec![
        "NumCPU",
        "Mem",
        "FileContent--proc-sys-net-bridge-bridge-nf-call-iptables",
        "FileContent--proc-sys-net-ipv4-ip_forward",
    ];
    if v1 {
        ignored.push("SystemVerification");
        config["kubeadm"]["KubeletConfiguration"]["failCgroupV1"] = json!(false);
        config["kubeadm"]["KubeletConfiguration"]["cgroupDriver"] = json!("cgroupfs");
    }
    for kind in ["InitConfiguration", "JoinConfiguration"] {
        config["kubeadm"][kind] = json!({ "nodeRegistration": { "ignorePreflightErrors": ignored } });
    }
    format!("# What this lab's machines have instead of AWS and a kernel of their own.\n{config:#}\n")
}

/// Where a file of the machine is here; its last name is followed when it is a link and that is wanted. On a machine that
/// is off, what was removed there is not there.
pub fn place(machine: &Machine, path: &str, last: bool) -> Result<PathBuf> {
    let root = machine.init().map(|init| PathBuf::from(format!("/proc/{}/root", init.pid)));
    let here = |inside: &Path| root.as_ref().map_or_else(|| layer(machine, inside), |root| root.join(inside));
    Ok(here(&paths::follow(path, last, |inside| std::fs::read_link(here(inside)).ok())?))
}

/// Where a file lies on the disk of a machine that is off.
fn layer(machine: &Machine, inside: &Path) -> PathBuf {
    for (here, there) in BOUND {
        if let Ok(rest) = inside.strip_prefix(there.trim_start_matches('/')) {
            return machine.folder().join(here).join(rest);
        }
    }
    let (changed, original) = (upper(machine).join(inside), machine.shared.folder.tree().join(inside));
    let is_original = !paths::is_removed(&upper(machine), inside) && changed.symlink_metadata().is_err();
    if is_original && original.symlink_metadata().is_ok() { original } else { changed }
}

/// Where a file of a machine can be written: on a machine that is off, never in the tree that all machines share.
pub fn writable(machine: &Machine, path: &str) -> Result<PathBuf> {
    let place = place(machine, path, false)?;
    let Ok(inside) = place.strip_prefix(machine.shared.folder.tree()) else {
        // What was removed is there again.
        if paths::is_whiteout(&place) {
            attempted(std::fs::remove_file(&place), format!("write {}", place.display()))?;
        }
        return Ok(place);
    };
    Ok(upper(machine).join(inside))
}
