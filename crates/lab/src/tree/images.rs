//! Container images: imported once into a containerd of a machine of its own, whose folder then is the template.

use crate::lab::Lab;
use crate::machine::{Boot, Spec};
use crate::{Result, attempted, command, fail};
use sha2::{Digest, Sha256};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The pause image a containerd is told of when there are no images at all.
const NO_SANDBOX: &str = "registry.k8s.io/pause:3.10";

/// What a Kubernetes folder holds, in one word: names, sizes and times.
///
/// # Errors
/// When the folder cannot be read.
pub fn fingerprint(kubernetes: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for path in archives(kubernetes)?.into_iter().chain([kubernetes.join("kubeadm")]) {
        let data = attempted(std::fs::metadata(&path), format!("look at {}", path.display()))?;
        hash.update(format!("{} {} {}\n", path.display(), data.size(), data.mtime()));
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// The archives of a Kubernetes folder, in the order of their names.
///
/// # Errors
/// When there is none.
pub fn archives(kubernetes: &Path) -> Result<Vec<PathBuf>> {
    let place = kubernetes.join("images");
    let entries = attempted(std::fs::read_dir(&place), format!("read {}", place.display()))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    found.sort();
    if found.is_empty() {
        return fail(format!("{} has no images/*.tar; docs/lab.md says where they come from", kubernetes.display()));
    }
    Ok(found)
}

/// The pause image this kubeadm expects.
pub fn sandbox(kubernetes: Option<&Path>) -> String {
    let Some(kubernetes) = kubernetes else { return NO_SANDBOX.to_owned() };
    let kubeadm = kubernetes.join("kubeadm").display().to_string();
    let version = command::run(&mut command::program(&kubeadm, &["version", "-o", "short"])).unwrap_or_default();
    let arguments = ["config", "images", "list", "--kubernetes-version", version.trim()];
    let images = command::run(&mut command::program(&kubeadm, &arguments)).unwrap_or_default();
    images.lines().find(|name| name.contains("/pause:")).unwrap_or(NO_SANDBOX).to_owned()
}

/// The template of this lab's Kubernetes folder, made when it is not there; `None` without Kubernetes.
///
/// # Errors
/// When an image cannot be imported.
pub fn template(lab: &mut Lab) -> Result<Option<PathBuf>> {
    let Some(kubernetes) = lab.kubernetes() else { return Ok(None) };
    let place = lab.folder().images(&fingerprint(&kubernetes)?);
    if place.is_dir() {
        return Ok(Some(place));
    }
    lab.say("importing the container images of Kubernetes (once)");
    let machine = lab.machine(&Spec::new("images").boot(Boot::Plain))?;
    for archive in archives(&kubernetes)? {
        let there = machine.place(&format!("/images/{}", archive.file_name().unwrap_or_default().display()))?;
        attempted(std::fs::create_dir_all(there.parent().unwrap_or(&there)), "make the images' folder")?;
        attempted(std::fs::copy(&archive, &there), format!("copy {}", archive.display()))?;
    }
    machine.power_on()?;
    machine.wait_booted()?;
    machine.shell(
        "systemctl stop kubelet; for f in /images/*.tar; do ctr -n k8s.io images import $f || exit 1; done; \
         systemctl stop containerd; sync",
    )?;
    machine.power_cut()?;
    let source = machine.folder().join("containerd");
    attempted(std::fs::create_dir_all(place.parent().unwrap_or(&place)), "make the images' cache")?;
    attempted(std::fs::rename(&source, &place), format!("move the images to {}", place.display()))?;
    machine.remove()?;
    Ok(Some(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_image_is_another_fingerprint() {
        let place = tempfile::tempdir().expect("folder");
        std::fs::create_dir_all(place.path().join("images")).expect("mkdir");
        std::fs::write(place.path().join("kubeadm"), "").expect("write");
        assert!(fingerprint(place.path()).expect_err("none").to_string().contains("no images/*.tar"));
        std::fs::write(place.path().join("images/a.tar"), "a").expect("write");
        let first = fingerprint(place.path()).expect("one");
        assert_eq!(fingerprint(place.path()).expect("again"), first);
        std::fs::write(place.path().join("images/a.tar"), "ab").expect("write");
        assert_ne!(fingerprint(place.path()).expect("other"), first);
    }
}
