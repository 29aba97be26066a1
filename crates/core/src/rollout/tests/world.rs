//! A small Kubernetes with versions and conflicts, EC2 with Auto Scaling, and nodes that do what they are granted. It
//! checks at each change that the change was allowed.

use crate::model::cause::{Cause, Failure, Outcome};
use crate::rollout::ledger::{Ledger, Phase};
use crate::rollout::view::NodeFacts;
use crate::rollout::wire::{self, Action, Annotation, Grant, Request, State, Verdict};
use crate::testing::api::merge;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

pub const LEDGER: &str = "/api/v1/namespaces/kube-system/configmaps/kubestrap-rollout";
const REGION: &str = "eu-west-1";

pub fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

mod arbiter;
mod life;
mod ports;

pub use arbiter::{Arbiter, pace};

/// What goes wrong with one call of an arbiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    DieBefore,
    DieAfter,
    LostBefore,
    LostAfter,
}

#[derive(Debug, Clone)]
pub struct Instance {
    pub group: Option<String>,
    pub image: String,
    pub state: &'static str,
    pub since: Duration,
    pub node: Option<String>,
}

#[derive(Default)]
pub struct Things {
    pub objects: BTreeMap<String, Value>,
    pub instances: BTreeMap<String, Instance>,
    /// What each group starts, and what its nodes say is desired.
    pub templates: BTreeMap<String, String>,
    pub desired: BTreeMap<String, String>,
    /// Images whose nodes never join.
    pub broken: BTreeSet<String>,
    /// Nodes whose drain gives up; nodes whose agent is dead.
    pub stubborn: BTreeSet<String>,
    pub silent: BTreeSet<String>,
    /// Nodes that were made NotReady.
    pub down: BTreeSet<String>,
    pub action: Option<Action>,
    pub ec2_is_away: bool,
    pub terminated: Vec<(String, String)>,
    pub wrong: Vec<String>,
    version: u64,
    made: u64,
    calls: usize,
    faults: BTreeMap<usize, Fault>,
    pub writes: usize,
}

pub struct World {
    pub state: RefCell<Things>,
    pub uptime: Cell<Duration>,
    pub at_once: usize,
}

impl World {
    pub fn new(at_once: usize) -> Rc<World> {
        let world = World { state: RefCell::default(), uptime: Cell::new(minutes(600)), at_once };
        Rc::new(world)
    }

