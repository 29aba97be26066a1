//! The decision: what the ledger says next. Pure: what it does not know it asks, and until it is answered it grants
//! nothing.

use super::Rules;
use super::advance::{advance, wanted};
use super::budget::away;
use super::ledger::{Entry, Ledger, MAX_ROLLOUTS, Phase, image};
use super::view::{Launches, NodeFacts, View};
use super::window;
use super::wire::{self, Action, Request, Step};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// A node whose grant ended without a replacement is tried again after this long for each time ...
const AGAIN_AFTER: Duration = Duration::from_secs(30 * 60);
/// ... but at the latest after this.
const AGAIN_AT_MOST: Duration = Duration::from_secs(6 * 60 * 60);
/// When the API server's clock and ours differ by more, one of them must not open a window.
const CLOCKS_AGREE: SignedDuration = SignedDuration::from_mins(10);
/// A stacked etcd of three loses one member and still has a majority.
const VOTERS: usize = 3;
/// As many reasons are told.
const MAX_HOLDS: usize = 20;

/// What a round came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The ledger as it should be. It is stored before anything else happens.
    pub ledger: Ledger,
    /// Instances whose group is to be asked what it would start ([`View::launches`]); then it is decided again.
    pub questions: Vec<String>,
    /// Why nothing, or nothing more, is granted, for people.
    pub holds: Vec<String>,
}

/// One round. `id` is the id of the grant that it may make: there is one at most.
pub fn decide(view: &View, ledger: &Ledger, rules: &Rules<'_>, now: Timestamp, id: Uuid) -> Plan {
    let mut plan = Plan { ledger: ledger.clone(), questions: Vec::new(), holds: Vec::new() };
    advance(view, &mut plan.ledger, rules, now);
    forget(view, &mut plan.ledger);
    let waits = plan.ledger.grants.iter().filter(|entry| is_to_be_ended(view, entry));
    plan.questions = waits.filter_map(|entry| unanswered(view, entry.instance.as_ref())).collect();
    let mut candidates: Vec<&NodeFacts> = view.nodes.iter().filter(|node| node.wants()).collect();
    candidates.retain(|node| !plan.ledger.grants.iter().any(|entry| is_of(entry, node)));
    if candidates.is_empty() {
        plan.ledger.rollouts.iter_mut().for_each(|rollout| rollout.refused = None);
        return plan;
    }
    if let Some(why) = closed(view, rules, now) {
        plan.holds.push(why);
        return plan;
    }
    let away = away(view, &plan.ledger);
    if away.len() >= rules.rollout.at_once as usize {
        let names = away.into_values().take(5).collect::<Vec<_>>().join(", ");
        plan.holds.push(format!("at most {} may be away, and these are: {names}", rules.rollout.at_once));
        return plan;
    }
    candidates.sort_by_key(|node| (node.master, tries(&plan.ledger, node), node.created_at, node.name.clone()));
    grant(view, &mut plan, &candidates, rules, now, id);
    plan
}

/// Grants the first candidate that nothing stands against.
fn grant(view: &View, plan: &mut Plan, candidates: &[&NodeFacts], rules: &Rules<'_>, now: Timestamp, id: Uuid) {
    let mut refused: BTreeMap<(String, String), String> = BTreeMap::new();
    for node in candidates {
        let Some(request) = &node.request else { continue };
        let Some(group) = request.group.clone() else {
            plan.holds.push(format!("{} names no group in which a replacement could be expected", node.name));
            continue;
        };
        let pair = (group, request.desired.clone().unwrap_or_default());
        if refused.contains_key(&pair) {
            continue;
        }
        match admit(view, &plan.ledger, node, request, &pair, rules, now) {
            Admission::Granted => {
                let before = plan.ledger.clone();
                plan.ledger.rollout_mut(&pair.0, &pair.1).refused = None;
                plan.ledger.grants.push(entry(view, node, request, pair, rules, now, id));
                if plan.ledger.write().is_err() {
                    plan.ledger = before;
                    plan.holds.push("the ledger is full".to_owned());
                }
                return;
            }
            Admission::Ask(instance) => {
                plan.questions.push(instance);
                return;
            }
            Admission::NotNow(why) => plan.holds.push(format!("{}: {why}", node.name)),
            Admission::Refused(why) => {
                plan.holds.push(format!("{}: {why}", node.name));
                refused.insert(pair, why);
            }
        }
    }
    plan.holds.truncate(MAX_HOLDS);
    for (group, desired) in refused.keys() {
        if plan.ledger.rollout(group, desired).is_some() || plan.ledger.rollouts.len() < MAX_ROLLOUTS {
            plan.ledger.rollout_mut(group, desired);
        }
    }
    for rollout in &mut plan.ledger.rollouts {
        rollout.refused = refused.get(&(rollout.group.clone(), rollout.desired.clone())).cloned();
    }
}

