//! What a node does about its grant: a pure function of what its Node says, so that a restart anywhere goes on from there.

use crate::drain::{END, EXCLUDED_BY, annotation};
use crate::model::cause::Outcome;
use crate::rollout::wire::{Annotation, CORDONED_BY, ENDED, Grant, Progress, State, Step};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

/// What the Node says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// The grant, when it is for this Node and has not ended.
    pub grant: Option<Grant>,
    /// How far we were with it; that of another grant counts for nothing.
    pub progress: Option<Progress>,
    /// Whose cordon, and whose label, are there: grants only.
    pub owners: BTreeSet<String>,
}

impl Seen {
    /// Reads the Node. A progress that cannot be read is none: it is our own word, and written anew.
    ///
    /// # Errors
    /// When there is a grant that cannot be understood: nothing is begun, and nothing taken back.
    pub(super) fn read(name: &str, node: &Value) -> Outcome<Seen> {
        let grant = annotation(node, Grant::KEY).map(|text| Grant::parse(name, text)).transpose()?;
        let uid = node.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let ended = annotation(node, ENDED).and_then(|id| Uuid::try_parse(id).ok());
        let grant = grant.filter(|grant| grant.node_uid == uid && Some(grant.id) != ended);
        let progress = annotation(node, Progress::KEY).and_then(|text| Progress::parse(name, text).ok());
        let progress = progress.filter(|progress| grant.as_ref().is_some_and(|grant| grant.id == progress.id));
        let marks = [CORDONED_BY, EXCLUDED_BY].into_iter().filter_map(|name| annotation(node, name));
        let owners = marks.filter(|by| !by.starts_with(END)).map(str::to_owned).collect();
        Ok(Seen { grant, progress, owners })
    }
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing.
    Nothing,
    /// Cordons of grants that are over are taken back.
    Release,
    /// The drain goes on.
    Drain {
        /// The grant.
        id: Uuid,
        /// When it is given up.
        deadline: Timestamp,
        /// Whether it begins now.
        begins: bool,
    },
    /// It is too late to begin.
    GiveUp {
        /// The grant.
        id: Uuid,
    },
    /// The hook is to run, or runs.
    Hook {
        /// The grant.
        id: Uuid,
        /// Whether it was said already that it runs.
        told: bool,
    },
}