    pub fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-11-21T00:00:00Z".parse().expect("time");
        start + SignedDuration::try_from(self.uptime.get()).expect("short")
    }

    pub fn pass(&self, time: Duration) {
        self.uptime.set(self.uptime.get() + time);
    }

    pub fn fail(&self, nth: usize, fault: Fault) {
        let mut state = self.state.borrow_mut();
        let at = state.calls + nth;
        state.faults.insert(at, fault);
    }

    pub fn heal(&self) {
        self.state.borrow_mut().faults.clear();
    }

    pub fn calls(&self) -> usize {
        self.state.borrow().calls
    }

    pub fn ledger(&self) -> Ledger {
        let state = self.state.borrow();
        let text = state.objects.get(LEDGER).and_then(|map| map.pointer("/data/ledger.json")?.as_str());
        text.map_or_else(Ledger::default, |text| Ledger::parse(text).expect("a ledger of ours"))
    }

    pub fn nodes(&self) -> Vec<NodeFacts> {
        let state = self.state.borrow();
        let all = state.objects.iter().filter(|(path, _)| path.starts_with("/api/v1/nodes/"));
        all.filter_map(|(_, node)| NodeFacts::read(node)).collect()
    }

    pub fn node(&self, name: &str) -> NodeFacts {
        let state = self.state.borrow();
        state.objects.get(&format!("/api/v1/nodes/{name}")).and_then(NodeFacts::read).expect(name)
    }

    /// Changes an object as somebody else than an arbiter.
    pub fn edit(&self, path: &str, patch: &Value) {
        let now = self.now();
        let mut state = self.state.borrow_mut();
        state.version += 1;
        let version = state.version.to_string();
        let object = state.objects.entry(path.to_owned()).or_insert_with(|| json!({}));
        let before = object.clone();
        merge(object, patch);
        if *object == before {
            return;
        }
        object["metadata"]["resourceVersion"] = version.into();
        object["metadata"]["managedFields"] = json!([{"time": now.to_string()}]);
    }

    pub fn annotate(&self, node: &str, key: &str, value: Option<String>) {
        self.edit(&format!("/api/v1/nodes/{node}"), &json!({"metadata": {"annotations": {key: value}}}));
    }

    /// Starts an instance in a group; its node joins later ([`World::live`]).
    pub fn start(&self, group: &str) -> String {
        let mut state = self.state.borrow_mut();
        state.made += 1;
        let id = format!("i-{:04}", state.made);
        let image = state.templates[group].clone();
        let since = self.uptime.get();
        state
            .instances
            .insert(id.clone(), Instance { group: Some(group.to_owned()), image, state: "running", since, node: None });
        id
    }

    /// A Node that is Ready now.
    pub fn join(&self, name: &str, instance: Option<&str>, master: bool) {
        let uid = {
            let mut state = self.state.borrow_mut();
            state.made += 1;
            if let Some(found) = instance.and_then(|id| state.instances.get_mut(id)) {
                found.node = Some(name.to_owned());
            }
            Uuid::from_u128(u128::from(state.made) << 96 | 7).to_string()
        };
        let labels = if master { json!({"node-role.kubernetes.io/control-plane": ""}) } else { json!({}) };
        let provider = instance.map(|id| format!("aws:///eu-west-1a/{id}"));
        self.edit(
            &format!("/api/v1/nodes/{name}"),
            &json!({"metadata": {"name": name, "uid": uid, "labels": labels,
                "creationTimestamp": self.now().to_string()}, "spec": {"providerID": provider}}),
        );
        self.ready(name, true);
    }

    pub fn ready(&self, name: &str, ready: bool) {
        if !self.state.borrow().objects.contains_key(&format!("/api/v1/nodes/{name}")) {
            return;
        }
        if self.node(name).ready != ready {
            let status = if ready { "True" } else { "Unknown" };
            self.edit(
                &format!("/api/v1/nodes/{name}"),
                &json!({"status": {"conditions":
                    [{"type": "Ready", "status": status, "lastTransitionTime": self.now().to_string()}]}}),
            );
        }
    }

    pub fn request(&self, name: &str, group: &str, running: &str, desired: &str, action: Action) {
        let instance = self.node(name).instance;
        let verdict = if running == desired { Verdict::Current } else { Verdict::Drifted };
        let request = Request {
            schema: 1,
            comparison: wire::COMPARISON,
            verdict,
            reason: format!("it runs {running}"),
            running: Some(running.into()),
            desired: Some(desired.into()),
            group: Some(group.into()),
            action,
            instance,
            since: Timestamp::UNIX_EPOCH,
        };
        self.annotate(name, wire::REQUEST, Some(request.write().expect("text")));
    }

    /// A group with so many nodes on its template's image, all old enough.
    pub fn group(&self, group: &str, size: usize, image: &str) {
        self.state.borrow_mut().templates.insert(group.into(), image.into());
        self.state.borrow_mut().desired.insert(group.into(), image.into());
        for _ in 0..size {
            let id = self.start(group);
            self.join(&format!("n-{}", &id[2..]), Some(&id), false);
        }
        self.pass(minutes(120));
        self.live();
    }

    /// A new image for a group: its template starts it, and its nodes want it.
    pub fn roll(&self, group: &str, image: &str) {
        self.state.borrow_mut().templates.insert(group.into(), image.into());
        self.state.borrow_mut().desired.insert(group.into(), image.into());
        self.live();
    }

    pub fn wrong(&self, what: String) {
        self.state.borrow_mut().wrong.push(what);
    }

    /// What was not allowed.
    pub fn assert_right(&self, what: &str) {
        assert_eq!(self.state.borrow().wrong, Vec::<String>::new(), "{what}");
    }

    /// Every node on this image, Ready, uncordoned, without a grant or our taint.
    pub fn is_done(&self, image: &str) -> bool {
        let is_gone = |id: &String| self.state.borrow().instances.get(id).is_none_or(|one| one.state == "terminated");
        let nodes = self.nodes();
        let of_groups = nodes.iter().filter(|node| !node.master);
        let mut living = of_groups.filter(|node| !node.instance.as_ref().is_some_and(is_gone)).peekable();
        living.peek().is_some()
            && living.all(|node| {
                let runs = node.request.as_ref().and_then(|request| request.running.as_deref()) == Some(image);
                runs && node.ready && !node.unschedulable && !node.is_touched()
            })
            && self.ledger().grants.is_empty()
    }

    /// Checks a change that an arbiter is about to make.
    fn check(&self, method: &str, path: &str, body: &Value) {
        if matches!(method, "PUT" | "POST") && body.pointer("/metadata/name") == Some(&json!("kubestrap-rollout")) {
            self.check_ledger(body);
        }
        let shown = body.pointer("/metadata/annotations").and_then(|all| all.get(wire::GRANT)).and_then(Value::as_str);
        if let Some(text) = shown {
            let grant = Grant::parse("n", text).expect("a grant of ours");
            let ledger = self.ledger();
            let entry = ledger.grants.iter().find(|entry| entry.id == grant.id);
            if !entry.is_some_and(|entry| entry.phase != Phase::Ending && entry.node_uid == grant.node_uid) {
                self.wrong(format!("{path} is shown a grant that is not in the ledger"));
            }
        }
    }

    fn check_ledger(&self, body: &Value) {
        let text = body.pointer("/data/ledger.json").and_then(Value::as_str);
        let Ok(next) = text.map_or_else(|| Ok(Ledger::default()), Ledger::parse) else {
            self.wrong(format!("a ledger that cannot be read: {text:?}"));
            return;
        };
        let before = self.ledger();
        if next.grants.len() > self.at_once {
            self.wrong(format!("{} grants", next.grants.len()));
        }
        let is_kept = |id: Uuid| next.grants.iter().any(|entry| entry.id == id);
        if let Some(lost) = before.grants.iter().find(|entry| entry.phase != Phase::Ending && !is_kept(entry.id)) {
            self.wrong(format!("the grant of {} is lost", lost.node));
        }
        let is_new = next.grants.iter().any(|entry| !before.grants.iter().any(|known| known.id == entry.id));
        let granted: BTreeSet<&String> = next.grants.iter().map(|entry| &entry.node_uid).collect();
        let gone = |id: &String| self.state.borrow().instances.get(id).is_some_and(|one| one.state == "terminated");
        let nodes = self.nodes();
        let ill = nodes.iter().filter(|node| {
            let counts = !node.ready || node.unschedulable;
            counts && !granted.contains(&node.uid) && !node.instance.as_ref().is_some_and(gone)
        });
        let away = ill.count() + granted.len();
        if is_new && away > self.at_once {
            self.wrong(format!("a grant with {away} nodes away"));
        }
    }

    /// One request; the status and the object.
    fn serve(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (base, query) = path.split_once('?').unwrap_or((path, ""));
        let found = self.state.borrow().objects.get(base).cloned();
        let conflict = (409, json!({"message": "the object has been modified"}));
        match (method, found) {
            ("GET", Some(object)) => (200, object),
            ("GET", None) if base == "/api/v1/nodes" || base.ends_with("/pods") => (200, self.list(base, query)),
            (_, None) if method != "POST" => (404, json!({"message": "not found"})),
            ("POST", _) => {
                let body = body.expect("a body");
                let name = body.pointer("/metadata/name").and_then(Value::as_str).expect("a name");
                let path = format!("{base}/{name}");
                if self.state.borrow().objects.contains_key(&path) {
                    return conflict;
                }
                self.check(method, &path, body);
                self.edit(&path, body);
                self.count_write();
                (201, self.state.borrow().objects[&path].clone())
            }
            ("DELETE", Some(object)) => {
                let wanted = body.and_then(|options| options.pointer("/preconditions/uid"));
                if wanted != object.pointer("/metadata/uid") {
                    return conflict;
                }
                self.state.borrow_mut().objects.remove(base);
                self.count_write();
                (200, json!({}))
            }
            ("PUT" | "PATCH", Some(object)) => {
                let body = body.expect("a body");
                let version = "/metadata/resourceVersion";
                if body.pointer(version).is_none() || body.pointer(version) != object.pointer(version) {
                    return conflict;
                }
                self.check(method, base, body);
                if method == "PUT" {
                    self.state.borrow_mut().objects.insert(base.to_owned(), json!({}));
                }
                self.edit(base, body);
                self.count_write();
                (200, self.state.borrow().objects[base].clone())
            }
            other => panic!("{path}: {:?}", other.0),
        }
    }

    fn count_write(&self) {
        self.state.borrow_mut().writes += 1;
    }

    fn list(&self, base: &str, query: &str) -> Value {
        let state = self.state.borrow();
        let of = |key: &str| query.split('&').find_map(|part| part.strip_prefix(key)).unwrap_or_default().to_owned();
        // Small pages, so that every history has several.
        let (after, limit) = (of("continue="), 3);
        let prefix = format!("{base}/");
        let mut items: Vec<(&String, &Value)> = state
            .objects
            .iter()
            .filter(|(path, _)| path.starts_with(&prefix) && path.as_str() > after.replace("%2F", "/").as_str())
            .collect();
        let more = base.ends_with("nodes") && items.len() > limit;
        if base.ends_with("nodes") {
            items.truncate(limit);
        }
        let next = items.last().filter(|_| more).map(|(path, _)| (*path).clone());
        json!({"items": items.iter().map(|(_, object)| (*object).clone()).collect::<Vec<_>>(),
            "metadata": {"continue": next}})
    }

    /// An arbiter's call begins; the fault that is scripted for it.
    async fn begin(&self) -> Option<Fault> {
        let mut polled = false;
        std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            if std::mem::replace(&mut polled, true) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        let mut state = self.state.borrow_mut();
        state.calls += 1;
        let number = state.calls - 1;
        state.faults.get(&number).copied()
    }

    async fn faulty<T>(&self, work: impl FnOnce() -> T) -> Outcome<T> {
        let lost = || Err(Failure::new(Cause::ApiUnavailable, "call", "no answer"));
        match self.begin().await {
            None => Ok(work()),
            Some(Fault::DieBefore) => std::future::pending().await,
            Some(Fault::LostBefore) => lost(),
            Some(Fault::DieAfter) => {
                work();
                std::future::pending().await
            }
            Some(Fault::LostAfter) => {
                work();
                lost()
            }
        }
    }

    fn terminate(&self, id: &str) {
        let one = self.state.borrow().instances.get(id).cloned().expect("an instance");
        // A sleeper asks once more for what was done long ago; the name of an instance is never used again.
        if one.state != "running" {
            return;
        }
        let ledger = self.ledger();
        let entry = ledger.grants.iter().find(|entry| entry.instance.as_deref() == Some(id));
        let nodes = self.nodes();
        let node = nodes.iter().find(|node| node.instance.as_deref() == Some(id));
        let drained = entry.zip(node).is_some_and(|(entry, node)| {
            let state = node.progress_of(entry.id).map(|progress| progress.state);
            entry.phase == Phase::Replacing && entry.node_uid == node.uid && state == Some(State::Drained)
        });
        if !drained {
            self.wrong(format!("{id} was ended without a stored grant or before its drain"));
        }
        let group = one.group.clone().unwrap_or_default();
        let template = self.state.borrow().templates.get(&group).cloned().unwrap_or_default();
        if template == one.image {
            self.wrong(format!("{id} was ended, and its group starts its image again"));
        }
        self.state.borrow_mut().terminated.push((group, template));
        self.set_instance(id, "shutting-down");
    }
}
