//! The Kubernetes API: plain requests over hyper, with the credentials of a kubeconfig of this machine.
//!
//! No kube client lies between: its `try_from` resolves names with getaddrinfo and repeats requests by itself.

mod kubeconfig;
#[cfg(test)]
mod tests;

use crate::adapters::files::Disk;
use crate::adapters::net::{self, Names};
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kubeconfig::{Kubeconfig, Piece};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{Access, ApiAnswer, ApiRequest, Cluster, Files};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The largest answer that is read.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// The largest kubeconfig, certificate or token file.
pub(super) const MAX_FILE: u64 = 1024 * 1024;
/// A connection that is not made by then fails.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection is closed by then: requests are a minute and more apart.
const IDLE: Duration = Duration::from_secs(30);
/// A node speaks through one or two files and to one endpoint.
const CLIENTS: usize = 4;

pub(super) type Http = Client<HttpsConnector<HttpConnector<Names>>, Full<Bytes>>;
/// Why nobody answered, as hyper says it.
pub(super) type Unanswered = Box<dyn std::error::Error + Send + Sync>;

/// The Kubernetes API.
pub struct Api {
    names: Names,
    root: PathBuf,
    files: Disk,
    clients: RefCell<HashMap<Access, Rc<Speaker>>>,
}

/// A client with what it was made from.
struct Speaker {
    http: Http,
    server: String,
    token: Option<HeaderValue>,
    made_from: Vec<(PathBuf, Stamp)>,
}

/// Time, length and inode of a file, following links: the kubelet turns a link when it renews its certificate.
pub(super) type Stamp = Option<(i64, i64, u64, u64)>;

impl Api {
    /// The API as the files below `root` let us reach it.
    pub fn new(names: Names, root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Api { names, files: Disk::new(root.clone()), root, clients: RefCell::default() }
    }

    fn stamp(&self, path: &Path) -> Stamp {
        stamp(&self.root, path)
    }

    fn speaker(&self, access: &Access) -> Outcome<Rc<Speaker>> {
        if let Some(speaker) = self.clients.borrow().get(access)
            && speaker.made_from.iter().all(|(path, stamp)| self.stamp(path) == *stamp)
        {
            return Ok(speaker.clone());
        }
        let speaker = Rc::new(match access {
            Access::Kubeconfig(path) => self.by_kubeconfig(path)?,
            Access::KubeconfigAt(path, server) => {
                Speaker { server: format!("https://{server}"), ..self.by_kubeconfig(path)? }
            }
            Access::Unverified(endpoint) => Speaker {
                http: self.http(unverified()?),
                server: format!("https://{endpoint}"),
                token: None,
                made_from: Vec::new(),
            },
        });
        let mut clients = self.clients.borrow_mut();
        if clients.len() >= CLIENTS {
            clients.clear();
        }
        clients.insert(access.clone(), speaker.clone());
        Ok(speaker)
    }

    fn by_kubeconfig(&self, path: &Path) -> Outcome<Speaker> {
        // kubeadm does not write it in one go, so what is wrong with it may be right in a moment.
        let failed = |why: String| {
            Failure::new(Cause::ApiUnavailable, format!("use the kubeconfig {}", path.display()), why)
                .advise("it is written by kubeadm; when that is done, check the file")
        };
        let mut made_from = vec![(path.to_owned(), self.stamp(path))];
        let text = self.files.read(path, MAX_FILE)?.ok_or_else(|| failed("there is no such file".to_owned()))?;
        let text = String::from_utf8(text).map_err(|_| failed("it is not UTF-8".to_owned()))?;
        let config = Kubeconfig::parse(&text, path).map_err(failed)?;
        made_from.extend(config.files().into_iter().map(|file| (file.clone(), self.stamp(&file))));
        let content = |piece: &Piece| match piece {
            Piece::Data(data) => Ok(data.clone()),
            Piece::File(file) => {
                let found = self.files.read(file, MAX_FILE)?;
                found.ok_or_else(|| failed(format!("there is no {}", file.display())))
            }
        };
        let ca = content(&config.ca)?;
        let identity = config.certificate.as_ref();
        let identity = identity.map(|(certificate, key)| Ok((content(certificate)?, content(key)?))).transpose()?;
        let tls = verified(&ca, identity.as_ref()).map_err(failed)?;
        let token = config.token.as_ref().map(content).transpose()?;
        let token =
            token.map(|token| bearer(&token).ok_or_else(|| failed("the token is none".to_owned()))).transpose()?;
        let server = config.server.trim_end_matches('/').to_owned();
        Ok(Speaker { http: self.http(tls), server, token, made_from })
    }

