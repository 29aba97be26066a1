//! The machines of the demo: a folder each, and a process.

use crate::process::{check, programs};
use serde_json::Value;
use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The agent promises to stop within five seconds.
const STOP_WITHIN: Duration = Duration::from_secs(6);

/// An address for documentation (RFC 5737): the demo must run where there is no network. Nobody connects to it, for
/// the endpoint is on localhost.
const ADDRESS: &str = "192.0.2.10";

/// A line of a node's log.
pub struct Line {
    /// Whose.
    pub node: &'static str,
    /// What.
    pub text: String,
}

/// Everything the demo made; taken away again when it is dropped.
pub struct World {
    folder: Option<TempDir>,
    nodes: Vec<Machine>,
    port: u16,
    interrupted: Arc<AtomicBool>,
}

struct Machine {
    name: &'static str,
    child: Child,
    _runtime_socket: UnixListener,
}

impl World {
    /// An empty folder, and a port for the API server.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("kubestrap-demo-").tempdir()?;
        let port = kubestrap_testkit::ports::free_port()?;
        Ok(World { folder: Some(folder), nodes: Vec::new(), port, interrupted: listen_for_interrupts() })
    }

    /// Whether Ctrl-C was pressed.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// The store's URL.
    pub fn store(&self) -> String {
        format!("file://{}", self.path("store").display())
    }

    /// Starts a node; its log lines are sent one by one.
    pub fn start(&mut self, name: &'static str, master: bool, sender: Sender<Line>) -> io::Result<()> {
        let root = self.path(name);
        for folder in ["etc/kubestrap", "run/containerd"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        std::fs::create_dir_all(self.path("store"))?;
        std::fs::write(root.join("etc/kubestrap/config.yaml"), self.configuration(name, master))?;
        std::fs::write(root.join("etc/machine-id"), format!("{:032x}\n", self.nodes.len() + 1))?;
        std::fs::write(root.join("etc/hostname"), format!("{name}\n"))?;
        // All that is asked of the container runtime is a socket: the stand-in starts no containers.
        let socket = UnixListener::bind(root.join("run/containerd/containerd.sock"))?;
        let mut command = self.kubestrap(&root)?;
        command.args(["--log", "json", "run"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C is for us alone; we stop the nodes in an orderly way.
        let mut child = command.process_group(0).spawn()?;
        if let Some(log) = child.stderr.take() {
            std::thread::spawn(move || {
                for text in BufReader::new(log).lines().map_while(Result::ok) {
                    if sender.send(Line { node: name, text }).is_err() {
                        // Nobody reads any more, but the node must not block on its log.
                        continue;
                    }
                }
            });
        }
        self.nodes.push(Machine { name, child, _runtime_socket: socket });
        Ok(())
    }

    fn configuration(&self, name: &str, master: bool) -> String {
        let port = self.port;
        let common = format!(
            "cluster: demo\nstore: {}\nidentity: host\nnode: {{ name: {name}, address: {ADDRESS} }}\n",
            self.store()
        );
        if master {
            format!(
                "role: master\n{common}control_plane_endpoint: localhost:{port}\nkubeadm: {{ InitConfiguration: {{ localAPIEndpoint: {{ advertiseAddress: 127.0.0.1, bindPort: {port} }} }} }}\n"
            )
        } else {
            format!("role: worker\n{common}")
        }
    }

    /// The name of a node whose process ended.
    pub fn anyone_dead(&mut self) -> io::Result<Option<String>> {
        for node in &mut self.nodes {
            if node.child.try_wait()?.is_some() {
                return Ok(Some(node.name.to_owned()));
            }
        }
        Ok(None)
    }

    /// Waits until the store has so many reports of ready nodes.
    pub fn await_reports(&self, nodes: usize, patience: Duration) -> io::Result<()> {
        let store = self.store();
        let arguments = ["status", "--cluster", "--store", &store, "--cluster-name", "demo", "--output", "json"];
        let began = Instant::now();
        while began.elapsed() < patience && !self.interrupted() {
            let output = self.kubestrap(&self.path("laptop"))?.args(arguments).output()?;
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let reports = status["nodes"].as_array().into_iter().flatten();
            if reports.filter(|node| node["report"]["phase"] == "ready").count() == nodes {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Err(io::Error::other("the nodes' reports did not come"))
    }

    /// Prints the cluster's table, as from a laptop without configuration.
    pub fn status(&self) -> io::Result<()> {
        let store = self.store();
        let root = self.path("laptop");
        let arguments = ["status", "--cluster", "--store", &store, "--cluster-name", "demo"];
        check(self.kubestrap(&root)?.args(arguments))
    }

    /// Prints where the time of a node went.
    pub fn analyze(&self, name: &str) -> io::Result<()> {
        check(self.kubestrap(&self.path(name))?.arg("analyze"))
    }

    /// Leaves the folder in place, and says where it is.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.take().map(TempDir::keep).unwrap_or_default()
    }

    /// The program, with the stand-ins first in PATH: they lie beside it.
    fn kubestrap(&self, root: &Path) -> io::Result<Command> {
        let programs = programs()?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(programs.join("kubestrap"));
        command.env("PATH", format!("{}:{path}", programs.display())).arg("--root").arg(root);
        Ok(command)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.as_ref().map(|folder| folder.path().join(name)).unwrap_or_default()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if !matches!(node.child.try_wait(), Ok(None)) {
                continue;
            }
            // By process id, and only what we started.
            let _ = Command::new("kill").arg(node.child.id().to_string()).status();
        }
        let asked = Instant::now();
        for node in &mut self.nodes {
            while asked.elapsed() < STOP_WITHIN && matches!(node.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
        let Some(folder) = &self.folder else { return };
        for node in &self.nodes {
            if let Err(error) = kubestrap_testkit::apiserver::stop(&folder.path().join(node.name)) {
                eprintln!("xtask: the API server of {} may still run: {error}", node.name);
            }
        }
    }
}

fn listen_for_interrupts() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let told = flag.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if runtime.is_ok_and(|runtime| runtime.block_on(tokio::signal::ctrl_c()).is_ok()) {
            told.store(true, Ordering::Relaxed);
        }
    });
    flag
}
