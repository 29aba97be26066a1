//! What counts against the budget: whatever is, or may soon be, away.

use super::ledger::Ledger;
use super::view::View;
use std::collections::BTreeMap;

/// What is away, by a key that is the same for one machine, and why. Each machine counts once:
/// - every grant of the ledger, until it is out of it;
/// - every Node that is not Ready, whatever the reason;
/// - every cordoned Node, whoever cordoned it: somebody is at work there, and pods that leave it do not come back;
/// - every Node that carries a grant the ledger does not have: its node may be draining.
///
/// A Node whose instance is gone does not count: nothing runs there, and without a cloud controller manager nobody ever
/// removes it.
pub fn away(view: &View, ledger: &Ledger) -> BTreeMap<String, String> {
    let mut away = BTreeMap::new();
    for node in &view.nodes {
        let why = if !node.ready {
            "not Ready"
        } else if node.unschedulable {
            "cordoned"
        } else if node.grant.is_some() {
            "with a grant"
        } else {
            continue;
        };
        if !view.is_gone(node.instance.as_ref()) {
            away.insert(node.uid.clone(), format!("{} ({why})", node.name));
        }
    }
    for entry in &ledger.grants {
        away.insert(entry.node_uid.clone(), format!("{} ({})", entry.node, entry.phase.as_str()));
    }
    away
}
