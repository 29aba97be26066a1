//! What every connection is made with: one resolver in this process, one TLS provider, the system's roots.
//!
//! Names are resolved by hickory and never by getaddrinfo, which in a static binary loads NSS modules at run time and
//! can crash (rust#100711). Nothing is read before the first name is looked up or the first TLS connection is made: a
//! node with a folder as store and addresses as endpoints reads neither `/etc/resolv.conf` nor the roots.

mod resolv;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use aws_smithy_http_client::{Connector, tls};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::{Hosts, TokioResolver};
use http_body_util::Limited;
use hyper_util::client::legacy::connect::dns::Name;
use kubestrap_core::model::cause::Cause;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

/// A connection that is not made by then goes to another address, or fails. A SYN is repeated after 1 s and 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is taken. The SDKs read every body but an object's to its end, whatever its length; a page
/// of a thousand keys of 1024 bytes, percent-encoded, is below this.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// What the resolver is made of; it is made anew when one of them changed (DHCP at boot).
const RESOLVER_FILES: [&str; 2] = [resolv::FILE, "/etc/hosts"];
/// Where instance metadata is; never behind a proxy.
const METADATA_HOSTS: [&str; 3] = ["169.254.169.254", "[fd00:ec2::254]", "fd00:ec2::254"];

type FileTimes = [Option<SystemTime>; RESOLVER_FILES.len()];

/// The resolver of this process, shared by its clones.
#[derive(Clone, Default)]
pub struct Names(Arc<Mutex<Option<Sources>>>);

/// What names are looked up in.
#[derive(Clone)]
struct Sources {
    times: FileTimes,
    hosts: Arc<Hosts>,
    /// Why there is none: the hosts file counts all the same.
    resolver: Result<TokioResolver, String>,
}

/// A name that could not be resolved.
#[derive(Debug)]
pub struct Unresolved {
    name: String,
    why: String,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot resolve {}: {}", self.name, self.why)
    }
}

impl Error for Unresolved {}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Names {
    /// The addresses of a name, by hosts file, search list and name servers as they are configured now.
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let failed = |why: String| Unresolved { name: name.to_owned(), why };
        let sources = self.sources();
        let known = in_hosts(&sources.hosts, name);
        if !known.is_empty() {
            return Ok(known);
        }
        match sources.resolver.map_err(failed)?.lookup_ip(name).await {
            Ok(addresses) => Ok(addresses.iter().collect()),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn sources(&self) -> Sources {
        let times = RESOLVER_FILES.map(|file| std::fs::metadata(file).and_then(|data| data.modified()).ok());
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sources) = current.as_ref().filter(|sources| sources.times == times) {
            return sources.clone();
        }
        // No hosts file is as good as an empty one.
        let hosts = Arc::new(Hosts::from_system().unwrap_or_default());
        let sources = Sources { times, hosts, resolver: resolv::resolver() };
        *current = Some(sources.clone());
        sources
    }
}

/// The addresses in the hosts file. The resolver reads it too, but asks the name servers for the family that is not
/// there, and one that does not answer holds up every connection for seconds; getaddrinfo stops at the hosts file.
fn in_hosts(hosts: &Hosts, name: &str) -> Vec<IpAddr> {
    let Ok(name) = hickory_resolver::proto::rr::Name::from_str(name) else { return Vec::new() };
    let find = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
    let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(find);
    found
        .flat_map(|lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
        .collect()
}

impl ResolveDns for Names {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move { self.resolve(name).await.map_err(ResolveDnsError::new) })
    }
}

impl tower::Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Unresolved;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Unresolved>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unresolved>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let names = self.clone();
        Box::pin(async move {
            let addresses = names.resolve(name.as_str()).await?;
            Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect::<Vec<_>>().into_iter())
        })
    }
}

impl reqwest::dns::Resolve for Names {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let names = self.clone();
        Box::pin(async move {
            let addresses = names.resolve(name.as_str()).await?;
            let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses) as reqwest::dns::Addrs)
        })
    }
}

/// There are no trusted roots on this machine.
#[derive(Debug)]
struct NoRoots(String);

impl fmt::Display for NoRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = &self.0;
        write!(f, "this system has no trusted root certificates{why}: install the package ca-certificates")
    }
}

impl Error for NoRoots {}

fn require_roots() -> Result<(), NoRoots> {
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(());
    }
    Err(NoRoots(found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default()))
}

/// The HTTP client of the AWS SDKs: made once, shared by all of them.
///
/// `metadata` is the base URL of the metadata service when it is not the usual one; it is never reached by a proxy.
pub fn sdk_client(names: &Names, metadata: Option<&str>) -> SharedHttpClient {
    let exempt = metadata.and_then(|url| url.parse::<http::Uri>().ok()).and_then(|uri| uri.host().map(str::to_owned));
    let connector = SharedHttpConnector::new(SdkConnector { exempt, ..SdkConnector::new(names, Some(MAX_ANSWER)) });
    http_client_fn(move |_, _| connector.clone())
}

/// A connector whose answers may be of any length: who reads them sees to their end.
pub fn streaming(names: &Names) -> SharedHttpConnector {
    SharedHttpConnector::new(SdkConnector::new(names, None))
}

/// Chooses by the URL, so that roots are loaded only when TLS is spoken.
#[derive(Debug)]
struct SdkConnector {
    names: Names,
    exempt: Option<String>,
    /// The largest answer.
    most: Option<usize>,
    direct: OnceLock<Connector>,
    plain: OnceLock<Connector>,
    secure: OnceLock<Connector>,
}

