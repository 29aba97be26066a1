//! The sealed PKI in the store: created once, replaced only over a known version.

use super::settle::{Intent, Settled, unsettled};
use super::{Store, document};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::pki::{KeyRecord, PkiBundle};
use crate::ports::{Condition, ETag, Object};

/// The sealed PKI as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenPki {
    /// What it says, or why that cannot be read (`PkiRejected`): nothing in it is opened or believed yet.
    pub bundle: Outcome<PkiBundle>,
    /// The version to replace.
    pub etag: ETag,
}

/// How a write of it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Ours is in the store, with this version.
    Stored(ETag),
    /// Another one is.
    Other(SeenPki),
    /// It vanished, where one was to be replaced.
    Vanished,
}

impl Store {
    /// Reads the sealed PKI; `None` when there is none.
    pub async fn pki(&self) -> Outcome<Option<SeenPki>> {
        match self.peek(&self.keys.pki_bundle()).await {
            Ok(object) => Ok(object.map(|object| self.seen_pki(&object))),
            Err(failure) if failure.cause == Cause::ObjectRejected => Err(refused(failure)),
            Err(failure) => Err(failure),
        }
    }

    /// Writes it: create-only without `over`, else over exactly that version. A lost answer is settled by the bundle's
    /// `write_id`, which must be fresh.
    pub async fn keep_pki(&self, bundle: &PkiBundle, over: Option<&ETag>) -> Outcome<Kept> {
        let key = self.keys.pki_bundle();
        let settled = self
            .settle(Intent {
                key: &key,
                body: document::encode(&key, bundle)?,
                condition: over.map_or(Condition::Absent, |etag| Condition::Matches(etag.clone())),
                mine: &|found: &Object| self.parse_pki(&found.body).is_ok_and(|b| b.write_id == bundle.write_id),
                before: &|_| false,
            })
            .await?;
        match settled {
            Settled::Stored(etag) | Settled::Found(Object { etag, .. }) => Ok(Kept::Stored(etag)),
            Settled::Other(Some(object)) => Ok(Kept::Other(self.seen_pki(&object))),
            Settled::Other(None) if over.is_some() => Ok(Kept::Vanished),
            Settled::Other(None) => Err(unsettled("write", &key, None)),
        }
    }

    fn seen_pki(&self, object: &Object) -> SeenPki {
        SeenPki { bundle: self.parse_pki(&object.body), etag: object.etag.clone() }
    }

    fn parse_pki(&self, body: &[u8]) -> Outcome<PkiBundle> {
        let key = self.keys.pki_bundle();
        let bundle: PkiBundle = document::decode(&key, body).map_err(refused)?;
        if bundle.cluster != self.cluster.as_str() {
            return Err(refused(document::rejected(&key, format!("it is of cluster {:?}", bundle.cluster))));
        }
        // It is shown to people on terminals.
        if matches!(&bundle.key, KeyRecord::Kms { key_id, .. } if !document::is_line(key_id)) {
            return Err(refused(document::rejected(&key, "its KMS key is not named by one line of text")));
        }
        Ok(bundle)
    }
}

/// Nobody publishes a better one by itself, as it is with other objects: a person must look.
fn refused(failure: Failure) -> Failure {
    Failure { cause: Cause::PkiRejected, ..failure }
}
