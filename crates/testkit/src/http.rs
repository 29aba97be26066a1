//! A small HTTP/1.1 server for the stand-ins, on a current-thread runtime.

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// A response body: whole, or a stream without an end.
pub type Body = BoxBody<Bytes, Infallible>;

/// The largest request body the stand-ins read, in bytes.
const MAX_REQUEST: usize = 4 * 1024 * 1024;

/// A request, read whole.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path, as sent.
    pub path: String,
    /// Query, as sent, without `?`; empty when there is none.
    pub query: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// Who asks.
    pub peer: SocketAddr,
    /// The client certificate (DER), when it showed one.
    pub client_certificate: Option<Vec<u8>>,
}

impl Request {
    /// A header as text; `None` when absent or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// A value of the query, percent-decoded; `None` when absent.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| decode(&value.replace('+', " "))).next()
    }
}

/// What a handler answers.
pub enum Answer {
    /// A response.
    Response(Box<Response<Body>>),
    /// The connection is closed without one.
    Close,
}

/// Handles requests; shared by all connections.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request) -> impl Future<Output = Answer> + Send;
}

/// A whole body.
pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

/// A response with a status, a content type and a body.
pub fn respond(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert("content-type", value);
    }
    response
}

/// Percent-decodes; what is not valid stays as it is.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An HTTP date (`Sun, 06 Nov 1994 08:49:37 GMT`).
pub fn date(at: jiff::Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Serves one connection until its end; errors of a connection are the client's business.
pub async fn serve<H: Handler>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    client_certificate: Option<Vec<u8>>,
    handler: Arc<H>,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (handler, certificate) = (handler.clone(), client_certificate.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = Limited::new(body, MAX_REQUEST).collect().await.map_err(io::Error::other)?.to_bytes();
            let request = Request {
                method: parts.method.to_string(),
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                headers: parts.headers,
                body,
                peer,
                client_certificate: certificate,
            };
            match handler.handle(request).await {
                Answer::Response(response) => Ok(*response),
                Answer::Close => Err(io::Error::other("closed on purpose")),
            }
        }
    });
    // A failed connection has told its client; there is nobody else to tell.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Listens, and prints the address it got: how whoever started a stand-in on port 0 learns it.
///
/// # Errors
/// When the address is in use.
pub async fn announced(listen: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("{}", listener.local_addr()?);
    Ok(listener)
}

/// A stand-in that is nothing but this handler, on this thread, for ever; its address is [`announced`].
///
/// # Errors
/// When the address is in use, or the listener fails.
pub fn run_plain<H: Handler>(listen: SocketAddr, handler: H) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async { serve_plain(announced(listen).await?, Arc::new(handler)).await })
}

/// Accepts plain connections for ever.
///
/// # Errors
/// When the listener fails.
pub async fn serve_plain<H: Handler>(listener: tokio::net::TcpListener, handler: Arc<H>) -> io::Result<()> {
    loop {
        let (stream, peer) = listener.accept().await?;
        tokio::spawn(serve(stream, peer, None, handler.clone()));
    }
}

/// Accepts TLS connections for ever; a client that does not trust the server is the client's business.
///
/// # Errors
/// When the listener fails.
pub async fn serve_tls<H: Handler>(
    listener: tokio::net::TcpListener,
    config: Arc<rustls::ServerConfig>,
    handler: Arc<H>,
) -> io::Result<()> {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    loop {
        let (stream, peer) = listener.accept().await?;
        let (acceptor, handler) = (acceptor.clone(), handler.clone());
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, peer, None, handler).await;
            }
        });
    }
}

/// A server on a thread of its own, for tests; it ends with the process.
pub struct Background {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Background {
    /// Binds now and serves on a thread with its own runtime.
    ///
    /// # Errors
    /// When the address can not be bound or the thread not started.
    pub fn start<H: Handler>(listen: SocketAddr, handler: Arc<H>) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name(format!("standin-{address}")).spawn(move || {
            let served: io::Result<()> =
                runtime.block_on(async { serve_plain(tokio::net::TcpListener::from_std(listener)?, handler).await });
            if let Err(error) = served {
                eprintln!("stand-in on {address}: {error}");
            }
        })?;
        Ok(Background { address })
    }

    /// `http://address`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Sleeps; nothing happens for zero.
pub async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}
