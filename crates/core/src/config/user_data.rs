//! User-data: read when it is ours, left alone when it is something else.
//!
//! Ours is
//! - a document whose first line is `#kubestrap`;
//! - a document without that line that is a YAML map with the key `cluster` and one of `role` and `store`, and whose
//!   first line is not one of cloud-init's (`#cloud-config`, `#!`, `## template:` ...);
//! - in a MIME multipart, every part of type `application/x-kubestrap+yaml` (or `text/x-kubestrap+yaml`, which is what
//!   `cloud-init devel make-mime` writes), in order, whatever its transfer encoding.
//!
//! The whole and each part may be gzip, as cloud-init allows.

use super::fragment::{self, Layer};
use super::problem::{Place, Problem};
use super::tree::Node;
use flate2::read::GzDecoder;
use mail_parser::{MessageParser, MessagePart, MimeHeaders};
use std::io::Read;

/// The type of our part in a MIME multipart.
pub const PART_TYPE: &str = "application/x-kubestrap+yaml";
/// The same as `cloud-init devel make-mime -a FILE:x-kubestrap+yaml` writes it, which knows text parts only.
const PART_TYPE_TEXT: &str = "text/x-kubestrap+yaml";
/// The first line that makes a whole user-data ours.
pub const MARKER: &str = "#kubestrap";
/// User-data after decompression, in bytes. EC2 allows 16 KiB before it.
const MAX_TEXT: u64 = 1024 * 1024;
/// More parts than any user-data of 16 KiB has a use for.
const MAX_PARTS: usize = 256;

/// What user-data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserData {
    /// There is none.
    Empty,
    /// It has configuration for us, in order.
    Ours(Vec<Layer>),
    /// It is somebody else's; what it seems to be, for `doctor` and messages.
    Other(String),
}

impl UserData {
    /// The layers it gives.
    pub fn layers(self) -> Vec<Layer> {
        match self {
            UserData::Ours(layers) => layers,
            UserData::Empty | UserData::Other(_) => Vec::new(),
        }
    }
}

/// Reads user-data. The YAML in it is not judged here; [`super::load`] does.
///
/// `Err` only for what is clearly meant for us and cannot be read: a part of our type that is not UTF-8, or parts that
/// together are larger than 1 MiB after decompression.
pub fn read(bytes: &[u8]) -> Result<UserData, Problem> {
    if bytes.trim_ascii().is_empty() {
        return Ok(UserData::Empty);
    }
    let Ok(bytes) = unpacked(bytes) else {
        return Ok(UserData::Other("gzip that cannot be decompressed to at most 1 MiB".to_owned()));
    };
    if is_mime(&bytes) {
        return mime(&bytes);
    }
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Ok(UserData::Other("not UTF-8 text".to_owned()));
    };
    match whole(text) {
        None => Ok(UserData::Ours(vec![Layer::document("user-data", text)])),
        Some(other) => Ok(UserData::Other(other)),
    }
}

/// As cloud-init decides (cloudinit/user_data.py, `convert_string`: the first 4096 bytes name the version), unless it
/// begins with a comment, as every script and `#cloud-config` do.
fn is_mime(bytes: &[u8]) -> bool {
    let start = String::from_utf8_lossy(bytes.get(..4096).unwrap_or(bytes)).to_ascii_lowercase();
    start.contains("mime-version:") && !start.trim_start_matches('\u{feff}').starts_with('#')
}

/// What a whole document is when it is not ours.
fn whole(text: &str) -> Option<String> {
    let first = text.trim_start_matches('\u{feff}').lines().next().unwrap_or_default().trim_end();
    if first == MARKER {
        return None;
    }
    // cloud-init decides by the first line too (cloudinit/handlers/__init__.py, INCLUSION_TYPES_MAP).
    let foreign = ["#!", "#cloud-", "#include", "#upstart-job", "#part-handler", "## template:"];
    if foreign.iter().any(|start| first.starts_with(start)) {
        return Some(format!("begins with {:?}", super::tree::shorten(first)));
    }
    match fragment::parse("user-data", text) {
        (Some(node), _) if looks_ours(&node) => None,
        _ => Some(format!("neither begins with {MARKER:?} nor has the keys of a configuration")),
    }
}

fn looks_ours(node: &Node) -> bool {
    let has = |key: &str| node.at(&[key]).is_some();
    has("cluster") && (has("role") || has("store"))
}

fn mime(bytes: &[u8]) -> Result<UserData, Problem> {
    let parts = MessageParser::default().parse(bytes).map(|message| message.parts).unwrap_or_default();
    let mut layers = Vec::new();
    for (index, part) in parts.iter().enumerate().take(MAX_PARTS) {
        if is_our_part(part) {
            let name = match part.attachment_name() {
                Some(file) => format!("user-data({})", super::tree::shorten(&file.escape_default().to_string())),
                None => format!("user-data(part {index})"),
            };
            let place = Place::whole(&name);
            layers.push(layer(name, part.contents())?);
            // Each may be a kilobyte of gzip that becomes a mebibyte.
            if layers.iter().map(|layer: &Layer| layer.text.len() as u64).sum::<u64>() > MAX_TEXT {
                return Err(Problem::at(&place, "with this part, the configuration in user-data is larger than 1 MiB"));
            }
        }
    }
    if layers.is_empty() {
        return Ok(UserData::Other(format!("a MIME multipart without a part of type {PART_TYPE}")));
    }
    Ok(UserData::Ours(layers))
}

fn is_our_part(part: &MessagePart<'_>) -> bool {
    part.content_type().is_some_and(|kind| match kind.subtype() {
        Some(subtype) => {
            let name = format!("{}/{subtype}", kind.ctype()).to_ascii_lowercase();
            [PART_TYPE, PART_TYPE_TEXT].contains(&name.as_str())
        }
        None => false,
    })
}

fn layer(name: String, bytes: &[u8]) -> Result<Layer, Problem> {
    let place = Place::whole(&name);
    let bytes = unpacked(bytes)
        .map_err(|why| Problem::at(&place, format!("this part cannot be decompressed to at most 1 MiB: {why}")))?;
    let text = String::from_utf8(bytes).map_err(|_| Problem::at(&place, "this part is not UTF-8 text"))?;
    Ok(Layer::document(name, text))
}

/// The bytes, decompressed when they are gzip; bounded.
fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, String> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes.to_vec());
    }
    let mut out = Vec::new();
    let size = GzDecoder::new(bytes).take(MAX_TEXT + 1).read_to_end(&mut out).map_err(|error| error.to_string())?;
    if size as u64 > MAX_TEXT { Err("it is larger".to_owned()) } else { Ok(out) }
}

#[cfg(test)]
mod tests;
