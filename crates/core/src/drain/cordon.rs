//! The cordon, and whose it is.
//!
//! One patch under the Node's resourceVersion sets the cordon, the label and whose they are: a person who cordons at the
//! same moment is seen, and an agent that dies leaves no cordon that nobody remembers.

use crate::kube::{Api, encode_segment, refused};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::rollout::wire::CORDONED_BY;
use serde_json::{Value, json};

/// Marks the label below as ours, likewise.
pub const EXCLUDED_BY: &str = "kubestrap.io/excluded-by";
/// Load balancers of cloud providers send nothing to a Node with this label.
pub const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// How owners begin that drain because the machine ends. A grant does not take a cordon from one of them.
pub const END: &str = "end:";
/// The kubelet writes its Node's status at any time.
const CONFLICTS: usize = 5;

/// Cordons the node and takes it from load balancers, and remembers what of that is ours. Nothing happens when all is
/// so already; a person's cordon stays a person's.
///
/// # Errors
/// `NotRegistered` when there is no such Node.
pub async fn cordon(access: &Api, node_name: &str, owner: &str) -> Outcome<()> {
    change(access, node_name, "cordon", |node| cordon_patch(node, owner)).await?.map_or_else(
        || {
            let why = "there is no such Node";
            Err(Failure::new(Cause::NotRegistered, format!("cordon the node {node_name}"), why))
        },
        |_| Ok(()),
    )
}

/// Takes back what [`cordon`] did for this owner; whether there was anything. What a person did, and what is another
/// owner's, stays; so it is when there is no such Node.
pub async fn uncordon_if_ours(access: &Api, node_name: &str, owner: &str) -> Outcome<bool> {
    Ok(change(access, node_name, "uncordon", |node| uncordon_patch(node, owner)).await? == Some(true))
}

/// Reads the Node and sends the patch for it, again after a conflict. `None` without a Node, else whether it was changed.
async fn change(
    access: &Api,
    node_name: &str,
    verb: &str,
    patch: impl Fn(&Value) -> Option<Value>,
) -> Outcome<Option<bool>> {
    let path = format!("/api/v1/nodes/{}", encode_segment(node_name));
    let mut last = None;
    for _ in 0..CONFLICTS {
        let Some(node) = access.get(&path).await? else { return Ok(None) };
        let Some(mut body) = patch(&node) else { return Ok(Some(false)) };
        body["metadata"]["resourceVersion"] = node.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
        let answer = access.call("PATCH", &path, Some(("application/merge-patch+json", &body))).await?;
        match answer.status {
            200 => return Ok(Some(true)),
            404 => return Ok(None),
            409 => last = Some(refused(verb, &path, &answer)),
            _ => return Err(refused(verb, &path, &answer)),
        }
    }
    let nothing = || Failure::new(Cause::ApiRefused, format!("{verb} the node {node_name}"), "no answer");
    Err(last.unwrap_or_else(nothing))
}

/// The value of one of our annotations.
pub(crate) fn annotation<'a>(node: &'a Value, name: &str) -> Option<&'a str> {
    node.pointer("/metadata/annotations")?.get(name)?.as_str()
}

/// What is to be changed so that the Node is cordoned and taken from load balancers; `None` when nothing is.
fn cordon_patch(node: &Value, owner: &str) -> Option<Value> {
    let cordoned = node.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true);
    let excluded = node.pointer("/metadata/labels").and_then(|labels| labels.get(EXCLUDE)).is_some();
    let (by, label_by) = (annotation(node, CORDONED_BY), annotation(node, EXCLUDED_BY));
    let mut patch = json!({});
    if !cordoned {
        patch["spec"]["unschedulable"] = json!(true);
    }
    if takes(cordoned, by, owner) {
        patch["metadata"]["annotations"][CORDONED_BY] = json!(owner);
    }
    if !excluded {
        // The value means nothing; this one is what kops and others write.
        patch["metadata"]["labels"][EXCLUDE] = json!("");
    }
    if takes(excluded, label_by, owner) {
        patch["metadata"]["annotations"][EXCLUDED_BY] = json!(owner);
    }
    patch.as_object().is_some_and(|map| !map.is_empty()).then_some(patch)
}