/// Decides. `within` is the longest that a drain may take, `hook` whether this machine replaces itself.
pub(super) fn decide(seen: &Seen, now: Timestamp, within: Duration, hook: bool) -> Act {
    let Some(grant) = &seen.grant else {
        return if seen.owners.is_empty() { Act::Nothing } else { Act::Release };
    };
    let id = grant.id;
    let deadline = |since: Timestamp| {
        let within = SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX);
        // A clock that was turned back does not make it longer.
        grant.deadline.min(since.min(now).saturating_add(within).unwrap_or(Timestamp::MAX))
    };
    match seen.progress.as_ref().map(|progress| (progress.state, progress.at)) {
        None if now >= grant.deadline => Act::GiveUp { id },
        None => Act::Drain { id, deadline: deadline(now), begins: true },
        Some((State::Draining, since)) => Act::Drain { id, deadline: deadline(since), begins: false },
        Some((State::Drained, _)) if hook && grant.step == Step::Replace => Act::Hook { id, told: false },
        Some((State::Replacing, _)) if hook => Act::Hook { id, told: true },
        // The agent died between its word and its deed.
        Some((State::GaveUp, _)) if !seen.owners.is_empty() => Act::Release,
        Some((State::Drained | State::Replacing | State::GaveUp | State::Failed, _)) => Act::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: Uuid = Uuid::from_u128(7);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    fn grant(deadline: i64) -> Grant {
        Grant { schema: 1, id: ID, node_uid: "u".into(), step: Step::Replace, deadline: at(deadline) }
    }

    fn progress(state: State, since: i64) -> Progress {
        Progress { schema: 1, id: ID, state, why: String::new(), at: at(since) }
    }

    fn node(annotations: &Value) -> Value {
        json!({"metadata": {"uid": "u", "annotations": annotations}})
    }

    fn act(step: Step, state: Option<State>, owners: &[&str], hook: bool) -> Act {
        let seen = Seen {
            grant: Some(Grant { step, ..grant(1000) }),
            progress: state.map(|state| progress(state, 0)),
            owners: owners.iter().map(|owner| (*owner).to_owned()).collect(),
        };
        decide(&seen, at(10), Duration::from_secs(100), hook)
    }

    #[test]
    fn a_grant_is_for_this_node_and_ends_once() {
        let text = grant(10).write().expect("JSON");
        let seen = |annotations: Value| Seen::read("n", &node(&annotations)).map(|seen| seen.grant.is_some());
        assert_eq!(seen(json!({"kubestrap.io/grant": text})), Ok(true));
        assert_eq!(seen(json!({})), Ok(false));
        assert_eq!(seen(json!({"kubestrap.io/grant": text.replace("\"u\"", "\"other\"")})), Ok(false));
        assert_eq!(seen(json!({"kubestrap.io/grant": text, "kubestrap.io/grant-ended": ID.to_string()})), Ok(false));
        assert_eq!(seen(json!({"kubestrap.io/grant": text, "kubestrap.io/grant-ended": "another"})), Ok(true));
        for broken in ["{", "", &text.replace("\"schema\":1", "\"schema\":2")] {
            let failure = seen(json!({"kubestrap.io/grant": broken})).expect_err("refused").to_string();
            assert!(failure.contains("kubestrap.io/grant of node n"), "{failure}");
        }
    }

    #[test]
    fn the_progress_of_another_grant_and_a_broken_one_count_for_nothing() {
        let text = grant(10).write().expect("JSON");
        let other = Progress { id: Uuid::from_u128(8), ..progress(State::Drained, 0) }.write().expect("JSON");
        for word in [other.as_str(), "{"] {
            let both = json!({"kubestrap.io/grant": text, "kubestrap.io/grant-progress": word});
            assert_eq!(Seen::read("n", &node(&both)).expect("read").progress, None);
        }
        let own = progress(State::Drained, 0).write().expect("JSON");
        let both = json!({"kubestrap.io/grant": text, "kubestrap.io/grant-progress": own});
        assert!(Seen::read("n", &node(&both)).expect("read").progress.is_some());
    }

    #[test]
    fn what_a_grant_left_is_taken_back_and_nothing_else() {
        let marks = |cordoned: &str, excluded: &str| {
            let marks = json!({"kubestrap.io/cordoned-by": cordoned, "kubestrap.io/excluded-by": excluded});
            decide(&Seen::read("n", &node(&marks)).expect("read"), at(0), Duration::ZERO, false)
        };
        assert_eq!(marks("g1", "g1"), Act::Release);
        assert_eq!(marks("end:spot", "g1"), Act::Release);
        assert_eq!(marks("end:spot", "end:spot"), Act::Nothing);
        let none = Seen::read("n", &node(&json!({}))).expect("read");
        assert_eq!(decide(&none, at(0), Duration::ZERO, true), Act::Nothing);
    }

    #[test]
    fn the_deadline_is_the_nearer_one_and_counts_from_the_first_word() {
        let deadline = |grants: i64, since: Option<i64>, now: i64, within: u64| {
            let progress = since.map(|since| progress(State::Draining, since));
            let seen = Seen { grant: Some(grant(grants)), progress, owners: BTreeSet::new() };
            match decide(&seen, at(now), Duration::from_secs(within), false) {
                Act::Drain { deadline, begins, .. } => Some((deadline, begins)),
                _ => None,
            }
        };
        assert_eq!(deadline(1000, None, 10, 100), Some((at(110), true)));
        assert_eq!(deadline(50, None, 10, 100), Some((at(50), true)));
        assert_eq!(deadline(1000, Some(10), 60, 100), Some((at(110), false)), "a restart does not make it longer");
        assert_eq!(deadline(1000, Some(500), 60, 100), Some((at(160), false)), "nor does a clock turned back");
        assert_eq!(deadline(1000, None, 0, u64::MAX), Some((at(1000), true)));
        // Too late to begin; but what was begun is ended by the drain itself, which sees whether anything is left.
        assert_eq!(deadline(5, None, 5, 100), None);
        assert_eq!(deadline(5, Some(0), 5, 100), Some((at(5), false)));
    }

    #[test]
    fn every_state_has_its_act() {
        let hook = |told| Act::Hook { id: ID, told };
        for (step, state, owners, with_hook, expected) in [
            (Step::Replace, State::Drained, vec!["g"], true, hook(false)),
            (Step::Replace, State::Drained, vec!["g"], false, Act::Nothing),
            (Step::Drain, State::Drained, vec!["g"], true, Act::Nothing),
            (Step::Replace, State::Replacing, vec!["g"], true, hook(true)),
            (Step::Replace, State::Replacing, vec!["g"], false, Act::Nothing),
            (Step::Replace, State::Failed, vec!["g"], true, Act::Nothing),
            (Step::Replace, State::GaveUp, vec!["g"], true, Act::Release),
            (Step::Replace, State::GaveUp, vec![], true, Act::Nothing),
        ] {
            assert_eq!(act(step, Some(state), &owners, with_hook), expected, "{step:?} {state:?} {owners:?}");
        }
        assert_eq!(act(Step::Drain, None, &[], true), Act::Drain { id: ID, deadline: at(110), begins: true });
    }
}
