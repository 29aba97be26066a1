//! The annotation on the own Node that says how the node ends: for people, for controllers, and for the next life of the
//! agent, which must not give the drain more time.

use super::events::Kind;
use crate::drain::{END, EXCLUDED_BY, uncordon_if_ours};
use crate::kube::{Api, encode_segment, refused};
use crate::model::cause::Outcome;
use crate::rollout::wire::CORDONED_BY;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The annotation's name; its value is a [`Mark`] as JSON.
pub const MARK: &str = "kubestrap.io/end";
/// The longest value that is read, in bytes.
const LONGEST: usize = 4096;

/// How a node ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// [`Kind::as_str`].
    pub event: String,
    /// When it is to be empty.
    pub at: Timestamp,
}

impl Mark {
    /// Of this event.
    pub fn new(kind: Kind, at: Timestamp) -> Self {
        Mark { event: kind.as_str().to_owned(), at }
    }

    /// The deadline, when it is about this kind.
    pub fn deadline_of(&self, kind: Kind) -> Option<Timestamp> {
        (self.event == kind.as_str()).then_some(self.at)
    }
}

/// Who drains because of this kind, as the cordon's mark has it.
pub fn owner(kind: Kind) -> String {
    format!("{END}{kind}")
}

/// The mark on the Node; `None` without a Node, without a mark, or with one that nobody can read.
pub async fn read(access: &Api, node_name: &str) -> Outcome<Option<Mark>> {
    let node = access.get(&path(node_name)).await?;
    let text = node.as_ref().and_then(|node| annotation(node, MARK)).filter(|text| text.len() <= LONGEST);
    Ok(text.and_then(|text| serde_json::from_str(text).ok()))
}

/// Writes the mark. Nothing happens when there is no Node.
pub async fn write(access: &Api, node_name: &str, mark: &Mark) -> Outcome<()> {
    let text = json!({ "event": mark.event, "at": mark.at }).to_string();
    patch(access, node_name, &json!({ "metadata": { "annotations": { (MARK): text } } })).await
}

/// Takes back what an end that did not come, or that is over, left on the Node: our cordon, our label, the mark. Whether
/// there was anything. What a person or a grant did stays.
pub async fn release(access: &Api, node_name: &str) -> Outcome<bool> {
    let Some(node) = access.get(&path(node_name)).await? else { return Ok(false) };
    let owners: BTreeSet<&str> = [CORDONED_BY, EXCLUDED_BY]
        .iter()
        .filter_map(|name| annotation(&node, name))
        .filter(|owner| owner.starts_with(END))
        .collect();
    let mut changed = false;
    for owner in owners {
        changed |= uncordon_if_ours(access, node_name, owner).await?;
    }
    // The mark goes last: as long as it is there the next life looks again.
    if annotation(&node, MARK).is_some() {
        patch(access, node_name, &json!({ "metadata": { "annotations": { (MARK): null } } })).await?;
        changed = true;
    }
    Ok(changed)
}

async fn patch(access: &Api, node_name: &str, body: &Value) -> Outcome<()> {
    let path = path(node_name);
    let answer = access.call("PATCH", &path, Some(("application/merge-patch+json", body))).await?;
    match answer.status {
        200 | 404 => Ok(()),
        _ => Err(refused("mark the end on", &path, &answer)),
    }
}

fn path(node_name: &str) -> String {
    format!("/api/v1/nodes/{}", encode_segment(node_name))
}

fn annotation<'a>(node: &'a Value, name: &str) -> Option<&'a str> {
    node.pointer("/metadata/annotations")?.get(name)?.as_str()
}
