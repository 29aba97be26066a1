//! What is known of a pod, and whether a drain touches it.

use super::order::{Class, class};
use jiff::Timestamp;
use serde_json::Value;

/// The kubelet marks the API's pictures of its static pods with it.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// What Kubernetes takes when a pod says nothing.
const DEFAULT_GRACE: u32 = 30;

/// A pod of this node, as far as a drain asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: a pod of the same name with another one is another pod.
    pub uid: String,
    /// When it goes.
    pub class: Class,
    /// `terminationGracePeriodSeconds`, as it says itself.
    pub grace: u32,
    /// Until when it may take to end; `None` while nobody has asked it to end. By the API server's clock.
    pub ends_by: Option<Timestamp>,
    /// Who makes it anew elsewhere.
    pub controller: Controller,
    /// Whether it has ended by itself.
    pub finished: bool,
    /// Names of its `emptyDir` volumes: what is in them is lost.
    pub empty_dirs: Vec<String>,
}

/// Who stands behind a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Controller {
    /// Nobody: it does not come back.
    Nobody,
    /// The kubelet, from a file or an address: the API has only its picture.
    Kubelet,
    /// The DaemonSet of this name, which would put a new one here at once.
    DaemonSet(String),
    /// Something that makes a new one elsewhere.
    Other,
}

/// What a drain does with a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is not touched.
    Stays,
    /// It goes.
    Goes,
    /// It goes when its DaemonSet no longer exists.
    Daemon,
}

impl Pod {
    /// A pod as the API has it; `None` when it lacks what identifies it.
    pub(super) fn read(pod: &Value) -> Option<Pod> {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        let controller = controller(pod);
        let (priority_class, priority) = (text("/spec/priorityClassName"), pod.pointer("/spec/priority"));
        let is_daemon = matches!(controller, Controller::DaemonSet(_));
        let grace = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
        Some(Pod {
            namespace: text("/metadata/namespace")?.to_owned(),
            name: text("/metadata/name")?.to_owned(),
            uid: text("/metadata/uid")?.to_owned(),
            class: class(
                priority_class.unwrap_or_default(),
                priority.and_then(Value::as_i64).unwrap_or_default(),
                is_daemon,
            ),
            // A negative one is 1 s to Kubernetes.
            grace: grace.map_or(DEFAULT_GRACE, |seconds| u32::try_from(seconds).unwrap_or(1)),
            ends_by: text("/metadata/deletionTimestamp").and_then(|at| at.parse().ok()),
            controller,
            finished: matches!(text("/status/phase"), Some("Succeeded" | "Failed")),
            empty_dirs: empty_dirs(pod),
        })
    }

    /// What a drain does with it. Static pods are never touched, finished pods always go.
    pub(super) fn fate(&self) -> Fate {
        match self.controller {
            Controller::Kubelet => Fate::Stays,
            _ if self.finished => Fate::Goes,
            Controller::DaemonSet(_) => Fate::Daemon,
            Controller::Nobody | Controller::Other => Fate::Goes,
        }
    }

    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// What is lost with it for good, for people; `None` when nothing is.
    pub(super) fn loss(&self) -> Option<String> {
        if self.finished {
            return None;
        }
        let alone = matches!(self.controller, Controller::Nobody).then(|| "no controller brings it back".to_owned());
        let data = (!self.empty_dirs.is_empty()).then(|| format!("emptyDir {} is lost", self.empty_dirs.join(", ")));
        let parts: Vec<String> = alone.into_iter().chain(data).collect();
        (!parts.is_empty()).then(|| format!("{}: {}", self.full_name(), parts.join("; ")))
    }
}

fn controller(pod: &Value) -> Controller {
    let mirror = pod.pointer("/metadata/annotations").and_then(|all| all.get(MIRROR)).is_some();
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let is_controller = |owner: &&Value| owner.get("controller").and_then(Value::as_bool) == Some(true);
    let owner = owners.and_then(|owners| owners.iter().find(is_controller));
    let field = |name: &str| owner.and_then(|owner| owner.get(name)).and_then(Value::as_str).unwrap_or_default();
    match (mirror, owner, field("kind"), field("apiVersion")) {
        (true, ..) | (_, _, "Node", "v1") => Controller::Kubelet,
        (_, None, ..) => Controller::Nobody,
        (_, _, "DaemonSet", "apps/v1") => Controller::DaemonSet(field("name").to_owned()),
        _ => Controller::Other,
    }
}

