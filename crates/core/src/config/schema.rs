//! The JSON Schema of a configuration document, and the search for unknown keys and wrong types that it drives.

use super::problem::Problem;
use super::tree::{Entry, Kind, Node};
use serde_json::Value;
use std::collections::BTreeSet;

/// How alike a known key must be to be suggested (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.8;

/// What `generated` makes of the types, as a test says: the code that makes it is not in the program.
const COMMITTED: &str = include_str!("../../../../docs/config.schema.json");

/// The JSON Schema, as `kubestrap config schema` prints it.
pub fn schema() -> Value {
    serde_json::from_str(COMMITTED).expect("docs/config.schema.json is JSON")
}

/// The JSON Schema as the types say it.
#[cfg(test)]
pub(super) fn generated() -> Value {
    schemars::schema_for!(super::document::Document).to_value()
}

/// A cursor in the schema.
#[derive(Clone, Copy)]
pub struct Shape<'s> {
    root: &'s Value,
    here: &'s Value,
}

impl<'s> Shape<'s> {
    /// At the document.
    pub fn of(root: &'s Value) -> Self {
        Shape { root, here: root }
    }

    fn to(self, here: &'s Value) -> Self {
        Shape { here, ..self }.resolved()
    }

    fn resolved(self) -> Self {
        match self.here.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#')) {
            Some(path) => match self.root.pointer(path) {
                Some(here) => Shape { here, ..self }.resolved(),
                None => self,
            },
            None => self,
        }
    }

    /// The forms a value may have; "or null" is not one of them.
    fn choices(self) -> Vec<Shape<'s>> {
        let list = ["anyOf", "oneOf"].iter().find_map(|word| self.here.get(word).and_then(Value::as_array));
        match list {
            Some(list) => list
                .iter()
                .filter(|choice| choice.get("type").and_then(Value::as_str) != Some("null"))
                .flat_map(|choice| self.to(choice).choices())
                .collect(),
            None => vec![self],
        }
    }

    fn is(self, name: &str) -> bool {
        match self.here.get("type") {
            Some(Value::String(one)) => one == name,
            Some(Value::Array(several)) => several.iter().any(|one| one == name),
            _ => false,
        }
    }

    /// At the document again.
    pub fn of_root(shape: Shape<'s>) -> Self {
        Shape::of(shape.root)
    }

    /// Whether it is a list.
    pub fn is_list(self) -> bool {
        self.choices().iter().any(|choice| choice.is("array"))
    }

    /// Whether every form of it is a text.
    pub fn is_text(self) -> bool {
        self.choices().iter().all(|choice| choice.is("string") || choice.constant().is_some())
    }

    /// Whether it is a map whose keys are free and whose values are texts.
    pub fn is_text_map(self) -> bool {
        matches!(self.choices().as_slice(), [only] if only.additional().is_some_and(Shape::is_text))
    }

    /// The named keys of a map.
    pub fn keys(self) -> Vec<&'s str> {
        let properties = |shape: &Shape<'s>| shape.here.get("properties").and_then(Value::as_object);
        self.choices().iter().filter_map(properties).flat_map(|map| map.keys().map(String::as_str)).collect()
    }

    /// The shape behind a named key.
    pub fn key(self, name: &str) -> Option<Shape<'s>> {
        let mut choices = self.choices().into_iter();
        choices.find_map(|choice| choice.here.get("properties")?.get(name).map(|here| choice.to(here)))
    }

    fn additional(self) -> Option<Shape<'s>> {
        self.here.get("additionalProperties").filter(|value| value.is_object()).map(|here| self.to(here))
    }

    /// A map about which nothing is said, or anything goes.
    fn is_free(self) -> bool {
        let open = matches!(self.here.get("additionalProperties"), None | Some(Value::Bool(true)));
        self.here.get("properties").is_none() && open
    }

    fn constant(self) -> Option<&'s str> {
        self.here.get("const").and_then(Value::as_str)
    }

    /// The words of an enumeration; none when it is not one.
    fn words(self) -> Vec<&'s str> {
        let listed = |shape: Shape<'s>| match shape.here.get("enum").and_then(Value::as_array) {
            Some(list) => list.iter().filter_map(Value::as_str).collect(),
            None => shape.constant().into_iter().collect::<Vec<_>>(),
        };
        self.choices().into_iter().flat_map(listed).collect()
    }

    fn expected(self) -> String {
        let words = self.words();
        if !words.is_empty() {
            return format!("one of {}", words.join(", "));
        }
        let name = |shape: Shape<'s>| {
            let names = [("string", "a text"), ("boolean", "true or false"), ("object", "a map"), ("array", "a list")];
            names.iter().find(|(name, _)| shape.is(name)).map_or("a number", |(_, shown)| *shown)
        };
        let names: Vec<&str> = self.choices().into_iter().map(name).collect();
        names.join(" or ")
    }
}

