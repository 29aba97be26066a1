//! How long, and how often, a failure is tried again: pure.

use crate::model::cause::Cause;
use std::time::Duration;

/// First delay after a failure.
const FIRST: Duration = Duration::from_secs(1);
/// Longest delay between two attempts: what a person who has just mended the cause waits at most.
const LONGEST: Duration = Duration::from_secs(30);

/// Exponential delays from 1 s to 30 s; the caller adds jitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { next: FIRST }
    }
}

impl Backoff {
    /// The delay before the next attempt.
    pub fn step(&mut self) -> Duration {
        let now = self.next;
        self.next = (now * 2).min(LONGEST);
        now
    }
}

/// The longest delay after this cause. An API server starts within seconds, and asking it costs little: a node whose
/// machine was rebooted must not wait half a minute for a server that has been up for long.
pub fn longest(cause: Cause) -> Duration {
    match cause {
        Cause::ApiUnavailable => Duration::from_secs(4),
        _ => LONGEST,
    }
}

/// How long this cause is retried, of a step that has `patience` in all: some causes are known not to mend themselves
/// later than that (facts: reliability.md).
pub fn limit(cause: Cause, patience: Duration) -> Duration {
    let minutes = |n: u64| Duration::from_secs(60 * n).min(patience);
    match cause {
        Cause::ClockSkew | Cause::MetadataUnavailable => minutes(5),
        Cause::NoCredentials | Cause::BadCredentials => minutes(10),
        _ => patience,
    }
}

/// Whether a step that failed for so long, of which this cause was the latest for so long, is given up. A cause that has
/// only just appeared gets its own time: a clock that is set while a master waits for another one is no refusal.
pub fn is_over(cause: Cause, patience: Duration, waited: Duration, of_cause: Duration) -> bool {
    waited >= patience || of_cause >= limit(cause, patience)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> = (0..7).map(|_| backoff.step().as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn an_api_server_is_asked_often() {
        assert_eq!(longest(Cause::ApiUnavailable), Duration::from_secs(4));
        assert_eq!(longest(Cause::StoreUnavailable), LONGEST);
    }

    #[test]
    fn a_cause_never_extends_a_steps_patience() {
        let second = Duration::from_secs(1);
        assert_eq!(limit(Cause::ClockSkew, second), second);
        assert_eq!(limit(Cause::ClockSkew, Duration::from_secs(3600)), Duration::from_secs(300));
        assert_eq!(limit(Cause::NoBundle, Duration::from_secs(3600)), Duration::from_secs(3600));
    }

    #[test]
    fn a_cause_that_has_just_appeared_gets_its_own_time() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let over = |waited, of_cause| is_over(Cause::ClockSkew, minutes(60), waited, of_cause);
        assert!(!over(minutes(30), Duration::from_secs(3)));
        assert!(over(minutes(30), minutes(5)) && over(minutes(60), Duration::ZERO));
        assert!(!is_over(Cause::HeldByOther, minutes(60), minutes(59), minutes(59)));
    }
}
