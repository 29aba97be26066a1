//! The join bundle: read, verified before anything is done with it, published.

use super::settle::{Intent, Settled};
use super::{Keys, Store, document};
use crate::model::bundle::JoinBundle;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::names::{BootstrapToken, CaHash, ClusterName};
use crate::model::register::{Register, SCHEMA};
use crate::ports::{Condition, ETag, Object, Reading};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::time::Duration;
use uuid::Uuid;

/// The publisher's clock may be ahead of ours by this much.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(2);
/// Local clock and store may differ by this much; AWS itself tolerates 5 min (15 for S3) before it refuses requests.
const SKEW_TOLERANCE: SignedDuration = SignedDuration::from_mins(1);
/// No token lives longer; the default is an hour, kubeadm's own default is 24 h.
const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(48);

/// What a bundle must agree with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// The configured cluster name.
    pub cluster: ClusterName,
    /// The register's uid, when it was read.
    pub uid: Option<Uuid>,
    /// The register's CA, when it is established.
    pub ca: Option<CaHash>,
    /// The configured pin.
    pub ca_pin: Option<CaHash>,
    /// The local clock.
    pub now: Timestamp,
    /// The token must live at least this much longer.
    pub min_life: Duration,
    /// The newest bundle of the same uid that was seen before: one that is older by both marks is a rollback.
    pub newest: Option<Newest>,
}

/// The marks of a bundle that was seen. The sequence alone does not do: when a bundle vanished, its publisher begins again
/// at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest {
    /// Its sequence.
    pub sequence: u64,
    /// When it was made, by its publisher's clock.
    pub issued_at: Timestamp,
}

impl Expectation {
    /// What the register says, when it was read; everything else as given.
    #[must_use]
    pub fn with_register(mut self, register: Option<&Register>) -> Self {
        self.uid = register.map(|register| register.uid);
        self.ca = register.and_then(Register::ca).cloned();
        self
    }
}

/// A proof that a bundle was verified: made only by [`verify`], demanded by join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedBundle(JoinBundle);

impl VerifiedBundle {
    /// What it says.
    pub fn bundle(&self) -> &JoinBundle {
        &self.0
    }
}

/// How a publication ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// It is in the store, with this version.
    Stored(ETag),
    /// Another version is there: read it, and publish from there.
    Overtaken,
}

/// Checks a bundle as it came from the store. No error repeats what it contains but for cluster, uid, CA and times.
///
/// Errors: `ObjectRejected` (malformed, inconsistent, of another uid or CA than the register's, rolled back; the next
/// one may be better), `NoBundle` (expired, or about to), `ForeignCluster` (another name, or not the pinned CA).
pub fn verify(body: &[u8], expect: &Expectation) -> Result<VerifiedBundle, Failure> {
    let key = Keys::of(&expect.cluster).worker_bundle();
    let bundle = parse(&key, body)?;
    check_cluster(&key, &bundle, expect)?;
    check_times(&key, &bundle, expect)?;
    let older = |seen: &Newest| bundle.sequence < seen.sequence && bundle.issued_at <= seen.issued_at;
    if let Some(seen) = expect.newest.filter(older) {
        let (own, seen) = (bundle.sequence, seen.sequence);
        let why = format!("its sequence is {own}, and {seen} was seen before: an old bundle was put back");
        return Err(document::rejected(&key, why).advise("find out who writes to the store besides the master"));
    }
    Ok(VerifiedBundle(bundle))
}

/// Field by field, and not by serde's derive: its errors repeat values, and the token may be in any field.
fn parse(key: &str, body: &[u8]) -> Outcome<JoinBundle> {
    let fields = document::fields(key, body)?;
    let token = fields.get("token").and_then(Value::as_str).ok_or("it is missing, or not a text".to_owned());
    let token =
        token.and_then(BootstrapToken::parse).map_err(|why| document::rejected(key, format!("token: {why}")))?;
    let publisher: String = field(key, &fields, "publisher", "a text")?;
    if !document::is_line(&publisher) {
        return Err(document::rejected(key, "publisher is not one line of text"));
    }
    Ok(JoinBundle {
        schema: SCHEMA,
        cluster: field(key, &fields, "cluster", "a text")?,
        uid: field(key, &fields, "uid", "a uuid")?,
        endpoint: field(key, &fields, "endpoint", "host:port")?,
        ca_sha256: field(key, &fields, "ca_sha256", "sha256: and 64 lower-case hex digits")?,
        server_version: field(key, &fields, "server_version", "a version such as v1.36.1")?,
        token,
        issued_at: field(key, &fields, "issued_at", "a time such as 2026-11-21T00:00:00Z")?,
        expires_at: field(key, &fields, "expires_at", "a time such as 2026-11-21T00:00:00Z")?,
        sequence: field(key, &fields, "sequence", "a number that is not negative")?,
        publisher,
        write_id: field(key, &fields, "write_id", "a uuid")?,
    })
}

