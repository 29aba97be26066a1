//! Control planes: disks with real certificates, kubelets that start static pods anew, API servers that need their etcd
//! and a certificate that has not ended, and a kubeadm that renews.

use crate::gate::{Admission, Call, Delivery, Gate};
use crate::journal::{AttemptKind, Entry, Journal};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::{Event, Node, Observer};
use crate::ports::{
    Access, ApiAnswer, ApiRequest, Cluster, FileInfo, FileKind, Files, JobEnd, JobSpec, JobState, Jobs, Nobody, Time,
    ToolOutput,
};
use crate::store::fake::{FakeTime, Lab, ca};
use crate::store::gone::tests::Ec2Says;
use crate::testing::{identity, settings};
use crate::world::{Ports, World};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

/// Its two dates are replaced; nobody here checks a signature.
const TEMPLATE: &str = include_str!("../leaf_template.pem");
pub const PODS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// How long a kubelet needs to end a pod and to start it anew.
const RESTART: SignedDuration = SignedDuration::from_secs(8);
pub const KEYS: [&str; 3] = ["ca.key", "front-proxy-ca.key", "etcd/ca.key"];

/// A PEM certificate with these dates.
fn certificate(begins: Timestamp, ends: Timestamp) -> String {
    let body: String = TEMPLATE.lines().filter(|line| !line.starts_with("-----")).collect();
    let mut der = STANDARD.decode(body).expect("base64");
    // UTCTime (RFC 5280): tag 0x17, length 13.
    let times: Vec<usize> = (0..der.len() - 15).filter(|at| der[*at..*at + 2] == [0x17, 13]).collect();
    for (at, time) in times[..2].iter().zip([begins, ends]) {
        let text = time.strftime("%y%m%d%H%M%SZ").to_string();
        der[at + 2..at + 15].copy_from_slice(text.as_bytes());
    }
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// A static pod as it runs.
struct Running {
    manifest: Vec<u8>,
    since: Timestamp,
    /// The API server's own certificate ends then.
    ends: Timestamp,
}

/// A machine, and the agent on it.
pub struct Host {
    pub name: String,
    time: Rc<FakeTime>,
    files: RefCell<BTreeMap<PathBuf, (Vec<u8>, u32)>>,
    running: RefCell<BTreeMap<String, Running>>,
    /// Every start of a pod, in order.
    pub starts: RefCell<Vec<String>>,
    /// Run, when it ends, and whether what it does is done.
    job: RefCell<Option<(String, Timestamp, bool)>>,
    pub renewals: Cell<usize>,
    /// How long kubeadm's certificates live.
    pub life: Cell<SignedDuration>,
    /// kubeadm renews nothing.
    pub stubborn: Cell<bool>,
    /// Pods that do not become healthy.
    pub sick: RefCell<Vec<String>>,
    /// The agent dies before (even) or after (odd) this gated call that changes something.
    pub kill: Cell<Option<usize>>,
    pub gated: Cell<usize>,
    pub dead: Cell<bool>,
    pub notes: RefCell<Vec<String>>,
    ends: Cell<Timestamp>,
}

impl Host {
    fn new(name: &str, time: &Rc<FakeTime>, left: SignedDuration) -> Rc<Host> {
        let host = Rc::new(Host {
            name: name.to_owned(),
            time: time.clone(),
            files: RefCell::default(),
            running: RefCell::default(),
            starts: RefCell::default(),
            job: RefCell::default(),
            renewals: Cell::default(),
            life: Cell::new(SignedDuration::from_hours(24 * 365)),
            stubborn: Cell::default(),
            sick: RefCell::default(),
            kill: Cell::default(),
            gated: Cell::default(),
            dead: Cell::default(),
            notes: RefCell::default(),
            ends: Cell::new(Timestamp::MIN),
        });
        for key in KEYS {
            host.put(&format!("/etc/kubernetes/pki/{key}"), "private", 0o600);
        }
        host.sign(time.now() + left - host.life.get(), time.now() + left);
        for pod in PODS {
            let text = format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    component: {pod}\n  name: {pod}\n  namespace: kube-system\n\
                 spec:\n  volumes:\n  - hostPath:\n      path: /etc/kubernetes/pki\n    name: certs\n"
            );
            host.put(&format!("/etc/kubernetes/manifests/{pod}.yaml"), &text, 0o600);
        }
        // It joined when the certificates were made.
        let journal = Journal::new(host.clone(), Rc::new(Ahead(time.clone(), left - host.life.get())));
        journal.begin(Uuid::from_u128(1), AttemptKind::ControlPlane, Uuid::from_u128(9), true).expect("a disk");
        journal.note(Entry::Joined { ca: ca(1) }).expect("a disk");
        host.pass();
        host.starts.take();
        host
    }

    pub fn put(&self, path: &str, text: &str, mode: u32) {
        self.files.borrow_mut().insert(path.into(), (text.as_bytes().to_vec(), mode));
    }

    pub fn erase(&self, path: &str) {
        self.files.borrow_mut().remove(Path::new(path));
    }

    pub fn text(&self, path: &str) -> String {
        self.files
            .borrow()
            .get(Path::new(path))
            .map(|(body, _)| String::from_utf8_lossy(body).into_owned())
            .expect(path)
    }

    /// Every leaf of a control plane but the super-admin's, which a further master has not.
    fn sign(&self, begins: Timestamp, ends: Timestamp) {
        let pem = certificate(begins, ends);
        self.ends.set(ends);
        for name in [
            "apiserver",
            "apiserver-kubelet-client",
            "apiserver-etcd-client",
            "front-proxy-client",
            "etcd/server",
            "etcd/peer",
            "etcd/healthcheck-client",
        ] {
            self.put(&format!("/etc/kubernetes/pki/{name}.crt"), &pem, 0o644);
        }
        for name in ["admin", "controller-manager", "scheduler"] {
            let data = STANDARD.encode(&pem);
            let text = format!(
                "users:\n- name: x\n  user:\n    client-certificate-data: {data}\n    client-key-data: c2VjcmV0\n"
            );
            self.put(&format!("/etc/kubernetes/{name}.conf"), &text, 0o600);
        }
    }

    /// When the first leaf ends.
    pub fn ends(&self) -> Timestamp {
        self.ends.get()
    }

    /// What kubelet and kubeadm have done by now.
    fn pass(&self) {
        let now = self.time.now();
        let due = self
            .job
            .borrow_mut()
            .as_mut()
            .is_some_and(|(_, until, done)| *until <= now && !std::mem::replace(done, true));
        if due {
            self.renewals.set(self.renewals.get() + 1);
            if !self.stubborn.get() {
                self.sign(now - SignedDuration::from_mins(5), now + self.life.get());
            }
        }
        let ends = self.ends();
        for pod in PODS {
            let manifest = self.text(&format!("/etc/kubernetes/manifests/{pod}.yaml")).into_bytes();
            let mut running = self.running.borrow_mut();
            if running.get(pod).is_none_or(|known| known.manifest != manifest) {
                self.starts.borrow_mut().push(pod.to_owned());
                let since = if running.contains_key(pod) { now + RESTART } else { now };
                running.insert(pod.to_owned(), Running { manifest, since, ends });
            }
        }
    }

    fn is_up(&self, pod: &str) -> bool {
        let sick = self.sick.borrow().iter().any(|name| name == pod);
        let known = self.running.borrow();
        !sick
            && known.get(pod).is_some_and(|running| running.since <= self.time.now() && running.ends > self.time.now())
    }

    fn mirror(&self, pod: &str) -> Value {
        let running = self.running.borrow();
        let manifest: Value = running.get(pod).map_or(Value::Null, |it| {
            serde_saphyr::from_str(std::str::from_utf8(&it.manifest).expect("UTF-8")).expect("YAML")
        });
        let ready = if self.is_up(pod) { "True" } else { "False" };
        json!({"metadata": manifest["metadata"], "status": {"conditions": [{"type": "Ready", "status": ready}]}})
    }
}

