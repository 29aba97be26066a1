//! The verdict: a pure function of what was learnt, with a reason that a person can read.
//!
//! | image | content | verdict | may act |
//! |---|---|---|---|
//! | not compared | not compared, no manifest | unknown | no |
//! | not compared | as baked | current | no |
//! | not compared | differs | drifted | with `content: act` |
//! | unknown | anything but *differs* with `content: act` | unknown | no |
//! | unknown | differs, with `content: act` | drifted | yes |
//! | the desired one | not compared, no manifest, unknown, as baked | current | no |
//! | the desired one | differs | drifted | with `content: act` |
//! | another, same content, `same_content_stays` | as the desired one | as the desired one | as the desired one |
//! | another | anything | drifted | yes |
//!
//! An image that cannot be learnt is *unknown*, never *drifted*.

use super::content::Difference;
use crate::config::settings::{Action, ContentPolicy, DriftSettings};
use crate::rollout::wire::Verdict;

/// What is known of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageEvidence {
    /// No source is configured.
    NotCompared,
    /// The desired or the running image could not be learnt; why, for people.
    Unknown(String),
    /// Both are known.
    Known {
        /// The image this machine runs.
        running: String,
        /// The image it should run.
        desired: String,
        /// The desired image's tag `kubestrap:content`.
        desired_content: Option<String>,
        /// What names it, for people: `SSM parameter /acme/node`.
        named_by: String,
    },
}

/// What is known of the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentEvidence {
    /// It is switched off.
    NotCompared,
    /// The machine has no bake manifest.
    NoManifest,
    /// The manifest or a file could not be read; why, for people.
    Unknown(String),
    /// It was compared.
    Known {
        /// The manifest's content, as the tag of an image has it.
        digest: String,
        /// What differs.
        differences: Vec<Difference>,
    },
}

impl ContentEvidence {
    fn differences(&self) -> &[Difference] {
        match self {
            ContentEvidence::Known { differences, .. } => differences,
            _ => &[],
        }
    }
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Why: one sentence.
    pub reason: String,
    /// How far it may go: the configured action for drift that may act, `report` for everything else.
    pub action: Action,
}

/// Judges.
pub fn judge(settings: &DriftSettings, image: &ImageEvidence, content: &ContentEvidence) -> Judgement {
    let by_content = of_content(content);
    let content_acts = settings.content == ContentPolicy::Act && !content.differences().is_empty();
    let on_content = if content_acts { settings.action } else { Action::Report };
    let with = |verdict, reason: String, action| Judgement { verdict, reason, action };
    match (image, by_content) {
        (ImageEvidence::NotCompared, Some((verdict, why))) => with(verdict, why, on_content),
        (ImageEvidence::NotCompared, None) => with(Verdict::Unknown, nothing(content), Action::Report),
        (ImageEvidence::Unknown(_), Some((Verdict::Drifted, why))) if content_acts => {
            with(Verdict::Drifted, why, on_content)
        }
        (ImageEvidence::Unknown(why), _) => with(Verdict::Unknown, why.clone(), Action::Report),
        (ImageEvidence::Known { running, desired, desired_content, named_by }, by_content) => {
            let same = running == desired;
            let as_good = settings.same_content_stays && is_same(desired_content.as_deref(), content);
            if !same && !as_good {
                let reason = format!("it runs {running}, and {named_by} says {desired}");
                return with(Verdict::Drifted, reason, settings.action);
            }
            match by_content {
                Some((Verdict::Drifted, why)) => with(Verdict::Drifted, why, on_content),
                _ if same => with(Verdict::Current, format!("it runs {running}, as {named_by} says"), Action::Report),
                _ => {
                    let reason = format!("{running} has the same content as {desired}, which {named_by} says");
                    with(Verdict::Current, reason, Action::Report)
                }
            }
        }
    }
}

/// What the content says, if it says anything.
fn of_content(content: &ContentEvidence) -> Option<(Verdict, String)> {
    match content {
        ContentEvidence::NotCompared | ContentEvidence::NoManifest => None,
        ContentEvidence::Unknown(why) => Some((Verdict::Unknown, why.clone())),
        ContentEvidence::Known { differences, .. } => Some(match differences.as_slice() {
            [] => (Verdict::Current, "it is as it was baked".to_owned()),
            [first, rest @ ..] => {
                let more = match rest.len() {
                    0 => String::new(),
                    more => format!(", and {more} more"),
                };
                (Verdict::Drifted, format!("it is not as it was baked: {}: {}{more}", first.what, first.how))
            }
        }),
    }
}

fn nothing(content: &ContentEvidence) -> String {
    let manifest = match content {
        ContentEvidence::NotCompared => "`drift.content` is off",
        _ => "there is no bake manifest",
    };
    format!("nothing is compared: `drift.image` names no source, and {manifest}")
}

