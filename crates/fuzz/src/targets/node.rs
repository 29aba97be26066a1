//! All at once: a world in which every file, every object and every answer is the same hostile bytes.

use super::{is_obeyed, is_readable};
use crate::world::{now, world};
use kubestrap_core::config::settings::{IdentitySource, NodeSettings};
use kubestrap_core::config::{Layer, load};
use kubestrap_core::engine::plan;
use kubestrap_core::identity::{Imds, bind_state, discover};
use kubestrap_core::model::identity::{Identity, Origin};
use kubestrap_core::node::Node;
use kubestrap_core::steps;
use kubestrap_core::store::Store;
use kubestrap_core::store::pki::SeenPki;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

const MACHINE: &str = "machine-0123456789abcdef0123456789abcdef";

/// Whatever it sees, `plan` says something about every step, the state of another machine is refused, and what is in
/// the store is never taken for an empty store.
pub(super) fn everything(bytes: &[u8]) {
    let world = world(bytes, 200);
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let named = NodeSettings { address: Some(address), ..NodeSettings::default() };
    let imds = Imds::new(world.metadata.clone(), world.time.clone());
    match now(discover(&world, &imds, IdentitySource::Host, &named)) {
        Err(failure) => is_readable(&failure),
        Ok(identity) => {
            let key = identity.key();
            assert!(!key.contains(|c: char| c == '/' || c.is_control() || c.is_whitespace()), "a path: {key:?}");
        }
    }
    match bind_state(&*world.files, MACHINE) {
        Err(failure) => is_readable(&failure),
        Ok(()) => assert!(String::from_utf8_lossy(bytes).contains("identity"), "another machine's state is taken"),
    }
    for role in ["role: worker", "role: master\ncontrol_plane_endpoint: api.example.com:6443"] {
        let text = format!("cluster: prod\nstore: s3://bucket/k8s\naddons: [/addon.yaml]\n{role}\n");
        let settings = load(vec![Layer::document("base.yaml", text)]).expect("settings").settings;
        let identity = Identity {
            origin: Origin::Host { machine_id: MACHINE.trim_start_matches("machine-").to_owned() },
            node_name: "m1".to_owned(),
            address,
            provider_id: None,
            labels: BTreeMap::new(),
        };
        let steps = steps::of(&settings);
        let node = Node::new(Rc::new(settings), Rc::new(identity), world.clone());
        let rows = now(plan(&node, &steps));
        assert_eq!(rows.len(), steps.len(), "a step is missing");
        for row in rows {
            assert!(!row.why.trim().is_empty() && !row.why.contains(is_obeyed), "{}: {:?}", row.step, row.why);
        }
        let store = Store::of(&node);
        is_readable(&now(store.refuse_traces(MACHINE, None)).expect_err("what is in the store does not count"));
        match now(store.pki()) {
            Err(failure) | Ok(Some(SeenPki { bundle: Err(failure), .. })) => is_readable(&failure),
            Ok(sealed) => assert!(sealed.is_some(), "there is no object where every key has one"),
        }
        match now(store.retirement()) {
            Err(failure) => is_readable(&failure),
            Ok(plan) => assert!(plan.is_some_and(|plan| !plan.keys.is_empty()), "there is nothing to retire"),
        }
    }
}
