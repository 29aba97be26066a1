//! A TCP load balancer before API servers, as a network load balancer is. Its targets stand in a file, one `address:port`
//! a line, which may change at any time. Each is asked for `/readyz` four times a second: new connections go to those
//! that answer 200, in turns; to those that only listen when none does, so that a control plane that is just being made
//! is reached; and to none that cannot be reached. A target that cannot be reached loses its connections, so that nobody
//! waits for a machine that has lost its power.

use crate::tls;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How often every target is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Connecting is the kernel's work: a machine that is there does it at once.
const CONNECT: Duration = Duration::from_millis(500);
/// An API server on a machine of two cores that others use.
const ANSWER: Duration = Duration::from_secs(2);
/// So many looks in vain, and a target that answered is unhealthy.
const IN_VAIN: u8 = 2;

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Nobody can be reached.
    Away,
    /// Somebody listens, but is not ready.
    Listens,
    /// `/readyz` is answered with 200.
    Ready,
}

/// A target, and those who wait for its end.
struct Target {
    health: watch::Sender<Health>,
    in_vain: u8,
}

impl Target {
    fn new() -> Target {
        Target { health: watch::Sender::new(Health::Away), in_vain: 0 }
    }

    /// Better news count at once, worse ones when they are repeated.
    fn hear(&mut self, found: Health) {
        if found >= *self.health.borrow() {
            self.in_vain = 0;
        } else {
            self.in_vain += 1;
            if self.in_vain < IN_VAIN {
                return;
            }
            self.in_vain = 0;
        }
        self.health.send_if_modified(|health| std::mem::replace(health, found) != found);
    }
}

/// See the module.
pub struct Balancer {
    file: PathBuf,
    tls: Arc<ClientConfig>,
    targets: Mutex<BTreeMap<SocketAddr, Target>>,
    turn: AtomicUsize,
}

impl Balancer {
    /// One whose targets stand in this file; it has none while there is no file.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(file: PathBuf) -> io::Result<Arc<Balancer>> {
        let (targets, turn) = (Mutex::default(), AtomicUsize::new(0));
        Ok(Arc::new(Balancer { file, tls: tls::client(None, None)?, targets, turn }))
    }

    /// Serves until the listener fails.
    ///
    /// # Errors
    /// When it does.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        let looking = self.clone();
        tokio::spawn(async move {
            loop {
                looking.clone().look().await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        loop {
            let (client, _) = listener.accept().await?;
            tokio::spawn(self.clone().carry(client));
        }
    }

    /// Reads the file, and looks at every target once.
    pub async fn look(self: Arc<Self>) {
        self.read();
        let targets: Vec<SocketAddr> = self.lock().keys().copied().collect();
        let looks = targets.into_iter().map(|target| (target, tokio::spawn(probe(target, self.tls.clone()))));
        for (target, look) in looks.collect::<Vec<_>>() {
            let found = look.await.unwrap_or(Health::Away);
            if let Some(target) = self.lock().get_mut(&target) {
                target.hear(found);
            }
        }
    }

    /// The targets that a connection may go to, the first one first.
    pub fn candidates(&self) -> Vec<SocketAddr> {
        let targets = self.lock();
        let best = targets.values().map(|target| *target.health.borrow()).max().unwrap_or(Health::Away);
        if best == Health::Away {
            return Vec::new();
        }
        let of_best = targets.iter().filter(|(_, target)| *target.health.borrow() == best);
        let mut chosen: Vec<SocketAddr> = of_best.map(|(address, _)| *address).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % chosen.len();
        chosen.rotate_left(turn);
        chosen
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SocketAddr, Target>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file that cannot be read changes nothing; one that is no longer a target loses its connections.
    fn read(&self) {
        let Ok(text) = std::fs::read_to_string(&self.file) else { return };
        let wanted: Vec<SocketAddr> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let mut targets = self.lock();
        targets.retain(|address, _| wanted.contains(address));
        for address in wanted {
            targets.entry(address).or_insert_with(Target::new);
        }
    }

    async fn carry(self: Arc<Self>, mut client: TcpStream) {
        for address in self.candidates() {
            let Ok(Ok(mut server)) = timeout(CONNECT, TcpStream::connect(address)).await else { continue };
            let Some(mut health) = self.lock().get(&address).map(|target| target.health.subscribe()) else { continue };
            let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                // Also when it is no target any more.
                _ = health.wait_for(|health| *health == Health::Away) => {}
            }
            return;
        }
    }
}

async fn probe(target: SocketAddr, tls: Arc<ClientConfig>) -> Health {
    let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(target)).await else { return Health::Away };
    let is_ready = timeout(ANSWER, readyz(stream, target, tls)).await;
    if matches!(is_ready, Ok(Ok(true))) { Health::Ready } else { Health::Listens }
}

