//! Whether the store honours conditions.

use super::Store;
use crate::model::cause::Outcome;

/// What the store was found to honour. Conditions on writes and reads are always honoured when there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// Whether deletes are conditional too. No rule of safety rests on it for `file://` and Amazon S3 have it; some
    /// S3-compatible servers do not.
    pub deletes: bool,
}

impl Store {
    /// Tests the store on a fixed key: a second create and a stale replace must be refused, a conditional get must
    /// answer "unchanged"; whether a stale delete is refused is told. Safe while other masters run it; leaves one small
    /// object.
    ///
    /// Errors: `StoreUnconditional` when it does not honour them.
    pub async fn self_test(&self) -> Outcome<Conditions> {
        todo!()
    }
}
