//! A small Kubernetes API server: real TLS, client certificates and bootstrap tokens, optimistic concurrency, merge
//! patches, server-side apply, custom resources, discovery, and the controllers a join needs (signer and cleaner of
//! bootstrap tokens, CSR signer, node conditions). It is started by the kubeadm stand-in and outlives it.

mod apply;
mod auth;
mod controllers;
mod eviction;
mod handler;
mod mirror;
mod resources;
mod state;

pub use mirror::OFF;

use crate::etcd::{self, Place, place};
use crate::kubeadm::Kubeconfig;
use crate::script::Script;
use crate::{files, http, pki, tls};
use nix::fcntl::Flock;
use serde_json::Value;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Process id of the server of a root, once it serves.
const PID_FILE: &str = "/run/kubestrap-standin/apiserver.pid";
/// The same from its beginning: its etcd may be a learner for a while.
const LIFE_FILE: &str = "/run/kubestrap-standin/server.pid";
/// How often the controllers look.
const TICK: Duration = Duration::from_millis(50);

/// What connections and controllers share.
struct Shared {
    root: PathBuf,
    script: Script,
    state: Mutex<state::State>,
    ca: pki::Pair,
    started: Instant,
    faults_used: Mutex<Vec<u32>>,
    /// The member of this machine; none where etcd is elsewhere.
    etcd: Option<Arc<etcd::Server>>,
}

/// The state, while no other process and no other request changes it.
struct Entered<'a> {
    state: MutexGuard<'a, state::State>,
    _lock: Option<Flock<File>>,
}

impl Shared {
    /// Enters the state, as the other masters of the cluster have left it.
    fn enter(&self) -> io::Result<Entered<'_>> {
        let mut state = self.state.lock().map_err(|_| io::Error::other("a request died while it held the state"))?;
        let shares = files::under(&self.root, place::OBJECTS).is_symlink();
        let lock = if shares { Some(Place::of(&self.root).lock("objects")?) } else { None };
        state.refresh()?;
        Ok(Entered { state, _lock: lock })
    }
}

/// Serves the API of a root until killed; with `detach` in a session of its own. A second one for the same root ends
/// at once without an error.
///
/// # Errors
/// When the root carries no control plane, or its port is taken by something else.
pub fn main(root: &Path, detach: bool) -> io::Result<()> {
    if detach {
        // It fails for a process group leader, which then is as detached as it can be.
        let _ = nix::unistd::setsid();
    }
    if process(root, LIFE_FILE).is_some() {
        return Ok(());
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(root))
}

/// Stops the server of a root; nothing happens when there is none.
///
/// # Errors
/// When it can not be killed.
pub fn stop(root: &Path) -> io::Result<()> {
    for file in [LIFE_FILE, PID_FILE] {
        if let Some(pid) = process(root, file) {
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
            let deadline = Instant::now() + Duration::from_secs(5);
            while process(root, file).is_some() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        match std::fs::remove_file(files::under(root, file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The process id of the server of a root, when it lives and serves.
pub fn running(root: &Path) -> Option<i32> {
    process(root, PID_FILE)
}

/// A recycled id is told apart by its command line.
fn process(root: &Path, file: &str) -> Option<i32> {
    let pid: i32 = files::read_text(&files::under(root, file)).ok()?.trim().parse().ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line);
    // An exited process that nobody waited for has an empty command line.
    (line.contains("standin-apiserver") && pid != i32::try_from(std::process::id()).unwrap_or_default()).then_some(pid)
}

/// Whether the server of a root lives, this process included.
pub fn lives(root: &Path) -> bool {
    let own = std::process::id().to_string();
    let is_own = files::read_text(&files::under(root, LIFE_FILE)).is_ok_and(|pid| pid.trim() == own);
    is_own || process(root, LIFE_FILE).is_some()
}

/// Makes this process pass for the server of a root.
#[cfg(test)]
pub(crate) fn pretend(root: &Path) {
    files::write(&files::under(root, LIFE_FILE), std::process::id().to_string().as_bytes(), 0o644).expect("a pid file");
}

/// Where the API of a root listens, from the cluster's documents on the disk: its admin kubeconfig's port, and its
/// controller manager's address.
fn addresses(root: &Path) -> io::Result<Vec<SocketAddr>> {
    let config = Kubeconfig::read(&files::under(root, "/etc/kubernetes/controller-manager.conf"))?;
    let local: SocketAddr = config.endpoint().parse().map_err(io::Error::other)?;
    let loopback = SocketAddr::from(([127, 0, 0, 1], local.port()));
    Ok(if local == loopback { vec![loopback] } else { vec![local, loopback] })
}

async fn serve(root: &Path) -> io::Result<()> {
    let own = std::process::id().to_string();
    files::write(&files::under(root, LIFE_FILE), own.as_bytes(), 0o644)?;
    // A root that was removed or reset, or that has a newer server: this one would only bring old state back.
    let is_ours = || files::read_text(&files::under(root, LIFE_FILE)).ok().as_deref() == Some(own.as_str());
    let script = Script::load(root)?;
    let etcd = etcd::Server::start(root, &script).await?;
    // An API server is not there before its etcd answers, and a learner answers no one.
    while etcd.as_ref().is_some_and(|etcd| !etcd.votes()) {
        tokio::time::sleep(TICK).await;
        if !is_ours() {
            return Ok(());
        }
    }
    let shared = Arc::new(Shared {
        faults_used: Mutex::new(vec![0; script.api.faults.len()]),
        root: root.to_owned(),
        state: Mutex::new(state::State::load(root)?),
        script,
        ca: pki::read_pair(&files::under(root, "/etc/kubernetes/pki/ca"))?,
        started: Instant::now(),
        etcd,
    });
    listen(root, &shared).await?;
    files::write(&files::under(root, PID_FILE), own.as_bytes(), 0o644)?;
    loop {
        tokio::time::sleep(TICK).await;
        if !is_ours() {
            return Ok(());
        }
        if let Err(error) = shared.tick() {
            eprintln!("standin-apiserver: {error}");
        }
    }
}

impl Shared {
    fn tick(&self) -> io::Result<()> {
        if let Some(etcd) = &self.etcd {
            etcd.tick()?;
            if !etcd.is_usable() {
                return Ok(());
            }
        }
        controllers::tick(self)
    }
}

async fn listen(root: &Path, shared: &Arc<Shared>) -> io::Result<()> {
    let config =
        tls::server(&pki::read_pair(&files::under(root, "/etc/kubernetes/pki/apiserver"))?, &shared.ca.certificate)?;
    for (n, address) in addresses(root)?.into_iter().enumerate() {
        match TcpListener::bind(address).await {
            Ok(listener) => drop(tokio::spawn(accept(listener, TlsAcceptor::from(config.clone()), shared.clone()))),
            // An advertised address that is not of this machine: the loopback address serves.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            // Masters of tests are folders of one machine: the first one has its loopback address.
            Err(error) if n > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{address}: {error}"))),
        }
    }
    Ok(())
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        tokio::spawn(connection(stream, peer, acceptor.clone(), shared.clone()));
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|c| c.to_vec());
    http::serve(stream, peer, certificate, shared).await;
}

/// A `Status` object, as the API server answers when it refuses.
fn status(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code,
    });
    (code, body)
}