impl Files for Host {
    fn read(&self, path: &Path, _: u64) -> Outcome<Option<Vec<u8>>> {
        Ok(self.files.borrow().get(path).map(|(body, _)| body.clone()))
    }
    fn stat(&self, path: &Path) -> Outcome<Option<FileInfo>> {
        let known = self.files.borrow();
        Ok(known.get(path).map(|(body, mode)| FileInfo {
            kind: FileKind::File,
            mode: *mode,
            uid: 0,
            len: body.len() as u64,
        }))
    }
    fn list(&self, folder: &Path) -> Outcome<Vec<String>> {
        let known = self.files.borrow();
        let inside = known.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }
    fn write(&self, path: &Path, body: &[u8], mode: u32) -> Outcome<()> {
        self.files.borrow_mut().insert(path.to_owned(), (body.to_vec(), mode));
        Ok(())
    }
    fn append(&self, path: &Path, body: &[u8], mode: u32) -> Outcome<()> {
        self.files.borrow_mut().entry(path.to_owned()).or_insert((Vec::new(), mode)).0.extend_from_slice(body);
        Ok(())
    }
    fn remove(&self, path: &Path) -> Outcome<()> {
        self.files.borrow_mut().remove(path);
        Ok(())
    }
}

#[async_trait(?Send)]
impl Jobs for Host {
    async fn start(&self, job: &JobSpec) -> Outcome<()> {
        assert_eq!((job.name.as_str(), job.argv.join(" ").as_str()), ("kubeadm-certs", "kubeadm certs renew all"));
        let runs = matches!(*self.job.borrow(), Some((_, until, _)) if until > self.time.now());
        if !runs {
            *self.job.borrow_mut() = Some((job.run.clone(), self.time.now() + SignedDuration::from_secs(1), false));
        }
        Ok(())
    }
    async fn observe(&self, _: &str) -> Outcome<JobState> {
        self.pass();
        Ok(match self.job.borrow().clone() {
            None => JobState::Absent,
            Some((run, _, true)) => JobState::Ended { run, end: JobEnd::Exited(0) },
            Some((run, _, false)) => JobState::Running { run },
        })
    }
    async fn forget(&self, _: &str) -> Outcome<()> {
        *self.job.borrow_mut() = None;
        Ok(())
    }
    async fn stop(&self, _: &str) -> Outcome<()> {
        Err(Failure::new(Cause::Internal, "stop a job", "nobody stops this one"))
    }
    async fn output(&self, _: &str, _: usize) -> Outcome<String> {
        Ok(String::new())
    }
    async fn run(&self, _: &[String], _: Duration) -> Outcome<ToolOutput> {
        Err(Failure::new(Cause::Internal, "run a program", "nobody runs one"))
    }
}

