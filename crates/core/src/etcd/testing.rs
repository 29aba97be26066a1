//! A small control plane for tests: members that are up or not, Nodes, Pods that are deleted, a Lease, and EC2.

use crate::config::settings::PkiSettings;
use crate::gate::Open;
use crate::journal::{AttemptKind, Entry, Journal};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::{Ec2, Identity, Origin};
use crate::model::names::CaHash;
use crate::node::{Node, Silent};
use crate::ports::{
    ApiAnswer, ApiRequest, Cloud, Cluster, Etcd, EtcdAccess, GroupInfo, ImageInfo, ImageQuery, InstanceInfo,
    LifecycleAnswer, LifecycleHook, LifecycleResult, RegistryToken, TemplateInfo, TemplateVersion, TokenRequest,
};
use crate::store::fake::{Lab, OneFile};
use crate::store::gone::tests::Ec2Says;
use crate::testing::api::merge;
use crate::testing::{identity, settings};
use crate::world::{Ports, World};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use uuid::Uuid;

const ACCOUNT: &str = "123456789012";
const NODES: &str = "/api/v1/nodes";

/// A member of the number n has the address 10.0.0.n and the instance i-n; its id is n.
#[derive(Debug, Clone)]
pub struct FakeMember {
    pub id: u64,
    pub name: String,
    pub learner: bool,
    pub up: bool,
}

/// The control plane.
pub struct Plane {
    pub lab: Lab,
    pub members: RefCell<Vec<FakeMember>>,
    pub leader: Cell<u64>,
    pub objects: RefCell<BTreeMap<String, Value>>,
    pub instances: RefCell<BTreeMap<String, String>>,
    /// Changes, in order.
    pub log: RefCell<Vec<String>>,
    /// Whether nobody answers the next removal though it is carried out.
    pub lose: Cell<bool>,
    /// Whether the API server is away.
    pub api_away: Cell<bool>,
    version: Cell<u64>,
}

pub fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))
}

pub fn name(n: u8) -> String {
    format!("cp-{n}")
}

fn ec2(n: u8) -> Ec2 {
    Ec2 {
        instance_id: format!("i-{n}"),
        account: ACCOUNT.into(),
        region: "eu-west-1".into(),
        partition: "aws".into(),
        zone: "eu-west-1a".into(),
        instance_type: "m7g.large".into(),
        image_id: "ami-1".into(),
    }
}

impl Plane {
    /// So many masters, all up; the first leads.
    pub fn new(masters: u8) -> Rc<Self> {
        let plane = Plane {
            lab: Lab::new(),
            members: RefCell::default(),
            leader: Cell::new(1),
            objects: RefCell::default(),
            instances: RefCell::default(),
            log: RefCell::default(),
            lose: Cell::default(),
            api_away: Cell::default(),
            version: Cell::new(1),
        };
        for n in 1..=masters {
            plane.add(n, &name(n), false);
            plane.register(n, &name(n), true);
        }
        Rc::new(plane)
    }

    /// Adds a member; without a name it never started.
    pub fn add(&self, n: u8, name: &str, learner: bool) {
        let up = !name.is_empty();
        self.members.borrow_mut().push(FakeMember { id: u64::from(n), name: name.to_owned(), learner, up });
    }

