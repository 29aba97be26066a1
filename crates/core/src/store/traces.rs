//! Rule 3: a register that is missing while other objects still name a cluster.

use super::Store;
use crate::model::cause::Outcome;
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
    /// (also those that cannot be read). Meant for when the register is missing; otherwise traces are normal.
    pub async fn traces(&self) -> Outcome<Vec<Trace>> {
        todo!()
    }
}
