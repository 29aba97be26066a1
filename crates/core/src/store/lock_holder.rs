//! Who holds the lock of joining masters, for those who only want to know whether somebody joins.

use super::{Store, document};
use crate::model::cause::Outcome;
use crate::model::register::Holder;
use crate::ports::Fetched;
use jiff::SignedDuration;
use serde::Deserialize;
use uuid::Uuid;

/// What is read of `join/control-plane.lock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// The attempt that holds it.
    pub attempt: Uuid,
    /// Who holds it; `None` after an operator unlocked it.
    pub holder: Option<Holder>,
    /// How old it is, by the store's clock.
    pub age: Option<SignedDuration>,
}

#[derive(Deserialize)]
struct Stored {
    attempt: Uuid,
    #[serde(default)]
    holder: Option<Holder>,
}

impl Store {
    /// Who holds the lock; `None` when nobody does. Errors: the store's, and `ObjectRejected` for one that cannot be
    /// read, which is somebody's all the same.
    pub async fn lock_holder(&self) -> Outcome<Option<LockHolder>> {
        let key = self.keys.control_plane_lock();
        let reading = self.get(&key, None).await?;
        let Fetched::Found(object) = reading.fetched else { return Ok(None) };
        let stored: Stored = document::decode(&key, &object.body)?;
        let age = reading.served_at.zip(object.modified).map(|(served, modified)| served.duration_since(modified));
        Ok(Some(LockHolder { attempt: stored.attempt, holder: stored.holder, age }))
    }
}
