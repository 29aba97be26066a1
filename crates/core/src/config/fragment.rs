//! Stage one: a layer's text becomes a tree with the place of every key and value.
//!
//! YAML 1.2 core schema. Refused, because they hide what a file says or cost without bound: duplicate keys, merge
//! keys (`<<`), tags other than `!!str`, a second document, keys that are not scalars, and trees of more than
//! `MAX_NODES` nodes, `MAX_TEXT` bytes or `MAX_DEPTH` levels after aliases are put in.

use super::problem::{Place, Problem};
use super::tree::{Entry, Kind, Node, Scalar};
use granit_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Number, Value};
use std::collections::BTreeMap;
use std::rc::Rc;

/// More nodes than any honest configuration has; bounds what aliases can multiply, and the search for equal keys.
const MAX_NODES: usize = 4_000;
/// Bytes of keys and values. A file has at most 1 MiB, but an alias repeats a text of any length with three characters.
const MAX_TEXT: usize = 4 * 1024 * 1024;
/// Levels of nesting; kubeadm's documents need fewer than ten.
const MAX_DEPTH: usize = 64;

/// What a layer's text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// A YAML document.
    Document,
    /// The value of the environment variable that the layer is named after.
    Variable,
}

/// One source of configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// A file's path, `user-data`, the name of an environment variable.
    pub name: String,
    /// Its text.
    pub text: String,
    /// What the text is.
    pub kind: LayerKind,
}

impl Layer {
    /// A YAML document.
    pub fn document(name: impl Into<String>, text: impl Into<String>) -> Self {
        Layer { name: name.into(), text: text.into(), kind: LayerKind::Document }
    }

    /// An environment variable.
    pub fn variable(name: impl Into<String>, value: impl Into<String>) -> Self {
        Layer { name: name.into(), text: value.into(), kind: LayerKind::Variable }
    }
}

/// Parses one YAML document. An empty one is an empty map.
///
/// Duplicate keys are all reported and the first one is kept; a syntax error ends the reading. The tree is `None` when
/// nothing can be said about it.
pub fn parse(name: &str, text: &str) -> (Option<Node>, Vec<Problem>) {
    let source: Rc<str> = name.into();
    let mut options = granit_parser::options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH };
    options.set_emit_comments(false);
    let mut reader = Reader {
        events: Parser::new_from_str_with_options(text, options),
        source: source.clone(),
        anchors: BTreeMap::new(),
        size: Size::default(),
        level: 0,
        problems: Vec::new(),
    };
    match reader.document() {
        Ok(node) => (Some(node.unwrap_or_else(|| Node::empty(Place::whole(&source)))), reader.problems),
        Err(problem) => {
            reader.problems.push(problem);
            (None, reader.problems)
        }
    }
}

struct Reader<'t> {
    events: Parser<'t, granit_parser::StrInput<'t>>,
    source: Rc<str>,
    /// Finished anchored nodes with what they are counted as.
    anchors: BTreeMap<usize, (Node, Size)>,
    size: Size,
    level: usize,
    problems: Vec<Problem>,
}

/// How much of a document was read, counting what aliases repeat.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    nodes: usize,
    text: usize,
}

type Read<T> = Result<T, Problem>;

impl<'t> Reader<'t> {
    fn next(&mut self) -> Read<(Event<'t>, Place)> {
        match self.events.next_event() {
            Some(Ok((event, span))) => {
                let place = self.place(&span);
                Ok((event, place))
            }
            Some(Err(error)) => {
                let mark = error.marker();
                let place = Place { source: self.source.clone(), line: mark.line(), column: mark.col() + 1 };
                Err(Problem::at(&place, format!("not valid YAML: {}", error.info())))
            }
            None => Ok((Event::StreamEnd, Place::whole(&self.source))),
        }
    }

    fn place(&self, span: &Span) -> Place {
        Place { source: self.source.clone(), line: span.start.line(), column: span.start.col() + 1 }
    }

