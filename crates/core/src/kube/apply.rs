//! Addons by server-side apply: each document of a manifest is a PATCH with our field manager, at the path that the
//! API server's own discovery gives for its kind.

use super::{Api, encode_segment, refused};
use crate::model::cause::{Cause, Failure, Outcome};
use serde_json::Value;

/// Owner of the fields we apply; stable, for it decides conflicts.
const FIELD_MANAGER: &str = "kubestrap";

/// An object to apply, with the place it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The file, and the number of the document in it.
    pub origin: String,
    /// The object.
    pub object: Value,
}

impl Manifest {
    fn text(&self, pointer: &str) -> &str {
        self.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// `DaemonSet kube-system/cilium`.
    pub fn title(&self) -> String {
        let (kind, name) = (self.text("/kind"), self.text("/metadata/name"));
        match self.text("/metadata/namespace") {
            "" => format!("{kind} {name}"),
            namespace => format!("{kind} {namespace}/{name}"),
        }
    }
}

/// The objects of a manifest file: YAML documents; empty ones are passed over, a `List` is opened.
pub fn parse_manifest(origin: &str, text: &str) -> Outcome<Vec<Manifest>> {
    let broken = |why: String| {
        Failure::new(Cause::Configuration, format!("read the addon {origin}"), why).advise("correct the manifest")
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| broken(error.to_string()))?;
    let mut manifests = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        if document.is_null() {
            continue;
        }
        let objects = match document.get("items").and_then(Value::as_array) {
            Some(items) if document.get("kind").and_then(Value::as_str).is_some_and(|k| k.ends_with("List")) => {
                items.clone()
            }
            _ => vec![document],
        };
        for object in objects {
            let manifest = Manifest { origin: format!("{origin}, document {}", index + 1), object };
            for needed in ["/apiVersion", "/kind", "/metadata/name"] {
                if manifest.text(needed).is_empty() {
                    return Err(broken(format!("document {} has no {}", index + 1, &needed[1..])));
                }
            }
            manifests.push(manifest);
        }
    }
    Ok(manifests)
}

/// Namespaces and definitions first, then the rest in the order of the files: what others need must exist.
pub fn in_order(mut manifests: Vec<Manifest>) -> Vec<Manifest> {
    manifests.sort_by_key(|manifest| match manifest.text("/kind") {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "ServiceAccount" | "ClusterRole" | "ClusterRoleBinding" | "Role" | "RoleBinding" => 2,
        _ => 3,
    });
    manifests
}

impl Api {
    /// Applies one object. `ApiUnavailable` when its kind is not served yet (a definition that was just applied takes a
    /// moment): try again.
    pub async fn apply(&self, manifest: &Manifest) -> Outcome<()> {
        let path = self.path_of(manifest).await?;
        let query = format!("{path}?fieldManager={FIELD_MANAGER}&force=true");
        let body = Some(("application/apply-patch+yaml", &manifest.object));
        let answer = self.call("PATCH", &query, body).await?;
        match answer.status {
            200 | 201 => Ok(()),
            _ => {
                let failure = refused("apply", &path, &answer);
                Err(Failure { attempted: format!("apply {} ({})", manifest.title(), manifest.origin), ..failure })
            }
        }
    }

    async fn path_of(&self, manifest: &Manifest) -> Outcome<String> {
        let version = manifest.text("/apiVersion");
        let base = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
        let listed = self.get(&base).await?.unwrap_or_default();
        resource_path(&base, &listed, manifest).ok_or_else(|| {
            Failure::new(
                Cause::ApiUnavailable,
                format!("apply {} ({})", manifest.title(), manifest.origin),
                format!("the API server does not serve {version} {}", manifest.text("/kind")),
            )
            .advise("if it is a custom resource, add its CustomResourceDefinition to `addons`")
        })
    }
}

fn resource_path(base: &str, listed: &Value, manifest: &Manifest) -> Option<String> {
    let resources = listed.get("resources")?.as_array()?;
    let of_kind = |r: &&Value| {
        let name = r.get("name").and_then(Value::as_str).unwrap_or_default();
        r.get("kind").and_then(Value::as_str) == Some(manifest.text("/kind")) && !name.contains('/')
    };
    let resource = resources.iter().find(of_kind)?;
    let plural = resource.get("name")?.as_str()?;
    let name = encode_segment(manifest.text("/metadata/name"));
    if resource.get("namespaced").and_then(Value::as_bool) == Some(true) {
        let namespace = match manifest.text("/metadata/namespace") {
            "" => "default".to_owned(),
            namespace => encode_segment(namespace),
        };
        Some(format!("{base}/namespaces/{namespace}/{plural}/{name}"))
    } else {
        Some(format!("{base}/{plural}/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn manifests_are_split_opened_and_ordered() {
        let text = "---\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: x}\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: x}}\n";
        let all = in_order(parse_manifest("cni.yaml", text).expect("manifest"));
        assert_eq!(all.iter().map(Manifest::title).collect::<Vec<_>>(), ["Namespace x", "ConfigMap x/a"]);
    }

    #[test]
    fn an_object_without_a_name_is_refused_with_its_place() {
        let failure = parse_manifest("cni.yaml", "apiVersion: v1\nkind: ConfigMap\n").expect_err("no name");
        assert!(failure.to_string().contains("document 1 has no metadata/name"), "{failure}");
    }

    #[test]
    fn paths_follow_discovery() {
        let listed = json!({"resources": [
            {"name": "daemonsets/status", "kind": "DaemonSet", "namespaced": true},
            {"name": "daemonsets", "kind": "DaemonSet", "namespaced": true},
            {"name": "things", "kind": "Thing", "namespaced": false}]});
        let manifest =
            |kind: &str| Manifest { origin: String::new(), object: json!({"kind": kind, "metadata": {"name": "a/b"}}) };
        assert_eq!(
            resource_path("/apis/apps/v1", &listed, &manifest("DaemonSet")),
            Some("/apis/apps/v1/namespaces/default/daemonsets/a%2Fb".to_owned())
        );
        assert_eq!(
            resource_path("/apis/x/v1", &listed, &manifest("Thing")),
            Some("/apis/x/v1/things/a%2Fb".to_owned())
        );
        assert_eq!(resource_path("/apis/x/v1", &listed, &manifest("Other")), None);
    }
}
