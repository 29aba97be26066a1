//! A Kubernetes API server with one Node, for drains: it answers as 1.36 does, pods end after their grace, budgets
//! recover, and any call can go wrong.

use crate::gate::{Admission, Call, Delivery, Gate};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::ports::{ApiAnswer, ApiRequest, Cluster, Time};
use crate::store::fake::FakeTime;
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// The Node.
pub const NODE: &str = "web-1";
/// Its uid.
pub const NODE_UID: &str = "node-uid";
/// How long a budget's replacement needs to become Ready.
const RECOVERS: SignedDuration = SignedDuration::from_secs(10);
/// How long a request takes.
const TRAVEL: Duration = Duration::from_millis(20);

/// What goes wrong with one call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is not carried out; this is the answer.
    Answer(u16, Value),
    /// It is not carried out, and nobody answers.
    LostBefore,
    /// It is carried out, and nobody answers.
    LostAfter,
    /// The agent dies before it.
    DieBefore,
    /// The agent dies after it.
    DieAfter,
}

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct Logged {
    pub at: Timestamp,
    pub method: &'static str,
    pub path: String,
    pub body: Value,
    /// `None`: nobody learnt it.
    pub answered: Option<u16>,
    /// In which life of the agent.
    pub life: usize,
    /// Pods that were there, and whether the node was cordoned.
    pub there: BTreeSet<String>,
    pub cordoned: bool,
}

impl Logged {
    /// The pod that is asked to end.
    pub fn asked(&self) -> Option<String> {
        let rest = self.path.strip_prefix("/api/v1/namespaces/")?;
        let words: Vec<&str> = rest.split('/').collect();
        match (self.method, words.as_slice()) {
            ("POST", [namespace, "pods", name, "eviction"]) | ("DELETE", [namespace, "pods", name]) => {
                Some(format!("{namespace}/{name}"))
            }
            _ => None,
        }
    }

    /// The grace that was asked for.
    pub fn grace(&self) -> Option<i64> {
        let inner = self.body.get("deleteOptions").unwrap_or(&self.body);
        inner.get("gracePeriodSeconds").and_then(Value::as_i64)
    }
}

/// Everything there is.
pub struct State {
    pub node: Value,
    pub pods: BTreeMap<String, Value>,
    /// Names of the budgets that select a pod.
    pub guards: BTreeMap<String, Vec<String>>,
    /// How many disruptions a budget allows now.
    pub budgets: BTreeMap<String, u32>,
    recovering: Vec<(Timestamp, String)>,
    /// `namespace/name`, and the status of a read.
    pub daemonsets: BTreeMap<String, u16>,
    pub page: usize,
    /// How many continuations expire.
    pub expire: usize,
    /// How often the kubelet writes the Node just before a change.
    pub conflicts: usize,
    pub faults: BTreeMap<usize, Fault>,
    pub log: Vec<Logged>,
    /// The agent dies before or after this gated call, of any port.
    pub kill: Option<(usize, Side)>,
    gated: usize,
    version: u64,
    dead: bool,
    life: usize,
}

/// Of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// The server.
pub struct Server {
    state: RefCell<State>,
    pub time: Rc<FakeTime>,
}

/// A pod of a ReplicaSet with this grace.
pub fn pod(name: &str, grace: i64) -> Value {
    json!({
        "metadata": {
            "namespace": "shop", "name": name, "uid": format!("uid-{name}"),
            "ownerReferences": [{"kind": "ReplicaSet", "apiVersion": "apps/v1", "name": "rs", "controller": true}],
        },
        "spec": {"nodeName": NODE, "terminationGracePeriodSeconds": grace},
        "status": {"phase": "Running"},
    })
}

impl Server {
    pub fn new(time: &Rc<FakeTime>) -> Rc<Self> {
        let node = json!({
            "metadata": {"name": NODE, "uid": NODE_UID, "resourceVersion": "1", "labels": {}, "annotations": {}}, "spec": {},
        });
        let state = State {
            node,
            pods: BTreeMap::new(),
            guards: BTreeMap::new(),
            budgets: BTreeMap::new(),
            recovering: Vec::new(),
            daemonsets: BTreeMap::new(),
            page: 3,
            expire: 0,
            conflicts: 0,
            faults: BTreeMap::new(),
            log: Vec::new(),
            kill: None,
            gated: 0,
            version: 1,
            dead: false,
            life: 0,
        };
        Rc::new(Server { state: RefCell::new(state), time: time.clone() })
    }

    pub fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    pub fn add(&self, pod: Value) {
        let name = |key: &str| pod["metadata"][key].as_str().expect("text").to_owned();
        self.state().pods.insert(format!("{}/{}", name("namespace"), name("name")), pod);
    }

    /// A pod that a budget guards.
    pub fn guard(&self, pod: Value, budgets: &[&str]) {
        let key = format!("shop/{}", pod["metadata"]["name"].as_str().expect("text"));
        self.add(pod);
        self.state().guards.insert(key, budgets.iter().map(|budget| (*budget).to_owned()).collect());
    }

