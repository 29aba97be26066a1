//! A tap on the way to the store: passes every request on and notes when it came, when it was answered, and how. With
//! a certificate it is also the TLS front of a server that speaks plain HTTP.

use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use kubestrap_testkit::http::{self, Answer, Background, Handler, Request};
use kubestrap_testkit::pki::{self, Leaf, Pair, Usage};
use kubestrap_testkit::tls;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Headers that belong to one connection, or that the other side of the tap writes itself.
const OWN_HEADERS: &[&str] = &["connection", "keep-alive", "transfer-encoding", "expect", "host"];

/// A moment: time since 1970 by this machine's clock, which other programs note too.
pub type Moment = Duration;

/// This moment.
pub fn now() -> Moment {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// One request and its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// `GET`, `HEAD`, `PUT`.
    pub method: String,
    /// `/bucket/key`.
    pub path: String,
    /// HTTP status; 502 when the server behind did not answer.
    pub status: u16,
    /// When it had come in.
    pub came: Moment,
    /// When its answer was handed to the connection.
    pub answered: Moment,
}

impl Exchange {
    /// How long the client waited for the store.
    pub fn took(&self) -> Duration {
        self.answered.saturating_sub(self.came)
    }
}

/// The tap.
pub struct Tap {
    /// `http://127.0.0.1:port`, or `https://localhost:port`.
    pub url: String,
    seen: Arc<Mutex<Vec<Exchange>>>,
}

struct Forward {
    upstream: SocketAddr,
    seen: Arc<Mutex<Vec<Exchange>>>,
}

impl Tap {
    /// Plain HTTP in front of the server at `upstream`.
    pub fn plain(upstream: SocketAddr) -> io::Result<Tap> {
        let seen = Arc::default();
        let server = Background::start(any_port(), Arc::new(Forward { upstream, seen: Arc::clone(&seen) }))?;
        Ok(Tap { url: server.url(), seen })
    }

    /// HTTPS in front of the same server, with a certificate of this CA for `localhost`: a name, for stores have names.
    pub fn secure(upstream: SocketAddr, ca: &Pair) -> io::Result<Tap> {
        let sans = ["localhost".to_owned()];
        let leaf = Leaf { name: "bench", groups: &[], sans: &sans, usage: Usage::Server, life: pki::LEAF_LIFE };
        let acceptor = TlsAcceptor::from(tls::server(&pki::make_leaf(ca, &leaf)?, &ca.certificate)?);
        let listener = std::net::TcpListener::bind(any_port())?;
        listener.set_nonblocking(true)?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        let seen = Arc::default();
        let handler = Arc::new(Forward { upstream, seen: Arc::clone(&seen) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || runtime.block_on(serve(listener, acceptor, handler)));
        Ok(Tap { url, seen })
    }

    /// Forgets what was seen.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// What was seen, in the order of the answers.
    pub fn seen(&self) -> Vec<Exchange> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Exchange>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn serve(listener: std::net::TcpListener, acceptor: TlsAcceptor, handler: Arc<Forward>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, peer) = listener.accept().await?;
        let (acceptor, handler) = (acceptor.clone(), handler.clone());
        tokio::spawn(async move {
            // A failed handshake is the client's to tell.
            if let Ok(stream) = acceptor.accept(stream).await {
                http::serve(stream, peer, None, handler).await;
            }
        });
    }
}

impl Handler for Forward {
    async fn handle(&self, request: Request) -> Answer {
        let came = now();
        let (method, path) = (request.method.clone(), request.path.clone());
        let response = match forward(self.upstream, request).await {
            Ok(response) => response,
            Err(error) => http::respond(502, "text/plain", format!("the server behind does not answer: {error}\n")),
        };
        let exchange = Exchange { method, path, status: response.status().as_u16(), came, answered: now() };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(exchange);
        Answer::Response(Box::new(response))
    }
}

async fn forward(upstream: SocketAddr, request: Request) -> io::Result<hyper::Response<http::Body>> {
    let stream = TcpStream::connect(upstream).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let target = if request.query.is_empty() { request.path } else { format!("{}?{}", request.path, request.query) };
    let mut onward = hyper::Request::builder().method(request.method.as_str()).uri(target);
    onward = onward.header("host", upstream.to_string());
    for (name, value) in request.headers.iter().filter(|(name, _)| !OWN_HEADERS.contains(&name.as_str())) {
        onward = onward.header(name, value);
    }
    let onward = onward.body(Full::new(request.body)).map_err(io::Error::other)?;
    let (mut parts, body) = sender.send_request(onward).await.map_err(io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    driver.abort();
    OWN_HEADERS.iter().for_each(|name| drop(parts.headers.remove(*name)));
    Ok(hyper::Response::from_parts(parts, http::full(body)))
}
