//! The join lock: etcd takes one new member at a time (kubeadm#2005), so masters join one after another.
//!
//! It is held for one attempt, and taken from its holder only when that is gone (safety rule 2) or when an operator says
//! so. A machine takes over the lock of its own earlier attempt: state is bound to one machine, and one process works on
//! it.

use super::gone::MachineGone;
use super::settle::{Intent, Settled};
use super::{Store, document};
use crate::journal::AttemptRecorded;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::lock::JoinLock;
use crate::model::register::{Holder, SCHEMA};
use crate::ports::{Condition, ETag, Fetched, Object};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

/// The lock as it was read, and the version to change it from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenLock {
    /// What it says; checked.
    pub lock: JoinLock,
    /// Its version.
    pub etag: ETag,
    /// When it was written, by the store's clock.
    pub modified: Option<Timestamp>,
    /// When it was read, by the store's clock.
    pub served_at: Option<Timestamp>,
}

impl SeenLock {
    /// How old the record was when it was read, by the store's clock alone; `None` for a store without one.
    pub fn age(&self) -> Option<SignedDuration> {
        Some(self.served_at?.duration_since(self.modified?))
    }
}

/// A proof that it is this attempt's turn to join: made only here, demanded by the join of a control plane.
#[derive(Debug, PartialEq, Eq)]
pub struct JoinTurn {
    attempt: Uuid,
    etag: ETag,
}

impl JoinTurn {
    /// The attempt whose turn it is.
    pub fn attempt(&self) -> Uuid {
        self.attempt
    }
}

/// How a try to get the lock ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is our turn.
    Ours(JoinTurn),
    /// Somebody else's.
    Others(Box<SeenLock>),
}

impl Store {
    /// Reads the lock; `None` when nobody holds it.
    ///
    /// Errors: `ObjectRejected` for what is no lock, or one of another cluster; an operator removes it.
    pub async fn join_lock(&self) -> Outcome<Option<SeenLock>> {
        let key = self.keys.control_plane_lock();
        let reading = self.get(&key, None).await?;
        match reading.fetched {
            Fetched::Absent => Ok(None),
            Fetched::Found(object) => Ok(Some(self.seen_lock(object, reading.served_at)?)),
            Fetched::Unchanged => {
                let why = "the store says \"unchanged\" unasked";
                Err(Failure::new(Cause::StoreUnavailable, format!("read {key}"), why))
            }
        }
    }

    /// Takes the lock when it is free, or held by an earlier attempt of this very machine. Calling it again with the
    /// same attempt gives the same answer.
    pub async fn take_turn(&self, recorded: &AttemptRecorded, holder: &Holder) -> Outcome<Turn> {
        match self.join_lock().await? {
            None => self.write_lock(recorded, holder, Condition::Absent).await,
            Some(seen) if seen.lock.attempt == recorded.attempt() => Ok(ours(recorded, seen.etag)),
            Some(seen) if seen.lock.uid != recorded.uid() => {
                let (key, uid) = (self.keys.control_plane_lock(), seen.lock.uid);
                let why = format!("it locks cluster {uid}, and this one is {}", recorded.uid());
                Err(document::rejected(&key, why).advise("`kubestrap unlock join` removes it"))
            }
            Some(seen) if seen.lock.holder.identity == holder.identity => {
                self.write_lock(recorded, holder, Condition::Matches(seen.etag)).await
            }
            Some(seen) => Ok(Turn::Others(Box::new(seen))),
        }
    }

    /// Takes the lock over from a holder that is gone, over exactly the version that was judged.
    ///
    /// Errors: `Internal` when the proof is about another machine.
    pub async fn take_turn_over(
        &self,
        seen: &SeenLock,
        gone: &MachineGone,
        recorded: &AttemptRecorded,
        holder: &Holder,
    ) -> Outcome<Turn> {
        if !gone.is(&seen.lock.holder.identity) {
            let why = "the proof that the holder is gone is about another machine";
            return Err(Failure::new(Cause::Internal, format!("take over {}", self.keys.control_plane_lock()), why));
        }
        self.write_lock(recorded, holder, Condition::Matches(seen.etag.clone())).await
    }

