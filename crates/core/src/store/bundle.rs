//! The join bundle: read, verified before anything is done with it, published.

use super::Store;
use crate::model::bundle::JoinBundle;
use crate::model::cause::{Failure, Outcome};
use crate::model::names::{CaHash, ClusterName};
use crate::ports::{ETag, Reading};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use uuid::Uuid;

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
    /// The highest sequence seen before (of the same uid): a lower one is a rollback.
    pub seen_sequence: Option<u64>,
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

/// Checks a bundle as it came from the store.
pub fn verify(body: &[u8], expect: &Expectation) -> Result<VerifiedBundle, Failure> {
    let _ = (body, expect);
    todo!()
}

/// How far the local clock is ahead of the store's (negative: behind), when that is more than a minute; `None` when
/// they agree or the store has no clock.
pub fn clock_skew(now: Timestamp, served_at: Option<Timestamp>) -> Option<SignedDuration> {
    let _ = (now, served_at);
    todo!()
}

impl Store {
    /// Reads the worker's bundle; a cheap "unchanged" when it still has the known version.
    pub async fn bundle(&self, known: Option<&ETag>) -> Outcome<Reading> {
        self.get(&self.keys.worker_bundle(), known).await
    }

    /// Publishes the worker's bundle over the version it was made from (`None`: there is none yet).
    pub async fn publish_bundle(&self, bundle: &JoinBundle, previous: Option<&ETag>) -> Outcome<Published> {
        let _ = (bundle, previous);
        todo!()
    }
}
