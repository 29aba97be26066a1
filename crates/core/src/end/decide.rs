//! Which of several notices decides, and until when: pure.

use super::events::{Kind, Notice};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// A spot instance is taken back two minutes after its notice.
const SPOT_NOTICE: Duration = Duration::from_secs(120);
/// What is left of it for deletions to reach the containers.
const SPOT_MARGIN: Duration = Duration::from_secs(10);
/// What a node whose clock says that its time is over, and that still runs, gives its pods.
const OVERDUE: Duration = Duration::from_secs(20);
/// A drain for a scheduled event is over this long before the event may begin.
const MAINTENANCE_MARGIN: Duration = Duration::from_secs(60);
/// And it begins this much earlier than it would have to.
const MAINTENANCE_LEAD: Duration = Duration::from_secs(5 * 60);

/// What the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether a rebalance recommendation empties the node.
    pub rebalance: bool,
    /// How long a drain may take where AWS does not say it.
    pub drain_within: Duration,
}

/// What is to be done about a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The notice that decided.
    pub kind: Kind,
    /// For people.
    pub what: String,
    /// When the node must be empty.
    pub deadline: Timestamp,
    /// Whether the instance ends whatever happens: then what is left at the deadline is deleted in spite of budgets.
    /// Otherwise the drain is given up.
    pub hard: bool,
}

/// The notice that decides now; `None` when nothing is to be done, or not yet.
pub fn winner(notices: &[Notice], now: Timestamp, policy: Policy) -> Option<&Notice> {
    notices.iter().filter(|notice| is_due(notice, now, policy)).min_by_key(|notice| (notice.kind, notice.at))
}

/// The plan for the notice that decides.
///
/// `first` is when this life of the agent saw it first. `known` is the deadline that an earlier life wrote down for the
/// same kind: a restart must not give the drain more time.
pub fn plan(notice: &Notice, first: Timestamp, known: Option<Timestamp>, policy: Policy) -> Plan {
    let by_restarts = |deadline: Timestamp| known.map_or(deadline, |known| known.min(deadline));
    let within = policy.drain_within;
    let deadline = match (notice.kind, notice.at) {
        (Kind::Spot, Some(at)) if at > first => {
            // A clock that is behind must not believe that there is more time than AWS gives.
            by_restarts(earlier(at.min(later(first, SPOT_NOTICE)), SPOT_MARGIN)).max(first)
        }
        (Kind::Spot, _) => by_restarts(later(first, OVERDUE)),
        (Kind::Maintenance, Some(at)) if at > first => earlier(at, MAINTENANCE_MARGIN).max(first),
        (Kind::Rebalance, Some(at)) => later(at, within),
        (Kind::Termination | Kind::Maintenance | Kind::Rebalance, _) => by_restarts(later(first, within)),
    };
    Plan { kind: notice.kind, what: notice.what.clone(), deadline, hard: notice.kind != Kind::Rebalance }
}

