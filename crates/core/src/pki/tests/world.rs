//! A master with a disk that has modes, a vault whose ciphers only notice, and a store with scripted faults.

use crate::config::settings::{PkiSettings, Settings};
use crate::gate::Open;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::{Identity, Origin};
use crate::model::names::CaHash;
use crate::model::register::{Register, RegisterState};
use crate::model::secret::Secret;
use crate::node::{Node, Silent};
use crate::ports::{
    Authorities, ClientRequest, DataKey, FileInfo, FileKind, Files, KeyAlgorithm, KeyPair, KmsRequest, SealKey, Vault,
};
use crate::store::Store;
use crate::store::fake::{Lab, holder};
use crate::store::gone::tests::Ec2Says;
use crate::store::register::{Claim, Held};
use crate::testing;
use crate::world::{Ports, World};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;
use zeroize::Zeroizing;

pub const KEY_FILE: &str = "/etc/kubestrap/pki.key";
pub const OBJECT: &str = "test/pki/bundle";
pub const UID: u128 = 9;

/// Content, mode and owner.
type Item = (Vec<u8>, u32, u32);

/// Files by path: content, mode, owner; and what was written, in order.
#[derive(Default)]
pub struct Disk {
    pub files: RefCell<BTreeMap<PathBuf, Item>>,
    pub written: RefCell<Vec<String>>,
}

impl Disk {
    pub fn put(&self, path: &str, body: impl Into<Vec<u8>>, mode: u32) {
        self.files.borrow_mut().insert(path.into(), (body.into(), mode, 0));
    }

    pub fn mode(&self, path: &str) -> Option<u32> {
        self.files.borrow().get(Path::new(path)).map(|(_, mode, _)| *mode)
    }

    pub fn text(&self, path: &str) -> Option<String> {
        self.files.borrow().get(Path::new(path)).map(|(body, ..)| String::from_utf8_lossy(body).into_owned())
    }
}

impl Files for Disk {
    fn read(&self, path: &Path, limit: u64) -> Outcome<Option<Vec<u8>>> {
        let found = self.files.borrow().get(path).map(|(body, ..)| body.clone());
        assert!(found.as_ref().is_none_or(|body| body.len() as u64 <= limit), "{} is large", path.display());
        Ok(found)
    }
    fn stat(&self, path: &Path) -> Outcome<Option<FileInfo>> {
        Ok(self.files.borrow().get(path).map(|(body, mode, uid)| {
            let kind = if *mode & 0o170_000 == 0o120_000 { FileKind::Link } else { FileKind::File };
            FileInfo { kind, mode: *mode & 0o7777, uid: *uid, len: body.len() as u64 }
        }))
    }
    fn list(&self, _: &Path) -> Outcome<Vec<String>> {
        Ok(Vec::new())
    }
    fn write(&self, path: &Path, body: &[u8], mode: u32) -> Outcome<()> {
        self.written.borrow_mut().push(path.to_string_lossy().into_owned());
        self.files.borrow_mut().insert(path.to_owned(), (body.to_vec(), mode, 0));
        Ok(())
    }
    fn append(&self, path: &Path, body: &[u8], mode: u32) -> Outcome<()> {
        self.files.borrow_mut().entry(path.to_owned()).or_insert((Vec::new(), mode, 0)).0.extend_from_slice(body);
        Ok(())
    }
    fn remove(&self, path: &Path) -> Outcome<()> {
        self.files.borrow_mut().remove(path);
        Ok(())
    }
}