/// What a walk over one layer found.
#[derive(Debug, Default)]
pub struct Walk {
    /// Unknown keys and wrong types.
    pub problems: Vec<Problem>,
    /// Top-level keys that are written, but wrongly, or probably meant by an unknown one.
    pub doubtful: BTreeSet<String>,
}

/// The tree without what does not fit the schema, so that the rest can still be checked.
pub fn prune(tree: Node, root: &Value, walk: &mut Walk) -> Node {
    let place = tree.place.clone();
    walk.node(tree, Shape::of(root), &mut Vec::new()).unwrap_or_else(|| Node::empty(place))
}

impl Walk {
    /// The node without its wrong parts; `None` when nothing of it is left. Null means "not said" and vanishes.
    fn node(&mut self, node: Node, shape: Shape<'_>, path: &mut Vec<String>) -> Option<Node> {
        if node.is_null() {
            return None;
        }
        let fitting = shape.choices().into_iter().find(|choice| fits(&node, *choice));
        let Some(choice) = fitting else {
            self.wrong_type(&node, shape, path);
            return None;
        };
        let Node { place, kind } = node;
        let kind = match kind {
            Kind::Map(entries) if choice.is_free() => Kind::Map(entries),
            Kind::Map(entries) => {
                Kind::Map(entries.into_iter().filter_map(|entry| self.entry(entry, choice, path)).collect())
            }
            Kind::List(items) => Kind::List(self.items(items, choice, path)),
            scalar => scalar,
        };
        Some(Node { place, kind })
    }

    fn entry(&mut self, entry: Entry, shape: Shape<'_>, path: &mut Vec<String>) -> Option<Entry> {
        let Some(below) = shape.key(&entry.key).or_else(|| shape.additional()) else {
            self.unknown_key(&entry, shape, path);
            return None;
        };
        path.push(entry.key.clone());
        let node = self.node(entry.node, below, path);
        path.pop();
        node.map(|node| Entry { node, ..entry })
    }

    fn items(&mut self, items: Vec<Node>, shape: Shape<'_>, path: &mut Vec<String>) -> Vec<Node> {
        let Some(item_shape) = shape.here.get("items").map(|here| shape.to(here)) else { return items };
        let mut kept = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            path.push(index.to_string());
            if item.is_null() {
                self.wrong_type(&item, item_shape, path);
            } else {
                kept.extend(self.node(item, item_shape, path));
            }
            path.pop();
        }
        kept
    }

    fn unknown_key(&mut self, entry: &Entry, shape: Shape<'_>, path: &[String]) {
        let keys = shape.keys();
        let within = if path.is_empty() { String::new() } else { format!(" in `{}`", path.join(".")) };
        let problem = Problem::at(&entry.place, format!("unknown key {:?}{within}", entry.key));
        self.problems.push(match nearest(&entry.key, &keys) {
            Some(key) => {
                if path.is_empty() {
                    self.doubtful.insert(key.to_owned());
                }
                problem.suggest(format!("did you mean {key:?}?"))
            }
            None => problem.suggest(format!("known are {}", keys.join(", "))),
        });
    }

    fn wrong_type(&mut self, node: &Node, shape: Shape<'_>, path: &[String]) {
        if let Some(top) = path.first() {
            self.doubtful.insert(top.clone());
        }
        let what = if path.is_empty() { "the document".to_owned() } else { format!("`{}`", path.join(".")) };
        let message = format!("{what} must be {}, not {}", shape.expected(), node.describe());
        let problem = Problem::at(&node.place, message);
        let words = shape.words();
        self.problems.push(match &node.kind {
            Kind::Scalar(scalar) if words.is_empty() && shape.is_text() => {
                problem.suggest(format!("write it in quotes: \"{}\"", scalar.raw))
            }
            Kind::Scalar(scalar) => match nearest(&scalar.raw, &words) {
                Some(word) => problem.suggest(format!("did you mean {word:?}?")),
                None => problem,
            },
            _ => problem,
        });
    }
}

fn fits(node: &Node, shape: Shape<'_>) -> bool {
    match &node.kind {
        Kind::Map(_) => shape.is("object"),
        Kind::List(_) => shape.is("array"),
        Kind::Scalar(scalar) => match &scalar.value {
            Value::String(text) => {
                let words = shape.words();
                if words.is_empty() { shape.is("string") } else { words.contains(&text.as_str()) }
            }
            Value::Bool(_) => shape.is("boolean"),
            Value::Number(number) => shape.is("number") || (shape.is("integer") && !number.is_f64()),
            _ => false,
        },
    }
}

/// The known word that is most like `word`, when one is alike at all.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = word.to_ascii_lowercase();
    let alike = |candidate: &str| strsim::jaro_winkler(&lower, &candidate.to_ascii_lowercase());
    let best = known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
    (alike(best) >= ALIKE).then_some(*best)
}
