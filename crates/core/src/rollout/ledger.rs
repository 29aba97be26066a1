//! The ledger: which grants are open and how the rollouts fare. It is the truth, in one ConfigMap, and is changed only
//! over the version that was read; what is on Nodes are copies.

use super::wire::{self, Step};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::plain::is_plain;
use crate::store::fields;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

/// For people: which object it is.
pub const TITLE: &str = "ledger.json of ConfigMap kube-system/kubestrap-rollout";
/// The largest ledger, in bytes; what would not fit is not granted.
pub const MAX_LEDGER: usize = 64 * 1024;
/// As many rollouts are remembered.
pub const MAX_ROLLOUTS: usize = 100;
/// As many nodes that failed are remembered of a rollout.
pub const MAX_FAILURES: usize = 100;

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// [`wire::SCHEMA`].
    pub schema: u32,
    /// Grants that count, oldest first.
    pub grants: Vec<Entry>,
    /// What is known of a group and the image it is being brought to.
    pub rollouts: Vec<Rollout>,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger { schema: wire::SCHEMA, grants: Vec::new(), rollouts: Vec::new() }
    }
}

/// Where a grant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The node may drain itself.
    Granted,
    /// It is drained; it may be replaced, and a replacement is waited for.
    Replacing,
    /// It is over; the copy on the Node must be taken away before it stops counting.
    Ending,
}

impl Phase {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Granted => "granted",
            Phase::Replacing => "replacing",
            Phase::Ending => "ending",
        }
    }
}

/// A grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id; also in the copy on the Node.
    pub id: Uuid,
    /// The Node's name.
    pub node: String,
    /// The Node's uid.
    pub node_uid: String,
    /// `i-…` on EC2, by the Node's providerID.
    pub instance: Option<String>,
    /// The group in which a replacement is expected.
    pub group: String,
    /// What the group is being brought to; empty when it has no name (drift of the content).
    pub desired: String,
    /// The image the node ran when it was granted.
    pub running: Option<String>,
    /// Whether it is a master.
    pub master: bool,
    /// How far it goes.
    pub step: Step,
    /// Where it stands.
    pub phase: Phase,
    /// When the drain is given up.
    pub deadline: Timestamp,
    /// When it was granted, by the clock of the arbiter of then: for people.
    pub granted_at: Timestamp,
    /// Nodes of the group that were there already and so replace nobody: the first eight characters of their uids.
    pub before: String,
    /// How it stands or ended, for people.
    pub why: String,
}

/// The first eight characters of a uid: enough to tell a few thousand apart, and an error only delays.
const SHORT: usize = 8;

impl Entry {
    /// Whether the Node of this uid was there already.
    pub fn knew(&self, uid: &str) -> bool {
        let short = short(uid);
        self.before.as_bytes().chunks(SHORT).any(|known| known == short.as_bytes())
    }

    /// Remembers Nodes that were there already.
    pub fn know<'a>(&mut self, uids: impl Iterator<Item = &'a str>) {
        let all: BTreeSet<String> = uids.map(short).collect();
        for uid in all {
            if !self.before.as_bytes().chunks(SHORT).any(|known| known == uid.as_bytes()) {
                self.before.push_str(&uid);
            }
        }
    }
}

fn short(uid: &str) -> String {
    let mut text: String = uid.chars().filter(char::is_ascii_alphanumeric).take(SHORT).collect();
    while text.len() < SHORT {
        text.push('-');
    }
    text
}

/// A group and the image it is being brought to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The group.
    pub group: String,
    /// The image; empty for drift of the content.
    pub desired: String,
    /// Whether a first replacement was Ready for long enough: until then there is one grant only, the canary.
    pub proven: bool,
    /// As many nodes were replaced.
    pub replaced: u32,
    /// Nothing is granted until an operator resumes it, or another image is desired.
    pub paused: Option<Pause>,
    /// Why nothing is granted now; it ends by itself when the reason does.
    pub refused: Option<String>,
    /// Nodes whose grant ended without a replacement.
    pub failures: Vec<NodeFailure>,
}

/// Why a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// For people.
    pub why: String,
    /// By the clock of the arbiter of then: for people.
    pub at: Timestamp,
}

/// A node whose grant ended without a replacement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFailure {
    /// Its uid.
    pub node_uid: String,
    /// Its name.
    pub node: String,
    /// How often.
    pub count: u32,
    /// The last reason.
    pub why: String,
    /// When, by the clock of the arbiter of then: it delays the next try.
    pub at: Timestamp,
}

