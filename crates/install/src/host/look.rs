//! What is at a path.

use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Absent,
    /// A file.
    File {
        /// Permission bits.
        mode: u32,
        /// SHA-256, 64 lower-case hex digits.
        sha256: String,
    },
    /// A symbolic link to this.
    Link(PathBuf),
    /// A folder, a device, a socket.
    Other,
}

/// Looks; a file is read to its end, unless its digest is remembered.
pub fn look(place: &Path, digests: &Digests) -> Result<Seen> {
    let data = match std::fs::symlink_metadata(place) {
        Ok(data) => data,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Seen::Absent);
        }
        Err(error) => return Err(error),
    };
    if data.is_symlink() {
        return Ok(Seen::Link(std::fs::read_link(place)?));
    }
    if !data.is_file() {
        return Ok(Seen::Other);
    }
    let sha256 = digests.of(place, &mut File::open(place)?, SystemTime::now())?;
    Ok(Seen::File { mode: data.mode() & 0o7777, sha256 })
}

/// Everything about a file that changes with its content: device, inode, size, and the times of its last modification and
/// change in nanoseconds. Nobody can set the last back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp([i128; 5]);

impl Stamp {
    fn of(data: &Metadata) -> Stamp {
        let nanoseconds = |seconds: i64, more: i64| i128::from(seconds) * NANOSECONDS + i128::from(more);
        let (modified, changed) =
            (nanoseconds(data.mtime(), data.mtime_nsec()), nanoseconds(data.ctime(), data.ctime_nsec()));
        Stamp([data.dev().into(), data.ino().into(), data.size().into(), modified, changed])
    }

    /// Whether a change after `now` would be seen in the times: the clocks of file systems tick slowly.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(0));
        let Stamp([.., modified, changed]) = self;
        modified.max(changed) + TICK <= now
    }
}

const NANOSECONDS: i128 = 1_000_000_000;
/// Longer than any file system's tick: two seconds on FAT, a few milliseconds on those of a machine.
const TICK: i128 = 3 * NANOSECONDS;

/// Digests of files that were read by this process: programs of a hundred megabytes are looked at several times in a run.
#[derive(Debug, Default)]
pub struct Digests(RefCell<HashMap<PathBuf, (Stamp, String)>>);

impl Digests {
    /// The SHA-256 of the open file. `now` is a time before it is read.
    fn of(&self, place: &Path, file: &mut File, now: SystemTime) -> Result<String> {
        let before = Stamp::of(&file.metadata()?);
        if let Some((stamp, sha256)) = self.0.borrow().get(place)
            && *stamp == before
        {
            return Ok(sha256.clone());
        }
        let sha256 = digest(file)?;
        if before.is_settled(now) && Stamp::of(&file.metadata()?) == before {
            self.0.borrow_mut().insert(place.to_owned(), (before, sha256.clone()));
        }
        Ok(sha256)
    }
}

/// The SHA-256 of a text in hex.
pub fn digest_of(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn digest(file: &mut File) -> Result<String> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 256 * 1024]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{FileTimes, hard_link, rename, write};
    use std::time::Duration;

    /// Looks at a time when everything that was done is long ago.
    fn of(digests: &Digests, place: &Path) -> String {
        let later = SystemTime::now() + Duration::from_secs(60);
        digests.of(place, &mut File::open(place).expect("open"), later).expect("read")
    }

    /// What is remembered of the file is made wrong: whoever gives it back has not read the file.
    fn falsify(digests: &Digests, place: &Path) {
        digests.0.borrow_mut().get_mut(place).expect("remembered").1 = "remembered".to_owned();
    }

    #[test]
    fn a_file_is_read_again_only_when_it_may_have_changed() {
        let folder = tempfile::tempdir().expect("folder");
        let (place, other) = (folder.path().join("kubelet"), folder.path().join("other"));
        write(&place, "one").expect("write");
        let digests = Digests::default();
        assert_eq!(of(&digests, &place), digest_of("one"));
        falsify(&digests, &place);
        assert_eq!(of(&digests, &place), "remembered");

        // The same size, and the time of its modification set back: only the time of the change tells.
        let times = FileTimes::new().set_modified(place.metadata().and_then(|data| data.modified()).expect("time"));
        let overwrite = |text: &str| {
            std::thread::sleep(Duration::from_millis(20));
            write(&place, text).expect("write");
            File::options().write(true).open(&place).and_then(|file| file.set_times(times)).expect("set back");
        };
        overwrite("two");
        assert_eq!(of(&digests, &place), digest_of("two"));
        // Another file in its place, and another file of the same inode under another name.
        write(&other, "six").expect("write");
        rename(&other, &place).expect("rename");
        assert_eq!(of(&digests, &place), digest_of("six"));
        hard_link(&place, &other).expect("link");
        assert_eq!(of(&digests, &other), digest_of("six"));
    }

    #[test]
    fn a_file_that_was_just_written_is_not_remembered() {
        let folder = tempfile::tempdir().expect("folder");
        let place = folder.path().join("kubelet");
        write(&place, "one").expect("write");
        let digests = Digests::default();
        let changed = place.metadata().and_then(|data| data.modified()).expect("time");
        for (after, remembered) in [(0, 0), (2, 0), (4, 1)] {
            let now = changed + Duration::from_secs(after);
            digests.of(&place, &mut File::open(&place).expect("open"), now).expect("read");
            assert_eq!(digests.0.borrow().len(), remembered, "{after} s after it was written");
        }
    }
}
