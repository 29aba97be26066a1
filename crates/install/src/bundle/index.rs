//! What a bundle says of itself.

use crate::catalog::{Arch, Component, check_version};
use crate::lock::check_sha256;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The schema that is written, and the newest that is read.
pub const SCHEMA: u64 = 1;
/// The name of the index in the bundle.
pub(super) const INDEX: &str = "index.json";
/// The longest name of an image archive: with its folder it fits into the plain header of a tar member.
const MAX_NAME: usize = 90;
/// The largest index, in bytes.
pub(super) const MAX_INDEX: u64 = 1024 * 1024;

/// The index of a bundle. Unknown fields are passed over: a later kubestrap may add some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// [`SCHEMA`].
    pub schema: u64,
    /// The version of kubestrap that made it.
    pub kubestrap: String,
    /// The machines it is for.
    pub arch: Arch,
    /// Released files.
    pub files: Vec<Listed>,
    /// Image archives.
    #[serde(default)]
    pub images: Vec<Image>,
}

/// A released file in the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Whose it is.
    pub component: Component,
    /// Without `v`.
    pub version: String,
    /// Its name as released.
    pub file: String,
    /// 64 lower-case hex digits.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

/// An image archive in the bundle, for `ctr images import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The names of the images in it.
    pub references: Vec<String>,
    /// Its name below `images/`.
    pub file: String,
    /// 64 lower-case hex digits.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

#[derive(Deserialize)]
struct OnlySchema {
    schema: u64,
}

impl Index {
    /// Reads and checks an index. `place` is for messages.
    pub fn parse(place: &str, text: &[u8]) -> Outcome<Index> {
        let refuse = |why: String| Failure::new(Cause::DownloadRejected, format!("read the bundle {place}"), why);
        let OnlySchema { schema } = serde_json::from_slice(text).map_err(|error| {
            refuse(format!("its index.json is damaged: {error}")).advise("make or copy the bundle again")
        })?;
        if schema != SCHEMA {
            let why = format!("its schema is {schema}, and this kubestrap reads {SCHEMA}");
            return Err(refuse(why).advise("install with the kubestrap that made it, or make it with this one"));
        }
        let index: Index =
            serde_json::from_slice(text).map_err(|error| refuse(format!("its index.json is damaged: {error}")))?;
        index.check().map_err(|why| refuse(why).advise("make it again with `kubestrap install --download-only`"))?;
        Ok(index)
    }

    fn check(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for Listed { component, version, file, sha256, .. } in &self.files {
            if check_version(version)? != *version || check_sha256(sha256)? != *sha256 {
                return Err(format!("{component} {version}: not written as kubestrap writes it"));
            }
            if *file != component.file(version, self.arch) {
                return Err(format!("{component} {version} for {} is not in a file {file:?}", self.arch));
            }
            if !seen.insert((*component, version)) {
                return Err(format!("{component} {version} is in it twice"));
            }
        }
        let mut names = BTreeSet::new();
        for Image { file, sha256, .. } in &self.images {
            check_image_name(file)?;
            check_sha256(sha256)?;
            if !names.insert(file) {
                return Err(format!("images/{file} is in it twice"));
            }
        }
        Ok(())
    }
}

/// A plain file name: it becomes part of a path on the machine.
pub(super) fn check_image_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.len() <= MAX_NAME && !name.starts_with('.') && name.ends_with(".tar") && name.chars().all(plain) {
        Ok(())
    } else {
        Err(format!("{name:?} is not a name for an image archive: letters, digits, '.', '_', '-', and .tar at the end"))
    }
}
