//! GetAuthorizationToken of ECR and of ECR Public, as this machine or as a role that a web identity opens.

use crate::adapters::aws::refusal;
use crate::adapters::cloud::Endpoints;
use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_types::DateTime;
use jiff::Timestamp;
use kubestrap_core::ecr::host::Api;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::secret::Secret;
use kubestrap_core::ports::{RegistryToken, TokenRequest, WebIdentity};

/// In CloudTrail, what asked.
const SESSION: &str = "kubestrap-ecr";

/// One attempt. The endpoint is the one that matches the registry's host: its region, FIPS, dual-stack.
pub async fn registry_token(
    config: &SdkConfig,
    endpoints: &Endpoints,
    request: &TokenRequest,
) -> Outcome<RegistryToken> {
    let region = Region::new(request.api.region().to_owned());
    let assumed = match &request.role {
        Some(identity) => Some(assume(config, endpoints, &region, identity).await?),
        None => None,
    };
    let mut builder = config.to_builder().region(region);
    if let Some(credentials) = assumed {
        builder = builder.credentials_provider(SharedCredentialsProvider::new(credentials));
    }
    let config = builder.build();
    match &request.api {
        Api::Private { fips, dual_stack, .. } => {
            let mut builder = aws_sdk_ecr::config::Builder::from(&config).use_fips(*fips).use_dual_stack(*dual_stack);
            if let Some(endpoint) = &endpoints.ecr {
                builder = builder.endpoint_url(endpoint);
            }
            private(&aws_sdk_ecr::Client::from_conf(builder.build()), &request.api).await
        }
        Api::Public => public(&aws_sdk_ecrpublic::Client::new(&config)).await,
    }
}

fn attempted(api: &Api) -> String {
    format!("get a token of {api}")
}

fn no_data(api: &Api) -> Failure {
    Failure::new(Cause::CloudUnavailable, attempted(api), "the answer has no authorization data")
}

async fn private(client: &aws_sdk_ecr::Client, api: &Api) -> Outcome<RegistryToken> {
    // Without registryIds, which AWS has deprecated: the token is good for every registry that the caller may read.
    let answer = client.get_authorization_token().send().await;
    let answer = answer.map_err(|error| {
        let failure = refusal(error).failure(attempted(api), Cause::CloudUnavailable);
        match failure.cause {
            Cause::AccessDenied => failure.advise("grant ecr:GetAuthorizationToken to this machine's role"),
            _ => failure,
        }
    })?;
    let data = answer.authorization_data.unwrap_or_default().into_iter().next().ok_or_else(|| no_data(api))?;
    token(data.authorization_token, data.expires_at)
}

async fn public(client: &aws_sdk_ecrpublic::Client) -> Outcome<RegistryToken> {
    let answer = client.get_authorization_token().send().await;
    let answer = answer.map_err(|error| {
        let failure = refusal(error).failure(attempted(&Api::Public), Cause::CloudUnavailable);
        let advice = "grant ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken to this machine's role; \
                      without them public images are pulled anonymously";
        if failure.cause == Cause::AccessDenied { failure.advise(advice) } else { failure }
    })?;
    let data = answer.authorization_data.ok_or_else(|| no_data(&Api::Public))?;
    token(data.authorization_token, data.expires_at)
}

fn token(authorization: Option<String>, expires_at: Option<DateTime>) -> Outcome<RegistryToken> {
    let expires_at = expires_at.and_then(|at| Timestamp::from_second(at.secs()).ok());
    Ok(RegistryToken { authorization: Secret::new(authorization.unwrap_or_default()), expires_at })
}

/// AssumeRoleWithWebIdentity in the registry's own region, whose partition is the role's.
async fn assume(
    config: &SdkConfig,
    endpoints: &Endpoints,
    region: &Region,
    identity: &WebIdentity,
) -> Outcome<Credentials> {
    let attempted = || format!("assume the role {} by the pod's service account token", identity.role);
    let mut builder = aws_sdk_sts::config::Builder::from(config).region(region.clone());
    if let Some(endpoint) = &endpoints.sts {
        builder = builder.endpoint_url(endpoint);
    }
    let request = aws_sdk_sts::Client::from_conf(builder.build())
        .assume_role_with_web_identity()
        .role_arn(&identity.role)
        .role_session_name(SESSION)
        .web_identity_token(identity.token.expose());
    let answer = request.send().await.map_err(|error| {
        let failure = refusal(error).failure(attempted(), Cause::CloudUnavailable);
        let advice =
            "the role's trust policy must name the cluster's OIDC issuer, this service account and the audience";
        match failure.cause {
            Cause::AccessDenied | Cause::BadCredentials => failure.advise(advice),
            _ => failure,
        }
    })?;
    let Some(found) = answer.credentials else {
        return Err(Failure::new(Cause::CloudUnavailable, attempted(), "the answer has no credentials"));
    };
    let session = Some(found.session_token);
    Ok(Credentials::new(found.access_key_id, found.secret_access_key, session, None, "WebIdentity"))
}
