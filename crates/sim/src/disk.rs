//! A machine's disk: it survives the agent, a reboot and everything but the end of the machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is at a path. Folders exist when something is below them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The content; empty for a socket.
    pub body: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// A socket, not a regular file.
    pub socket: bool,
}

/// Files by path.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    items: BTreeMap<PathBuf, Item>,
}

impl Disk {
    /// What is at this path.
    pub fn get(&self, path: &Path) -> Option<&Item> {
        self.items.get(path)
    }

    /// The content of a file as text; `None` when there is none.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        self.items.get(path.as_ref()).map(|item| String::from_utf8_lossy(&item.body).into_owned())
    }

    /// Whether there is such a file.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.items.contains_key(path.as_ref())
    }

    /// Writes a file.
    pub fn put(&mut self, path: impl AsRef<Path>, body: impl Into<Vec<u8>>, mode: u32) {
        self.items.insert(path.as_ref().to_owned(), Item { body: body.into(), mode, socket: false });
    }

    /// Makes a socket.
    pub fn socket(&mut self, path: impl AsRef<Path>) {
        self.items.insert(path.as_ref().to_owned(), Item { body: Vec::new(), mode: 0o660, socket: true });
    }

    /// Appends to a file.
    pub fn append(&mut self, path: &Path, body: &[u8], mode: u32) {
        let item = self.items.entry(path.to_owned()).or_insert_with(|| Item { body: Vec::new(), mode, socket: false });
        item.body.extend_from_slice(body);
    }

    /// Removes a file.
    pub fn remove(&mut self, path: impl AsRef<Path>) {
        self.items.remove(path.as_ref());
    }

    /// Removes everything below a folder.
    pub fn wipe(&mut self, folder: impl AsRef<Path>) {
        self.items.retain(|path, _| !path.starts_with(folder.as_ref()));
    }

    /// Whether anything is below a folder.
    pub fn is_folder(&self, folder: &Path) -> bool {
        // Paths are ordered by component: what is below a folder follows it directly.
        let mut below = self.items.range(folder.to_owned()..).skip_while(|(path, _)| *path == folder);
        below.next().is_some_and(|(path, _)| path.starts_with(folder))
    }

    /// The names in a folder, sorted.
    pub fn list(&self, folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = self
            .items
            .range(folder.to_owned()..)
            .take_while(|(path, _)| path.starts_with(folder))
            .filter_map(|(path, _)| path.strip_prefix(folder).ok())
            .filter_map(|rest| rest.components().next())
            .map(|name| name.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        names
    }

    /// Every file.
    pub fn items(&self) -> impl Iterator<Item = (&PathBuf, &Item)> {
        self.items.iter()
    }
}
