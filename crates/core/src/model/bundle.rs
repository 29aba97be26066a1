//! The join bundle, `join/worker.json`: all a worker needs, for as long as its token lives.

use crate::model::names::{BootstrapToken, CaHash, Endpoint};
use crate::model::version::KubeVersion;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// `join/worker.json`. Every field is a parsed type; what does not parse is refused before anything is done with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinBundle {
    /// Major version of the form.
    pub schema: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's uid, equal to the register's.
    pub uid: Uuid,
    /// Where the API server is.
    pub endpoint: Endpoint,
    /// The pin of the cluster's CA, equal to the register's.
    pub ca_sha256: CaHash,
    /// The API server's version, so that a worker can refuse version skew before it touches the machine.
    pub server_version: KubeVersion,
    /// The bootstrap token.
    #[serde(serialize_with = "write_token", deserialize_with = "read_token")]
    pub token: BootstrapToken,
    /// When the publisher made it, by its clock.
    pub issued_at: Timestamp,
    /// When the token dies.
    pub expires_at: Timestamp,
    /// Grows by one with every publication.
    pub sequence: u64,
    /// The publisher's identity key.
    pub publisher: String,
    /// Fresh for every write, so that a lost answer can be settled.
    pub write_id: Uuid,
}

fn write_token<S: Serializer>(token: &BootstrapToken, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token.expose().expose())
}

fn read_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BootstrapToken, D::Error> {
    let text = String::deserialize(deserializer)?;
    BootstrapToken::parse(&text).map_err(serde::de::Error::custom)
}
