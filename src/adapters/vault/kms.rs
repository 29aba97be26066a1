//! Data keys of KMS.

use crate::adapters::aws::{Refusal, refusal};
use crate::adapters::cloud::failed;
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{DataKey, KmsRequest, SealKey};
use std::collections::HashMap;
use zeroize::Zeroizing;

/// One attempt.
pub(super) async fn data_key(client: &Client, request: &KmsRequest) -> Outcome<DataKey> {
    let attempted = attempted("get a data key of", request);
    let answer = client
        .generate_data_key()
        .key_id(&request.key_id)
        .key_spec(DataKeySpec::Aes256)
        .set_encryption_context(Some(context(request)))
        .send()
        .await
        .map_err(|error| judged(&refusal(error), &attempted, "kms:GenerateDataKey", request))?;
    match (answer.plaintext, answer.ciphertext_blob, answer.key_id) {
        (Some(plain), Some(wrapped), Some(key_id)) => {
            let plain = SealKey(Zeroizing::new(plain.into_inner()));
            Ok(DataKey { plain, wrapped: wrapped.into_inner(), key_id })
        }
        _ => Err(Failure::new(Cause::CloudUnavailable, attempted, "the answer has no key in it")),
    }
}

/// One attempt. The key that is named is the configured one: KMS refuses what another key wrapped.
pub(super) async fn unwrap_key(client: &Client, request: &KmsRequest, wrapped: &[u8]) -> Outcome<SealKey> {
    let attempted = attempted("unwrap a data key with", request);
    let answer = client
        .decrypt()
        .key_id(&request.key_id)
        .ciphertext_blob(Blob::new(wrapped))
        .set_encryption_context(Some(context(request)))
        .send()
        .await
        .map_err(|error| judged(&refusal(error), &attempted, "kms:Decrypt", request))?;
    match answer.plaintext {
        Some(plain) => Ok(SealKey(Zeroizing::new(plain.into_inner()))),
        None => Err(Failure::new(Cause::CloudUnavailable, attempted, "the answer has no key in it")),
    }
}

fn attempted(what: &str, request: &KmsRequest) -> String {
    format!("{what} KMS key {} in {}", request.key_id, request.region)
}

fn context(request: &KmsRequest) -> HashMap<String, String> {
    request.context.clone().into_iter().collect()
}

/// KMS answers 400 to nearly everything; what is meant is in the code (API reference, errors of GenerateDataKey and
/// Decrypt).
fn judged(refusal: &Refusal, attempted: &str, action: &str, request: &KmsRequest) -> Failure {
    let of = |cause| Failure::new(cause, attempted, refusal.detail.clone());
    match refusal.code.as_deref() {
        Some("InvalidCiphertextException" | "IncorrectKeyException") => of(Cause::PkiRejected)
            .advise("check that `pki.kms_key_id` names the key of the other masters; `kubestrap pki rewrap` on a master seals with a new one"),
        Some("NotFoundException") => of(Cause::Configuration).advise("correct `pki.kms_key_id`, or its region"),
        // An administrator can enable it again.
        Some("DisabledException" | "KMSInvalidStateException" | "KeyUnavailableException") => of(Cause::CloudUnavailable)
            .advise("enable the KMS key, or cancel its deletion"),
        Some("DependencyTimeoutException" | "KMSInternalException") => of(Cause::CloudUnavailable),
        _ => {
            let failure = failed(refusal, attempted, action);
            if failure.cause != Cause::AccessDenied {
                return failure;
            }
            failure.advise(format!(
                "grant {action} on {} to this machine's role, in its policy (iam/optional/pki.json) or in the key's",
                request.key_id
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn refusals_of_kms_have_causes_and_name_right_and_key() {
        let request =
            KmsRequest { region: "eu-west-1".to_owned(), key_id: "alias/pki".to_owned(), context: BTreeMap::new() };
        let judge = |code: &str, cause: Option<Cause>| {
            let code = Some(code.to_owned()).filter(|code| !code.is_empty());
            let refusal = Refusal { status: Some(400), code, cause, certain: true, detail: "said".to_owned() };
            judged(&refusal, "unwrap", "kms:Decrypt", &request)
        };
        let table = [
            ("InvalidCiphertextException", Some(Cause::Configuration), Cause::PkiRejected),
            ("IncorrectKeyException", Some(Cause::Configuration), Cause::PkiRejected),
            ("NotFoundException", Some(Cause::Configuration), Cause::Configuration),
            ("DisabledException", Some(Cause::Configuration), Cause::CloudUnavailable),
            ("KMSInvalidStateException", Some(Cause::Configuration), Cause::CloudUnavailable),
            ("KMSInternalException", None, Cause::CloudUnavailable),
            ("AccessDeniedException", Some(Cause::AccessDenied), Cause::AccessDenied),
            ("ThrottlingException", Some(Cause::Throttled), Cause::Throttled),
            ("", Some(Cause::Network), Cause::Network),
            ("", None, Cause::CloudUnavailable),
        ];
        for (code, cause, expected) in table {
            assert_eq!(judge(code, cause).cause, expected, "{code}");
        }
        let denied = judge("AccessDeniedException", Some(Cause::AccessDenied));
        assert!(denied.fix().contains("kms:Decrypt on alias/pki"), "{denied}");
    }
}
