//! What seals the cluster's private keys, and what speaks to etcd.

use super::ApiAnswer;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::secret::Secret;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

/// A key of AES-256: 32 bytes, wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey(pub Zeroizing<Vec<u8>>);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secret>")
    }
}

/// A key that KMS made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKey {
    /// The key itself.
    pub plain: SealKey,
    /// The same, encrypted by the KMS key: what is stored.
    pub wrapped: Vec<u8>,
    /// The ARN of the KMS key.
    pub key_id: String,
}

/// What is asked of KMS: a key of this region and what the wrapped key is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsRequest {
    /// The region of the key.
    pub region: String,
    /// Key id, alias or ARN.
    pub key_id: String,
    /// The encryption context: authenticated, not secret, and shown in CloudTrail.
    pub context: BTreeMap<String, String>,
}

/// A certificate and its private key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The certificate; of a service account's key its public key.
    pub public: String,
    /// The private key.
    pub private: Secret,
}

/// The algorithm of the authorities' keys, as kubeadm's `encryptionAlgorithm` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyAlgorithm {
    /// kubeadm's default.
    #[default]
    Rsa2048,
    /// `RSA-3072`
    Rsa3072,
    /// `RSA-4096`
    Rsa4096,
    /// `ECDSA-P256`
    EcdsaP256,
    /// `ECDSA-P384`
    EcdsaP384,
}

/// What kubeadm would make in its phases `certs ca`, `front-proxy-ca`, `etcd-ca` and `sa`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities {
    /// `ca.{crt,key}`
    pub cluster: KeyPair,
    /// `front-proxy-ca.{crt,key}`
    pub front_proxy: KeyPair,
    /// `etcd/ca.{crt,key}`
    pub etcd: KeyPair,
    /// `sa.{pub,key}`
    pub service_accounts: KeyPair,
}

/// A certificate to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRequest {
    /// Common name: the user.
    pub user: String,
    /// Organisation: the group; empty for none.
    pub group: String,
    /// How long it lives.
    pub life: Duration,
}

/// Keys and certificates, and the service that keeps a key. One attempt each; nothing of it is written anywhere.
#[async_trait(?Send)]
pub trait Vault {
    /// New authorities of a cluster, whose certificates live this long.
    fn authorities(&self, algorithm: KeyAlgorithm, life: Duration) -> Outcome<Authorities>;
    /// A client's certificate, signed by this authority.
    fn client(&self, authority: &KeyPair, request: &ClientRequest) -> Outcome<KeyPair>;
    /// COSE_Encrypt0 (RFC 9052) with AES-256-GCM; `bound` is authenticated and not part of the result.
    fn seal(&self, key: &SealKey, bound: &[u8], plain: &[u8]) -> Outcome<Vec<u8>>;
    /// The plain text; `None` when key or `bound` are others, or a bit was changed.
    fn open(&self, key: &SealKey, bound: &[u8], sealed: &[u8]) -> Outcome<Option<Zeroizing<Vec<u8>>>>;
    /// PBKDF2-HMAC-SHA512.
    fn stretch(&self, passphrase: &Secret, salt: &[u8], rounds: u32) -> Outcome<SealKey>;
    /// KMS GenerateDataKey (AES_256).
    async fn data_key(&self, request: &KmsRequest) -> Outcome<DataKey>;
    /// KMS Decrypt of a wrapped key.
    async fn unwrap_key(&self, request: &KmsRequest, wrapped: &[u8]) -> Outcome<SealKey>;
}

/// An etcd member's client port, and the files with the credentials for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdAccess {
    /// `https://10.0.0.1:2379`
    pub endpoint: String,
    /// PEM files on this machine: etcd's CA, a client certificate and its key.
    pub ca: PathBuf,
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// etcd's v3 API over its JSON gateway. `Err` only when there was no HTTP answer.
#[async_trait(?Send)]
pub trait Etcd {
    /// One `POST` of a JSON body to a path such as `/v3/cluster/member/list`.
    async fn call(&self, access: &EtcdAccess, path: &'static str, body: Vec<u8>) -> Outcome<ApiAnswer>;
}

/// The ports of a program that has none: every call fails with `Internal`.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

fn nobody<T>() -> Outcome<T> {
    Err(Failure::new(Cause::Internal, "call a port", "this command has none"))
}

#[async_trait(?Send)]
impl Vault for Nobody {
    fn authorities(&self, _algorithm: KeyAlgorithm, _life: Duration) -> Outcome<Authorities> {
        nobody()
    }
    fn client(&self, _authority: &KeyPair, _request: &ClientRequest) -> Outcome<KeyPair> {
        nobody()
    }
    fn seal(&self, _key: &SealKey, _bound: &[u8], _plain: &[u8]) -> Outcome<Vec<u8>> {
        nobody()
    }
    fn open(&self, _key: &SealKey, _bound: &[u8], _sealed: &[u8]) -> Outcome<Option<Zeroizing<Vec<u8>>>> {
        nobody()
    }
    fn stretch(&self, _passphrase: &Secret, _salt: &[u8], _rounds: u32) -> Outcome<SealKey> {
        nobody()
    }
    async fn data_key(&self, _request: &KmsRequest) -> Outcome<DataKey> {
        nobody()
    }
    async fn unwrap_key(&self, _request: &KmsRequest, _wrapped: &[u8]) -> Outcome<SealKey> {
        nobody()
    }
}

#[async_trait(?Send)]
impl Etcd for Nobody {
    async fn call(&self, _access: &EtcdAccess, _path: &'static str, _body: Vec<u8>) -> Outcome<ApiAnswer> {
        nobody()
    }
}
