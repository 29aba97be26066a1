//! Rule 3: a register that is missing while other objects still name a cluster.

use super::Store;
use super::reports::AT_A_TIME;
use crate::model::cause::{Cause, Outcome};
use futures_util::StreamExt;
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
        let reads = keys.into_iter().map(|key| self.trace(key));
        let found: Vec<Outcome<Option<Trace>>> = futures_util::stream::iter(reads).buffered(AT_A_TIME).collect().await;
        found.into_iter().filter_map(Result::transpose).collect()
    }

    /// `None` when the object vanished since it was listed, or is a report of a node that knows no cluster yet.
    async fn trace(&self, key: String) -> Outcome<Option<Trace>> {
        let is_report = self.keys.reporter(&key).is_some();
        let named = match self.peek(&key).await {
            Ok(None) => return Ok(None),
            Ok(Some(object)) => uid_in(&object.body),
            // Too large for us, but there.
            Err(failure) if failure.cause == Cause::ObjectRejected => Named::Unreadable,
            Err(failure) => return Err(failure),
        };
        Ok(match named {
            Named::Nothing if is_report => None,
            Named::Nothing | Named::Unreadable => Some(Trace { key, uid: None }),
            Named::Uid(uid) => Some(Trace { key, uid: Some(uid) }),
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
