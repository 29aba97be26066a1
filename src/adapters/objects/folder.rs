//! A store in a folder, with the guarantees of a conditional object store on a local file system.
//!
//! To create: temporary file, fsync, link(2), which fails when the name is taken. To replace or delete: under an
//! exclusive flock on the store's lock file, the current content is compared with the ETag (SHA-256 of the content),
//! then rename or unlink. The folder is synced before an answer is given.
//!
//! Over NFS: flock works between clients with NFSv4 (it becomes a byte-range lock) when the server's lock manager
//! runs; link(2) may answer "exists" to a retransmission of its own success, which core settles by reading back; a
//! hanging mount hangs this call, past its deadline. A local file system, or one server exporting to all, is what this
//! store is for.
//!
//! The folder itself must exist: a store that is not mounted must not look like an empty one.

use super::{check_key, check_prefix, check_size, too_large};
use crate::adapters::durable::{self, Draft};
use crate::adapters::killpoint::{Point, cross};
use async_trait::async_trait;
use jiff::Timestamp;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{
    Condition, Deleted, ETag, ExpiryRule, Fetched, KeyPage, MAX_OBJECT, Object, Objects, Reading, Written,
};
use nix::fcntl::OFlag;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Held while an object is compared and replaced or deleted. No key begins with a dot.
const LOCK: &str = ".kubestrap.lock";
/// Like S3's.
const PAGE: usize = 1000;
/// A lock is held for as long as one fsync takes.
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// A store in a folder.
#[derive(Debug)]
pub struct FolderStore {
    folder: PathBuf,
}

impl FolderStore {
    /// The store in `folder`, which is not below any `--root`: nodes share it.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        FolderStore { folder: folder.into() }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens an object of any length, for what is no part of the protocol; `None` when there is none.
    pub fn open(&self, key: &str) -> Outcome<Option<(File, u64)>> {
        Ok(open(&self.place(key)?)?.map(|(file, data)| (file, data.len())))
    }

    fn place(&self, key: &str) -> Outcome<PathBuf> {
        check_key(key)?;
        self.check_folder()?;
        let place = self.folder.join(key);
        let folders = place.ancestors().skip(1).take_while(|folder| *folder != self.folder);
        for folder in folders {
            // Whoever can write to the store must not make us write elsewhere.
            if std::fs::symlink_metadata(folder).is_ok_and(|data| data.is_symlink()) {
                return Err(no_object(format!("use {}", place.display()), &format!("{} {LINK}", folder.display())));
            }
        }
        Ok(place)
    }

    fn check_folder(&self) -> Outcome<()> {
        let attempted = || format!("open the store {}", self.folder.display());
        let data = std::fs::metadata(&self.folder).ok().filter(Metadata::is_dir);
        let Some(data) = data else {
            return Err(Failure::new(Cause::BucketMissing, attempted(), "there is no such folder")
                .advise("mount or create the folder, or correct `store`"));
        };
        if data.mode() & 0o002 != 0 {
            let why =
                format!("every user can write to it (mode {:04o}), and so lead nodes astray", data.mode() & 0o7777);
            return Err(Failure::new(Cause::UnsafeFile, attempted(), why)
                .advise("see who wrote what lies in it, then `chmod o-w` the folder"));
        }
        Ok(())
    }

