//! What an API server keeps of a cluster: Nodes, Leases and the ConfigMap of the arbiter's ledger, with versions,
//! conflicts, and what the node authorizer allows. Pods: [`crate::pods`].

use crate::cluster::Etcd;
use crate::machine::Power;
use crate::ports::Desk;
use crate::universe::Universe;
use kubestrap_core::model::identity::Role;
use kubestrap_core::ports::ApiRequest;
use kubestrap_core::rollout::ledger::Ledger;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const NODES: &str = "/api/v1/nodes";
const KUBE_SYSTEM: &str = "/api/v1/namespaces/kube-system/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
/// The ConfigMap of the arbiter's ledger.
pub const LEDGER: &str = "/api/v1/namespaces/kube-system/configmaps/kubestrap-rollout";
/// The label of a master's Node.
const MASTER: &str = "node-role.kubernetes.io/control-plane";
/// A kubelet posts this long after a boot.
const KUBELET_STARTS: Duration = Duration::from_secs(15);
/// Small pages, so that every list has several.
const PAGE: usize = 3;

/// An answer: its status and its body.
pub type Answer = (u16, Value);

/// Objects by their path.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    all: BTreeMap<String, Value>,
    version: u64,
}

impl Objects {
    /// One of them.
    pub fn get(&self, path: &str) -> Option<&Value> {
        self.all.get(path)
    }

    /// Those below a path, in order.
    pub fn below<'a>(&'a self, path: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
        let prefix = format!("{path}/");
        self.all.iter().filter(move |(path, _)| path.starts_with(&prefix))
    }

    /// A number that nothing else has.
    pub fn next(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Writes an object; `at` is the server's time.
    pub fn put(&mut self, path: &str, mut object: Value, at: &str) -> Value {
        let version = self.next();
        let known = self.all.get(path);
        let uid = known.and_then(|known| known.pointer("/metadata/uid").cloned());
        let made = known.and_then(|known| known.pointer("/metadata/creationTimestamp").cloned());
        object["metadata"]["uid"] = uid.unwrap_or_else(|| format!("{version:08x}-0000-4000-8000-000000000000").into());
        object["metadata"]["creationTimestamp"] = made.unwrap_or_else(|| at.into());
        object["metadata"]["resourceVersion"] = version.to_string().into();
        object["metadata"]["managedFields"] = json!([{ "time": at }]);
        self.all.insert(path.to_owned(), object.clone());
        object
    }

    fn remove(&mut self, path: &str) {
        self.all.remove(path);
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match target.as_object_mut() {
            Some(map) if value.is_null() => {
                map.remove(key);
            }
            _ => merge(&mut target[key.as_str()], value),
        }
    }
}

fn version_of(object: &Value) -> Option<&str> {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str)
}

/// A value of a query.
pub fn parameter<'a>(query: &'a str, key: &str) -> &'a str {
    query.split('&').find_map(|part| part.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default()
}

impl Desk {
    /// The answer about an object; `None` when it is none of those that are kept here.
    pub fn serve_objects(&self, etcd: usize, user: &str, request: &ApiRequest) -> Option<Answer> {
        let universe = &self.universe;
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let body = request.body.as_ref().and_then(|(_, body)| serde_json::from_slice(body).ok());
        universe.keep_nodes(etcd);
        if universe.scenario.rolls {
            universe.keep_pods(etcd);
        }
        if path.contains("/pods") || path.contains("/daemonsets/") {
            return self.serve_pods(etcd, user, request.method, path, query, body.as_ref());
        }
        let own = format!("{NODES}/{}", universe.machines[self.machine].identity.node_name);
        let taints = body.as_ref().is_some_and(|body: &Value| body.pointer("/spec/taints").is_some());
        let may = match request.method {
            _ if user == "admin" => true,
            "GET" => path == own,
            "PATCH" => path == own && !taints,
            "POST" => path == EVENTS,
            _ => false,
        };
        if !may {
            return Some((403, json!({ "message": "the node authorizer forbids it" })));
        }
        match (request.method, path) {
            ("POST", EVENTS) => Some((201, json!({}))),
            ("GET", NODES) => Some((200, self.page(etcd, query))),
            // Rights are applied and then believed: `may` above is what they come to.
            ("GET", RBAC) => {
                let kind = |name, kind| json!({ "name": name, "kind": kind, "namespaced": false });
                let kinds = [kind("clusterroles", "ClusterRole"), kind("clusterrolebindings", "ClusterRoleBinding")];
                Some((200, json!({ "resources": kinds })))
            }
            ("PATCH", rights) if rights.starts_with(RBAC) => Some((200, json!({}))),
            (_, path) if [NODES, KUBE_SYSTEM, LEASES].iter().any(|kind| path.starts_with(kind)) => {
                Some(self.serve_object(etcd, request.method, path, body.as_ref()))
            }
            _ => None,
        }
    }

