//! The instance metadata service, version 2.

use crate::adapters::net::{Names, explain};
use async_trait::async_trait;
use http::HeaderValue;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::secret::Secret;
use kubestrap_core::ports::{Metadata, MetadataAnswer};
use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

/// The usual address (EC2 user guide, "Use the instance metadata service").
const IPV4: &str = "http://169.254.169.254";
/// On instances with IPv6 only.
const IPV6: &str = "http://[fd00:ec2::254]";
/// User-data is at most 16 KiB; nothing else comes near.
const MAX_BODY: usize = 64 * 1024;
/// It is link-local: whoever does not answer by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The metadata service at its base URL.
#[derive(Debug)]
pub struct Imds {
    base: String,
    names: Names,
    client: OnceCell<reqwest::Client>,
}

/// The base URL: what is configured, what every SDK reads from the environment, the address of EC2.
pub fn base_url(configured: Option<&str>) -> String {
    let env = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let mode = env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE").unwrap_or_default();
    let usual = || if mode.eq_ignore_ascii_case("ipv6") { IPV6 } else { IPV4 }.to_owned();
    let base = configured.map(str::to_owned).or_else(|| env("AWS_EC2_METADATA_SERVICE_ENDPOINT")).unwrap_or_else(usual);
    base.trim_end_matches('/').to_owned()
}

impl Imds {
    /// The service at `base`; nothing is connected yet.
    pub fn new(base: String, names: Names) -> Self {
        Imds { base, names, client: OnceCell::new() }
    }

    /// Made at the first call: it needs the runtime. No proxy and no redirect may come between.
    fn client(&self) -> Outcome<&reqwest::Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let built = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(self.names.clone()))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(1)
            .build();
        let client = built.map_err(|error| Failure::new(Cause::Internal, "make an HTTP client", error.to_string()))?;
        Ok(self.client.get_or_init(|| client))
    }

    async fn send(&self, attempted: String, request: reqwest::RequestBuilder) -> Outcome<MetadataAnswer> {
        let failed = |error: reqwest::Error| {
            // The URL is in `attempted` already; the token is a header and in no error.
            let detail = explain(&error.without_url()).detail;
            Failure::new(Cause::MetadataUnavailable, attempted.clone(), detail)
        };
        let mut response = request.send().await.map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BODY {
                let why = format!("the answer is larger than {MAX_BODY} bytes");
                return Err(Failure::new(Cause::MetadataUnavailable, attempted, why));
            }
        }
        Ok(MetadataAnswer { status: response.status().as_u16(), body })
    }
}

#[async_trait(?Send)]
impl Metadata for Imds {
    async fn token(&self, ttl: Duration) -> Outcome<MetadataAnswer> {
        let url = format!("{}/latest/api/token", self.base);
        let seconds = ttl.as_secs().clamp(1, 21_600);
        let request = self.client()?.put(&url).header("X-aws-ec2-metadata-token-ttl-seconds", seconds);
        self.send(format!("put {url}"), request).await
    }

    async fn get(&self, path: &str, token: &Secret) -> Outcome<MetadataAnswer> {
        let url = format!("{}/latest/{}", self.base, path.trim_start_matches('/'));
        let attempted = format!("get {url}");
        let mut header = HeaderValue::from_str(token.expose()).map_err(|_| {
            Failure::new(Cause::MetadataUnavailable, attempted.clone(), "the token it gave is not a header value")
        })?;
        header.set_sensitive(true);
        let request = self.client()?.get(&url).header("X-aws-ec2-metadata-token", header);
        self.send(attempted, request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// One request against a server that gives this answer; also what it was asked.
    fn ask(answer: Vec<u8>, path: Option<&str>) -> (Outcome<MetadataAnswer>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let base = format!("http://{}", listener.local_addr().expect("address"));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).expect("read");
            // A client that has read enough hangs up.
            let _ = stream.write_all(&answer);
            String::from_utf8_lossy(&request[..read]).to_lowercase()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let answer = runtime.block_on(async {
            let imds = Imds::new(base, Names::default());
            match path {
                Some(path) => imds.get(path, &Secret::new("hunter2")).await,
                None => imds.token(Duration::from_secs(90_000)).await,
            }
        });
        (answer, server.join().expect("server"))
    }

    #[test]
    fn a_token_is_put_and_then_carried() {
        let (answer, request) = ask(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntok".to_vec(), None);
        assert_eq!(answer, Ok(MetadataAnswer { status: 200, body: b"tok".to_vec() }));
        assert!(request.starts_with("put /latest/api/token http/1.1"), "{request}");
        assert!(request.contains("x-aws-ec2-metadata-token-ttl-seconds: 21600"), "{request}");
        let (_, request) = ask(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(), Some("user-data"));
        assert!(request.starts_with("get /latest/user-data http/1.1"), "{request}");
        assert!(request.contains("x-aws-ec2-metadata-token: hunter2"), "{request}");
    }

    #[test]
    fn every_status_is_an_answer_and_redirects_are_not_followed() {
        let (answer, _) = ask(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(), Some("x"));
        assert_eq!(answer.map(|answer| answer.status), Ok(404));
        let elsewhere = b"HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(ask(elsewhere.to_vec(), Some("x")).0.map(|answer| answer.status), Ok(302));
    }

    #[test]
    fn what_is_no_answer_is_unavailable_and_the_token_stays_out() {
        let mut endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
        endless.resize(MAX_BODY * 4, b'x');
        for answer in [endless, b"garbage\r\n\r\n".to_vec(), Vec::new()] {
            let failure = ask(answer, Some("user-data")).0.expect_err("no answer");
            assert_eq!(failure.cause, Cause::MetadataUnavailable);
            assert!(!failure.to_string().contains("hunter2"), "{failure}");
        }
    }
}
