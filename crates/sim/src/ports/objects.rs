//! The object store as one machine sees it: over a network that loses, delays and refuses.

use super::Desk;
use crate::faults::Fault;
use crate::network::{Far, Way};
use crate::store::{Effect, Writer};
use crate::timeline::Answer;
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::identity::Role;
use kubestrap_core::ports::{
    Condition, Deleted, ETag, ExpiryRule, Fetched, KeyPage, Object, Objects, Reading, Written,
};
use std::fmt;
use std::time::Duration;

/// A change of the store, for people.
struct Change<'a> {
    verb: &'a str,
    key: &'a str,
    condition: &'a Condition,
    effect: &'a Effect,
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.verb, self.key)?;
        match self.condition {
            Condition::Absent => write!(f, "if absent: ")?,
            Condition::Matches(etag) => write!(f, "over {}: ", etag.0)?,
        }
        match self.effect {
            Effect::Done(Some(etag)) => write!(f, "stored {}", etag.0),
            Effect::Done(None) => write!(f, "deleted"),
            Effect::Refused => write!(f, "refused"),
        }
    }
}

/// What becomes of one conditional write, and what its sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It arrives and is answered.
    Well,
    /// It does not arrive (or is not carried out), and the sender is told this.
    Lost(Told),
    /// It arrives, and the sender is told this all the same.
    Done(Told),
    /// The sender is told that nobody knows; it lands after this long, whatever has become of the sender.
    Late(Duration),
    /// It arrives (or not), and no answer comes at all.
    Silent(bool),
}

/// What a sender is told instead of the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The connection broke.
    Broken,
    /// `503 SlowDown`.
    SlowDown,
    /// `409 ConditionalRequestConflict`.
    Conflict,
    /// `412`, of one's own write that a proxy repeated.
    Refused,
    /// `403`.
    Denied,
    /// `403 RequestTimeTooSkewed`: S3 refuses requests that are more than 15 minutes off.
    TooSkewed,
}

/// A fate; whether the write was done is decided by a coin where that is open.
type MakeFate = fn(bool) -> Fate;

/// S3 refuses signatures that are older, or newer, than this.
const SIGNATURE_LIFE: SignedDuration = SignedDuration::from_mins(15);

impl Told {
    fn failure(self, attempted: String) -> Failure {
        let (cause, why) = match self {
            Told::Broken => (Cause::StoreUnavailable, "the connection broke"),
            Told::SlowDown => (Cause::Throttled, "503 SlowDown"),
            Told::Conflict => (Cause::StoreUnavailable, "409 ConditionalRequestConflict"),
            Told::Refused => (Cause::StoreUnavailable, "412 PreconditionFailed"),
            Told::Denied => (Cause::AccessDenied, "403 AccessDenied"),
            Told::TooSkewed => (Cause::ClockSkew, "403 RequestTimeTooSkewed"),
        };
        Failure::new(cause, attempted, why)
    }
}

impl Desk {
    fn fate(&self) -> Fate {
        let universe = &self.universe;
        if let Some(delay) = universe.deaths.borrow_mut().take_late() {
            return Fate::Late(delay);
        }
        match self.way(Far::Store) {
            Way::Shut => {
                universe.count("request-lost-in-cut");
                return Fate::Silent(false);
            }
            Way::Deaf => {
                universe.count("answer-lost-in-cut");
                return Fate::Silent(true);
            }
            Way::Open => {}
        }
        if self.is_too_skewed() {
            return Fate::Lost(Told::TooSkewed);
        }
        if universe.strikes(Fault::WriteLate) {
            let left = universe.scenario.faults_last.saturating_sub(universe.timeline.now());
            let most = if universe.rng.below(2) == 0 { Duration::from_secs(20) } else { Duration::from_secs(1200) };
            return Fate::Late(universe.rng.between(Duration::from_millis(100), most).min(left));
        }
        let coin = || universe.rng.below(2) == 0;
        let fates: [(Fault, MakeFate); 7] = [
            (Fault::WriteLost, |_| Fate::Lost(Told::Broken)),
            (Fault::AnswerLost, |_| Fate::Done(Told::Broken)),
            (Fault::SlowDown, |_| Fate::Lost(Told::SlowDown)),
            (Fault::Conflict, |done| if done { Fate::Done(Told::Conflict) } else { Fate::Lost(Told::Conflict) }),
            (Fault::OwnWriteRefused, |_| Fate::Done(Told::Refused)),
            (Fault::TimeOut, Fate::Silent),
            (Fault::Denied, |_| Fate::Lost(Told::Denied)),
        ];
        let struck = fates.iter().find(|(fault, _)| universe.strikes(*fault));
        struck.map_or(Fate::Well, |(_, fate)| fate(coin()))
    }