    fn page(&self, etcd: usize, query: &str) -> Value {
        let etcds = self.universe.etcds.borrow();
        let after = parameter(query, "continue").replace("%2F", "/");
        // Whoever asks for the masters alone asks for fifty of them, once.
        let masters = parameter(query, "labelSelector").ends_with("control-plane");
        let is_master = |node: &Value| node.pointer("/metadata/labels").and_then(|of| of.get(MASTER)).is_some();
        let wanted = |path: &str, node: &Value| path > after.as_str() && (!masters || is_master(node));
        let mut items = etcds[etcd].objects.below(NODES).filter(|(path, node)| wanted(path, node));
        let page: Vec<(&String, &Value)> = items.by_ref().take(if masters { 50 } else { PAGE }).collect();
        let next = page.last().filter(|_| items.next().is_some()).map(|(path, _)| (*path).clone());
        let items: Vec<&Value> = page.into_iter().map(|(_, node)| node).collect();
        json!({ "items": items, "metadata": { "continue": next } })
    }

    fn serve_object(&self, etcd: usize, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let at = self.universe.api_time(etcd);
        let conflict = || {
            self.universe.count("api-conflict");
            (409, json!({ "message": "the object has been modified" }))
        };
        let name = body.and_then(|body| body.pointer("/metadata/name")).and_then(Value::as_str).unwrap_or_default();
        let path = if method == "POST" { format!("{path}/{name}") } else { path.to_owned() };
        let found = self.universe.etcds.borrow()[etcd].objects.get(&path).cloned();
        let next = match (method, found, body) {
            ("GET", Some(object), _) => return (200, object),
            ("POST", Some(_), _) => return conflict(),
            ("POST", None, Some(body)) => body.clone(),
            (_, None, _) => return (404, json!({ "message": "not found" })),
            ("DELETE", Some(object), options) => {
                let wanted = options.and_then(|options| options.pointer("/preconditions/uid"));
                if wanted.is_some() && wanted != object.pointer("/metadata/uid") {
                    return conflict();
                }
                self.universe.forget_node(etcd, &path);
                return (200, json!({}));
            }
            ("PUT" | "PATCH", Some(object), Some(body)) => {
                if version_of(body).is_some_and(|version| Some(version) != version_of(&object)) {
                    return conflict();
                }
                let mut next = if method == "PUT" { json!({}) } else { object };
                merge(&mut next, body);
                next
            }
            _ => return (400, json!({ "message": "what is to be done?" })),
        };
        if path == LEDGER {
            self.universe.judge_ledger(etcd, &next);
        }
        let status = if method == "POST" { 201 } else { 200 };
        (status, self.universe.etcds.borrow_mut()[etcd].objects.put(&path, next, &at))
    }
}

impl Universe {
    /// The time of a cluster's API server, as it writes it.
    pub fn api_time(&self, etcd: usize) -> String {
        self.wall_of(self.clock_of(etcd)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// What the arbiter has granted, as it is stored.
    pub fn ledger(&self, etcd: usize) -> Option<Ledger> {
        let etcds = self.etcds.borrow();
        let text = etcds[etcd].objects.get(LEDGER)?.pointer("/data/ledger.json")?.as_str()?;
        Ledger::parse(text).ok()
    }

    /// A Node as it is stored.
    pub fn node_object(&self, etcd: usize, name: &str) -> Option<Value> {
        self.etcds.borrow()[etcd].objects.get(&format!("{NODES}/{name}")).cloned()
    }

    /// Nodes as their kubelets keep them: there, and Ready while the machine runs.
    fn keep_nodes(&self, etcd: usize) {
        let at = self.api_time(etcd);
        let mut etcds = self.etcds.borrow_mut();
        let Etcd { nodes, objects, .. } = &mut etcds[etcd];
        for name in nodes.keys() {
            let Some(machine) = self.machines.iter().find(|machine| machine.identity.node_name == *name) else {
                continue;
            };
            let path = format!("{NODES}/{name}");
            let runs = match machine.state.borrow().power {
                Power::On(since) => since.is_zero() || self.timeline.now() >= since + KUBELET_STARTS,
                _ => false,
            };
            let ready = json!(if runs { "True" } else { "Unknown" });
            let known = objects.get(&path);
            if known.and_then(|node| node.pointer("/status/conditions/0/status")) == Some(&ready) {
                continue;
            }
            let known = known.cloned();
            let labels = match machine.role {
                Role::Master => json!({ (MASTER): "" }),
                Role::Worker => json!({}),
            };
            let mut node = known.unwrap_or_else(|| {
                json!({
                    "metadata": { "name": name, "labels": labels },
                    "spec": { "providerID": machine.identity.provider_id },
                    "status": { "nodeInfo": { "kubeletVersion": crate::kubeadm::KUBE_VERSION },
                        "addresses": [{ "type": "InternalIP", "address": machine.identity.address.to_string() }] },
                })
            });
            node["status"]["conditions"] =
                json!([{ "type": "Ready", "status": ready, "lastTransitionTime": at, "message": "" }]);
            objects.put(&path, node, &at);
        }
    }

    fn forget_node(&self, etcd: usize, path: &str) {
        let mut etcds = self.etcds.borrow_mut();
        let Etcd { nodes, objects, .. } = &mut etcds[etcd];
        objects.remove(path);
        nodes.retain(|name, _| format!("{NODES}/{name}") != path);
    }
}
