//! Whether the state folder can be trusted: what lies in it proves what may be destroyed (safety rule 5), and what runs
//! as root.

use crate::adapters::durable;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Nothing of ours lies deeper: `jobs/<name>/output`.
const DEEPEST: usize = 4;
const LOOK: &str = "somebody may have prepared it: look at what is in it";

/// The owner of our own process's folder: `geteuid` would need nix's `user` feature, which brings NSS in.
pub fn own_uid() -> u32 {
    std::fs::metadata("/proc/self").map_or(0, |data| data.uid())
}

/// `UnsafeFile` when the folder, or anything in it, is a link, is not root's or ours, or can be written by others.
/// Nothing happens when there is no such folder.
pub fn refuse_unsafe(folder: &Path) -> Outcome<()> {
    look(folder, own_uid(), DEEPEST)
}

fn look(path: &Path, own_uid: u32, deeper: usize) -> Outcome<()> {
    let attempted = || format!("use the state in {}", path.display());
    let data = match std::fs::symlink_metadata(path) {
        Err(error) if durable::is_missing(&error) => return Ok(()),
        data => data.map_err(|error| durable::failure(attempted(), &error))?,
    };
    if let Some((why, advice)) = objection(path, &data, own_uid) {
        return Err(Failure::new(Cause::UnsafeFile, attempted(), why).advise(advice));
    }
    if !data.is_dir() || deeper == 0 {
        return Ok(());
    }
    let failed = |error| durable::failure(attempted(), &error);
    for entry in std::fs::read_dir(path).map_err(failed)? {
        look(&entry.map_err(failed)?.path(), own_uid, deeper - 1)?;
    }
    Ok(())
}

/// What is wrong with it, and what to do.
fn objection(path: &Path, data: &Metadata, own_uid: u32) -> Option<(String, String)> {
    let path = path.display();
    if data.is_symlink() {
        let advice =
            format!("{LOOK}, and put the thing itself there; a folder on another disk can be mounted at {path}");
        return Some(("it is a symbolic link".to_owned(), advice));
    }
    if !data.is_dir() && !data.is_file() {
        return Some(("it is neither a file nor a folder".to_owned(), format!("{LOOK}, then remove it")));
    }
    if data.uid() != 0 && data.uid() != own_uid {
        let why = format!("it belongs to user {}, who could change it", data.uid());
        return Some((why, format!("{LOOK}, then `chown root {path}`")));
    }
    if data.mode() & 0o022 != 0 {
        let why = format!("it is writable by others (mode {:04o})", data.mode() & 0o7777);
        return Some((why, format!("{LOOK}, then `chmod go-w {path}`")));
    }
    None
}
