//! Configuration in three stages: fragments (one YAML document each, with the place of every value), the merged tree
//! (later layers win, every value with its origin), and validated [`settings::Settings`].
//!
//! The binary's sequence, for settings are partly in user-data and user-data needs the metadata service:
//! ```text
//! let mut sources = Sources { files: sources::from_files(&files, uid, only)?, environment: environment::layers(std::env::vars()), .. };
//! let early = sources.early();                 // identity source and IMDS address, before user-data is known
//! let imds = Imds::new(metadata, time);        // the adapter at early.metadata_endpoint
//! if identity::is_ec2(early.identity, &files)? {          // no network so far
//!     let bytes = imds.user_data().await?;
//!     sources.user_data = user_data::read(&bytes).map_err(|problem| failure(&[problem]))?.layers();
//! }
//! let effective = load(sources.into_layers()).map_err(|problems| failure(&problems))?;
//! let identity = identity::discover(&world, &imds, effective.settings.identity, &effective.settings.node).await?;
//! ```

pub mod document;
pub mod environment;
pub mod fragment;
mod merge;
pub mod problem;
pub mod schema;
pub mod settings;
mod show;
pub mod sources;
pub mod tree;
pub mod user_data;
mod validate;

pub use fragment::{Layer, LayerKind};
pub use problem::{Place, Problem, failure};
pub use schema::schema;
pub use show::Row;
pub use sources::{Early, Sources};

use document::Document;
use schema::Walk;
use serde::Deserialize;
use serde_json::Value;
use settings::{InstallSettings, Settings};
use tree::Node;

/// Name of the layer below all others.
pub const DEFAULTS_NAME: &str = "built-in defaults";

/// The layer below all others. It says only what every node needs; what depends on other values has no default here.
pub const DEFAULTS: &str = "\
identity: auto
node: { cloud_provider: none }
join: { wait: 1h, token_ttl: 1h, api_wait: 30m }
drift: { every: 5m, content: report, action: report, drain_within: 15m, rollout: { at_once: 1, min_age: 1h, ready_for: 5m, successor_within: 30m } }
report_every: 5m
";

/// The configuration in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// Validated.
    pub settings: Settings,
    /// What it was made from: every value with its origin.
    pub tree: Node,
}

impl Effective {
    /// Every value with its path and origin, for `config show`; what looks like a secret is masked.
    pub fn show(&self) -> Vec<Row> {
        show::rows(&self.tree)
    }
}

/// Makes settings from layers, of which later ones win; the built-in defaults are put below them.
///
/// `Err` has every problem of every layer, never only the first: syntax, duplicate and unknown keys and wrong types of
/// each layer, in their order, then what is missing or wrong in the values that are in force.
pub fn load(layers: Vec<Layer>) -> Result<Effective, Vec<Problem>> {
    let root = schema();
    let (tree, mut walk, unread) = merged(&layers, &root);
    let document = document(&tree, &mut walk)?;
    let (settings, problems) = validate::validate(document, &tree, &walk.doubtful, unread);
    walk.problems.extend(problems);
    match settings {
        Some(settings) if walk.problems.is_empty() => Ok(Effective { settings, tree }),
        _ => Err(walk.problems),
    }
}

/// What an installation works by.
#[derive(Debug, Clone, PartialEq)]
pub struct Installation {
    /// The section `install` and what the machine must fit.
    pub install: InstallSettings,
    /// The node's settings, when the configuration has them all: a machine that is baked has no role yet.
    pub node: Option<Settings>,
}

/// Like [`load`], for a machine that need not be told what it is: no key is needed, but every key that is there is checked.
pub fn load_install(layers: Vec<Layer>) -> Result<Installation, Vec<Problem>> {
    let root = schema();
    let (tree, mut walk, _) = merged(&layers, &root);
    let document = document(&tree, &mut walk)?;
    let (install, node, problems) = validate::validate_install(document, &tree);
    walk.problems.extend(problems);
    if walk.problems.is_empty() { Ok(Installation { install, node }) } else { Err(walk.problems) }
}

/// The walk took out everything that does not fit, so an error is a defect of ours rather than the reader's.
fn document(tree: &Node, walk: &mut Walk) -> Result<Document, Vec<Problem>> {
    Document::deserialize(tree.to_json()).map_err(|error| {
        walk.problems.push(Problem::at(&tree.place, format!("the configuration does not fit its schema: {error}")));
        std::mem::take(&mut walk.problems)
    })
}

/// The merged tree of what fits the schema, what does not, and whether a layer could not be read at all.
fn merged(layers: &[Layer], root: &Value) -> (Node, Walk, bool) {
    let mut walk = Walk::default();
    let mut tree = Node::empty(Place::whole(DEFAULTS_NAME));
    let mut unread = false;
    let defaults = Layer::document(DEFAULTS_NAME, DEFAULTS);
    for layer in std::iter::once(&defaults).chain(layers) {
        let (node, problems) = match layer.kind {
            LayerKind::Document => fragment::parse(&layer.name, &layer.text),
            LayerKind::Variable => environment::parse(&layer.name, &layer.text, root),
        };
        walk.problems.extend(problems);
        match node {
            Some(node) => tree = merge::merge(tree, schema::prune(node, root, &mut walk)),
            None => unread |= layer.kind == LayerKind::Document,
        }
    }
    (tree, walk, unread)
}

#[cfg(test)]
mod tests;
