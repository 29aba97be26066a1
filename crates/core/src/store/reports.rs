//! The nodes' reports.

use super::settle::{Intent, Settled, unsettled};
use super::{Store, document};
use crate::model::cause::Outcome;
use crate::model::report::Report;
use crate::ports::{Condition, ETag, Fetched, MAX_OBJECT, Object};
use futures_util::future::join_all;
use jiff::Timestamp;

/// So many reports are read at a time: a thousand nodes take a few seconds, and the store is not flooded.
pub(super) const AT_A_TIME: usize = 8;

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
        let key = self.keys.report(&report.identity.key());
        let body = fitted(&key, report)?;
        let mut condition = previous.map_or(Condition::Absent, |etag| Condition::Matches(etag.clone()));
        // Once more over what is there: only this machine writes here, so another version is its own earlier one.
        for _ in 0..2 {
            let intent = Intent {
                key: &key,
                body: body.clone(),
                condition,
                mine: &|found: &Object| found.body == body,
                before: &|_| false,
            };
            condition = match self.settle(intent).await? {
                Settled::Stored(etag) | Settled::Found(Object { etag, .. }) => return Ok(etag),
                Settled::Other(Some(object)) => Condition::Matches(object.etag),
                Settled::Other(None) => Condition::Absent,
            };
        }
        let advice = "does another machine have the same identity (a copied /etc/machine-id)?";
        Err(unsettled("write", &key, None).advise(advice))
    }

    /// Every node's report, ordered by identity; one that cannot be read is an entry with its failure.
    pub async fn reports(&self) -> Outcome<Vec<ReportEntry>> {
        let keys = self.list_all(&self.keys.nodes()).await?;
        let named: Vec<(String, String)> = keys
            .into_iter()
            .filter_map(|key| self.keys.reporter(&key).map(str::to_owned).map(|identity| (key, identity)))
            .collect();
        let mut entries = Vec::with_capacity(named.len());
        for some in named.chunks(AT_A_TIME) {
            let reads = some.iter().map(|(key, identity)| self.report(key, identity));
            entries.extend(join_all(reads).await.into_iter().flatten());
        }
        Ok(entries)
    }

    /// Who has reported, by identity: one list, and no report is read.
    pub async fn reporters(&self) -> Outcome<Vec<String>> {
        let keys = self.list_all(&self.keys.nodes()).await?;
        Ok(keys.iter().filter_map(|key| self.keys.reporter(key)).map(str::to_owned).collect())
    }

    /// One node's report; `None` when there is none.
    pub async fn report_of(&self, identity: &str) -> Option<ReportEntry> {
        self.report(&self.keys.report(identity), identity).await
    }

    /// `None` when it vanished since it was listed.
    async fn report(&self, key: &str, identity: &str) -> Option<ReportEntry> {
        let (report, modified, served_at) = match self.get(key, None).await {
            Err(failure) => (Err(failure), None, None),
            Ok(reading) => match reading.fetched {
                Fetched::Absent | Fetched::Unchanged => return None,
                Fetched::Found(object) => {
                    (self.parse_report(key, identity, &object), object.modified, reading.served_at)
                }
            },
        };
        Some(ReportEntry { identity: identity.to_owned(), report, modified, served_at })
    }

    fn parse_report(&self, key: &str, identity: &str, object: &Object) -> Outcome<Report> {
        let report: Report = document::decode(key, &object.body)?;
        if report.cluster != self.cluster.as_str() {
            return Err(document::rejected(key, "it is a report about another cluster"));
        }
        if report.identity.key() != identity {
            return Err(document::rejected(key, "it speaks for another machine than its key"));
        }
        Ok(report)
    }
}

fn fitted(key: &str, report: &Report) -> Outcome<Vec<u8>> {
    let size = |report: &Report| serde_json::to_vec(report).map_or(usize::MAX, |body| body.len());
    let mut report = report.clone();
    while size(&report) > MAX_OBJECT && !report.log_tail.is_empty() {
        // Half at a time, for the log may have many short lines.
        report.log_tail.drain(..report.log_tail.len().div_ceil(2));
    }
    document::encode(key, &report)
}
