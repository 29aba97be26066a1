//! Asking for an eviction, and what the answers mean.

use super::pods::Pod;
use crate::kube::{encode_segment, refused};
use crate::model::cause::Failure;
use crate::model::plain::plain;
use crate::ports::ApiAnswer;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;

/// Kubernetes' name for what a budget says of itself.
const BUDGET_CAUSE: &str = "DisruptionBudget";
/// A deletion is sent this long before the grace of a pod would reach beyond a hard deadline.
const MARGIN: SignedDuration = SignedDuration::from_secs(5);
/// The longest that one answer may make us wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What is asked for a pod now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Nothing: it is ending.
    Nothing,
    /// An eviction, which budgets may refuse; with this grace instead of the pod's own.
    Evict(Option<u32>),
    /// A deletion that asks no budget, with this grace in seconds, at least 1.
    Delete(u32),
}

/// What to ask for a pod. With a hard deadline (the machine goes away then) a pod is deleted as soon as it could not
/// use its grace otherwise; that grace is what is left, and never 0, which would forget the pod while it runs.
pub(super) fn ask(pod: &Pod, now: Timestamp, deadline: Timestamp, hard: bool) -> Ask {
    let left = deadline.duration_since(now);
    let within = |grace: u32| grace.min(u32::try_from(left.as_secs()).unwrap_or(0)).max(1);
    let overdue = |grace: u32| hard && left <= SignedDuration::from_secs(i64::from(grace)) + MARGIN;
    match pod.ends_by {
        // Somebody gave it more time than the machine has. The API server's clock is not exactly ours.
        Some(at) if hard && at > deadline.max(now).saturating_add(MARGIN).unwrap_or(Timestamp::MAX) => {
            Ask::Delete(within(u32::MAX))
        }
        Some(_) => Ask::Nothing,
        None if overdue(pod.grace) => Ask::Delete(within(pod.grace)),
        // The pod's own 0 would do the same harm.
        None => Ask::Evict((pod.grace == 0).then_some(1)),
    }
}

/// When at the latest a hard drain must look at this pod again: then its deletion is due.
pub(super) fn due_in(pod: &Pod, now: Timestamp, deadline: Timestamp) -> Duration {
    let due = deadline.duration_since(now) - SignedDuration::from_secs(i64::from(pod.grace)) - MARGIN;
    Duration::try_from(due).unwrap_or_default()
}

/// The path of the pod.
pub(super) fn pod_path(pod: &Pod) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", encode_segment(&pod.namespace), encode_segment(&pod.name))
}

/// The body of an eviction of exactly this pod.
pub(super) fn eviction(pod: &Pod, grace: Option<u32>) -> Value {
    let mut options = json!({"preconditions": {"uid": pod.uid}});
    if let Some(seconds) = grace {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": options,
    })
}

/// The body of a deletion of exactly this pod.
pub(super) fn deletion(pod: &Pod, grace: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "DeleteOptions",
        "gracePeriodSeconds": grace, "preconditions": {"uid": pod.uid},
    })
}

/// What an answer means. Whether the pod is gone is seen in the next list, whatever was answered here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It ends now, has ended, or is another pod by now.
    Accepted,
    /// Not now.
    Later {
        /// Why, for people.
        why: String,
        /// The budget that forbids it.
        budget: Option<String>,
        /// How long the server asks to wait.
        wait: Duration,
    },
    /// The server has too much to do; nobody is asked further in this round.
    Busy {
        /// How long the server asks to wait.
        wait: Duration,
    },
    /// It was refused, and the table says what for.
    Refused(Failure),
}

/// Reads the answer to an eviction or a deletion.
pub(super) fn judge(pod: &Pod, answer: &ApiAnswer) -> Answer {
    let status: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |pointer: &str| status.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let failed = text("/kind") == "Status" && text("/status") == "Failure";
    // The API server answers 201 with a Status that says 500 when a pod has several budgets (registry/core/pod/storage).
    let code = match status.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok()) {
        Some(code) if failed && (200..300).contains(&answer.status) => code,
        _ => answer.status,
    };
    let seconds = status.pointer("/details/retryAfterSeconds").and_then(Value::as_u64).unwrap_or_default();
    let wait = Duration::from_secs(seconds).min(LONGEST_WAIT);
    let later = |why: String, budget| Answer::Later { why: plain(&why), budget, wait };
    match code {
        200..=299 if !failed => Answer::Accepted,
        // Gone, or a pod of the same name with another uid. If neither, the next list has it still.
        404 | 409 => Answer::Accepted,
        429 => match cause(&status, BUDGET_CAUSE) {
            Some(told) => later(told.to_owned(), budget(told)),
            None if text("/message").contains("disruption budget") => later(text("/message").to_owned(), None),
            None => Answer::Busy { wait },
        },
        403 if cause(&status, "NamespaceTerminating").is_some() => {
            later(format!("the namespace {} is being deleted", pod.namespace), None)
        }
        500 if text("/message").contains("more than one PodDisruptionBudget") => later(
            "more than one PodDisruptionBudget selects it, which no eviction passes: remove all but one".to_owned(),
            None,
        ),
        _ => Answer::Refused(refused("evict", &pod_path(pod), &ApiAnswer { status: code, body: answer.body.clone() })),
    }
}

/// The message of the cause with this reason.
fn cause<'a>(status: &'a Value, reason: &str) -> Option<&'a str> {
    let causes = status.pointer("/details/causes")?.as_array()?;
    let found = causes.iter().find(|cause| cause.get("reason").and_then(Value::as_str) == Some(reason))?;
    Some(found.get("message").and_then(Value::as_str).unwrap_or_default())
}

/// "The disruption budget web needs 2 healthy pods and has 2 currently": its name.
fn budget(told: &str) -> Option<String> {
    let name = told.strip_prefix("The disruption budget ")?.split_whitespace().next()?;
    Some(plain(name))
}

#[cfg(test)]
mod tests;
