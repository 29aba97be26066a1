//! What becomes of a grant that is open.
//!
//! It ends when a replacement has been Ready for long enough, and not when the old Node disappears; when the node gave up;
//! or when nobody is left who could use it. It counts until the copy on the Node is gone ([`super::copies`]).

use super::Rules;
use super::ledger::{Entry, Ledger, MAX_FAILURES, NodeFailure, Pause, Phase, image};
use super::view::{Launches, NodeFacts, View};
use super::wire::{Action, State, Step};
use jiff::Timestamp;
use std::time::Duration;

/// A node that says nothing is given this much longer than its drain may take.
const SILENCE: Duration = Duration::from_secs(10 * 60);

enum Change {
    Stay,
    /// It is drained; its replacement is waited for.
    Replace,
    /// It was replaced by the Node of this uid.
    Replaced(String),
    /// It is over without a replacement, and the node may ask again at once.
    Withdraw(String),
    /// It is over without a replacement; the node is tried again later.
    Fail(String),
    /// The same, and the rollout stands.
    FailAndPause(String),
    /// It stays open, and the rollout stands.
    Pause(String),
}

/// One round for every grant.
pub(super) fn advance(view: &View, ledger: &mut Ledger, rules: &Rules<'_>, now: Timestamp) {
    ledger.grants.retain(|entry| entry.phase != Phase::Ending || !is_withdrawn(view, entry));
    for index in 0..ledger.grants.len() {
        let change = change(view, ledger, &ledger.grants[index], rules);
        apply(view, ledger, index, change, now);
    }
}

/// Whether nobody can read this grant on a Node any more, and no arbiter that read the Node earlier can put it back: the
/// mark of its end changed the Node's version.
fn is_withdrawn(view: &View, entry: &Entry) -> bool {
    view.node(&entry.node_uid)
        .is_none_or(|node| node.grant.is_none() && node.ended.as_deref() == Some(entry.id.to_string().as_str()))
}

fn change(view: &View, ledger: &Ledger, entry: &Entry, rules: &Rules<'_>) -> Change {
    if let Some(by) = successor(view, ledger, entry, rules) {
        return Change::Replaced(by.uid.clone());
    }
    match (entry.phase, view.node(&entry.node_uid)) {
        (Phase::Ending, _) => Change::Stay,
        // The rollout did not end it, so it waits for nobody. Without EC2's word only an operator can tell.
        (Phase::Granted, _) if view.is_gone(entry.instance.as_ref()) => {
            Change::Withdraw("its instance is gone, and not by this rollout".to_owned())
        }
        (Phase::Granted, None) if view.nodes.iter().any(|node| is_made_anew(entry, node)) => {
            Change::Withdraw("its Node was made anew".to_owned())
        }
        (Phase::Granted, None) => Change::Stay,
        (Phase::Granted, Some(node)) => granted(view, entry, node, rules),
        (Phase::Replacing, node) => replacing(view, entry, node, rules),
    }
}

/// Whether this is another Node object for the same machine, which carries nothing of the grant.
fn is_made_anew(entry: &Entry, node: &NodeFacts) -> bool {
    match &entry.instance {
        Some(_) => node.instance == entry.instance,
        None => node.name == entry.node && !node.is_current(),
    }
}

fn granted(view: &View, entry: &Entry, node: &NodeFacts, rules: &Rules<'_>) -> Change {
    let progress = node.progress_of(entry.id);
    match progress.map(|progress| progress.state) {
        Some(State::GaveUp) => return Change::Fail(said("its drain was given up", progress)),
        Some(State::Failed) => return Change::FailAndPause(said("its replacement failed", progress)),
        // A pause stops what has not begun: the node stays drained until then.
        Some(State::Drained | State::Replacing) if view.paused.is_some() => return Change::Stay,
        Some(State::Drained | State::Replacing) => return Change::Replace,
        Some(State::Draining) | None => {}
    }
    if node.is_current() {
        return Change::Withdraw("it runs what it should".to_owned());
    }
    if node.request.as_ref().is_some_and(|request| request.is_drifted() && request.action < Action::Drain) {
        return Change::Withdraw("its configuration does not ask for a drain any more".to_owned());
    }
    if view.waited(entry) > rules.drain_within + SILENCE {
        return Change::Fail("it did not say how its drain ended".to_owned());
    }
    Change::Stay
}