fn is_due(notice: &Notice, now: Timestamp, policy: Policy) -> bool {
    match (notice.kind, notice.at) {
        (Kind::Maintenance, Some(at)) => now >= earlier(at, policy.drain_within + MAINTENANCE_LEAD),
        (Kind::Rebalance, _) => policy.rebalance,
        (Kind::Spot | Kind::Termination | Kind::Maintenance, _) => true,
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}

fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_sub(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: i64 = 60;
    const POLICY: Policy = Policy { rebalance: true, drain_within: Duration::from_secs(15 * 60) };

    /// Seconds after an arbitrary moment.
    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("time")
    }

    fn notice(kind: Kind, when: Option<i64>) -> Notice {
        Notice { kind, what: kind.to_string(), at: when.map(at) }
    }

    #[test]
    fn the_most_urgent_notice_that_is_due_decides() {
        let spot = notice(Kind::Spot, Some(100));
        let termination = notice(Kind::Termination, None);
        let rebalance = notice(Kind::Rebalance, Some(-50));
        let soon = notice(Kind::Maintenance, Some(20 * MINUTE));
        let sooner = notice(Kind::Maintenance, Some(-1));
        let far = notice(Kind::Maintenance, Some(20 * MINUTE + 1));
        let quiet = Policy { rebalance: false, ..POLICY };
        let cases: &[(&[&Notice], Policy, Option<&Notice>)] = &[
            (&[], POLICY, None),
            (&[&rebalance, &termination, &spot, &soon], POLICY, Some(&spot)),
            (&[&rebalance, &soon, &termination], POLICY, Some(&termination)),
            (&[&rebalance, &soon], POLICY, Some(&soon)),
            (&[&soon, &sooner], POLICY, Some(&sooner)),
            (&[&rebalance, &far], POLICY, Some(&rebalance)),
            (&[&rebalance, &far], quiet, None),
            (&[&rebalance, &spot], quiet, Some(&spot)),
        ];
        for (given, policy, expected) in cases {
            let mut notices: Vec<Notice> = given.iter().copied().cloned().collect();
            assert_eq!(winner(&notices, at(0), *policy), *expected, "{given:?}");
            notices.reverse();
            assert_eq!(winner(&notices, at(0), *policy), *expected, "{given:?} reversed");
        }
    }

    #[test]
    fn every_event_has_its_deadline() {
        type Case = (Kind, Option<i64>, Option<i64>, i64, bool);
        // (what, takes effect, an earlier life's deadline) and then deadline and hardness, seen at 0.
        let cases: &[Case] = &[
            (Kind::Spot, Some(120), None, 110, true),
            (Kind::Spot, Some(60), None, 50, true),
            (Kind::Spot, Some(60), Some(30), 30, true),
            (Kind::Spot, Some(60), Some(90), 50, true),
            // A clock that is behind, and one that is ahead.
            (Kind::Spot, Some(3600), None, 110, true),
            (Kind::Spot, Some(-3600), None, 20, true),
            (Kind::Spot, Some(-3600), Some(7), 7, true),
            // Ten seconds before its end: at once.
            (Kind::Spot, Some(4), None, 0, true),
            (Kind::Termination, None, None, 15 * MINUTE, true),
            (Kind::Termination, None, Some(3 * MINUTE), 3 * MINUTE, true),
            (Kind::Termination, None, Some(30 * MINUTE), 15 * MINUTE, true),
            (Kind::Maintenance, Some(20 * MINUTE), None, 19 * MINUTE, true),
            (Kind::Maintenance, Some(30), None, 0, true),
            (Kind::Maintenance, Some(-30), None, 15 * MINUTE, true),
            (Kind::Maintenance, Some(-30), Some(2), 2, true),
            (Kind::Rebalance, Some(-MINUTE), None, 14 * MINUTE, false),
            (Kind::Rebalance, Some(-60 * MINUTE), None, -45 * MINUTE, false),
        ];
        for (kind, when, known, deadline, hard) in cases {
            let plan = plan(&notice(*kind, *when), at(0), known.map(at), POLICY);
            assert_eq!((plan.deadline, plan.hard), (at(*deadline), *hard), "{kind} at {when:?}, known {known:?}");
        }
    }

    fn any_notice() -> impl Strategy<Value = Notice> {
        (0usize..4, -10_000i64..10_000).prop_map(|(kind, when)| {
            let kind = Kind::ALL[kind];
            notice(kind, (kind != Kind::Termination).then_some(when))
        })
    }

    proptest! {
        #[test]
        fn a_restart_never_gives_more_time(notice in any_notice(), first in -500i64..500, restart in 0i64..2000) {
            let one = plan(&notice, at(first), None, POLICY);
            let again = plan(&notice, at(first + restart), Some(one.deadline), POLICY);
            // But a life that begins after the deadline has what is left to do.
            prop_assert!(again.deadline <= one.deadline.max(at(first + restart)), "{one:?} {again:?}");
        }

        #[test]
        fn a_spot_drain_ends_within_two_minutes_of_its_notice(when in -10_000i64..10_000, first in -500i64..500) {
            let plan = plan(&notice(Kind::Spot, Some(when)), at(first), None, POLICY);
            prop_assert!(plan.hard && plan.deadline >= at(first) && plan.deadline <= at(first + 110));
            prop_assert!(when <= first || plan.deadline < at(when));
        }

        #[test]
        fn nothing_less_urgent_changes_the_winner(one in any_notice(), others in prop::collection::vec(any_notice(), 0..5)) {
            let now = at(0);
            let mut all = others.clone();
            all.push(one);
            if let Some(won) = winner(&all, now, POLICY) {
                let best = all.iter().filter(|n| winner(&[(*n).clone()], now, POLICY).is_some()).map(|n| n.kind).min();
                prop_assert_eq!(Some(won.kind), best);
            }
        }
    }
}
