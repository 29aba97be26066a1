//! Keys and certificates: authorities like kubeadm's, client certificates, the sealed PKI's encryption, and KMS.
//!
//! Nothing here is written anywhere; private keys leave only as [`Secret`] or sealed. Randomness is AWS-LC's.

mod authority;
mod cose;
mod kms;

use crate::adapters::aws::Aws;
use async_trait::async_trait;
use aws_lc_rs::pbkdf2;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::secret::Secret;
use kubestrap_core::ports::{Authorities, ClientRequest, DataKey, KeyAlgorithm, KeyPair, KmsRequest, SealKey, Vault};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;
use zeroize::Zeroizing;

/// AES-256.
const KEY: usize = 32;

/// The real one.
pub struct Keys {
    aws: Rc<Aws>,
    kms_endpoint: Option<String>,
}

impl Keys {
    /// Nothing is read or connected before the first call; `kms_endpoint` replaces KMS's own.
    pub fn new(aws: Rc<Aws>, kms_endpoint: Option<String>) -> Self {
        Keys { aws, kms_endpoint }
    }

    async fn kms(&self, region: &str) -> Outcome<aws_sdk_kms::Client> {
        let mut config = aws_sdk_kms::config::Builder::from(self.aws.config().await?);
        config = config.region(aws_config::Region::new(region.to_owned()));
        config.set_endpoint_url(self.kms_endpoint.clone());
        Ok(aws_sdk_kms::Client::from_conf(config.build()))
    }
}

#[async_trait(?Send)]
impl Vault for Keys {
    fn authorities(&self, algorithm: KeyAlgorithm, life: Duration) -> Outcome<Authorities> {
        authority::all(algorithm, life)
    }

    fn client(&self, authority: &KeyPair, request: &ClientRequest) -> Outcome<KeyPair> {
        authority::client(authority, request)
    }

    fn seal(&self, key: &SealKey, bound: &[u8], plain: &[u8]) -> Outcome<Vec<u8>> {
        cose::seal(key, bound, plain)
    }

    fn open(&self, key: &SealKey, bound: &[u8], sealed: &[u8]) -> Outcome<Option<Zeroizing<Vec<u8>>>> {
        Ok(cose::open(key, bound, sealed))
    }

    fn stretch(&self, passphrase: &Secret, salt: &[u8], rounds: u32) -> Outcome<SealKey> {
        let rounds = NonZeroU32::new(rounds)
            .ok_or_else(|| Failure::new(Cause::Internal, "stretch a passphrase", "in no rounds"))?;
        let mut key = Zeroizing::new(vec![0; KEY]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, rounds, salt, passphrase.expose().as_bytes(), &mut key);
        Ok(SealKey(key))
    }

    async fn data_key(&self, request: &KmsRequest) -> Outcome<DataKey> {
        kms::data_key(&self.kms(&request.region).await?, request).await
    }

    async fn unwrap_key(&self, request: &KmsRequest, wrapped: &[u8]) -> Outcome<SealKey> {
        kms::unwrap_key(&self.kms(&request.region).await?, request, wrapped).await
    }
}

#[cfg(test)]
mod tests;
