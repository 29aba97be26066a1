//! Machines as folders, a store as a folder, and the stand-ins in front of PATH.

use crate::process::{Agent, Finished, KUBESTRAP, finish, processes_of, programs, signal};
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The cluster of every test.
pub const CLUSTER: &str = "prod";
/// An address for documentation (RFC 5737): nobody connects to it, for the endpoint is on localhost.
const ADDRESS: &str = "192.0.2.10";
/// As fast as the stand-in can: the tests are about us.
const QUICK: &str = "init_seconds: 0.1\njoin_seconds: 0.05\npoll_seconds: 0.05\n";

/// A store and the machines that meet there. Everything ends with it.
pub struct World {
    folder: TempDir,
    /// The API server's port.
    pub port: u16,
    machines: Cell<u32>,
}

impl World {
    /// An empty store.
    pub fn new() -> World {
        let folder = tempfile::Builder::new().prefix("kubestrap-it-").tempdir().expect("folder");
        std::fs::create_dir(folder.path().join("store")).expect("store");
        World { folder, port: free_port(), machines: Cell::new(0) }
    }

    /// A machine that is configured as the master.
    pub fn master(&self, name: &str) -> Machine {
        let port = self.port;
        let more = format!(
            "role: master\ncontrol_plane_endpoint: 127.0.0.1:{port}\n\
             kubeadm: {{ InitConfiguration: {{ localAPIEndpoint: {{ advertiseAddress: 127.0.0.1, bindPort: {port} }} }} }}\n"
        );
        self.machine(name, &more)
    }

    /// A machine that is configured as a worker.
    pub fn worker(&self, name: &str) -> Machine {
        self.machine(name, "role: worker\n")
    }

    /// A machine with a configuration that says who it is and where the store is.
    pub fn machine(&self, name: &str, more: &str) -> Machine {
        let store = self.store_path("").display().to_string();
        let text = format!(
            "cluster: {CLUSTER}\nstore: file://{}\nidentity: host\nnode: {{ name: {name}, address: {ADDRESS} }}\n{more}",
            store.trim_end_matches('/')
        );
        self.bare_machine(name, &text)
    }

    /// A machine with this configuration.
    pub fn bare_machine(&self, name: &str, configuration: &str) -> Machine {
        let number = self.machines.get() + 1;
        self.machines.set(number);
        let machine = Machine::new(self.path(name), name, number);
        machine.write("/etc/kubestrap/config.yaml", configuration);
        machine
    }

    /// A path in the folder of this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where an object of the store lies.
    pub fn store_path(&self, key: &str) -> PathBuf {
        self.path("store").join(key)
    }

    /// An object of the cluster; none when it is not there.
    pub fn object(&self, key: &str) -> Option<Value> {
        let text = std::fs::read_to_string(self.store_path(&format!("{CLUSTER}/{key}"))).ok()?;
        Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{key}: {error}\n{text}")))
    }

    /// The cluster register.
    pub fn register(&self) -> Value {
        self.object("cluster.json").expect("cluster.json")
    }

    /// The join bundle.
    pub fn bundle(&self) -> Value {
        self.object("join/worker.json").expect("join/worker.json")
    }

    /// Replaces an object behind everybody's back, atomically.
    pub fn put(&self, key: &str, body: &[u8]) {
        let path = self.store_path(&format!("{CLUSTER}/{key}"));
        std::fs::create_dir_all(path.parent().expect("folder")).expect("mkdir");
        let draft = self.path("draft");
        std::fs::write(&draft, body).expect("write");
        std::fs::rename(&draft, &path).expect("rename");
    }

    /// A cluster with one master that has come up.
    pub fn established() -> (World, Machine) {
        let world = World::new();
        let master = world.master("m1");
        master.run(&["run", "--once"]).expect(0);
        (world, master)
    }
}

/// A port nobody listens on now, for this test alone.
pub fn free_port() -> u16 {
    crate::ports::free_port().expect("port")
}

/// A machine: a root folder. What runs below it ends with it.
pub struct Machine {
    root: PathBuf,
    /// The node's name.
    pub name: String,
    /// Its machine-id.
    pub machine_id: String,
    _runtime: UnixListener,
}

impl Machine {
    fn new(root: PathBuf, name: &str, number: u32) -> Machine {
        for folder in ["etc/kubestrap/config.d", "run/containerd"] {
            std::fs::create_dir_all(root.join(folder)).expect("mkdir");
        }
        // All that is asked of the container runtime is a socket: the stand-in starts no containers.
        let runtime = UnixListener::bind(root.join("run/containerd/containerd.sock")).expect("socket");
        let machine_id = format!("{number:032x}");
        let machine = Machine { root, name: name.to_owned(), machine_id, _runtime: runtime };
        machine.write("/etc/machine-id", &format!("{}\n", machine.machine_id));
        machine.write("/etc/hostname", &format!("{name}\n"));
        machine.script("");
        // A machine that loses the register stops its kubelet: never the kubelet of whoever runs the tests.
        machine.tool("systemctl", &format!("echo \"$@\" >> {}", machine.path("/systemctl.log").display()));
        machine
    }

