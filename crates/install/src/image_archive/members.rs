//! The members of a tar, found and bounded before one of them is read.

use super::Limits;
use crate::unpack::{check_link, inside};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result as IoResult, Seek, SeekFrom};
use std::path::Path;
use tar::EntryType;

/// A part of a file as if it were the file.
#[derive(Debug)]
pub(crate) struct Slice {
    file: File,
    start: u64,
    length: u64,
    at: u64,
}

impl Slice {
    /// `length` bytes from `start` on.
    pub fn new(file: File, start: u64, length: u64) -> Slice {
        Slice { file, start, length, at: 0 }
    }
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        let left = self.length.saturating_sub(self.at);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        self.file.seek(SeekFrom::Start(self.start.saturating_add(self.at)))?;
        let read = self.file.read(&mut buffer[..wanted])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Slice {
    fn seek(&mut self, to: SeekFrom) -> IoResult<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "before its begin"))?;
        Ok(self.at)
    }
}

/// Where the regular members are, by their names without `./`.
pub(super) struct Members {
    slice: Slice,
    document: u64,
    found: BTreeMap<String, (u64, u64)>,
    /// Links, and the member they name: old versions of `docker save` have one for a layer that is there twice.
    links: BTreeMap<String, String>,
}

impl Members {
    /// Looks at every header.
    pub fn scan(limits: Limits, mut slice: Slice) -> Result<Members, String> {
        bounded(limits, &mut slice)?;
        slice.seek(SeekFrom::Start(0)).map_err(damaged)?;
        let (mut found, mut links) = (BTreeMap::new(), BTreeMap::new());
        let mut archive = tar::Archive::new(&mut slice);
        for entry in archive.entries_with_seek().map_err(damaged)? {
            let entry = entry.map_err(damaged)?;
            let name = inside(&entry.path().map_err(damaged)?)?;
            let kind = entry.header().entry_type();
            let name = name.to_str().ok_or("a name in it is not UTF-8")?.to_owned();
            if let Some(target) = entry.link_name().map_err(damaged)? {
                check_link(Path::new(&name), &target, kind)?;
                links.insert(name.clone(), resolved(&name, &target, kind));
            }
            if kind == EntryType::Directory {
                continue;
            }
            // containerd would take the last one, and we have looked at another.
            if found.insert(name.clone(), (entry.raw_file_position(), entry.size())).is_some() {
                return Err(format!("{name} is in it twice"));
            }
        }
        found.retain(|name, _| !links.contains_key(name));
        Ok(Members { slice, document: limits.document, found, links })
    }

    /// The length of a member; `None` when it is not there.
    pub fn length(&self, name: &str) -> Option<u64> {
        let name = self.links.get(name).map_or(name, String::as_str);
        self.found.get(name).map(|(_, length)| *length)
    }

    /// A JSON document that must be there.
    pub fn document(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let (start, length) = *self.found.get(name).ok_or_else(|| format!("{name} is missing"))?;
        if length > self.document {
            return Err(format!("{name} has {length} bytes, and {} are read at most", self.document));
        }
        self.slice.seek(SeekFrom::Start(start)).map_err(damaged)?;
        let mut text = Vec::new();
        (&mut self.slice).take(length).read_to_end(&mut text).map_err(damaged)?;
        Ok(text)
    }
}

fn damaged(error: Error) -> String {
    format!("it is no tar archive (one that is compressed must be unpacked first), or a damaged one: {error}")
}

/// Raw, for extended headers are read into memory, and their kinds are hidden otherwise.
fn bounded(limits: Limits, slice: &mut Slice) -> Result<(), String> {
    let whole = slice.length;
    let mut archive = tar::Archive::new(slice);
    for (count, entry) in archive.entries_with_seek().map_err(damaged)?.raw(true).enumerate() {
        let entry = entry.map_err(damaged)?;
        if count >= limits.members {
            return Err(format!("it has more than {} members", limits.members));
        }
        let name = || String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Directory | EntryType::Symlink | EntryType::Link => {}
            EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
                if entry.size() <= limits.extension => {}
            other => return Err(format!("{:?} is of the kind {other:?}, of {} bytes", name(), entry.size())),
        }
        if entry.raw_file_position().checked_add(entry.size()).is_none_or(|end| end > whole) {
            return Err(format!("it ends in the middle of {}", name()));
        }
    }
    Ok(())
}

/// What a link names. It was checked that it stays inside.
fn resolved(name: &str, target: &Path, kind: EntryType) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    if kind == EntryType::Link {
        parts.clear();
    }
    let target = target.to_string_lossy();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
