//! What lies in the bucket: nothing of it is trusted.

use super::{is_readable, text};
use crate::world::{now, world};
use jiff::Timestamp;
use kubestrap_core::model::names::{BootstrapToken, CaHash, ClusterName, Endpoint};
use kubestrap_core::model::register::Register;
use kubestrap_core::model::version::KubeVersion;
use kubestrap_core::store::Store;
use kubestrap_core::store::bundle::{Expectation, verify};
use std::time::Duration;

fn cluster() -> ClusterName {
    ClusterName::parse("prod").expect("a name")
}

fn store(bytes: &[u8]) -> Store {
    let world = world(bytes, 200);
    Store::new(world.objects.clone(), world.time.clone(), cluster())
}

/// What is accepted is written and read back as the same.
pub(super) fn register(bytes: &[u8]) {
    match now(store(bytes).register()) {
        Err(failure) => is_readable(&failure),
        Ok(None) => panic!("there is an object"),
        Ok(Some(seen)) => {
            let written = serde_json::to_vec(&seen.register).expect("a register is JSON");
            let back: Register = serde_json::from_slice(&written).expect("what we write we can read");
            assert_eq!(back, seen.register);
        }
    }
}

/// Syntax that cannot be an option, a path or two lines, whatever reads it next.
fn is_plain(what: &str, value: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:-+[]_".contains(c);
    assert!(!value.is_empty() && !value.starts_with('-') && value.chars().all(plain), "{what}: {value:?}");
}

pub(super) fn bundle(bytes: &[u8]) {
    let expect = Expectation {
        cluster: cluster(),
        uid: None,
        ca: None,
        ca_pin: None,
        now: Timestamp::from_second(1_795_219_200).expect("a time"),
        min_life: Duration::from_secs(60),
        newest: None,
    };
    match verify(bytes, &expect) {
        Err(failure) => is_readable(&failure),
        Ok(verified) => {
            let bundle = verified.bundle();
            assert_eq!(bundle.cluster, "prod", "another cluster's");
            is_plain("endpoint", bundle.endpoint.as_str());
            is_plain("CA", bundle.ca_sha256.as_str());
            is_plain("version", &bundle.server_version.to_string());
            is_plain("token", bundle.token.expose().expose());
            assert!(bundle.expires_at > expect.now && bundle.issued_at < bundle.expires_at, "times");
            let one_line = bundle.publisher.chars().all(|c| !c.is_control());
            assert!(one_line, "publisher: {:?}", bundle.publisher);
        }
    }
}

pub(super) fn report(bytes: &[u8]) {
    let entries = now(store(bytes).reports()).expect("the list was answered");
    assert!(entries.len() <= 1, "one object, {} reports", entries.len());
    for entry in entries {
        match entry.report {
            Err(failure) => is_readable(&failure),
            Ok(report) => {
                let written = serde_json::to_string(&report).expect("a report is JSON");
                let back = serde_json::from_str(&written).expect("what we write we can read");
                assert_eq!(report, back);
            }
        }
    }
}

pub(super) fn names(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(endpoint) = Endpoint::parse(&text) {
        is_plain("endpoint", endpoint.as_str());
        assert!(endpoint.port() > 0 && !endpoint.host().is_empty(), "{endpoint}");
    }
    if let Ok(hash) = CaHash::parse(&text) {
        is_plain("CA", hash.as_str());
        assert_eq!(hash.as_str().len(), "sha256:".len() + 64);
    }
    if let Ok(token) = BootstrapToken::parse(&text) {
        assert_eq!(token.expose().expose(), text, "a token is taken as it stands");
        assert_eq!((token.id().len(), token.secret().expose().len()), (6, 16));
    }
    if let Ok(name) = ClusterName::parse(&text) {
        is_plain("cluster", name.as_str());
        assert!(name.as_str().len() <= 63 && !name.as_str().contains('.'), "it is part of keys: {name}");
    }
    if let Ok(version) = KubeVersion::parse(&text) {
        is_plain("version", &version.to_string());
        assert_eq!(KubeVersion::parse(&version.to_string()), Ok(version));
    }
    let _ = KubeVersion::find(&text);
}
