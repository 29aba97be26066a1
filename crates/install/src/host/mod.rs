//! The machine that is installed: its files, below a folder when an image is built, and its programs.
//!
//! Below a folder every path is looked up as the image will see it: an absolute link inside of it stays inside. Nothing
//! of the machine that builds the image is read, changed or started.

mod folders;
mod look;
mod paths;
mod run;

pub use look::{Seen, digest_of};
pub use run::{Ended, Programs};

use crate::disk;
use folders::{draft, folder_of, settle};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The largest text that is read, in bytes: the bake manifest of an image with thousands of files.
const MAX_TEXT: u64 = 1024 * 1024;
/// The folder of the bake manifest; one installation at a time holds it.
const OURS: &str = "/usr/lib/kubestrap";

/// The machine, or the folder that will be one.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
    is_live: bool,
    programs: Rc<dyn Programs>,
    digests: Rc<look::Digests>,
}

/// Translates an error of the file system.
pub(crate) fn failure(attempted: impl Into<String>, error: &io::Error) -> Failure {
    let cause = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Cause::DiskFull,
        _ => Cause::FileAccess,
    };
    Failure::new(cause, attempted, error.to_string())
}

impl Host {
    /// The machine whose `/` this folder is.
    pub fn new(root: &Path) -> Host {
        Host::with(root, root == Path::new("/"), Rc::new(run::InPath))
    }

    /// A folder that is taken for a machine that runs, with these programs.
    #[cfg(test)]
    pub(crate) fn simulated(root: &Path, programs: Rc<dyn Programs>) -> Host {
        Host::with(root, true, programs)
    }

    fn with(root: &Path, is_live: bool, programs: Rc<dyn Programs>) -> Host {
        Host { root: root.to_owned(), is_live, programs, digests: Rc::default() }
    }

    /// Whether it is the machine this process runs on, whose kernel and services can be asked and changed.
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// Where a path is, its last name not followed when it is a link.
    pub fn at(&self, path: &str) -> Outcome<PathBuf> {
        paths::resolve(&self.root, path, false).map_err(|error| failure(format!("find {path}"), &error))
    }

    /// Where a path is, all links followed.
    pub fn followed(&self, path: &str) -> Outcome<PathBuf> {
        paths::resolve(&self.root, path, true).map_err(|error| failure(format!("find {path}"), &error))
    }

    /// What is at the path; a file is hashed, once in a run as long as it does not change.
    pub fn look(&self, path: &str) -> Outcome<Seen> {
        look::look(&self.at(path)?, &self.digests).map_err(|error| failure(format!("look at {path}"), &error))
    }

    /// The same, of what a link leads to.
    pub fn look_behind(&self, path: &str) -> Outcome<Seen> {
        look::look(&self.followed(path)?, &self.digests).map_err(|error| failure(format!("look at {path}"), &error))
    }

    /// Whether there is anything at the path.
    pub fn exists(&self, path: &str) -> Outcome<bool> {
        Ok(self.at(path)?.symlink_metadata().is_ok())
    }

