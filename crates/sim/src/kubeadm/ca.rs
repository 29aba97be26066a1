//! Certificate authorities: one real certificate, and others that differ from it in their public key. Nothing in core
//! checks a self-signature; it parses the certificate and hashes its key. What a leaf says, its issuer and its owner, is in
//! the coordinates of its key.

use crate::rng::Rng;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kubestrap_core::model::names::CaHash;
use sha2::{Digest, Sha256};

const TEMPLATE: &str = include_str!("ca_template.pem");
/// DER of a P-256 SubjectPublicKeyInfo up to the point's coordinates (RFC 5480).
const SPKI_HEAD: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const COORDINATES: usize = 64;

/// The bytes of a leaf's coordinates that name its issuer; the rest is its group and its user.
const ISSUER: usize = 16;
const GROUP: usize = 24;

/// The certificate of a new CA, as PEM.
pub fn generate(rng: &Rng) -> String {
    let mut coordinates = [0; COORDINATES];
    rng.fill(&mut coordinates);
    certificate(&coordinates)
}

/// The private key of a certificate: another text for each, which says whose it is.
pub fn private_key(certificate: &str) -> String {
    let digest = Sha256::digest(format!("private key of {certificate}"));
    pem("PRIVATE KEY", &digest)
}

/// A certificate signed by this authority for a user of a group; what is too long is cut.
pub fn leaf(authority: &str, group: &str, user: &str) -> String {
    let mut coordinates = [0; COORDINATES];
    coordinates[..ISSUER].copy_from_slice(&issuer(authority));
    for (slot, text) in [(ISSUER..ISSUER + GROUP, group), (ISSUER + GROUP..COORDINATES, user)] {
        coordinates[slot].iter_mut().zip(text.bytes()).for_each(|(slot, byte)| *slot = byte);
    }
    certificate(&coordinates)
}

/// The group and the user of a leaf; `None` when another authority signed it.
pub fn read_leaf(authority: &str, leaf: &str) -> Option<(String, String)> {
    let der = leaf.contains("BEGIN CERTIFICATE").then(|| der(leaf))?;
    let at = key(&der) + SPKI_HEAD.len();
    let coordinates = der.get(at..at + COORDINATES)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let (group, user) = coordinates[ISSUER..].split_at(GROUP);
    (coordinates[..ISSUER] == issuer(authority)).then(|| (text(group), text(user)))
}

fn issuer(authority: &str) -> [u8; ISSUER] {
    let pin = pin(authority).map(|pin| pin.to_string()).unwrap_or_default();
    let digest: [u8; 32] = Sha256::digest(pin).into();
    std::array::from_fn(|at| digest[at])
}

fn certificate(coordinates: &[u8; COORDINATES]) -> String {
    let mut der = der(TEMPLATE);
    let at = key(&der) + SPKI_HEAD.len();
    der[at..at + COORDINATES].copy_from_slice(coordinates);
    pem("CERTIFICATE", &der)
}

fn pem(kind: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
}

/// The pin of such a certificate, found without core's help; `None` for another text.
pub fn pin(pem: &str) -> Option<CaHash> {
    let der = pem.contains("BEGIN CERTIFICATE").then(|| der(pem))?;
    let at = key(&der);
    let spki = der.get(at..at + SPKI_HEAD.len() + COORDINATES)?;
    Some(CaHash::from_digest(&Sha256::digest(spki).into()))
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).unwrap_or_default()
}

fn key(der: &[u8]) -> usize {
    der.windows(SPKI_HEAD.len()).position(|window| window == SPKI_HEAD).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_authorities_parse_and_have_the_pin_core_computes() {
        let rng = Rng::new(1);
        let (one, two) = (generate(&rng), generate(&rng));
        let core = |pem: &str| kubestrap_core::kubeadm::machine::ca_hash(pem.as_bytes()).ok();
        assert!(pin(&one).is_some() && pin(&one) == core(&one));
        assert_ne!(pin(&one), pin(&two));
    }

    #[test]
    fn a_leaf_tells_its_issuer_and_its_owner() {
        let rng = Rng::new(1);
        let (one, two) = (generate(&rng), generate(&rng));
        let leaf = leaf(&one, "kubeadm:cluster-admins", "kubernetes-admin");
        let owner = ("kubeadm:cluster-admins".to_owned(), "kubernetes-admin".to_owned());
        assert_eq!((read_leaf(&one, &leaf), read_leaf(&two, &leaf)), (Some(owner), None));
        assert!(kubestrap_core::kubeadm::machine::expiry(leaf.as_bytes()).is_some());
    }
}
