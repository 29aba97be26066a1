//! The folder of verified files.
//!
//! A file has its final name only after its content was verified, and is named by what it must contain. An unfinished
//! one is locked by whoever writes it, and the lock ends with its process: of two runs in one cache the second waits
//! for the first and then finds the file; what a killed run left is written anew.

use crate::catalog::Artifact;
use crate::disk;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use sha2::{Digest, Sha256};
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bytes that are read and hashed at a time.
const CHUNK: usize = 256 * 1024;

/// A failure of the file system, with the cause that it has.
pub(crate) fn broken(attempted: impl Into<String>, error: &std::io::Error) -> Failure {
    let cause = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Cause::DiskFull,
        _ => Cause::FileAccess,
    };
    Failure::new(cause, attempted, error.to_string())
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 and length of a file.
pub(crate) fn digest(path: &Path) -> std::io::Result<(String, u64)> {
    let (mut file, mut hash, mut length) = (File::open(path)?, Sha256::new(), 0);
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex(&hash.finalize()), length));
        }
        hash.update(&buffer[..read]);
        length += read as u64;
    }
}

/// A folder that only its owner may enter.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

/// What is to be done for a file.
pub(crate) enum Turn {
    /// It is there and verified.
    Have(PathBuf),
    /// Another process writes it now.
    Wait,
    /// It is ours to write.
    Write(Unfinished),
}

impl Cache {
    /// Makes the folder when it is not there (0700), and refuses one that others may enter or own: they could change a
    /// file between its verification and its use.
    pub(crate) fn open(folder: &Path) -> Outcome<Cache> {
        let attempted = format!("use the cache {}", folder.display());
        disk::make_private_folders(folder).map_err(|error| broken(&attempted, &error))?;
        let probe = folder.join(".owner");
        let data = std::fs::symlink_metadata(folder).map_err(|error| broken(&attempted, &error))?;
        if !data.is_dir() || data.permissions().mode() & 0o077 != 0 {
            let why = "it is open to others: what they put there must not be installed";
            return Err(Failure::new(Cause::UnsafeFile, attempted, why).advise("chmod 0700 it, or name another folder"));
        }
        let mine = disk::open_or_create(&probe)
            .and_then(|file| file.metadata())
            .map_err(|error| broken(&attempted, &error))?;
        if mine.uid() != data.uid() {
            return Err(Failure::new(Cause::UnsafeFile, attempted, "it belongs to another user"));
        }
        Ok(Cache { folder: folder.to_owned() })
    }

    /// The final place of a file. Its name begins with the digest, so that another content has another name.
    pub(crate) fn place(&self, artifact: &Artifact) -> PathBuf {
        self.folder.join(format!("{}-{}", artifact.sha256, artifact.file))
    }

    /// Decides by what is there. A file with another content than its name says (a damaged disk) is removed.
    pub(crate) fn turn(&self, artifact: &Artifact) -> Outcome<Turn> {
        let place = self.place(artifact);
        let attempted = format!("use {}", place.display());
        match digest(&place) {
            Ok((found, _)) if found == artifact.sha256 => return Ok(Turn::Have(place)),
            Ok(_) => disk::remove_file(&place).map_err(|error| broken(&attempted, &error))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(broken(attempted, &error)),
        }
        let part = self.folder.join(format!("{}-{}.part", artifact.sha256, artifact.file));
        let failed = |error: std::io::Error| broken(format!("write {}", part.display()), &error);
        let file = disk::open_or_create(&part).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Turn::Wait),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Between opening and locking, its last writer may have finished it: then the name is gone or another file.
        let ours = file.metadata().map_err(failed)?;
        match std::fs::symlink_metadata(&part) {
            Ok(named) if named.ino() == ours.ino() && named.dev() == ours.dev() => {}
            _ => return Ok(Turn::Wait),
        }
        disk::truncate(&file, &part).map_err(failed)?;
        Ok(Turn::Write(Unfinished { file, part, place, hash: Sha256::new(), written: 0 }))
    }
}

/// A file that is being written, hashed on the way.
pub(crate) struct Unfinished {
    file: File,
    part: PathBuf,
    place: PathBuf,
    hash: Sha256,
    written: u64,
}

impl Unfinished {
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        disk::write_all(&self.file, bytes).map_err(|error| broken(format!("write {}", self.part.display()), &error))?;
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Begins again, for the next attempt.
    pub(crate) fn restart(&mut self) -> Outcome<()> {
        let failed = |error: std::io::Error| broken(format!("write {}", self.part.display()), &error);
        disk::truncate(&self.file, &self.part).map_err(failed)?;
        std::io::Seek::rewind(&mut self.file).map_err(failed)?;
        (self.hash, self.written) = (Sha256::new(), 0);
        Ok(())
    }

    /// Gives it its final name when it is what `artifact` must be, on disk before it has it. Otherwise it is removed.
    pub(crate) fn finish(self, artifact: &Artifact) -> Outcome<PathBuf> {
        let Unfinished { file, part, place, hash, written } = self;
        let found = hex(&hash.finalize());
        if found != artifact.sha256 {
            // It is of no use; that it is still there is not worse than the mismatch.
            let _ = disk::remove_file(&part);
            return Err(mismatch(artifact, &found, written));
        }
        let failed = |error: std::io::Error| broken(format!("keep {}", place.display()), &error);
        disk::sync(&file).map_err(failed)?;
        disk::rename(&part, &place).map_err(failed)?;
        let folder = place.parent().unwrap_or(Path::new("/"));
        disk::sync_folder(folder).map_err(failed)?;
        Ok(place)
    }

    /// Leaves nothing behind: for what cannot be finished (a full disk).
    pub(crate) fn discard(self) {
        // The next run writes it anew in any case.
        let _ = disk::remove_file(&self.part);
    }
}

pub(crate) fn mismatch(artifact: &Artifact, found: &str, bytes: u64) -> Failure {
    let who = artifact.checksum_from.told();
    let why = format!("its SHA-256 is {found} ({bytes} bytes), and {who} says {}", artifact.sha256);
    Failure::new(Cause::DownloadRejected, format!("verify {} of {}", artifact.file, artifact.title()), why)
}
