//! The AWS SDKs: one configuration, made when it is first needed; one translation of their errors; EC2.

use crate::adapters::net::{self, Names};
use async_trait::async_trait;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::types::Filter;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{Cloud, InstanceInfo};
use std::error::Error;
use std::rc::Rc;
use tokio::sync::OnceCell;

/// Where clients come from.
pub struct Aws {
    names: Names,
    metadata: String,
    config: OnceCell<SdkConfig>,
}

impl Aws {
    /// Nothing is read before the first client is made.
    pub fn new(names: Names, metadata: String) -> Self {
        Aws { names, metadata, config: OnceCell::new() }
    }

    /// With fixed credentials, for tests against stand-ins.
    #[cfg(test)]
    pub fn with_credentials(names: &Names, region: &str) -> Self {
        let credentials = aws_credential_types::Credentials::new("AKIATEST", "secret", None, None, "Test");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(net::sdk_client(names, None))
            .retry_config(RetryConfig::disabled())
            .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(credentials))
            .sleep_impl(aws_smithy_async::rt::sleep::SharedAsyncSleep::new(
                aws_smithy_async::rt::sleep::TokioSleep::new(),
            ))
            .region(Region::new(region.to_owned()))
            .build();
        Aws { names: names.clone(), metadata: String::new(), config: OnceCell::new_with(Some(config)) }
    }

    /// Credentials from environment, profile, web identity, container, or the instance's role; the region likewise.
    /// The SDK's own retries are off: core repeats what may be repeated.
    pub async fn config(&self) -> Outcome<&SdkConfig> {
        self.config.get_or_try_init(|| self.load()).await
    }

    async fn load(&self) -> Outcome<SdkConfig> {
        let failed = |why: String| Failure::new(Cause::Configuration, "set up the AWS SDK", why);
        let http = net::sdk_client(&self.names, Some(&self.metadata));
        let provider = ProviderConfig::default().with_http_client(http.clone());
        let imds = aws_config::imds::Client::builder()
            .configure(&provider)
            .endpoint(&self.metadata)
            .map_err(|error| failed(format!("the metadata endpoint {:?}: {error}", self.metadata)))?
            .max_attempts(1)
            .build();
        let region = RegionProviderChain::first_try(aws_config::environment::EnvironmentVariableRegionProvider::new())
            .or_else(aws_config::profile::ProfileFileRegionProvider::builder().configure(&provider).build())
            .or_else(aws_config::imds::region::Builder::default().imds_client(imds.clone()).build())
            .region()
            .await;
        let credentials = DefaultCredentialsChain::builder()
            .configure(provider.with_region(region.clone()))
            .imds_client(imds)
            .build()
            .await;
        Ok(aws_config::defaults(BehaviorVersion::latest())
            .app_name(AppName::new("kubestrap").map_err(|error| failed(error.to_string()))?)
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .credentials_provider(credentials)
            // Asked above with our metadata endpoint; the fallback is never sent anywhere: a bucket's region is found
            // from the bucket, and EC2 is always asked in a named region.
            .region(region.unwrap_or_else(|| Region::new("us-east-1")))
            .load()
            .await)
    }
}

/// A failed call of an SDK.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// The service's error code (`NoSuchKey`).
    pub code: Option<String>,
    /// The kind; `None` when the service is in trouble or the connection broke: it is the service that knows whether
    /// that is `StoreUnavailable` or `CloudUnavailable`.
    pub cause: Option<Cause>,
    /// Whether the request certainly had no effect.
    pub certain: bool,
    /// In the words of whoever refused.
    pub detail: String,
}

impl Refusal {
    /// The failure, told with what was attempted.
    pub fn failure(&self, attempted: impl Into<String>, unavailable: Cause) -> Failure {
        Failure::new(self.cause.unwrap_or(unavailable), attempted, self.detail.clone())
    }
}

/// Translates an SDK's error. The only place where SDK errors are looked into.
pub fn refusal<E>(error: SdkError<E, HttpResponse>) -> Refusal
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let meta = error.as_service_error().map(ProvideErrorMetadata::meta);
    let code = meta.and_then(|meta| meta.code()).map(str::to_owned);
    let message = meta.and_then(|meta| meta.message()).map(str::to_owned);
    if let Some(status) = status {
        let chain = net::explain(&error).detail;
        let said = [code.clone(), message].into_iter().flatten().collect::<Vec<_>>().join(": ");
        let detail = if said.is_empty() { format!("status {status}: {chain}") } else { format!("{said} ({status})") };
        let cause = by_answer(status, code.as_deref().unwrap_or_default());
        // 409 and 5xx may come after the effect; so does S3's RequestTimeout.
        let certain = (300..500).contains(&status) && !matches!(status, 408 | 409) && cause.is_some();
        return Refusal { status: Some(status), code, cause, certain, detail };
    }
    let constructed = !matches!(error, SdkError::ConstructionFailure(_));
    let answer = net::explain(&error);
    if let Some(cause) = credentials_cause(&error) {
        return Refusal { status, code, cause: Some(cause), certain: true, detail: answer.detail };
    }
    Refusal { status, code, cause: answer.cause, certain: answer.unsent || !constructed, detail: answer.detail }
}

