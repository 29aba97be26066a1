//! Keys and certificates of this world: nobody can break its ciphers, for nobody tries, but a changed bit, another key and
//! other bound data are noticed. KMS is away, or denies while a policy is being changed.

use super::Desk;
use crate::faults::Fault;
use crate::kubeadm::ca;
use crate::network::Far;
use async_trait::async_trait;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::secret::Secret;
use kubestrap_core::ports::{Authorities, ClientRequest, DataKey, KeyAlgorithm, KeyPair, KmsRequest, SealKey, Vault};
use sha2::{Digest, Sha256};
use std::time::Duration;
use zeroize::Zeroizing;

const KEY: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 32;

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The text under a key stream, there and back.
fn stream(key: &[u8], nonce: &[u8], text: &[u8]) -> Vec<u8> {
    let blocks = text.chunks(KEY).enumerate();
    let under = |(at, block): (usize, &[u8])| {
        let pad = hash(&[b"stream", key, nonce, &at.to_le_bytes()]);
        block.iter().zip(pad).map(|(byte, pad)| byte ^ pad).collect::<Vec<u8>>()
    };
    blocks.flat_map(under).collect()
}

fn seal(key: &[u8], nonce: [u8; NONCE], bound: &[u8], plain: &[u8]) -> Vec<u8> {
    let text = stream(key, &nonce, plain);
    let tag = hash(&[b"tag", key, &nonce, bound, &text]);
    [&nonce[..], &tag, &text].concat()
}

fn open(key: &[u8], bound: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, rest) = sealed.split_at_checked(NONCE)?;
    let (tag, text) = rest.split_at_checked(TAG)?;
    (tag == hash(&[b"tag", key, nonce, bound, text])).then(|| Zeroizing::new(stream(key, nonce, text)))
}

impl Desk {
    fn nonce(&self) -> [u8; NONCE] {
        let mut nonce = [0; NONCE];
        self.universe.rng.fill(&mut nonce);
        nonce
    }

    fn authority(&self) -> KeyPair {
        self.pair(ca::generate(&self.universe.rng))
    }

    /// A certificate with its private key, which is a secret of this world from now on.
    fn pair(&self, public: String) -> KeyPair {
        let private = ca::private_key(&public);
        self.universe.learn_key(&private);
        KeyPair { private: Secret::new(private), public }
    }

    /// A request to KMS; the key of the KMS key.
    async fn ask_kms(&self, request: &KmsRequest, action: &str) -> Outcome<[u8; 32]> {
        let universe = &self.universe;
        self.there(Far::Cloud).await;
        if universe.strikes(Fault::TimeOut) {
            std::future::pending::<()>().await;
        }
        let failed = |cause, why: String| Err(Failure::new(cause, format!("ask KMS key {}", request.key_id), why));
        if universe.strikes(Fault::KmsDown) {
            return failed(Cause::CloudUnavailable, "500 KMSInternalException".to_owned());
        }
        if universe.strikes(Fault::KmsDenied) {
            return failed(Cause::AccessDenied, format!("not authorized to perform: {action} on {}", request.key_id));
        }
        Ok(hash(&[b"kms", request.region.as_bytes(), request.key_id.as_bytes()]))
    }
}

fn context(request: &KmsRequest) -> Vec<u8> {
    format!("{:?}", request.context).into_bytes()
}

#[async_trait(?Send)]
impl Vault for Desk {
    fn authorities(&self, _algorithm: KeyAlgorithm, _life: Duration) -> Outcome<Authorities> {
        self.universe.count("authorities-made");
        let service_accounts = KeyPair { public: "public\n".to_owned(), ..self.authority() };
        Ok(Authorities {
            cluster: self.authority(),
            front_proxy: self.authority(),
            etcd: self.authority(),
            service_accounts,
        })
    }

    fn client(&self, authority: &KeyPair, request: &ClientRequest) -> Outcome<KeyPair> {
        let failed =
            |why: &str| Err(Failure::new(Cause::PkiRejected, format!("make a certificate for {}", request.user), why));
        if ca::pin(&authority.public).is_none() {
            return failed("the authority has no certificate");
        }
        if authority.private.expose() != ca::private_key(&authority.public) {
            return failed("the authority's certificate and private key do not belong together");
        }
        Ok(self.pair(ca::leaf(&authority.public, &request.group, &request.user)))
    }

    fn seal(&self, key: &SealKey, bound: &[u8], plain: &[u8]) -> Outcome<Vec<u8>> {
        Ok(seal(&key.0, self.nonce(), bound, plain))
    }

    fn open(&self, key: &SealKey, bound: &[u8], sealed: &[u8]) -> Outcome<Option<Zeroizing<Vec<u8>>>> {
        Ok(open(&key.0, bound, sealed))
    }

    fn stretch(&self, passphrase: &Secret, salt: &[u8], rounds: u32) -> Outcome<SealKey> {
        let key = hash(&[b"stretch", passphrase.expose().as_bytes(), salt, &rounds.to_le_bytes()]);
        Ok(SealKey(Zeroizing::new(key.to_vec())))
    }

    async fn data_key(&self, request: &KmsRequest) -> Outcome<DataKey> {
        let master = self.ask_kms(request, "kms:GenerateDataKey").await?;
        let mut plain = Zeroizing::new(vec![0; KEY]);
        self.universe.rng.fill(&mut plain);
        let wrapped = seal(&master, self.nonce(), &context(request), &plain);
        self.back(Far::Cloud).await;
        Ok(DataKey { plain: SealKey(plain), wrapped, key_id: request.key_id.clone() })
    }

    async fn unwrap_key(&self, request: &KmsRequest, wrapped: &[u8]) -> Outcome<SealKey> {
        let master = self.ask_kms(request, "kms:Decrypt").await?;
        let plain = open(&master, &context(request), wrapped);
        self.back(Far::Cloud).await;
        plain.map(SealKey).ok_or_else(|| {
            let why = "400 InvalidCiphertextException";
            Failure::new(Cause::PkiRejected, format!("unwrap a data key with KMS key {}", request.key_id), why)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_bit_another_key_and_other_bound_data_are_noticed() {
        let sealed = seal(&[1; KEY], [2; NONCE], b"bound", b"plain text that is longer than one block of the stream");
        let opened = open(&[1; KEY], b"bound", &sealed).expect("opened");
        assert_eq!(&**opened, b"plain text that is longer than one block of the stream");
        assert!(open(&[2; KEY], b"bound", &sealed).is_none() && open(&[1; KEY], b"other", &sealed).is_none());
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&[1; KEY], b"bound", &changed).is_none(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(open(&[1; KEY], b"bound", &sealed[..length]).is_none(), "{length} bytes");
        }
    }
}