enum Admission {
    Granted,
    /// Only when it is known what the group of this instance would start.
    Ask(String),
    /// Not this node, not now.
    NotNow(String),
    /// Not this group; told in the ledger.
    Refused(String),
}

fn admit(
    view: &View,
    ledger: &Ledger,
    node: &NodeFacts,
    request: &Request,
    (group, desired): &(String, String),
    rules: &Rules<'_>,
    now: Timestamp,
) -> Admission {
    let rollout = ledger.rollout(group, desired);
    if rollout.is_none() && ledger.rollouts.len() >= MAX_ROLLOUTS {
        return Admission::NotNow(format!("there are {MAX_ROLLOUTS} rollouts already"));
    }
    if let Some(pause) = rollout.and_then(|rollout| rollout.paused.as_ref()) {
        return Admission::NotNow(format!("its group is paused: {}", pause.why));
    }
    let is_open = |entry: &&Entry| entry.group == *group && entry.desired == *desired;
    if !rollout.is_some_and(|rollout| rollout.proven)
        && let Some(canary) = ledger.grants.iter().find(is_open)
    {
        return Admission::NotNow(format!("{} goes first, and is not replaced yet", canary.node));
    }
    if let Some(why) = not_now(view, ledger, node, rules, now) {
        return Admission::NotNow(why);
    }
    if request.action < Action::Replace {
        return Admission::Granted;
    }
    match (&node.instance, &request.instance) {
        (None, None) => Admission::Granted,
        (Some(id), Some(said)) if id == said => match view.launches.get(id) {
            None => Admission::Ask(id.clone()),
            Some(Launches::Image(next)) if next == desired => Admission::Granted,
            Some(Launches::Image(next)) if Some(next) == request.running.as_ref() => {
                Admission::Refused(format!("its Auto Scaling group would start the old image {next} again"))
            }
            Some(Launches::Image(next)) => {
                Admission::Refused(format!("its Auto Scaling group would start {next}, and not {}", image(desired)))
            }
            Some(Launches::Nothing(why)) => Admission::Refused(why.clone()),
        },
        _ => Admission::NotNow("its providerID is not that of the instance which it says to be".to_owned()),
    }
}

/// What stands against this node, whatever its group.
fn not_now(view: &View, ledger: &Ledger, node: &NodeFacts, rules: &Rules<'_>, now: Timestamp) -> Option<String> {
    if node.name == view.me {
        return Some("it is the arbiter's own node, which another master's arbiter grants".to_owned());
    }
    if !node.ready {
        return Some("it is not Ready".to_owned());
    }
    if node.unschedulable {
        return Some("it is cordoned".to_owned());
    }
    if node.grant.is_some() {
        return Some("it still carries an earlier grant".to_owned());
    }
    let min_age = SignedDuration::try_from(rules.rollout.min_age).unwrap_or(SignedDuration::MAX);
    if view.age(node).is_none_or(|age| age < min_age) {
        return Some(format!("it is younger than {} min", min_age.as_mins()));
    }
    let failed = ledger.rollouts.iter().flat_map(|rollout| &rollout.failures).find(|f| f.node_uid == node.uid);
    if let Some(failure) = failed {
        let wait = AGAIN_AFTER.saturating_mul(failure.count).min(AGAIN_AT_MOST);
        let since = now.duration_since(failure.at).unsigned_abs();
        if since < wait {
            return Some(format!("it is tried again later: {}", failure.why));
        }
    }
    if node.master { master(view, ledger, node) } else { None }
}

/// A master goes only while etcd can lose one, and alone.
fn master(view: &View, ledger: &Ledger, node: &NodeFacts) -> Option<String> {
    if view.voters < VOTERS {
        return Some(format!("a master goes only with {VOTERS} healthy etcd voters or more, and {} are", view.voters));
    }
    let is_away = |other: &&NodeFacts| {
        other.master && other.uid != node.uid && (!other.ready || other.unschedulable || other.grant.is_some())
    };
    if let Some(other) = view.nodes.iter().find(is_away) {
        return Some(format!("masters go one at a time, and {} is away", other.name));
    }
    let open = ledger.grants.iter().find(|entry| entry.master);
    open.map(|entry| format!("masters go one at a time, and {} is not replaced yet", entry.node))
}

