//! A stand-in of etcd 3.6's membership: the JSON gateway over TLS with client certificates, members and learners,
//! started and unstarted, their health, and what is refused without a quorum. It runs in the process of the API
//! stand-in of its machine: the two live and die together, as the static pods of a machine do.
//!
//! There is no Raft in it. The members of a cluster share files: where they are is decided when the second one comes,
//! and until then they are the machine's own.

pub mod cluster;
mod gateway;
pub mod place;

pub use cluster::{Cluster, Member};
pub use place::Place;

use crate::{files, http, pki, script::Script, tls};
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// The manifest that says who this machine's member is.
pub const MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";
/// Which member the data in the folder are of.
const IDENTITY: &str = "/var/lib/etcd/member/standin-id";

/// What the manifest of a machine says of its member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// `--name`
    pub name: String,
    /// `--advertise-client-urls`
    pub client_url: String,
    /// `--initial-advertise-peer-urls`
    pub peer_url: String,
    /// Whether it joins a cluster that is there (`--initial-cluster-state=existing`).
    pub joins: bool,
}

impl Own {
    /// Reads the manifest of a root; `None` when there is none, or when it names no member.
    pub fn read(root: &Path) -> Option<Own> {
        let pod: Value = serde_saphyr::from_str(&files::read_text(&files::under(root, MANIFEST)).ok()?).ok()?;
        let command = pod["spec"]["containers"][0]["command"].as_array()?;
        let flag = |name: &str| {
            let prefix = format!("--{name}=");
            command.iter().filter_map(Value::as_str).find_map(|argument| argument.strip_prefix(&prefix))
        };
        Some(Own {
            name: flag("name")?.to_owned(),
            client_url: flag("advertise-client-urls")?.to_owned(),
            peer_url: flag("initial-advertise-peer-urls")?.to_owned(),
            joins: flag("initial-cluster-state") == Some("existing"),
        })
    }
}

/// The member of a root in its process.
pub struct Server {
    root: PathBuf,
    script: Script,
    id: u64,
    faults_used: Mutex<Vec<u32>>,
}

/// Why an API server cannot use its etcd.
pub const UNUSABLE: &str = "etcdserver: request timed out";

impl Server {
    /// Begins the life of this machine's member: the first one founds the cluster, a further one takes the place that
    /// was announced for it. Nothing happens, and there is none, where the machine has no etcd of its own.
    ///
    /// # Errors
    /// In etcd's words, when the member was removed, or when nobody announced it.
    pub async fn start(root: &Path, script: &Script) -> io::Result<Option<Arc<Server>>> {
        let Some(own) = Own::read(root) else { return Ok(None) };
        tokio::time::sleep(crate::script::seconds(script.etcd.start_seconds)).await;
        let place = Place::of(root);
        let identity = files::under(root, IDENTITY);
        let before = files::read_text(&identity).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let id = place.change(|cluster| cluster.begin(root, &own, before))??;
        files::write(&identity, id.to_string().as_bytes(), 0o600)?;
        let faults_used = Mutex::new(vec![0; script.etcd.faults.len()]);
        let server = Arc::new(Server { root: root.to_owned(), script: script.clone(), id, faults_used });
        server.listen(&own).await?;
        Ok(Some(server))
    }

    /// Listens at the advertised address. Machines of tests share 127.0.0.1: there only a whole machine listens, and
    /// such a member is not reached from outside.
    async fn listen(self: &Arc<Self>, own: &Own) -> io::Result<()> {
        let address: SocketAddr = own.client_url.trim_start_matches("https://").parse().map_err(io::Error::other)?;
        let whole = self.root == Path::new("/");
        let loopback = SocketAddr::from(([127, 0, 0, 1], address.port()));
        let mut wanted = vec![address];
        wanted.extend((address != loopback).then_some(loopback));
        wanted.retain(|at| whole || *at != loopback);
        let folder = files::under(&self.root, "/etc/kubernetes/pki/etcd");
        let ca = files::read_text(&folder.join("ca.crt"))?;
        let acceptor = TlsAcceptor::from(tls::mutual(&pki::read_pair(&folder.join("server"))?, &ca)?);
        for address in wanted {
            match TcpListener::bind(address).await {
                Ok(listener) => drop(tokio::spawn(accept(listener, acceptor.clone(), self.clone()))),
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("etcd: {address}: {error}"))),
            }
        }
        Ok(())
    }

    /// Where the cluster's files are.
    pub fn place(&self) -> Place {
        Place::of(&self.root)
    }

    /// Whether this member is still one that votes.
    pub fn votes(&self) -> bool {
        let cluster = self.place().cluster().unwrap_or_default();
        cluster.member(self.id).is_some_and(|member| !member.learner)
    }

    /// Whether an API server can read and write through this member.
    pub fn is_usable(&self) -> bool {
        let cluster = self.place().cluster().unwrap_or_default();
        cluster.member(self.id).is_some_and(|member| !member.learner) && cluster.has_quorum()
    }

    /// What goes on without a request: a leader is elected, and changes that waited for a quorum are carried out.
    ///
    /// # Errors
    /// When the cluster's file can not be written.
    pub fn tick(&self) -> io::Result<()> {
        let place = self.place();
        let mut cluster = place.cluster()?;
        if cluster.settle() { place.change(Cluster::settle).map(|_| ()) } else { Ok(()) }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, server: Arc<Server>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        tokio::spawn(connection(stream, peer, acceptor.clone(), server.clone()));
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, server: Arc<Server>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|c| c.to_vec());
    http::serve(stream, peer, certificate, server).await;
}
