//! What to do about certificates: pure.

use crate::journal::{Entry, Line, last_attempt};
use crate::kubeadm::certificates::Leaf;
use crate::model::cause::{Cause, Failure};
use jiff::Timestamp;

/// How far a renewal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The certificates may be old, new, or some of each.
    Began {
        /// One had ended when it began.
        expired: bool,
    },
    /// They are new; the static pods may use old ones.
    Renewed {
        /// Likewise.
        expired: bool,
    },
}

/// What the journal knows of renewals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Past {
    /// `None`: none has begun, or the last one ended.
    pub stage: Option<Stage>,
    /// Every certificate was made after this.
    pub made_after: Timestamp,
}

impl Past {
    /// `None` on a machine that is no master.
    pub fn of(lines: &[Line]) -> Option<Past> {
        let attempt = last_attempt(lines).filter(|attempt| attempt.master_of().is_some())?;
        let mut past = Past { stage: None, made_after: Timestamp::MIN };
        let mut began = None;
        for line in lines.iter().filter(|line| line.attempt == attempt.id) {
            match (&line.entry, past.stage) {
                (Entry::Began { .. }, _) => past = Past { stage: None, made_after: line.at },
                (Entry::RenewalBegan { expired }, _) => {
                    past.stage = Some(Stage::Began { expired: *expired });
                    began = Some(line.at);
                }
                (Entry::CertificatesRenewed { all }, Some(Stage::Began { expired } | Stage::Renewed { expired })) => {
                    past.stage = Some(Stage::Renewed { expired });
                    past.made_after = began.filter(|_| *all).unwrap_or(past.made_after);
                }
                (Entry::RenewalEnded, _) => past.stage = None,
                _ => {}
            }
        }
        Some(past)
    }
}

/// A static pod of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pod {
    /// Its manifest names the new certificates.
    pub has: bool,
    /// And so does the pod that runs, which is Ready.
    pub is_up: bool,
}

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// This pod is started anew.
    Restart(usize),
    /// This pod is awaited; `None`: the API server.
    Await(Option<usize>),
    /// Nothing is left.
    End,
}

/// One after another, each when those before it are up; all at once when their certificates had `expired`, for then none of
/// them works before the others do.
pub(super) fn next(pods: &[Pod], is_ready: bool, our_turn: bool, expired: bool) -> Act {
    if expired && let Some(index) = pods.iter().position(|pod| !pod.has) {
        return Act::Restart(index);
    }
    match pods.iter().position(|pod| !pod.has || !pod.is_up) {
        Some(index) if pods[index].has => Act::Await(Some(index)),
        Some(index) if is_ready && our_turn => Act::Restart(index),
        Some(_) => Act::Await(None),
        None if is_ready && our_turn => Act::End,
        None => Act::Await(None),
    }
}

/// What was due and could not be renewed.
pub(super) fn left_over(left: &[&Leaf]) -> Failure {
    let paths: Vec<&str> = left.iter().map(|leaf| leaf.path).collect();
    let ends = left.iter().map(|leaf| leaf.ends).min().unwrap_or(Timestamp::MAX);
    let attempted = format!("renew {}", paths.join(", "));
    match left.iter().find_map(|leaf| leaf.missing_key) {
        Some(key) => Failure::new(Cause::FileAccess, attempted, format!("{key} is not on this machine, and the first ends at {ends}"))
            .advise("renew them where that authority is, put them here, and restart the static pods; it is tried again in a day"),
        None => Failure::new(Cause::ToolFailed, attempted, format!("`kubeadm certs renew all` ended well, and the first still ends at {ends}"))
            .advise("look at `kubeadm certs check-expiration`, and at the life of the authorities; it is tried again in a day"),
    }
}

/// Ready conditions of Nodes and Pods.
pub(super) mod ready_nodes {
    use serde_json::Value;

    /// Whether the condition Ready is True.
    pub fn is_ready(object: &Value) -> bool {
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        let of = |condition: &Value, key: &str| condition.get(key).and_then(Value::as_str).map(str::to_owned);
        conditions.is_some_and(|all| {
            all.iter()
                .any(|it| of(it, "type").as_deref() == Some("Ready") && of(it, "status").as_deref() == Some("True"))
        })
    }