impl Gate for Host {
    fn before(&self, call: &Call, _: u64) -> Admission {
        self.strike(call, 0);
        if self.dead.get() { Admission::Die } else { Admission::Pass }
    }
    fn after(&self, call: &Call, _: u64, _: Result<(), &Failure>) -> Delivery {
        self.strike(call, 1);
        if self.dead.get() { Delivery::Die } else { Delivery::Deliver }
    }
}

impl Host {
    /// A death at a call that changes nothing is one at the last that did.
    fn strike(&self, call: &Call, side: usize) {
        if !call.changes {
            return;
        }
        let number = self.gated.get();
        self.gated.set(number + side);
        if self.kill.get() == Some(2 * number + side) {
            self.dead.set(true);
        }
    }
}

struct Notes(Rc<Host>);

impl Observer for Notes {
    fn on(&self, event: &Event<'_>) {
        if let Event::Note(text) = event {
            self.0.notes.borrow_mut().push((*text).to_owned());
        }
    }
}

/// Several of them, and what etcd holds.
pub struct Masters {
    pub hosts: Vec<Rc<Host>>,
    pub lab: Lab,
    pub lease: RefCell<Option<Value>>,
    version: Cell<u64>,
    /// Nodes that the API server says are not Ready.
    pub away: RefCell<Vec<String>>,
    /// The most machines that had a pod down at a time.
    pub worst: Cell<usize>,
    pub requests: Cell<usize>,
    /// How far the machines' clocks are ahead of the store's.
    pub ahead: Cell<SignedDuration>,
}

/// What one agent asks.
struct Client(Rc<Masters>, usize);

#[async_trait(?Send)]
impl Cluster for Client {
    async fn call(&self, request: ApiRequest) -> Outcome<ApiAnswer> {
        let Client(all, own) = self;
        all.requests.set(all.requests.get() + 1);
        all.lab.time.pass(Duration::from_millis(20));
        all.look();
        let served = match &request.access {
            Access::KubeconfigAt(..) => all.serves(*own),
            _ => (0..all.hosts.len()).any(|host| all.serves(host)),
        };
        if !served || all.hosts[*own].ends() <= all.lab.time.now() {
            return Err(Failure::new(Cause::ApiUnavailable, "ask the API server", "no answer"));
        }
        let body = request.body.as_ref().map(|(_, body)| serde_json::from_slice(body).expect("JSON"));
        let (status, body) = all.answer(request.method, &request.path, body.unwrap_or_default());
        Ok(ApiAnswer { status, body: body.to_string().into_bytes() })
    }
}