fn field<T: DeserializeOwned>(key: &str, fields: &Map<String, Value>, name: &str, form: &str) -> Outcome<T> {
    let value = fields.get(name).ok_or_else(|| document::rejected(key, format!("it has no {name}")))?;
    serde_json::from_value(value.clone()).map_err(|_| document::rejected(key, format!("{name} is not {form}")))
}

fn check_cluster(key: &str, bundle: &JoinBundle, expect: &Expectation) -> Outcome<()> {
    let foreign = |why: String| Failure::new(Cause::ForeignCluster, format!("use {key}"), why);
    if bundle.cluster != expect.cluster.as_str() {
        return Err(document::rejected(key, "it is the bundle of another cluster"));
    }
    if let Some(pin) = expect.ca_pin.as_ref().filter(|pin| **pin != bundle.ca_sha256) {
        let why = format!("its CA is {}, and this machine is configured to insist on {pin}", bundle.ca_sha256);
        return Err(
            foreign(why).advise("find out who changed the CA; correct `ca_pin` only when the cluster was rebuilt")
        );
    }
    if let Some(uid) = expect.uid.filter(|uid| *uid != bundle.uid) {
        return Err(document::rejected(key, format!("it is for cluster {}, and the register says {uid}", bundle.uid)));
    }
    if let Some(ca) = expect.ca.as_ref().filter(|ca| **ca != bundle.ca_sha256) {
        return Err(document::rejected(key, format!("its CA is {}, and the register says {ca}", bundle.ca_sha256)));
    }
    Ok(())
}

fn check_times(key: &str, bundle: &JoinBundle, expect: &Expectation) -> Outcome<()> {
    let ahead = bundle.issued_at.duration_since(expect.now);
    if ahead > CLOCK_TOLERANCE {
        let why = format!("it was issued {} s in the future of this machine's clock", ahead.as_secs());
        return Err(document::rejected(key, why).advise("check the clocks of this machine and of the master"));
    }
    let life = bundle.expires_at.duration_since(bundle.issued_at);
    if life <= SignedDuration::ZERO {
        return Err(document::rejected(key, "it expires before it was issued"));
    }
    if life > LONGEST_LIFE {
        return Err(document::rejected(key, format!("it lives {} h, and 48 h is the most", life.as_hours())));
    }
    let left = bundle.expires_at.duration_since(expect.now);
    let needed = SignedDuration::try_from(expect.min_life).unwrap_or(SignedDuration::MAX);
    let unusable = |why: String| Err(Failure::new(Cause::NoBundle, format!("use {key}"), why));
    if left <= SignedDuration::ZERO {
        return unusable(format!("it expired at {}", bundle.expires_at));
    }
    if left < needed {
        return unusable(format!("it expires in {} s, and joining may take {} s", left.as_secs(), needed.as_secs()));
    }
    Ok(())
}

/// How far the local clock is ahead of the store's (negative: behind), when that is more than a minute; `None` when
/// they agree or the store has no clock.
pub fn clock_skew(now: Timestamp, served_at: Option<Timestamp>) -> Option<SignedDuration> {
    let skew = now.duration_since(served_at?);
    (skew.abs() > SKEW_TOLERANCE).then_some(skew)
}

impl Store {
    /// Reads the worker's bundle; a cheap "unchanged" when it still has the known version.
    pub async fn bundle(&self, known: Option<&ETag>) -> Outcome<Reading> {
        self.get(&self.keys.worker_bundle(), known).await
    }

    /// `ForeignCluster` when the bundle in the store names another cluster uid or CA; nothing when there is none, or none
    /// that can be read.
    pub(super) async fn refuse_foreign_bundle(&self, uid: Uuid, ca: &CaHash, attempted: &str) -> Outcome<()> {
        let key = self.keys.worker_bundle();
        let there = self.peek(&key).await?.and_then(|object| parse(&key, &object.body).ok());
        match there.filter(|bundle| bundle.uid != uid || bundle.ca_sha256 != *ca) {
            None => Ok(()),
            Some(bundle) => {
                let why = format!("{key} is for cluster {} with CA {}", bundle.uid, bundle.ca_sha256);
                Err(Failure::new(Cause::ForeignCluster, attempted, format!("{why}, and this machine's CA is {ca}")))
            }
        }
    }

    /// Publishes the worker's bundle over the version it was made from (`None`: there is none yet). A lost answer is
    /// settled by the bundle's `write_id`, which must be fresh.
    pub async fn publish_bundle(&self, bundle: &JoinBundle, previous: Option<&ETag>) -> Outcome<Published> {
        let key = self.keys.worker_bundle();
        let settled = self
            .settle(Intent {
                key: &key,
                body: document::encode(&key, bundle)?,
                condition: previous.map_or(Condition::Absent, |etag| Condition::Matches(etag.clone())),
                mine: &|found: &Object| parse(&key, &found.body).is_ok_and(|b| b.write_id == bundle.write_id),
                before: &|_| false,
            })
            .await?;
        Ok(match settled {
            Settled::Stored(etag) | Settled::Found(Object { etag, .. }) => Published::Stored(etag),
            Settled::Other(_) => Published::Overtaken,
        })
    }
}
