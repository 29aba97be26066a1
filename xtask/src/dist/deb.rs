//! The Debian package, made with dpkg-deb and judged by lintian. What it does on a machine is in `packaging/deb/`.

use super::files::{DOCUMENTATION, below, copy, lay_out, write};
use super::{Arch, VERSION};
use crate::process::workspace;
use jiff::Timestamp;
use kubestrap_lab::command::{finish, program, run};
use kubestrap_lab::{Result, attempted, fail};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const MAINTAINER: &str = "The kubestrap authors <kubestrap@users.noreply.github.com>";
/// What the package asks of the machine: nothing to run, and what a node needs beside it.
const RELATIONS: &str = "Depends: init-system-helpers (>= 1.54~)
Recommends: ca-certificates, conntrack, ethtool, iproute2, iptables, kmod, mount";
const DESCRIPTION: &str = "Description: turn a bare machine into a Kubernetes node
 One static program that installs what a node needs, makes the machine a node
 with kubeadm, and keeps it a good one. Nodes meet only in an object store.
 .
 The service is not enabled by the installation: user-data, the image or a
 person decides that.";
/// Files that an administrator may change: dpkg asks before it replaces them.
const CONFFILES: &str = "/etc/default/kubestrap\n";

fn source(name: &str) -> std::path::PathBuf {
    workspace().join("packaging/deb").join(name)
}

/// Makes `kubestrap_VERSION_ARCH.deb`; its name.
pub(super) fn package(program_file: &Path, arch: Arch, epoch: &str, out: &Path) -> Result<String> {
    let place = attempted(tempfile::tempdir(), "make a folder")?;
    let root = place.path().join("root");
    lay_out(program_file, &root)?;
    let documentation = root.join(DOCUMENTATION);
    copy(&source("copyright"), &documentation.join("copyright"), 0o644)?;
    write(&documentation.join("changelog"), &changelog(epoch)?, 0o644)?;
    copy(&source("kubestrap.8"), &root.join("usr/share/man/man8/kubestrap.8"), 0o644)?;
    copy(&source("lintian-overrides"), &root.join("usr/share/lintian/overrides/kubestrap"), 0o644)?;
    copy(&source("default"), &root.join("etc/default/kubestrap"), 0o644)?;
    // The archive's names for people; Debian has its own.
    std::fs::rename(documentation.join("CHANGELOG.md"), documentation.join("NEWS.md"))?;
    for name in [documentation.join("changelog"), root.join("usr/share/man/man8/kubestrap.8")] {
        run(program("gzip", &["--no-name", "--best"]).arg(name))?;
    }
    control(&root, arch)?;
    folders(&root)?;
    let name = format!("kubestrap_{VERSION}_{}.deb", arch.name());
    let package = out.join(&name);
    let mut command = program("dpkg-deb", &["--root-owner-group", "-Zxz", "--build"]);
    run(command.arg(&root).arg(&package).env("SOURCE_DATE_EPOCH", epoch))?;
    Ok(name)
}

/// The newest changes are in the project's own list; Debian wants one in its form.
fn changelog(epoch: &str) -> Result<String> {
    let seconds = attempted(epoch.parse::<i64>(), format!("read {epoch:?} as seconds since 1970"))?;
    let at = attempted(Timestamp::from_second(seconds), "read the commit's time")?;
    let date = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
    Ok(format!(
        "kubestrap ({VERSION}) unstable; urgency=medium\n\n  * See NEWS.md for what is new.\n\n -- {MAINTAINER}  {date}\n"
    ))
}

fn control(root: &Path, arch: Arch) -> Result<()> {
    let files = below(root)?;
    let mut sums = String::new();
    let mut bytes = 0;
    for file in &files {
        bytes += std::fs::metadata(root.join(file))?.len();
        // As dpkg's own tools do, without the configuration files.
        if !CONFFILES.lines().any(|line| Path::new(line) == Path::new("/").join(file)) {
            sums.push_str(&run(program("md5sum", &[]).arg(file).current_dir(root))?);
        }
    }
    let control = format!(
        "Package: kubestrap\nVersion: {VERSION}\nArchitecture: {}\nMaintainer: {MAINTAINER}\nInstalled-Size: {}\n\
         {RELATIONS}\nSection: admin\nPriority: optional\nHomepage: https://github.com/kubestrap/kubestrap\n{DESCRIPTION}\n",
        arch.name(),
        bytes.div_ceil(1024)
    );
    let place = root.join("DEBIAN");
    write(&place.join("control"), &control, 0o644)?;
    write(&place.join("conffiles"), CONFFILES, 0o644)?;
    write(&place.join("md5sums"), &sums, 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        copy(&source(script), &place.join(script), 0o755)?;
    }
    Ok(())
}

/// Folders get their usual mode, whatever the umask is.
fn folders(root: &Path) -> Result<()> {
    for file in below(root)? {
        for folder in file.ancestors().skip(1) {
            std::fs::set_permissions(root.join(folder), PermissionsExt::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// lintian's errors and warnings are ours to mend, or to answer in the overrides.
pub(super) fn judge(package: &Path) -> Result<()> {
    if !finish(&mut program("lintian", &["--version"])).is_ok_and(|done| done.code == Some(0)) {
        println!("note: lintian is not here; {} is not judged", package.display());
        return Ok(());
    }
    let mut command = program("lintian", &["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"]);
    let done = finish(command.arg(package))?;
    match done.code {
        Some(0) => Ok(()),
        _ => fail(format!("lintian refuses {}:\n{}{}", package.display(), done.stdout, done.stderr)),
    }
}
