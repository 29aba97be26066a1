//! Parameters of Systems Manager.

use crate::adapters::aws::refusal;
use crate::adapters::cloud::failed;
use aws_sdk_ssm::Client;
use kubestrap_core::model::cause::Outcome;

/// One attempt. A parameter, or a version or label of one, that does not exist is `None`.
pub async fn parameter(client: &Client, region: &str, name: &str) -> Outcome<Option<String>> {
    let attempted = format!("get the parameter {name} in {region}");
    // Not decrypted: an image's id is no secret, and a SecureString must not get into errors.
    match client.get_parameter().name(name).send().await {
        Ok(answer) => Ok(answer.parameter.and_then(|parameter| parameter.value)),
        Err(error) => {
            let refusal = refusal(error);
            match refusal.code.as_deref() {
                Some("ParameterNotFound" | "ParameterVersionNotFound") => Ok(None),
                _ => Err(failed(&refusal, &attempted, "ssm:GetParameter")),
            }
        }
    }
}