/// A certificate whose public key is its number.
pub fn certificate(n: u8) -> String {
    const POINT: [u8; 4] = [0x03, 0x42, 0x00, 0x04];
    let body: String = include_str!("ca.pem").lines().filter(|line| !line.starts_with("-----")).collect();
    let mut der = STANDARD.decode(body).expect("base64");
    let at = der.windows(4).position(|window| *window == POINT).expect("a P-256 key") + 4;
    der[at..at + 64].fill(n);
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// The authorities with this number.
pub fn authorities(n: u8) -> Authorities {
    let pair = |n: u8| KeyPair {
        public: certificate(n),
        private: Secret::new(format!("-----BEGIN PRIVATE KEY-----\nprivate-{n}\n-----END PRIVATE KEY-----\n")),
    };
    Authorities { cluster: pair(n), front_proxy: pair(n + 1), etcd: pair(n + 2), service_accounts: pair(n + 3) }
}

pub fn pin(n: u8) -> CaHash {
    crate::kubeadm::machine::ca_hash(certificate(n).as_bytes()).expect("a certificate")
}

/// Shared by all masters of a test, like KMS.
#[derive(Default)]
pub struct FakeVault {
    /// How often authorities were made.
    pub made: Cell<u8>,
    /// How often KMS was asked.
    pub asked: Cell<u32>,
    /// What KMS refuses with.
    pub kms: RefCell<Option<Failure>>,
    /// How the last passphrase was stretched.
    pub rounds: Cell<u32>,
}

/// FNV-1a, four times: SHA-256 without optimisation takes most of the tests' time.
fn tag(parts: &[&[u8]]) -> Vec<u8> {
    let mut lanes = [0xcbf2_9ce4_8422_2325_u64, 0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];
    let mut eat = |byte: u8| lanes.iter_mut().for_each(|l| *l = (*l ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    for part in parts {
        part.len().to_le_bytes().iter().chain(*part).for_each(|byte| eat(*byte));
    }
    lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect()
}

fn sealed(key: &[u8], bound: &[u8], plain: &[u8]) -> Vec<u8> {
    let hidden: Vec<u8> = plain.iter().map(|byte| byte ^ 0x55).collect();
    [tag(&[key, bound, &hidden]), hidden].concat()
}

fn opened(key: &[u8], bound: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (found, hidden) = sealed.split_at_checked(32)?;
    (found == tag(&[key, bound, hidden])).then(|| Zeroizing::new(hidden.iter().map(|byte| byte ^ 0x55).collect()))
}

impl FakeVault {
    fn ask(&self, request: &KmsRequest) -> Outcome<Vec<u8>> {
        self.asked.set(self.asked.get() + 1);
        let context = format!("{:?}", request.context).into_bytes();
        self.kms.borrow().clone().map_or(Ok(tag(&[request.key_id.as_bytes(), &context])), Err)
    }
}

#[async_trait(?Send)]
impl Vault for FakeVault {
    fn authorities(&self, _: KeyAlgorithm, _: Duration) -> Outcome<Authorities> {
        self.made.set(self.made.get() + 1);
        Ok(authorities(self.made.get() * 10))
    }
    fn client(&self, _: &KeyPair, _: &ClientRequest) -> Outcome<KeyPair> {
        Err(Failure::new(Cause::Internal, "make a client", "this test has none"))
    }
    fn seal(&self, key: &SealKey, bound: &[u8], plain: &[u8]) -> Outcome<Vec<u8>> {
        Ok(sealed(&key.0, bound, plain))
    }
    fn open(&self, key: &SealKey, bound: &[u8], sealed: &[u8]) -> Outcome<Option<Zeroizing<Vec<u8>>>> {
        Ok(opened(&key.0, bound, sealed))
    }
    fn stretch(&self, passphrase: &Secret, salt: &[u8], rounds: u32) -> Outcome<SealKey> {
        self.rounds.set(rounds);
        Ok(SealKey(Zeroizing::new(tag(&[passphrase.expose().as_bytes(), salt, &rounds.to_le_bytes()]))))
    }
    async fn data_key(&self, request: &KmsRequest) -> Outcome<DataKey> {
        let plain = vec![7; 32];
        let wrapped = sealed(&self.ask(request)?, b"", &plain);
        Ok(DataKey { plain: SealKey(Zeroizing::new(plain)), wrapped, key_id: request.key_id.clone() })
    }
    async fn unwrap_key(&self, request: &KmsRequest, wrapped: &[u8]) -> Outcome<SealKey> {
        let plain = opened(&self.ask(request)?, b"", wrapped);
        plain.map(SealKey).ok_or_else(|| Failure::new(Cause::PkiRejected, "unwrap", "InvalidCiphertextException"))
    }
}

/// The store and the vault that all masters share.
pub struct Site {
    pub lab: Lab,
    pub vault: Rc<FakeVault>,
}

/// One master.
pub struct Master {
    pub node: Node,
    pub disk: Rc<Disk>,
}

impl Site {
    pub fn new() -> Self {
        Site { lab: Lab::new(), vault: Rc::default() }
    }

    /// A master with the key file that all have.
    pub fn master(&self) -> Master {
        self.with(|settings| settings.pki = Some(PkiSettings::KeyFile(KEY_FILE.into())), None)
    }

    pub fn with(&self, change: impl FnOnce(&mut Settings), origin: Option<Origin>) -> Master {
        let disk = Rc::new(Disk::default());
        disk.put(KEY_FILE, format!("{}\n", STANDARD.encode([1; 32])), 0o600);
        let mut settings = testing::settings("role: master");
        change(&mut settings);
        let own = testing::identity("m1");
        let identity = Identity { origin: origin.unwrap_or(own.origin.clone()), ..own };
        let none = Rc::new(Ec2Says(Err(Failure::new(Cause::Internal, "call a port", "this test has none"))));
        let ports = Ports {
            objects: self.lab.objects.clone(),
            files: disk.clone(),
            jobs: none.clone(),
            metadata: none.clone(),
            cloud: none.clone(),
            cluster: none.clone(),
            vault: self.vault.clone(),
            etcd: Rc::new(crate::ports::Nobody),
            host: none,
            time: self.lab.time.clone(),
        };
        let world = World::new(ports, Rc::new(Open), Rc::new(Silent));
        Master { node: Node::new(Rc::new(settings), Rc::new(identity), world), disk }
    }

    /// The object as it lies in the store.
    pub fn object(&self) -> serde_json::Value {
        serde_json::from_slice(&self.lab.objects.body(OBJECT).expect("an object")).expect("JSON")
    }
}

impl Master {
    /// The register, held by this attempt.
    pub async fn held(&self, lab: &Lab, attempt: u128) -> Held {
        let store = Store::of(&self.node);
        match store.claim(&lab.recorded(attempt, UID), &holder("m1")).await.expect("claimed") {
            Claim::Held(held) => held,
            Claim::Lost => panic!("lost"),
        }
    }
}

/// An established register of this cluster.
pub fn established(uid: u128, ca: &CaHash) -> Register {
    let state = RegisterState::Established {
        attempt: Uuid::from_u128(1),
        ca_sha256: ca.clone(),
        created_by: holder("m1"),
        created_at: Timestamp::UNIX_EPOCH,
    };
    Register { schema: 1, cluster: "test".into(), uid: Uuid::from_u128(uid), state }
}

/// The key in a file.
pub fn key_file(byte: u8) -> String {
    STANDARD.encode([byte; 32])
}
