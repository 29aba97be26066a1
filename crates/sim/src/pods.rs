//! A service of a few pods with a budget, on the workers of a cluster that is rolled: what a drain meets.

use crate::objects::{Answer, parameter};
use crate::ports::Desk;
use crate::universe::Universe;
use kubestrap_core::model::identity::Role;
use serde_json::{Value, json};
use std::time::Duration;

/// So many pods the service wants, and all but one its budget.
const WANTED: usize = 4;
/// A new pod serves after this.
const STARTS: Duration = Duration::from_secs(20);
/// A pod that is evicted ends within this.
const GRACE: Duration = Duration::from_secs(30);
const MIRRORS: &str = "/api/v1/namespaces/kube-system/pods";
const IN_NAMESPACE: &str = "/api/v1/namespaces/default/pods/";

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its number, which nothing else has.
    pub number: u64,
    /// The machine it runs on.
    pub machine: usize,
    /// Since when it serves.
    serves_from: Duration,
    /// When it is gone, once it was evicted.
    ends_at: Option<Duration>,
}

impl Pod {
    fn name(&self) -> String {
        format!("web-{}", self.number)
    }

    fn uid(&self) -> String {
        format!("00000000-0000-4000-9000-{:012x}", self.number)
    }
}

impl Universe {
    /// The scheduler, the service's controller and the kubelets: ended pods are gone, missing ones are made.
    pub fn keep_pods(&self, etcd: usize) {
        let now = self.timeline.now();
        let open: Vec<usize> = self.machines.iter().filter(|m| m.role == Role::Worker).map(|m| m.index).collect();
        let open: Vec<usize> = open.into_iter().filter(|machine| self.takes_pods(etcd, *machine)).collect();
        let mut etcds = self.etcds.borrow_mut();
        let pods = &mut etcds[etcd].pods;
        // The pod garbage collector: what was on a machine that is gone is gone.
        pods.retain(|pod| !self.machines[pod.machine].is_dead() && pod.ends_at.is_none_or(|at| now < at));
        let mut living = pods.iter().filter(|pod| pod.ends_at.is_none()).count();
        while living < WANTED {
            let on = |machine: &usize| etcds[etcd].pods.iter().filter(|pod| pod.machine == *machine).count();
            let Some(machine) = open.iter().copied().min_by_key(on) else { return };
            let number = etcds[etcd].objects.next();
            etcds[etcd].pods.push(Pod { number, machine, serves_from: now + STARTS, ends_at: None });
            living += 1;
        }
    }

    fn takes_pods(&self, etcd: usize, machine: usize) -> bool {
        let Some(node) = self.node_object(etcd, &self.machines[machine].identity.node_name) else { return false };
        let ready = node.pointer("/status/conditions/0/status") == Some(&json!("True"));
        ready && node.pointer("/spec/unschedulable") != Some(&json!(true))
    }

    /// How many pods are on a machine, those that end included.
    pub fn pods_on(&self, etcd: usize, machine: usize) -> usize {
        self.etcds.borrow()[etcd].pods.iter().filter(|pod| pod.machine == machine).count()
    }

    fn evict(&self, etcd: usize, asker: usize, name: &str, uid: Option<&str>) -> Answer {
        let now = self.timeline.now();
        let mut etcds = self.etcds.borrow_mut();
        let pods = &mut etcds[etcd].pods;
        let serves = |pod: &&Pod| pod.ends_at.is_none() && pod.serves_from <= now && self.machines[pod.machine].is_on();
        let serving = pods.iter().filter(serves).count();
        let Some(pod) = pods.iter_mut().find(|pod| pod.name() == name && pod.machine == asker) else {
            return (404, json!({ "message": "not found" }));
        };
        if uid.is_some_and(|uid| uid != pod.uid()) {
            return (409, json!({ "message": "the UID does not match" }));
        }
        if pod.ends_at.is_some() {
            return (201, json!({}));
        }
        // A pod that does not serve yet is no loss to the budget.
        if pod.serves_from <= now && serving < WANTED {
            self.count("eviction-blocked");
            let told =
                format!("The disruption budget web needs {} healthy pods and has {serving} currently", WANTED - 1);
            let causes = json!([{ "reason": "DisruptionBudget", "message": told }]);
            return (
                429,
                json!({ "kind": "Status", "status": "Failure", "code": 429,
                "message": "Cannot evict pod as it would violate the pod's disruption budget.", "details": { "causes": causes } }),
            );
        }
        pod.ends_at = Some(now + self.rng.between(Duration::from_secs(1), GRACE));
        self.count("eviction");
        (201, json!({}))
    }
}