    /// The call with this number, from now on, goes wrong.
    pub fn fail(&self, nth: usize, fault: Fault) {
        let mut state = self.state();
        let at = state.log.len() + nth;
        state.faults.insert(at, fault);
    }

    /// A new life of the agent begins.
    pub fn revive(&self) {
        let mut state = self.state();
        state.dead = false;
        state.life += 1;
    }

    /// Requests that asked a pod to end.
    pub fn asked(&self) -> Vec<Logged> {
        self.state().log.iter().filter(|logged| logged.asked().is_some()).cloned().collect()
    }

    pub fn names(&self) -> Vec<String> {
        self.state().pods.keys().cloned().collect()
    }

    /// The value of an annotation of the Node.
    pub fn annotation(&self, name: &str) -> Option<String> {
        self.state().node["metadata"]["annotations"][name].as_str().map(str::to_owned)
    }

    /// Sets an annotation, or takes it away.
    pub fn annotate(&self, name: &str, value: Option<&str>) {
        let patch = json!({"metadata": {"annotations": {name: value}}});
        let mut state = self.state();
        merge(&mut state.node, &patch);
        state.written();
    }

    pub fn is_cordoned(&self) -> bool {
        self.state().is_cordoned()
    }

    /// Whether the agent has died in this life.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// How many calls of any port there were.
    pub fn gated(&self) -> usize {
        self.state().gated
    }
}

impl State {
    pub fn is_cordoned(&self) -> bool {
        self.node["spec"]["unschedulable"] == json!(true)
    }

    fn written(&mut self) {
        self.version += 1;
        self.node["metadata"]["resourceVersion"] = json!(self.version.to_string());
    }