    /// Gives the lock back; nothing happens when this attempt does not hold it any more.
    pub async fn give_turn_back(&self, attempt: Uuid) -> Outcome<()> {
        match self.join_lock().await? {
            Some(seen) if seen.lock.attempt == attempt => {
                self.remove(&self.keys.control_plane_lock(), &seen.etag).await.map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// An operator's word that the holder is gone: removes the lock that was shown, also one that cannot be read.
    ///
    /// Errors: `HeldByOther` when another version is there by now.
    pub async fn unlock_join(&self, shown: &ETag) -> Outcome<()> {
        let key = self.keys.control_plane_lock();
        if self.remove(&key, shown).await? {
            return Ok(());
        }
        let why = "it changed since it was shown";
        let failure = Failure::new(Cause::HeldByOther, format!("unlock {key}"), why);
        Err(failure.advise("look at it again before you unlock"))
    }

    /// The lock for an operator, readable or not; `None` when there is none.
    pub async fn lock_to_show(&self) -> Outcome<Option<(ETag, Outcome<JoinLock>)>> {
        let Some(object) = self.peek(&self.keys.control_plane_lock()).await? else { return Ok(None) };
        let etag = object.etag.clone();
        Ok(Some((etag, self.parse_lock(&object))))
    }

    async fn write_lock(&self, recorded: &AttemptRecorded, holder: &Holder, condition: Condition) -> Outcome<Turn> {
        let key = self.keys.control_plane_lock();
        let (uid, attempt, since) = (recorded.uid(), recorded.attempt(), self.time.now());
        let cluster = self.cluster.to_string();
        let lock = JoinLock { schema: SCHEMA, cluster, uid, attempt, holder: holder.clone(), since };
        let settled = self
            .settle(Intent {
                key: &key,
                body: document::encode(&key, &lock)?,
                condition,
                mine: &|found| self.parse_lock(found).is_ok_and(|lock| lock.attempt == attempt),
                before: &|_| false,
            })
            .await?;
        match settled {
            Settled::Stored(etag) => Ok(ours(recorded, etag)),
            Settled::Found(object) => Ok(ours(recorded, object.etag)),
            Settled::Other(Some(object)) => Ok(Turn::Others(Box::new(self.seen_lock(object, None)?))),
            Settled::Other(None) => {
                let why = "its holder has just given it back";
                Err(Failure::new(Cause::HeldByOther, format!("take {key}"), why).advise("it is tried again"))
            }
        }
    }

    fn seen_lock(&self, object: Object, served_at: Option<Timestamp>) -> Outcome<SeenLock> {
        let lock = self.parse_lock(&object)?;
        Ok(SeenLock { lock, etag: object.etag, modified: object.modified, served_at })
    }

    fn parse_lock(&self, object: &Object) -> Outcome<JoinLock> {
        let key = self.keys.control_plane_lock();
        let advice = "when no master joins now, `kubestrap unlock join` removes it";
        let lock: JoinLock = document::decode(&key, &object.body).map_err(|failure| failure.advise(advice))?;
        let wrong = if lock.cluster != self.cluster.as_str() {
            Some("it is the lock of another cluster")
        } else if lock.uid.is_nil() || lock.attempt.is_nil() {
            Some("its uid or attempt is nil")
        } else if [&lock.holder.identity, &lock.holder.node_name].iter().any(|text| !document::is_line(text)) {
            Some("the name in it is not one line of text")
        } else {
            None
        };
        wrong.map_or(Ok(lock), |why| Err(document::rejected(&key, why).advise(advice)))
    }
}

fn ours(recorded: &AttemptRecorded, etag: ETag) -> Turn {
    Turn::Ours(JoinTurn { attempt: recorded.attempt(), etag })
}
