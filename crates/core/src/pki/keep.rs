//! The sealed keys stay what the cluster's leader has: sealed when they are not, replaced when encryption at rest changed,
//! and sealed with another key when an operator says so.

use super::encryption::{self, Encryption};
use super::{PkiMaterial, disk, keys, material, next, open, seal};
use crate::kubeadm::machine::Machine;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::names::CaHash;
use crate::model::register::Register;
use crate::node::Node;
use crate::ports::ETag;
use crate::store::Store;
use crate::store::pki::{self as stored, SeenPki};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use uuid::Uuid;

/// What was done about the sealed keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// They are what they should be.
    Same,
    /// There were none.
    Sealed,
    /// They were replaced.
    Replaced,
}

/// A version that was opened and found good, beside which file of encryption at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    etag: ETag,
    encryption: Option<[u8; 32]>,
}

/// For the leader: seals what this machine has when the store has nothing (a cluster older than the setting), and replaces
/// the bundle when the file of encryption at rest is another one. `judged` spares the key service: a version that was
/// found good is opened again only when it or the file changed.
///
/// Errors: as [`super::fetch`]; `Configuration` when encryption at rest is sealed and this machine's settings name none;
/// `ForeignCluster` when this machine's CA is not the register's; `HeldByOther` when another master wrote in between.
pub async fn keep(node: &Node, register: &Register, judged: &RefCell<Option<Judged>>) -> Outcome<Kept> {
    keys::configured(node)?;
    let (uid, ca) = established(register)?;
    let own = encryption::on_disk(node)?;
    let digest = own.as_ref().map(digest);
    let Some(seen) = Store::of(node).pki().await? else {
        let etag = write(node, &from_disk(node, register)?, None).await?;
        judged.replace(Some(Judged { etag, encryption: digest }));
        return Ok(Kept::Sealed);
    };
    let same = Judged { etag: seen.etag.clone(), encryption: digest };
    if judged.borrow().as_ref() == Some(&same) {
        return Ok(Kept::Same);
    }
    let sealed = open(node, seen.bundle.as_ref().map_err(Clone::clone)?, uid, Some(ca)).await?;
    if sealed.encryption == own {
        judged.replace(Some(same));
        return Ok(Kept::Same);
    }
    // One master with a forgotten setting must not take the key from all that join later.
    if let (None, Some(sealed)) = (&own, &sealed.encryption) {
        let why = format!(
            "{} is sealed for the masters, and this machine's settings name no encryption at rest",
            sealed.path.display()
        );
        return Err(Failure::new(Cause::Configuration, "keep the sealed keys of the cluster", why)
            .advise("configure it here too, or, when it was given up, `kubestrap pki rewrap`"));
    }
    let etag = write(node, &PkiMaterial { encryption: own, ..sealed }, Some(&seen)).await?;
    judged.replace(Some(Judged { etag, encryption: digest }));
    Ok(Kept::Replaced)
}

/// For an operator on a master: seals what this machine has with the key that is configured now, over the version that was
/// shown (`None`: there was none). The CA is the register's before and after.
///
/// Errors: as [`keep`], and `ForeignState` when a file is missing.
pub async fn rewrap(node: &Node, register: &Register, seen: Option<&SeenPki>) -> Outcome<PkiMaterial> {
    keys::configured(node)?;
    let material = from_disk(node, register)?;
    write(node, &material, seen).await?;
    Ok(material)
}

/// How the sealed keys stand, for people.
#[derive(Debug)]
pub struct Standing {
    /// The register.
    pub register: Option<Register>,
    /// The bundle.
    pub seen: Option<SeenPki>,
    /// What came of opening it with this machine's key; `None` without register or bundle.
    pub opened: Option<Outcome<PkiMaterial>>,
    /// The CA of this machine.
    pub machine_ca: Option<CaHash>,
}

/// Reads all of it. Only what cannot be read at all is an error; a bundle that does not open is part of the answer.
pub async fn stand(node: &Node) -> Outcome<Standing> {
    let store = Store::of(node);
    let register = store.register().await?.map(|seen| seen.register);
    let seen = store.pki().await?;
    let opened = match (&register, &seen) {
        (Some(register), Some(seen)) => Some(match &seen.bundle {
            Ok(bundle) => open(node, bundle, register.uid, register.ca()).await,
            Err(failure) => Err(failure.clone()),
        }),
        _ => None,
    };
    let machine_ca = Machine::look(&*node.world.files)?.ca;
    Ok(Standing { register, seen, opened, machine_ca })
}

fn established(register: &Register) -> Outcome<(Uuid, &CaHash)> {
    let ca = register.ca().ok_or_else(|| {
        let why = "the cluster is not established yet";
        Failure::new(Cause::HeldByOther, "seal the keys of the cluster", why).advise("wait until it is")
    })?;
    Ok((register.uid, ca))
}

/// The keys of this machine, when it belongs to the register's cluster.
fn from_disk(node: &Node, register: &Register) -> Outcome<PkiMaterial> {
    const SEAL: &str = "seal the keys of this machine";
    let (uid, ca) = established(register)?;
    let there = disk::authorities(&*node.world.files)?.map_err(|missing| {
        Failure::new(Cause::ForeignState, SEAL, format!("{missing} is missing"))
            .advise("only a master that has the keys of all authorities can hand them on")
    })?;
    let material = material(there, encryption::on_disk(node)?, uid)?;
    if material.ca != *ca {
        let why = format!("this machine has CA {}, and the register says {ca}", material.ca);
        return Err(Failure::new(Cause::ForeignCluster, SEAL, why));
    }
    Ok(material)
}

async fn write(node: &Node, material: &PkiMaterial, over: Option<&SeenPki>) -> Outcome<ETag> {
    let (etag, sequence) = over.map(next).unzip();
    let bundle = seal(node, material, sequence.unwrap_or(1)).await?;
    match Store::of(node).keep_pki(&bundle, etag.as_ref()).await? {
        stored::Kept::Stored(etag) => Ok(etag),
        stored::Kept::Other(_) | stored::Kept::Vanished => {
            let why = "it changed in between";
            Err(Failure::new(Cause::HeldByOther, "replace pki/bundle", why).advise("look at it and do it again"))
        }
    }
}

fn digest(file: &Encryption) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(file.path.to_string_lossy().as_bytes());
    hash.update([0]);
    hash.update(file.content.expose().as_bytes());
    hash.finalize().into()
}
