//! Certificate authorities: one real certificate, and others that differ from it in their public key. Nothing in core
//! checks a self-signature; it parses the certificate and hashes its key.

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

/// The certificate of a new CA, as PEM.
pub fn generate(rng: &Rng) -> String {
    let mut der = der(TEMPLATE);
    let at = key(&der) + SPKI_HEAD.len();
    rng.fill(&mut der[at..at + COORDINATES]);
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
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
}