impl Ledger {
    /// Reads a ledger. One that a person broke is refused as a whole, with the place (`ObjectRejected`): nothing is
    /// granted, and nothing is written over it, until it is mended.
    pub fn parse(text: &str) -> Outcome<Ledger> {
        let advice = "mend it with `kubectl -n kube-system edit configmap kubestrap-rollout`, or delete that ConfigMap when \
                      no node is being replaced; nothing is granted until then";
        let wrong = |why: String| Failure::new(Cause::ObjectRejected, format!("read {TITLE}"), why).advise(advice);
        fields(TITLE, text.as_bytes()).map_err(|failure| failure.advise(advice))?;
        // Once more from the text, for the line and the column of what is wrong.
        let ledger: Ledger = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        match ledger.fault() {
            None => Ok(ledger),
            Some(fault) => Err(wrong(fault)),
        }
    }

    /// Its text, or a failure when it does not fit.
    pub fn write(&self) -> Outcome<String> {
        let failed = |why: String| Failure::new(Cause::Internal, format!("write {TITLE}"), why);
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(error.to_string()))?;
        if text.len() > MAX_LEDGER { Err(failed(format!("it has {} bytes", text.len()))) } else { Ok(text) }
    }

    /// What makes it impossible to act on, with its place.
    fn fault(&self) -> Option<String> {
        let mut seen = BTreeSet::new();
        for (index, entry) in self.grants.iter().enumerate() {
            let place = format!("grants[{index}] (node {})", entry.node);
            if !seen.insert(entry.id.to_string()) {
                return Some(format!("{place} has the id of another one"));
            }
            if !seen.insert(entry.node_uid.clone()) {
                return Some(format!("{place} is a second grant of one node"));
            }
            let texts = [&entry.node, &entry.node_uid, &entry.group, &entry.desired];
            if entry.node.is_empty() || entry.node_uid.is_empty() || !texts.iter().all(|text| is_name(text)) {
                return Some(format!("{place} has a name that is empty, too long, or cannot be shown"));
            }
            if self.rollout(&entry.group, &entry.desired).is_none() {
                return Some(format!(
                    "{place} belongs to group {:?} and image {:?}, which `rollouts` does not have",
                    entry.group, entry.desired
                ));
            }
        }
        let mut pairs = BTreeSet::new();
        for (index, rollout) in self.rollouts.iter().enumerate() {
            if !pairs.insert((&rollout.group, &rollout.desired)) {
                return Some(format!("rollouts[{index}] is there twice"));
            }
        }
        (self.rollouts.len() > MAX_ROLLOUTS).then(|| format!("it has more than {MAX_ROLLOUTS} rollouts"))
    }

    /// The rollout of a group to an image.
    pub fn rollout(&self, group: &str, desired: &str) -> Option<&Rollout> {
        self.rollouts.iter().find(|known| known.group == group && known.desired == desired)
    }

    /// The same to change it; a new one when there is none.
    pub fn rollout_mut(&mut self, group: &str, desired: &str) -> &mut Rollout {
        let known = self.rollouts.iter().position(|known| known.group == group && known.desired == desired);
        let index = known.unwrap_or_else(|| {
            self.rollouts.push(Rollout {
                group: group.to_owned(),
                desired: desired.to_owned(),
                proven: false,
                replaced: 0,
                paused: None,
                refused: None,
                failures: Vec::new(),
            });
            self.rollouts.len() - 1
        });
        &mut self.rollouts[index]
    }

    /// An operator's word: paused rollouts of the group (of all, when none is named) go on with a new canary, and their
    /// grants that wait for a replacement end. What was resumed, for people.
    pub fn resume(&mut self, group: Option<&str>) -> Vec<String> {
        let mut resumed = Vec::new();
        for rollout in self.rollouts.iter_mut().filter(|known| group.is_none_or(|group| group == known.group)) {
            let Some(pause) = rollout.paused.take() else { continue };
            rollout.proven = false;
            rollout.failures.clear();
            resumed.push(format!(
                "group {} to {}, which stood because {}",
                rollout.group,
                image(&rollout.desired),
                pause.why
            ));
            for entry in &mut self.grants {
                if entry.group == rollout.group && entry.desired == rollout.desired && entry.phase == Phase::Replacing {
                    entry.phase = Phase::Ending;
                    entry.why = "an operator resumed the rollout".to_owned();
                }
            }
        }
        resumed
    }

    /// An operator's word that the machine of a grant will not come back; `false` when it has no grant.
    pub fn release(&mut self, node: &str) -> bool {
        let entry = self.grants.iter_mut().find(|entry| entry.node == node && entry.phase != Phase::Ending);
        let Some(entry) = entry else { return false };
        entry.phase = Phase::Ending;
        entry.why = "an operator released it".to_owned();
        true
    }
}

/// An image for people.
pub fn image(desired: &str) -> &str {
    if desired.is_empty() { "its bake manifest" } else { desired }
}

