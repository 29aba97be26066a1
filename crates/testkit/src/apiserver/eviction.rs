//! Evictions as Kubernetes 1.36's `registry/core/pod/storage/eviction.go` answers them, and the end of pods after their
//! grace. Budgets are judged by their `status.disruptionsAllowed`, which a test writes: no controller counts pods here.

use super::resources::Target;
use super::state::State;
use super::status;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::io;

const PODS: &str = "/api/v1/namespaces/";

/// Carries out an eviction of the pod at `target`, with the options in its body.
pub(super) fn evict(state: &mut State, target: &Target, node: Option<&str>, body: &Value) -> io::Result<(u16, Value)> {
    let path = target.path();
    let name = target.name.as_deref().unwrap_or_default();
    let Some(pod) = state.objects.get(&path).cloned() else {
        return Ok(status(404, "NotFound", &format!("pods {name:?} not found")));
    };
    // The NodeRestriction admission plugin.
    if let Some(node) = node.filter(|node| pod["spec"]["nodeName"] != **node) {
        let why =
            format!("pods {name:?} is forbidden: node {node} can only evict pods with spec.nodeName set to itself");
        return Ok(status(403, "Forbidden", &why));
    }
    let options = &body["deleteOptions"];
    let wanted = &options["preconditions"]["uid"];
    if wanted.is_string() && *wanted != pod["metadata"]["uid"] {
        let why = format!("the UID in the precondition ({wanted}) does not match the UID in record");
        return Ok(status(409, "Conflict", &format!("Operation cannot be fulfilled on Pod {name:?}: {why}")));
    }
    let asks_no_budget = pod["status"]["phase"] == "Succeeded"
        || pod["status"]["phase"] == "Failed"
        || pod["status"]["phase"] == "Pending"
        || pod["metadata"]["deletionTimestamp"].is_string();
    if !asks_no_budget {
        let budgets = budgets(state, target, &pod);
        if budgets.len() > 1 {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            // The failure goes out with the code of a creation.
            return Ok((201, status(500, "", why).1));
        }
        if let Some((at, mut budget)) = budgets.into_iter().next() {
            let allowed = budget["status"]["disruptionsAllowed"].as_u64().unwrap_or_default();
            if allowed == 0 {
                return Ok(refused(&budget));
            }
            budget["status"]["disruptionsAllowed"] = json!(allowed - 1);
            state.put(&at, budget)?;
        }
    }
    begin(state, &path, pod, options)?;
    Ok((201, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})))
}

fn refused(budget: &Value) -> (u16, Value) {
    let (name, healthy) =
        (budget["metadata"]["name"].as_str().unwrap_or_default(), &budget["status"]["currentHealthy"]);
    let healthy = healthy.as_u64().unwrap_or(1);
    let told = format!("The disruption budget {name} needs {healthy} healthy pods and has {healthy} currently");
    let (code, mut body) =
        status(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
    body["details"] = json!({"causes": [{"reason": "DisruptionBudget", "message": told}]});
    (code, body)
}

/// The budgets of the pod's namespace whose `matchLabels` it has.
fn budgets(state: &State, target: &Target, pod: &Value) -> Vec<(String, Value)> {
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let prefix = format!("/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/");
    let selects = |budget: &Value| {
        let wanted = budget["spec"]["selector"]["matchLabels"].as_object();
        wanted.is_some_and(|wanted| wanted.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value))
    };
    let here = state.objects.iter().filter(|(path, budget)| path.starts_with(&prefix) && selects(budget));
    here.map(|(path, budget)| (path.clone(), budget.clone())).collect()
}

/// The pod's end begins: at once without a grace, and without a kubelet to tell of a finished one.
fn begin(state: &mut State, path: &str, mut pod: Value, options: &Value) -> io::Result<()> {
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or_default();
    let finished = pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
    let grace = if finished { 0 } else { options["gracePeriodSeconds"].as_i64().unwrap_or(own) };
    if grace <= 0 {
        return state.remove(path).map(|_| ());
    }
    if pod["metadata"]["deletionTimestamp"].is_null() {
        let ends = Timestamp::now() + SignedDuration::from_secs(grace);
        pod["metadata"]["deletionTimestamp"] = json!(ends.to_string());
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        state.put(path, pod)?;
    }
    Ok(())
}

/// Deletes a pod as `DELETE` does: a static pod's is told its end, and gone when its kubelet has confirmed that, unless
/// the grace is zero.
pub(super) fn delete(state: &mut State, path: &str, pod: Value, grace: Option<i64>) -> io::Result<(u16, Value)> {
    let is_mirror = pod["metadata"]["annotations"][super::mirror::MIRROR].is_string();
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(if is_mirror { 30 } else { 0 });
    begin(state, path, pod, &json!({"gracePeriodSeconds": grace.unwrap_or(own)}))?;
    let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    Ok((200, state.objects.get(path).cloned().unwrap_or(gone)))
}

/// The kubelets' part: pods whose grace is over are gone; a mirror of a static pod goes with its kubelet's word alone.
pub(super) fn end_pods(state: &mut State) -> io::Result<()> {
    let now = Timestamp::now();
    let is_over = |path: &str, pod: &Value| {
        let at = pod["metadata"]["deletionTimestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let is_mirror = pod["metadata"]["annotations"][super::mirror::MIRROR].is_string();
        path.contains("/pods/") && at.is_some_and(|at| at <= now) && !is_mirror
    };
    let pods = state.objects.range(PODS.to_owned()..).take_while(|(path, _)| path.starts_with(PODS));
    let over: Vec<String> = pods.filter(|(path, pod)| is_over(path, pod)).map(|(path, _)| path.clone()).collect();
    for path in over {
        state.remove(&path)?;
    }
    Ok(())
}
