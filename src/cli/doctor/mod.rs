//! `doctor`: can this machine do its job? Every check says what it looked at, what it found, why, and what to do.
//! Nothing is changed: the gate refuses.

mod cluster;
mod judge;
mod machine;
mod registry;
mod store;

use super::compose;
use super::{Form, Global, Output, print, print_json};
use crate::observe::text::fold;
use clap::Args;
use kubestrap_core::config::failure;
use kubestrap_core::gate::ReadOnly;
use kubestrap_core::model::cause::{ExitCode, Failure, Outcome};
use kubestrap_core::model::plain::plain;
use kubestrap_core::model::register::SCHEMA;
use kubestrap_core::node::Silent;
use serde_json::json;
use std::rc::Rc;

/// Check whether this machine can do its job, and say how to mend what it cannot. Changes nothing.
#[derive(Args)]
#[command(after_help = "Examples:
  kubestrap doctor
  kubestrap doctor -o json | jq '.checks[] | select(.result == \"failed\")'

Exit code 21 when a check failed. A warning is something to know, not a failure.")]
pub struct Doctor {
    #[command(flatten)]
    output: Output,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Ok,
    /// It works, and somebody should know.
    Warning,
    /// It does not work.
    Failed,
    /// It cannot be asked here, or not yet.
    Skipped,
}

impl Finding {
    fn word(&self) -> &'static str {
        match self {
            Finding::Ok => "ok",
            Finding::Warning => "warning",
            Finding::Failed => "failed",
            Finding::Skipped => "skipped",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub what: &'static str,
    /// How it is.
    pub finding: Finding,
    /// What was found, or why it could not be asked.
    pub detail: String,
    /// The failure table's label.
    pub cause: Option<&'static str>,
    /// What to do.
    pub fix: Option<String>,
}

impl Check {
    /// As it should be.
    pub fn ok(what: &'static str, detail: impl Into<String>) -> Check {
        Check { what, finding: Finding::Ok, detail: detail.into(), cause: None, fix: None }
    }

    /// Something to know.
    pub fn warning(what: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { what, finding: Finding::Warning, detail: detail.into(), cause: None, fix: Some(fix.into()) }
    }

    /// Not asked.
    pub fn skipped(what: &'static str, why: impl Into<String>) -> Check {
        Check { what, finding: Finding::Skipped, detail: why.into(), cause: None, fix: None }
    }

    /// It does not work.
    pub fn failed(what: &'static str, failure: &Failure) -> Check {
        Check {
            what,
            finding: Finding::Failed,
            detail: format!("failed to {}: {}", failure.attempted, failure.detail),
            cause: Some(failure.cause.row().label),
            fix: Some(failure.fix().to_owned()),
        }
    }

    /// From the result of a call.
    pub fn of(what: &'static str, result: Outcome<String>) -> Check {
        match result {
            Ok(detail) => Check::ok(what, detail),
            Err(failure) => Check::failed(what, &failure),
        }
    }
}

impl Doctor {
    /// Prints every check; exit code 21 when one failed.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        let checks = all(global).await;
        match self.output.output {
            Form::Human => print(&human(&checks))?,
            Form::Json => {
                print_json(&json!({ "schema": SCHEMA, "checks": checks.iter().map(as_json).collect::<Vec<_>>() }))?
            }
        }
        let failed = checks.iter().any(|check| check.finding == Finding::Failed);
        Ok(if failed { ExitCode::CheckFailed } else { ExitCode::Done })
    }
}

async fn all(global: &Global) -> Vec<Check> {
    let mut checks = vec![configuration(global).await];
    if checks[0].finding == Finding::Failed {
        return checks;
    }
    let node = match compose::node(global, Rc::new(ReadOnly), Rc::new(Silent)).await {
        Ok(node) => node,
        Err(failure) => {
            checks.push(Check::failed("identity", &failure));
            return checks;
        }
    };
    let identity =
        format!("{}, node name {}, address {}", node.identity.key(), node.identity.node_name, node.identity.address);
    checks.push(Check::ok("identity", identity));
    checks.extend(store::checks(&node).await);
    checks.extend(machine::checks(&node).await);
    checks.extend(registry::checks(&node).await);
    checks.extend(cluster::checks(&node).await);
    checks
}

async fn configuration(global: &Global) -> Check {
    const WHAT: &str = "configuration";
    let early = match compose::early(global) {
        Ok(early) => early,
        Err(failure) => return Check::failed(WHAT, &failure),
    };
    match compose::configuration(global, &early).await {
        Err(failure) => Check::failed(WHAT, &failure),
        Ok(Err(problems)) => Check::failed(WHAT, &failure(&problems)),
        Ok(Ok(effective)) => {
            let settings = effective.settings;
            Check::ok(WHAT, format!("{} of cluster {}", settings.role.as_str(), settings.cluster))
        }
    }
}

fn human(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.what.len()).max().unwrap_or_default();
    let indent = 9 + width + 2;
    let mut out = String::new();
    for check in checks {
        let detail = fold(&plain(&check.detail), 100.max(indent + 40), indent);
        out.push_str(&format!("{:7}  {:width$}  {detail}\n", check.finding.word(), check.what));
        if let Some(cause) = check.cause {
            out.push_str(&format!("{:indent$}cause: {cause}\n", ""));
        }
        if let Some(fix) = &check.fix {
            out.push_str(&format!("{:indent$}fix: {}\n", "", fold(&plain(fix), 100.max(indent + 40), indent + 5)));
        }
    }
    let count = |finding: Finding| checks.iter().filter(|check| check.finding == finding).count();
    out.push_str(&format!(
        "\n{} ok, {} warnings, {} failed, {} skipped\n",
        count(Finding::Ok),
        count(Finding::Warning),
        count(Finding::Failed),
        count(Finding::Skipped)
    ));
    out
}

fn as_json(check: &Check) -> serde_json::Value {
    json!({
        "check": check.what,
        "result": check.finding.word(),
        "detail": check.detail,
        "cause": check.cause,
        "fix": check.fix,
    })
}