    /// A shell script in front of everything else in PATH.
    pub fn tool(&self, name: &str, script: &str) {
        self.write(&format!("/opt/bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        self.set_mode(&format!("/opt/bin/{name}"), 0o755);
    }

    /// The root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a path of the machine is.
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// Whether a path exists.
    pub fn has(&self, absolute: &str) -> bool {
        self.path(absolute).symlink_metadata().is_ok()
    }

    /// Writes a file, mode 0644, with its folders.
    pub fn write(&self, absolute: &str, text: &str) {
        let path = self.path(absolute);
        std::fs::create_dir_all(path.parent().expect("folder")).expect("mkdir");
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{absolute}: {error}"));
        self.set_mode(absolute, 0o644);
    }

    /// Reads a file.
    #[track_caller]
    pub fn read(&self, absolute: &str) -> String {
        std::fs::read_to_string(self.path(absolute)).unwrap_or_else(|error| panic!("{absolute}: {error}"))
    }

    /// The permission bits of a path.
    #[track_caller]
    pub fn mode(&self, absolute: &str) -> u32 {
        let metadata = std::fs::metadata(self.path(absolute)).unwrap_or_else(|error| panic!("{absolute}: {error}"));
        metadata.mode() & 0o777
    }

    /// Sets them.
    pub fn set_mode(&self, absolute: &str, mode: u32) {
        std::fs::set_permissions(self.path(absolute), PermissionsExt::from_mode(mode)).expect("chmod");
    }

    /// One more layer of configuration.
    pub fn configure(&self, yaml: &str) {
        self.write("/etc/kubestrap/config.d/50-test.yaml", yaml);
    }

    /// How its stand-ins behave, on top of the quick defaults.
    pub fn script(&self, more: &str) {
        let api = if more.contains("api:") { "" } else { "api: { signer_delay: 0.05, crd_delay: 0.05 }\n" };
        self.write("/etc/kubestrap-standin.yaml", &format!("{QUICK}{api}{more}\n"));
    }

    /// The program on this machine, with the stand-ins in front of PATH and nobody's settings in the environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_logging("json", arguments)
    }

    /// The same with another form of the log.
    pub fn command_logging(&self, form: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(KUBESTRAP);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["KUBESTRAP_", "AWS_", "NOTIFY_", "JOURNAL_"].iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let own = self.path("/opt/bin");
        command.env("PATH", format!("{}:{}:{path}", own.display(), programs().display())).env("HOME", &self.root);
        command.arg("--root").arg(&self.root).args(["--log", form]).args(arguments);
        command
    }

    /// Runs the program to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Finished {
        finish(&mut self.command(arguments))
    }

    /// Starts the program.
    pub fn start(&self, arguments: &[&str]) -> Agent {
        Agent::start(&mut self.command(arguments))
    }

    /// What the stand-in did here: one event a line.
    pub fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("/var/lib/kubestrap-standin/runs.jsonl")).unwrap_or_default();
        // A line that is being written is not one yet.
        text.split_inclusive('\n').filter(|l| l.ends_with('\n')).filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    /// How often a kubeadm command was begun.
    pub fn begun(&self, command: &str) -> usize {
        self.events().iter().filter(|e| e["event"] == "start" && e["command"] == command).count()
    }

    /// How often a kubeadm command succeeded.
    pub fn succeeded(&self, command: &str) -> usize {
        let well = |e: &&Value| e["event"] == "end" && e["command"] == command && e["code"] == 0;
        self.events().iter().filter(well).count()
    }

    /// Whether a kubeadm command has come to a phase.
    pub fn reached(&self, command: &str, phase: &str) -> bool {
        self.events().iter().any(|e| e["event"] == "phase" && e["command"] == command && e["phase"] == phase)
    }

    /// The API objects of the cluster whose master this is, by path.
    pub fn api_objects(&self) -> BTreeMap<String, Value> {
        let state: Value = serde_json::from_str(&self.read("/var/lib/etcd/standin.json")).expect("JSON");
        serde_json::from_value(state["objects"].clone()).expect("objects")
    }

    /// A Node object of that cluster.
    #[track_caller]
    pub fn node(&self, name: &str) -> Value {
        let objects = self.api_objects();
        let found = objects.get(&format!("/api/v1/nodes/{name}")).cloned();
        found.unwrap_or_else(|| panic!("{name} is not registered; there are {:?}", objects.keys()))
    }

    /// The journal's entries.
    pub fn journal(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("/var/lib/kubestrap/journal.jsonl")).unwrap_or_default();
        text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// This machine's report in the store.
    pub fn report(&self, world: &World) -> Option<Value> {
        world.object(&format!("nodes/machine-{}/report.json", self.machine_id))
    }

    /// Every file and link below a folder with its mode, inode-independent content, and time of change.
    pub fn picture(&self, absolute: &str) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
        let mut picture = BTreeMap::new();
        let mut folders = vec![self.path(absolute)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let (path, metadata) = (entry.path(), entry.metadata().expect("stat"));
                let body = if metadata.is_file() { std::fs::read(&path).expect("read") } else { Vec::new() };
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                picture.insert(path, (metadata.mode(), metadata.mtime_nsec() + metadata.mtime(), body));
            }
        }
        picture
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Jobs and the API server outlive whoever started them; each has this root, and nobody else's, in its arguments.
        let root = self.root.display().to_string();
        for (pid, _) in processes_of(&format!("{root}/")).into_iter().chain(processes_of(&format!("{root} "))) {
            signal(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}
