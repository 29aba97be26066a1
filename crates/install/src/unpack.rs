//! Takes out of a verified file what belongs on the machine.
//!
//! The file is what its project released, so a bad archive here means a project that was taken over, or a checksum of
//! the configuration for something else. Nothing of it is written outside of the folder that was asked for, whatever
//! its members are called.

use crate::catalog::{Member, Placement, placements};
use crate::disk;
use crate::download::{Fetched, broken, hex};
use flate2::read::GzDecoder;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// A file that is ready to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Where it is now: in the folder that was asked for, or in the cache.
    pub staged: PathBuf,
    /// Where it belongs.
    pub to: PathBuf,
    /// Permission bits it should have there.
    pub mode: u32,
    /// SHA-256 of it, 64 lower-case hex digits.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

/// What an archive may have.
#[derive(Debug, Clone, Copy)]
struct Limits {
    entries: usize,
    /// Unpacked, headers included.
    bytes: u64,
    /// Of extended headers, which are read into memory.
    extension: u64,
}

/// containerd's archive has a dozen members and less than 200 MB, CNI's two dozen.
const LIMITS: Limits = Limits { entries: 1000, bytes: 1024 * 1024 * 1024, extension: 64 * 1024 };

/// The files of a component, taken out of what was fetched into `into` (made when absent, 0700).
///
/// An archive is refused as a whole, before anything of it is written, when it has an absolute name, one with `..`, a
/// link that leads out of it, a device, two members of one name, or too much of anything; and afterwards when a member
/// that belongs on the machine is not there.
pub fn unpack(fetched: &Fetched, into: &Path) -> Outcome<Vec<Placed>> {
    unpack_within(LIMITS, fetched, placements(fetched.artifact.component), into)
}

fn unpack_within(limits: Limits, fetched: &Fetched, wanted: &[Placement], into: &Path) -> Outcome<Vec<Placed>> {
    let refuse = |why: String| {
        Failure::new(
            Cause::DownloadRejected,
            format!("unpack {} of {}", fetched.artifact.file, fetched.artifact.title()),
            why,
        )
    };
    if let [Placement { member: Member::Whole, to, mode }] = wanted {
        // It was hashed when it was fetched, and nobody else may enter the cache.
        let (staged, sha256) = (fetched.path.clone(), fetched.artifact.sha256.clone());
        let data = std::fs::metadata(&staged).map_err(|error| broken(format!("read {}", staged.display()), &error));
        return Ok(vec![Placed { to: to.into(), mode: *mode, sha256, bytes: data?.len(), staged }]);
    }
    let made = disk::make_private_folders(into);
    made.map_err(|error| broken(format!("make {}", into.display()), &error))?;
    inspect(limits, &fetched.path, wanted).map_err(refuse)?;
    let placed = extract(limits, &fetched.path, wanted, into).map_err(|trouble| match trouble {
        Trouble::Archive(why) => refuse(why),
        Trouble::Disk(failure) => failure,
    })?;
    for placement in wanted {
        let is_there = match placement.member {
            Member::TopLevel => placed.iter().any(|file| file.to.starts_with(placement.to)),
            _ => placed.iter().any(|file| file.to == Path::new(placement.to)),
        };
        if !is_there {
            return Err(refuse(format!("it has nothing for {}", placement.to)));
        }
    }
    Ok(placed)
}

type Unpacked = tar::Archive<Bounded<GzDecoder<BufReader<File>>>>;

fn archive(limits: Limits, path: &Path) -> Result<Unpacked, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let inner = GzDecoder::new(BufReader::new(file));
    Ok(tar::Archive::new(Bounded { inner, left: limits.bytes, limit: limits.bytes }))
}

/// Fails, instead of ending, after so many bytes.
struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| std::io::Error::other(format!("unpacked it has more than {} bytes", self.limit)))?;
        Ok(read)
    }
}

