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

/// The SDK's variable for the endpoint of ECR alone.
const ENDPOINT: &str = "AWS_ENDPOINT_URL_ECR";

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
            let mut builder = aws_sdk_ecr::config::Builder::from(&config);
            // An endpoint that somebody named is asked as it is: the SDK refuses to make a FIPS or dual-stack one of it.
            let is_named =
                config.endpoint_url().is_some() || std::env::var_os(ENDPOINT).is_some_and(|url| !url.is_empty());
            builder = match &endpoints.ecr {
                Some(endpoint) => builder.endpoint_url(endpoint),
                None if is_named => builder,
                None => builder.use_fips(*fips).use_dual_stack(*dual_stack),
            };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::aws::Aws;
    use crate::adapters::net::Names;
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use kubestrap_core::ecr::host::Registry;
    use std::sync::{Arc, Mutex};

    /// Answers nothing, and remembers who was asked.
    #[derive(Debug, Clone, Default)]
    struct Asked(Arc<Mutex<Vec<String>>>);

    impl HttpConnector for Asked {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            self.0.lock().expect("lock").push(request.uri().to_owned());
            HttpConnectorFuture::ready(Err(ConnectorError::io("nobody answers".into())))
        }
    }

    /// The rows of the table in docs/ecr.md: a host, and the endpoint that is asked for it.
    fn documented() -> Vec<(String, String)> {
        let text = include_str!("../../docs/ecr.md");
        let rows = text.lines().filter(|line| line.starts_with("| `") && line.contains("https://"));
        let cells = |row: &str| row.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        rows.map(cells).map(|cells| (cells[0].clone(), cells[1].clone())).collect()
    }

    #[test]
    fn every_form_of_host_asks_the_endpoint_of_the_documentation() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let rows = documented();
        assert!(rows.len() >= 14, "{rows:?}");
        for (host, endpoint) in rows {
            let host = host.replace("<account>", "123456789012");
            let registry = Registry::parse(&host).unwrap_or_else(|| panic!("{host} is no registry"));
            let asked = Asked::default();
            runtime.block_on(async {
                let aws = Aws::with_credentials(&Names::default(), "eu-west-1");
                let connector = SharedHttpConnector::new(asked.clone());
                let client = http_client_fn(move |_, _| connector.clone());
                let config = aws.config().await.expect("config").to_builder().http_client(client).build();
                let request = TokenRequest { api: registry.api().clone(), role: None };
                let _ = registry_token(&config, &Endpoints::default(), &request).await.expect_err("nobody answers");
            });
            let seen = asked.0.lock().expect("lock").clone();
            assert_eq!(seen, [format!("{endpoint}/")], "{host}");
        }
    }
}
