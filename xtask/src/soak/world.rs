//! The cluster under test: folders as machines, the S3 stub as the store, stand-ins for kubeadm and the API server.

use crate::process::{check, programs};
use kubestrap_testkit::http::Background;
use kubestrap_testkit::s3stub::{S3Stub, Script};
use kubestrap_testkit::{apiserver, files, ports};
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The machines; the first is the master. The last one is killed and restarted, the others live through everything.
pub const MACHINES: [&str; 3] = ["m1", "w1", "w2"];
/// Of [`MACHINES`], the one whose agent is killed.
pub const MORTAL: usize = 2;
/// Where the cluster's objects are in the bucket.
const PREFIX: &str = "k8s/soak";
/// What is asked of a cluster that comes up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The shortest that the configuration allows, so that an hour is as long as days are otherwise.
const TOKEN_TTL: &str = "10m";
/// Likewise.
const REPORT_EVERY: &str = "30s";
/// An address for documentation (RFC 5737). Nobody connects to it.
const ADDRESS: &str = "192.0.2.10";

/// The cluster; taken down when it is dropped.
pub struct World {
    folder: Option<TempDir>,
    programs: PathBuf,
    /// The store.
    pub store: S3Stub,
    endpoint: String,
    port: u16,
    agents: Vec<Agent>,
    server_due: Option<Instant>,
    servers: Vec<Child>,
}

struct Agent {
    child: Child,
    due: Option<Instant>,
    _socket: UnixListener,
}

impl World {
    /// An empty bucket, and no machine yet.
    pub fn new() -> io::Result<World> {
        let folder = tempfile::Builder::new().prefix("kubestrap-soak-").tempdir()?;
        // Copies: a build in the meantime replaces the originals.
        let programs = folder.path().join("programs");
        std::fs::create_dir(&programs)?;
        for name in ["kubestrap", "kubeadm", "kubelet"] {
            std::fs::copy(self::programs()?.join(name), programs.join(name))?;
        }
        let store = S3Stub::new(Script::default());
        let server = Background::start(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::new(store.clone()))?;
        let (endpoint, port) = (server.url(), ports::free_port()?);
        let (agents, servers) = (Vec::new(), Vec::new());
        Ok(World { folder: Some(folder), programs, store, endpoint, port, agents, server_due: None, servers })
    }

