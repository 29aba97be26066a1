//! Files that are whole or not there: what the machine's files, the folder store and the job records are written with.

use crate::adapters::killpoint::{self, Point, cross};
use kubestrap_core::model::cause::{Cause, Failure};
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Error, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Begins the names of temporary files. Listings leave them out, and the kubelet ignores names with a dot in front.
const TEMPORARY: &str = ".kubestrap-";
/// A temporary file that is older was left behind by a process that was killed. A write takes milliseconds.
const LEFT_BEHIND: Duration = Duration::from_secs(600);
/// Of every folder we make.
const FOLDER_MODE: u32 = 0o700;

/// Translates an error of the file system; `attempted` names the path.
pub fn failure(attempted: impl Into<String>, error: &Error) -> Failure {
    let cause = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Cause::DiskFull,
        _ => Cause::FileAccess,
    };
    Failure::new(cause, attempted, error.to_string())
}

/// Whether the error says that there is nothing at the path.
pub fn is_missing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Whether a name is that of a temporary file of ours.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY)
}

/// A file that is complete and durable but has no name that anybody looks for yet. Its temporary name goes away with
/// it.
pub struct Draft {
    path: PathBuf,
}

impl Draft {
    /// Writes and syncs a file beside `target`, whose folder must exist. The mode is set before the first byte.
    pub fn beside(target: &Path, body: &[u8], mode: u32) -> io::Result<Draft> {
        let folder = folder_of(target);
        sweep(folder, LEFT_BEHIND);
        let path = folder.join(temporary_name());
        // Made unreadable for others whatever the umask is; then exactly the mode that was asked for.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let draft = Draft { path };
        cross(Point::DraftCreated, target);
        file.set_permissions(Permissions::from_mode(mode))?;
        cross(Point::DraftModeSet, target);
        killpoint::write_all(&mut file, body, Point::DraftHalfWritten, target)?;
        cross(Point::DraftWritten, target);
        file.sync_all()?;
        cross(Point::DraftSynced, target);
        Ok(draft)
    }

    /// Takes the place of `target` and of whatever is there, a symbolic link itself rather than what it points to.
    pub fn replace(self, target: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, target)?;
        cross(Point::DraftRenamed, target);
        Ok(())
    }

    /// Becomes `target`, or fails with `AlreadyExists` when there is one: link(2) is atomic.
    pub fn create(self, target: &Path) -> io::Result<()> {
        std::fs::hard_link(&self.path, target)?;
        cross(Point::DraftLinked, target);
        drop(self);
        cross(Point::DraftRemoved, target);
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After `replace` there is nothing left to remove; otherwise `sweep` is the second chance.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Replaces a file atomically and durably. On failure the old one is intact.
pub fn replace(target: &Path, body: &[u8], mode: u32) -> io::Result<()> {
    make_folders(folder_of(target))?;
    Draft::beside(target, body, mode)?.replace(target)?;
    sync_folder(folder_of(target))?;
    cross(Point::ReplaceSynced, target);
    Ok(())
}

/// Makes a folder and its missing parents, each with mode 0700 and durable. Nothing happens when it is there.
pub fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folders(parent)?;
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Ok(()) => {}
        // Somebody else was faster; when it is not a folder, what comes next says so.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    cross(Point::FolderMade, folder);
    std::fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE))?;
    cross(Point::FolderModeSet, folder);
    sync_folder(folder_of(folder))?;
    cross(Point::FolderSynced, folder);
    Ok(())
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder a path lies in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// At most `limit` bytes; `None` when there are more.
pub fn read_bounded(file: &mut impl Read, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut body)?;
    Ok((body.len() as u64 <= limit).then_some(body))
}

/// Unique on this machine by pid and counter; by the clock among machines that share a folder over a network.
fn temporary_name() -> OsString {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{TEMPORARY}{:x}-{count:x}-{nanos:x}", std::process::id()).into()
}

/// Removes the temporary files of killed writers in a folder and below it, `except` one folder. The caller knows that
/// nobody writes there now: no writer is spared for its youth. They may hold what was secret, a join token for example,
/// and a folder that is written to once would keep them for ever.
pub fn sweep_dead(folder: &Path, except: &Path) {
    sweep(folder, Duration::ZERO);
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.path() != except {
            sweep_dead(&entry.path(), except);
        }
    }
}

/// Removes what killed writers left in the folder and is at least `age` old. Best effort: an error is no reason to fail.
fn sweep(folder: &Path, age: Duration) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| is_temporary(&entry.file_name().to_string_lossy())) {
        let written = entry.metadata().and_then(|data| data.modified());
        if written.is_ok_and(|at| at.elapsed().unwrap_or_default() >= age) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