    /// Waits for the lock; whoever waits too long is cut off by the gate, with nothing done.
    async fn lock(&self) -> Outcome<File> {
        let path = self.folder.join(LOCK);
        let failed = |error: io::Error| durable::failure(format!("lock {}", path.display()), &error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let file = options.open(&path).map_err(|error| match error.raw_os_error() {
            Some(NOT_FOLLOWED) => no_object(format!("lock {}", path.display()), &format!("it {LINK}")),
            _ => failed(error),
        })?;
        cross(Point::StoreLockOpened, &path);
        loop {
            match file.try_lock() {
                Ok(()) => {
                    cross(Point::StoreLocked, &path);
                    return Ok(file);
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    async fn replace(&self, place: &Path, body: &[u8], version: &ETag) -> Outcome<Written> {
        let failed = |error: io::Error| durable::failure(format!("write {}", place.display()), &error);
        let lock = self.lock().await?;
        match read(place)? {
            Some(object) if object.etag == *version => {}
            _ => return Ok(Written::Refused),
        }
        cross(Point::StoreCompared, place);
        let draft = Draft::beside(place, body, 0o600).map_err(failed)?;
        // From here on an error does not tell whether the new content is there, or will be after a power loss.
        let done = draft.replace(place).and_then(|()| durable::sync_folder(durable::folder_of(place)));
        cross(Point::StoreReplaced, place);
        drop(lock);
        cross(Point::StoreReleased, place);
        Ok(done.map_or_else(|error| Written::Unknown(failed(error)), |()| Written::Stored(etag(body))))
    }

    fn create(place: &Path, body: &[u8]) -> Outcome<Written> {
        let failed = |error: io::Error| durable::failure(format!("create {}", place.display()), &error);
        let folder = durable::folder_of(place);
        durable::make_folders(folder).map_err(failed)?;
        let draft = Draft::beside(place, body, 0o600).map_err(failed)?;
        match draft.create(place) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Written::Refused),
            Err(error) => return Err(failed(error)),
        }
        let synced = durable::sync_folder(folder);
        cross(Point::StoreCreated, place);
        Ok(synced.map_or_else(|error| Written::Unknown(failed(error)), |()| Written::Stored(etag(body))))
    }
}

#[async_trait(?Send)]
impl Objects for FolderStore {
    async fn get(&self, key: &str, known: Option<&ETag>) -> Outcome<Reading> {
        let fetched = match read(&self.place(key)?)? {
            None => Fetched::Absent,
            Some(object) if known == Some(&object.etag) => Fetched::Unchanged,
            Some(object) => Fetched::Found(object),
        };
        Ok(Reading { fetched, served_at: None })
    }

    async fn put(&self, key: &str, body: Vec<u8>, condition: Condition) -> Outcome<Written> {
        check_size(key, &body)?;
        let place = self.place(key)?;
        match condition {
            Condition::Absent => Self::create(&place, &body),
            Condition::Matches(version) => self.replace(&place, &body, &version).await,
        }
    }

    async fn delete(&self, key: &str, version: &ETag) -> Outcome<Deleted> {
        let place = self.place(key)?;
        let failed = |error: io::Error| durable::failure(format!("delete {}", place.display()), &error);
        let _lock = self.lock().await?;
        match read(&place)? {
            None => return Ok(Deleted::Done),
            Some(object) if object.etag != *version => return Ok(Deleted::Refused),
            Some(_) => {}
        }
        std::fs::remove_file(&place).map_err(failed)?;
        cross(Point::StoreDeleted, &place);
        let synced = durable::sync_folder(durable::folder_of(&place));
        cross(Point::StoreDeleteSynced, &place);
        Ok(synced.map_or_else(|error| Deleted::Unknown(failed(error)), |()| Deleted::Done))
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Outcome<KeyPage> {
        check_prefix(prefix)?;
        self.place("probe")?;
        let mut found = BTreeSet::new();
        let failed = |error| durable::failure(format!("list {}", self.folder.display()), &error);
        walk(&self.folder, "", prefix, after, &mut found).map_err(failed)?;
        let more = found.len() > PAGE;
        Ok(KeyPage { keys: found.into_iter().take(PAGE).collect(), more })
    }

    async fn expiry_rules(&self) -> Outcome<Vec<ExpiryRule>> {
        Ok(Vec::new())
    }
}

/// What open(2) says of a link with O_NOFOLLOW, and of a socket.
const NOT_FOLLOWED: i32 = nix::errno::Errno::ELOOP as i32;
const IS_SOCKET: i32 = nix::errno::Errno::ENXIO as i32;
const LINK: &str = "is a symbolic link, which could lead out of the store";
const NO_FILE: &str = "it is not a regular file";

/// The failure for what no kubestrap puts into a store.
fn no_object(attempted: String, why: &str) -> Failure {
    Failure::new(Cause::ObjectRejected, attempted, why)
        .advise("find out who can write to the store's folder, and remove what does not belong there")
}

/// The version of a content.
fn etag(body: &[u8]) -> ETag {
    ETag(Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn read(place: &Path) -> Outcome<Option<Object>> {
    let attempted = || format!("read {}", place.display());
    let failed = |error| durable::failure(attempted(), &error);
    let Some((mut file, data)) = open(place)? else { return Ok(None) };
    let body = durable::read_bounded(&mut file, MAX_OBJECT as u64).map_err(failed)?;
    let body = body.ok_or_else(|| too_large(attempted()))?;
    let modified = data.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
    Ok(Some(Object { etag: etag(&body), body, modified }))
}

fn open(place: &Path) -> Outcome<Option<(File, Metadata)>> {
    let attempted = || format!("read {}", place.display());
    let failed = |error| durable::failure(attempted(), &error);
    let mut options = OpenOptions::new();
    // A link or a pipe in the store must neither lead out of it nor hang us.
    options.read(true).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
    let file = match options.open(place) {
        Ok(file) => file,
        Err(error) if durable::is_missing(&error) => return Ok(None),
        Err(error) if error.raw_os_error() == Some(NOT_FOLLOWED) => {
            return Err(no_object(attempted(), &format!("it {LINK}")));
        }
        Err(error) if error.raw_os_error() == Some(IS_SOCKET) => return Err(no_object(attempted(), NO_FILE)),
        Err(error) => return Err(failed(error)),
    };
    let data = file.metadata().map_err(failed)?;
    if !data.is_file() {
        return Err(no_object(attempted(), NO_FILE));
    }
    Ok(Some((file, data)))
}

/// Collects the first keys after `after` that begin with `prefix`: one more than a page, and no more, whatever the
/// size of the store.
fn walk(folder: &Path, base: &str, prefix: &str, after: Option<&str>, found: &mut BTreeSet<String>) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if durable::is_missing(&error) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let key = format!("{base}{name}");
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let base = format!("{key}/");
            if base.starts_with(prefix) || prefix.starts_with(&base) {
                walk(&entry.path(), &base, prefix, after, found)?;
            }
        } else if kind.is_file() && key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after) {
            found.insert(key);
            if found.len() > PAGE + 1 {
                found.pop_last();
            }
        }
    }
    Ok(())
}
