//! The object store as one machine sees it: over a network that loses, delays and refuses.

use super::Desk;
use crate::store::Effect;
use crate::timeline::Answer;
use async_trait::async_trait;
use jiff::Timestamp;
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

/// What the network does to one conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It arrives and is answered.
    Well,
    /// It is refused with 403.
    Denied,
    /// It never arrives; the sender gets a 503.
    Lost,
    /// It takes effect; the sender gets a 503, or a 409.
    AnswerLost,
    /// The sender gets a 503; it lands after this long, whatever has become of the sender.
    Late(Duration),
    /// It takes effect (or not), and no answer comes at all.
    Hangs(bool),
}

impl Desk {
    fn fate(&self) -> Fate {
        let universe = &self.universe;
        let rates = universe.scenario.rates;
        if universe.unlucky(rates.write_late) {
            let left = universe.scenario.faults_last.saturating_sub(universe.timeline.now());
            let most = if universe.rng.below(2) == 0 { Duration::from_secs(20) } else { Duration::from_secs(1200) };
            return Fate::Late(universe.rng.between(Duration::from_millis(100), most).min(left));
        }
        if universe.unlucky(rates.write_lost) {
            Fate::Lost
        } else if universe.unlucky(rates.answer_lost) {
            Fate::AnswerLost
        } else if universe.unlucky(rates.hang) {
            Fate::Hangs(universe.rng.below(2) == 0)
        } else if universe.unlucky(rates.denied) {
            Fate::Denied
        } else {
            Fate::Well
        }
    }

    /// Sends a conditional change (`None` deletes); its effect is the world's from here on, not the sender's.
    async fn change(&self, key: &str, body: Option<Vec<u8>>, condition: Condition) -> Outcome<Result<Effect, Failure>> {
        let (universe, machine, writer) = (&self.universe, self.machine, self.writer);
        let verb = if body.is_some() { "put" } else { "delete" };
        let fate = self.fate();
        universe.judge_sending(writer, key, body.as_deref());
        let unknown = |why: &str| Failure::new(Cause::StoreUnavailable, format!("{verb} {key}"), why);
        let travel = universe.travel();
        let delay = match fate {
            Fate::Denied | Fate::Lost | Fate::Hangs(false) => None,
            Fate::Late(delay) => Some(travel + delay),
            Fate::Well | Fate::AnswerLost | Fate::Hangs(true) => Some(travel),
        };
        let answer = Answer::default();
        if let Some(delay) = delay {
            let (universe, answer, key) = (universe.clone(), answer.clone(), key.to_owned());
            self.universe.timeline.after(delay, move || {
                let effect = universe.land(writer, &key, body, &condition);
                let how = if matches!(fate, Fate::Late(_)) { "LATE " } else { "" };
                let change = Change { verb, key: &key, condition: &condition, effect: &effect };
                if key.ends_with("/report.json") {
                    universe.routine(machine, format_args!("{how}{change}"));
                } else {
                    universe.note(machine, format_args!("{how}{change}"));
                }
                answer.give(effect);
            });
        }
        universe.sleep(travel).await;
        match fate {
            Fate::Well => {
                let effect = answer.await;
                universe.sleep(universe.travel()).await;
                Ok(Ok(effect))
            }
            Fate::Denied => Err(Failure::new(Cause::AccessDenied, format!("{verb} {key}"), "403 AccessDenied")),
            Fate::AnswerLost if universe.rng.below(4) == 0 => Ok(Err(unknown("409 ConditionalRequestConflict"))),
            Fate::Lost | Fate::AnswerLost | Fate::Late(_) => {
                universe.sleep(universe.travel()).await;
                universe.note(machine, format_args!("{verb} {key}: no answer ({fate:?})"));
                Ok(Err(unknown("503 Slow Down")))
            }
            Fate::Hangs(_) => std::future::pending().await,
        }
    }

    /// A request that only reads may fail or hang.
    async fn reading(&self, what: &str) -> Outcome<()> {
        let universe = &self.universe;
        universe.sleep(universe.travel()).await;
        let failed = |cause, why: &str| Err(Failure::new(cause, format!("read {what}"), why));
        if universe.unlucky(universe.scenario.rates.hang) {
            std::future::pending().await
        } else if universe.unlucky(universe.scenario.rates.read_fails) {
            failed(Cause::StoreUnavailable, "503 Slow Down")
        } else if universe.unlucky(universe.scenario.rates.denied) {
            failed(Cause::AccessDenied, "403 AccessDenied")
        } else {
            Ok(())
        }
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
        universe.sleep(universe.travel()).await;
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
        let store = self.universe.store.borrow();
        let wanted = |key: &&String| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after);
        let mut keys: Vec<String> = store.objects.keys().filter(wanted).take(store.page + 1).cloned().collect();
        let more = keys.len() > store.page;
        keys.truncate(store.page);
        Ok(KeyPage { keys, more })
    }

    async fn expiry_rules(&self) -> Outcome<Vec<ExpiryRule>> {
        Ok(Vec::new())
    }
}
