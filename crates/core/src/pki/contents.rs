//! What is sealed: a small JSON document of keys and certificates.

use super::encryption::Encryption;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::register::SCHEMA;
use crate::model::secret::Secret;
use crate::ports::{Authorities, KeyPair};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Enough for the largest keys, so that the buffer is not copied while it grows and no copy is left behind.
const ROOM: usize = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Contents<T> {
    schema: u32,
    cluster: Pair<T>,
    front_proxy: Pair<T>,
    etcd: Pair<T>,
    service_accounts: Pair<T>,
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    encryption: Option<File<T>>,
}

#[derive(Serialize, Deserialize)]
struct Pair<T> {
    public: T,
    private: T,
}

#[derive(Serialize, Deserialize)]
struct File<T> {
    path: T,
    content: T,
}

/// The bytes to seal.
pub(super) fn encode(authorities: &Authorities, encryption: Option<&Encryption>) -> Outcome<Zeroizing<Vec<u8>>> {
    let failed = |why: String| Failure::new(Cause::Internal, "write the contents of pki/bundle", why);
    let path = encryption.map(|file| file.path.to_string_lossy());
    let contents = Contents {
        schema: SCHEMA,
        cluster: shown(&authorities.cluster),
        front_proxy: shown(&authorities.front_proxy),
        etcd: shown(&authorities.etcd),
        service_accounts: shown(&authorities.service_accounts),
        encryption: encryption.zip(path.as_deref()).map(|(file, path)| File { path, content: file.content.expose() }),
    };
    let mut plain = Zeroizing::new(Vec::with_capacity(ROOM));
    serde_json::to_writer(&mut *plain, &contents).map_err(|error| failed(error.to_string()))?;
    Ok(plain)
}

fn shown(pair: &KeyPair) -> Pair<&str> {
    Pair { public: &pair.public, private: pair.private.expose() }
}

/// What was sealed. The error repeats nothing of it.
pub(super) fn decode(plain: &[u8]) -> Result<(Authorities, Option<Encryption>), String> {
    // serde's errors repeat values.
    let contents: Contents<String> =
        serde_json::from_slice(plain).map_err(|_| "what is sealed in it is not of the expected form".to_owned())?;
    if contents.schema > SCHEMA {
        return Err(format!("its contents have schema {}, and this kubestrap reads up to {SCHEMA}", contents.schema));
    }
    let pair = |pair: Pair<String>| KeyPair { public: pair.public, private: Secret::new(pair.private) };
    let authorities = Authorities {
        cluster: pair(contents.cluster),
        front_proxy: pair(contents.front_proxy),
        etcd: pair(contents.etcd),
        service_accounts: pair(contents.service_accounts),
    };
    let encryption = contents
        .encryption
        .map(|file| Encryption { path: PathBuf::from(file.path), content: Secret::new(file.content) });
    Ok((authorities, encryption))
}
