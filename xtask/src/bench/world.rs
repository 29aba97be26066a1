//! What is measured, and in what surroundings: moto's S3 behind taps, machines as folders, kubeadm as the stand-in.

use super::tap::{Moment, Tap, now};
use kubestrap_testkit::moto::Moto;
use kubestrap_testkit::{apiserver, files, ports};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The store of every measurement.
pub const STORE: &str = "s3://bench/k8s";
/// The name of its cluster.
pub const CLUSTER: &str = "bench";
/// The path of the join bundle on the server.
pub const BUNDLE: &str = "/bench/k8s/bench/join/worker.json";
/// The path of the shell loop's script.
pub const SCRIPT: &str = "/bench/k8s/bench/join.sh";
/// No wait for anything here is longer: whatever takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// moto asks that a request is signed, and not by whom.
const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=AKIABENCH/20260101/us-east-1/s3/aws4_request, \
                      SignedHeaders=host, Signature=0";
/// An address for documentation (RFC 5737): there may be no network. Nobody connects to it.
const ADDRESS: &str = "192.0.2.10";

/// The surroundings; taken down when it is dropped.
pub struct World {
    folder: TempDir,
    /// The program under test.
    pub kubestrap: PathBuf,
    /// Where the stand-ins for kubeadm and kubelet are.
    programs: PathBuf,
    /// Plain HTTP to the store.
    pub tap: Tap,
    upstream: SocketAddr,
    api_port: u16,
    _moto: Moto,
}

impl World {
    /// Starts moto, with an empty bucket, and a tap before it.
    pub fn new(kubestrap: PathBuf, programs: PathBuf, moto: &Path) -> io::Result<World> {
        let moto = Moto::start(moto)?;
        let address = moto.url().trim_start_matches("http://").to_owned();
        let upstream: SocketAddr = address.parse().map_err(io::Error::other)?;
        let folder = tempfile::Builder::new().prefix("kubestrap-bench-").tempdir()?;
        let (tap, api_port) = (Tap::plain(upstream)?, ports::free_port()?);
        let world = World { folder, kubestrap, programs, tap, upstream, api_port, _moto: moto };
        world.put("/bench", b"")?;
        Ok(world)
    }

    /// Where the server itself listens.
    pub fn upstream(&self) -> SocketAddr {
        self.upstream
    }

    /// A folder of its own for something.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts an object (or makes a bucket), past the tap.
    pub fn put(&self, path: &str, body: &[u8]) -> io::Result<()> {
        self.request("PUT", path, body).map(drop)
    }

    /// Reads an object, past the tap.
    pub fn get(&self, path: &str) -> io::Result<Vec<u8>> {
        self.request("GET", path, b"")
    }

    /// Deletes an object, past the tap.
    pub fn delete(&self, path: &str) -> io::Result<()> {
        self.request("DELETE", path, b"").map(drop)
    }

    fn request(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&self.upstream, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (host, length) = (self.upstream, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nauthorization: {SIGNED}\r\n\
             content-length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        if !head.starts_with("HTTP/1.1 2") {
            let status = head.lines().next().unwrap_or("no answer");
            return Err(io::Error::other(format!("{method} {path}: {status}")));
        }
        Ok(answer.split_off((end + 4).min(answer.len())))
    }

    /// A program that finds the store's credentials, and nothing of the user's own set-up. All its
    /// traffic stays on this machine: no metadata service is asked.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.folder.path());
        command.env("AWS_ACCESS_KEY_ID", "AKIABENCH").env("AWS_SECRET_ACCESS_KEY", "bench");
        command.env("AWS_REGION", "us-east-1").env("AWS_DEFAULT_REGION", "us-east-1");
        command.env("AWS_EC2_METADATA_DISABLED", "true").stdin(Stdio::null());
        command
    }

