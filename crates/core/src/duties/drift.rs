//! `watch-drift`: whether the node is what it should be, told everywhere somebody looks.
//!
//! Nothing is done about it here: evictions and replacements need the arbiter's grant.

use crate::config::settings::ContentPolicy;
use crate::drift::assess::{Assessment, assess, look_at_content};
use crate::drift::cache::Cache;
use crate::drift::tell;
use crate::drift::verdict::ContentEvidence;
use crate::engine::Duty;
use crate::kube::Api;
use crate::model::cause::{Failure, Outcome};
use crate::model::report::DriftReport;
use crate::node::{Event, Node};
use crate::rollout::wire::Verdict;
use async_trait::async_trait;
use jiff::Timestamp;
use std::cell::RefCell;
use std::time::Duration;

/// A configuration without a source and an image without a manifest change with the agent, which is started anew then.
const NOTHING_TO_COMPARE: Duration = Duration::from_secs(60 * 60);
/// Hashing some hundred megabytes every few minutes would be most of what the agent costs.
const CONTENT_EVERY: Duration = Duration::from_secs(60 * 60);
/// Some answers of AWS, of the API server, and `sha256sum`.
const DEADLINE: Duration = Duration::from_secs(180);

/// Looks, judges and tells.
#[derive(Default)]
pub(super) struct DriftDuty {
    cache: Cache,
    /// What the content was, with its failure, and until when that is good, by uptime.
    content: RefCell<Option<(ContentEvidence, Option<Failure>, Duration)>>,
}

#[async_trait(?Send)]
impl Duty for DriftDuty {
    fn name(&self) -> &'static str {
        "watch-drift"
    }

    fn deadline(&self) -> Duration {
        DEADLINE
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        let drift = &node.settings.drift;
        if drift.image.is_none() && drift.content == ContentPolicy::Off {
            return Ok(NOTHING_TO_COMPARE);
        }
        let (content, failure) = self.content(node).await;
        if drift.image.is_none() && content == ContentEvidence::NoManifest {
            return Ok(NOTHING_TO_COMPARE);
        }
        let assessment = assess(node, &self.cache, content, failure).await;
        let known = node.status().drift;
        let report = report(node, &assessment, known.as_ref(), node.world.time.now());
        self.note(node, &assessment, known.as_ref());
        node.update(|status| status.drift = Some(report));
        let since = tell::tell(node, &Api::kubelet(&node.world.cluster), &assessment).await?;
        node.update(|status| status.drift.iter_mut().for_each(|drift| drift.since = since));
        Ok(node.jitter(drift.every))
    }
}

impl DriftDuty {
    async fn content(&self, node: &Node) -> (ContentEvidence, Option<Failure>) {
        let uptime = node.world.time.uptime();
        if let Some((content, failure, until)) = &*self.content.borrow()
            && uptime < *until
        {
            return (content.clone(), failure.clone());
        }
        let (content, failure) = look_at_content(node).await;
        // What failed is tried again with the next look.
        let lasts = if failure.is_some() { Duration::ZERO } else { node.jitter(CONTENT_EVERY) };
        *self.content.borrow_mut() = Some((content.clone(), failure.clone(), uptime + lasts));
        (content, failure)
    }

    /// A line in the log when the verdict or its reason is another one.
    fn note(&self, node: &Node, assessment: &Assessment, known: Option<&DriftReport>) {
        let judgement = &assessment.judgement;
        if known.is_some_and(|known| known.verdict == judgement.verdict && known.reason == judgement.reason) {
            return;
        }
        let word = match judgement.verdict {
            Verdict::Drifted => "this node has drifted",
            Verdict::Current => "this node has not drifted",
            Verdict::Unknown => "nobody knows whether this node has drifted",
        };
        let warnings: String = assessment.warnings.iter().map(|warning| format!("; {warning}")).collect();
        node.tell(&Event::Note(&format!("{word}: {}{warnings}", judgement.reason)));
    }
}

fn report(node: &Node, assessment: &Assessment, known: Option<&DriftReport>, now: Timestamp) -> DriftReport {
    let (running, desired) = assessment.images(node);
    let judgement = &assessment.judgement;
    DriftReport {
        verdict: judgement.verdict,
        reason: judgement.reason.clone(),
        action: judgement.action.as_str().to_owned(),
        running,
        desired,
        differences: assessment.differences().len() as u64,
        warnings: assessment.warnings.clone(),
        since: known.filter(|known| known.verdict == judgement.verdict).map_or(now, |known| known.since),
    }
}