fn said(what: &str, progress: Option<&super::wire::Progress>) -> String {
    match progress.map(|progress| progress.why.as_str()) {
        None | Some("") => what.to_owned(),
        Some(why) => format!("{what}: {why}"),
    }
}

fn replacing(view: &View, entry: &Entry, node: Option<&NodeFacts>, rules: &Rules<'_>) -> Change {
    let progress = node.and_then(|node| node.progress_of(entry.id));
    if progress.is_some_and(|progress| progress.state == State::Failed) {
        return Change::FailAndPause(said("its replacement failed", progress));
    }
    if let Some(again) = view.nodes.iter().find(|node| is_the_old_image_again(entry, node)) {
        return Change::Pause(format!("the group started the old image again: {}", again.name));
    }
    let alive = entry.instance.as_ref().and_then(|id| view.instances.get(id)).is_some_and(|found| found.is_alive());
    let launches = entry.instance.as_ref().and_then(|id| view.launches.get(id));
    if let (true, Step::Replace, Some(Launches::Image(next))) = (alive, entry.step, launches)
        && next != wanted(entry, node)
    {
        return Change::Pause(format!("the group would start {next}, and not {}", image(wanted(entry, node))));
    }
    if view.waited(entry) >= rules.rollout.successor_within {
        let minutes = rules.rollout.successor_within.as_secs() / 60;
        return Change::Pause(format!("{} had no replacement that was Ready within {minutes} min", entry.node));
    }
    Change::Stay
}

/// What the node should be replaced by: what it says now, else what it was granted for.
pub(super) fn wanted<'a>(entry: &'a Entry, node: Option<&'a NodeFacts>) -> &'a str {
    let now = node.and_then(|node| node.request.as_ref()).filter(|request| request.is_drifted());
    now.and_then(|request| request.desired.as_deref()).unwrap_or(&entry.desired)
}

fn is_the_old_image_again(entry: &Entry, node: &NodeFacts) -> bool {
    let Some(request) = &node.request else { return false };
    let same = request.running.is_some() && request.running == entry.running;
    let is_new = entry.instance.is_some() && !entry.knew(&node.uid) && node.uid != entry.node_uid;
    is_new && same && request.is_drifted() && request.group.as_deref() == Some(entry.group.as_str())
}

/// The Node that replaced the granted one.
///
/// On EC2 it is another instance, of the same group, that was not there when the old one was given up; EC2 must agree
/// about its image, for a node may say what it likes of itself. Elsewhere it is the machine of the same name.
fn successor<'a>(view: &'a View, ledger: &Ledger, entry: &Entry, rules: &Rules<'_>) -> Option<&'a NodeFacts> {
    let may = match (entry.phase, &entry.instance) {
        (Phase::Ending, _) => false,
        (Phase::Granted, Some(_)) => false,
        // Reinstalled before we saw that it was drained.
        (Phase::Granted, None) => view.node(&entry.node_uid).is_none(),
        (Phase::Replacing, None) => true,
        // While the old one still runs nothing replaces it: what came is growth.
        (Phase::Replacing, Some(id)) => {
            entry.step == Step::Drain || view.instances.get(id).is_some_and(|found| !found.is_alive())
        }
    };
    let fits = |node: &&NodeFacts| {
        // A machine that came back under its own Node is uncordoned by its agent when the grant is taken away.
        let is_usable = !node.unschedulable || node.uid == entry.node_uid;
        let is_ready = node.ready && node.ready_for >= rules.rollout.ready_for && is_usable;
        let is_free = !ledger.grants.iter().any(|other| other.node_uid == node.uid && other.id != entry.id);
        let is_it = match &entry.instance {
            None => node.name == entry.node,
            Some(old) => node.uid != entry.node_uid && !entry.knew(&node.uid) && is_started(view, node, old),
        };
        is_it && is_ready && is_free && node.is_current() && node.group() == Some(entry.group.as_str())
    };
    view.nodes.iter().filter(|_| may).find(fits)
}

