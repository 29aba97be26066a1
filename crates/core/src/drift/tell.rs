//! The verdict on the node's own Node object, where people, controllers and the arbiter see it: an annotation, a label,
//! and an Event when it changes. The kubelet's credentials suffice.

use super::assess::Assessment;
use crate::config::settings::Action;
use crate::kube::{Api, encode_segment, refused};
use crate::model::cause::Outcome;
use crate::node::Node;
use crate::rollout::wire::{self, Annotation, COMPARISON, DRIFTED_LABEL, REQUEST, Request, SCHEMA, Verdict, shortened};
use jiff::Timestamp;
use serde_json::{Value, json};

const MERGE_PATCH: &str = "application/merge-patch+json";

/// Says it, when the Node does not say it yet. Since when the verdict is this: by what the Node said before, so that a
/// restart of the agent does not begin anew. Nothing happens when the node is not registered.
pub async fn tell(node: &Node, access: &Api, assessment: &Assessment) -> Outcome<Timestamp> {
    let (name, now) = (&node.identity.node_name, node.world.time.now());
    let path = format!("/api/v1/nodes/{}", encode_segment(name));
    let Some(object) = access.get(&path).await? else { return Ok(now) };
    let text = object.pointer("/metadata/annotations").and_then(|all| all.get(REQUEST)).and_then(Value::as_str);
    let before = text.and_then(|text| Request::parse(name, text).ok());
    let request = request(node, assessment, before.as_ref(), now);
    let marked = object.pointer("/metadata/labels").and_then(|all| all.get(DRIFTED_LABEL)).is_some();
    let marks = request.verdict == Verdict::Drifted && request.action >= wire::Action::Mark;
    if before.as_ref() != Some(&request) || marked != marks {
        let label = if marks { json!("true") } else { Value::Null };
        let patch = json!({ "metadata": {
            "annotations": { (REQUEST): serde_json::to_string(&request).unwrap_or_default() },
            "labels": { (DRIFTED_LABEL): label },
        } });
        let answer = access.call("PATCH", &path, Some((MERGE_PATCH, &patch))).await?;
        if answer.status != 200 {
            return Err(refused("patch", &path, &answer));
        }
    }
    if before.as_ref().is_none_or(|before| before.verdict != request.verdict) {
        event(node, access, &request, now).await?;
    }
    Ok(request.since)
}

/// The request of this assessment. One that says the same keeps its time.
fn request(node: &Node, assessment: &Assessment, before: Option<&Request>, now: Timestamp) -> Request {
    let (running, desired) = assessment.images(node);
    let judgement = &assessment.judgement;
    let same = |before: &&Request| {
        before.verdict == judgement.verdict && before.desired == desired && before.running == running
    };
    Request {
        schema: SCHEMA,
        comparison: COMPARISON,
        verdict: judgement.verdict,
        reason: shortened(&judgement.reason),
        running: running.clone(),
        desired: desired.clone(),
        group: Some(assessment.group.clone()),
        action: match judgement.action {
            Action::Report => wire::Action::Report,
            Action::Mark => wire::Action::Mark,
            Action::Drain => wire::Action::Drain,
            Action::Replace => wire::Action::Replace,
        },
        instance: node.identity.ec2().map(|ec2| ec2.instance_id.clone()),
        since: before.filter(same).map_or(now, |before| before.since),
    }
}

/// An Event as the kubelet makes them: `kubectl describe node` shows those whose object has the node's name as uid.
async fn event(node: &Node, access: &Api, request: &Request, now: Timestamp) -> Outcome<()> {
    let (reason, kind) = match request.verdict {
        Verdict::Drifted => ("Drifted", "Warning"),
        Verdict::Current => ("NotDrifted", "Normal"),
        Verdict::Unknown => ("DriftUnknown", "Normal"),
    };
    let name = &node.identity.node_name;
    let at = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let body = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": { "name": format!("{name}.{}", node.uuid().simple()), "namespace": "default" },
        "involvedObject": { "apiVersion": "v1", "kind": "Node", "name": name, "uid": name },
        "reason": reason, "type": kind, "message": request.reason, "count": 1,
        "firstTimestamp": at, "lastTimestamp": at,
        "source": { "component": "kubestrap", "host": name },
        "reportingComponent": "kubestrap", "reportingInstance": name,
    });
    let path = "/api/v1/namespaces/default/events";
    let answer = access.call("POST", path, Some(("application/json", &body))).await?;
    // A lost answer repeated under another name would be a second line, no harm; a refusal is worth a complaint.
    if matches!(answer.status, 200 | 201 | 409) { Ok(()) } else { Err(refused("create", path, &answer)) }
}