/// Only a machine that is as it was baked can be as good as another image with that content.
fn is_same(desired: Option<&str>, content: &ContentEvidence) -> bool {
    matches!(content, ContentEvidence::Known { digest, differences } if differences.is_empty() && desired == Some(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(content: ContentPolicy, same_content_stays: bool) -> DriftSettings {
        DriftSettings { content, same_content_stays, action: Action::Replace, ..DriftSettings::default() }
    }

    fn known(desired: &str) -> ImageEvidence {
        ImageEvidence::Known {
            running: "ami-old".into(),
            desired: desired.into(),
            desired_content: Some("sha256:baked".into()),
            named_by: "SSM parameter /x".into(),
        }
    }

    fn content(differences: usize) -> ContentEvidence {
        let difference = |n| Difference { what: format!("file{n}"), how: "it is missing".into() };
        ContentEvidence::Known {
            digest: "sha256:baked".into(),
            differences: (0..differences).map(difference).collect(),
        }
    }

    /// Every row of the table above, for each policy.
    #[test]
    fn the_decision_table() {
        use ContentPolicy::{Act, Report};
        use Verdict::{Current, Drifted, Unknown};
        let unknown = || ImageEvidence::Unknown("throttled".into());
        let lost = || ContentEvidence::Unknown("sha256sum is missing".into());
        let (off, none) = (ContentEvidence::NotCompared, ContentEvidence::NoManifest);
        let cases = [
            (ImageEvidence::NotCompared, off.clone(), Report, false, Unknown, Action::Report, "`drift.content` is off"),
            (ImageEvidence::NotCompared, none.clone(), Act, false, Unknown, Action::Report, "no bake manifest"),
            (ImageEvidence::NotCompared, lost(), Act, false, Unknown, Action::Report, "sha256sum is missing"),
            (ImageEvidence::NotCompared, content(0), Act, false, Current, Action::Report, "as it was baked"),
            (ImageEvidence::NotCompared, content(1), Report, false, Drifted, Action::Report, "file0: it is missing"),
            (ImageEvidence::NotCompared, content(3), Act, false, Drifted, Action::Replace, "and 2 more"),
            (unknown(), content(0), Act, false, Unknown, Action::Report, "throttled"),
            (unknown(), content(1), Report, false, Unknown, Action::Report, "throttled"),
            (unknown(), content(1), Act, false, Drifted, Action::Replace, "file0"),
            (unknown(), none.clone(), Act, true, Unknown, Action::Report, "throttled"),
            (known("ami-old"), none.clone(), Act, false, Current, Action::Report, "it runs ami-old, as SSM"),
            (known("ami-old"), lost(), Act, false, Current, Action::Report, "it runs ami-old"),
            (known("ami-old"), content(1), Report, false, Drifted, Action::Report, "file0"),
            (known("ami-old"), content(1), Act, false, Drifted, Action::Replace, "file0"),
            (
                known("ami-new"),
                none.clone(),
                Report,
                true,
                Drifted,
                Action::Replace,
                "and SSM parameter /x says ami-new",
            ),
            (known("ami-new"), content(0), Report, false, Drifted, Action::Replace, "ami-new"),
            (known("ami-new"), content(0), Report, true, Current, Action::Report, "the same content as ami-new"),
            (known("ami-new"), content(1), Report, true, Drifted, Action::Replace, "ami-new"),
            (known("ami-new"), lost(), Report, true, Drifted, Action::Replace, "ami-new"),
            (known("ami-new"), off, Report, true, Drifted, Action::Replace, "ami-new"),
        ];
        for (image, content, policy, stays, verdict, action, words) in cases {
            let got = judge(&settings(policy, stays), &image, &content);
            assert_eq!(
                (got.verdict, got.action),
                (verdict, action),
                "{image:?} {content:?} {policy:?} {stays}: {got:?}"
            );
            assert!(got.reason.contains(words), "{image:?} {content:?}: {}", got.reason);
        }
    }

    /// Whatever is missing, nothing acts on it.
    #[test]
    fn only_drift_acts_and_never_beyond_what_is_configured() {
        let images =
            [ImageEvidence::NotCompared, ImageEvidence::Unknown("x".into()), known("ami-old"), known("ami-new")];
        let contents = [
            ContentEvidence::NotCompared,
            ContentEvidence::NoManifest,
            ContentEvidence::Unknown("x".into()),
            content(0),
            content(2),
        ];
        for image in &images {
            for content in &contents {
                for policy in [ContentPolicy::Off, ContentPolicy::Report, ContentPolicy::Act] {
                    for action in [Action::Report, Action::Mark, Action::Drain, Action::Replace] {
                        let settings = DriftSettings { content: policy, action, ..DriftSettings::default() };
                        let got = judge(&settings, image, content);
                        assert!(got.action <= action, "{got:?}");
                        assert!(got.verdict == Verdict::Drifted || got.action == Action::Report, "{got:?}");
                        assert!(!got.reason.is_empty());
                    }
                }
            }
        }
    }
}