    /// Names of the Nodes that are not, but for this one.
    pub fn not_ready(list: &Value, own: &str) -> Vec<String> {
        let items = list.get("items").and_then(Value::as_array);
        let name = |node: &Value| node.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
        let away = items.into_iter().flatten().filter(|node| !is_ready(node)).filter_map(name);
        away.filter(|name| name != own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::AttemptKind;
    use crate::store::fake::ca;
    use uuid::Uuid;

    fn at(second: i64, entry: Entry) -> Line {
        let at = Timestamp::from_second(second).expect("a time");
        Line { schema: 1, at, attempt: Uuid::from_u128(1), entry }
    }

    fn master() -> Vec<Line> {
        let kind = AttemptKind::ControlPlane;
        let uid = Uuid::from_u128(9);
        vec![at(10, Entry::Began { kind, uid, machine_was_clean: true }), at(20, Entry::Joined { ca: ca(1) })]
    }

    fn past(more: &[(i64, Entry)]) -> Option<(Option<Stage>, i64)> {
        let mut lines = master();
        lines.extend(more.iter().map(|(second, entry)| at(*second, entry.clone())));
        Past::of(&lines).map(|past| (past.stage, past.made_after.as_second()))
    }

    #[test]
    fn the_journal_tells_how_far_a_renewal_is() {
        let began = || (30, Entry::RenewalBegan { expired: false });
        let renewed = || (40, Entry::CertificatesRenewed { all: true });
        let by_half = || (40, Entry::CertificatesRenewed { all: false });
        let ended = || (50, Entry::RenewalEnded);
        assert_eq!(past(&[]), Some((None, 10)));
        assert_eq!(past(&[began()]), Some((Some(Stage::Began { expired: false }), 10)));
        assert_eq!(past(&[began(), renewed()]), Some((Some(Stage::Renewed { expired: false }), 30)));
        assert_eq!(past(&[began(), renewed(), ended()]), Some((None, 30)));
        assert_eq!(past(&[began(), by_half(), ended()]), Some((None, 10)), "some are older");
        assert_eq!(past(&[began(), renewed(), ended(), began()]), Some((Some(Stage::Began { expired: false }), 30)));
        // Power was lost between two lines of which only the latter is left: nothing is renewed on its strength.
        assert_eq!(past(&[renewed()]), Some((None, 10)));
        assert_eq!(past(&[(30, Entry::Abandoned)]), None);
        assert_eq!(Past::of(&master()[..1]), None, "it has not joined yet");
        assert_eq!(Past::of(&[]), None);
    }

    #[test]
    fn pods_are_restarted_one_after_another_in_our_turn() {
        const OLD: Pod = Pod { has: false, is_up: false };
        const NEW: Pod = Pod { has: true, is_up: false };
        const UP: Pod = Pod { has: true, is_up: true };
        let table: &[(&[Pod], bool, bool, bool, Act)] = &[
            (&[OLD, OLD], true, true, false, Act::Restart(0)),
            (&[OLD, OLD], false, true, false, Act::Await(None)),
            (&[OLD, OLD], true, false, false, Act::Await(None)),
            (&[NEW, OLD], true, true, false, Act::Await(Some(0))),
            (&[UP, OLD], true, true, false, Act::Restart(1)),
            (&[UP, OLD], false, true, false, Act::Await(None)),
            (&[UP, NEW], true, true, false, Act::Await(Some(1))),
            (&[UP, UP], true, true, false, Act::End),
            (&[UP, UP], false, true, false, Act::Await(None)),
            (&[UP, UP], true, false, false, Act::Await(None)),
            (&[], true, true, false, Act::End),
            (&[OLD, OLD], false, true, true, Act::Restart(0)),
            (&[NEW, OLD], false, true, true, Act::Restart(1)),
            (&[UP, UP], false, true, true, Act::Await(None)),
            (&[UP, UP], true, true, true, Act::End),
        ];
        for (pods, is_ready, our_turn, expired, expected) in table {
            let found = next(pods, *is_ready, *our_turn, *expired);
            assert_eq!(found, *expected, "{pods:?} ready={is_ready} turn={our_turn} expired={expired}");
        }
    }
}
