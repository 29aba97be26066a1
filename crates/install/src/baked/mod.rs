//! The bake manifest as it is written: what the reader in core compares a machine with, and beside that from where
//! everything came, when, and by whom. Its form is in docs/install.md.

mod ledger;

pub use ledger::Ledger;

use crate::catalog::Artifact;
use crate::lock::ChecksumFrom;
use kubestrap_core::drift::manifest::PATH;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where it is written.
pub const MANIFEST: &str = PATH;

/// The whole of it. What others wrote into it stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baked {
    /// 1.
    pub schema: u64,
    /// Version of the kubestrap that wrote it.
    #[serde(default)]
    pub kubestrap: String,
    /// When its content last changed, RFC 3339.
    #[serde(default)]
    pub baked_at: String,
    /// `amd64` or `arm64`.
    #[serde(default)]
    pub arch: String,
    /// Programs.
    #[serde(default)]
    pub components: Vec<BakedProgram>,
    /// Other files.
    #[serde(default)]
    pub files: Vec<BakedFile>,
    /// Images that were pulled, with their digests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Images that were imported out of a bundle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imported: Vec<ImportedImage>,
    /// Files of somebody else in the places of ours, which stayed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<KeptFile>,
    /// What is not known here.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BakedProgram {
    /// Its component.
    pub name: String,
    /// Without `v`.
    pub version: String,
    /// Its file.
    pub path: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Whether kubestrap placed it; a program that was there and is used is listed too. Absent: somebody else's entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<bool>,
    /// From where it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Origin>,
    /// What is not known here.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// The released file that a program came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Where it was fetched.
    pub source: String,
    /// Where its project publishes it.
    pub url: String,
    /// SHA-256 of the released file.
    pub sha256: String,
    /// Who says that this is its SHA-256: `configuration`, `lock`, `bundle` or `release`.
    pub checksum_from: String,
}

impl Origin {
    /// Of this released file, which was fetched there.
    pub fn of(artifact: &Artifact, source: String) -> Origin {
        let checksum_from = match artifact.checksum_from {
            ChecksumFrom::Configuration => "configuration",
            ChecksumFrom::Lock => "lock",
            ChecksumFrom::Bundle => "bundle",
            ChecksumFrom::Release => "release",
        };
        Origin {
            source,
            url: artifact.url.clone(),
            sha256: artifact.sha256.clone(),
            checksum_from: checksum_from.to_owned(),
        }
    }
}

/// A file that is no program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BakedFile {
    /// Its path.
    pub path: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Permission bits in octal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Whether kubestrap placed it. Absent: somebody else's entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<bool>,
    /// What is not known here.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// An image out of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedImage {
    /// Its name in containerd.
    pub name: String,
    /// Its ID: the digest of its configuration.
    pub id: String,
    /// Its digest in a registry, when the archive has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The archive's name in the bundle.
    pub archive: String,
    /// SHA-256 of the archive.
    pub archive_sha256: String,
}

/// A file of somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// Its path.
    pub path: String,
    /// SHA-256 of the file that would be there.
    pub instead_of: String,
    /// The component that file belongs to.
    pub component: String,
}

impl Default for Baked {
    fn default() -> Self {
        Baked {
            schema: 1,
            kubestrap: String::new(),
            baked_at: String::new(),
            arch: String::new(),
            components: Vec::new(),
            files: Vec::new(),
            images: Vec::new(),
            imported: Vec::new(),
            kept: Vec::new(),
            more: Map::new(),
        }
    }
}

impl Baked {
    /// Reads it back; `None` for nothing. The reader in core has checked it before.
    pub fn parse(text: &str) -> Outcome<Baked> {
        serde_json::from_str(text).map_err(|error| {
            let failure =
                Failure::new(Cause::FileAccess, format!("read the bake manifest {MANIFEST}"), error.to_string());
            failure.advise(
                "remove it: the next `kubestrap install` writes it, and treats the files it finds as somebody else's",
            )
        })
    }

    /// As it is written: the same content is the same text.
    pub fn render(&self) -> Outcome<String> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n")
            .map_err(|error| Failure::new(Cause::Internal, "write the bake manifest", error.to_string()))
    }

    /// Whether it says the same, but for when and by which kubestrap.
    pub fn says_the_same(&self, other: &Baked) -> bool {
        let timeless = |one: &Baked| Baked { kubestrap: String::new(), baked_at: String::new(), ..one.clone() };
        timeless(self) == timeless(other)
    }
}
