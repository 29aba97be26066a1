//! The sealed PKI, `pki/bundle`: the keys of a cluster's authorities, encrypted; everything around them is public.

use crate::model::names::CaHash;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Bytes that JSON carries as base64 with padding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Base64).map_err(|_| serde::de::Error::custom("it is not base64"))
    }
}

/// How the key that sealed a bundle is found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum KeyRecord {
    /// A data key that KMS made for this one bundle.
    Kms {
        /// The ARN of the KMS key, for people: what is asked is the configured key.
        key_id: String,
        /// The data key, encrypted by the KMS key.
        wrapped: Base64,
    },
    /// The key file that every master has.
    File,
    /// The passphrase that every master has, stretched.
    Passphrase {
        /// Random, fresh for every bundle.
        salt: Base64,
        /// Rounds of PBKDF2-HMAC-SHA512.
        rounds: u32,
    },
}

impl KeyRecord {
    /// For people: what it was sealed with.
    pub fn describe(&self) -> String {
        match self {
            KeyRecord::Kms { key_id, .. } => format!("KMS key {key_id}"),
            KeyRecord::File => "a key file".to_owned(),
            KeyRecord::Passphrase { rounds, .. } => format!("a passphrase ({rounds} rounds)"),
        }
    }
}

/// `pki/bundle`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PkiBundle {
    /// Major version of the form.
    pub schema: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's uid, equal to the register's.
    pub uid: Uuid,
    /// The pin of the cluster CA inside, equal to the established register's.
    pub ca_sha256: CaHash,
    /// How the key is found.
    pub key: KeyRecord,
    /// Grows by one with every replacement.
    pub sequence: u64,
    /// Fresh for every write, so that a lost answer can be settled.
    pub write_id: Uuid,
    /// COSE_Encrypt0 (RFC 9052) of the keys; [`PkiBundle::bound`] is its external additional data.
    pub sealed: Base64,
}

impl PkiBundle {
    /// What is authenticated with the sealed bytes and not part of them: every other field.
    pub fn bound(&self) -> Vec<u8> {
        let key = match &self.key {
            KeyRecord::Kms { key_id, wrapped } => format!("kms {key_id} {}", STANDARD.encode(&wrapped.0)),
            KeyRecord::File => "file".to_owned(),
            KeyRecord::Passphrase { salt, rounds } => format!("passphrase {} {rounds}", STANDARD.encode(&salt.0)),
        };
        let (cluster, uid, ca, sequence, id) = (&self.cluster, self.uid, &self.ca_sha256, self.sequence, self.write_id);
        format!("kubestrap pki {}\n{cluster}\n{uid}\n{ca}\n{key}\n{sequence}\n{id}\n", self.schema).into_bytes()
    }
}
