//! A virtual machine's disk: an ext4 file system that is filled while it is made, with the image and everything the
//! machine of the lab has on its own. It needs no loop device, and no mount that outlives the program that makes it.

use super::image::Image;
use super::qemu::Accelerator;
use crate::command::run;
use crate::machine::{Machine, disk};
use crate::{Result, network, tree};
use serde_json::json;
use std::path::PathBuf;

/// A sparse file: what is not used costs nothing.
const SIZE: &str = "10G";
/// kubeadm gives a control plane four minutes to answer; an emulated processor beside a compiler needs longer.
const PATIENCE: &str = "15m0s";
/// `$1` is the lower layers, `$2` the machine's folder, `$3` the disk, `$4` its size; then pairs of a program here and
/// its path there. The overlay and what is bound over it are seen, and live, here alone.
const FILL: &str = "lower=$1 home=$2 disk=$3 size=$4
shift 4
mount -t overlay overlay -o \"lowerdir=$lower,upperdir=$home/disk/upper,workdir=$home/disk/work\" \"$home/root\"
while [ $# -gt 0 ]; do mount --bind \"$1\" \"$home/root$2\"; shift 2; done
mkdir -p \"$home/root/var/lib/containerd\"
mount --bind \"$home/containerd\" \"$home/root/var/lib/containerd\"
mkfs.ext4 -q -F -L root -E lazy_itable_init=0,lazy_journal_init=0 -d \"$home/root\" \"$disk\" \"$size\"";

/// The kubelet stand-in runs no static pods, and what its kubeadm starts ends with kubeadm's unit, as systemd has it.
const STAND_IN_PODS: &[(&str, &str)] = &[
    (
        "/etc/systemd/system/standin-apiserver.path",
        "[Path]\nPathExists=/etc/kubernetes/manifests/kube-apiserver.yaml\n",
    ),
    (
        "/etc/systemd/system/standin-apiserver.service",
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/usr/bin/kubeadm standin-apiserver --rootfs /\n\
         Restart=always\nRestartSec=1\n",
    ),
];

/// Where the disk is.
pub fn path(machine: &Machine) -> PathBuf {
    machine.folder().join("disk.ext4")
}

/// Makes the disk.
///
/// # Errors
/// When a file cannot be written, or mkfs.ext4 fails.
pub fn create(machine: &Machine, image: &Image, accelerator: Accelerator) -> Result<()> {
    first_boot(machine, accelerator)?;
    let lower = format!("{}:{}", image.layer.display(), image.tree.display());
    let mut fill = tree::builder("sh", &["-ec", FILL, "disk"]);
    fill.arg(lower).arg(machine.folder()).arg(path(machine)).arg(SIZE);
    for (there, here) in &machine.shared.programs {
        fill.arg(here).arg(there);
    }
    run(&mut fill).map(drop)
}

/// What the image of a machine that never ran looks like, and none of what namespaces need.
fn first_boot(machine: &Machine, accelerator: Accelerator) -> Result<()> {
    let put = |path: &str, text: &str| super::put(machine, path, text, 0o644);
    // machine-id(5): empty, and systemd makes one; "uninitialized" would ask for a password on the console too.
    put("/etc/machine-id", "")?;
    // cloud-init gives the name that IMDS has.
    put("/etc/hostname", "localhost\n")?;
    put("/etc/containerd/config.toml", &disk::containerd(machine, disk::Kernel::Own))?;
    put("/usr/lib/kubestrap/config.d/50-lab.yaml", &baked(accelerator))?;
    if machine.shared.kubernetes.is_some() {
        return Ok(());
    }
    STAND_IN_PODS.iter().try_for_each(|(path, text)| put(path, text))?;
    let wants = disk::upper(machine).join("etc/systemd/system/paths.target.wants/standin-apiserver.path");
    tree::link("/etc/systemd/system/standin-apiserver.path", &wants)
}

/// Where AWS is, as in namespaces. `identity` is not there: firmware decides.
fn baked(accelerator: Accelerator) -> String {
    let aws = format!("http://{}:5000", network::AWS);
    let mut config = json!({
        "s3": { "endpoint": aws, "region": "us-east-1" },
        "aws": { "ec2_endpoint": aws },
    });
    if accelerator == Accelerator::Emulated {
        let patience =
            json!({ "timeouts": { "controlPlaneComponentHealthCheck": PATIENCE, "kubeletHealthCheck": PATIENCE } });
        config["kubeadm"] = json!({ "InitConfiguration": patience });
    }
    format!("# What this lab's machines have instead of AWS.\n{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_baked_configuration_says_where_it_is_or_helps_an_odd_kernel() {
        for accelerator in [Accelerator::Kvm, Accelerator::Emulated] {
            let text = baked(accelerator);
            for word in ["identity", "ignorePreflightErrors", "cgroup", "oomScoreAdj", "conntrack"] {
                assert!(!text.contains(word), "{word} in {text}");
            }
            assert_eq!(text.contains(PATIENCE), accelerator == Accelerator::Emulated, "{text}");
        }
    }
}
