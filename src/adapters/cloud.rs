//! The cloud's API by the AWS SDKs: instances here, what else there is in a file each.

use crate::adapters::aws::{Aws, Refusal, credentials_cause, refusal};
use crate::adapters::net;
use crate::adapters::{autoscaling, ecr, images, ssm};
use async_trait::async_trait;
use aws_config::Region;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_ec2::types::Filter;
use aws_smithy_types::DateTime;
use jiff::Timestamp;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{
    Cloud, GroupInfo, ImageInfo, ImageQuery, InstanceInfo, LifecycleAnswer, LifecycleHook, LifecycleResult,
    RegistryToken, TemplateInfo, TemplateVersion, TokenRequest,
};
use std::rc::Rc;

/// Base URLs of services that are not at their usual place; `None` leaves it to the SDK, which knows
/// `AWS_ENDPOINT_URL` and its kin.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    /// EC2.
    pub ec2: Option<String>,
    /// ECR, of private registries.
    pub ecr: Option<String>,
    /// STS.
    pub sts: Option<String>,
    /// Systems Manager.
    pub ssm: Option<String>,
    /// Auto Scaling.
    pub autoscaling: Option<String>,
}

/// AWS.
pub struct AwsCloud {
    aws: Rc<Aws>,
    endpoints: Endpoints,
}

impl AwsCloud {
    /// Nothing is read or connected before the first call.
    pub fn new(aws: Rc<Aws>, endpoints: Endpoints) -> Self {
        AwsCloud { aws, endpoints }
    }

    async fn ec2(&self, region: &str) -> Outcome<aws_sdk_ec2::Client> {
        let mut config = aws_sdk_ec2::config::Builder::from(self.aws.config().await?);
        config = config.region(Region::new(region.to_owned()));
        config.set_endpoint_url(self.endpoints.ec2.clone());
        Ok(aws_sdk_ec2::Client::from_conf(config.build()))
    }

    async fn autoscaling(&self, region: &str) -> Outcome<aws_sdk_autoscaling::Client> {
        let mut config = aws_sdk_autoscaling::config::Builder::from(self.aws.config().await?);
        config = config.region(Region::new(region.to_owned()));
        config.set_endpoint_url(self.endpoints.autoscaling.clone());
        Ok(aws_sdk_autoscaling::Client::from_conf(config.build()))
    }
}

#[async_trait(?Send)]
impl Cloud for AwsCloud {
    async fn instances(&self, region: &str, ids: &[String]) -> Outcome<Vec<InstanceInfo>> {
        // Without a filter EC2 would describe the whole account.
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let attempted = format!("describe {} in {region}", ids.join(", "));
        let client = self.ec2(region).await?;
        let filter = Filter::builder().name("instance-id").set_values(Some(ids.to_vec())).build();
        let mut found = Vec::new();
        let mut page = None;
        loop {
            let request = client.describe_instances().filters(filter.clone()).set_next_token(page);
            let answer =
                request.send().await.map_err(|error| failed(&refusal(error), &attempted, "ec2:DescribeInstances"))?;
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

    async fn registry_token(&self, request: &TokenRequest) -> Outcome<RegistryToken> {
        ecr::registry_token(self.aws.config().await?, &self.endpoints, request).await
    }

    async fn images(&self, region: &str, query: &ImageQuery) -> Outcome<Vec<ImageInfo>> {
        images::describe(&self.ec2(region).await?, region, query).await
    }

    async fn parameter(&self, region: &str, name: &str) -> Outcome<Option<String>> {
        let mut config = aws_sdk_ssm::config::Builder::from(self.aws.config().await?);
        config = config.region(Region::new(region.to_owned()));
        config.set_endpoint_url(self.endpoints.ssm.clone());
        ssm::parameter(&aws_sdk_ssm::Client::from_conf(config.build()), region, name).await
    }

    async fn launch_template(&self, region: &str, of: &TemplateVersion) -> Outcome<Option<TemplateInfo>> {
        images::launch_template(&self.ec2(region).await?, region, of).await
    }

    async fn group_of(&self, region: &str, instance_id: &str) -> Outcome<Option<GroupInfo>> {
        autoscaling::group_of(&self.autoscaling(region).await?, region, instance_id).await
    }

    async fn terminate_in_group(&self, region: &str, instance_id: &str) -> Outcome<()> {
        autoscaling::terminate(&self.autoscaling(region).await?, region, instance_id).await
    }

    async fn complete_lifecycle(
        &self,
        region: &str,
        hook: &LifecycleHook,
        result: LifecycleResult,
    ) -> Outcome<LifecycleAnswer> {
        autoscaling::complete(&self.autoscaling(region).await?, region, hook, result).await
    }

    async fn heartbeat(&self, region: &str, hook: &LifecycleHook) -> Outcome<LifecycleAnswer> {
        autoscaling::heartbeat(&self.autoscaling(region).await?, region, hook).await
    }
}

/// Which provider they came from, out of their `Debug` form, which hides the secrets; the SDK has no accessor.
fn provider_name(credentials: &aws_credential_types::Credentials) -> String {
    let text = format!("{credentials:?}");
    let name = text.split_once("provider_name: \"").and_then(|(_, rest)| rest.split_once('"'));
    name.map_or("a provider without a name", |(name, _)| name).to_owned()
}

/// The failure of a call that takes the right to `action`.
pub(super) fn failed(refusal: &Refusal, attempted: &str, action: &str) -> Failure {
    let failure = refusal.failure(attempted, Cause::CloudUnavailable);
    if failure.cause == Cause::AccessDenied {
        return failure.advise(format!("grant {action} to this machine's role"));
    }
    failure
}

fn timestamp(at: &DateTime) -> Option<Timestamp> {
    Timestamp::from_second(at.secs()).ok()
}

fn describe(account: &str, instance: &aws_sdk_ec2::types::Instance) -> Option<InstanceInfo> {
    Some(InstanceInfo {
        instance_id: instance.instance_id()?.to_owned(),
        account: account.to_owned(),
        state: instance.state()?.name()?.as_str().to_owned(),
        hop_limit: instance.metadata_options().and_then(|options| options.http_put_response_hop_limit()),
        image_id: instance.image_id().map(str::to_owned),
        launched_at: instance.launch_time().and_then(timestamp),
    })
}

#[cfg(test)]
mod tests;