    fn http(&self, tls: ClientConfig) -> Http {
        http(&self.names, tls)
    }
}

/// The stamp of a file of the machine whose files lie below `root`.
pub(super) fn stamp(root: &Path, path: &Path) -> Stamp {
    let place = root.join(path.strip_prefix("/").unwrap_or(path));
    let data = std::fs::metadata(place).ok()?;
    Some((data.mtime(), data.mtime_nsec(), data.len(), data.ino()))
}

/// A client that speaks HTTP/1 and keeps one idle connection.
pub(super) fn http(names: &Names, tls: ClientConfig) -> Http {
    let mut tcp = HttpConnector::new_with_resolver(names.clone());
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(IDLE)
        .pool_timer(TokioTimer::new())
        .build(https)
}

/// Sends a request and reads its answer, up to [`MAX_BODY`]. The errors are hyper's, for [`net::explain`].
pub(super) async fn ask(http: &Http, request: Request<Full<Bytes>>) -> Result<ApiAnswer, Unanswered> {
    let answer = http.request(request).await?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MAX_BODY).collect().await?.to_bytes().to_vec();
    Ok(ApiAnswer { status, body })
}

#[async_trait(?Send)]
impl Cluster for Api {
    async fn call(&self, request: ApiRequest) -> Outcome<ApiAnswer> {
        let speaker = self.speaker(&request.access)?;
        let url = format!("{}{}", speaker.server, request.path);
        let attempted = format!("{} {}", request.method, url.split('?').next().unwrap_or_default());
        let mut builder = Request::builder().method(request.method).uri(&url);
        builder = builder.header(ACCEPT, "application/json").header(USER_AGENT, "kubestrap");
        if let Some(token) = &speaker.token {
            builder = builder.header(AUTHORIZATION, token);
        }
        if let Some((kind, _)) = &request.body {
            builder = builder.header(CONTENT_TYPE, *kind);
        }
        let body = Full::new(request.body.map(|(_, body)| Bytes::from(body)).unwrap_or_default());
        let ready = builder.body(body);
        let ready = ready.map_err(|error| Failure::new(Cause::Internal, &attempted, error.to_string()))?;
        ask(&speaker.http, ready).await.map_err(|error| unanswered(&attempted, &*error))
    }
}

/// Translates an error of hyper. A name that does not resolve and a certificate that is not trusted have their own
/// causes; anything else means that the server is not there, or not for us.
fn unanswered(attempted: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    let answer = net::explain(error);
    let cause = match answer.cause {
        Some(cause @ (Cause::Dns | Cause::Tls)) => cause,
        _ => Cause::ApiUnavailable,
    };
    Failure::new(cause, attempted, answer.detail)
}

fn bearer(token: &[u8]) -> Option<HeaderValue> {
    let text = std::str::from_utf8(token).ok()?.trim();
    let mut header = HeaderValue::from_str(&format!("Bearer {text}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// TLS that trusts these CAs alone, and shows a client certificate when there is one. The texts read after "its".
pub(super) fn verified(ca: &[u8], identity: Option<&(Vec<u8>, Vec<u8>)>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        let certificate = certificate.map_err(|error| format!("its CA: {error}"))?;
        roots.add(certificate).map_err(|error| format!("its CA: {error}"))?;
    }
    if roots.is_empty() {
        return Err("its CA is empty".to_owned());
    }
    let builder = net::tls_builder().map_err(|error| error.to_string())?.with_root_certificates(roots);
    let Some((certificate, key)) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|error| format!("its client certificate: {error}"))?;
    // Neither message repeats the key.
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "its client key is not PEM".to_owned())?;
    builder.with_client_auth_cert(chain, key).map_err(|error| format!("its client certificate: {error}"))
}

fn unverified() -> Outcome<ClientConfig> {
    let failed = |error: rustls::Error| Failure::new(Cause::Internal, "set up TLS", error.to_string());
    let verifier = Arc::new(AnyCertificate(rustls::crypto::aws_lc_rs::default_provider()));
    Ok(net::tls_builder().map_err(failed)?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Accepts whatever certificate the server shows.
///
/// A node that has not joined yet has no CA to verify with: that CA is what the bundle brings and kubeadm checks. With
/// [`Access::Unverified`] nothing is sent but the path, no credentials exist on such a client, and core uses the answer
/// only to tell "reachable" from "not reachable".
#[derive(Debug)]
struct AnyCertificate(rustls::crypto::CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
