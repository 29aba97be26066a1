//! Whether the store honours conditions: without them two masters could make two clusters.

use super::Store;
use super::settle::{TRIES, pause_before, unsettled};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::ports::{Condition, Deleted, ETag, Fetched, Object, Written};
use serde_json::json;

/// What the store was found to honour. Conditions on writes and reads are always honoured when there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// Whether deletes are conditional too; `None` when this machine may not delete. `file://` and Amazon S3 (since September 2025) have it, some S3-compatible
    /// servers do not. The register is never deleted but by `cluster retire`, so init and join do not depend on it.
    pub deletes: Option<bool>,
}

impl Store {
    /// Tests the store on a fixed key: a second create and a stale replace must be refused, a conditional get must
    /// answer "unchanged"; whether a stale delete is refused is told. Safe while other masters run it, for every body
    /// is unique and nobody deletes the object on purpose; it stays, and is small.
    ///
    /// Errors: `StoreUnconditional` when it does not honour them.
    pub async fn self_test(&self) -> Outcome<Conditions> {
        let mut last = None;
        // A store that ignores conditions on deletes can lose the object in the middle of another master's test; three
        // times in a row is no coincidence.
        for round in 1..=3 {
            match self.test_conditions().await {
                Err(failure) if failure.cause == Cause::StoreUnconditional => last = Some(failure),
                answer => return answer,
            }
            self.pause(pause_before(round)).await;
        }
        Err(last.unwrap_or_else(|| unconditional("it was not tested")))
    }

    async fn test_conditions(&self) -> Outcome<Conditions> {
        let key = self.keys.selftest_conditions();
        // Either this creates the object, or there is one.
        self.try_write(&key, Condition::Absent).await?;
        if let Written::Stored(_) = self.try_write(&key, Condition::Absent).await? {
            return Err(unconditional("it created an object that existed (If-None-Match: * on PUT)"));
        }
        let first = self.test_object(&key).await?.etag;
        if let Fetched::Found(object) = self.get(&key, Some(&first)).await?.fetched
            && object.etag == first
        {
            return Err(unconditional("it sent an unchanged object again (If-None-Match on GET)"));
        }
        // Ours, or another master's replace came first; `first` is stale after both.
        if let Written::Refused = self.try_write(&key, Condition::Matches(first.clone())).await?
            && self.test_object(&key).await?.etag == first
        {
            return Err(unconditional("it refused to replace the version it has (If-Match on PUT)"));
        }
        if let Written::Stored(_) = self.try_write(&key, Condition::Matches(first.clone())).await? {
            return Err(unconditional("it replaced a version that was not the one named (If-Match on PUT)"));
        }
        Ok(Conditions { deletes: self.refuses_stale_delete(&key, &first).await? })
    }

    async fn test_object(&self, key: &str) -> Outcome<Object> {
        self.peek(key).await?.ok_or_else(|| unconditional("an object that nobody deletes is not there"))
    }

    /// One conditional write of a unique body, to a clear answer. A lost answer is simply asked again: what a store that
    /// honours conditions accepted before, it refuses then, and one that ignores them accepts it again.
    async fn try_write(&self, key: &str, condition: Condition) -> Outcome<Written> {
        let mut doubt = None;
        for round in 0..TRIES {
            if round > 0 {
                self.pause(pause_before(round)).await;
            }
            let body =
                json!({ "schema": 1, "note": "kubestrap tests conditions here", "nonce": self.uuid() }).to_string();
            match self.objects.put(key, body.into_bytes(), condition.clone()).await? {
                Written::Unknown(failure) => doubt = Some(failure),
                clear => return Ok(clear),
            }
        }
        Err(unsettled("write", key, doubt))
    }

    async fn refuses_stale_delete(&self, key: &str, stale: &ETag) -> Outcome<Option<bool>> {
        let mut doubt = None;
        for round in 0..TRIES {
            if round > 0 {
                self.pause(pause_before(round)).await;
            }
            match self.objects.delete(key, stale).await {
                Ok(Deleted::Done) => return Ok(Some(false)),
                Ok(Deleted::Refused) => return Ok(Some(true)),
                Ok(Deleted::Unknown(failure)) => doubt = Some(failure),
                // A policy may allow a master to write and not to delete.
                Err(failure) if failure.cause == Cause::AccessDenied => return Ok(None),
                Err(failure) => return Err(failure),
            }
        }
        Err(unsettled("delete", key, doubt))
    }
}

fn unconditional(why: &str) -> Failure {
    Failure::new(Cause::StoreUnconditional, "rely on the store's conditional requests", why)
}
