//! The programs under test and the stand-ins, as files of this machine that must start in the lab's.

use crate::command::{finish, program};
use crate::lab::Options;
use crate::{Result, attempted, fail};
use std::path::{Path, PathBuf};

/// `$1` is bound into the tree `$2`, in a namespace that goes with this; the rest is run there.
const PROBE: &str = "mount --bind \"$1\" \"$2/mnt\"; tree=$2; shift 2; exec chroot \"$tree\" \"$@\"";

/// Programs of every machine: path there, path here.
pub fn of(options: &Options) -> Vec<(String, PathBuf)> {
    let mut programs = vec![("/usr/bin/kubestrap".to_owned(), options.kubestrap.clone())];
    let (place, names): (_, &[&str]) = match &options.kubernetes {
        Some(kubernetes) => (kubernetes, &["kubeadm", "kubelet", "kubectl"]),
        None => (&options.programs, &["kubeadm", "kubelet"]),
    };
    programs.extend(names.iter().map(|name| (format!("/usr/bin/{name}"), place.join(name))));
    programs
}

/// Arguments with which a program says its version and does nothing else.
fn harmless(name: &str) -> &'static [&'static str] {
    match name {
        "kubeadm" => &["version"],
        "kubectl" => &["version", "--client"],
        _ => &["--version"],
    }
}

/// Starts each in the root tree: a program that was linked against newer libraries than the tree has is found here, and
/// not as a service that fails for no visible reason.
///
/// # Errors
/// When one is not there or does not start, with what to do.
pub fn check(programs: &[(String, PathBuf)], tree: &Path) -> Result<()> {
    for path in programs.iter().map(|(_, path)| path) {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return fail(format!("{} is no program", path.display()));
        };
        attempted(std::fs::metadata(path), format!("find {}", path.display()))?;
        let mut probe = program("unshare", &["--mount", "--propagation", "private", "sh", "-ec", PROBE, "probe"]);
        probe.arg(folder).arg(tree).arg(Path::new("/mnt").join(name)).args(harmless(name));
        let done = finish(&mut probe)?;
        if done.code != Some(0) {
            return fail(format!(
                "{} does not start in the lab's machines, which are Debian bookworm (glibc 2.36): {}\nname another one \
                 with --kubestrap, --programs or {}; a static build (README, Quick start) starts everywhere",
                path.display(),
                format!("{}{}", done.stdout, done.stderr).trim(),
                crate::folder::KUBERNETES
            ));
        }
    }
    Ok(())
}