    /// Registers a Node, with its instance.
    pub fn register(&self, n: u8, name: &str, master: bool) {
        self.instances.borrow_mut().insert(format!("i-{n}"), "running".to_owned());
        let labels = if master { json!({"node-role.kubernetes.io/control-plane": ""}) } else { json!({}) };
        let node = json!({
            "metadata": {"name": name, "uid": format!("uid-{n}"), "resourceVersion": "1", "labels": labels,
                "creationTimestamp": "2026-11-01T00:00:00Z"},
            "spec": {"providerID": format!("aws:///eu-west-1a/i-{n}")},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": address(n).to_string()}]}});
        self.objects.borrow_mut().insert(format!("{NODES}/{name}"), node);
    }

    /// The machine is off: its member is silent, its Node NotReady. EC2 says so in this word; none at all when empty.
    pub fn off(&self, n: u8, state: &str) {
        for member in self.members.borrow_mut().iter_mut().filter(|member| member.id == u64::from(n)) {
            member.up = false;
        }
        for node in self.objects.borrow_mut().values_mut() {
            if node["metadata"]["uid"] == format!("uid-{n}") {
                node["status"]["conditions"][0]["status"] = "Unknown".into();
            }
        }
        let mut instances = self.instances.borrow_mut();
        match state {
            "" => instances.remove(&format!("i-{n}")),
            state => instances.insert(format!("i-{n}"), state.to_owned()),
        };
    }

    /// The agent of a master: its journal says that it joined. A new one is a new life.
    pub fn agent(self: &Rc<Self>, n: u8, pki: bool) -> Node {
        let says = Rc::new(Ec2Says(Err(Failure::new(Cause::Internal, "call a port", "this test has none"))));
        let ports = Ports {
            objects: self.lab.objects.clone(),
            files: Rc::new(OneFile::default()),
            jobs: says.clone(),
            metadata: says.clone(),
            cloud: self.clone(),
            cluster: self.clone(),
            vault: Rc::new(crate::ports::Nobody),
            etcd: Rc::new(At { plane: self.clone(), own: address(n).to_string() }),
            host: says,
            time: self.lab.time.clone(),
        };
        let mut settings = settings("role: master");
        settings.pki = pki.then(|| PkiSettings::Kms("alias/k8s".to_owned()));
        let own = Identity { origin: Origin::Ec2(ec2(n)), address: address(n), ..identity(&name(n)) };
        let world = World::new(ports, Rc::new(Open), Rc::new(Silent));
        let node = Node::new(Rc::new(settings), Rc::new(own), world);
        let journal = Journal::new(node.world.files.clone(), node.world.time.clone());
        journal.begin(Uuid::from_u128(1), AttemptKind::ControlPlane, Uuid::from_u128(9), true).expect("begun");
        journal.note(Entry::Joined { ca: CaHash::from_digest(&[1; 32]) }).expect("noted");
        node
    }

    /// What was changed, since it was asked last.
    pub fn changes(&self) -> Vec<String> {
        std::mem::take(&mut self.log.borrow_mut())
    }

    pub fn names(&self) -> Vec<String> {
        self.members.borrow().iter().map(|member| member.name.clone()).collect()
    }

    fn has_quorum(&self) -> bool {
        let members = self.members.borrow();
        let voters = members.iter().filter(|member| !member.learner);
        voters.clone().filter(|member| member.up).count() > voters.count() / 2
    }

    fn etcd(&self, asked: &FakeMember, path: &str, body: &Value) -> (u16, Value) {
        let no_leader = || (503, json!({"message": "etcdserver: no leader", "code": 14}));
        let id = |key: &str| body[key].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a decimal string");
        match path {
            "/v3/maintenance/status" => {
                let leader = if self.has_quorum() { self.leader.get() } else { 0 };
                let mut status = json!({"header": {"member_id": asked.id.to_string()}, "raftAppliedIndex": "7"});
                if leader != 0 {
                    status["leader"] = leader.to_string().into();
                }
                (200, status)
            }
            _ if asked.learner => (503, json!({"message": "etcdserver: rpc not supported for learner", "code": 14})),
            "/v3/cluster/member/list" => {
                if body["linearizable"] == true && !self.has_quorum() {
                    return no_leader();
                }
                let members = self.members.borrow();
                let shown = members.iter().map(|member| {
                    let mut shown = json!({"ID": member.id.to_string(),
                        "peerURLs": [format!("https://10.0.0.{}:2380", member.id)]});
                    if !member.name.is_empty() {
                        shown["name"] = member.name.clone().into();
                        shown["clientURLs"] = json!([format!("https://10.0.0.{}:2379", member.id)]);
                    }
                    if member.learner {
                        shown["isLearner"] = true.into();
                    }
                    shown
                });
                (200, json!({"members": shown.collect::<Vec<_>>()}))
            }
            "/v3/cluster/member/remove" => {
                assert!(self.has_quorum(), "a removal was sent without a quorum");
                let id = id("ID");
                let mut members = self.members.borrow_mut();
                if !members.iter().any(|member| member.id == id) {
                    return (404, json!({"message": "etcdserver: member not found", "code": 5}));
                }
                members.retain(|member| member.id != id);
                self.log.borrow_mut().push(format!("remove member {id}"));
                if self.leader.get() == id {
                    self.leader.set(members.iter().find(|member| member.up && !member.learner).map_or(0, |one| one.id));
                }
                (200, json!({}))
            }
            "/v3/maintenance/transfer-leadership" => {
                self.leader.set(id("targetID"));
                self.log.borrow_mut().push(format!("leader {}", self.leader.get()));
                (200, json!({}))
            }
            _ => (404, json!({"message": "no such path"})),
        }
    }

    fn api(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let path = path.split('?').next().unwrap_or_default();
        let mut objects = self.objects.borrow_mut();
        let found = objects.get(path).cloned();
        let version = |value: &Value| value.pointer("/metadata/resourceVersion").cloned();
        match (method, found) {
            ("GET", _) if path == NODES => {
                let nodes = objects.iter().filter(|(path, _)| path.starts_with(NODES)).map(|(_, node)| node.clone());
                (200, json!({"items": nodes.collect::<Vec<_>>()}))
            }
            ("GET", None) if path == "/api/v1/pods" => (200, json!({"items": []})),
            ("GET", Some(object)) => (200, object),
            ("DELETE", found) => {
                if path.contains("/pods/") {
                    assert_eq!(body["gracePeriodSeconds"], 0);
                }
                objects.remove(path);
                self.log.borrow_mut().push(format!("delete {}", path.rsplit('/').next().unwrap_or_default()));
                (if found.is_some() { 200 } else { 404 }, json!({}))
            }
            ("POST", _) => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().expect("a name"));
                if objects.contains_key(&path) {
                    return (409, json!({}));
                }
                (201, self.put(&mut objects, &path, body))
            }
            (_, None) => (404, json!({})),
            ("PUT" | "PATCH", Some(object)) => {
                if version(&body).is_some_and(|wanted| Some(wanted) != version(&object)) {
                    return (409, json!({}));
                }
                let mut next = if method == "PUT" { json!({}) } else { object };
                merge(&mut next, &body);
                if method == "PATCH" {
                    self.log.borrow_mut().push(format!("taint {}", path.rsplit('/').next().unwrap_or_default()));
                }
                (200, self.put(&mut objects, path, next))
            }
            _ => (405, json!({})),
        }
    }

