//! Every change of files that an installation makes goes through here (`clippy.toml` forbids the other ways): each is a
//! point at which the tests kill it, before it and in the middle of it.

#![allow(clippy::disallowed_methods)]

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Result, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// A change that happens as a whole or not at all.
fn whole<T>(what: &str, path: &Path, change: impl FnOnce() -> Result<T>) -> Result<T> {
    #[cfg(test)]
    crate::kill::pass(&format!("{what} {}", path.display()), None);
    #[cfg(not(test))]
    let _ = (what, path);
    change()
}

/// A change that may stop in the middle; `half` is that.
fn divisible<T>(what: &str, half: impl FnOnce(), change: impl FnOnce() -> Result<T>) -> Result<T> {
    #[cfg(test)]
    crate::kill::pass(what, Some(Box::new(half)));
    #[cfg(not(test))]
    let _ = (what, half);
    change()
}

/// A folder in a folder that is there, with this mode less the umask.
pub(crate) fn make_folder(path: &Path, mode: u32) -> Result<()> {
    #[cfg(test)]
    let mode = mode & !crate::kill::umask();
    whole("make the folder", path, || DirBuilder::new().mode(mode).create(path))
}

/// A folder that only its owner may enter, and its missing parents like it.
pub(crate) fn make_private_folders(path: &Path) -> Result<()> {
    whole("make the folders", path, || DirBuilder::new().recursive(true).mode(0o700).create(path))
}

/// A file that was not there, unreadable for others.
pub(crate) fn create_new(path: &Path) -> Result<File> {
    whole("create", path, || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path))
}

/// The file that is there, as it is, or a new one, unreadable for others.
pub(crate) fn open_or_create(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    whole("open or create", path, || options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path))
}

/// Appends at the file's position.
pub(crate) fn write_all(file: &File, bytes: &[u8]) -> Result<()> {
    let half = || {
        // The kill that follows is what the test is about.
        let _ = (&*file).write_all(&bytes[..bytes.len() / 2]);
    };
    divisible("write", half, || (&*file).write_all(bytes))?;
    #[cfg(test)]
    crate::kill::wrote(file);
    Ok(())
}

/// Appends all of the other.
pub(crate) fn copy(from: &mut File, to: &File) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => write_all(to, &buffer[..count])?,
        }
    }
}

/// Writes into what is there, without another file: for settings of the kernel.
pub(crate) fn overwrite(path: &Path, text: &str) -> Result<()> {
    whole("set", path, || std::fs::write(path, text))
}

/// Empties a file.
pub(crate) fn truncate(file: &File, path: &Path) -> Result<()> {
    whole("empty", path, || file.set_len(0))
}

/// Sets the permission bits.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    whole("change the mode of", path, || std::fs::set_permissions(path, Permissions::from_mode(mode)))
}

/// Sets the permission bits of an open file.
pub(crate) fn set_mode_of(file: &File, path: &Path, mode: u32) -> Result<()> {
    whole("change the mode of", path, || file.set_permissions(Permissions::from_mode(mode)))
}

/// Waits until the content is on disk.
pub(crate) fn sync(file: &File) -> Result<()> {
    #[cfg(test)]
    if crate::kill::synced(file) {
        return Ok(());
    }
    file.sync_all()
}

/// Waits until the names in a folder are on disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    sync(&File::open(folder)?)
}

/// Gives it another name, and replaces what has it.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    whole("rename to", to, || {
        #[cfg(test)]
        crate::kill::renames(from, to)?;
        std::fs::rename(from, to)
    })
}

/// Gives it a name that nothing has; `AlreadyExists` when something has it.
pub(crate) fn rename_new(from: &Path, to: &Path) -> Result<()> {
    whole("rename to", to, || {
        #[cfg(test)]
        crate::kill::renames(from, to)?;
        match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
            // Some file systems (9p, old NFS) do not know the flag.
            Err(Errno::EINVAL | Errno::ENOSYS) if to.symlink_metadata().is_err() => std::fs::rename(from, to),
            renamed => Ok(renamed?),
        }
    })
}

/// Makes a symbolic link.
pub(crate) fn link(target: &str, path: &Path) -> Result<()> {
    whole("link", path, || std::os::unix::fs::symlink(target, path))
}

/// Removes a file or a link.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    whole("remove", path, || std::fs::remove_file(path))
}

/// Removes a folder; an error when something is in it.
pub(crate) fn remove_empty_folder(path: &Path) -> Result<()> {
    whole("remove the folder", path, || std::fs::remove_dir(path))
}

/// Removes a folder with everything in it.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    divisible(&format!("remove the folder {}", path.display()), || half_of(path), || std::fs::remove_dir_all(path))
}

/// Removes every second entry of a folder.
fn half_of(path: &Path) {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries.step_by(2) {
        let removed = std::fs::remove_file(entry.path());
        // The kill that follows is what the test is about.
        let _: Result<()> = removed.or_else(|_| std::fs::remove_dir_all(entry.path()));
    }
}
