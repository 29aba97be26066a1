//! A small Kubernetes API server: real TLS, client certificates and bootstrap tokens, optimistic concurrency, merge
//! patches, server-side apply, custom resources, discovery, and the controllers a join needs (signer and cleaner of
//! bootstrap tokens, CSR signer, node conditions). It is started by the kubeadm stand-in and outlives it.

mod apply;
mod auth;
mod controllers;
mod eviction;
mod handler;
mod resources;
mod state;

use crate::kubeadm::Kubeconfig;
use crate::script::Script;
use crate::{files, http, pki, tls};
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Process id of the server of a root.
const PID_FILE: &str = "/run/kubestrap-standin/apiserver.pid";
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
    if running(root).is_some() {
        return Ok(());
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(root))
}

/// Stops the server of a root; nothing happens when there is none.
///
/// # Errors
/// When it can not be killed.
pub fn stop(root: &Path) -> io::Result<()> {
    if let Some(pid) = running(root) {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while running(root).is_some() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    match std::fs::remove_file(files::under(root, PID_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The process id of the server of a root, when it lives. A recycled id is told apart by its command line.
pub fn running(root: &Path) -> Option<i32> {
    let pid: i32 = files::read_text(&files::under(root, PID_FILE)).ok()?.trim().parse().ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line);
    // An exited process that nobody waited for has an empty command line.
    (line.contains("standin-apiserver") && pid != i32::try_from(std::process::id()).unwrap_or_default()).then_some(pid)
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
    let folder = files::under(root, "/etc/kubernetes/pki");
    let ca = pki::read_pair(&folder.join("ca"))?;
    let config = tls::server(&pki::read_pair(&folder.join("apiserver"))?, &ca.certificate)?;
    let mut listeners = Vec::new();
    for address in addresses(root)? {
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            // An advertised address that is not of this machine: the loopback address serves.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{address}: {error}"))),
        }
    }
    let script = Script::load(root)?;
    let shared = Arc::new(Shared {
        faults_used: Mutex::new(vec![0; script.api.faults.len()]),
        root: root.to_owned(),
        state: Mutex::new(state::State::load(root)?),
        script,
        ca,
        started: Instant::now(),
    });
    files::write(&files::under(root, PID_FILE), std::process::id().to_string().as_bytes(), 0o644)?;
    for listener in listeners {
        tokio::spawn(accept(listener, TlsAcceptor::from(config.clone()), shared.clone()));
    }
    let own = std::process::id().to_string();
    loop {
        tokio::time::sleep(TICK).await;
        // A root that was removed or reset, or that has a newer server: this one would only bring old state back.
        if files::read_text(&files::under(root, PID_FILE)).ok().as_deref() != Some(own.as_str()) {
            return Ok(());
        }
        if let Err(error) = controllers::tick(&shared) {
            eprintln!("standin-apiserver: {error}");
        }
    }
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