    /// Sends a conditional change (`None` deletes); its effect is the world's from here on, not the sender's.
    async fn change(&self, key: &str, body: Option<Vec<u8>>, condition: Condition) -> Outcome<Result<Effect, Failure>> {
        let (universe, machine) = (&self.universe, self.machine);
        let verb = if body.is_some() { "put" } else { "delete" };
        let fate = self.fate();
        universe.judge_sending(self.writer, key, body.as_deref());
        let travel = universe.travel();
        let answer = self.carry_out(verb, key, body, condition, fate, travel);
        universe.sleep(travel).await;
        match fate {
            Fate::Well => {
                let effect = answer.await;
                self.back(Far::Store).await;
                Ok(Ok(effect))
            }
            Fate::Lost(told @ (Told::Denied | Told::TooSkewed)) => Err(told.failure(format!("{verb} {key}"))),
            Fate::Done(Told::Refused) => {
                // The repeated request finds what the first one made, unless that one was refused too.
                answer.await;
                self.back(Far::Store).await;
                Ok(Ok(Effect::Refused))
            }
            Fate::Lost(told) | Fate::Done(told) => {
                self.back(Far::Store).await;
                universe.note(machine, format_args!("{verb} {key}: nobody knows ({fate:?})"));
                Ok(Err(told.failure(format!("{verb} {key}"))))
            }
            Fate::Late(_) => {
                self.back(Far::Store).await;
                universe.note(machine, format_args!("{verb} {key}: nobody knows ({fate:?})"));
                Ok(Err(Told::Broken.failure(format!("{verb} {key}"))))
            }
            Fate::Silent(_) => std::future::pending().await,
        }
    }

    /// What the store does with it, now, later or never; the answer is there when it has.
    fn carry_out(
        &self,
        verb: &'static str,
        key: &str,
        body: Option<Vec<u8>>,
        condition: Condition,
        fate: Fate,
        travel: Duration,
    ) -> Answer<Effect> {
        let answer = Answer::default();
        let delay = match fate {
            Fate::Lost(_) | Fate::Silent(false) => return answer,
            Fate::Late(delay) => travel + delay,
            Fate::Well | Fate::Done(_) | Fate::Silent(true) => travel,
        };
        let (universe, machine, writer, given) = (self.universe.clone(), self.machine, self.writer, answer.clone());
        let key = key.to_owned();
        self.universe.timeline.after(delay, move || {
            let effect = universe.land(writer, &key, body, &condition);
            let late = matches!(fate, Fate::Late(_));
            if late {
                universe.count_late(machine, &effect);
            }
            let change = Change { verb, key: &key, condition: &condition, effect: &effect };
            let how = if late { "LATE " } else { "" };
            // The self-test writes what nobody reads.
            if key.ends_with("/report.json") || key.contains("/selftest/") {
                universe.routine(machine, format_args!("{how}{change}"));
            } else {
                universe.note(machine, format_args!("{how}{change}"));
            }
            given.give(effect);
        });
        answer
    }

