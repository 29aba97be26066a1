//! What servers answer.

use super::{is_readable, text};
use crate::world::{now, world};
use kubestrap_core::config::settings::{IdentitySource, NodeSettings};
use kubestrap_core::identity::{Imds, discover};
use kubestrap_core::kube::Api;
use kubestrap_core::kube::apply::{in_order, parse_manifest};
use kubestrap_core::model::names::BootstrapToken;

/// The first byte is the status of the answers, the rest is every answer.
pub(super) fn imds(bytes: &[u8]) {
    let (status, body) = status(bytes);
    let world = world(body, status);
    let imds = Imds::new(world.metadata.clone(), world.time.clone());
    match now(discover(&world, &imds, IdentitySource::Ec2, &NodeSettings::default())) {
        Err(failure) => is_readable(&failure),
        Ok(identity) => {
            assert!(!identity.key().chars().any(|c| c.is_control() || c.is_whitespace()), "{:?}", identity.key());
            assert!(!identity.key().contains(".."), "it is part of a key: {:?}", identity.key());
            let ec2 = identity.ec2().expect("an instance");
            let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            assert!(plain(&ec2.region), "endpoints are made of the region: {:?}", ec2.region);
            assert!(plain(&ec2.instance_id), "{:?}", ec2.instance_id);
        }
    }
    for failure in [now(imds.tags()).err(), now(imds.user_data()).err()].into_iter().flatten() {
        is_readable(&failure);
    }
}

pub(super) fn api(bytes: &[u8]) {
    let (status, body) = status(bytes);
    let world = world(body, status);
    let api = Api::admin(&world.cluster);
    let token = BootstrapToken::parse("abcdef.0123456789abcdef").expect("a token");
    let failures = [
        now(api.version()).err(),
        now(api.is_ready()).err(),
        now(api.node("m1")).err(),
        now(api.token_exists(&token)).err(),
        now(api.token_is_signed(&token)).err(),
        now(api.own_tokens()).err(),
    ];
    for failure in failures.into_iter().flatten() {
        is_readable(&failure);
        assert!(!failure.to_string().contains("0123456789abcdef"), "an error shows the token: {failure}");
    }
}

fn status(bytes: &[u8]) -> (u16, &[u8]) {
    let statuses = [200, 200, 200, 404, 500, 403, 301, 204];
    match bytes.split_first() {
        Some((first, rest)) => (statuses[usize::from(*first) % statuses.len()], rest),
        None => (200, bytes),
    }
}

pub(super) fn manifest(bytes: &[u8]) {
    match parse_manifest("fuzz.yaml", &text(bytes)) {
        Err(failure) => is_readable(&failure),
        Ok(manifests) => {
            let count = manifests.len();
            let ordered = in_order(manifests);
            assert_eq!(ordered.len(), count, "an object was lost");
            assert!(ordered.iter().all(|manifest| !manifest.title().is_empty()), "an object without a title");
        }
    }
}
