//! The keys of the cluster's authorities, handed from master to master through the store: sealed before `kubeadm init` by
//! the machine that holds the register, opened by whoever joins as a control plane.
//!
//! What is in the store is not believed. The bundle must name the register's cluster and, once that is established, its
//! CA; it must open with the key this machine is configured with, which authenticates everything else in it; and the CA
//! inside must be the one it names. Only then there is a [`PkiMaterial`], and only that can be placed.

mod contents;
mod disk;
mod encryption;
mod keep;
mod keys;
mod place;
#[cfg(test)]
pub(crate) mod tests;

pub use disk::{ETCD_CA, FILES};
pub use encryption::{Encryption, encryption_matches};
pub use keep::{Judged, Kept, Standing, keep, rewrap, stand};
pub use place::place;

use crate::config::settings::Settings;
use crate::kubeadm::machine::ca_hash;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::names::CaHash;
use crate::model::pki::{Base64, PkiBundle};
use crate::model::register::{Register, SCHEMA};
use crate::node::{Event, Node};
use crate::ports::{Authorities, ETag, KeyAlgorithm};
use crate::store::pki as stored;
use crate::store::register::Held;
use crate::store::{Keys, Store};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

/// kubeadm's `caCertificateValidityPeriod`: ten years.
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The keys of a cluster, verified: made only in this module, from a bundle that opened and belongs to the register, or
/// from keys that were just sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PkiMaterial {
    /// The authorities.
    pub authorities: Authorities,
    /// The configuration of encryption at rest, where there is one.
    pub encryption: Option<Encryption>,
    /// The cluster's uid.
    pub uid: Uuid,
    /// The pin of the cluster CA.
    pub ca: CaHash,
    _verified: Verified,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Verified;

/// The sealed keys from the store, opened and verified: its cluster uid is the register's, its CA too once that is
/// established. `None` when there are none.
///
/// Errors: `PkiRejected` (truncated, altered, of another cluster, sealed with another key), `Configuration` without the
/// setting `pki`, `UnsafeFile` for a key that others can read, `AccessDenied` and `CloudUnavailable` of KMS, the store's.
pub async fn fetch(node: &Node, register: &Register) -> Outcome<Option<PkiMaterial>> {
    keys::configured(node)?;
    let Some(seen) = Store::of(node).pki().await? else { return Ok(None) };
    open(node, &seen.bundle?, register.uid, register.ca()).await.map(Some)
}

/// The keys that `kubeadm init` is to use, sealed in the store: those that are there (a successor makes no other CA), else
/// the ones on this machine, else new ones. Calling it again gives the same ones. Lost answers are settled.
///
/// Errors: as [`fetch`].
pub async fn seal_new(node: &Node, held: &Held) -> Outcome<PkiMaterial> {
    keys::configured(node)?;
    let store = Store::of(node);
    if let Some(seen) = store.pki().await? {
        return open(node, &seen.bundle?, held.uid(), None).await;
    }
    let authorities = match disk::authorities(&*node.world.files)? {
        Ok(there) => there,
        Err(_missing) => node.world.vault.authorities(algorithm(&node.settings)?, ca_life(&node.settings)?)?,
    };
    let material = material(authorities, encryption::on_disk(node)?, held.uid())?;
    let bundle = seal(node, &material, 1).await?;
    match store.keep_pki(&bundle, None).await? {
        stored::Kept::Stored(_) => {
            node.tell(&Event::Note("the keys of the cluster's authorities are sealed in the store"));
            Ok(material)
        }
        // Another machine sealed its own before: those are the cluster's.
        stored::Kept::Other(seen) => open(node, &seen.bundle?, held.uid(), None).await,
        stored::Kept::Vanished => Err(rejected(node, "seal", "it vanished while it was written")),
    }
}

/// What is known to belong together: the pin is that of the CA inside.
fn material(authorities: Authorities, encryption: Option<Encryption>, uid: Uuid) -> Outcome<PkiMaterial> {
    let ca = ca_hash(authorities.cluster.public.as_bytes())
        .map_err(|why| Failure::new(Cause::PkiRejected, "read the CA of the cluster's keys", why))?;
    Ok(PkiMaterial { authorities, encryption, uid, ca, _verified: Verified })
}

/// Seals with the configured key; nothing is written.
async fn seal(node: &Node, material: &PkiMaterial, sequence: u64) -> Outcome<PkiBundle> {
    let (record, key) = keys::fresh(node, material.uid).await?;
    let mut bundle = PkiBundle {
        schema: SCHEMA,
        cluster: node.settings.cluster.to_string(),
        uid: material.uid,
        ca_sha256: material.ca.clone(),
        key: record,
        sequence,
        write_id: node.uuid(),
        sealed: Base64::default(),
    };
    let plain = contents::encode(&material.authorities, material.encryption.as_ref())?;
    bundle.sealed = Base64(node.world.vault.seal(&key, &bundle.bound(), &plain)?);
    Ok(bundle)
}