    /// A request that only reads may fail or hang.
    async fn reading(&self, what: &str) -> Outcome<()> {
        let universe = &self.universe;
        self.there(Far::Store).await;
        let failed = |told: Told| Err(told.failure(format!("read {what}")));
        if universe.strikes(Fault::TimeOut) {
            std::future::pending().await
        } else if self.is_too_skewed() {
            failed(Told::TooSkewed)
        } else if universe.strikes(Fault::SlowDown) {
            failed(Told::SlowDown)
        } else if universe.strikes(Fault::ReadFails) {
            failed(Told::Broken)
        } else if universe.strikes(Fault::Denied) {
            failed(Told::Denied)
        } else {
            Ok(())
        }
    }

    fn is_too_skewed(&self) -> bool {
        let by = self.universe.machines[self.machine].clock.skew();
        let too_skewed = matches!(self.writer, Writer::Node(_)) && by.abs() > SIGNATURE_LIFE;
        if too_skewed {
            self.universe.count("request-time-too-skewed");
        }
        too_skewed
    }

    fn date(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.universe.wall().as_second()).ok()
    }

    /// S3 answers 403 for a missing key to those who may not list.
    fn may_not_list(&self) -> bool {
        self.universe.scenario.no_list_permission && self.universe.machines[self.machine].role == Role::Worker
    }
}

#[async_trait(?Send)]
impl Objects for Desk {
    async fn get(&self, key: &str, known: Option<&ETag>) -> Outcome<Reading> {
        self.reading(key).await?;
        let universe = &self.universe;
        let (found, served_at) = (universe.object(key), self.date());
        let fetched = match found {
            None if self.may_not_list() => {
                universe.count("403-for-missing");
                let why = "403 AccessDenied (a missing key, without s3:ListBucket)";
                return Err(Failure::new(Cause::AccessDenied, format!("read {key}"), why));
            }
            None => Fetched::Absent,
            Some(object) if Some(&object.etag) == known => Fetched::Unchanged,
            Some(object) => {
                universe.routine(self.machine, format_args!("reads {key} {}", object.etag.0));
                let body = object.body.to_vec();
                Fetched::Found(Object { body, etag: object.etag, modified: Some(object.modified) })
            }
        };
        self.back(Far::Store).await;
        if key.ends_with("/join/worker.json") && matches!(self.writer, Writer::Node(_)) {
            universe.reads_bundle(self.machine);
        }
        Ok(Reading { fetched, served_at })
    }

    async fn put(&self, key: &str, body: Vec<u8>, condition: Condition) -> Outcome<Written> {
        Ok(match self.change(key, Some(body), condition).await? {
            Ok(Effect::Done(Some(etag))) => Written::Stored(etag),
            Ok(Effect::Done(None) | Effect::Refused) => Written::Refused,
            Err(failure) => Written::Unknown(failure),
        })
    }

    async fn delete(&self, key: &str, version: &ETag) -> Outcome<Deleted> {
        Ok(match self.change(key, None, Condition::Matches(version.clone())).await? {
            Ok(Effect::Done(_)) => Deleted::Done,
            Ok(Effect::Refused) if self.universe.object(key).is_none() => Deleted::Done,
            Ok(Effect::Refused) => Deleted::Refused,
            Err(failure) => Deleted::Unknown(failure),
        })
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Outcome<KeyPage> {
        self.reading(prefix).await?;
        if self.may_not_list() {
            return Err(Failure::new(Cause::AccessDenied, format!("list {prefix}"), "403 AccessDenied"));
        }
        let (mut keys, page) = {
            let store = self.universe.store.borrow();
            let wanted = |key: &&String| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after);
            (store.objects.keys().filter(wanted).take(store.page + 1).cloned().collect::<Vec<_>>(), store.page)
        };
        let more = keys.len() > page;
        if more {
            self.universe.count("pages");
        }
        keys.truncate(page);
        self.back(Far::Store).await;
        Ok(KeyPage { keys, more })
    }

    async fn expiry_rules(&self) -> Outcome<Vec<ExpiryRule>> {
        Ok(Vec::new())
    }
}
