//! The nodes' reports.

use super::Store;
use crate::model::cause::Outcome;
use crate::model::report::Report;
use crate::ports::ETag;
use jiff::Timestamp;

/// A report as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportEntry {
    /// Whose it is, from the key.
    pub identity: String,
    /// What it says, or why it cannot be read. Its texts are another machine's: escape them before a terminal.
    pub report: Outcome<Report>,
    /// When it was written, by the store's clock.
    pub modified: Option<Timestamp>,
    /// When it was read, by the store's clock.
    pub served_at: Option<Timestamp>,
}

impl Store {
    /// Replaces this node's own report; `previous` is the version returned last (`None`: not known). Gives the new one.
    /// The log's oldest lines are left out until the report fits 64 KiB.
    pub async fn put_report(&self, report: &Report, previous: Option<&ETag>) -> Outcome<ETag> {
        let _ = (report, previous);
        todo!()
    }

    /// Every node's report, ordered by identity; one that cannot be read is an entry with its failure.
    pub async fn reports(&self) -> Outcome<Vec<ReportEntry>> {
        todo!()
    }
}