    fn document(&mut self) -> Read<Option<Node>> {
        let mut root = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::DocumentStart(..), place) if root.is_some() => {
                    return Err(Problem::at(&place, "a second YAML document begins here")
                        .suggest("keep one document per file; use config.d for more"));
                }
                (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
                (event, place) => root = Some(self.node(event, place)?),
            }
        }
    }

    fn count(&mut self, more: Size, place: &Place) -> Read<()> {
        self.size.nodes += more.nodes;
        self.size.text += more.text;
        if self.size.nodes > MAX_NODES {
            return Err(Problem::at(place, format!("more than {MAX_NODES} values, counting what aliases repeat")));
        }
        if self.size.text > MAX_TEXT {
            return Err(Problem::at(place, format!("more than {MAX_TEXT} bytes, counting what aliases repeat")));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'t>, place: Place) -> Read<Node> {
        self.level += 1;
        // The parser counts lists in brackets and indented ones apart.
        if self.level > MAX_DEPTH {
            return Err(Problem::at(&place, format!("more than {MAX_DEPTH} levels")));
        }
        let node = self.node_at_level(event, place);
        self.level -= 1;
        node
    }

    fn node_at_level(&mut self, event: Event<'t>, place: Place) -> Read<Node> {
        let before = self.size;
        self.count(Size { nodes: 1, text: 0 }, &place)?;
        let (kind, anchor) = match event {
            Event::Alias(id) => return self.alias(id, &place),
            Event::Scalar(text, style, anchor, tag) => {
                self.count(Size { nodes: 0, text: text.len() }, &place)?;
                let forced_text = match &tag {
                    None => false,
                    Some(tag) if tag.is_yaml_core_schema_tag("str") => true,
                    Some(tag) => return Err(refused_tag(&place, &tag.original())),
                };
                (Kind::Scalar(resolve(&text, style, forced_text)), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                if let Some(tag) = tag {
                    return Err(refused_tag(&place, &tag.original()));
                }
                (self.list()?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                if let Some(tag) = tag {
                    return Err(refused_tag(&place, &tag.original()));
                }
                (self.map()?, anchor)
            }
            other => return Err(Problem::at(&place, format!("not valid YAML: unexpected {other:?}"))),
        };
        let node = Node { place, kind };
        if anchor != 0 {
            let size = Size { nodes: self.size.nodes - before.nodes, text: self.size.text - before.text };
            // Kept a second time, whether it is repeated or not.
            self.count(size, &node.place)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    /// A copy of the anchored node; its values keep the places where they were written.
    fn alias(&mut self, id: usize, place: &Place) -> Read<Node> {
        // A node that contains itself is not finished yet, so it is not found.
        let found = self.anchors.get(&id).cloned();
        let (node, size) = found.ok_or_else(|| Problem::at(place, "this alias is inside of what it repeats"))?;
        self.count(size, place)?;
        if self.level + depth(&node) > MAX_DEPTH {
            return Err(Problem::at(place, format!("more than {MAX_DEPTH} levels, counting what aliases repeat")));
        }
        Ok(Node { place: place.clone(), ..node })
    }

    fn list(&mut self) -> Read<Kind> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Kind::List(items)),
                (event, place) => items.push(self.node(event, place)?),
            }
        }
    }

    fn map(&mut self) -> Read<Kind> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, place) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(Kind::Map(entries)),
                Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<" => {
                    return Err(Problem::at(&place, "merge keys (<<) are not supported").suggest("write the keys out"));
                }
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(Problem::at(&place, "a key must be a plain word or a quoted text")),
            };
            self.count(Size { nodes: 0, text: key.len() }, &place)?;
            let (event, value_place) = self.next()?;
            let node = self.node(event, value_place)?;
            match entries.iter().find(|entry| entry.key == key) {
                Some(first) => {
                    let message = format!("duplicate key {key:?}; it was first given at {}", first.place);
                    self.problems.push(Problem::at(&place, message).suggest("keep one of them"));
                }
                None => entries.push(Entry { key, place, node }),
            }
        }
    }
}

fn depth(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar(_) => 1,
        Kind::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Kind::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.node)).max().unwrap_or(0),
    }
}

fn refused_tag(place: &Place, tag: &str) -> Problem {
    Problem::at(place, format!("YAML tags such as {tag} are not supported"))
}

/// Resolves a scalar by the YAML 1.2 core schema: `yes`, `on` and `012` are not what YAML 1.1 made of them.
fn resolve(text: &str, style: ScalarStyle, forced_text: bool) -> Scalar {
    let plain = matches!(style, ScalarStyle::Plain) && !forced_text;
    let value = match text {
        _ if !plain => None,
        "" | "~" | "null" | "Null" | "NULL" => Some(Value::Null),
        "true" | "True" | "TRUE" => Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => Some(Value::Bool(false)),
        _ => number(text).map(Value::Number),
    };
    Scalar { value: value.unwrap_or_else(|| Value::String(text.to_owned())), raw: text.to_owned() }
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(Number::from);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok().map(Number::from);
    }
    // Infinity and not-a-number stay texts: JSON has neither.
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !digits.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Ok(integer) = text.parse::<i64>() {
        return Some(Number::from(integer));
    }
    text.parse::<f64>().ok().and_then(Number::from_f64)
}
