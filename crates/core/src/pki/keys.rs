//! The key that seals a bundle: from KMS, from a file, or from a passphrase. Always the one this machine is configured
//! with: what the bundle says only tells how to find it again.

use crate::config::settings::PkiSettings;
use crate::journal::STATE_FOLDER;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::pki::{Base64, KeyRecord, PkiBundle};
use crate::model::secret::Secret;
use crate::node::Node;
use crate::ports::{DataKey, FileKind, KmsRequest, SealKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::path::Path;
use uuid::Uuid;
use zeroize::Zeroizing;

/// Rounds of a new bundle: half a second of work. OWASP (Password Storage Cheat Sheet) asks for 220 000 with SHA-512.
const ROUNDS: u32 = 600_000;
/// A bundle that asks for fewer is weaker than any of ours, one that asks for more is there to keep us busy.
const ROUNDS_READ: std::ops::RangeInclusive<u32> = 100_000..=10_000_000;
/// NIST SP 800-132: at least 16 bytes.
const SALT: usize = 16;
/// AES-256.
const KEY: usize = 32;
/// A key in base64 has 44 characters; a passphrase may be a page.
const MAX_FILE: u64 = 4096;
/// In characters.
const SHORTEST_PASSPHRASE: usize = 20;

/// The setting, or the refusal that says what is missing.
pub(super) fn configured(node: &Node) -> Outcome<&PkiSettings> {
    node.settings.pki.as_ref().ok_or_else(|| {
        let why = "no key is configured that its keys are sealed with";
        Failure::new(Cause::Configuration, "read pki/bundle of the cluster", why)
            .advise("set `pki` to the same key on all masters (docs/ha-pki.md)")
    })
}

/// A key for a new bundle, and what the bundle says of it.
pub(super) async fn fresh(node: &Node, uid: Uuid) -> Outcome<(KeyRecord, SealKey)> {
    match configured(node)? {
        PkiSettings::Kms(key_id) => {
            let request = kms(node, key_id, uid)?;
            let DataKey { plain, wrapped, key_id } = node.world.vault.data_key(&request).await?;
            Ok((KeyRecord::Kms { key_id, wrapped: Base64(wrapped) }, checked(plain, "KMS")?))
        }
        PkiSettings::KeyFile(path) => Ok((KeyRecord::File, key_in(node, path)?)),
        PkiSettings::PassphraseFile(path) => {
            let mut salt = vec![0; SALT];
            node.world.time.random(&mut salt);
            let key = node.world.vault.stretch(&passphrase_in(node, path)?, &salt, ROUNDS)?;
            Ok((KeyRecord::Passphrase { salt: Base64(salt), rounds: ROUNDS }, key))
        }
    }
}

/// The key that this machine has for that bundle.
pub(super) async fn known(node: &Node, bundle: &PkiBundle) -> Outcome<SealKey> {
    match (configured(node)?, &bundle.key) {
        (PkiSettings::Kms(key_id), KeyRecord::Kms { wrapped, .. }) => {
            let request = kms(node, key_id, bundle.uid)?;
            checked(node.world.vault.unwrap_key(&request, &wrapped.0).await?, "KMS")
        }
        (PkiSettings::KeyFile(path), KeyRecord::File) => key_in(node, path),
        (PkiSettings::PassphraseFile(path), KeyRecord::Passphrase { salt, rounds }) => {
            if !ROUNDS_READ.contains(rounds) || salt.0.len() < SALT {
                let (from, to) = (ROUNDS_READ.start(), ROUNDS_READ.end());
                let why = format!(
                    "it asks for {rounds} rounds and has {} bytes of salt; {from} to {to} rounds and at least {SALT} bytes are accepted",
                    salt.0.len()
                );
                return Err(super::rejected(node, "open", why));
            }
            node.world.vault.stretch(&passphrase_in(node, path)?, &salt.0, *rounds)
        }
        (own, record) => {
            let why = format!("it is sealed with {}, and this machine is configured with {own}", record.describe());
            Err(super::rejected(node, "open", why))
        }
    }
}

/// The wrapped key is bound to cluster and uid: KMS does not unwrap it for another one, and a key policy can name them.
fn kms(node: &Node, key_id: &str, uid: Uuid) -> Outcome<KmsRequest> {
    let region = arn_region(key_id).or_else(|| node.identity.ec2().map(|ec2| ec2.region.as_str()));
    let Some(region) = region else {
        let why = format!("{key_id:?} does not say in which region it is, and this machine is not on EC2");
        return Err(Failure::new(Cause::Configuration, "use the KMS key of `pki.kms_key_id`", why)
            .advise("give the key's whole ARN"));
    };
    let context = [("kubestrap-cluster", node.settings.cluster.to_string()), ("kubestrap-uid", uid.to_string())];
    let context: BTreeMap<String, String> = context.map(|(name, value)| (name.to_owned(), value)).into();
    Ok(KmsRequest { region: region.to_owned(), key_id: key_id.to_owned(), context })
}

/// `arn:<partition>:kms:<region>:…`
fn arn_region(key_id: &str) -> Option<&str> {
    let mut parts = key_id.strip_prefix("arn:")?.split(':').skip(1);
    (parts.next() == Some("kms")).then(|| parts.next().filter(|region| !region.is_empty()))?
}

fn key_in(node: &Node, path: &Path) -> Outcome<SealKey> {
    let text = secret_file(node, path)?;
    let wrong = || {
        Failure::new(Cause::Configuration, attempted(path), "it is not 32 bytes in base64")
            .advise("make one with `openssl rand -base64 32`, and give every master the same")
    };
    let bytes = Zeroizing::new(STANDARD.decode(text.expose().trim()).map_err(|_| wrong())?);
    if bytes.len() == KEY { Ok(SealKey(bytes)) } else { Err(wrong()) }
}

fn passphrase_in(node: &Node, path: &Path) -> Outcome<Secret> {
    let text = secret_file(node, path)?;
    // An editor's line end is not part of it.
    let passphrase = text.expose().trim_end_matches(['\n', '\r']);
    if passphrase.chars().count() < SHORTEST_PASSPHRASE {
        let why = format!("the passphrase has fewer than {SHORTEST_PASSPHRASE} characters");
        return Err(Failure::new(Cause::Configuration, attempted(path), why).advise("use a longer one on every master"));
    }
    Ok(Secret::new(passphrase))
}

fn attempted(path: &Path) -> String {
    format!("read the key of the cluster's sealed keys, {}", path.display())
}

/// A file that only root, or whoever runs this program, can read: a link or an open mode is refused before it is read.
fn secret_file(node: &Node, path: &Path) -> Outcome<Secret> {
    let files = &*node.world.files;
    let unsafe_file = |why: String| {
        Err(Failure::new(Cause::UnsafeFile, attempted(path), why)
        .advise("put the file itself there, owned by root and readable by nobody else (chmod 0600), and change the key if others could read it"))
    };
    let Some(info) = files.stat(path)? else {
        return Err(Failure::new(Cause::Configuration, attempted(path), "there is no such file")
            .advise("put the same file on every master, mode 0600"));
    };
    if info.kind != FileKind::File {
        return unsafe_file("it is not a regular file".to_owned());
    }
    // The state folder is this program's own.
    let own = files.stat(Path::new(STATE_FOLDER))?.map_or(0, |folder| folder.uid);
    if info.uid != 0 && info.uid != own {
        return unsafe_file(format!("it belongs to user {}", info.uid));
    }
    if info.mode & 0o077 != 0 {
        return unsafe_file(format!("others can read or change it (mode {:04o})", info.mode & 0o7777));
    }
    let wrong = |why: &str| Failure::new(Cause::Configuration, attempted(path), why);
    let bytes = Zeroizing::new(files.read(path, MAX_FILE)?.ok_or_else(|| wrong("it has just been removed"))?);
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not text"))?;
    Ok(Secret::new(text))
}

/// What came from outside is a key of AES-256 before anything is sealed with it.
fn checked(key: SealKey, from: &str) -> Outcome<SealKey> {
    if key.0.len() == KEY {
        return Ok(key);
    }
    let why = format!("{from} gave a key of {} bytes, and {KEY} are needed", key.0.len());
    Err(Failure::new(Cause::PkiRejected, "use the data key of the sealed keys", why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_of_a_key_is_in_its_arn_alone() {
        let table = [
            ("arn:aws:kms:eu-west-1:123456789012:key/1234", Some("eu-west-1")),
            ("arn:aws-cn:kms:cn-north-1:123456789012:alias/pki", Some("cn-north-1")),
            ("arn:aws:s3:eu-west-1:123456789012:key/1234", None),
            ("arn:aws:kms::123456789012:key/1234", None),
            ("alias/pki", None),
            ("1234abcd-12ab-34cd-56ef-1234567890ab", None),
        ];
        for (key_id, region) in table {
            assert_eq!(arn_region(key_id), region, "{key_id}");
        }
    }
}
