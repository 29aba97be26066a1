//! What is done about a ledger that is stored: copies of its grants on Nodes, taints, the end of instances. Nothing here
//! decides; whatever is not done yet is done in the next round.

use super::decide::{is_replaceable, is_to_be_ended};
use super::ledger::{Entry, Ledger, Phase};
use super::view::{NodeFacts, View, is_ours};
use super::wire::{self, Action, Grant, State};
use serde_json::{Value, json};

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// A grant is shown to its node.
    Show {
        /// Node.
        node: NodeFacts,
        /// The copy.
        grant: Grant,
    },
    /// A grant is taken away; its mark stays.
    TakeAway {
        /// Node.
        node: NodeFacts,
        /// The grant's id; none when what the Node carries cannot be read.
        id: String,
    },
    /// The Node gets these taints instead of its own.
    Taint {
        /// Node.
        node: NodeFacts,
        /// All of them.
        taints: Vec<Value>,
    },
    /// An instance is ended in its Auto Scaling group, which starts another.
    Terminate {
        /// The grant.
        entry: Entry,
        /// `i-…`
        instance: String,
    },
    /// The Node of an instance that this rollout ended is removed, as a cloud controller manager would.
    Remove {
        /// Node.
        node: NodeFacts,
    },
}

/// Everything that the stored ledger asks for and the view does not show yet.
pub fn acts(view: &View, ledger: &Ledger) -> Vec<Act> {
    let mut acts = Vec::new();
    for node in &view.nodes {
        let entry = ledger.grants.iter().find(|entry| entry.node_uid == node.uid);
        acts.extend(of_grant(node, entry));
        acts.extend(of_taint(node));
        if let Some(entry) =
            entry.filter(|entry| entry.phase == Phase::Replacing && view.is_gone(entry.instance.as_ref()))
            && node.instance == entry.instance
        {
            acts.push(Act::Remove { node: node.clone() });
        }
    }
    for entry in ledger.grants.iter().filter(|entry| is_to_be_ended(view, entry) && is_replaceable(view, entry)) {
        if let (Some(node), Some(instance)) = (view.node(&entry.node_uid), &entry.instance)
            && may_be_ended(node, entry)
        {
            acts.push(Act::Terminate { entry: entry.clone(), instance: instance.clone() });
        }
    }
    acts
}

/// Whether the Node itself says that it is this instance, and drained for this grant.
pub fn may_be_ended(node: &NodeFacts, entry: &Entry) -> bool {
    let drained = node.progress_of(entry.id).is_some_and(|progress| progress.state == State::Drained);
    node.uid == entry.node_uid && node.instance.is_some() && node.instance == entry.instance && drained
}

fn of_grant(node: &NodeFacts, entry: Option<&Entry>) -> Option<Act> {
    let carried = match &node.grant {
        Some(Ok(grant)) => Some(grant.id.to_string()),
        Some(Err(_)) => Some(String::new()),
        None => None,
    };
    match entry {
        Some(entry) if entry.phase == Phase::Ending => {
            let id = entry.id.to_string();
            let done = carried.is_none() && node.ended.as_ref() == Some(&id);
            (!done).then(|| Act::TakeAway { node: node.clone(), id })
        }
        Some(entry) => {
            let grant = Grant {
                schema: wire::SCHEMA,
                id: entry.id,
                node_uid: entry.node_uid.clone(),
                step: entry.step,
                deadline: entry.deadline,
            };
            let shown = matches!(&node.grant, Some(Ok(carried)) if *carried == grant);
            // A Node that was read after the ledger may carry the mark of an end that this ledger does not know yet.
            let ended = node.ended.as_deref() == Some(entry.id.to_string().as_str());
            (!shown && !ended).then(|| Act::Show { node: node.clone(), grant })
        }
        None => carried.map(|id| Act::TakeAway { node: node.clone(), id }),
    }
}

/// The taint follows the request; while it is not known what the node runs nothing changes.
fn of_taint(node: &NodeFacts) -> Option<Act> {
    let request = node.request.as_ref()?;
    let wanted = request.is_drifted() && request.action >= Action::Mark;
    let mut taints = node.taints.clone();
    if wanted && !node.is_tainted() {
        taints.push(json!({"key": wire::DRIFTED_TAINT, "effect": wire::TAINT_EFFECT}));
    } else if node.is_tainted() && (request.is_current() || (request.is_drifted() && !wanted)) {
        taints.retain(|taint| !is_ours(taint));
    } else {
        return None;
    }
    Some(Act::Taint { node: node.clone(), taints })
}

impl Act {
    /// What is done, for people.
    pub fn title(&self) -> String {
        match self {
            Act::Show { node, grant } => format!("grant {} to node {}", grant.id, node.name),
            Act::TakeAway { node, .. } => format!("take the grant away from node {}", node.name),
            Act::Taint { node, .. } => format!("taint node {}", node.name),
            Act::Terminate { entry, instance } => format!("replace instance {instance} of node {}", entry.node),
            Act::Remove { node } => format!("remove the Node {} of an instance that is gone", node.name),
        }
    }
}
