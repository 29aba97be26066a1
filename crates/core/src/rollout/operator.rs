//! What an operator sees and says, on a master: how the rollouts stand, and that they stop or go on.

use super::cluster::{Stored, read_ledger, read_nodes, write_ledger, write_pause};
use super::ledger::{Ledger, image};
use super::view::NodeFacts;
use super::wire;
use crate::kube::Api;
use crate::model::cause::{Cause, Failure, Outcome};
use serde::Serialize;

/// The arbiter writes every few seconds while something goes on.
const TRIES: usize = 10;

/// How the rollouts stand.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    /// Why an operator paused every rollout.
    pub paused: Option<String>,
    /// The ledger.
    pub ledger: Ledger,
    /// Nodes that are not what they should be, or do not say.
    pub nodes: Vec<Row>,
}

/// A node that is not what it should be.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub node: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// What it says of itself.
    pub request: Option<wire::Request>,
    /// How far it is with its grant.
    pub progress: Option<wire::Progress>,
}

/// Reads it all; changes nothing.
pub async fn standing(api: &Api) -> Outcome<Standing> {
    let view = read_nodes(api, "").await?;
    let stored = read_ledger(api).await?;
    let row = |node: &NodeFacts| Row {
        node: node.name.clone(),
        ready: node.ready,
        request: node.request.clone(),
        progress: node.progress.clone().filter(|_| node.grant.is_some()),
    };
    let nodes = view.nodes.iter().filter(|node| !node.is_current()).map(row).collect();
    Ok(Standing { paused: stored.paused, ledger: stored.ledger, nodes })
}

/// Pauses every rollout of the cluster. What drains goes on; nothing begins and no machine is ended.
pub async fn pause(api: &Api, why: &str) -> Outcome<()> {
    let why = wire::shortened(why.trim());
    if why.is_empty() {
        let failure = Failure::new(Cause::Usage, "pause the rollouts", "a reason is needed: the others read it");
        return Err(failure);
    }
    for _ in 0..TRIES {
        if write_pause(api, &read_ledger(api).await?, Some(&why)).await? {
            return Ok(());
        }
    }
    Err(busy("pause the rollouts"))
}

/// Lets them go on: the cluster when no group is named, and the paused rollouts of the group, or of all. What was resumed,
/// for people; empty when nothing stood.
pub async fn resume(api: &Api, group: Option<&str>) -> Outcome<Vec<String>> {
    let mut resumed = Vec::new();
    if group.is_none() {
        let stored = read_ledger(api).await?;
        if let Some(why) = &stored.paused {
            resumed.push(format!("the cluster, which stood because {why}"));
            if !write_pause(api, &stored, None).await? {
                return Err(busy("resume the rollouts"));
            }
        }
    }
    resumed.extend(change(api, "resume the rollouts", |ledger| ledger.resume(group)).await?);
    Ok(resumed)
}

/// Ends the grant of a node whose machine will not come back. `false` when it has none.
pub async fn release(api: &Api, node: &str) -> Outcome<bool> {
    let released =
        change(api, "release the grant", |ledger| ledger.release(node).then(String::new).into_iter().collect());
    Ok(!released.await?.is_empty())
}

async fn change(api: &Api, what: &str, edit: impl Fn(&mut Ledger) -> Vec<String>) -> Outcome<Vec<String>> {
    for _ in 0..TRIES {
        let stored: Stored = read_ledger(api).await?;
        let mut ledger = stored.ledger.clone();
        let done = edit(&mut ledger);
        if done.is_empty() || write_ledger(api, &stored, &ledger).await? {
            return Ok(done);
        }
    }
    Err(busy(what))
}

fn busy(what: &str) -> Failure {
    let failure = Failure::new(Cause::ApiRefused, what, "the arbiter changed the ledger at the same moment");
    failure.advise("try again")
}

/// The answer for people.
pub fn table(standing: &Standing) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&crate::model::plain::plain(&text));
        out.push('\n');
    };
    if let Some(why) = &standing.paused {
        line(format!("PAUSED by an operator: {why}"));
    }
    for rollout in &standing.ledger.rollouts {
        let state = match (&rollout.paused, &rollout.refused) {
            (Some(pause), _) => format!("paused since {:.0}: {}", pause.at, pause.why),
            (None, Some(why)) => format!("held: {why}"),
            (None, None) if rollout.proven => "goes on".to_owned(),
            (None, None) => "waits for its canary".to_owned(),
        };
        let (group, desired) = (&rollout.group, image(&rollout.desired));
        line(format!("group {group} to {desired}: {} replaced; {state}", rollout.replaced));
    }
    for entry in &standing.ledger.grants {
        let (node, at, phase) = (&entry.node, entry.granted_at, entry.phase.as_str());
        line(format!("  {node} (granted {at:.0}) is {phase}: {}", entry.why));
    }
    for row in &standing.nodes {
        let Some(request) = &row.request else { continue };
        let progress = row.progress.as_ref().map(|p| format!("; its drain: {}", p.why)).unwrap_or_default();
        line(format!(
            "  {} ({}): {}{progress}",
            row.node,
            if row.ready { "Ready" } else { "not Ready" },
            request.reason
        ));
    }
    if out.is_empty() { "No rollout, and no node that asks for one.\n".to_owned() } else { out }
}
