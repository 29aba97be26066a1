//! The lab's root tree with a kernel: a second layer over it, kept in the cache. Nothing of it is changed for a machine.

use crate::command::run;
use crate::folder::{Folder, remove};
use crate::{Result, attempted, fail, tree};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A kernel without drivers of real hardware boots soonest; udev and ifupdown are what the tree does without.
/// cloud-init's Ec2 datasource asks for an address with dhclient before there is a network.
const PACKAGES: &str = "linux-image-cloud-amd64 initramfs-tools udev ifupdown isc-dhcp-client qemu-guest-agent";
/// What is masked in the tree and stays so: nothing of it has to do with hardware, and each costs an emulated
/// processor's time during the minutes a scenario lasts.
const STAY_MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-timesyncd.service",
];
/// What an image builder adds for Kubernetes, and what the first boot must find.
const FILES: &[(&str, &str)] = &[
    // Only what leads to the root file system: unpacking costs more than anything else the boot loader's turn has.
    ("etc/initramfs-tools/conf.d/lab", "MODULES=list\nCOMPRESS=gzip\n"),
    ("etc/initramfs-tools/modules", "virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n"),
    // https://kubernetes.io/docs/setup/production-environment/container-runtimes/
    ("etc/modules-load.d/kubernetes.conf", "overlay\nbr_netfilter\n"),
    ("etc/sysctl.d/90-kubernetes.conf", "net.bridge.bridge-nf-call-iptables = 1\nnet.ipv4.ip_forward = 1\n"),
    ("etc/fstab", "LABEL=root / ext4 defaults 0 1\n"),
    // In place of the tree's, which tells cloud-init where it is: here it finds out. No locales are installed.
    ("etc/cloud/cloud.cfg.d/90-lab.cfg", "locale: false\n"),
];
/// `$1` is the tree, `$2` the image's folder, `$3` the packages. The overlay is seen, and lives, here alone. The tree
/// has no dhclient on purpose, even where its package is: hence `--reinstall`. The last touch says that the files of
/// /usr were looked at (ConditionNeedsUpdate=), as at the end of an installation.
const BUILD: &str = "mkdir -p \"$2/layer\" \"$2/work\" \"$2/root\"
mount -t overlay overlay -o \"lowerdir=$1,upperdir=$2/layer,workdir=$2/work\" \"$2/root\"
cd \"$2/root\"
mount -t proc proc proc
cp -a etc/resolv.conf resolv.conf.kept
cp /etc/resolv.conf etc/resolv.conf
printf '#!/bin/sh\\nexit 101\\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
chroot . sh -ec \"export DEBIAN_FRONTEND=noninteractive
apt-get update -q -o Acquire::Check-Valid-Until=false
apt-get install -q -y --no-install-recommends --reinstall -o Dpkg::Options::=--force-confold $3
apt-get clean
rm -rf /var/lib/apt/lists/*\"
rm usr/sbin/policy-rc.d
mv resolv.conf.kept etc/resolv.conf
touch etc/.updated var/.updated";

/// The image: a layer over the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The tree.
    pub tree: PathBuf,
    /// What lies over it.
    pub layer: PathBuf,
    /// The kernel, which QEMU starts without a boot loader.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
}

impl Image {
    /// The image of the tree in the cache; built when it is not there, which takes a minute and a network.
    ///
    /// # Errors
    /// When a package cannot be installed; what was built is removed by the next try.
    pub fn get(folder: &Folder, say: &dyn Fn(&str)) -> Result<Image> {
        let place = folder.vm();
        let (stamp, recipe) = (place.join("stamp"), recipe());
        if std::fs::read_to_string(&stamp).is_ok_and(|text| text == recipe) {
            return Image::at(folder);
        }
        say("adding a kernel to the root tree (once)");
        let began = Instant::now();
        remove(&place)?;
        prepare(&place.join("layer"))?;
        let mut build = tree::builder("sh", &["-ec", BUILD, "image"]);
        run(build.arg(folder.tree()).arg(&place).arg(PACKAGES))?;
        attempted(std::fs::write(&stamp, recipe), format!("write {}", stamp.display()))?;
        say(&format!("the image of virtual machines is built after {:.1} s", began.elapsed().as_secs_f64()));
        Image::at(folder)
    }

    fn at(folder: &Folder) -> Result<Image> {
        let layer = folder.vm().join("layer");
        let boot = layer.join("boot");
        Ok(Image {
            tree: folder.tree(),
            kernel: newest(&boot, "vmlinuz-")?,
            initrd: newest(&boot, "initrd.img-")?,
            layer,
        })
    }
}

/// Our own files come first, for the kernel's installation reads some; a unit is unmasked by an entry of the kind that
/// overlays use for "not there" (character device 0:0), so that packages enable it.
fn prepare(layer: &Path) -> Result<()> {
    use nix::sys::stat::{Mode, SFlag, mknod};
    for (path, text) in FILES {
        tree::write(&layer.join(path), text, 0o644)?;
    }
    let units = layer.join("etc/systemd/system");
    attempted(std::fs::create_dir_all(&units), format!("make {}", units.display()))?;
    for unit in tree::files::MASKED.iter().filter(|unit| !STAY_MASKED.contains(unit)) {
        let made = mknod(&units.join(unit), SFlag::S_IFCHR, Mode::empty(), 0);
        attempted(made, format!("unmask {unit} in {}", layer.display()))?;
    }
    Ok(())
}

fn newest(boot: &Path, name: &str) -> Result<PathBuf> {
    let entries = attempted(std::fs::read_dir(boot), format!("read {}", boot.display()))?;
    let named = |path: &PathBuf| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
    match entries.flatten().map(|entry| entry.path()).filter(named).max() {
        Some(path) => Ok(path),
        None => fail(format!("{} has no {name}*; `cargo xtask lab clean` removes the broken image", boot.display())),
    }
}

/// What the image is made of: another recipe, or another tree, is another image.
fn recipe() -> String {
    let mut hash = Sha256::new();
    for part in [&tree::recipe(), PACKAGES, BUILD, &STAY_MASKED.join(",")] {
        hash.update(part);
        hash.update([0]);
    }
    for (path, text) in FILES {
        hash.update(path);
        hash.update(text);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_is_unmasked_and_nothing_unknown_stays_masked() {
        for unit in STAY_MASKED {
            assert!(tree::files::MASKED.contains(unit), "{unit} is not masked in the tree");
        }
        for unit in ["systemd-udevd.service", "networking.service", "systemd-modules-load.service"] {
            assert!(!STAY_MASKED.contains(&unit), "{unit}");
        }
    }

    #[test]
    fn cloud_init_is_not_told_where_it_is() {
        let cloud: Vec<&str> = FILES.iter().filter(|(path, _)| path.contains("cloud")).map(|(_, text)| *text).collect();
        assert_eq!(cloud, ["locale: false\n"]);
        let replaced = FILES.iter().map(|(path, _)| path).filter(|path| path.contains("cloud"));
        assert!(replaced.clone().all(|path| tree::files::FILES.iter().any(|(theirs, _)| theirs == path)));
        assert_eq!(replaced.count(), 1);
    }
}
