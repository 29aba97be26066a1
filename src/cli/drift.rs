//! `drift`: is this node what it should be?

use super::compose;
use super::{Form, Global, Output, print, print_json};
use crate::adapters::files::Disk;
use crate::observe::text::fold;
use clap::Args;
use kubestrap_core::drift::assess::{Assessment, assess, look_at_content, unknown};
use kubestrap_core::drift::cache::Cache;
use kubestrap_core::drift::manifest::{self, Manifest};
use kubestrap_core::drift::verdict::{ContentEvidence, ImageEvidence};
use kubestrap_core::gate::ReadOnly;
use kubestrap_core::model::cause::{Cause, ExitCode, Failure, Outcome};
use kubestrap_core::model::plain::plain;
use kubestrap_core::node::{Node, Silent};
use kubestrap_core::rollout::wire::Verdict;
use serde_json::{Value, json};
use std::rc::Rc;

/// Compare this node with the image it should run and with its bake manifest; change nothing.
///
/// The exit code is 20 when it has drifted, 0 when it has not, and that of the failure when nobody knows.
#[derive(Args)]
#[command(after_help = "Examples:
  kubestrap drift
  kubestrap drift --output json
  kubestrap drift --baked          the digest that an image's tag kubestrap:content holds
  kubestrap status --cluster       the same of all nodes, as they last reported it")]
pub struct Drift {
    /// Print the digest of the content that was baked into this machine, and compare nothing. It needs no configuration.
    #[arg(long, conflicts_with = "output")]
    baked: bool,
    #[command(flatten)]
    output: Output,
}

impl Drift {
    /// Prints the verdict and what it rests on.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        if self.baked {
            return print_baked(global);
        }
        let node = compose::node(global, Rc::new(ReadOnly), Rc::new(Silent)).await?;
        let (content, failure) = look_at_content(&node).await;
        let found = assess(&node, &Cache::default(), content, failure).await;
        match self.output.output {
            Form::Human => print(&human(&node, &found))?,
            Form::Json => print_json(&json(&node, &found))?,
        }
        match found.judgement.verdict {
            Verdict::Drifted => Ok(ExitCode::Drift),
            Verdict::Current => Ok(ExitCode::Done),
            // Nothing was to be compared, which is no failure.
            Verdict::Unknown if !found.is_about_something() => Ok(ExitCode::Done),
            Verdict::Unknown => Err(unknown(&found)),
        }
    }
}

/// The digest of the bake manifest, as the tag `kubestrap:content` of an image holds it.
fn print_baked(global: &Global) -> Outcome<ExitCode> {
    let Some(manifest) = Manifest::read(&Disk::new(global.root.clone()))? else {
        let what = format!("read the bake manifest {}", manifest::PATH);
        return Err(Failure::new(Cause::FileAccess, what, "it is not there")
            .advise("`kubestrap install` writes it; this machine was not made by it"));
    };
    print(&format!("{}\n", manifest.content()))?;
    Ok(ExitCode::Done)
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Drifted => "drifted",
        Verdict::Current => "current",
        Verdict::Unknown => "unknown",
    }
}

fn human(node: &Node, found: &Assessment) -> String {
    let (running, desired) = found.images(node);
    let image = match &found.image {
        ImageEvidence::NotCompared => "not compared: `drift.image` names no source".to_owned(),
        ImageEvidence::Unknown(why) => why.clone(),
        ImageEvidence::Known { named_by, .. } => {
            format!("runs {}; {named_by} says {}", running.unwrap_or_default(), desired.unwrap_or_default())
        }
    };
    let content = match &found.content {
        ContentEvidence::NotCompared => "not compared: `drift.content` is off".to_owned(),
        ContentEvidence::NoManifest => format!("not compared: there is no {}", manifest::PATH),
        ContentEvidence::Unknown(why) => why.clone(),
        ContentEvidence::Known { differences, .. } if differences.is_empty() => "as it was baked".to_owned(),
        ContentEvidence::Known { differences, .. } => format!("{} differences from what was baked", differences.len()),
    };
    let mut rows = vec![
        ("Verdict", format!("{}: {}", word(found.judgement.verdict), found.judgement.reason)),
        ("Image", image),
        ("Content", content),
        (
            "May go to",
            format!("{} (configured: {})", found.judgement.action.as_str(), node.settings.drift.action.as_str()),
        ),
    ];
    rows.extend(found.warnings.iter().map(|warning| ("Warning", warning.clone())));
    let mut out = String::new();
    for (name, value) in rows {
        out.push_str(&format!("{name:12}{}\n", fold(&plain(&value), 100, 12)));
    }
    for difference in found.differences() {
        out.push_str(&format!("{:12}{}\n", "", plain(&format!("{}: {}", difference.what, difference.how))));
    }
    out
}

fn json(node: &Node, found: &Assessment) -> Value {
    let (running, desired) = found.images(node);
    let named_by = match &found.image {
        ImageEvidence::Known { named_by, .. } => Some(named_by),
        _ => None,
    };
    let content = match &found.content {
        ContentEvidence::NotCompared => json!({ "compared": false, "why": "switched off" }),
        ContentEvidence::NoManifest => json!({ "compared": false, "why": "no bake manifest" }),
        ContentEvidence::Unknown(why) => json!({ "compared": false, "why": why }),
        ContentEvidence::Known { digest, differences } => {
            let differences: Vec<Value> = differences.iter().map(|d| json!({ "what": d.what, "how": d.how })).collect();
            json!({ "compared": true, "digest": digest, "differences": differences })
        }
    };
    json!({
        "schema": 1,
        "node": node.identity.node_name,
        "verdict": word(found.judgement.verdict),
        "reason": found.judgement.reason,
        "action": found.judgement.action.as_str(),
        "group": found.group,
        "image": { "running": running, "desired": desired, "named_by": named_by },
        "content": content,
        "warnings": found.warnings,
    })
}
