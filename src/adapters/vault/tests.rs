use super::*;
use crate::adapters::net::Names;
use kubestrap_core::kubeadm::machine::{ca_hash, expiry};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use std::sync::Arc;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn keys() -> Keys {
    Keys::new(Rc::new(Aws::with_credentials(&Names::default(), "eu-west-1")), None)
}

fn key(byte: u8) -> SealKey {
    SealKey(Zeroizing::new(vec![byte; KEY]))
}

/// Made by another implementation (Python's `cryptography`, CBOR by hand): what was sealed once must open for ever.
const SEALED: &str = "\
    d08343a10103a1054c000102030405060708090a0b582068ed88197329ad2c0fc6c5f3\
    84781acb51dd958f31316d497a770e26ee66d81a";

#[test]
fn what_another_implementation_sealed_opens() {
    let opened = keys().open(&key(7), b"bound", &hex(SEALED)).expect("answered");
    assert_eq!(opened.as_deref().map(Vec::as_slice), Some(&b"plain text of v1"[..]));
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

#[test]
fn sealed_bytes_open_with_their_key_and_bound_data_and_not_when_a_bit_is_another() {
    let keys = keys();
    let plain = b"a private key";
    let sealed = keys.seal(&key(1), b"cluster", plain).expect("sealed");
    assert!(!sealed.windows(plain.len()).any(|window| window == plain));
    let open = |key: &SealKey, bound: &[u8], sealed: &[u8]| keys.open(key, bound, sealed).expect("answered");
    assert_eq!(open(&key(1), b"cluster", &sealed).as_deref().map(Vec::as_slice), Some(&plain[..]));
    assert_eq!(open(&key(2), b"cluster", &sealed), None);
    assert_eq!(open(&key(1), b"clusters", &sealed), None);
    assert_eq!(open(&SealKey(Zeroizing::new(vec![1; 16])), b"cluster", &sealed), None);
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&key(1), b"cluster", &changed), None, "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert_eq!(open(&key(1), b"cluster", &sealed[..length]), None, "{length} bytes");
    }
    assert_eq!(open(&key(1), b"cluster", &[&sealed[..], b"x"].concat()), None);
    assert_ne!(keys.seal(&key(1), b"cluster", plain).expect("sealed"), sealed, "a nonce was used twice");
}

#[test]
fn a_passphrase_is_stretched_as_the_standard_says() {
    // PBKDF2-HMAC-SHA512, "password", "salt": from Python's hashlib.
    let stretched = |rounds| keys().stretch(&Secret::new("password"), b"salt", rounds).expect("stretched");
    let hexed: String = stretched(4096).0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hexed, "d197b1b33db0143e018b12f3d1d1479e6cdebdcc97c5c0f87f6902e072f457b5");
    assert_ne!(stretched(4095), stretched(4096));
    assert!(keys().stretch(&Secret::new("password"), b"salt", 0).is_err());
}

fn roots(pem: &str) -> Arc<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("certificate")).expect("root");
    Arc::new(roots)
}

/// As an API server or etcd would: rustls is a stranger to what made the certificate.
fn accepts(authority: &KeyPair, client: &KeyPair) -> bool {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&authority.public), provider.clone()).build();
    let certificate = CertificateDer::from_pem_slice(client.public.as_bytes()).expect("certificate");
    let private = PrivateKeyDer::from_pem_slice(client.private.expose().as_bytes()).expect("key");
    assert!(provider.key_provider.load_private_key(private).is_ok());
    verifier.expect("verifier").verify_client_cert(&certificate, &[], UnixTime::now()).is_ok()
}

#[test]
fn authorities_are_like_kubeadms_and_sign_clients() {
    let keys = keys();
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048] {
        let all = keys.authorities(algorithm, 10 * 365 * DAY).expect("authorities");
        let three = [&all.cluster, &all.front_proxy, &all.etcd];
        let pins: std::collections::BTreeSet<_> =
            three.iter().map(|pair| ca_hash(pair.public.as_bytes()).expect("pin")).collect();
        assert_eq!(pins.len(), 3);
        for pair in three {
            let years = expiry(pair.public.as_bytes()).expect("expiry").duration_since(jiff::Timestamp::now());
            assert_eq!((years.as_hours() + 1) / 24 / 365, 10);
            assert!(pair.private.expose().starts_with("-----BEGIN PRIVATE KEY-----"), "{algorithm:?}");
        }
        assert!(all.service_accounts.public.starts_with("-----BEGIN PUBLIC KEY-----"));
        let request = ClientRequest { user: "kubestrap".into(), group: "system:masters".into(), life: DAY / 24 };
        let client = keys.client(&all.etcd, &request).expect("client");
        assert!(accepts(&all.etcd, &client) && !accepts(&all.cluster, &client), "{algorithm:?}");
        let swapped = KeyPair { private: all.etcd.private.clone(), ..all.cluster.clone() };
        assert_eq!(keys.client(&swapped, &request).expect_err("swapped").cause, Cause::PkiRejected);
    }
}
