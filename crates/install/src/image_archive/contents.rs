//! The images of an archive, by its own tables: `index.json` of an OCI image layout, else `manifest.json` of `docker save`. It is
//! containerd's order (`core/images/archive/importer.go`).

use super::Limits;
use super::members::Members;
use crate::catalog::Arch;
use crate::download::hex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Marks an OCI image layout.
const LAYOUT: &str = "oci-layout";
/// The annotation with the name that containerd gives an image.
const NAME: &str = "io.containerd.image.name";
/// Marks what buildkit adds about an image, which is none.
const ATTESTATION: &str = "vnd.docker.reference.type";
/// An index that lists an index that lists an index is nobody's.
const DEPTH: u32 = 3;
/// The longest name of an image, in bytes.
const MAX_NAME: usize = 500;

/// An image in an archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contained {
    /// Its name as containerd will have it, with registry and tag.
    pub name: String,
    /// Its ID: `sha256:` and the SHA-256 of its configuration.
    pub id: String,
    /// Its digest in a registry; `None` in an archive of `docker save`.
    pub digest: Option<String>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    platform: Option<Platform>,
}

/// Of a descriptor, or of the configuration of an image.
#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// An index, or a manifest.
#[derive(Deserialize)]
#[serde(untagged)]
enum Node {
    Index { manifests: Vec<Descriptor> },
    Manifest { config: Descriptor, layers: Vec<Descriptor> },
}

#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

/// The configuration that a manifest names, or the manifests that an index lists.
pub(crate) enum Leads {
    /// The ID of the image.
    Image(String),
    /// The digest of the manifest for this architecture; `None` when there is none.
    Manifest(Option<String>),
}

/// Where a manifest or an index of containerd's own store leads. `None` for anything else.
pub(crate) fn leads(text: &str, arch: Arch) -> Option<Leads> {
    Some(match serde_json::from_str(text).ok()? {
        Node::Manifest { config, .. } => Leads::Image(config.digest),
        Node::Index { manifests } => Leads::Manifest(choose(&manifests, arch).map(|one| one.digest.clone())),
    })
}

pub(super) fn read(limits: Limits, mut members: Members, arch: Arch) -> Result<Vec<Contained>, String> {
    let images = if members.length(LAYOUT).is_some() {
        oci(&mut members, arch)?
    } else if members.length("manifest.json").is_some() {
        saved(&mut members, arch)?
    } else {
        return Err("it has neither oci-layout nor manifest.json, so it is no archive of images".to_owned());
    };
    match images.len() {
        0 => Err("there is no image in it".to_owned()),
        count if count > limits.images => Err(format!("it has {count} images, and {} may be in one", limits.images)),
        _ => Ok(images),
    }
}

fn oci(members: &mut Members, arch: Arch) -> Result<Vec<Contained>, String> {
    let Node::Index { manifests } = parse("index.json", &members.document("index.json")?)? else {
        return Err("its index.json lists no manifests".to_owned());
    };
    let mut images = Vec::new();
    for listed in manifests.iter().filter(|listed| !listed.annotations.contains_key(ATTESTATION)) {
        let name = listed.annotations.get(NAME);
        let name = name.ok_or_else(|| format!("the image {} has no name (the annotation {NAME})", listed.digest))?;
        let (name, digest) = (checked(name)?, Some(listed.digest.clone()));
        images.push(Contained { id: id_of(members, &name, listed, arch, DEPTH)?, name, digest });
    }
    Ok(images)
}