fn empty_dirs(pod: &Value) -> Vec<String> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let empty = volumes.iter().filter(|volume| volume.get("emptyDir").is_some_and(|dir| !dir.is_null()));
    empty.filter_map(|volume| volume.get("name")?.as_str()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(metadata: Value, spec: Value, phase: &str) -> Pod {
        let mut pod =
            json!({"metadata": {"namespace": "default", "name": "p", "uid": "u1"}, "status": {"phase": phase}});
        for (key, value) in metadata.as_object().expect("a map") {
            pod["metadata"][key] = value.clone();
        }
        pod["spec"] = spec;
        Pod::read(&pod).expect("a pod")
    }

    fn owned_by(kind: &str, api_version: &str, controller: bool) -> Value {
        let owner = json!({"kind": kind, "apiVersion": api_version, "name": "o", "controller": controller});
        json!({"ownerReferences": [owner]})
    }

    #[test]
    fn who_stands_behind_a_pod_decides_whether_it_goes() {
        let mirror = json!({"annotations": {"kubernetes.io/config.mirror": "hash"}});
        let table = [
            (json!({}), Controller::Nobody, Fate::Goes, Fate::Goes),
            (owned_by("ReplicaSet", "apps/v1", true), Controller::Other, Fate::Goes, Fate::Goes),
            // An owner that does not control it does not bring it back.
            (owned_by("ReplicaSet", "apps/v1", false), Controller::Nobody, Fate::Goes, Fate::Goes),
            (owned_by("DaemonSet", "apps/v1", true), Controller::DaemonSet("o".into()), Fate::Daemon, Fate::Goes),
            // Only the DaemonSets of Kubernetes put a pod back onto a cordoned node.
            (owned_by("DaemonSet", "apps.kruise.io/v1", true), Controller::Other, Fate::Goes, Fate::Goes),
            (owned_by("Node", "v1", true), Controller::Kubelet, Fate::Stays, Fate::Stays),
            (mirror, Controller::Kubelet, Fate::Stays, Fate::Stays),
        ];
        for (metadata, controller, running, finished) in table {
            let seen = pod(metadata.clone(), json!({}), "Running");
            assert_eq!((&seen.controller, seen.fate()), (&controller, running), "{metadata}");
            for phase in ["Succeeded", "Failed"] {
                assert_eq!(pod(metadata.clone(), json!({}), phase).fate(), finished, "{metadata} {phase}");
            }
        }
    }

    #[test]
    fn the_grace_is_the_pods_own() {
        for (said, read) in [(json!(0), 0), (json!(600), 600), (json!(-1), 1), (Value::Null, DEFAULT_GRACE)] {
            let seen = pod(json!({}), json!({"terminationGracePeriodSeconds": said}), "Running");
            assert_eq!(seen.grace, read);
        }
    }

    #[test]
    fn what_is_lost_is_named() {
        let volumes = json!({"volumes": [{"name": "cache", "emptyDir": {}}, {"name": "c", "configMap": {}}]});
        let told = pod(json!({}), volumes.clone(), "Running").loss();
        assert_eq!(told.as_deref(), Some("default/p: no controller brings it back; emptyDir cache is lost"));
        let owned = owned_by("ReplicaSet", "apps/v1", true);
        assert_eq!(
            pod(owned.clone(), volumes.clone(), "Running").loss().as_deref(),
            Some("default/p: emptyDir cache is lost")
        );
        assert_eq!(pod(owned, json!({}), "Running").loss(), None);
        assert_eq!(pod(json!({}), volumes, "Succeeded").loss(), None);
    }

    #[test]
    fn a_pod_without_an_identity_is_none() {
        assert_eq!(Pod::read(&json!({"metadata": {"namespace": "a", "name": "b"}})), None);
    }
}