    /// A text of at most a mebibyte; `None` when there is no file. Links are followed.
    pub fn read(&self, path: &str) -> Outcome<Option<String>> {
        let failed = |error| failure(format!("read {path}"), &error);
        let file = match File::open(self.followed(path)?) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut text = String::new();
        file.take(MAX_TEXT + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_TEXT {
            let why = format!("it is larger than {MAX_TEXT} bytes");
            return Err(Failure::new(Cause::FileAccess, format!("read {path}"), why));
        }
        Ok(Some(text))
    }

    /// Replaces a file atomically and durably, with exactly this mode; a link itself is replaced. Missing folders are
    /// made with mode 0755.
    pub fn write(&self, path: &str, text: &str, mode: u32) -> Outcome<()> {
        let place = self.at(path)?;
        let written = folder_of(&place).and_then(|folder| {
            folders::make(folder)?;
            let (draft, file) = draft(folder)?;
            let filled = disk::set_mode_of(&file, &draft, mode);
            let filled = filled.and_then(|()| disk::write_all(&file, text.as_bytes())).and_then(|()| disk::sync(&file));
            settle(filled, &draft, &place)
        });
        written.map_err(|error| failure(format!("write {path}"), &error))
    }

    /// Puts a verified file in its place: atomically and durably, with exactly this mode. Afterwards `from` is gone,
    /// when it is on the same file system.
    pub fn place(&self, from: &Path, path: &str, mode: u32) -> Outcome<()> {
        let place = self.at(path)?;
        let moved = folder_of(&place).and_then(|folder| {
            folders::make(folder)?;
            let file = File::open(from)?;
            disk::set_mode_of(&file, from, mode)?;
            disk::sync(&file)?;
            match disk::rename(from, &place) {
                Err(error) if error.kind() == ErrorKind::CrossesDevices => copy(from, folder, &place, mode),
                done => done.and_then(|()| disk::sync_folder(folder)),
            }
        });
        moved.map_err(|error| failure(format!("write {path}"), &error))
    }

    /// Copies a file to a place where nothing is, for its owner alone.
    pub fn keep_copy(&self, path: &str, to: &str) -> Outcome<()> {
        let (from, place) = (self.at(path)?, self.at(to)?);
        let copied = folder_of(&place).and_then(|folder| copy(&from, folder, &place, 0o600));
        copied.map_err(|error| failure(format!("copy {path} to {to}"), &error))
    }

    /// Sets the permission bits of a file.
    pub fn set_mode(&self, path: &str, mode: u32) -> Outcome<()> {
        let place = self.at(path)?;
        disk::set_mode(&place, mode).map_err(|error| failure(format!("change the mode of {path}"), &error))
    }

    /// Makes a symbolic link; its folder is made when it is missing, and nothing that is there is replaced.
    pub fn link(&self, target: &str, path: &str) -> Outcome<()> {
        let place = self.at(path)?;
        let made = folder_of(&place).and_then(|folder| {
            folders::make(folder)?;
            disk::link(target, &place)?;
            disk::sync_folder(folder)
        });
        made.map_err(|error| failure(format!("link {path} to {target}"), &error))
    }

    /// Makes a folder that only its owner may enter, with its parents.
    pub fn make_private_folder(&self, path: &str) -> Outcome<PathBuf> {
        let place = self.followed(path)?;
        let made = folders::make(&place).and_then(|()| disk::set_mode(&place, 0o700));
        made.map(|()| place).map_err(|error| failure(format!("make {path}"), &error))
    }

    /// Makes a folder with its parents.
    pub fn make_folder(&self, path: &str) -> Outcome<PathBuf> {
        let place = self.followed(path)?;
        folders::make(&place).map(|()| place).map_err(|error| failure(format!("make {path}"), &error))
    }

    /// Tells the kernel: writes into the file below /proc or /sys.
    pub fn set(&self, path: &str, value: &str) -> io::Result<()> {
        disk::overwrite(&paths::resolve(&self.root, path, true)?, value)
    }

    /// Removes a file or a link; nothing happens when there is none.
    pub fn remove(&self, path: &str) -> Outcome<()> {
        gone(disk::remove_file(&self.at(path)?)).map_err(|error| failure(format!("remove {path}"), &error))
    }

    /// Removes a folder and what is in it; nothing happens when there is none.
    pub fn remove_folder(&self, path: &str) -> Outcome<()> {
        gone(disk::remove_folder(&self.at(path)?)).map_err(|error| failure(format!("remove {path}"), &error))
    }

    /// Removes what installations that were killed left half written in the folders of these paths, and in those above them.
    pub fn sweep_beside(&self, paths: &[String]) -> Outcome<()> {
        let mut folders = BTreeSet::new();
        for path in paths {
            let place = self.at(path)?;
            let above = place.ancestors().skip(1).filter(|folder| folder.starts_with(&self.root));
            folders.extend(above.map(Path::to_owned));
        }
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            folders::sweep(folder).map_err(|error| failure(format!("tidy up in {}", folder.display()), &error))?;
        }
        Ok(())
    }

