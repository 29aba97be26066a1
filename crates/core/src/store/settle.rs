//! Lost answers are settled here: read back, compare with what only this writer could have written, repeat.

use super::Store;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::ports::{Condition, Deleted, ETag, Fetched, Object, Written};
use std::time::Duration;

/// Writes and read-backs before the caller is told that nobody knows; with the pauses below some six seconds when the
/// store answers at once. The caller's own patience is much longer, and everything here may be called again.
pub(super) const TRIES: u32 = 6;
/// The pause before the second try; doubled each time. A write that is late usually lands within it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A conditional write, and how to know it again.
pub(super) struct Intent<'a> {
    /// Where.
    pub key: &'a str,
    /// What.
    pub body: Vec<u8>,
    /// Over which version.
    pub condition: Condition,
    /// Whether content is there only because this write, or an earlier one with the same meaning, took effect.
    pub mine: &'a dyn Fn(&Object) -> bool,
    /// Whether content is what this write may go over although its version is another one.
    pub before: &'a dyn Fn(&Object) -> bool,
}

/// How a write ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The store accepted it.
    Stored(ETag),
    /// It was read back: it had taken effect.
    Found(Object),
    /// Something else is there, or nothing where a version was to be replaced. This write has no effect any more, also
    /// when it lands late, for its condition does not hold.
    Other(Option<Object>),
}

/// Where a write stands, as read back.
enum Standing {
    Mine(Object),
    Before(Condition),
    Other(Option<Object>),
}

impl Intent<'_> {
    fn standing(&self, condition: &Condition, object: Option<Object>) -> Standing {
        match object {
            None if *condition == Condition::Absent => Standing::Before(Condition::Absent),
            None => Standing::Other(None),
            Some(object) if (self.mine)(&object) => Standing::Mine(object),
            Some(object) if *condition == Condition::Matches(object.etag.clone()) || (self.before)(&object) => {
                Standing::Before(Condition::Matches(object.etag))
            }
            Some(object) => Standing::Other(Some(object)),
        }
    }
}

impl Store {
    /// Carries out a conditional write to a known end.
    ///
    /// A refusal is read back too: the write may be our own, refused because it had taken effect before. Errors: what
    /// the port says of a write that certainly had no effect, and a transient one when the store does not tell in time.
    pub(super) async fn settle(&self, intent: Intent<'_>) -> Outcome<Settled> {
        let mut condition = intent.condition.clone();
        let mut write = true;
        let mut doubt = None;
        for round in 0..TRIES {
            if round > 0 {
                self.pause(pause_before(round)).await;
            }
            if write {
                match self.objects.put(intent.key, intent.body.clone(), condition.clone()).await? {
                    Written::Stored(etag) => return Ok(Settled::Stored(etag)),
                    Written::Refused => {}
                    Written::Unknown(failure) => doubt = Some(failure),
                }
            }
            match self.peek(intent.key).await {
                Ok(object) => match intent.standing(&condition, object) {
                    Standing::Mine(object) => return Ok(Settled::Found(object)),
                    Standing::Other(object) => return Ok(Settled::Other(object)),
                    Standing::Before(again) => (condition, write) = (again, true),
                },
                // Who may write and not read does not learn more by asking again at once.
                Err(failure) if failure.cause == Cause::AccessDenied => return Err(failure),
                Err(failure) if failure.is_transient() => (doubt, write) = (Some(failure), false),
                Err(failure) => return Err(failure),
            }
        }
        Err(unsettled("write", intent.key, doubt))
    }

    /// Deletes that version; whether the object is gone (`false`: another version is there).
    pub(super) async fn remove(&self, key: &str, version: &ETag) -> Outcome<bool> {
        let mut doubt = None;
        for round in 0..TRIES {
            if round > 0 {
                self.pause(pause_before(round)).await;
            }
            match self.objects.delete(key, version).await? {
                Deleted::Done => return Ok(true),
                Deleted::Refused => {}
                Deleted::Unknown(failure) => doubt = Some(failure),
            }
            match self.peek(key).await {
                Ok(None) => return Ok(true),
                Ok(Some(object)) if object.etag == *version => {}
                Ok(Some(_)) => return Ok(false),
                Err(failure) if failure.is_transient() => doubt = Some(failure),
                Err(failure) => return Err(failure),
            }
        }
        Err(unsettled("delete", key, doubt))
    }

    /// One object; `None` when there is none.
    pub(super) async fn peek(&self, key: &str) -> Outcome<Option<Object>> {
        match self.get(key, None).await?.fetched {
            Fetched::Found(object) => Ok(Some(object)),
            Fetched::Absent => Ok(None),
            Fetched::Unchanged => {
                let why = "the store says \"unchanged\" and was not asked that";
                Err(Failure::new(Cause::StoreUnavailable, format!("read {key}"), why))
            }
        }
    }
}

pub(super) fn pause_before(round: u32) -> Duration {
    LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.pow(round.saturating_sub(1).min(8)))
}

/// What the caller is told when nobody knows.
pub(super) fn unsettled(verb: &str, key: &str, doubt: Option<Failure>) -> Failure {
    let attempted = format!("{verb} {key}");
    match doubt {
        Some(last) => Failure {
            attempted,
            detail: format!("the store did not say in {TRIES} tries whether it took effect; last: {}", last.detail),
            ..last
        },
        None => {
            let why = format!("the store refused it {TRIES} times although its condition held");
            Failure::new(Cause::StoreUnavailable, attempted, why)
        }
    }
}