/// Looks at every member before anything is written.
fn inspect(limits: Limits, path: &Path, wanted: &[Placement]) -> Result<(), String> {
    let damaged = |error: std::io::Error| format!("it is damaged: {error}");
    // Once raw, for extended headers are read into memory and their kinds are hidden otherwise.
    let mut raw = archive(limits, path)?;
    for (count, entry) in raw.entries().map_err(damaged)?.raw(true).enumerate() {
        let entry = entry.map_err(damaged)?;
        if count >= limits.entries {
            return Err(format!("it has more than {} members", limits.entries));
        }
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Directory | EntryType::Symlink | EntryType::Link => {}
            EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
                if entry.size() <= limits.extension => {}
            other => {
                let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                return Err(format!("{name:?} is of the kind {other:?}, of {} bytes", entry.size()));
            }
        }
    }
    // To the end of the compressed data, where its own checksum is.
    std::io::copy(&mut raw.into_inner(), &mut std::io::sink()).map_err(damaged)?;
    let mut names = BTreeSet::new();
    for entry in archive(limits, path)?.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let name = inside(&entry.path().map_err(damaged)?)?;
        if let Some(target) = entry.link_name().map_err(damaged)? {
            check_link(&name, &target, entry.header().entry_type())?;
        }
        let (kind, executable) = (entry.header().entry_type(), entry.header().mode().map_err(damaged)? & 0o111 != 0);
        if kind == EntryType::Directory {
            continue;
        }
        if kind != EntryType::Regular && destination(wanted, &name, executable).is_some() {
            return Err(format!("{} is not a regular file", name.display()));
        }
        if !names.insert(name.clone()) {
            return Err(format!("{} is in it twice", name.display()));
        }
    }
    Ok(())
}

/// The name without `./`; refused when it is absolute or climbs.
pub(crate) fn inside(name: &Path) -> Result<PathBuf, String> {
    let mut plain = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            _ => return Err(format!("the name {:?} leads out of the archive", name.display().to_string())),
        }
    }
    Ok(plain)
}

/// Links are never placed, and those that lead out are a sign of an attack.
pub(crate) fn check_link(name: &Path, target: &Path, kind: EntryType) -> Result<(), String> {
    // A hard link names a member, a symbolic one is relative to its own folder.
    let base = if kind == EntryType::Link { Path::new("") } else { name.parent().unwrap_or(Path::new("")) };
    let mut depth = base.components().count();
    for part in target.components() {
        depth = match part {
            Component::Normal(_) => Some(depth + 1),
            Component::CurDir => Some(depth),
            Component::ParentDir => depth.checked_sub(1),
            _ => None,
        }
        .ok_or_else(|| format!("the link {} leads out of the archive, to {}", name.display(), target.display()))?;
    }
    Ok(())
}

enum Trouble {
    Archive(String),
    Disk(Failure),
}

fn extract(limits: Limits, path: &Path, wanted: &[Placement], into: &Path) -> Result<Vec<Placed>, Trouble> {
    let damaged = |error: std::io::Error| Trouble::Archive(format!("it is damaged: {error}"));
    let mut placed = Vec::new();
    for entry in archive(limits, path).map_err(Trouble::Archive)?.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = inside(&entry.path().map_err(damaged)?).map_err(Trouble::Archive)?;
        let executable = entry.header().mode().map_err(damaged)? & 0o111 != 0;
        let Some((placement, to)) = destination(wanted, &name, executable) else { continue };
        if entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let staged = into.join(to.file_name().unwrap_or_default());
        let (sha256, bytes) = stage(&mut entry, &staged)?;
        placed.push(Placed { staged, to, mode: placement.mode, sha256, bytes });
    }
    Ok(placed)
}

fn destination<'a>(wanted: &'a [Placement], name: &Path, executable: bool) -> Option<(&'a Placement, PathBuf)> {
    wanted.iter().find_map(|placement| match placement.member {
        Member::Named(member) if name == Path::new(member) => Some((placement, placement.to.into())),
        // Licences lie beside the programs.
        Member::TopLevel if executable && name.components().count() == 1 => {
            Some((placement, Path::new(placement.to).join(name)))
        }
        _ => None,
    })
}

/// Copies a member, hashed on the way. Whatever had this name is removed first: it is not written through.
fn stage(entry: &mut impl Read, to: &Path) -> Result<(String, u64), Trouble> {
    let failed = |error: std::io::Error| Trouble::Disk(broken(format!("write {}", to.display()), &error));
    match disk::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = disk::create_new(to).map_err(failed)?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 256 * 1024]);
    loop {
        let read = entry.read(&mut buffer).map_err(|error| Trouble::Archive(format!("it is damaged: {error}")))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        disk::write_all(&file, &buffer[..read]).map_err(failed)?;
        bytes += read as u64;
    }
    disk::set_mode_of(&file, to, 0o700).map_err(failed)?;
    disk::sync(&file).map_err(failed)?;
    Ok((hex(&hash.finalize()), bytes))
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