/// What an answer means, by its code first: S3 and EC2 use the same names for the same things.
fn by_answer(status: u16, code: &str) -> Option<Cause> {
    match code {
        "NoSuchBucket" => Some(Cause::BucketMissing),
        "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidToken"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "AuthFailure"
        | "TokenRefreshRequired"
        | "UnrecognizedClientException" => Some(Cause::BadCredentials),
        "RequestTimeTooSkewed" | "RequestExpired" | "SignatureNotYetCurrent" => Some(Cause::ClockSkew),
        "SlowDown" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "TooManyRequestsException" => {
            Some(Cause::Throttled)
        }
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => Some(Cause::AccessDenied),
        "RequestTimeout" | "InternalError" | "ServiceUnavailable" => None,
        "NotImplemented" => Some(Cause::StoreUnconditional),
        _ => match status {
            401 | 403 => Some(Cause::AccessDenied),
            429 => Some(Cause::Throttled),
            301 | 302 | 307 | 308 | 400 | 405 => Some(Cause::Configuration),
            // A 404 without a known code comes from something between us and the service.
            _ => None,
        },
    }
}

/// Whether a chain of errors ends in credentials: found none, or found some that are no good.
fn credentials_cause(error: &(dyn Error + 'static)) -> Option<Cause> {
    let mut next = Some(error);
    while let Some(link) = next {
        match link.downcast_ref::<CredentialsError>() {
            Some(CredentialsError::InvalidConfiguration(_) | CredentialsError::Unhandled(_)) => {
                return Some(Cause::BadCredentials);
            }
            Some(_) => return Some(Cause::NoCredentials),
            None => next = link.source(),
        }
    }
    None
}

/// EC2.
pub struct Ec2 {
    aws: Rc<Aws>,
    endpoint: Option<String>,
}

impl Ec2 {
    /// EC2, at `endpoint` when it is not the usual one of the region.
    pub fn new(aws: Rc<Aws>, endpoint: Option<String>) -> Self {
        Ec2 { aws, endpoint }
    }
}

#[async_trait(?Send)]
impl Cloud for Ec2 {
    async fn instances(&self, region: &str, ids: &[String]) -> Outcome<Vec<InstanceInfo>> {
        // Without a filter EC2 would describe the whole account.
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let attempted = format!("describe {} in {region}", ids.join(", "));
        let mut config = aws_sdk_ec2::config::Builder::from(self.aws.config().await?);
        config = config.region(Region::new(region.to_owned()));
        config.set_endpoint_url(self.endpoint.clone());
        let client = aws_sdk_ec2::Client::from_conf(config.build());
        let filter = Filter::builder().name("instance-id").set_values(Some(ids.to_vec())).build();
        let mut found = Vec::new();
        let mut page = None;
        loop {
            let request = client.describe_instances().filters(filter.clone()).set_next_token(page);
            let answer = request.send().await.map_err(|error| denied(&refusal(error), &attempted))?;
            for reservation in answer.reservations() {
                let account = reservation.owner_id().unwrap_or_default();
                found.extend(reservation.instances().iter().filter_map(|instance| describe(account, instance)));
            }
            match answer.next_token {
                Some(next) if !next.is_empty() => page = Some(next),
                _ => return Ok(found),
            }
        }
    }

    async fn credentials(&self) -> Outcome<String> {
        let attempted = "find AWS credentials";
        let config = self.aws.config().await?;
        let provider = config
            .credentials_provider()
            .ok_or_else(|| Failure::new(Cause::NoCredentials, attempted, "the SDK has no provider"))?;
        let found = provider.provide_credentials().await.map_err(|error| {
            let cause = credentials_cause(&error).unwrap_or(Cause::NoCredentials);
            Failure::new(cause, attempted, net::explain(&error).detail)
        })?;
        let form = if found.session_token().is_some() { "temporary" } else { "long-lived" };
        Ok(format!("{form} credentials, found by {}", provider_name(&found)))
    }
}

/// Which provider they came from, out of their `Debug` form, which hides the secrets; the SDK has no accessor.
fn provider_name(credentials: &aws_credential_types::Credentials) -> String {
    let text = format!("{credentials:?}");
    let name = text.split_once("provider_name: \"").and_then(|(_, rest)| rest.split_once('"'));
    name.map_or("a provider without a name", |(name, _)| name).to_owned()
}

fn denied(refusal: &Refusal, attempted: &str) -> Failure {
    let failure = refusal.failure(attempted, Cause::CloudUnavailable);
    if failure.cause == Cause::AccessDenied {
        return failure.advise("grant ec2:DescribeInstances to this machine's role");
    }
    failure
}

fn describe(account: &str, instance: &aws_sdk_ec2::types::Instance) -> Option<InstanceInfo> {
    Some(InstanceInfo {
        instance_id: instance.instance_id()?.to_owned(),
        account: account.to_owned(),
        state: instance.state()?.name()?.as_str().to_owned(),
        hop_limit: instance.metadata_options().and_then(|options| options.http_put_response_hop_limit()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_causes() {
        let table = [
            (404, "NoSuchBucket", Some(Cause::BucketMissing)),
            (403, "InvalidAccessKeyId", Some(Cause::BadCredentials)),
            (400, "ExpiredToken", Some(Cause::BadCredentials)),
            (403, "SignatureDoesNotMatch", Some(Cause::BadCredentials)),
            (403, "RequestTimeTooSkewed", Some(Cause::ClockSkew)),
            (403, "AccessDenied", Some(Cause::AccessDenied)),
            (403, "", Some(Cause::AccessDenied)),
            (403, "UnauthorizedOperation", Some(Cause::AccessDenied)),
            (503, "SlowDown", Some(Cause::Throttled)),
            (503, "RequestLimitExceeded", Some(Cause::Throttled)),
            (503, "", None),
            (500, "InternalError", None),
            (400, "RequestTimeout", None),
            (501, "NotImplemented", Some(Cause::StoreUnconditional)),
            (301, "PermanentRedirect", Some(Cause::Configuration)),
        ];
        for (status, code, cause) in table {
            assert_eq!(by_answer(status, code), cause, "{status} {code}");
        }
    }

    #[test]
    fn credentials_are_found_in_a_chain_or_not() {
        let none = CredentialsError::not_loaded("no provider in chain");
        assert_eq!(credentials_cause(&std::io::Error::other(none)), None, "io hides it");
        assert_eq!(credentials_cause(&CredentialsError::not_loaded("x")), Some(Cause::NoCredentials));
        assert_eq!(credentials_cause(&CredentialsError::invalid_configuration("x")), Some(Cause::BadCredentials));
    }

    #[test]
    fn the_kind_of_credentials_is_told_and_nothing_else() {
        let found = aws_credential_types::Credentials::new("AKIAX", "hunter2", None, None, "Environment");
        assert_eq!(provider_name(&found), "Environment");
    }

    /// moto's server answers for every service at one address.
    #[test]
    fn ec2_tells_what_it_knows_and_leaves_out_what_it_does_not() {
        let Some(endpoint) = std::env::var("KUBESTRAP_TEST_S3").ok().filter(|url| !url.is_empty()) else {
            println!("skipped: KUBESTRAP_TEST_S3 is not set (cargo xtask test sets it)");
            return;
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let aws = Rc::new(Aws::with_credentials(&Names::default(), "eu-west-1"));
            let config = aws_sdk_ec2::config::Builder::from(aws.config().await.expect("config"));
            let client = aws_sdk_ec2::Client::from_conf(config.endpoint_url(&endpoint).build());
            let made = client.run_instances().image_id("ami-12c6146b").min_count(1).max_count(1).send().await;
            let made = made.expect("an instance").instances()[0].instance_id().expect("an id").to_owned();
            let ec2 = Ec2::new(aws, Some(endpoint));
            let ids = [made.clone(), "i-0123456789abcdef0".to_owned()];
            let found = ec2.instances("eu-west-1", &ids).await.expect("an answer");
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!((found[0].instance_id.as_str(), found[0].account.len()), (made.as_str(), 12));
            assert!(["pending", "running"].contains(&found[0].state.as_str()), "{found:?}");
            assert_eq!(ec2.instances("eu-central-1", &ids).await, Ok(Vec::new()), "another region");
            assert_eq!(ec2.instances("eu-west-1", &[]).await, Ok(Vec::new()), "never the whole account");
            assert_eq!(ec2.credentials().await, Ok("long-lived credentials, found by Test".to_owned()));
        });
    }

    /// The whole default chain, with nobody at the metadata address.
    #[test]
    fn without_credentials_the_cause_says_so() {
        let given = ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"];
        let home = std::env::var("HOME").unwrap_or_default();
        let files = std::path::Path::new(&home).join(".aws").exists();
        if files || given.iter().any(|name| std::env::var_os(name).is_some()) {
            println!("skipped: this machine has AWS credentials of its own");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("address");
            let aws = Rc::new(Aws::new(Names::default(), format!("http://{closed}")));
            let ec2 = Ec2::new(aws, Some("http://127.0.0.1:9".to_owned()));
            let failure = ec2.credentials().await.expect_err("there are none");
            assert_eq!(failure.cause, Cause::NoCredentials, "{failure}");
            let failure = ec2.instances("eu-west-1", &["i-1".to_owned()]).await.expect_err("there are none");
            assert_eq!(failure.cause, Cause::NoCredentials, "{failure}");
        });
    }
}
