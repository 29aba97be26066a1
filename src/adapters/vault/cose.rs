//! COSE_Encrypt0 (RFC 9052, section 5.2) with AES-256-GCM (RFC 9053, section 4.1).

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use coset::{CoseEncrypt0, CoseEncrypt0Builder, Header, HeaderBuilder, TaggedCborSerializable, iana};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::SealKey;
use zeroize::Zeroizing;

/// The nonce is random and fresh: with 96 bits that is safe for 2^32 messages per key (NIST SP 800-38D, 8.3), and a key
/// seals some tens.
pub(super) fn seal(key: &SealKey, bound: &[u8], plain: &[u8]) -> Outcome<Vec<u8>> {
    let failed = |why: &str| Failure::new(Cause::Internal, "seal the keys of the cluster", why);
    let key = cipher(key).ok_or_else(|| failed("the key does not have 32 bytes"))?;
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).map_err(|_| failed("there is no randomness"))?;
    let [protected, unprotected] = headers(&nonce);
    CoseEncrypt0Builder::new()
        .protected(protected)
        .unprotected(unprotected)
        .try_create_ciphertext(plain, bound, |plain, aad| {
            let mut text = plain.to_vec();
            let nonce = Nonce::assume_unique_for_key(nonce);
            key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut text).map(|()| text)
        })
        .map_err(|_| failed("AES-256-GCM refused it"))?
        .build()
        .to_tagged_vec()
        .map_err(|error| failed(&error.to_string()))
}

/// `None` for anything but what [`seal`] makes with this key and these bound data.
pub(super) fn open(key: &SealKey, bound: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let key = cipher(key)?;
    let message = CoseEncrypt0::from_tagged_slice(sealed).ok()?;
    let nonce: [u8; NONCE_LEN] = message.unprotected.iv.as_slice().try_into().ok()?;
    // Nothing beside: what the cipher does not cover must not vary either.
    let [protected, unprotected] = headers(&nonce);
    let exact = message.protected.header == protected && message.unprotected == unprotected;
    if !exact || message.clone().to_tagged_vec().ok().as_deref() != Some(sealed) {
        return None;
    }
    let opened = message.decrypt_ciphertext(
        bound,
        || (),
        |text, aad| {
            let mut text = Zeroizing::new(text.to_vec());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let plain = key.open_in_place(nonce, Aad::from(aad), &mut text).map_err(|_| ())?;
            Ok(plain.to_vec())
        },
    );
    opened.ok().map(Zeroizing::new)
}

/// The algorithm is authenticated; of the nonce a change shows by itself.
fn headers(nonce: &[u8]) -> [Header; 2] {
    let protected = HeaderBuilder::new().algorithm(iana::Algorithm::A256GCM).build();
    [protected, HeaderBuilder::new().iv(nonce.to_vec()).build()]
}

fn cipher(key: &SealKey) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, &key.0).ok().map(LessSafeKey::new)
}