    /// Names in a folder, sorted; empty when there is none.
    pub fn list(&self, path: &str) -> Outcome<Vec<String>> {
        let entries = match std::fs::read_dir(self.followed(path)?) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(vec![]),
            Err(error) => return Err(failure(format!("list {path}"), &error)),
        };
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// Waits for nobody: `Busy` when another installation works on this machine. It ends with what is given back.
    pub fn lock(&self) -> Outcome<File> {
        let folder = self.make_folder(OURS)?;
        let failed = |error| failure(format!("lock {OURS}"), &error);
        let file = File::open(folder).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::Error(error)) => Err(failed(error)),
            Err(TryLockError::WouldBlock) => {
                let failure =
                    Failure::new(Cause::Busy, "install on this machine", "another `kubestrap install` runs on it");
                Err(failure.advise("wait for its end"))
            }
        }
    }

    /// The root, as an argument of tools that work on images (`dpkg --root`).
    pub fn root(&self) -> &Path {
        &self.root
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
        other => other,
    }
}

fn copy(from: &Path, folder: &Path, place: &Path, mode: u32) -> io::Result<()> {
    let (draft, file) = draft(folder)?;
    let filled = disk::set_mode_of(&file, &draft, mode).and_then(|()| {
        disk::copy(&mut File::open(from)?, &file)?;
        disk::sync(&file)
    });
    settle(filled, &draft, place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn host() -> (tempfile::TempDir, Host) {
        let folder = tempfile::tempdir().expect("folder");
        let host = Host::new(folder.path());
        (folder, host)
    }

    #[test]
    fn a_file_is_whole_has_its_mode_and_open_folders() {
        let (folder, host) = host();
        for mode in [0o755, 0o644] {
            host.write("/etc/deep/file", "text", mode).expect("write");
            let seen = host.look("/etc/deep/file").expect("look");
            let sha256 = "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1".to_owned();
            assert_eq!(seen, Seen::File { mode, sha256 });
        }
        let made = std::fs::metadata(folder.path().join("etc/deep")).expect("folder").permissions().mode();
        assert_eq!(made & 0o7777, 0o755);
        std::fs::write(folder.path().join("etc/deep/.kubestrap-1"), "half").expect("left behind");
        host.write("/etc/deep/other", "", 0o600).expect("write");
        assert_eq!(host.list("/etc/deep").expect("list"), ["file", "other"]);
    }

    #[test]
    fn a_verified_file_is_moved_and_a_link_at_its_place_replaced_and_not_followed() {
        let (folder, host) = host();
        let staged = folder.path().join("staged");
        std::fs::write(&staged, "program").expect("write");
        host.write("/kept", "kept", 0o644).expect("write");
        host.make_folder("/usr/local/bin").expect("folder");
        symlink("/kept", folder.path().join("usr/local/bin/kubelet")).expect("link");
        host.place(&staged, "/usr/local/bin/kubelet", 0o755).expect("place");
        assert!(!staged.exists());
        assert_eq!(host.read("/usr/local/bin/kubelet").expect("read").as_deref(), Some("program"));
        assert!(matches!(host.look("/usr/local/bin/kubelet"), Ok(Seen::File { mode: 0o755, .. })));
        assert_eq!(host.read("/kept").expect("read").as_deref(), Some("kept"));
    }

    #[test]
    fn what_is_missing_is_no_error_and_what_is_there_is_not_overwritten_by_a_link() {
        let (_folder, host) = host();
        assert_eq!(host.read("/none"), Ok(None));
        assert_eq!(host.look("/none/deeper"), Ok(Seen::Absent));
        assert_eq!((host.remove("/none"), host.remove_folder("/none")), (Ok(()), Ok(())));
        host.write("/file", "x", 0o644).expect("write");
        assert!(host.link("/elsewhere", "/file").is_err());
        host.link("/elsewhere", "/folder/link").expect("link");
        assert_eq!(host.look("/folder/link"), Ok(Seen::Link("/elsewhere".into())));
    }
}
