//! Passes over steps until nothing is wanted.

use super::patience::{Backoff, is_over, longest};
use super::{Step, Verdict};
use crate::journal::{Entry, Journal};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::report::{Phase, StepReport};
use crate::node::{Event, Node};
use futures_util::future::select;
use std::time::Duration;

/// A step that is still wanted after so many successful applies in a row is a defect, not a wait.
const MAX_FRUITLESS: u32 = 5;

/// The trouble a step is in: since when, and what was tried.
#[derive(Default)]
struct Trouble {
    step: Option<&'static str>,
    since: Duration,
    cause: Option<Cause>,
    /// Since when it is this cause.
    cause_since: Duration,
    backoff: Backoff,
}

/// Carries out the steps: returns when none is wanted, or with the first failure that waiting cannot mend or that
/// lasted longer than its patience. With no steps there is nothing to do.
pub async fn bootstrap(node: &Node, steps: &[Box<dyn Step>]) -> Outcome<()> {
    node.enter(Phase::Bootstrapping);
    let mut trouble = Trouble::default();
    let mut fruitless = 0;
    loop {
        match pass(node, steps).await {
            Ok(None) => {
                node.update(|status| (status.step, status.error, status.waiting_for) = (None, None, None));
                node.enter(Phase::Ready);
                return Ok(());
            }
            Ok(Some(step)) => {
                // Only the step that was in trouble ends it: passes before it succeed every time.
                let again = trouble.step == Some(step);
                fruitless = if again && trouble.cause.is_none() { fruitless + 1 } else { 0 };
                if fruitless >= MAX_FRUITLESS {
                    let why = "it was applied several times and is still wanted";
                    return Err(Failure::new(Cause::Internal, format!("carry out {step}"), why));
                }
                trouble = Trouble { step: Some(step), ..Trouble::default() };
                node.update(|status| (status.error, status.waiting_for) = (None, None));
            }
            Err((step, failure)) => back_off(node, step, failure, &mut trouble).await?,
        }
    }
}

/// One pass: the name of the step that was applied, or none when nothing is wanted.
async fn pass<'a>(node: &Node, steps: &'a [Box<dyn Step>]) -> Result<Option<&'static str>, (PatientStep<'a>, Failure)> {
    for step in steps {
        let name = step.name();
        let patient = |applied| PatientStep { step: &**step, name, patience: step.patience(node), applied };
        node.update(|status| status.step = Some(name));
        match step.check(node).await.map_err(|failure| (patient(false), failure))? {
            Verdict::Done(why) => done(node, name, &why),
            Verdict::Wanted(why) => {
                apply(node, &**step, &why).await.map_err(|failure| (patient(true), failure))?;
                return Ok(Some(name));
            }
        }
    }
    Ok(None)
}

#[derive(Clone, Copy)]
struct PatientStep<'a> {
    step: &'a dyn Step,
    name: &'static str,
    patience: Duration,
    /// Whether it failed when it was applied, which the journal knows; otherwise its check failed.
    applied: bool,
}

async fn apply(node: &Node, step: &dyn Step, why: &str) -> Outcome<()> {
    let name = step.name();
    let journal = Journal::new(node.world.files.clone(), node.world.time.clone());
    record(
        node,
        StepReport {
            name: name.to_owned(),
            state: "running".into(),
            began: Some(node.world.time.now()),
            took_ms: None,
            why: why.to_owned(),
        },
    );
    node.tell(&Event::StepStarted { step: name, why });
    journal.note(Entry::StepBegan { step: name.to_owned(), why: why.to_owned() })?;
    let began = node.world.time.uptime();
    let result = step.apply(node).await;
    let took = node.world.time.uptime().saturating_sub(began);
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let failure = result.as_ref().err().map(|f| (f.cause.row().label.to_owned(), f.to_string()));
    let state = if failure.is_some() { "failed" } else { "done" };
    node.update(|status| {
        for report in status.steps.iter_mut().filter(|report| report.name == name) {
            report.state = state.to_owned();
            report.took_ms = Some(took_ms);
        }
    });
    node.tell(&Event::StepEnded { step: name, took, result: result.as_ref().copied() });
    // A full disk must not hide the failure of the step itself.
    let noted = journal.note(Entry::StepEnded { step: name.to_owned(), took_ms, failure });
    result.and(noted)
}

/// Tells once per life and step that nothing is to be done; a step that was applied keeps its times.
fn done(node: &Node, name: &'static str, why: &str) {
    let known = node.status().steps.iter().any(|report| report.name == name && report.state == "done");
    if !known {
        node.tell(&Event::StepDone { step: name, why });
        record(
            node,
            StepReport { name: name.to_owned(), state: "done".into(), began: None, took_ms: None, why: why.to_owned() },
        );
    }
}

fn record(node: &Node, report: StepReport) {
    node.update(|status| match status.steps.iter_mut().find(|known| known.name == report.name) {
        Some(known) => *known = report,
        None => status.steps.push(report),
    });
}

/// Notes the end of a step whose check failed: `status` must be able to say afterwards why the agent is gone. Without a
/// journal it cannot, but the log can.
fn give_up(node: &Node, step: &str, failure: &Failure) {
    let journal = Journal::new(node.world.files.clone(), node.world.time.clone());
    let failure = Some((failure.cause.row().label.to_owned(), failure.to_string()));
    let began = Entry::StepBegan { step: step.to_owned(), why: "to see whether it is needed".to_owned() };
    let ended = Entry::StepEnded { step: step.to_owned(), took_ms: 0, failure };
    let _ = journal.note(began).and_then(|()| journal.note(ended));
}

async fn back_off(node: &Node, step: PatientStep<'_>, failure: Failure, trouble: &mut Trouble) -> Outcome<()> {
    let now = node.world.time.uptime();
    if trouble.step != Some(step.name) || trouble.cause.is_none() {
        let (since, cause_since) = (now, now);
        *trouble =
            Trouble { step: Some(step.name), since, cause: Some(failure.cause), cause_since, ..Trouble::default() };
    } else if trouble.cause != Some(failure.cause) {
        // Another cause is news for the reader, and has its own limit; but the clock of the step's patience goes on.
        (trouble.cause, trouble.cause_since) = (Some(failure.cause), now);
        trouble.backoff = Backoff::default();
    }
    node.complain(&failure);
    let (waited, of_cause) = (now.saturating_sub(trouble.since), now.saturating_sub(trouble.cause_since));
    if !failure.is_transient() || is_over(failure.cause, step.patience, waited, of_cause) {
        let last = if failure.is_transient() { failure.exhausted(waited) } else { failure };
        if !step.applied {
            give_up(node, step.name, &last);
        }
        return Err(last);
    }
    let after = node.jitter(trouble.backoff.step().min(longest(failure.cause)));
    node.enter(Phase::Waiting);
    node.tell(&Event::Retrying { what: step.name, beside: false, failure: &failure, after });
    select(node.world.time.sleep(after), step.step.news(node)).await;
    Ok(())
}