impl Masters {
    /// So many, whose certificates have this much left.
    pub fn new(count: usize, left: SignedDuration) -> Rc<Masters> {
        let lab = Lab::new();
        let hosts = (1..=count).map(|n| Host::new(&format!("master-{n}"), &lab.time, left)).collect();
        Rc::new(Masters {
            hosts,
            lab,
            lease: RefCell::default(),
            version: Cell::default(),
            away: RefCell::default(),
            worst: Cell::default(),
            requests: Cell::default(),
            ahead: Cell::default(),
        })
    }

    pub fn look(&self) {
        self.hosts.iter().for_each(|host| host.pass());
        let down = |host: &&Rc<Host>| PODS.iter().any(|pod| !host.is_up(pod));
        self.worst.set(self.worst.get().max(self.hosts.iter().filter(down).count()));
    }

    fn serves(&self, host: usize) -> bool {
        let etcds = self.hosts.iter().filter(|host| host.is_up("etcd")).count();
        let host = &self.hosts[host];
        2 * etcds > self.hosts.len() && host.is_up("etcd") && host.is_up("kube-apiserver")
    }

    fn answer(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let words: Vec<&str> = path.split('?').next().expect("a path").trim_matches('/').split('/').collect();
        match (method, words.as_slice()) {
            ("GET", ["readyz"]) => (200, json!({})),
            ("GET", ["api", "v1", "nodes"]) => {
                let node = |host: &Rc<Host>| {
                    let ready = if self.away.borrow().contains(&host.name) { "Unknown" } else { "True" };
                    json!({"metadata": {"name": host.name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})
                };
                (200, json!({"items": self.hosts.iter().map(node).collect::<Vec<_>>()}))
            }
            ("GET", ["api", "v1", "namespaces", "kube-system", "pods", name]) => {
                let find = |host: &Rc<Host>| Some(host.mirror(name.strip_suffix(&format!("-{}", host.name))?));
                self.hosts.iter().find_map(find).map_or((404, json!({})), |pod| (200, pod))
            }
            ("GET", [.., "kubestrap-renewal"]) => self.lease.borrow().clone().map_or((404, json!({})), |it| (200, it)),
            ("POST" | "PUT", ["apis", ..]) => self.write(method == "PUT", body),
            _ => panic!("{method} {path}"),
        }
    }

    fn write(&self, replaces: bool, mut lease: Value) -> (u16, Value) {
        let mut known = self.lease.borrow_mut();
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        if known.is_some() != replaces || known.as_ref().is_some_and(|known| version(known) != version(&lease)) {
            return (409, json!({}));
        }
        self.version.set(self.version.get() + 1);
        lease["metadata"]["resourceVersion"] = self.version.get().to_string().into();
        *known = Some(lease.clone());
        (200, lease)
    }

    pub fn holder(&self) -> String {
        let lease = self.lease.borrow();
        lease.as_ref().and_then(|it| it["spec"]["holderIdentity"].as_str()).unwrap_or_default().to_owned()
    }

    pub fn node(self: &Rc<Self>, index: usize) -> Node {
        let (host, none) =
            (self.hosts[index].clone(), Rc::new(Ec2Says(Err(Failure::new(Cause::Internal, "call", "none")))));
        let ports = Ports {
            objects: self.lab.objects.clone(),
            files: host.clone(),
            jobs: host.clone(),
            metadata: none.clone(),
            cloud: none.clone(),
            cluster: Rc::new(Client(self.clone(), index)),
            vault: Rc::new(Nobody),
            etcd: Rc::new(Nobody),
            host: none,
            time: Rc::new(Ahead(self.lab.time.clone(), self.ahead.get())),
        };
        let world = World::new(ports, host.clone(), Rc::new(Notes(host.clone())));
        Node::new(Rc::new(settings("role: master")), Rc::new(identity(&host.name)), world)
    }
}

struct Ahead(Rc<FakeTime>, SignedDuration);

#[async_trait(?Send)]
impl Time for Ahead {
    fn now(&self) -> Timestamp {
        self.0.now() + self.1
    }
    fn uptime(&self) -> Duration {
        self.0.uptime()
    }
    async fn sleep(&self, duration: Duration) {
        self.0.sleep(duration).await;
    }
    fn random(&self, buffer: &mut [u8]) {
        self.0.random(buffer);
    }
}