    /// Starts the agent of a machine; one that was there before goes on with its folder. `roots` names the trusted
    /// certificates when they are not the system's own.
    pub fn agent(&self, machine: &str, endpoint: &str, roots: Option<&Path>) -> io::Result<Agent> {
        let root = self.path(machine);
        files::make_folder(&root.join("run/containerd"), 0o755)?;
        files::write(&root.join("etc/kubestrap/config.yaml"), self.configuration(machine, endpoint).as_bytes(), 0o644)?;
        files::write(&root.join("etc/machine-id"), format!("{}\n", machine_id(machine)).as_bytes(), 0o444)?;
        // All that is asked of the container runtime is a socket: the stand-in starts no containers.
        let socket = root.join("run/containerd/containerd.sock");
        let _ = std::fs::remove_file(&socket);
        let socket = UnixListener::bind(socket)?;
        let log = self.path(&format!("{machine}.log"));
        let standin = format!("exec {}/kubeadm \"$@\"", self.programs.display());
        let mut command = self.command(&self.kubestrap);
        command.env("PATH", self.recorder(machine, &standin)?);
        command.arg("--root").arg(&root).args(["--log", "json", "run"]);
        if let Some(roots) = roots {
            command.env("SSL_CERT_FILE", roots);
        }
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&log)?);
        // Ctrl-C is for us alone: what we started we stop.
        let child = command.process_group(0).spawn()?;
        Ok(Agent { child, root, log, ran: self.recorded(machine), _socket: socket })
    }

    /// Makes a kubeadm for a machine that notes when a join is executed and goes on with `then`; the PATH in which it
    /// comes first. It is a script, which costs either side the start of a bash: a millisecond or two.
    pub fn recorder(&self, machine: &str, then: &str) -> io::Result<String> {
        let (folder, file) = (self.path(&format!("{machine}-bin")), self.recorded(machine));
        let new = file.with_extension("new");
        let note = format!("echo \"$EPOCHREALTIME\" >{0} && mv {0} {1}", new.display(), file.display());
        let script = format!("#!/bin/bash\nif [ \"$1\" = join ]; then\n  {note}\nfi\n{then}\n");
        files::write(&folder.join("kubeadm"), script.as_bytes(), 0o755)?;
        let path = std::env::var("PATH").unwrap_or_default();
        Ok(format!("{}:{}:{path}", folder.display(), self.programs.display()))
    }

    /// Where that is noted.
    pub fn recorded(&self, machine: &str) -> PathBuf {
        self.path(&format!("{machine}-ran"))
    }

    fn configuration(&self, machine: &str, endpoint: &str) -> String {
        let port = self.api_port;
        let role = if machine == "master" {
            let local = format!("{{ localAPIEndpoint: {{ advertiseAddress: 127.0.0.1, bindPort: {port} }} }}");
            format!("role: master\ncontrol_plane_endpoint: localhost:{port}\nkubeadm: {{ InitConfiguration: {local} }}")
        } else {
            "role: worker".to_owned()
        };
        format!(
            "cluster: {CLUSTER}\n{role}\nstore: {STORE}\ns3: {{ endpoint: \"{endpoint}\" }}\nidentity: host\n\
             node: {{ name: {machine}, address: {ADDRESS} }}\n"
        )
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = apiserver::stop(&self.path("master")) {
            eprintln!("xtask: the stand-in's API server may still run: {error}");
        }
    }
}

/// 32 hexadecimal digits, another for each machine.
fn machine_id(machine: &str) -> String {
    let text: String = machine.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{text:0<32}").chars().take(32).collect()
}

/// What a recorder noted; `None` while it has noted nothing.
pub fn executed_at(recorded: &Path) -> Option<Moment> {
    let text = files::read_text(recorded).ok()?;
    let (seconds, micros) = text.trim().split_once('.')?;
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?))
}

/// A running agent; killed when it is dropped.
pub struct Agent {
    child: Child,
    root: PathBuf,
    log: PathBuf,
    ran: PathBuf,
    _socket: UnixListener,
}

impl Agent {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it is a node.
    pub fn wait_until_ready(&mut self) -> io::Result<()> {
        self.wait("the node is ready", |agent| agent.log_has("\"phase\":\"ready\"").then_some(()))
    }

    /// Waits until kubeadm joins; when it was executed.
    pub fn wait_for_kubeadm_join(&mut self) -> io::Result<Moment> {
        self.wait("kubeadm is executed", |agent| executed_at(&agent.ran))
    }

    /// Waits until `kubeadm join` has made its last file: the bundle was good.
    pub fn wait_until_joined(&mut self) -> io::Result<()> {
        let made = |agent: &mut Agent| agent.root.join("etc/kubernetes/kubelet.conf").exists().then_some(());
        self.wait("kubeadm has joined", made)
    }

    /// Waits until something is so.
    pub fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&mut Agent) -> Option<T>) -> io::Result<T> {
        let began = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || began.elapsed() > PATIENCE {
                let log = files::read_text(&self.log).unwrap_or_default();
                let last = log.lines().last().unwrap_or_default();
                let how = ended.map_or_else(|| "it runs".to_owned(), |status| status.to_string());
                return Err(io::Error::other(format!("waited for \"{what}\" ({how}); the agent's last words: {last}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log_has(&self, text: &str) -> bool {
        files::read_text(&self.log).is_ok_and(|log| log.contains(text))
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) -> io::Result<()> {
        let _ = Command::new("kill").arg(self.pid().to_string()).status()?;
        let began = Instant::now();
        while self.child.try_wait()?.is_none() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the tap has seen something.
pub fn wait_for_tap<T>(tap: &Tap, what: &str, look: impl Fn(&[super::tap::Exchange]) -> Option<T>) -> io::Result<T> {
    let began = now();
    loop {
        if let Some(found) = look(&tap.seen()) {
            return Ok(found);
        }
        if now().saturating_sub(began) > PATIENCE {
            return Err(io::Error::other(format!("waited for \"{what}\" at the store, which did not come")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
