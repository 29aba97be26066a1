//! The AWS SDKs: one configuration, made when it is first needed, and one translation of their errors.

use crate::adapters::net::{self, Names};
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::error::Error;
use tokio::sync::OnceCell;

/// Where clients come from.
pub struct Aws {
    names: Names,
    metadata: String,
    /// The region, when it is known beforehand: then nobody is asked for it.
    region: Option<Region>,
    config: OnceCell<SdkConfig>,
}

impl Aws {
    /// Nothing is read before the first client is made.
    pub fn new(names: Names, metadata: String) -> Self {
        Aws { names, metadata, region: None, config: OnceCell::new() }
    }

    /// The same for a program that knows its region, and that has no time to wait for a metadata service which is not
    /// there on bare metal.
    pub fn in_region(names: Names, metadata: String, region: &str) -> Self {
        Aws { region: Some(Region::new(region.to_owned())), ..Aws::new(names, metadata) }
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
        Aws { names: names.clone(), metadata: String::new(), region: None, config: OnceCell::new_with(Some(config)) }
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
        let region = RegionProviderChain::first_try(self.region.clone())
            .or_else(aws_config::environment::EnvironmentVariableRegionProvider::new())
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

    /// The right that is missing, when the service says so ("... is not authorized to perform: kms:Decrypt on ...", IAM
    /// user guide, "Troubleshoot access denied error messages"). It may be another one than that of the call: an object
    /// that is not there takes `s3:ListBucket`, an encrypted one takes rights on its key. Of other services than these
    /// nothing is repeated: it becomes advice, and the server may be anybody's.
    pub fn missing_action(&self) -> Option<&str> {
        let (_, rest) = self.detail.split_once("not authorized to perform: ")?;
        let action = rest.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, ':' | '-'))).next()?;
        let (service, verb) = action.split_once(':')?;
        (["s3", "kms"].contains(&service) && !verb.is_empty() && !verb.contains(':')).then_some(action)
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
        let cause = match code.as_deref() {
            // The JSON protocols have one code for a wrong key and for a wrong clock.
            Some("InvalidSignatureException") if said.contains("expired") || said.contains("not yet current") => {
                Some(Cause::ClockSkew)
            }
            code => by_answer(status, code.unwrap_or_default()),
        };
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
        | "InvalidSignatureException"
        | "InvalidIdentityToken"
        | "IDPRejectedClaim"
        | "UnrecognizedClientException" => Some(Cause::BadCredentials),
        "RequestTimeTooSkewed" | "RequestExpired" | "SignatureNotYetCurrent" => Some(Cause::ClockSkew),
        "SlowDown" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "TooManyRequestsException" => {
            Some(Cause::Throttled)
        }
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => Some(Cause::AccessDenied),
        // Auto Scaling (API reference, errors of each action): something else is being done to the group.
        "ResourceContention" | "ScalingActivityInProgress" => None,
        "RequestTimeout" | "InternalError" | "ServiceUnavailable" | "IDPCommunicationError" => None,
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
pub(super) fn credentials_cause(error: &(dyn Error + 'static)) -> Option<Cause> {
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
            (400, "ScalingActivityInProgress", None),
            (400, "ValidationError", Some(Cause::Configuration)),
            (400, "InvalidIdentityToken", Some(Cause::BadCredentials)),
            (400, "IDPCommunicationError", None),
            (500, "ServerException", None),
            (501, "NotImplemented", Some(Cause::StoreUnconditional)),
            (301, "PermanentRedirect", Some(Cause::Configuration)),
        ];
        for (status, code, cause) in table {
            assert_eq!(by_answer(status, code), cause, "{status} {code}");
        }
    }

    #[test]
    fn the_missing_right_is_taken_from_the_refusal_and_only_of_known_services() {
        let missing = |detail: &str| {
            let detail = detail.to_owned();
            let refusal = Refusal { status: Some(403), code: None, cause: None, certain: true, detail };
            refusal.missing_action().map(str::to_owned)
        };
        let said = "AccessDenied: User: arn:aws:sts::1:assumed-role/r/i-1 is not authorized to perform: \
                    kms:GenerateDataKey on this resource because no identity-based policy allows it (403)";
        assert_eq!(missing(said).as_deref(), Some("kms:GenerateDataKey"));
        assert_eq!(missing("is not authorized to perform: s3:ListBucket").as_deref(), Some("s3:ListBucket"));
        for other in
            ["Access Denied", "not authorized to perform: iam:*", "not authorized to perform: s3:", "s3:GetObject"]
        {
            assert_eq!(missing(other), None, "{other}");
        }
    }

    #[test]
    fn credentials_are_found_in_a_chain_or_not() {
        let none = CredentialsError::not_loaded("no provider in chain");
        assert_eq!(credentials_cause(&std::io::Error::other(none)), None, "io hides it");
        assert_eq!(credentials_cause(&CredentialsError::not_loaded("x")), Some(Cause::NoCredentials));
        assert_eq!(credentials_cause(&CredentialsError::invalid_configuration("x")), Some(Cause::BadCredentials));
    }
}
