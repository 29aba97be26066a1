//! Logins of ECR on this machine, for all invocations of the plugin: a file each, for its owner's eyes alone.
//!
//! In `/run` by default: a login must not outlive the boot in an image that is made of this disk.

use crate::adapters::durable;
use kubestrap_core::ecr::cache::{Entry, Key, MAX_ENTRY};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use nix::fcntl::{Flock, FlockArg, OFlag};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where it is on a node.
pub const FOLDER: &str = "/run/kubestrap/ecr";

/// How an invocation came to its end, as the metrics call it.
pub const ENDS: [&str; 4] = ["hit", "asked", "spared", "failed"];

/// The cache in a folder.
#[derive(Debug)]
pub struct TokenCache {
    folder: PathBuf,
    own_uid: u32,
}

/// The right to ask ECR for an entry; given back when it is dropped, or when the process dies in whatever way.
pub struct Turn(#[expect(dead_code, reason = "held, not read")] Flock<File>);

impl TokenCache {
    /// Nothing is read or made.
    pub fn new(folder: &Path, own_uid: u32) -> Self {
        TokenCache { folder: folder.to_owned(), own_uid }
    }

    /// The entry of a key; `None` when there is none that can be used: whatever is wrong with it, it is written anew.
    pub fn read(&self, key: &Key) -> Option<Entry> {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(self.place(key, "json")).ok()?;
        let data = file.metadata().ok()?;
        // What another user wrote would become our credentials, and what others read must not be used any longer.
        if !data.is_file() || data.uid() != self.own_uid || data.mode() & 0o077 != 0 {
            return None;
        }
        Entry::read(&durable::read_bounded(&mut file, MAX_ENTRY).ok()??, key)
    }

    /// Replaces the entry of a key; needs [`TokenCache::prepare`].
    ///
    /// # Errors
    /// When it cannot be written; the old one is intact.
    pub fn write(&self, key: &Key, entry: &Entry) -> Outcome<()> {
        let path = self.place(key, "json");
        durable::replace(&path, entry.render(key).expose().as_bytes(), 0o600)
            .map_err(|error| durable::failure(format!("write {}", path.display()), &error))
    }

    /// Makes the folder.
    ///
    /// # Errors
    /// When it cannot be made, or is a link or somebody else's to write.
    pub fn prepare(&self) -> Outcome<()> {
        let attempted = || format!("use the cache {}", self.folder.display());
        let failed = |error| durable::failure(attempted(), &error);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        if !self.is_ours().map_err(failed)? {
            let why = "it is not a folder that we alone may write to";
            return Err(Failure::new(Cause::UnsafeFile, attempted(), why));
        }
        Ok(())
    }

    fn is_ours(&self) -> std::io::Result<bool> {
        let data = std::fs::symlink_metadata(&self.folder)?;
        Ok(data.is_dir() && data.uid() == self.own_uid && data.mode() & 0o022 == 0)
    }

    /// The turn to ask for an entry; `None` while another process has it.
    ///
    /// # Errors
    /// When the lock cannot be made.
    pub fn turn(&self, key: &Key) -> Outcome<Option<Turn>> {
        let path = self.place(key, "lock");
        let failed = |error| durable::failure(format!("lock {}", path.display()), &error);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let file = options.open(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Turn(lock))),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }

    /// Counts how an invocation ended, one of [`ENDS`]; best effort. A count is a file of as many bytes: to append one is
    /// atomic, and needs no lock that a killed process could leave half-way.
    pub fn count(&self, end: &str) {
        // Nothing is written where a link leads, or where others put what they like.
        if !self.is_ours().is_ok_and(|ours| ours) {
            return;
        }
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).custom_flags(flags).open(self.folder.join(end));
        let _ = file.and_then(|mut file| file.write_all(b"."));
    }

    /// How many invocations ended in each way since the boot, in the order of [`ENDS`].
    pub fn counts(&self) -> [u64; ENDS.len()] {
        ENDS.map(|end| std::fs::symlink_metadata(self.folder.join(end)).map_or(0, |data| data.len()))
    }

    fn place(&self, key: &Key, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", key.file_name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubestrap_core::ecr::host::Api;
    use kubestrap_core::ecr::token::Login;
    use kubestrap_core::model::secret::Secret;
    use kubestrap_core::ports::TokenRequest;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn cache(folder: &Path) -> TokenCache {
        let own_uid = std::fs::metadata("/proc/self").expect("proc").uid();
        TokenCache::new(folder, own_uid)
    }

    fn key() -> Key {
        Key::of(&TokenRequest { api: Api::Public, role: None }, &[]).expect("a key")
    }

    fn entry() -> Entry {
        let at = jiff::Timestamp::from_second(1000).expect("a time");
        let login = Login { username: "AWS".into(), password: Secret::new("p"), expires_at: at };
        Entry { login: Some((login, at)), failure: None }
    }

    #[test]
    fn an_entry_is_for_its_owner_alone() {
        let home = tempfile::tempdir().expect("folder");
        let cache = cache(&home.path().join("run/ecr"));
        assert_eq!(cache.read(&key()), None);
        cache.prepare().expect("prepare");
        cache.write(&key(), &entry()).expect("write");
        assert_eq!(cache.read(&key()), Some(entry()));
        let file = cache.place(&key(), "json");
        let mode = |path: &Path| std::fs::metadata(path).expect("stat").mode() & 0o777;
        assert_eq!((mode(&file), mode(&cache.folder)), (0o600, 0o700));
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("chmod");
        assert_eq!(cache.read(&key()), None, "others could read it");
        let elsewhere = home.path().join("elsewhere");
        std::fs::rename(&file, &elsewhere).expect("mv");
        std::fs::set_permissions(&elsewhere, PermissionsExt::from_mode(0o600)).expect("chmod");
        symlink(&elsewhere, &file).expect("link");
        assert_eq!(cache.read(&key()), None, "a link");
    }

    #[test]
    fn a_folder_of_others_is_not_used() {
        let home = tempfile::tempdir().expect("folder");
        let open = home.path().join("open");
        std::fs::create_dir(&open).expect("mkdir");
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).expect("chmod");
        let link = home.path().join("link");
        symlink(home.path(), &link).expect("link");
        for folder in [open, link] {
            assert_eq!(cache(&folder).prepare().expect_err("refused").cause, Cause::UnsafeFile);
        }
        std::fs::write(home.path().join("file"), "").expect("write");
        assert!(cache(&home.path().join("file")).prepare().is_err());
    }

    #[test]
    fn ends_are_counted() {
        let home = tempfile::tempdir().expect("folder");
        let cache = cache(home.path());
        assert_eq!(cache.counts(), [0, 0, 0, 0]);
        for end in ["hit", "hit", "failed"] {
            cache.count(end);
        }
        assert_eq!(cache.counts(), [2, 0, 0, 1]);
    }

    #[test]
    fn one_asks_at_a_time() {
        let home = tempfile::tempdir().expect("folder");
        let cache = cache(home.path());
        let turn = cache.turn(&key()).expect("a lock");
        assert!(turn.is_some());
        assert!(cache.turn(&key()).expect("a lock").is_none());
        drop(turn);
        assert!(cache.turn(&key()).expect("a lock").is_some());
    }
}