impl Desk {
    /// The answer about pods; a node sees and evicts its own.
    pub(crate) fn serve_pods(
        &self,
        etcd: usize,
        user: &str,
        method: &str,
        path: &str,
        query: &str,
        body: Option<&Value>,
    ) -> Option<Answer> {
        let own = &self.universe.machines[self.machine].identity.node_name;
        match (method, path) {
            ("GET", daemons) if daemons.contains("/daemonsets/") => Some((200, json!({}))),
            ("GET", "/api/v1/pods") => {
                let of = format!("spec.nodeName%3D{own}");
                if user != "admin" && parameter(query, "fieldSelector") != of {
                    return Some((403, json!({ "message": "pods of other nodes" })));
                }
                Some((200, json!({ "items": self.pods(etcd) })))
            }
            ("GET", MIRRORS) if user == "admin" => {
                self.universe.tend_members(etcd);
                let mirrors = self.universe.etcds.borrow()[etcd].mirrors.clone();
                let component = parameter(query, "labelSelector").replace("%3D", "=").replace("%2C", ",");
                let of = |part: &str| part.strip_prefix("component=").map(|name| format!("{name}-"));
                let wanted = component.split(',').find_map(of).unwrap_or_default();
                let items = mirrors.iter().filter(|pod| pod.starts_with(&wanted));
                Some((200, json!({ "items": items.map(|pod| self.universe.shown_mirror(pod)).collect::<Vec<_>>() })))
            }
            ("DELETE", mirror) if user == "admin" && mirror.starts_with(MIRRORS) => {
                let name = &mirror[MIRRORS.len() + 1..];
                let removed = self.universe.etcds.borrow_mut()[etcd].mirrors.remove(name);
                if removed { Some((200, json!({}))) } else { Some((404, json!({ "message": "not found" }))) }
            }
            ("POST", eviction) => {
                let name = eviction.strip_prefix(IN_NAMESPACE)?.strip_suffix("/eviction")?;
                let uid = body.and_then(|body| body.pointer("/deleteOptions/preconditions/uid"));
                Some(self.universe.evict(etcd, self.machine, name, uid.and_then(Value::as_str)))
            }
            _ => None,
        }
    }

    /// This machine's pods: the service's, and one of a living DaemonSet, which stays.
    fn pods(&self, etcd: usize) -> Vec<Value> {
        let etcds = self.universe.etcds.borrow();
        let own = &self.universe.machines[self.machine].identity.node_name;
        let owned = |kind: &str| json!([{ "apiVersion": "apps/v1", "kind": kind, "name": "web", "uid": "1", "controller": true }]);
        let of_service = |pod: &Pod| {
            let ends = pod.ends_at.map(|at| self.universe.wall_at(at).to_string());
            json!({ "metadata": { "namespace": "default", "name": pod.name(), "uid": pod.uid(),
                "ownerReferences": owned("ReplicaSet"), "deletionTimestamp": ends },
                "spec": { "nodeName": own, "terminationGracePeriodSeconds": GRACE.as_secs() }, "status": { "phase": "Running" } })
        };
        let mine = etcds[etcd].pods.iter().filter(|pod| pod.machine == self.machine);
        let daemon = json!({ "metadata": { "namespace": "kube-system", "name": "agent", "uid": "daemon",
            "ownerReferences": owned("DaemonSet") }, "spec": { "nodeName": own }, "status": { "phase": "Running" } });
        mine.map(of_service).chain([daemon]).collect()
    }
}