fn entry(
    view: &View,
    node: &NodeFacts,
    request: &Request,
    (group, desired): (String, String),
    rules: &Rules<'_>,
    now: Timestamp,
    id: Uuid,
) -> Entry {
    let deadline = SignedDuration::try_from(rules.drain_within).unwrap_or(SignedDuration::from_mins(15));
    let mut entry = Entry {
        id,
        node: node.name.clone(),
        node_uid: node.uid.clone(),
        instance: node.instance.clone(),
        desired,
        running: request.running.clone(),
        master: node.master,
        step: if request.action == Action::Replace { Step::Replace } else { Step::Drain },
        phase: Phase::Granted,
        deadline: now.saturating_add(deadline).unwrap_or(now),
        granted_at: now,
        before: String::new(),
        why: wire::shortened(&request.reason),
        group,
    };
    let peers = view.nodes.iter().filter(|other| other.group().is_none_or(|of| of == entry.group));
    let peers: Vec<&str> = peers.map(|other| other.uid.as_str()).collect();
    entry.know(peers.into_iter());
    entry
}

/// Why nothing is granted in the whole cluster.
fn closed(view: &View, rules: &Rules<'_>, now: Timestamp) -> Option<String> {
    if let Some(why) = &view.paused {
        return Some(format!("an operator paused every rollout: {why}"));
    }
    if view.api_clock.is_none_or(|theirs| theirs.duration_since(now).abs() > CLOCKS_AGREE) {
        return Some("the API server's clock and this machine's differ by more than 10 min".to_owned());
    }
    if window::is_open(&rules.rollout.windows, now) {
        return None;
    }
    Some(match window::next(&rules.rollout.windows, now) {
        Some(at) => format!("outside of the windows; the next one opens at {at}"),
        None => "outside of the windows, and none ever opens".to_owned(),
    })
}

fn tries(ledger: &Ledger, node: &NodeFacts) -> u32 {
    let failures = ledger.rollouts.iter().flat_map(|rollout| &rollout.failures);
    failures.filter(|failure| failure.node_uid == node.uid).map(|failure| failure.count).max().unwrap_or(0)
}

/// Whether a grant is for this machine, even when its Node was made anew.
fn is_of(entry: &Entry, node: &NodeFacts) -> bool {
    let same_instance = entry.instance.is_some() && entry.instance == node.instance;
    entry.node_uid == node.uid || entry.node == node.name || same_instance
}

/// Whether the arbiter is to end the instance of this grant.
pub(super) fn is_to_be_ended(view: &View, entry: &Entry) -> bool {
    let alive = entry.instance.as_ref().and_then(|id| view.instances.get(id)).is_some_and(|found| found.is_alive());
    alive && entry.phase == Phase::Replacing && entry.step == Step::Replace && view.paused.is_none()
}

/// Whether its group would start what is wanted in its place.
pub(super) fn is_replaceable(view: &View, entry: &Entry) -> bool {
    let launches = entry.instance.as_ref().and_then(|id| view.launches.get(id));
    let node = view.node(&entry.node_uid);
    matches!(launches, Some(Launches::Image(next)) if next == wanted(entry, node))
}

fn unanswered(view: &View, instance: Option<&String>) -> Option<String> {
    instance.filter(|id| !view.launches.contains_key(*id)).cloned()
}

/// Whether no node of the group wants this image any more, and some want another.
pub(super) fn is_superseded(view: &View, group: &str, desired: &str) -> bool {
    let requests = view.nodes.iter().filter_map(|node| node.request.as_ref());
    let of_group = requests.filter(|request| request.group.as_deref() == Some(group));
    let mut wishes = of_group.filter(|r| r.is_drifted() || r.is_current()).map(|r| r.desired.as_deref().unwrap_or(""));
    let first = wishes.next();
    first.is_some_and(|first| first != desired) && wishes.all(|wish| wish != desired)
}

/// Rollouts to images that nobody wants any more are forgotten, once no grant belongs to them.
fn forget(view: &View, ledger: &mut Ledger) {
    let grants = std::mem::take(&mut ledger.grants);
    let has_grant = |group: &str, desired: &str| grants.iter().any(|e| e.group == group && e.desired == desired);
    ledger.rollouts.retain(|rollout| {
        has_grant(&rollout.group, &rollout.desired) || !is_superseded(view, &rollout.group, &rollout.desired)
    });
    ledger.grants = grants;
}

/// Whether the arbiter should leave its place to another master: its own node is what is left to do, and it never grants
/// that itself.
pub fn should_hand_over(view: &View, ledger: &Ledger) -> bool {
    let others = view.nodes.iter().filter(|node| node.name != view.me);
    let mut waiting = others.clone().filter(|node| node.wants());
    let own = view.nodes.iter().any(|node| node.name == view.me && node.wants());
    own && view.voters >= VOTERS && ledger.grants.is_empty() && waiting.next().is_none() && {
        let mut masters = others.filter(|node| node.master && node.ready);
        masters.next().is_some()
    }
}
