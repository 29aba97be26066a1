//! Configuration: what a person, an image or user-data says.

use super::text;
use kubestrap_core::config::settings::Settings;
use kubestrap_core::config::user_data::{self, UserData};
use kubestrap_core::config::{Effective, Layer, Problem, environment, load};
use kubestrap_core::kubeadm::documents;
use kubestrap_core::model::identity::{Identity, Origin};
use kubestrap_core::model::names::{BootstrapToken, CaHash, Endpoint};
use kubestrap_core::model::version::KubeVersion;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// User-data after decompression, and the most parts that are read of it.
const MOST_TEXT: usize = 1024 * 1024;
const SECRET: &str = "0123456789abcdef";
const TOKEN: &str = "abcdef.0123456789abcdef";

/// Each problem has words, and a place unless it is about something that is missing everywhere.
fn are_readable(problems: &[Problem]) {
    assert!(!problems.is_empty(), "refused without a reason");
    for problem in problems {
        assert!(!problem.message.trim().is_empty(), "a problem without words");
        let placed = problem.place.as_ref().is_none_or(|place| !place.source.is_empty());
        assert!(placed, "a problem in a source without a name: {problem:?}");
    }
}

/// What is accepted can be shown, and a file with the same text gives the same settings again.
fn is_sound(layers: Vec<Layer>) -> Option<Settings> {
    match load(layers.clone()) {
        Err(problems) => {
            are_readable(&problems);
            None
        }
        Ok(Effective { settings, tree }) => {
            let effective = Effective { settings, tree };
            assert!(!effective.show().is_empty(), "accepted, and nothing to show");
            let again = load(layers).expect("accepted once");
            assert!(again == effective, "the same text gives other settings");
            is_told(&effective);
            Some(effective.settings)
        }
    }
}

/// What is in force, written down as one file, is the same configuration.
fn is_told(effective: &Effective) {
    for row in effective.show() {
        assert!(!row.path.contains(char::is_control) && !row.value.contains(char::is_control), "{row:?}");
    }
    let text = effective.tree.to_json().to_string();
    // JSON writes some of them as they are, and YAML has no place for them.
    if !text.contains(char::is_control) {
        let told = load(vec![Layer::document("told.yaml", text)]).unwrap_or_else(|problems| panic!("{problems:?}"));
        assert!(told.settings == effective.settings, "what is shown is not what is in force");
    }
}

fn ca() -> String {
    format!("sha256:{}", "01".repeat(32))
}

/// What kubestrap says itself about the cluster and the machine is not taken out or changed by a patch.
fn is_ours(documents: &[Value]) {
    for (kind, pointer, ours) in [
        ("InitConfiguration", "/apiVersion", "kubeadm.k8s.io/v1beta4"),
        ("InitConfiguration", "/nodeRegistration/name", "m1"),
        ("InitConfiguration", "/bootstrapTokens/0/ttl", "10m0s"),
        ("ClusterConfiguration", "/clusterName", "prod"),
        ("ClusterConfiguration", "/controlPlaneEndpoint", "api.example.com:6443"),
        ("ClusterConfiguration", "/kubernetesVersion", "v1.36.1"),
        ("JoinConfiguration", "/nodeRegistration/name", "m1"),
        ("JoinConfiguration", "/discovery/bootstrapToken/apiServerEndpoint", "api.example.com:6443"),
        ("JoinConfiguration", "/discovery/bootstrapToken/token", TOKEN),
        ("JoinConfiguration", "/discovery/bootstrapToken/caCertHashes/0", &ca()),
    ] {
        let of_kind = documents.iter().filter(|document| document.get("kind").is_some_and(|found| found == kind));
        for document in of_kind {
            let found = document.pointer(pointer).and_then(Value::as_str);
            assert_eq!(found, Some(ours), "a patch changed {kind}{pointer}");
        }
    }
}

pub(super) fn file(bytes: &[u8]) {
    is_sound(vec![Layer::document("fuzz.yaml", text(bytes))]);
}

pub(super) fn variable(bytes: &[u8]) {
    let all = text(bytes);
    let (name, value) = all.split_once('\n').unwrap_or((&all, ""));
    let base = Layer::document("base.yaml", "cluster: prod\nrole: worker\nstore: s3://bucket/k8s\n");
    let layers = environment::layers([(format!("KUBESTRAP_{name}"), value.to_owned())]);
    is_sound(std::iter::once(base).chain(layers).collect());
}

pub(super) fn user_data(bytes: &[u8]) {
    match user_data::read(bytes) {
        Err(problem) => are_readable(&[problem]),
        Ok(UserData::Empty) => assert!(bytes.trim_ascii().is_empty(), "called empty"),
        Ok(UserData::Other(what)) => assert!(!what.is_empty(), "somebody else's, without a word why"),
        Ok(UserData::Ours(layers)) => {
            assert!(layers.iter().all(|layer| layer.text.len() <= MOST_TEXT), "more text than is allowed");
            is_sound(layers);
        }
    }
}

/// Whatever the patches are, the documents are YAML that reads back as what was meant, and `plan` shows no token.
pub(super) fn kubeadm_patch(bytes: &[u8]) {
    let base = "cluster: prod\nrole: master\nstore: s3://bucket/k8s\ncontrol_plane_endpoint: api.example.com:6443\n";
    let layers = vec![Layer::document("base.yaml", base), Layer::document("fuzz.yaml", text(bytes))];
    let Some(settings) = is_sound(layers) else { return };
    let identity = Identity {
        origin: Origin::Host { machine_id: "0123456789abcdef0123456789abcdef".to_owned() },
        node_name: "m1".to_owned(),
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        provider_id: None,
        labels: BTreeMap::new(),
    };
    let version = KubeVersion::parse("v1.36.1").expect("a version");
    let token = BootstrapToken::parse(TOKEN).expect("a token");
    let endpoint = Endpoint::parse("api.example.com:6443").expect("an endpoint");
    let ca = CaHash::parse(&ca()).expect("a pin");
    let target = documents::JoinTarget { endpoint: &endpoint, ca: &ca, token: &token };
    for documents in [
        documents::init(&settings, &identity, &version, &token, None),
        documents::join(&settings, &identity, target, None),
    ] {
        is_ours(&documents);
        let Ok(yaml) = documents::render(&documents) else { continue };
        let back: Vec<Value> =
            serde_saphyr::from_multiple(&yaml).unwrap_or_else(|why| panic!("what we wrote is no YAML: {why}\n{yaml}"));
        assert_eq!(back, documents, "what is read is not what was written:\n{yaml}");
        let shown = documents::render(&documents::masked(&documents)).expect("masked documents are documents");
        assert!(!shown.contains(SECRET), "`plan` shows the token:\n{shown}");
    }
}
