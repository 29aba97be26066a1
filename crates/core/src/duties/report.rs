//! `report`: tells the others, through the store, how this node fares: on change, and every few minutes.

use crate::engine::Duty;
use crate::model::cause::Outcome;
use crate::model::register::SCHEMA;
use crate::model::report::{Phase, Report};
use crate::node::Node;
use crate::ports::ETag;
use crate::store::Store;
use async_trait::async_trait;
use jiff::Timestamp;
use std::cell::RefCell;
use std::time::Duration;

/// How soon a change is told. It asks nobody: only a change, or the end of the interval, is a request.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Changes within this time of the last report wait for its end: an eager bootstrap is not a request per step.
const AT_MOST_EVERY: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Sent {
    report: Option<Report>,
    etag: Option<ETag>,
    at: Duration,
    next: Duration,
    /// The node's revision at which there was nothing new to tell.
    revision: u64,
}

#[derive(Default)]
pub(super) struct ReportDuty {
    sent: RefCell<Sent>,
}

#[async_trait(?Send)]
impl Duty for ReportDuty {
    fn name(&self) -> &'static str {
        "report"
    }

    fn runs_during_bootstrap(&self) -> bool {
        true
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        let (now, revision) = (node.world.time.uptime(), node.revision());
        {
            // An idle node's report is neither made nor compared every two seconds.
            let sent = self.sent.borrow();
            let is_early = now.saturating_sub(sent.at) < sent.next;
            if sent.report.is_some() && is_early && sent.revision == revision {
                return Ok(LOOK_EVERY);
            }
        }
        let report = build_report(node);
        let (is_due, etag) = {
            let mut sent = self.sent.borrow_mut();
            let since = now.saturating_sub(sent.at);
            let changed = sent.report.as_ref().is_none_or(|before| differs(before, &report));
            if !changed {
                sent.revision = revision;
            }
            let first = sent.report.is_none();
            (first || (changed && since >= AT_MOST_EVERY) || since >= sent.next, sent.etag.clone())
        };
        if is_due {
            let etag = Store::of(node).put_report(&report, etag.as_ref()).await?;
            let next = node.jitter(node.settings.report_every).min(node.settings.report_every);
            node.update(|status| status.last_report_at = Some(report.reported_at));
            *self.sent.borrow_mut() = Sent { report: Some(report), etag: Some(etag), at: now, next, revision };
        }
        Ok(LOOK_EVERY)
    }
}

/// The last report of a life: best effort, for a node that stops must not hang.
pub async fn final_report(node: &Node, phase: Phase) -> Outcome<()> {
    node.enter(phase);
    Store::of(node).put_report(&build_report(node), None).await.map(|_| ())
}

/// Whether a reader would learn something new: times that move by themselves do not count.
fn differs(before: &Report, now: &Report) -> bool {
    let still = Report { reported_at: before.reported_at, ..now.clone() };
    *before != still
}

/// The report as the node stands.
pub fn build_report(node: &Node) -> Report {
    let status = node.status();
    let now: Timestamp = node.world.time.now();
    let mut versions = status.versions;
    versions.insert("kubestrap".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    Report {
        schema: SCHEMA,
        cluster: node.settings.cluster.to_string(),
        uid: status.uid,
        role: node.settings.role,
        identity: (*node.identity).clone(),
        phase: status.phase,
        step: status.step.map(str::to_owned),
        error: status.error,
        steps: status.steps,
        versions,
        bundle_expires_at: status.bundle_expires_at,
        certificates_expire_at: status.certificates_expire_at,
        drift: status.drift,
        end: status.end,
        members: status.members,
        leads: status.leads,
        log_tail: status.log_tail,
        started_at: node.started_at,
        reported_at: now,
        // A reader allows for a late report: jitter shortens the interval, never lengthens it.
        next_within_s: node.settings.report_every.as_secs() + 60,
    }
}
