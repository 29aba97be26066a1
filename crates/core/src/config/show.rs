//! `config show`: every value in force, with its origin.

use super::problem::Place;
use super::tree::{Kind, Node};
use crate::model::secret::{MASK, redact};
use serde_json::Value;

/// One value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Keys joined by dots (`join.wait`); a key that has dots or control characters is in quotes.
    pub path: String,
    /// The value as JSON, on one line; a text without quotes. Masked when it looks like a secret.
    pub value: String,
    /// Where it was written.
    pub origin: Place,
}

/// The leaves of a tree, in its order.
pub fn rows(tree: &Node) -> Vec<Row> {
    let mut rows = Vec::new();
    collect(tree, "", false, &mut rows);
    rows
}

fn collect(node: &Node, path: &str, secret: bool, rows: &mut Vec<Row>) {
    match &node.kind {
        Kind::Map(entries) if !entries.is_empty() => {
            for entry in entries {
                let key = if entry.key.contains(|c: char| c == '.' || c.is_control()) {
                    format!("{:?}", entry.key)
                } else {
                    entry.key.clone()
                };
                let below = if path.is_empty() { key } else { format!("{path}.{key}") };
                collect(&entry.node, &below, secret || is_secret_key(&entry.key), rows);
            }
        }
        _ => rows.push(Row {
            path: path.to_owned(),
            value: if secret { MASK.to_owned() } else { text(&node.to_json()) },
            origin: node.place.clone(),
        }),
    }
}

fn text(value: &Value) -> String {
    let shown = match value {
        // As a terminal would obey it, and a table break on it, it is not shown.
        Value::String(text) if text.contains(char::is_control) => format!("{text:?}"),
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => mask(value).to_string(),
        other => other.to_string(),
    };
    redact(&shown)
}

/// Masks values of keys inside of lists, which are shown whole.
fn mask(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(mask).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), if is_secret_key(key) { MASK.into() } else { mask(value) }))
            .collect(),
        other => other.clone(),
    }
}

/// Whether values behind a key of this name are secrets, as far as the name tells. Keys of our own never are; this is
/// for patches, whose keys we do not know. Names of files and times that speak of a token are harmless.
fn is_secret_key(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    let harmless = ["ttl", "file", "path", "timeout", "name"].iter().any(|end| lower.ends_with(end));
    let secret = ["password", "secret", "token", "certificatekey", "privatekey", "credential", "key-data"];
    !harmless && secret.iter().any(|word| lower.contains(word))
}