    fn put(&self, objects: &mut BTreeMap<String, Value>, path: &str, mut object: Value) -> Value {
        self.version.set(self.version.get() + 1);
        object["metadata"]["resourceVersion"] = self.version.get().to_string().into();
        object["metadata"]["managedFields"] = json!([{"time": crate::ports::Time::now(&*self.lab.time).to_string()}]);
        objects.insert(path.to_owned(), object.clone());
        object
    }
}

#[async_trait(?Send)]
impl Cluster for Plane {
    async fn call(&self, request: ApiRequest) -> Outcome<ApiAnswer> {
        if self.api_away.get() || !self.has_quorum() {
            return Err(Failure::new(
                Cause::ApiUnavailable,
                format!("{} {}", request.method, request.path),
                "no answer",
            ));
        }
        let body = request.body.as_ref().map(|(_, body)| serde_json::from_slice(body).expect("JSON"));
        let (status, body) = self.api(request.method, &request.path, body.unwrap_or_default());
        Ok(ApiAnswer { status, body: body.to_string().into_bytes() })
    }
}

/// etcd as one machine reaches it.
struct At {
    plane: Rc<Plane>,
    own: String,
}

#[async_trait(?Send)]
impl Etcd for At {
    async fn call(&self, access: &EtcdAccess, path: &'static str, body: Vec<u8>) -> Outcome<ApiAnswer> {
        let host = access.endpoint.trim_start_matches("https://").trim_end_matches(":2379");
        let host = if host == "127.0.0.1" { self.own.as_str() } else { host };
        let away = || Failure::new(Cause::EtcdUnavailable, format!("ask etcd at {host}"), "connection refused");
        let members = self.plane.members.borrow().clone();
        let asked = members.iter().find(|one| one.up && format!("10.0.0.{}", one.id) == host).ok_or_else(away)?;
        let body = serde_json::from_slice(&body).expect("JSON");
        let (status, body) = self.plane.etcd(asked, path, &body);
        if path.ends_with("/remove") && self.plane.lose.replace(false) {
            return Err(away());
        }
        Ok(ApiAnswer { status, body: body.to_string().into_bytes() })
    }
}

fn none<T>() -> Outcome<T> {
    Err(Failure::new(Cause::Internal, "call a port", "this test has none"))
}

#[async_trait(?Send)]
impl Cloud for Plane {
    async fn instances(&self, region: &str, ids: &[String]) -> Outcome<Vec<InstanceInfo>> {
        assert_eq!(region, "eu-west-1");
        let known = self.instances.borrow();
        let info = |id: &String| InstanceInfo {
            instance_id: id.clone(),
            account: ACCOUNT.into(),
            state: known.get(id).cloned().unwrap_or_default(),
            hop_limit: None,
            image_id: None,
            launched_at: None,
        };
        Ok(ids.iter().filter(|id| known.contains_key(*id)).map(info).collect())
    }
    async fn credentials(&self) -> Outcome<String> {
        none()
    }
    async fn registry_token(&self, _: &TokenRequest) -> Outcome<RegistryToken> {
        none()
    }
    async fn images(&self, _: &str, _: &ImageQuery) -> Outcome<Vec<ImageInfo>> {
        none()
    }
    async fn parameter(&self, _: &str, _: &str) -> Outcome<Option<String>> {
        none()
    }
    async fn launch_template(&self, _: &str, _: &TemplateVersion) -> Outcome<Option<TemplateInfo>> {
        none()
    }
    async fn group_of(&self, _: &str, _: &str) -> Outcome<Option<GroupInfo>> {
        none()
    }
    async fn terminate_in_group(&self, _: &str, _: &str) -> Outcome<()> {
        none()
    }
    async fn complete_lifecycle(&self, _: &str, _: &LifecycleHook, _: LifecycleResult) -> Outcome<LifecycleAnswer> {
        none()
    }
    async fn heartbeat(&self, _: &str, _: &LifecycleHook) -> Outcome<LifecycleAnswer> {
        none()
    }
}
