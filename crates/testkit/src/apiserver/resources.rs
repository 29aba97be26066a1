//! Which resources there are, and what a path means.

use super::state::State;
use serde_json::{Value, json};

/// A resource that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    /// Group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural name.
    pub plural: String,
    /// Kind.
    pub kind: String,
    /// Whether it lives in namespaces.
    pub namespaced: bool,
}

/// Group, version, plural, kind, namespaced.
const BUILT_IN: &[(&str, &str, &str, &str, bool)] = &[
    ("", "v1", "namespaces", "Namespace", false),
    ("", "v1", "nodes", "Node", false),
    ("", "v1", "configmaps", "ConfigMap", true),
    ("", "v1", "secrets", "Secret", true),
    ("", "v1", "serviceaccounts", "ServiceAccount", true),
    ("", "v1", "services", "Service", true),
    ("", "v1", "pods", "Pod", true),
    ("apps", "v1", "daemonsets", "DaemonSet", true),
    ("apps", "v1", "deployments", "Deployment", true),
    ("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", false),
    ("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", false),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role", true),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", true),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", false),
    ("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", false),
    ("coordination.k8s.io", "v1", "leases", "Lease", true),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", true),
    ("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", false),
];

impl Resource {
    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `/api/v1` or `/apis/group/version`.
    pub fn prefix(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// `secrets` or `daemonsets.apps`, as errors name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }
}

/// All resources: the built-in ones, and those of established CustomResourceDefinitions.
pub(super) fn all(state: &State) -> Vec<Resource> {
    let built_in = BUILT_IN.iter().map(|(group, version, plural, kind, namespaced)| Resource {
        group: (*group).to_owned(),
        version: (*version).to_owned(),
        plural: (*plural).to_owned(),
        kind: (*kind).to_owned(),
        namespaced: *namespaced,
    });
    let prefix = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/";
    let definitions = state.objects.iter().filter(|(path, _)| path.starts_with(prefix)).map(|(_, object)| object);
    built_in.chain(definitions.filter(|crd| established(crd)).flat_map(custom)).collect()
}

/// Whether a CustomResourceDefinition is served.
pub(super) fn established(crd: &Value) -> bool {
    let conditions = crd["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True")
}

fn custom(crd: &Value) -> Vec<Resource> {
    let spec = &crd["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let versions = spec["versions"].as_array().cloned().unwrap_or_default();
    let served = versions.iter().filter(|version| version["served"] != json!(false));
    served
        .map(|version| Resource {
            group: text(&spec["group"]),
            version: text(&version["name"]),
            plural: text(&spec["names"]["plural"]),
            kind: text(&spec["names"]["kind"]),
            namespaced: spec["scope"] == "Namespaced",
        })
        .collect()
}

/// What a path points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The resource.
    pub resource: Resource,
    /// The namespace; `None` for all of them, or for what has none.
    pub namespace: Option<String>,
    /// The name; `None` for a collection.
    pub name: Option<String>,
    /// `status`, `eviction`, `approval`...
    pub subresource: Option<String>,
}

impl Target {
    /// The canonical path of the object, or of the collection.
    pub fn path(&self) -> String {
        let mut path = self.resource.prefix();
        if let Some(namespace) = &self.namespace {
            path = format!("{path}/namespaces/{namespace}");
        }
        path = format!("{path}/{}", self.resource.plural);
        self.name.as_ref().map_or_else(|| path.clone(), |name| format!("{path}/{name}"))
    }
}

/// Parses a path; `None` when there is no such resource.
pub(super) fn parse(path: &str, resources: &[Resource]) -> Option<Target> {
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, rest) = match words.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        // `/api/v1/namespaces/x` is the Namespace itself.
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) => {
            (Some((*namespace).to_owned()), rest)
        }
        rest => (None, rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, None, None),
        [plural, name] => (*plural, Some((*name).to_owned()), None),
        [plural, name, sub] => (*plural, Some((*name).to_owned()), Some((*sub).to_owned())),
        _ => return None,
    };
    let found = resources.iter().find(|r| r.group == group && r.version == version && r.plural == plural)?;
    if found.namespaced != namespace.is_some() && !(found.namespaced && name.is_none()) {
        return None;
    }
    Some(Target { resource: found.clone(), namespace, name, subresource })
}

/// A discovery document; `None` when the path is not one.
pub(super) fn discovery(path: &str, resources: &[Resource]) -> Option<Value> {
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    match words.as_slice() {
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["apis"] => {
            let mut names: Vec<(&str, &str)> = resources
                .iter()
                .filter(|r| !r.group.is_empty())
                .map(|r| (r.group.as_str(), r.version.as_str()))
                .collect();
            names.sort_unstable();
            names.dedup();
            let groups: Vec<Value> = names.iter().map(|(group, version)| self::group(group, version)).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", group] => {
            let found = resources.iter().find(|r| r.group == *group)?;
            let mut document = self::group(&found.group, &found.version);
            document["kind"] = json!("APIGroup");
            document["apiVersion"] = json!("v1");
            Some(document)
        }
        ["api", version] => list("", version, resources),
        ["apis", group, version] => list(group, version, resources),
        _ => None,
    }
}

fn group(group: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

fn list(group: &str, version: &str, resources: &[Resource]) -> Option<Value> {
    let ours: Vec<&Resource> = resources.iter().filter(|r| r.group == group && r.version == version).collect();
    let first = ours.first()?;
    let verbs = ["create", "delete", "get", "list", "patch", "update"];
    let items: Vec<Value> = ours
        .iter()
        .map(|r| {
            json!({"name": r.plural, "singularName": r.kind.to_lowercase(), "namespaced": r.namespaced, "kind": r.kind, "verbs": verbs})
        })
        .collect();
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": items}),
    )
}
