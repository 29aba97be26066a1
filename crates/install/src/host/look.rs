//! What is at a path.

use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{ErrorKind, Read, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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

/// Looks; a file is read to its end.
pub fn look(place: &Path) -> Result<Seen> {
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
    Ok(Seen::File { mode: data.mode() & 0o7777, sha256: digest(&mut File::open(place)?)? })
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
