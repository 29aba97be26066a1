//! The machine's files, below a root.

use crate::adapters::durable;
use crate::adapters::killpoint::{self, Point, cross};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{FileInfo, FileKind, Files};
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Files below a root folder.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// The files of the machine whose `/` is at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Disk { root: root.into() }
    }

    /// Where a path of the node lies. Only plain absolute paths are taken.
    fn locate(&self, path: &Path) -> Outcome<PathBuf> {
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        match path.strip_prefix("/") {
            Ok(below) if plain => Ok(self.root.join(below)),
            _ => Err(Failure::new(
                Cause::Internal,
                format!("use the path {}", path.display()),
                "it is not absolute, or goes up",
            )),
        }
    }
}

fn failed(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    durable::failure(format!("{verb} {}", path.display()), error)
}

impl Files for Disk {
    fn read(&self, path: &Path, limit: u64) -> Outcome<Option<Vec<u8>>> {
        let place = self.locate(path)?;
        let failed = |error| failed("read", &place, &error);
        // O_NONBLOCK: a pipe in the place of a file must not hang the agent.
        let mut options = OpenOptions::new();
        let mut file = match options.read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&place) {
            Ok(file) => file,
            Err(error) if durable::is_missing(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let refuse = |why: String| Err(Failure::new(Cause::FileAccess, format!("read {}", place.display()), why));
        if !file.metadata().map_err(failed)?.is_file() {
            return refuse("it is not a regular file".to_owned()).map_err(|f| f.advise("remove it"));
        }
        match durable::read_bounded(&mut file, limit).map_err(failed)? {
            Some(body) => Ok(Some(body)),
            None => {
                refuse(format!("it is larger than {limit} bytes")).map_err(|f| f.advise("replace it by a sane one"))
            }
        }
    }

    fn stat(&self, path: &Path) -> Outcome<Option<FileInfo>> {
        let place = self.locate(path)?;
        let data = match std::fs::symlink_metadata(&place) {
            Ok(data) => data,
            Err(error) if durable::is_missing(&error) => return Ok(None),
            Err(error) => return Err(failed("look at", &place, &error)),
        };
        let kind = match data.file_type() {
            kind if kind.is_file() => FileKind::File,
            kind if kind.is_dir() => FileKind::Folder,
            kind if kind.is_symlink() => FileKind::Link,
            _ => FileKind::Other,
        };
        Ok(Some(FileInfo { kind, mode: data.mode() & 0o7777, uid: data.uid(), len: data.len() }))
    }

    fn list(&self, folder: &Path) -> Outcome<Vec<String>> {
        let place = self.locate(folder)?;
        let failed = |error| failed("list", &place, &error);
        let entries = match std::fs::read_dir(&place) {
            Ok(entries) => entries,
            Err(error) if durable::is_missing(&error) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if !durable::is_temporary(&name) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn write(&self, path: &Path, body: &[u8], mode: u32) -> Outcome<()> {
        let place = self.locate(path)?;
        durable::replace(&place, body, mode).map_err(|error| failed("write", &place, &error))
    }

    fn append(&self, path: &Path, body: &[u8], mode: u32) -> Outcome<()> {
        let place = self.locate(path)?;
        append(&place, body, mode).map_err(|error| failed("append to", &place, &error))
    }

    fn remove(&self, path: &Path) -> Outcome<()> {
        let place = self.locate(path)?;
        match std::fs::remove_file(&place) {
            Ok(()) => {
                cross(Point::RemoveDone, &place);
                durable::sync_folder(durable::folder_of(&place)).inspect(|()| cross(Point::RemoveSynced, &place))
            }
            Err(error) if durable::is_missing(&error) => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(|error| failed("remove", &place, &error))
    }
}

fn append(place: &Path, body: &[u8], mode: u32) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
    let mut file = match options.open(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => make(place, options.create_new(true), mode)?,
        other => other?,
    };
    let before = file.metadata()?.len();
    let written = killpoint::write_all(&mut file, body, Point::AppendHalfWritten, place).and_then(|()| {
        cross(Point::AppendWritten, place);
        file.sync_all()
    });
    match written {
        Ok(()) => cross(Point::AppendSynced, place),
        Err(_) => {
            // A full disk takes the first half of a line: give it back.
            let _ = file.set_len(before);
        }
    }
    written
}

fn make(place: &Path, options: &OpenOptions, mode: u32) -> std::io::Result<File> {
    let folder = durable::folder_of(place);
    durable::make_folders(folder)?;
    let file = options.open(place)?;
    cross(Point::AppendCreated, place);
    file.set_permissions(Permissions::from_mode(mode))?;
    durable::sync_folder(folder)?;
    cross(Point::AppendMade, place);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn disk() -> (tempfile::TempDir, Disk) {
        let root = tempfile::tempdir().expect("tempdir");
        let disk = Disk::new(root.path());
        (root, disk)
    }

    #[test]
    fn a_write_makes_folders_and_sets_exactly_the_mode() {
        let (root, disk) = disk();
        let path = Path::new("/etc/kubestrap/deep/file");
        // 0666 would lose bits to any usual umask.
        for mode in [0o600, 0o644, 0o666] {
            disk.write(path, b"x", mode).expect("write");
            let info = disk.stat(path).expect("stat").expect("there");
            assert_eq!((info.kind, info.mode, info.len), (FileKind::File, mode, 1));
        }
        let folder = disk.stat(Path::new("/etc/kubestrap")).expect("stat").expect("there");
        assert_eq!((folder.kind, folder.mode), (FileKind::Folder, 0o700));
        assert_eq!(disk.list(Path::new("/etc/kubestrap/deep")), Ok(vec!["file".to_owned()]));
        assert!(root.path().join("etc/kubestrap/deep/file").is_file());
    }

    #[test]
    fn a_link_is_replaced_and_its_target_left_alone() {
        let (root, disk) = disk();
        std::fs::write(root.path().join("target"), "keep").expect("write");
        symlink(root.path().join("target"), root.path().join("link")).expect("symlink");
        assert_eq!(disk.stat(Path::new("/link")).map(|i| i.map(|i| i.kind)), Ok(Some(FileKind::Link)));
        assert!(disk.append(Path::new("/link"), b"no", 0o600).is_err(), "append must not follow");
        disk.write(Path::new("/link"), b"new", 0o600).expect("write");
        assert_eq!(disk.read(Path::new("/target"), 10), Ok(Some(b"keep".to_vec())));
        assert_eq!(disk.read(Path::new("/link"), 10), Ok(Some(b"new".to_vec())));
    }

    #[test]
    fn nothing_there_is_an_answer_and_not_an_error() {
        let (_root, disk) = disk();
        disk.write(Path::new("/file"), b"", 0o600).expect("write");
        for missing in ["/none", "/no/folder", "/file/below"] {
            let missing = Path::new(missing);
            assert_eq!(disk.read(missing, 1), Ok(None));
            assert_eq!(disk.stat(missing), Ok(None));
            assert_eq!(disk.list(missing), Ok(Vec::new()));
            assert_eq!(disk.remove(missing), Ok(()));
        }
        disk.remove(Path::new("/file")).expect("remove");
        assert_eq!(disk.stat(Path::new("/file")), Ok(None));
    }

    #[test]
    fn what_is_too_large_or_no_file_is_refused() {
        let (root, disk) = disk();
        disk.write(Path::new("/file"), b"12345", 0o600).expect("write");
        assert_eq!(disk.read(Path::new("/file"), 5), Ok(Some(b"12345".to_vec())));
        let error = disk.read(Path::new("/file"), 4).expect_err("too large");
        assert!(error.detail.contains("larger than 4 bytes"), "{error}");
        nix::unistd::mkfifo(&root.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
        for odd in ["/pipe", "/"] {
            assert_eq!(disk.read(Path::new(odd), 9).map_err(|f| f.cause), Err(Cause::FileAccess), "{odd}");
        }
        for wrong in ["relative", "/a/../b"] {
            assert_eq!(disk.read(Path::new(wrong), 9).map_err(|f| f.cause), Err(Cause::Internal), "{wrong}");
        }
    }

    #[test]
    fn appends_add_up_and_the_mode_is_that_of_the_first() {
        let (_root, disk) = disk();
        let path = Path::new("/var/journal");
        disk.append(path, b"one\n", 0o600).expect("append");
        disk.append(path, b"two\n", 0o644).expect("append");
        assert_eq!(disk.read(path, 99), Ok(Some(b"one\ntwo\n".to_vec())));
        assert_eq!(disk.stat(path).map(|i| i.map(|i| i.mode)), Ok(Some(0o600)));
    }

    /// A write beyond RLIMIT-like limits is hard to provoke without root; as root a tiny tmpfs is a real full disk.
    #[test]
    fn a_full_disk_is_named_and_leaves_the_old_file() {
        let (root, disk) = disk();
        let small = root.path().join("small");
        std::fs::create_dir(&small).expect("mkdir");
        let mount = |args: &[&str]| {
            std::process::Command::new(args[0])
                .args(&args[1..])
                .arg(&small)
                .status()
                .is_ok_and(|status| status.success())
        };
        if !mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]) {
            println!("skipped: mounting a tmpfs needs root");
            return;
        }
        let path = Path::new("/small/file");
        let checks = std::panic::catch_unwind(|| {
            disk.write(path, b"old", 0o600).expect("it fits");
            let error = disk.write(path, &[0; 200_000], 0o600).expect_err("full");
            assert_eq!(error.cause, Cause::DiskFull);
            assert!(error.attempted.contains("small/file"), "{error}");
            let error = disk.append(path, &[0; 200_000], 0o600).expect_err("full");
            assert_eq!(error.cause, Cause::DiskFull);
            assert_eq!(disk.read(path, 99), Ok(Some(b"old".to_vec())));
            let left = std::fs::read_dir(&small).expect("list").count();
            assert_eq!(left, 1, "a temporary file is left");
        });
        assert!(mount(&["umount", "-l"]));
        if let Err(panic) = checks {
            std::panic::resume_unwind(panic);
        }
    }
}
