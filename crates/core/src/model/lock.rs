//! The join lock, `join/control-plane.lock`: one master joins the control plane at a time.

use super::register::Holder;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `join/control-plane.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinLock {
    /// Major version of the form.
    pub schema: u32,
    /// The cluster's name, so that a copied object is noticed.
    pub cluster: String,
    /// The cluster's uid: a lock of another cluster locks nothing here.
    pub uid: Uuid,
    /// The attempt that holds it; nobody else's write can be mistaken for this one's.
    pub attempt: Uuid,
    /// Who joins.
    pub holder: Holder,
    /// Since when, by the holder's clock; for people, never compared.
    pub since: Timestamp,
}
