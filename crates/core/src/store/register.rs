//! The cluster register: three transitions and no others.

use super::gone::Gone;
use super::settle::{Intent, Settled, unsettled};
use super::{Store, document};
use crate::journal::{Attempt, AttemptRecorded};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::names::CaHash;
use crate::model::register::{Holder, Register, RegisterState, SCHEMA};
use crate::ports::{Condition, ETag, Fetched, Object};
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

    /// As it was written just now: its times are not known.
    fn written(register: Register, etag: ETag) -> Self {
        Seen { register, etag, modified: None, served_at: None }
    }

    fn claimed_by(self, attempt: Uuid) -> Claim {
        if initialises(&self.register, attempt) {
            Claim::Held(Held { uid: self.register.uid, attempt, etag: self.etag })
        } else {
            Claim::Lost
        }
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
        let reading = self.get(&self.keys.register(), None).await?;
        match reading.fetched {
            Fetched::Absent => Ok(None),
            Fetched::Found(object) => Ok(Some(self.seen(object, reading.served_at)?)),
            Fetched::Unchanged => {
                Err(Failure::new(Cause::StoreUnavailable, self.reading(), "the store says \"unchanged\" unasked"))
            }
        }
    }

    /// Transition 1: absent to `initialising`, by create-only. Refused (`RegisterMissing`) while anything in the store
    /// still names a cluster (rule 3). Calling it again with the same attempt gives the same answer.
    pub async fn claim(&self, recorded: &AttemptRecorded, holder: &Holder) -> Outcome<Claim> {
        if let Some(seen) = self.register().await? {
            return Ok(seen.claimed_by(recorded.attempt()));
        }
        if let Err(failure) = self.refuse_traces(&holder.identity, Some(recorded.uid())).await {
            // Another master may have claimed, and more, since the register was read.
            return match self.register().await? {
                Some(seen) => Ok(seen.claimed_by(recorded.attempt())),
                None => Err(failure),
            };
        }
        self.initialise(recorded.uid(), recorded.attempt(), holder, Condition::Absent).await
    }

    /// Transition 2: from a holder that is gone to us, over exactly the version that was judged. The cluster's uid
    /// stays, so the attempt must have been recorded with it.
    ///
    /// Errors: `Internal` when proofs and register do not belong together.
    pub async fn take_over(
        &self,
        seen: &Seen,
        gone: Gone,
        recorded: &AttemptRecorded,
        holder: &Holder,
    ) -> Outcome<Claim> {
        let uid = seen.register.uid;
        let mixed = |why: &str| Failure::new(Cause::Internal, format!("take over {}", self.keys.register()), why);
        if !gone.covers(seen) {
            return Err(mixed("the proof that the holder is gone is about another version of it"));
        }
        if recorded.uid() != uid {
            return Err(mixed("the attempt was recorded with another cluster uid; a successor keeps the uid"));
        }
        self.initialise(uid, recorded.attempt(), holder, Condition::Matches(seen.etag.clone())).await
    }

    /// After a restart: whether the register is still `initialising` with this attempt.
    pub async fn held(&self, attempt: Uuid) -> Outcome<Option<Held>> {
        Ok(self.register().await?.and_then(|seen| match seen.claimed_by(attempt) {
            Claim::Held(held) => Some(held),
            Claim::Lost => None,
        }))
    }

    /// Transition 3, the commit point: `initialising` to `established` by its holder. Calling it again is safe.
    ///
    /// Errors: `TakenOver` when somebody else's attempt is in the register, `RegisterMissing` when it vanished; a
    /// transient one when the store did not say in time: the commit may have taken effect, call again.
    pub async fn commit(&self, held: &Held, ca: &CaHash, created_by: &Holder) -> Outcome<Seen> {
        let key = self.keys.register();
        let register = self.established(held.uid, held.attempt, ca, created_by, self.time.now());
        let settled = self
            .settle(Intent {
                key: &key,
                body: document::encode(&key, &register)?,
                condition: Condition::Matches(held.etag.clone()),
                mine: &|found| self.parse(found).is_ok_and(|r| r.attempt() == held.attempt && r.ca().is_some()),
                // Our attempt under another version (a copy, a change of encryption) is still our own.
                before: &|found| self.parse(found).is_ok_and(|r| initialises(&r, held.attempt)),
            })
            .await?;
        let failed = |cause, why: String| Failure::new(cause, format!("commit {key}"), why);
        match settled {
            Settled::Stored(etag) => Ok(Seen::written(register, etag)),
            Settled::Found(object) => {
                let seen = self.seen(object, None)?;
                if seen.register.ca() == Some(ca) && seen.register.uid == held.uid {
                    return Ok(seen);
                }
                let why = format!("it names this attempt with another CA or uid, and this machine has {ca}");
                Err(failed(Cause::ForeignCluster, why))
            }
            Settled::Other(None) => Err(failed(Cause::RegisterMissing, "it vanished before the commit".to_owned())),
            Settled::Other(Some(object)) => {
                Err(failed(Cause::TakenOver, format!("it is {}", describe(&self.parse(&object)?))))
            }
        }
    }

    /// Puts back, create-only, an established register that vanished, from the journal of the master that made it
    /// ([`Attempt::master_of`] must say which). Nothing is written when the register is there and names the same cluster and CA.
    ///
    /// Errors: `ForeignCluster` when another register is there, or a join bundle that names another cluster or CA.
    pub async fn put_back(&self, made: &Attempt, created_by: &Holder, created_at: Timestamp) -> Outcome<Seen> {
        let key = self.keys.register();
        let attempted = format!("put back {key}");
        let Some(ca) = made.master_of() else {
            let why = "this machine's journal does not say that it is a master";
            return Err(Failure::new(Cause::RegisterMissing, attempted, why));
        };
        let same = |found: &Register| found.uid == made.uid && found.ca() == Some(ca);
        let other = |found: &Register| {
            let why = format!("it is {}, and this machine made cluster {} with CA {ca}", describe(found), made.uid);
            Failure::new(Cause::ForeignCluster, attempted.clone(), why)
        };
        if let Some(seen) = self.register().await? {
            return if same(&seen.register) { Ok(seen) } else { Err(other(&seen.register)) };
        }
        self.refuse_foreign_bundle(made.uid, ca, &attempted).await?;
        let register = self.established(made.uid, made.id, ca, created_by, created_at);
        let settled = self
            .settle(Intent {
                key: &key,
                body: document::encode(&key, &register)?,
                condition: Condition::Absent,
                mine: &|found| self.parse(found).is_ok_and(|r| same(&r)),
                before: &|_| false,
            })
            .await?;
        match settled {
            Settled::Stored(etag) => Ok(Seen::written(register, etag)),
            Settled::Found(object) => self.seen(object, None),
            Settled::Other(Some(object)) => Err(other(&self.parse(&object)?)),
            Settled::Other(None) => Err(unsettled("put back", &key, None)),
        }
    }

    /// An operator's word that the holder is gone: empties the holder for the next master and gives the register a
    /// fresh attempt, so that the old holder can neither commit nor believe it still holds it.
    ///
    /// Errors: `AlreadyEstablished` when there is nothing to unlock, `HeldByOther` when it changed since it was seen.
    pub async fn unlock_init(&self, seen: &Seen) -> Outcome<Seen> {
        let key = self.keys.register();
        let failed = |cause, why: &str| Failure::new(cause, format!("unlock {key}"), why);
        if seen.register.ca().is_some() {
            let advice = "nothing is locked; `kubestrap cluster retire` ends a cluster";
            return Err(failed(Cause::AlreadyEstablished, "the cluster is established").advise(advice));
        }
        let attempt = self.uuid();
        let register = self.initialising(seen.register.uid, attempt, None);
        let settled = self
            .settle(Intent {
                key: &key,
                body: document::encode(&key, &register)?,
                condition: Condition::Matches(seen.etag.clone()),
                mine: &|found| self.parse(found).is_ok_and(|r| initialised_by(&r) == Some(attempt)),
                before: &|_| false,
            })
            .await?;
        match settled {
            Settled::Stored(etag) => Ok(Seen::written(register, etag)),
            Settled::Found(object) => self.seen(object, None),
            Settled::Other(_) => {
                let why = "it changed since it was shown";
                Err(failed(Cause::HeldByOther, why).advise("look at it again before you unlock"))
            }
        }
    }

    async fn initialise(&self, uid: Uuid, attempt: Uuid, holder: &Holder, condition: Condition) -> Outcome<Claim> {
        let key = self.keys.register();
        let register = self.initialising(uid, attempt, Some(holder.clone()));
        let settled = self
            .settle(Intent {
                key: &key,
                body: document::encode(&key, &register)?,
                condition,
                mine: &|found| self.parse(found).is_ok_and(|r| initialises(&r, attempt)),
                before: &|_| false,
            })
            .await?;
        let etag = match settled {
            Settled::Stored(etag) => etag,
            Settled::Found(object) => object.etag,
            Settled::Other(_) => return Ok(Claim::Lost),
        };
        Ok(Claim::Held(Held { uid, attempt, etag }))
    }

    fn initialising(&self, uid: Uuid, attempt: Uuid, holder: Option<Holder>) -> Register {
        let state = RegisterState::Initialising { attempt, holder, since: self.time.now() };
        Register { schema: SCHEMA, cluster: self.cluster.to_string(), uid, state }
    }

    fn established(&self, uid: Uuid, attempt: Uuid, ca: &CaHash, by: &Holder, created_at: Timestamp) -> Register {
        let state = RegisterState::Established { attempt, ca_sha256: ca.clone(), created_by: by.clone(), created_at };
        Register { schema: SCHEMA, cluster: self.cluster.to_string(), uid, state }
    }

    fn reading(&self) -> String {
        format!("read {}", self.keys.register())
    }

    fn seen(&self, object: Object, served_at: Option<Timestamp>) -> Outcome<Seen> {
        let register = self.parse(&object)?;
        Ok(Seen { register, etag: object.etag, modified: object.modified, served_at })
    }

    fn parse(&self, object: &Object) -> Outcome<Register> {
        let key = self.keys.register();
        let register: Register = document::decode(&key, &object.body)?;
        if register.cluster != self.cluster.as_str() {
            let why = format!("it is the register of cluster {:?}", register.cluster);
            return Err(Failure::new(Cause::ForeignCluster, self.reading(), why));
        }
        if register.uid.is_nil() || register.attempt().is_nil() {
            return Err(document::rejected(&key, "its uid or attempt is nil"));
        }
        let named = match &register.state {
            RegisterState::Initialising { holder, .. } => holder.as_ref(),
            RegisterState::Established { created_by, .. } => Some(created_by),
        };
        // It is shown to people on terminals.
        if named.is_some_and(|holder| [&holder.identity, &holder.node_name].iter().any(|t| !document::is_line(t))) {
            return Err(document::rejected(&key, "the name in it is not one line of text"));
        }
        Ok(register)
    }
}

/// The attempt, when it is initialising.
fn initialised_by(register: &Register) -> Option<Uuid> {
    register.ca().is_none().then(|| register.attempt())
}

/// Whether it is initialising with this attempt, and was not unlocked.
fn initialises(register: &Register, by: Uuid) -> bool {
    matches!(&register.state, RegisterState::Initialising { attempt, holder: Some(_), .. } if *attempt == by)
}

/// For people.
fn describe(register: &Register) -> String {
    match &register.state {
        RegisterState::Initialising { holder: Some(holder), .. } => format!("held by {}", holder.node_name),
        RegisterState::Initialising { holder: None, .. } => "unlocked by an operator".to_owned(),
        RegisterState::Established { created_by, ca_sha256, .. } => {
            format!("established by {} as cluster {} with CA {ca_sha256}", created_by.node_name, register.uid)
        }
    }
}
