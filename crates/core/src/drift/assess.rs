//! What is learnt about this node, and the verdict that follows.

use super::cache::Cache;
use super::content::{self, Difference};
use super::manifest::Manifest;
use super::source::{self, Desired, RunningImage};
use super::verdict::{ContentEvidence, ImageEvidence, Judgement, judge};
use crate::config::settings::ContentPolicy;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;

/// All that is known of a node's drift.
#[derive(Debug, Clone)]
pub struct Assessment {
    /// The verdict, why, and how far it may go.
    pub judgement: Judgement,
    /// The image.
    pub image: ImageEvidence,
    /// The content.
    pub content: ContentEvidence,
    /// The running image's own troubles: deprecated, disabled, deregistered.
    pub warnings: Vec<String>,
    /// The group in which a replacement is expected.
    pub group: String,
    /// Why something is unknown.
    pub failure: Option<Failure>,
}

impl Assessment {
    /// What differs from the bake manifest.
    pub fn differences(&self) -> &[Difference] {
        match &self.content {
            ContentEvidence::Known { differences, .. } => differences,
            _ => &[],
        }
    }

    /// The running image, and the desired one, as far as they are known.
    pub fn images(&self, node: &Node) -> (Option<String>, Option<String>) {
        match &self.image {
            ImageEvidence::Known { running, desired, .. } => (Some(running.clone()), Some(desired.clone())),
            _ => (node.identity.ec2().map(|ec2| ec2.image_id.clone()), None),
        }
    }

    /// Whether anything was compared, or should have been.
    pub fn is_about_something(&self) -> bool {
        let silent = matches!(self.content, ContentEvidence::NotCompared | ContentEvidence::NoManifest);
        self.image != ImageEvidence::NotCompared || !silent
    }
}

/// Learns what can be learnt and judges. What fails makes its part *unknown* and is in the answer; nothing is an error.
pub async fn assess(node: &Node, cache: &Cache, content: ContentEvidence, failure: Option<Failure>) -> Assessment {
    let mut failure = failure;
    let (mut warnings, mut group) = (Vec::new(), None);
    let image = match &node.settings.drift.image {
        None => ImageEvidence::NotCompared,
        Some(wanted) => match source::resolve(node, cache, wanted).await {
            Ok(Desired { image, content, named_by, running, group: found }) => {
                warnings.extend(running.complaint(node.world.time.now()));
                group = found.map(|group| group.name);
                ImageEvidence::Known { running: running.id, desired: image, desired_content: content, named_by }
            }
            Err(trouble) => {
                // The running image may have troubles of its own, whichever image is desired.
                let running: Outcome<RunningImage> = source::running_image(node, cache).await;
                warnings.extend(running.ok().and_then(|running| running.complaint(node.world.time.now())));
                let why = trouble.to_string();
                failure = Some(trouble);
                ImageEvidence::Unknown(why)
            }
        },
    };
    let group = node.settings.drift.group.clone().or(group).unwrap_or_else(|| node.settings.role.as_str().to_owned());
    let judgement = judge(&node.settings.drift, &image, &content);
    Assessment { judgement, image, content, warnings, group, failure }
}

/// Compares the machine with its bake manifest; what fails is unknown, with the failure.
pub async fn look_at_content(node: &Node) -> (ContentEvidence, Option<Failure>) {
    if node.settings.drift.content == ContentPolicy::Off {
        return (ContentEvidence::NotCompared, None);
    }
    match compare(node).await {
        Ok(None) => (ContentEvidence::NoManifest, None),
        Ok(Some((digest, differences))) => (ContentEvidence::Known { digest, differences }, None),
        // A manifest nobody can read is no manifest of this image.
        Err(failure) => (ContentEvidence::Unknown(failure.to_string()), Some(failure)),
    }
}

async fn compare(node: &Node) -> Outcome<Option<(String, Vec<Difference>)>> {
    let Some(manifest) = Manifest::read(&*node.world.files)? else { return Ok(None) };
    let (observed, kernel) = content::observe(node, &manifest).await?;
    Ok(Some((manifest.content(), content::compare(&manifest, &observed, kernel.as_deref()))))
}

/// The failure that the exit code of `kubestrap drift` follows when nothing is known.
pub fn unknown(assessment: &Assessment) -> Failure {
    let why = assessment.judgement.reason.clone();
    let other = || Failure::new(Cause::Internal, "judge this node's drift", why);
    assessment.failure.clone().unwrap_or_else(other)
}
