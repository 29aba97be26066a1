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