impl SdkConnector {
    fn new(names: &Names, most: Option<usize>) -> SdkConnector {
        let (direct, plain, secure) = Default::default();
        SdkConnector { names: names.clone(), exempt: None, most, direct, plain, secure }
    }

    fn make(&self, proxy: ProxyConfig, roots: bool) -> Connector {
        let trust = TrustStore::empty().with_native_roots(roots);
        let context = TlsContext::builder().with_trust_store(trust).build().unwrap_or_default();
        Connector::builder()
            .connector_settings(HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).build())
            .pool_max_idle_per_host(1)
            .proxy_config(proxy)
            .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context)
            .build_with_resolver(self.names.clone())
    }

    fn choose(&self, uri: &http::Uri) -> Result<&Connector, NoRoots> {
        let host = uri.host().unwrap_or_default();
        if METADATA_HOSTS.contains(&host) || self.exempt.as_deref() == Some(host) {
            Ok(self.direct.get_or_init(|| self.make(ProxyConfig::disabled(), false)))
        } else if uri.scheme() != Some(&http::uri::Scheme::HTTPS) {
            Ok(self.plain.get_or_init(|| self.make(ProxyConfig::from_env(), false)))
        } else if let Some(connector) = self.secure.get() {
            Ok(connector)
        } else {
            require_roots()?;
            Ok(self.secure.get_or_init(|| self.make(ProxyConfig::from_env(), true)))
        }
    }
}

impl HttpConnector for SdkConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let uri = request.uri().parse().unwrap_or_default();
        match self.choose(&uri) {
            Ok(connector) => {
                let (answer, most) = (connector.call(request), self.most);
                HttpConnectorFuture::new(async move {
                    let answer = answer.await?;
                    Ok(match most {
                        Some(most) => answer.map(|body| bounded(body, most)),
                        None => answer,
                    })
                })
            }
            Err(error) => HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()).never_connected())),
        }
    }
}

/// A body that fails when it has more than `most` bytes.
fn bounded(body: SdkBody, most: usize) -> SdkBody {
    SdkBody::from_body_1_x(Limited::new(body, most))
}

/// Why a request got no answer.
#[derive(Debug, PartialEq, Eq)]
pub struct NoAnswer {
    /// Dns, Tls, Network, or `None` when a connection was there and broke.
    pub cause: Option<Cause>,
    /// Whether it is certain that nothing was sent: no connection was made.
    pub unsent: bool,
    /// The chain of errors, outermost first.
    pub detail: String,
}

/// Looks through a chain of errors of hyper, rustls and the resolver.
pub fn explain(error: &(dyn Error + 'static)) -> NoAnswer {
    let mut answer = NoAnswer { cause: None, unsent: false, detail: String::new() };
    let mut next = Some(error);
    while let Some(link) = next {
        let text = link.to_string();
        if !answer.detail.contains(&text) {
            let joint = if answer.detail.is_empty() { "" } else { ": " };
            answer.detail.push_str(joint);
            answer.detail.push_str(&text);
        }
        if link.is::<Unresolved>() {
            (answer.cause, answer.unsent) = (Some(Cause::Dns), true);
        } else if link.is::<NoRoots>() {
            (answer.cause, answer.unsent) = (Some(Cause::Tls), true);
        } else if link.is::<rustls::Error>() {
            answer.cause = Some(Cause::Tls);
        } else if link.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect()) {
            answer.unsent = true;
        }
        next = inside(link).or_else(|| link.source());
    }
    if answer.unsent && answer.cause.is_none() {
        answer.cause = Some(Cause::Network);
    }
    answer
}

/// The custom error in an I/O error: `source()` passes over it to its own source.
fn inside<'a>(link: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let inner = link.downcast_ref::<std::io::Error>()?.get_ref()?;
    Some(inner)
}

/// rustls with aws-lc, the one provider of this process: mixing two panics at run time (aws-sdk-rust#1264).
pub fn tls_builder() -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
    }

    #[test]
    fn localhost_is_in_the_hosts_file_and_nowhere_is_not() {
        runtime().block_on(async {
            let names = Names::default();
            let found = names.resolve("localhost").await.expect("hosts file");
            assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
            let error = tokio::time::timeout(Duration::from_secs(20), names.resolve("no-such-host.invalid")).await;
            if let Ok(answer) = error {
                assert!(answer.expect_err("invalid").to_string().contains("no-such-host.invalid"));
            }
        });
    }

    #[test]
    fn a_name_of_the_hosts_file_is_asked_of_nobody_else() {
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(&b"192.0.2.10 api.lab api\n192.0.2.11 two\n2001:db8::2 two\n"[..]).expect("hosts");
        let find = |name: &str| in_hosts(&hosts, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(find("api"), ["192.0.2.10"]);
        assert_eq!(find("api.lab."), ["192.0.2.10"]);
        assert_eq!(find("two"), ["192.0.2.11", "2001:db8::2"]);
        assert!(find("other").is_empty() && find("").is_empty() && find("a..b").is_empty());
    }

    #[test]
    fn the_cause_is_found_deep_in_a_chain() {
        let io = std::io::Error::other(rustls::Error::General("bad certificate".to_owned()));
        let answer = explain(&io);
        assert_eq!(answer.cause, Some(Cause::Tls));
        assert!(!answer.unsent, "a TLS alert may come after the request");
        let answer = explain(&ResolveDnsError::new(Unresolved { name: "a".into(), why: "b".into() }));
        assert_eq!((answer.cause, answer.unsent), (Some(Cause::Dns), true));
        assert!(answer.detail.contains("cannot resolve a: b"), "{}", answer.detail);
        let answer = explain(&std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert_eq!((answer.cause, answer.unsent), (None, false));
    }
}
