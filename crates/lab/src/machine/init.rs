//! The first process of a machine: mounts, pivots, and becomes systemd.

use super::start::Plan;
use crate::{Result, attempted, tree};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Devices every container has.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty", "kmsg", "fuse"];

fn plain() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

fn put(source: &str, target: &Path, kind: &str, flags: MsFlags, data: &str) -> Result<()> {
    let data = (!data.is_empty()).then_some(data);
    let made = mount(Some(source), target, Some(kind), flags, data);
    attempted(made, format!("mount {kind} on {}", target.display()))
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    let made = mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    attempted(made, format!("bind {} on {}", source.display(), target.display()))
}

fn folder(path: &Path) -> Result<()> {
    attempted(std::fs::create_dir_all(path), format!("make {}", path.display()))
}

/// Never returns when all goes well.
///
/// # Errors
/// When something cannot be mounted, or systemd not be started.
pub fn run(plan: &Path) -> Result<()> {
    let plan = Plan::read(plan)?;
    let root = plan.home.join("root");
    disk(&plan, &root)?;
    kernel(&plan, &root)?;
    devices(&root.join("dev"))?;
    // Every start is a boot of its own, for the kubelet, journald and kubestrap.
    let boot = plan.home.join("boot_id");
    tree::write(&boot, format!("{}\n", super::random_uuid()), 0o444)?;
    bind(&boot, &root.join("proc/sys/kernel/random/boot_id"))?;
    attempted(std::env::set_current_dir(&root), format!("enter {}", root.display()))?;
    attempted(nix::unistd::pivot_root(".", "mnt"), "make the machine's tree the root")?;
    attempted(std::env::set_current_dir("/"), "enter the new root")?;
    attempted(umount2("/mnt", MntFlags::MNT_DETACH), "leave this machine's tree")?;
    // A kubelet needs its mounts to be seen by the containers it starts.
    let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
    attempted(mount(None::<&str>, "/", None::<&str>, shared, None::<&str>), "share the machine's mounts")?;
    attempted(nix::unistd::sethostname(&plan.name), "set the host name")?;
    let mut systemd = Command::new("/lib/systemd/systemd");
    systemd.env_clear().env("container", "lab").env("PATH", super::exec::PATH);
    attempted(Err(systemd.exec()), "start systemd")
}

fn disk(plan: &Plan, root: &Path) -> Result<()> {
    let disk = plan.home.join("disk");
    let [lower, upper, work] =
        [&plan.tree, &disk.join("upper"), &disk.join("work")].map(|path| path.display().to_string());
    let layers = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    put("overlay", root, "overlay", MsFlags::empty(), &layers)?;
    for (here, there) in &plan.binds {
        let target = root.join(there.trim_start_matches('/'));
        if here.is_dir() {
            folder(&target)?;
        }
        bind(here, &target)?;
    }
    Ok(())
}

fn kernel(plan: &Plan, root: &Path) -> Result<()> {
    put("proc", &root.join("proc"), "proc", plain(), "")?;
    match &plan.instance {
        Some(id) => instance_sysfs(root, id)?,
        None => put("sysfs", &root.join("sys"), "sysfs", plain(), "")?,
    }
    let groups = root.join("sys/fs/cgroup");
    let hierarchies = plan.hierarchies();
    if crate::cgroups::pure_v2(&hierarchies) {
        put("cgroup2", &groups, "cgroup2", plain(), "")?;
    } else {
        put("tmpfs", &groups, "tmpfs", plain(), "mode=755")?;
        for hierarchy in hierarchies {
            let target = groups.join(hierarchy.mount.file_name().unwrap_or_default());
            folder(&target)?;
            put("cgroup", &target, &hierarchy.kind, plain(), &hierarchy.options)?;
        }
    }
    put("tmpfs", &root.join("run"), "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=755")?;
    folder(&root.join("run/lock"))
}

/// A `/sys` that says "EC2". cloud-init speaks IMDSv2 only where it is sure of that, and believes no firmware in a
/// container; but it believes `/sys/hypervisor/uuid`, which EC2's Xen instances have. Nothing can be added to a sysfs:
/// this is a tmpfs with every folder of the real one bound into it.
fn instance_sysfs(root: &Path, id: &str) -> Result<()> {
    let (real, sys) = (root.join("mnt"), root.join("sys"));
    put("sysfs", &real, "sysfs", plain(), "")?;
    put("tmpfs", &sys, "tmpfs", plain(), "mode=755")?;
    for entry in attempted(std::fs::read_dir(&real), "read sysfs")? {
        let entry = entry?;
        folder(&sys.join(entry.file_name()))?;
        bind(&entry.path(), &sys.join(entry.file_name()))?;
    }
    attempted(nix::mount::umount(&real), "unmount sysfs")?;
    let hypervisor = sys.join("hypervisor");
    if hypervisor.is_dir() {
        put("tmpfs", &hypervisor, "tmpfs", plain(), "mode=755")?;
    }
    tree::write(&hypervisor.join("uuid"), format!("ec2{}\n", &id[3..]), 0o444)
}

fn devices(dev: &Path) -> Result<()> {
    put("tmpfs", dev, "tmpfs", MsFlags::MS_NOSUID, "mode=755")?;
    for name in DEVICES {
        let device = Path::new("/dev").join(name);
        if device.exists() {
            tree::write(&dev.join(name), "", 0o666)?;
            bind(&device, &dev.join(name))?;
        }
    }
    for name in ["pts", "shm", "mqueue"] {
        folder(&dev.join(name))?;
    }
    let no_exec = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    put("devpts", &dev.join("pts"), "devpts", no_exec, "newinstance,ptmxmode=0666,mode=0620,gid=5")?;
    put("tmpfs", &dev.join("shm"), "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=1777")?;
    put("mqueue", &dev.join("mqueue"), "mqueue", plain(), "")?;
    tree::link("pts/ptmx", &dev.join("ptmx"))?;
    tree::link("/proc/self/fd", &dev.join("fd"))?;
    for (number, name) in ["stdin", "stdout", "stderr"].iter().enumerate() {
        tree::link(&format!("/proc/self/fd/{number}"), &dev.join(name))?;
    }
    Ok(())
}