    /// What has happened by now.
    fn pass(&mut self, now: Timestamp) {
        let over = |pod: &Value| {
            let ends = pod["metadata"]["deletionTimestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
            ends.is_some_and(|at| at <= now)
        };
        let gone: Vec<String> = self.pods.iter().filter(|(_, pod)| over(pod)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.pods.remove(&key);
            for budget in self.guards.remove(&key).unwrap_or_default() {
                self.recovering.push((now + RECOVERS, budget));
            }
        }
        let (ready, later) = std::mem::take(&mut self.recovering).into_iter().partition(|(at, _)| *at <= now);
        self.recovering = later;
        let ready: Vec<(Timestamp, String)> = ready;
        for (_, budget) in ready {
            *self.budgets.entry(budget).or_default() += 1;
        }
    }

    fn answer(&mut self, method: &str, path: &str, body: &Value, now: Timestamp) -> (u16, Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (method, words.as_slice()) {
            ("GET", ["api", "v1", "nodes", NODE]) => (200, self.node.clone()),
            ("PATCH", ["api", "v1", "nodes", NODE]) => self.patch(body),
            ("GET", ["api", "v1", "pods"]) => self.list(query),
            ("POST", ["api", "v1", "namespaces", namespace, "pods", name, "eviction"]) => {
                self.evict(&format!("{namespace}/{name}"), &body["deleteOptions"], now)
            }
            ("DELETE", ["api", "v1", "namespaces", namespace, "pods", name]) => {
                self.end(&format!("{namespace}/{name}"), body, now)
            }
            ("GET", ["apis", "apps", "v1", "namespaces", namespace, "daemonsets", name]) => {
                let status = self.daemonsets.get(&format!("{namespace}/{name}")).copied().unwrap_or(404);
                failure(status, "as scripted")
            }
            _ => failure(404, "no such path"),
        }
    }

    fn patch(&mut self, body: &Value) -> (u16, Value) {
        if self.conflicts > 0 {
            self.conflicts -= 1;
            self.written();
        }
        let wanted = &body["metadata"]["resourceVersion"];
        if !wanted.is_null() && *wanted != self.node["metadata"]["resourceVersion"] {
            return failure(409, "the object has been modified");
        }
        merge(&mut self.node, body);
        self.written();
        (200, self.node.clone())
    }

    /// The continuation is the number of pods that were told.
    fn list(&mut self, query: &str) -> (u16, Value) {
        assert!(query.starts_with(&format!("fieldSelector=spec.nodeName%3D{NODE}&limit=")), "{query}");
        let from = query.split_once("&continue=").map(|(_, token)| token.parse::<usize>().expect("our own token"));
        if from.is_some() && self.expire > 0 {
            self.expire -= 1;
            return failure(410, "The provided continue parameter is too old");
        }
        let from = from.unwrap_or_default();
        let items: Vec<Value> = self.pods.values().skip(from).take(self.page).cloned().collect();
        let next = if from + self.page < self.pods.len() { (from + self.page).to_string() } else { String::new() };
        (200, json!({"kind": "PodList", "metadata": {"continue": next}, "items": items}))
    }

    fn evict(&mut self, key: &str, options: &Value, now: Timestamp) -> (u16, Value) {
        let Some(pod) = self.pods.get(key) else { return failure(404, "not found") };
        let guards = self.guards.get(key).cloned().unwrap_or_default();
        let asks = pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null();
        match guards.as_slice() {
            [budget] if asks && self.budgets.get(budget).copied().unwrap_or_default() == 0 => {
                let told = format!("The disruption budget {budget} needs 1 healthy pods and has 1 currently");
                let causes = json!([{"reason": "DisruptionBudget", "message": told}]);
                let (code, mut body) =
                    failure(429, "Cannot evict pod as it would violate the pod's disruption budget.");
                body["details"] = json!({"causes": causes});
                return (code, body);
            }
            [_, _, ..] if asks => {
                let told =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return (201, failure(500, told).1);
            }
            _ => {}
        }
        let answer = self.end(key, options, now);
        if answer.0 == 200
            && let ([budget], true) = (guards.as_slice(), asks)
            && let Some(allowed) = self.budgets.get_mut(budget)
        {
            *allowed -= 1;
        }
        answer
    }

    fn end(&mut self, key: &str, options: &Value, now: Timestamp) -> (u16, Value) {
        let Some(pod) = self.pods.get_mut(key) else { return failure(404, "not found") };
        if options["preconditions"]["uid"] != pod["metadata"]["uid"] {
            return failure(409, "the UID in the precondition does not match the UID in record");
        }
        let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
        let grace =
            if pod["status"]["phase"] == "Running" { options["gracePeriodSeconds"].as_i64().unwrap_or(own) } else { 0 };
        let ends = now + SignedDuration::from_secs(grace);
        let before = pod["metadata"]["deletionTimestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        pod["metadata"]["deletionTimestamp"] = json!(before.map_or(ends, |before| before.min(ends)).to_string());
        (200, json!({"kind": "Status", "status": "Success"}))
    }
}

/// A `Status`; an object for 200.
pub fn failure(code: u16, message: &str) -> (u16, Value) {
    match code {
        200 => (200, json!({"kind": "DaemonSet"})),
        _ => (code, json!({"kind": "Status", "status": "Failure", "code": code, "message": message})),
    }
}

/// What a server does with a JSON merge patch (RFC 7386).
pub fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else { return *target = patch.clone() };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().expect("a map").remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

#[async_trait(?Send)]
impl Cluster for Server {
    async fn call(&self, request: ApiRequest) -> Outcome<ApiAnswer> {
        let body = request.body.as_ref().map(|(_, body)| serde_json::from_slice(body).expect("JSON"));
        self.time.pass(TRAVEL);
        self.serve(&request, &body.unwrap_or_default())
    }
}

impl Server {
    fn serve(&self, request: &ApiRequest, body: &Value) -> Outcome<ApiAnswer> {
        let now = self.time.now();
        let mut state = self.state();
        state.pass(now);
        let number = state.log.len();
        let fault = state.faults.get(&number).cloned();
        let mut logged = Logged {
            at: now,
            method: request.method,
            path: request.path.clone(),
            body: body.clone(),
            answered: None,
            life: state.life,
            there: state.pods.keys().cloned().collect(),
            cordoned: state.is_cordoned(),
        };
        let (status, body) = match &fault {
            Some(Fault::Answer(status, body)) => (*status, body.clone()),
            Some(Fault::LostBefore) => (0, Value::Null),
            _ => state.answer(request.method, &request.path, body, now),
        };
        let told = matches!(fault, None | Some(Fault::Answer(..)));
        logged.answered = told.then_some(status);
        state.log.push(logged);
        if matches!(fault, Some(Fault::LostBefore | Fault::LostAfter)) {
            let attempted = format!("{} {}", request.method, request.path);
            return Err(Failure::new(Cause::ApiUnavailable, attempted, "no answer"));
        }
        Ok(ApiAnswer { status, body: body.to_string().into_bytes() })
    }
}

/// The agent dies here.
impl Gate for Server {
    fn before(&self, call: &Call, _ticket: u64) -> Admission {
        let mut state = self.state();
        let number = state.log.len();
        if call.name.starts_with("cluster.") && matches!(state.faults.get(&number), Some(Fault::DieBefore)) {
            state.faults.remove(&number);
            state.dead = true;
        }
        if !state.dead {
            state.gated += 1;
            state.dead = state.kill == Some((state.gated, Side::Before));
        }
        if state.dead { Admission::Die } else { Admission::Pass }
    }

    fn after(&self, call: &Call, _ticket: u64, _result: Result<(), &Failure>) -> Delivery {
        let mut state = self.state();
        let last = state.log.len().saturating_sub(1);
        if call.name.starts_with("cluster.") && matches!(state.faults.get(&last), Some(Fault::DieAfter)) {
            state.dead = true;
        }
        state.dead |= state.kill == Some((state.gated, Side::After));
        if state.dead { Delivery::Die } else { Delivery::Deliver }
    }
}