/// Opens a bundle and verifies it against what the register says. Whether it can belong to the cluster is judged before
/// any key is asked for.
async fn open(node: &Node, bundle: &PkiBundle, uid: Uuid, ca: Option<&CaHash>) -> Outcome<PkiMaterial> {
    belongs(node, bundle, uid, ca)?;
    let key = keys::known(node, bundle).await?;
    let Some(plain) = node.world.vault.open(&key, &bundle.bound(), &bundle.sealed.0)? else {
        let why = format!(
            "it does not open: it was changed, or sealed with another key than this machine's ({} opened version {})",
            bundle.key.describe(),
            bundle.sequence
        );
        return Err(rejected(node, "open", why));
    };
    let (authorities, encryption) = contents::decode(&plain).map_err(|why| rejected(node, "open", why))?;
    let material = material(authorities, encryption, uid)?;
    if material.ca != bundle.ca_sha256 {
        let why = format!("it says that it has CA {}, and has {}", bundle.ca_sha256, material.ca);
        return Err(rejected(node, "open", why));
    }
    Ok(material)
}

/// Whether a bundle names this cluster, and its CA when that is known.
fn belongs(node: &Node, bundle: &PkiBundle, uid: Uuid, ca: Option<&CaHash>) -> Outcome<()> {
    if bundle.uid != uid {
        return Err(rejected(node, "use", format!("it is of cluster {}, and the register says {uid}", bundle.uid)));
    }
    match ca.filter(|ca| **ca != bundle.ca_sha256) {
        Some(ca) => {
            let why = format!("its CA is {}, and the register says {ca}", bundle.ca_sha256);
            Err(rejected(node, "use", why))
        }
        None => Ok(()),
    }
}

fn rejected(node: &Node, verb: &str, why: impl Into<String>) -> Failure {
    let key = Keys::of(&node.settings.cluster).pki_bundle();
    Failure::new(Cause::PkiRejected, format!("{verb} {key}"), why)
}

/// The algorithm that kubeadm would use.
fn algorithm(settings: &Settings) -> Outcome<KeyAlgorithm> {
    let patch = &settings.kubeadm.cluster;
    match patch.get("encryptionAlgorithm").map(|value| value.as_str().unwrap_or_default()) {
        None | Some("RSA-2048") => Ok(KeyAlgorithm::Rsa2048),
        Some("RSA-3072") => Ok(KeyAlgorithm::Rsa3072),
        Some("RSA-4096") => Ok(KeyAlgorithm::Rsa4096),
        Some("ECDSA-P256") => Ok(KeyAlgorithm::EcdsaP256),
        Some("ECDSA-P384") => Ok(KeyAlgorithm::EcdsaP384),
        Some(other) => {
            let why = format!(
                "encryptionAlgorithm is {other:?}; RSA-2048, RSA-3072, RSA-4096, ECDSA-P256 and ECDSA-P384 are known"
            );
            Err(patched(why))
        }
    }
}

/// How long kubeadm would let a CA live.
fn ca_life(settings: &Settings) -> Outcome<Duration> {
    let Some(value) = settings.kubeadm.cluster.get("caCertificateValidityPeriod") else { return Ok(TEN_YEARS) };
    let wrong = || patched(format!("caCertificateValidityPeriod is {value}, and must be like 87600h or 1h30m"));
    value.as_str().and_then(go_duration).filter(|life| !life.is_zero()).ok_or_else(wrong)
}

fn patched(why: String) -> Failure {
    Failure::new(Cause::Configuration, "make the cluster's authorities", why)
        .advise("correct `kubeadm.ClusterConfiguration`")
}

/// Hours, minutes and seconds of Go's durations; kubeadm's defaults are written so.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0_u64;
    for (unit, length) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((number, after)) = rest.split_once(unit) {
            seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(length)?)?;
            rest = after;
        }
    }
    (rest.is_empty() && !text.is_empty()).then(|| Duration::from_secs(seconds))
}

/// The argument of the API server's flag, from `kubeadm.ClusterConfiguration`; the last one counts.
fn api_server_argument<'s>(settings: &'s Settings, name: &str) -> Option<&'s str> {
    let arguments = settings.kubeadm.cluster.get("apiServer")?.get("extraArgs")?.as_array()?;
    let named = |argument: &&Value| argument.get("name").and_then(Value::as_str) == Some(name);
    arguments.iter().rev().find(named)?.get("value")?.as_str()
}

/// The version of a bundle to write over, and the next number.
fn next(seen: &stored::SeenPki) -> (ETag, u64) {
    let sequence = seen.bundle.as_ref().map_or(1, |bundle| bundle.sequence.saturating_add(1));
    (seen.etag.clone(), sequence)
}