    /// Starts all machines, and waits until they are nodes and a calm moment has passed.
    pub fn start(&mut self) -> io::Result<()> {
        for machine in 0..MACHINES.len() {
            let agent = self.spawn(machine)?;
            self.agents.push(agent);
        }
        let began = Instant::now();
        while !MACHINES.iter().all(|name| self.report(name).is_some_and(|report| report["phase"] == "ready")) {
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other("the nodes did not become ready"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    }

    fn spawn(&self, machine: usize) -> io::Result<Agent> {
        let (name, root) = (MACHINES[machine], self.root(machine));
        files::make_folder(&root.join("run/containerd"), 0o755)?;
        files::write(&root.join("etc/kubestrap/config.yaml"), self.configuration(machine).as_bytes(), 0o644)?;
        files::write(&root.join("etc/machine-id"), format!("{:032x}\n", machine + 1).as_bytes(), 0o444)?;
        files::write(&root.join("etc/kubestrap-standin.yaml"), b"api: { nodes_ready: always }\n", 0o644)?;
        let socket = root.join("run/containerd/containerd.sock");
        let _ = std::fs::remove_file(&socket);
        let socket = UnixListener::bind(socket)?;
        let log = std::fs::File::options().create(true).append(true).open(self.path(&format!("{name}.log")))?;
        let mut command = Command::new(self.programs.join("kubestrap"));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env_clear().env("PATH", format!("{}:{path}", self.programs.display())).env("HOME", self.path(""));
        command.env("AWS_ACCESS_KEY_ID", "AKIASOAK").env("AWS_SECRET_ACCESS_KEY", "soak");
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        command.arg("--root").arg(&root).args(["--log", "json", "run"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        Ok(Agent { child: command.spawn()?, due: None, _socket: socket })
    }

    fn configuration(&self, machine: usize) -> String {
        let (name, port, endpoint) = (MACHINES[machine], self.port, &self.endpoint);
        let role = if machine == 0 {
            let local = format!("{{ localAPIEndpoint: {{ advertiseAddress: 127.0.0.1, bindPort: {port} }} }}");
            format!("role: master\ncontrol_plane_endpoint: localhost:{port}\nkubeadm: {{ InitConfiguration: {local} }}")
        } else {
            "role: worker".to_owned()
        };
        format!(
            "cluster: soak\n{role}\nstore: s3://bucket/k8s\ns3: {{ endpoint: \"{endpoint}\", region: eu-central-1 }}\n\
             identity: host\nnode: {{ name: {name}, address: {ADDRESS} }}\njoin: {{ token_ttl: {TOKEN_TTL} }}\n\
             report_every: {REPORT_EVERY}\n"
        )
    }

    /// Starts again what is due, and says when something ended that nobody killed.
    pub fn tend(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.server_due.is_some_and(|due| due <= now) {
            self.server_due = None;
            self.start_server()?;
        }
        for (machine, name) in MACHINES.iter().enumerate() {
            if let Some(due) = self.agents[machine].due {
                if due <= now {
                    self.agents[machine] = self.spawn(machine)?;
                }
            } else if let Some(status) = self.agents[machine].child.try_wait()? {
                return Err(io::Error::other(format!("the agent of {name} ended by itself: {status}; see {name}.log")));
            }
        }
        self.servers.retain_mut(|server| matches!(server.try_wait(), Ok(None)));
        Ok(())
    }

    /// Sends a signal to an agent.
    pub fn signal(&self, machine: usize, signal: &str) -> io::Result<()> {
        check(Command::new("kill").arg(format!("-{signal}")).arg(self.pid(machine).to_string()))
    }

    /// Ends the mortal's agent by this signal; it is started again after a while. Nothing happens while it is down.
    pub fn end_mortal(&mut self, signal: &str, again: Duration) -> io::Result<()> {
        if self.agents[MORTAL].due.is_some() {
            return Ok(());
        }
        self.signal(MORTAL, signal)?;
        self.agents[MORTAL].child.wait()?;
        self.agents[MORTAL].due = Some(Instant::now() + again);
        Ok(())
    }

    /// Kills the API server; the kubelet, whom we play, starts it again after a while. What `meanwhile` makes of its
    /// objects is what it finds then.
    pub fn stop_server(&mut self, again: Duration, meanwhile: impl FnOnce(&mut Value)) -> io::Result<()> {
        if self.server_due.is_some() {
            return Ok(());
        }
        apiserver::stop(&self.root(0))?;
        let mut state = self.api_state()?;
        meanwhile(&mut state);
        files::write(&self.root(0).join("var/lib/etcd/standin.json"), state.to_string().as_bytes(), 0o600)?;
        self.server_due = Some(Instant::now() + again);
        Ok(())
    }

    fn start_server(&mut self) -> io::Result<()> {
        let mut command = Command::new(self.programs.join("kubeadm"));
        command.arg("standin-apiserver").arg("--rootfs").arg(self.root(0)).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.servers.push(command.spawn()?);
        Ok(())
    }

    /// What the API server keeps on its disk.
    pub fn api_state(&self) -> io::Result<Value> {
        let text = files::read_text(&self.root(0).join("var/lib/etcd/standin.json"))?;
        serde_json::from_str(&text).map_err(io::Error::other)
    }

    /// An object of the cluster in the store.
    pub fn object(&self, key: &str) -> Option<Value> {
        serde_json::from_slice(&self.store.object(&World::key(key))?.body).ok()
    }

    /// The key in the bucket.
    pub fn key(key: &str) -> String {
        format!("{PREFIX}/{key}")
    }

    /// A node's last report.
    pub fn report(&self, name: &str) -> Option<Value> {
        let keys = self.store.keys();
        let mut reports = keys.iter().filter(|key| key.ends_with("/report.json"));
        reports.find_map(|key| {
            let report: Value = serde_json::from_slice(&self.store.object(key)?.body).ok()?;
            (report["identity"]["node_name"] == name).then_some(report)
        })
    }

    /// The cluster's uid and CA, by its register.
    pub fn identity(&self) -> io::Result<(String, String)> {
        let register = self.object("cluster.json").ok_or_else(|| io::Error::other("there is no register"))?;
        let text = |key: &str| register[key].as_str().unwrap_or_default().to_owned();
        Ok((text("uid"), text("ca_sha256")))
    }

    /// The process of an agent.
    pub fn pid(&self, machine: usize) -> u32 {
        self.agents[machine].child.id()
    }

    /// Whether an agent is meant to run.
    pub fn is_up(&self, machine: usize) -> bool {
        self.agents[machine].due.is_none()
    }

    /// The folder of a machine.
    pub fn root(&self, machine: usize) -> PathBuf {
        self.path(MACHINES[machine])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.as_ref().map(|folder| folder.path().join(name)).unwrap_or_default()
    }

    /// Leaves the folder in place, and says where it is.
    pub fn keep(&mut self) -> PathBuf {
        self.take_down();
        self.folder.take().map(TempDir::keep).unwrap_or_default()
    }

    fn take_down(&mut self) {
        for agent in &mut self.agents {
            // Errors mean that it is gone already. A stopped process is killed all the same.
            let _ = agent.child.kill();
            let _ = agent.child.wait();
        }
        if let Err(error) = stop_server(&self.root(0)) {
            eprintln!("xtask: the API server may still run: {error}");
        }
        for server in &mut self.servers {
            let _ = server.wait();
        }
        self.agents.clear();
        self.servers.clear();
    }
}

fn stop_server(root: &Path) -> io::Result<()> {
    if root.as_os_str().is_empty() || !root.exists() { Ok(()) } else { apiserver::stop(root) }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.folder.is_some() {
            self.take_down();
        }
    }
}