fn is_started(view: &View, node: &NodeFacts, old: &str) -> bool {
    let Some(instance) = node.instance.as_ref().filter(|id| *id != old) else { return false };
    let Some(request) = &node.request else { return false };
    let found = view.instances.get(instance);
    // Of drift in content, and of images that differ only by their name, the id says nothing.
    found.is_some_and(|found| found.is_alive() && (found.image == request.running || found.image.is_none()))
}

fn apply(view: &View, ledger: &mut Ledger, index: usize, change: Change, now: Timestamp) {
    let entry = ledger.grants[index].clone();
    match change {
        Change::Stay => {}
        Change::Replace => {
            let group = view.nodes.iter().filter(|node| node.group().is_none_or(|group| group == entry.group));
            let entry = &mut ledger.grants[index];
            entry.know(group.map(|node| node.uid.as_str()));
            entry.phase = Phase::Replacing;
            entry.why = "it is drained".to_owned();
        }
        Change::Replaced(by) => replaced(view, ledger, index, &by),
        Change::Withdraw(why) => end(ledger, index, why),
        Change::Fail(why) => fail(ledger, index, why, now),
        Change::FailAndPause(why) => {
            pause(ledger, &entry, format!("{}: {why}", entry.node), now);
            fail(ledger, index, why, now);
        }
        Change::Pause(why) => {
            pause(ledger, &entry, why, now);
            // What the group is brought to now is another thing; the canary of that will tell whether it can be.
            if super::decide::is_superseded(view, &entry.group, &entry.desired) {
                end(ledger, index, "another image is desired now".to_owned());
            }
        }
    }
}

fn replaced(view: &View, ledger: &mut Ledger, index: usize, by: &str) {
    let entry = ledger.grants[index].clone();
    let successor = view.node(by);
    let name = successor.map_or(by, |node| node.name.as_str());
    let brought = successor.and_then(|node| node.request.as_ref()).and_then(|request| request.desired.clone());
    let desired = brought.filter(|desired| ledger.rollout(&entry.group, desired).is_some());
    let rollout = ledger.rollout_mut(&entry.group, desired.as_deref().unwrap_or(&entry.desired));
    rollout.proven = true;
    rollout.replaced = rollout.replaced.saturating_add(1);
    rollout.failures.retain(|failure| failure.node_uid != entry.node_uid);
    // One replacement stands for one node.
    for other in ledger.grants.iter_mut().filter(|other| other.group == entry.group) {
        other.know(std::iter::once(by));
    }
    end(ledger, index, format!("{name} replaced it"));
}

fn end(ledger: &mut Ledger, index: usize, why: String) {
    let entry = &mut ledger.grants[index];
    entry.phase = Phase::Ending;
    entry.why = why;
}

fn fail(ledger: &mut Ledger, index: usize, why: String, now: Timestamp) {
    let entry = ledger.grants[index].clone();
    let failures = &mut ledger.rollout_mut(&entry.group, &entry.desired).failures;
    let count = failures.iter().find(|known| known.node_uid == entry.node_uid).map_or(0, |known| known.count);
    failures.retain(|known| known.node_uid != entry.node_uid);
    failures.push(NodeFailure {
        node_uid: entry.node_uid,
        node: entry.node,
        count: count.saturating_add(1),
        why: why.clone(),
        at: now,
    });
    if failures.len() > MAX_FAILURES {
        failures.remove(0);
    }
    end(ledger, index, why);
}

fn pause(ledger: &mut Ledger, entry: &Entry, why: String, now: Timestamp) {
    let rollout = ledger.rollout_mut(&entry.group, &entry.desired);
    if rollout.paused.is_none() {
        rollout.paused = Some(Pause { why, at: now });
    }
}
