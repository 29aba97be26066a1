//! Rule 3: a register that is missing while other objects still name a cluster.

use super::Store;
use super::reports::AT_A_TIME;
use crate::model::cause::{Cause, Failure, Outcome};
use futures_util::future::join_all;
use serde_json::Value;
use uuid::Uuid;

/// An object that shows that a cluster exists, or existed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Its key.
    pub key: String,
    /// The cluster it names, when it can be read.
    pub uid: Option<Uuid>,
}

impl Store {
    /// What names a cluster besides the register: anything below `pki/`, `snapshots/`, `join/`, and reports with a uid
    /// (also those that cannot be read, which may have one). Meant for when the register is missing; otherwise traces
    /// are normal.
    pub async fn traces(&self) -> Outcome<Vec<Trace>> {
        let mut keys = Vec::new();
        for prefix in [self.keys.join(), self.keys.pki(), self.keys.snapshots()] {
            keys.extend(self.list_all(&prefix).await?);
        }
        let nodes = self.list_all(&self.keys.nodes()).await?;
        keys.extend(nodes.into_iter().filter(|key| self.keys.reporter(key).is_some()));
        let mut traces = Vec::new();
        for some in keys.chunks(AT_A_TIME) {
            for found in join_all(some.iter().map(|key| self.trace(key))).await {
                traces.extend(found?);
            }
        }
        Ok(traces)
    }

    /// `RegisterMissing` when something names a cluster; for when the register is missing (rule 3).
    ///
    /// Only one trace is innocent: the report of this very machine (`identity`) with the uid of its own attempt, for a
    /// register that was claimed and vanished. The same uid in other objects is not, for a successor keeps the uid: it
    /// may have made a cluster of it, with a CA.
    pub async fn refuse_traces(&self, identity: &str, uid: Option<Uuid>) -> Outcome<()> {
        let own = self.keys.report(identity);
        let innocent = |trace: &Trace| trace.key == own && trace.uid.is_some() && trace.uid == uid;
        let Some(trace) = self.traces().await?.into_iter().find(|trace| !innocent(trace)) else { return Ok(()) };
        let of = trace.uid.map_or(String::new(), |uid| format!(" of cluster {uid}"));
        let why = format!("it is missing, and {}{of} is still there", trace.key);
        Err(Failure::new(Cause::RegisterMissing, format!("claim {}", self.keys.register()), why))
    }

    /// `None` when the object vanished since it was listed, or is a report of a node that knows no cluster yet.
    async fn trace(&self, key: &str) -> Outcome<Option<Trace>> {
        let is_report = self.keys.reporter(key).is_some();
        let named = match self.peek(key).await {
            Ok(None) => return Ok(None),
            Ok(Some(object)) => uid_in(&object.body),
            // Too large for us, but there.
            Err(failure) if failure.cause == Cause::ObjectRejected => Named::Unreadable,
            Err(failure) => return Err(failure),
        };
        Ok(match named {
            Named::Nothing if is_report => None,
            Named::Nothing | Named::Unreadable => Some(Trace { key: key.to_owned(), uid: None }),
            Named::Uid(uid) => Some(Trace { key: key.to_owned(), uid: Some(uid) }),
        })
    }
}

enum Named {
    Uid(Uuid),
    Nothing,
    Unreadable,
}

/// Of any schema, for a newer release's report names its cluster too.
fn uid_in(body: &[u8]) -> Named {
    match serde_json::from_slice::<Value>(body).as_ref().map(Value::as_object) {
        Ok(Some(fields)) => match fields.get("uid") {
            None | Some(Value::Null) => Named::Nothing,
            Some(value) => value.as_str().and_then(|text| text.parse().ok()).map_or(Named::Unreadable, Named::Uid),
        },
        _ => Named::Unreadable,
    }
}