fn is_name(text: &str) -> bool {
    text.len() <= 256 && text.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn entry(n: u128) -> Entry {
        Entry {
            id: Uuid::from_u128(n),
            node: format!("n{n}"),
            node_uid: format!("{n:08}-uid"),
            instance: None,
            group: "g".into(),
            desired: "ami-2".into(),
            running: None,
            master: false,
            step: Step::Replace,
            phase: Phase::Replacing,
            deadline: Timestamp::UNIX_EPOCH,
            granted_at: Timestamp::UNIX_EPOCH,
            before: String::new(),
            why: String::new(),
        }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger { grants: vec![entry(1), entry(2)], ..Ledger::default() };
        ledger.rollout_mut("g", "ami-2").replaced = 3;
        ledger
    }

    fn edited(pointer: &str, value: Value) -> Outcome<Ledger> {
        let mut object = serde_json::to_value(ledger()).expect("JSON");
        *object.pointer_mut(pointer).expect(pointer) = value;
        Ledger::parse(&serde_json::to_string_pretty(&object).expect("text"))
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        assert_eq!(Ledger::parse(&ledger().write().expect("text")), Ok(ledger()));
        assert_eq!(Ledger::parse(&Ledger::default().write().expect("text")), Ok(Ledger::default()));
    }

    #[test]
    fn a_ledger_edited_by_hand_is_refused_with_the_place() {
        for (pointer, value, place) in [
            ("/schema", json!(2), "schema is 2"),
            ("/grants/1/phase", json!("done"), "line "),
            ("/grants/1/id", json!("x"), "line "),
            ("/grants/1/id", json!(Uuid::from_u128(1)), "grants[1] (node n2) has the id"),
            ("/grants/1/node_uid", json!("00000001-uid"), "grants[1] (node n2) is a second grant"),
            ("/grants/0/node", json!(""), "grants[0]"),
            ("/grants/0/group", json!("other"), "grants[0] (node n1) belongs to group \"other\""),
            ("/rollouts/0/replaced", json!(-1), "line "),
            ("/rollouts", json!([]), "grants[0]"),
        ] {
            let failure = edited(pointer, value).expect_err(pointer);
            assert_eq!(failure.cause, Cause::ObjectRejected);
            assert!(failure.detail.contains(place), "{pointer}: {failure}");
            assert!(failure.to_string().contains("kubectl -n kube-system edit configmap"), "{failure}");
        }
        let text = ledger().write().expect("text");
        for broken in ["", "{", &text[..text.len() / 2], &" ".repeat(MAX_LEDGER + 1)] {
            assert!(Ledger::parse(broken).is_err());
        }
    }

    #[test]
    fn its_size_is_bounded() {
        let mut ledger = ledger();
        let uids: Vec<String> = (0..9000).map(|n| format!("{n:08}-1111")).collect();
        ledger.grants[0].know(uids.iter().take(5000).map(String::as_str));
        let text = ledger.write().expect("5000 nodes fit");
        assert!(Ledger::parse(&text).is_ok_and(|read| read.grants[0].knew("00004999-2222")));
        assert!(!ledger.grants[0].knew("00005000-1111"));
        ledger.grants[0].know(uids.iter().map(String::as_str));
        assert!(ledger.write().is_err());
    }

    #[test]
    fn known_nodes_are_known_by_their_uid_whole_and_once() {
        let mut entry = entry(1);
        entry.know(["abcdefgh-1", "bcdefgha-1", "x"].into_iter());
        let size = entry.before.len();
        entry.know(["abcdefgh-1"].into_iter());
        assert_eq!(entry.before.len(), size);
        assert!(entry.knew("abcdefgh-1") && entry.knew("x") && !entry.knew("efghbcde-1"));
    }

    #[test]
    fn an_operator_resumes_what_stands_and_nothing_else() {
        let unpaused = ledger();
        let mut ledger = unpaused.clone();
        assert_eq!(ledger.resume(None), Vec::<String>::new());
        assert_eq!(ledger, unpaused);
        let rollout = ledger.rollout_mut("g", "ami-2");
        rollout.paused = Some(Pause { why: "no successor".into(), at: Timestamp::UNIX_EPOCH });
        rollout.proven = true;
        assert_eq!(ledger.resume(Some("other")), Vec::<String>::new());
        assert_eq!(ledger.resume(Some("g")).len(), 1);
        assert!(ledger.rollouts[0].paused.is_none() && !ledger.rollouts[0].proven);
        assert!(ledger.grants.iter().all(|entry| entry.phase == Phase::Ending));
        assert!(!ledger.release("n1") && !ledger.release("n9"));
    }
}
