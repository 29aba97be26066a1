//! What is released beside the program, where it lies on a machine, and the archive of it.

use super::{Arch, VERSION};
use crate::process::workspace;
use kubestrap_lab::command::{program, run};
use kubestrap_lab::shipped;
use kubestrap_lab::{Result, attempted, fail};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where documentation lies.
pub(super) const DOCUMENTATION: &str = "usr/share/doc/kubestrap";
/// What the repository has, and where a machine has it.
const PLACED: [(&str, &str); 3] = [
    ("systemd/kubestrap.service", "usr/lib/systemd/system/kubestrap.service"),
    ("systemd/kubelet.service.d/20-kubestrap.conf", "usr/lib/systemd/system/kubelet.service.d/20-kubestrap.conf"),
    ("systemd/kubestrap.tmpfiles.conf", "usr/lib/tmpfiles.d/kubestrap.conf"),
];
const DOCUMENTS: [&str; 3] = ["README.md", "SECURITY.md", "CHANGELOG.md"];
/// Folders whose files are documentation.
const FOLDERS: [&str; 2] = ["docs", "cloud-init"];
/// In the place of a checksum in `cloud-init/*.bare.*`.
const PLACEHOLDER: &str = "REPLACE-BY-ITS-SHA256";

/// Copies a file, with its mode whatever the umask is.
pub(super) fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let copy = || {
        std::fs::create_dir_all(to.parent().unwrap_or(to))?;
        std::fs::copy(from, to)?;
        std::fs::set_permissions(to, PermissionsExt::from_mode(mode))
    };
    attempted(copy(), format!("copy {} to {}", from.display(), to.display()))
}

/// Writes a file, with its mode whatever the umask is.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let write = || {
        std::fs::create_dir_all(path.parent().unwrap_or(path))?;
        std::fs::write(path, text)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
    };
    attempted(write(), format!("write {}", path.display()))
}

/// Puts everything below a folder as it lies below a machine's root.
pub(super) fn lay_out(program: &Path, root: &Path) -> Result<()> {
    copy(program, &root.join("usr/bin/kubestrap"), 0o755)?;
    for (from, to) in PLACED {
        copy(&workspace().join(from), &root.join(to), 0o644)?;
    }
    for name in DOCUMENTS {
        copy(&workspace().join(name), &root.join(DOCUMENTATION).join(name), 0o644)?;
    }
    for folder in FOLDERS {
        for entry in attempted(std::fs::read_dir(workspace().join(folder)), format!("read {folder}/"))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            if path.is_file() {
                copy(&path, &root.join(DOCUMENTATION).join(folder).join(name), 0o644)?;
            }
        }
    }
    Ok(())
}

/// All files below a folder, relative to it, in the order of their names.
pub(super) fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in attempted(std::fs::read_dir(&next), format!("read {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(folder).unwrap_or(&path).to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// `kubestrap-VERSION-linux-ARCH.tar.gz`: unpacked at `/` without its first folder, it is installed. There are no folders
/// in it, so that unpacking changes no mode and no owner of those that a machine has.
pub(super) fn archive(program_file: &Path, arch: Arch, epoch: &str, out: &Path) -> Result<String> {
    let stem = format!("kubestrap-{VERSION}-linux-{}", arch.name());
    let place = attempted(tempfile::tempdir(), "make a folder")?;
    let root = place.path().join(&stem);
    lay_out(program_file, &root)?;
    copy(&workspace().join("LICENSE"), &root.join(DOCUMENTATION).join("LICENSE"), 0o644)?;
    let names: Vec<PathBuf> = below(place.path())?;
    let tar = out.join(format!("{stem}.tar"));
    let mtime = format!("--mtime=@{epoch}");
    let mut command = program("tar", &["--create", "--format=gnu", "--no-recursion", "--owner=0", "--group=0"]);
    command.args(["--numeric-owner", &mtime, "--file"]).arg(&tar).arg("-C").arg(place.path()).args(&names);
    run(&mut command)?;
    run(program("gzip", &["--no-name", "--best", "--force"]).arg(&tar))?;
    Ok(format!("{stem}.tar.gz"))
}

/// The one-line start with this release's checksums in it, ready to use. What was not made keeps its placeholder, which
/// is refused on the machine.
pub(super) fn pinned_user_data(sums: &str, out: &Path) -> Result<()> {
    for (name, text) in shipped::user_data()?.into_iter().filter(|(name, _)| name.contains(".bare.")) {
        let url = format!("/v{VERSION}/kubestrap-{VERSION}-linux-@ARCH@.tar.gz");
        if !text.contains(&url) {
            return fail(format!("cloud-init/{name} does not fetch this version: its URL should end with {url}"));
        }
        write(&out.join(name), &pinned(&text, sums), 0o644)?;
    }
    Ok(())
}

fn pinned(text: &str, sums: &str) -> String {
    let mut text = text.to_owned();
    for arch in Arch::ALL {
        let name = format!("-linux-{}.tar.gz", arch.name());
        let line = sums.lines().find(|line| line.ends_with(&name));
        if let Some(sum) = line.and_then(|line| line.split_whitespace().next()) {
            text = text.replace(&format!("{}={PLACEHOLDER}", arch.name()), &format!("{}={sum}", arch.name()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_its_own_architecture_replaces_the_placeholder() {
        let text = format!("amd64={PLACEHOLDER} arm64={PLACEHOLDER}");
        let sums = "aa  kubestrap-1-linux-amd64.tar.gz\nbb  kubestrap_1_amd64.deb\n";
        assert_eq!(pinned(&text, sums), format!("amd64=aa arm64={PLACEHOLDER}"));
        assert_eq!(pinned(&text, "bb  kubestrap_1_arm64.deb\n"), text);
    }

    #[test]
    fn shipped_user_data_has_a_placeholder_for_each_architecture() {
        for (name, text) in shipped::user_data().expect("files").iter().filter(|(name, _)| name.contains(".bare.")) {
            for arch in Arch::ALL {
                assert!(text.contains(&format!("\"{}={PLACEHOLDER}\"", arch.name())), "{name}: {}", arch.name());
            }
        }
    }
}
