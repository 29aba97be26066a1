//! A small HTTPS client for the API stand-in: one connection per request, deadlines included.

use crate::{pki::Pair, tls};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::io;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// One request may take this long.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait before the next one.
const RETRY: Duration = Duration::from_millis(100);

/// Who asks.
#[derive(Clone, Default)]
pub struct Credentials {
    /// PEM of the CA the server is verified with; not verified when absent.
    pub ca: Option<String>,
    /// A client certificate.
    pub identity: Option<Pair>,
    /// A bearer token.
    pub token: Option<String>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body; `Null` when it is not JSON.
    pub body: Value,
}

impl Answer {
    /// The message of a `Status` object; the whole body otherwise.
    pub fn message(&self) -> String {
        self.body["message"].as_str().map_or_else(|| self.body.to_string(), ToOwned::to_owned)
    }
}

/// Asks the API server at `host:port`; `body` goes with its content type.
///
/// # Errors
/// When nobody answers in ten seconds, or TLS fails.
pub async fn call(
    endpoint: &str,
    credentials: &Credentials,
    method: &str,
    path: &str,
    body: Option<(&str, Vec<u8>)>,
) -> io::Result<Answer> {
    let work = call_slowly(endpoint, credentials, method, path, body);
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("{method} https://{endpoint}{path}: timed out"))),
    }
}

/// The same, again and again while nobody answers, as kubeadm and the kubelet do.
///
/// # Errors
/// The last one, when nobody has answered within `limit`.
pub async fn patiently(
    endpoint: &str,
    credentials: &Credentials,
    method: &str,
    path: &str,
    body: Option<(&str, Vec<u8>)>,
    limit: Duration,
) -> io::Result<Answer> {
    let began = Instant::now();
    loop {
        match call(endpoint, credentials, method, path, body.clone()).await {
            Err(error) if is_passing(&error) && began.elapsed() < limit => tokio::time::sleep(RETRY).await,
            other => return other,
        }
    }
}

/// Whether trying again may help: a certificate that is not trusted stays so.
fn is_passing(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::InvalidData
}

async fn call_slowly(
    endpoint: &str,
    credentials: &Credentials,
    method: &str,
    path: &str,
    body: Option<(&str, Vec<u8>)>,
) -> io::Result<Answer> {
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let config = tls::client(credentials.ca.as_deref(), credentials.identity.as_ref())?;
    let stream = TcpStream::connect(endpoint).await?;
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", endpoint);
    if let Some(token) = &credentials.token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let payload = match body {
        None => Bytes::new(),
        Some((content_type, bytes)) => {
            request = request.header("content-type", content_type);
            Bytes::from(bytes)
        }
    };
    let request = request.body(Full::new(payload)).map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    driver.abort();
    Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
}
