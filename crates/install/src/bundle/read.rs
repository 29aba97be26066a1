//! Reading a bundle.

use super::index::{INDEX, Image, Index, MAX_INDEX};
use crate::catalog::{Artifact, Component, Wanted};
use crate::download::{Body, broken, digest, hex};
use crate::image_archive::{self, Archived, Slice};
use crate::lock::{ChecksumFrom, Checksums, check_sha256};
use crate::source::{Opened, key};
use async_trait::async_trait;
use bytes::Bytes;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Members of a tar that are looked at.
const MAX_MEMBERS: usize = 10_000;
/// Bytes that are handed on at a time.
const PIECE: usize = 256 * 1024;

/// A bundle whose index was read and whose members are all there with the length that the index says.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    index: Index,
    /// Where each member begins in the tar, and its length; `None` for a folder.
    members: Option<BTreeMap<String, (u64, u64)>>,
    pinned: bool,
}

impl Bundle {
    /// Opens a folder or a `.tar`. With `index_sha256` the index must have that digest, and then counts for files that
    /// neither the configuration nor the lock knows ([`Bundle::add_checksums`]).
    pub fn open(path: &Path, index_sha256: Option<&str>) -> Outcome<Bundle> {
        let shown = path.display().to_string();
        let failed = |error: std::io::Error| broken(format!("read the bundle {shown}"), &error);
        let kind = std::fs::metadata(path).map_err(failed)?;
        let members = if kind.is_dir() { None } else { Some(members(path)?) };
        let mut bundle = Bundle { path: path.to_owned(), index: nothing(), members, pinned: false };
        let (mut file, length) = bundle.member(INDEX)?;
        if length > MAX_INDEX {
            return Err(bundle.refuse(format!("its index.json has {length} bytes")));
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        if let Some(expected) = index_sha256 {
            let expected = check_sha256(expected)
                .map_err(|why| Failure::new(Cause::Configuration, format!("read the bundle {shown}"), why))?;
            let found = hex(&Sha256::digest(&text));
            if found != expected {
                let why = format!("the SHA-256 of its index.json is {found}, and {expected} was given");
                return Err(bundle.refuse(why));
            }
            bundle.pinned = true;
        }
        bundle.index = Index::parse(&shown, &text)?;
        bundle.complete()?;
        Ok(bundle)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The versions in it, for what `wanted` leaves open. A component that is there in several versions stays open.
    pub fn fill(&self, wanted: &mut Wanted) {
        let only = |component: Component| {
            let mut versions = self.index.files.iter().filter(|listed| listed.component == component);
            match (versions.next(), versions.next()) {
                (Some(listed), None) => Some(listed.version.clone()),
                _ => None,
            }
        };
        if wanted.kubeadm.is_none() && wanted.kubelet.is_none() && wanted.kubectl.is_none() {
            wanted.kubernetes = wanted.kubernetes.take().or_else(|| only(Component::Kubelet));
        }
        wanted.containerd = wanted.containerd.take().or_else(|| only(Component::Containerd));
        wanted.runc = wanted.runc.take().or_else(|| only(Component::Runc));
        wanted.cni_plugins = wanted.cni_plugins.take().or_else(|| only(Component::CniPlugins));
        wanted.crictl = wanted.crictl.take().or_else(|| only(Component::Crictl));
    }

    /// Adds what the index says to what is known, when the index itself was pinned; otherwise nothing. The
    /// configuration and the lock win.
    pub fn add_checksums(&self, checksums: &mut Checksums) -> Outcome<()> {
        for listed in self.index.files.iter().filter(|_| self.pinned) {
            let added =
                checksums.add(listed.component, &listed.version, self.index.arch, &listed.sha256, ChecksumFrom::Bundle);
            added.map_err(|why| self.refuse(why))?;
        }
        Ok(())
    }

    /// Whether it has these files, for this architecture, with these digests by its own index.
    pub(crate) fn check(&self, artifacts: &[Artifact]) -> Outcome<()> {
        for artifact in artifacts {
            let Artifact { component, version, arch, sha256, checksum_from, .. } = artifact;
            if *arch != self.index.arch {
                let why = format!("it is for {} machines, and this one is {arch}", self.index.arch);
                return Err(self
                    .refuse(why)
                    .advise(format!("make one with `kubestrap install --download-only --arch {arch}`")));
            }
            let of_component = || self.index.files.iter().filter(|listed| listed.component == *component);
            let Some(listed) = of_component().find(|listed| listed.version == *version) else {
                let others: Vec<&str> = of_component().map(|listed| listed.version.as_str()).collect();
                let has = if others.is_empty() { "no version of it".to_owned() } else { others.join(", ") };
                let why = format!("{component} {version} is wanted, and it has {has}");
                return Err(self
                    .refuse(why)
                    .advise("correct `install.versions`, or make a bundle with these versions"));
            };
            if listed.sha256 != *sha256 {
                let who = checksum_from.told();
                let why = format!("its index says {} for {}, and {who} says {sha256}", listed.sha256, artifact.title());
                return Err(self.refuse(why));
            }
        }
        Ok(())
    }

    /// Opens a released file; its content is not verified yet.
    pub(crate) fn open_file(&self, artifact: &Artifact) -> Outcome<Opened> {
        let (file, length) = self.member(&key(artifact))?;
        Ok(Opened { length: Some(length), body: Box::new(Pieces { file, place: self.path.display().to_string() }) })
    }

    /// The image archives in it, and what is in them by their own tables. Nothing but a pinned index says that they are the
    /// right ones: without, a bundle that has some is refused.
    pub fn archives(&self) -> Outcome<Vec<Archived>> {
        if !self.pinned && !self.index.images.is_empty() {
            let why = format!(
                "it has {} image archives, and nothing says that they are the right ones",
                self.index.images.len()
            );
            return Err(self.refuse(why).advise(
                "give the SHA-256 of its index, which `kubestrap install --download-only` printed: --index-sha256, or \
                 `install.index_sha256`",
            ));
        }
        let archived = |image: &Image| {
            let name = format!("images/{}", image.file);
            let (file, start, length) = self.place(&name)?;
            let place = format!("{name} of the bundle {}", self.path.display());
            let images = image_archive::read(&place, Slice::new(file, start, length), self.index.arch)?;
            Ok(Archived { file: image.file.clone(), sha256: image.sha256.clone(), images })
        };
        self.index.images.iter().map(archived).collect()
    }

    /// Copies these image archives into `folder` and compares them with the index, all before the first is handed on. One that is
    /// there and right is kept.
    pub fn images(&self, files: &[&str], folder: &Path) -> Outcome<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for image in self.index.images.iter().filter(|image| files.contains(&image.file.as_str())) {
            let path = folder.join(&image.file);
            if !digest(&path).is_ok_and(|(found, _)| found == image.sha256) {
                self.copy_image(&image.file, &image.sha256, &path)?;
            }
            paths.push(path);
        }
        Ok(paths)
    }

    fn copy_image(&self, name: &str, sha256: &str, to: &Path) -> Outcome<()> {
        let (mut file, _) = self.member(&format!("images/{name}"))?;
        let part = to.with_extension("tar.part");
        let failed = |error: std::io::Error| broken(format!("write {}", part.display()), &error);
        let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
        let mut out = made.map_err(failed)?;
        let copied = std::io::copy(&mut file, &mut out).and_then(|_| out.flush()).and_then(|()| out.sync_all());
        let found = copied.and_then(|()| digest(&part)).map_err(|error| {
            // What is left of it is of no use.
            let _ = std::fs::remove_file(&part);
            failed(error)
        })?;
        if found.0 != sha256 {
            let _ = std::fs::remove_file(&part);
            return Err(self.refuse(format!("images/{name} has the SHA-256 {}, and its index says {sha256}", found.0)));
        }
        std::fs::rename(&part, to).map_err(failed)
    }

    fn refuse(&self, why: String) -> Failure {
        Failure::new(Cause::DownloadRejected, format!("use the bundle {}", self.path.display()), why)
            .advise("make or copy the bundle again")
    }

    /// Every member that the index names must be there, whole.
    fn complete(&self) -> Outcome<()> {
        let arch = self.index.arch;
        let files = self.index.files.iter().map(|listed| {
            (format!("files/{}/{}/{arch}/{}", listed.component, listed.version, listed.file), listed.bytes)
        });
        let images = self.index.images.iter().map(|image| (format!("images/{}", image.file), image.bytes));
        for (name, bytes) in files.chain(images) {
            let (_, length) = self.member(&name)?;
            if length != bytes {
                return Err(self.refuse(format!("{name} has {length} bytes, and its index says {bytes}")));
            }
        }
        Ok(())
    }

    /// Opens a member of this name for reading, with its length.
    fn member(&self, name: &str) -> Outcome<(std::io::Take<File>, u64)> {
        let (mut file, start, length) = self.place(name)?;
        file.seek(SeekFrom::Start(start))
            .map_err(|error| broken(format!("read {name} of the bundle {}", self.path.display()), &error))?;
        Ok((file.take(length), length))
    }

    /// The file with a member of this name, where it begins there, and its length.
    fn place(&self, name: &str) -> Outcome<(File, u64, u64)> {
        let failed =
            |error: std::io::Error| broken(format!("read {name} of the bundle {}", self.path.display()), &error);
        let missing = || self.refuse(format!("{name} is missing"));
        let Some(members) = &self.members else {
            let path = self.path.join(name);
            let data = std::fs::symlink_metadata(&path).map_err(|_| missing())?;
            if !data.is_file() {
                return Err(self.refuse(format!("{name} is not a regular file")));
            }
            return Ok((File::open(&path).map_err(failed)?, 0, data.len()));
        };
        let (start, length) = *members.get(name).ok_or_else(missing)?;
        Ok((File::open(&self.path).map_err(failed)?, start, length))
    }
}

fn nothing() -> Index {
    let arch = crate::catalog::Arch::Amd64;
    Index { schema: super::SCHEMA, kubestrap: String::new(), arch, files: Vec::new(), images: Vec::new() }
}

/// Where the regular members of a tar are. Nothing is unpacked: names are only looked up.
fn members(path: &Path) -> Outcome<BTreeMap<String, (u64, u64)>> {
    let attempted = format!("read the bundle {}", path.display());
    let damaged = |error: std::io::Error| {
        Failure::new(Cause::DownloadRejected, &attempted, format!("it is no tar archive, or a damaged one: {error}"))
            .advise("make or copy the bundle again")
    };
    let refuse = |why: String| Failure::new(Cause::DownloadRejected, &attempted, why);
    let file = File::open(path).map_err(|error| broken(&attempted, &error))?;
    let whole = file.metadata().map_err(|error| broken(&attempted, &error))?.len();
    let mut archive = tar::Archive::new(file);
    let mut found = BTreeMap::new();
    // Raw: extended headers, which could hold names of any length, are not read.
    let entries = archive.entries_with_seek().map_err(damaged)?.raw(true);
    for (count, entry) in entries.enumerate() {
        let entry = entry.map_err(damaged)?;
        if count >= MAX_MEMBERS {
            return Err(refuse(format!("it has more than {MAX_MEMBERS} members")));
        }
        match entry.header().entry_type() {
            tar::EntryType::Regular => {}
            tar::EntryType::Directory => continue,
            other => return Err(refuse(format!("it has a member of the kind {other:?}: kubestrap writes none such"))),
        }
        let name = entry.path().map_err(damaged)?.to_string_lossy().into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        let place = (entry.raw_file_position(), entry.size());
        if place.0.checked_add(place.1).is_none_or(|end| end > whole) {
            return Err(refuse(format!("it ends in the middle of {name}")).advise("copy the bundle again"));
        }
        if found.insert(name.clone(), place).is_some() {
            return Err(refuse(format!("{name} is in it twice")));
        }
    }
    Ok(found)
}

/// A file of the bundle in pieces.
struct Pieces {
    file: std::io::Take<File>,
    place: String,
}

#[async_trait(?Send)]
impl Body for Pieces {
    async fn next(&mut self) -> Outcome<Option<Bytes>> {
        let mut piece = vec![0; PIECE];
        let read = self.file.read(&mut piece);
        let read = read.map_err(|error| broken(format!("read the bundle {}", self.place), &error))?;
        piece.truncate(read);
        Ok((read > 0).then(|| Bytes::from(piece)))
    }
}