async fn readyz(stream: TcpStream, target: SocketAddr, tls: Arc<ClientConfig>) -> io::Result<bool> {
    let mut stream = TlsConnector::from(tls).connect(ServerName::from(target.ip()), stream).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(&status[8..] == b" 200")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Certificate;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;
    use tokio_rustls::TlsAcceptor;

    /// An API server: every request is answered with its name, by a status that can be changed.
    async fn server(folder: &Path, name: &'static str) -> (SocketAddr, Arc<AtomicBool>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let config = tls::standing(Certificate::Good, address.ip(), &folder.join(name)).expect("tls");
        let ready = Arc::new(AtomicBool::new(true));
        let is_ready = ready.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = TlsAcceptor::from(config.clone()).accept(stream).await else { continue };
                let status = if is_ready.load(Ordering::Relaxed) { "200 OK" } else { "500 Not So" };
                let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n{name}").as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        (address, ready, task)
    }

    /// Who answers a new connection; nothing when nobody does.
    async fn ask(at: SocketAddr) -> String {
        let stream = TcpStream::connect(at).await.expect("connect");
        let tls = TlsConnector::from(tls::client(None, None).expect("tls"));
        let Ok(mut stream) = tls.connect(ServerName::from(at.ip()), stream).await else { return String::new() };
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        text.rsplit('\n').next().unwrap_or_default().to_owned()
    }

    async fn look(balancer: &Arc<Balancer>) {
        for _ in 0..IN_VAIN {
            balancer.clone().look().await;
        }
    }

    #[tokio::test]
    async fn connections_go_to_those_that_are_ready_in_turns_and_to_others_only_when_none_is() {
        let place = tempfile::tempdir().expect("folder");
        let file = place.path().join("targets");
        let balancer = Balancer::new(file.clone()).expect("balancer");
        let (one, one_ready, _one) = server(place.path(), "one").await;
        let (two, two_ready, _two) = server(place.path(), "two").await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let at = listener.local_addr().expect("address");
        tokio::spawn(balancer.clone().serve(listener));
        assert_eq!(ask(at).await, "", "no targets");
        std::fs::write(&file, format!("{one}\nnonsense\n{two}\n127.0.0.1:1\n")).expect("write");
        look(&balancer).await;
        let mut answers = [ask(at).await, ask(at).await];
        answers.sort();
        assert_eq!(answers, ["one", "two"]);
        one_ready.store(false, Ordering::Relaxed);
        look(&balancer).await;
        assert_eq!(balancer.candidates(), [two]);
        two_ready.store(false, Ordering::Relaxed);
        look(&balancer).await;
        assert_eq!(balancer.candidates().len(), 2, "none is ready, both listen");
        std::fs::write(&file, format!("{two}\n")).expect("write");
        look(&balancer).await;
        assert_eq!(balancer.candidates(), [two], "one is no target any more");
        std::fs::remove_file(&file).expect("remove");
        look(&balancer).await;
        assert_eq!(balancer.candidates(), [two], "a file that cannot be read changes nothing");
    }

    #[tokio::test]
    async fn a_target_that_cannot_be_reached_loses_its_connections() {
        let place = tempfile::tempdir().expect("folder");
        let file = place.path().join("targets");
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let target = silent.local_addr().expect("address");
        std::fs::write(&file, format!("{target}\n")).expect("write");
        let balancer = Balancer::new(file).expect("balancer");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let at = listener.local_addr().expect("address");
        tokio::spawn(balancer.clone().serve(listener));
        balancer.lock().insert(target, Target::new());
        if let Some(target) = balancer.lock().get_mut(&target) {
            target.hear(Health::Listens);
        }
        let mut client = TcpStream::connect(at).await.expect("connect");
        client.write_all(b"x").await.expect("write");
        let held = silent.accept().await.expect("accept");
        drop(silent);
        look(&balancer).await;
        let mut rest = Vec::new();
        let end = timeout(Duration::from_secs(5), client.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "the connection ended though the server holds it: {held:?}");
    }

    #[test]
    fn bad_news_count_when_they_are_repeated() {
        let mut target = Target::new();
        target.hear(Health::Ready);
        let health = |target: &Target| *target.health.borrow();
        target.hear(Health::Away);
        assert_eq!(health(&target), Health::Ready);
        target.hear(Health::Ready);
        target.hear(Health::Away);
        assert_eq!(health(&target), Health::Ready, "they were not in a row");
        target.hear(Health::Away);
        assert_eq!(health(&target), Health::Away);
        target.hear(Health::Listens);
        assert_eq!(health(&target), Health::Listens);
    }
}