/// The ID of an image, whose manifest, configuration and layers are all there.
fn id_of(members: &mut Members, name: &str, at: &Descriptor, arch: Arch, depth: u32) -> Result<String, String> {
    if depth == 0 {
        return Err(format!("the indexes of {name} go deeper than {DEPTH}"));
    }
    match parse(&at.digest, &blob(members, &at.digest)?)? {
        Node::Index { manifests } => {
            let Some(chosen) = choose(&manifests, arch) else {
                let platforms = manifests.iter().filter_map(|one| one.platform.as_ref());
                let has: Vec<&str> = platforms.map(|platform| platform.architecture.as_str()).collect();
                return Err(format!("{name} is for {}, and {arch} is wanted", has.join(", ")));
            };
            id_of(members, name, chosen, arch, depth - 1)
        }
        Node::Manifest { config, layers } => {
            for layer in &layers {
                let length = members.length(&place(&layer.digest)?);
                if length.is_none() || layer.size.is_some_and(|size| length != Some(size)) {
                    return Err(format!("the layer {} of {name} is missing, or not whole", layer.digest));
                }
            }
            suits(name, &blob(members, &config.digest)?, arch)?;
            Ok(config.digest)
        }
    }
}

/// The first for this architecture, as containerd takes it.
fn choose(manifests: &[Descriptor], arch: Arch) -> Option<&Descriptor> {
    let is_it = |platform: &Platform| platform.os == "linux" && platform.architecture == arch.label();
    manifests.iter().find(|one| one.platform.as_ref().is_some_and(is_it))
}

fn saved(members: &mut Members, arch: Arch) -> Result<Vec<Contained>, String> {
    let listed: Vec<Saved> = parse("manifest.json", &members.document("manifest.json")?)?;
    let mut images = Vec::new();
    for Saved { config, tags, layers } in listed {
        let tags = tags.unwrap_or_default();
        let Some(first) = tags.first() else {
            return Err(format!("the image {config} has no name (RepoTags): save it by its name, not by its ID"));
        };
        if let Some(layer) = layers.iter().find(|layer| members.length(layer).is_none()) {
            return Err(format!("the layer {layer} of {first} is missing"));
        }
        let text = members.document(&config)?;
        suits(first, &text, arch)?;
        let id = format!("sha256:{}", hex(&Sha256::digest(&text)));
        for tag in &tags {
            images.push(Contained { name: checked(&whole(tag))?, id: id.clone(), digest: None });
        }
    }
    Ok(images)
}

/// By the configuration of an image, which containerd goes by.
fn suits(name: &str, configuration: &[u8], arch: Arch) -> Result<(), String> {
    let Platform { architecture, os } = parse(&format!("the configuration of {name}"), configuration)?;
    if os == "linux" && architecture == arch.label() {
        return Ok(());
    }
    Err(format!("{name} is for {os}/{architecture}, and linux/{arch} is wanted"))
}

/// A blob whose content has the digest that it is called by.
fn blob(members: &mut Members, digest: &str) -> Result<Vec<u8>, String> {
    let name = place(digest)?;
    let text = members.document(&name)?;
    let found = hex(&Sha256::digest(&text));
    if digest != format!("sha256:{found}") {
        return Err(format!("{name} has the SHA-256 {found}"));
    }
    Ok(text)
}

fn place(digest: &str) -> Result<String, String> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match digest.strip_prefix("sha256:") {
        Some(digits) if digits.len() == 64 && digits.bytes().all(is_digit) => Ok(format!("blobs/sha256/{digits}")),
        _ => Err(format!("{digest:?} is not a SHA-256 digest")),
    }
}

fn parse<T: DeserializeOwned>(what: &str, text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| format!("{what} is damaged: {error}"))
}

/// Docker leaves its own registry out.
fn whole(tag: &str) -> String {
    match tag.split_once('/') {
        None => format!("docker.io/library/{tag}"),
        Some((first, _)) if first != "localhost" && !first.contains(['.', ':']) => format!("docker.io/{tag}"),
        Some(_) => tag.to_owned(),
    }
}

/// It becomes an argument of `ctr`, and part of tables.
fn checked(name: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"./:_-@".contains(&byte);
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && name.len() <= MAX_NAME && name.contains('/') && name.bytes().all(plain) {
        Ok(name.to_owned())
    } else {
        Err(format!("{name:?} is not the whole name of an image"))
    }
}
