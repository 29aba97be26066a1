//! The cluster register: three transitions and no others.

use super::gone::Gone;
use super::{Store, document};
use crate::journal::{Attempt, AttemptRecorded};
use crate::model::cause::Outcome;
use crate::model::names::CaHash;
use crate::model::register::{Holder, Register};
use crate::ports::ETag;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

/// The register as it was read, and the version to change it from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it says; checked.
    pub register: Register,
    /// Its version.
    pub etag: ETag,
    /// When it was written, by the store's clock.
    pub modified: Option<Timestamp>,
    /// When it was read, by the store's clock.
    pub served_at: Option<Timestamp>,
}

impl Seen {
    /// How old the record was when it was read, by the store's clock alone; `None` for a store without one.
    pub fn age(&self) -> Option<SignedDuration> {
        Some(self.served_at?.duration_since(self.modified?))
    }
}

/// A proof that the register is `initialising` with this attempt: made only here, demanded by init and the commit.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    uid: Uuid,
    attempt: Uuid,
    etag: ETag,
}

impl Held {
    /// The cluster's uid.
    pub fn uid(&self) -> Uuid {
        self.uid
    }

    /// The attempt that holds it.
    pub fn attempt(&self) -> Uuid {
        self.attempt
    }

    /// The register's version.
    pub fn etag(&self) -> &ETag {
        &self.etag
    }
}

/// How an attempt to get the register ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours.
    Held(Held),
    /// Somebody else's write came first: read the register again.
    Lost,
}

impl Store {
    /// Reads the register; `None` when there is none (see [`Store::traces`] before that is believed).
    ///
    /// Errors: `ObjectRejected` for what is not a register, `ForeignCluster` for one of another cluster.
    pub async fn register(&self) -> Outcome<Option<Seen>> {
        let _ = document::decode::<Register>;
        todo!()
    }

    /// Transition 1: absent to `initialising`, by create-only. Refused (`RegisterMissing`) while anything in the store
    /// still names a cluster (rule 3). Calling it again with the same attempt gives the same answer.
    pub async fn claim(&self, recorded: &AttemptRecorded, holder: &Holder) -> Outcome<Claim> {
        let _ = (recorded, holder);
        todo!()
    }

    /// Transition 2: from a holder that is gone to us, over exactly the version that was judged. The cluster's uid
    /// stays, so the attempt must have been recorded with it.
    pub async fn take_over(
        &self,
        seen: &Seen,
        gone: Gone,
        recorded: &AttemptRecorded,
        holder: &Holder,
    ) -> Outcome<Claim> {
        let _ = (seen, gone, recorded, holder);
        todo!()
    }

    /// After a restart: whether the register is still `initialising` with this attempt.
    pub async fn held(&self, attempt: Uuid) -> Outcome<Option<Held>> {
        let _ = attempt;
        todo!()
    }

    /// Transition 3, the commit point: `initialising` to `established` by its holder. Calling it again is safe.
    ///
    /// Errors: `TakenOver` when somebody else's attempt is in the register, `RegisterMissing` when it vanished; a
    /// transient one when the store did not say in time: the commit may have taken effect, call again.
    pub async fn commit(&self, held: &Held, ca: &CaHash, created_by: &Holder) -> Outcome<Seen> {
        let _ = (held, ca, created_by);
        todo!()
    }

    /// Puts back, create-only, an established register that vanished, from the journal of the master that made it
    /// (`made.committed` must be set). Nothing is written when the register is there and names the same cluster and CA.
    ///
    /// Errors: `ForeignCluster` when another register is there.
    pub async fn put_back(&self, made: &Attempt, created_by: &Holder, created_at: Timestamp) -> Outcome<Seen> {
        let _ = (made, created_by, created_at);
        todo!()
    }

    /// An operator's word that the holder is gone: empties the holder for the next master and gives the register a
    /// fresh attempt, so that the old holder can neither commit nor believe it still holds it.
    ///
    /// Errors: `AlreadyEstablished` when there is nothing to unlock, `HeldByOther` when it changed since it was seen.
    pub async fn unlock_init(&self, seen: &Seen) -> Outcome<Seen> {
        let _ = seen;
        todo!()
    }
}