/// Whether a mark becomes the owner's. It is nobody's to take when a person set it (`set` without a mark); a stale mark on
/// what is not set counts for nothing.
fn takes(set: bool, by: Option<&str>, owner: &str) -> bool {
    match by {
        Some(by) if by == owner => false,
        Some(by) if set => owner.starts_with(END) || !by.starts_with(END),
        Some(_) => true,
        None => !set,
    }
}

/// What is to be changed so that nothing of this owner is left; `None` when nothing is.
fn uncordon_patch(node: &Value, owner: &str) -> Option<Value> {
    let is_ours = |name: &str| annotation(node, name) == Some(owner);
    let mut patch = json!({});
    if is_ours(CORDONED_BY) {
        patch["spec"]["unschedulable"] = json!(false);
        patch["metadata"]["annotations"][CORDONED_BY] = Value::Null;
    }
    if is_ours(EXCLUDED_BY) {
        patch["metadata"]["labels"][EXCLUDE] = Value::Null;
        patch["metadata"]["annotations"][EXCLUDED_BY] = Value::Null;
    }
    patch.as_object().is_some_and(|map| !map.is_empty()).then_some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::api::merge;

    fn cordoned(mut node: Value, owner: &str) -> Value {
        if let Some(patch) = cordon_patch(&node, owner) {
            merge(&mut node, &patch);
        }
        assert_eq!(cordon_patch(&node, owner), None, "once is enough");
        assert_eq!(node.pointer("/spec/unschedulable"), Some(&json!(true)));
        assert!(node.pointer("/metadata/labels").is_some_and(|labels| labels.get(EXCLUDE).is_some()));
        node
    }

    fn uncordoned(mut node: Value, owner: &str) -> Value {
        if let Some(patch) = uncordon_patch(&node, owner) {
            merge(&mut node, &patch);
        }
        assert_eq!(uncordon_patch(&node, owner), None);
        node
    }

    fn is_cordoned(node: &Value) -> bool {
        node.pointer("/spec/unschedulable") == Some(&json!(true))
    }

    fn labels(node: &Value) -> &Value {
        node.pointer("/metadata/labels").expect("labels")
    }

    #[test]
    fn what_was_ours_is_taken_back_and_what_was_a_persons_stays() {
        let bare = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {}});
        let after = uncordoned(cordoned(bare, "g1"), "g1");
        let clean =
            json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {"unschedulable": false}});
        assert_eq!(after, clean);

        let persons = json!({"metadata": {"labels": {(EXCLUDE): "true"}}, "spec": {"unschedulable": true}});
        assert_eq!(uncordoned(cordoned(persons.clone(), "g1"), "g1"), persons);
        // A person's cordon and our label, and the other way round.
        let half = json!({"metadata": {"labels": {}}, "spec": {"unschedulable": true}});
        let after = uncordoned(cordoned(half, "g1"), "g1");
        assert!(is_cordoned(&after) && labels(&after) == &json!({}));
        let half = json!({"metadata": {"labels": {(EXCLUDE): "true"}}});
        let after = uncordoned(cordoned(half, "g1"), "g1");
        assert!(!is_cordoned(&after) && labels(&after) == &json!({(EXCLUDE): "true"}));
    }

    #[test]
    fn a_cordon_of_ours_passes_to_the_next_grant_but_not_from_an_end() {
        let node = cordoned(cordoned(json!({}), "g1"), "g2");
        assert!(is_cordoned(&uncordoned(node.clone(), "g1")), "it is the second grant's");
        assert!(!is_cordoned(&uncordoned(node.clone(), "g2")));
        let ending = cordoned(cordoned(node, "end:spot"), "g3");
        assert_eq!(annotation(&ending, CORDONED_BY), Some("end:spot"));
        assert!(is_cordoned(&uncordoned(ending.clone(), "g3")));
        assert!(!is_cordoned(&uncordoned(ending, "end:spot")));
    }

    #[test]
    fn a_stale_mark_on_a_node_that_a_person_uncordoned_counts_for_nothing() {
        let node = json!({"metadata": {"annotations": {(CORDONED_BY): "end:spot"}}, "spec": {}});
        let node = cordoned(node, "g1");
        assert_eq!(annotation(&node, CORDONED_BY), Some("g1"));
    }
}
