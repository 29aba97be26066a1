//! A configuration tree whose keys and values know where they were written.

use super::problem::Place;
use serde_json::{Map, Value};

/// A scalar as it was resolved and as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// Null, a boolean, a number or a text, by the YAML 1.2 core schema.
    pub value: Value,
    /// The characters of the document, without quotes.
    pub raw: String,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A leaf.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the document.
    Map(Vec<Entry>),
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it was written.
    pub place: Place,
    /// What it is.
    pub kind: Kind,
}

/// A key of a map with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key was written.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

impl Kind {
    /// A node of this kind.
    pub fn at(self, place: Place) -> Node {
        Node { place, kind: self }
    }
}

impl Node {
    /// A map without entries.
    pub fn empty(place: Place) -> Self {
        Node { place, kind: Kind::Map(Vec::new()) }
    }

    /// Whether it is YAML's null: the key was written, but nothing behind it.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(scalar) if scalar.value.is_null())
    }

    /// The node behind a path of keys; list items are named by their index.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, name| match &node.kind {
            Kind::Scalar(_) => None,
            Kind::List(items) => name.parse().ok().and_then(|index: usize| items.get(index)),
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == *name).map(|entry| &entry.node),
        })
    }

    /// The same without places.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Scalar(scalar) => scalar.value.clone(),
            Kind::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Kind::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// What it is, for messages: `text "yes"`, `number 3`, `a list`.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
            Kind::Scalar(scalar) => match &scalar.value {
                Value::Null => "nothing".to_owned(),
                Value::Bool(_) => format!("the boolean {}", scalar.raw),
                Value::Number(_) => format!("the number {}", scalar.raw),
                _ => format!("the text {:?}", shorten(&scalar.raw)),
            },
        }
    }
}

/// The first characters of a text that is quoted in a message.
pub fn shorten(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
