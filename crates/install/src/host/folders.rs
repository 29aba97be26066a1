//! Folders, and what is not whole yet: each gets its name when it is as it should be, so that a kill leaves nothing under it.

use crate::disk;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Of every folder that is made: others may look at what a distribution lets them look at.
const FOLDER_MODE: u32 = 0o755;
/// Begins the names of files and folders that are not whole yet; the process id of their writer follows.
const DRAFT: &str = ".kubestrap-";

/// Makes a folder and its missing parents with mode 0755, whatever the umask is.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder_of(folder)?;
    make(parent)?;
    match make_one(parent, folder) {
        // Another installation, which waits for the lock or has it, made the folder, or swept our draft of it away.
        Err(_) if folder.is_dir() => Ok(()),
        made => made,
    }
}

/// A folder with another mode would keep it for ever if it had its name already: nobody could tell it from a person's.
fn make_one(parent: &Path, folder: &Path) -> io::Result<()> {
    let draft = name_in(parent);
    // Of an earlier process with our id. Others' are left alone: nobody holds the lock yet.
    remove(&draft)?;
    disk::make_folder(&draft, FOLDER_MODE)?;
    let made = disk::set_mode(&draft, FOLDER_MODE)
        .and_then(|()| disk::sync_folder(&draft))
        .and_then(|()| disk::rename_new(&draft, folder));
    if made.is_err() {
        let _ = remove(&draft);
    }
    made.and_then(|()| disk::sync_folder(parent))
}

pub(super) fn folder_of(place: &Path) -> io::Result<&Path> {
    place.parent().ok_or_else(|| io::Error::from(ErrorKind::IsADirectory))
}

fn name_in(folder: &Path) -> PathBuf {
    #[cfg(test)]
    let id = crate::kill::process_id();
    #[cfg(not(test))]
    let id = std::process::id();
    folder.join(format!("{DRAFT}{id}"))
}

/// Removes what killed writers of ours left in a folder: files and empty folders with a process id in their names, and no
/// others.
pub(super) fn sweep(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(DRAFT)).and_then(|id| id.parse::<u32>().ok());
        if id.is_some() {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a draft. A folder with something in it is none of ours, for ours get their names before that.
fn remove(draft: &Path) -> io::Result<()> {
    let removed = match draft.symlink_metadata() {
        Ok(data) if data.is_file() => disk::remove_file(draft),
        Ok(data) if data.is_dir() && std::fs::read_dir(draft)?.next().is_none() => disk::remove_empty_folder(draft),
        _ => return Ok(()),
    };
    match removed {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => Ok(()),
        removed => removed,
    }
}

/// A new file in the folder, unreadable for others. What killed writers of ours left there is removed.
pub(super) fn draft(folder: &Path) -> io::Result<(PathBuf, File)> {
    sweep(folder)?;
    let path = name_in(folder);
    let file = disk::create_new(&path)?;
    Ok((path, file))
}

/// Gives a whole draft its name, and removes one that did not become whole.
pub(super) fn settle(filled: io::Result<()>, draft: &Path, place: &Path) -> io::Result<()> {
    let settled = filled.and_then(|()| disk::rename(draft, place));
    if settled.is_err() {
        let _ = disk::remove_file(draft);
    }
    settled.and_then(|()| disk::sync_folder(folder_of(place)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("metadata").permissions().mode() & 0o7777
    }

    #[test]
    fn a_folder_is_made_beside_what_has_the_name_of_its_draft_and_never_in_the_place_of_another() {
        let root = tempfile::tempdir().expect("folder");
        let draft = name_in(root.path());
        std::fs::write(&draft, "of a process with our id, that was killed").expect("write");
        let place = root.path().join("usr/lib");
        make(&place).expect("make");
        assert!(mode(&place) == 0o755 && mode(&root.path().join("usr")) == 0o755 && !draft.exists());

        std::fs::create_dir(&draft).expect("mkdir");
        std::fs::set_permissions(&place, PermissionsExt::from_mode(0o700)).expect("chmod");
        let refused = disk::rename_new(&draft, &place).expect_err("an empty folder is there");
        assert!(refused.kind() == ErrorKind::AlreadyExists && mode(&place) == 0o700, "{refused}");
        std::fs::write(root.path().join("file"), "").expect("write");
        make(&root.path().join("file/folder")).expect_err("it is a file");
        assert!(!draft.exists() || std::fs::read_dir(&draft).expect("list").next().is_none());
    }

    #[test]
    fn only_what_is_ours_and_empty_is_swept() {
        let root = tempfile::tempdir().expect("folder");
        for folder in [".kubestrap-1", ".kubestrap-2/inside", ".kubestrap-notes", "3"] {
            std::fs::create_dir_all(root.path().join(folder)).expect("mkdir");
        }
        std::fs::write(root.path().join(".kubestrap-4"), "half").expect("write");
        std::fs::write(root.path().join(".kubestrap-5x"), "whole").expect("write");
        sweep(root.path()).expect("sweep");
        let mut names: Vec<_> =
            root.path().read_dir().expect("list").flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, [".kubestrap-2", ".kubestrap-5x", ".kubestrap-notes", "3"]);
    }
}
