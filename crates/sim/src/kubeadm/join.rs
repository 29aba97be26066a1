//! `kubeadm join` of a worker, phase by phase: preflight, discovery by token and CA hash, kubelet-start with TLS
//! bootstrap; afterwards the kubelet registers the node.

use super::{Next, Phase, Run, kubeconfig};
use crate::universe::Universe;
use kubestrap_core::model::names::BootstrapToken;
use serde_json::Value;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const KIND: &str = "JoinConfiguration";
const BOOTSTRAP: &str = "/discovery/bootstrapToken";
/// `timeouts.discovery` when the document does not say (kubeadm constants.go).
const DISCOVERY: Duration = Duration::from_secs(300);

pub(super) const PHASES: &[Phase] = &[
    ("preflight", ms(500), preflight),
    ("discovery", ms(200), discover),
    ("kubelet-start", ms(300), start_kubelet),
    ("tls-bootstrap", ms(700), bootstrap),
];

fn preflight(universe: &Rc<Universe>, run: &Run) -> Next {
    let state = universe.machines[run.machine].state.borrow();
    if run.documents.is_empty() {
        return Next::Fail("[ERROR Config]: no documents".to_owned());
    }
    for path in ["/etc/kubernetes/kubelet.conf", "/etc/kubernetes/bootstrap-kubelet.conf", "/etc/kubernetes/pki/ca.crt"]
    {
        if state.disk.has(path) {
            return Next::Fail(format!("[ERROR FileAvailable]: {path} already exists"));
        }
    }
    if state.disk.is_folder(Path::new("/etc/kubernetes/manifests")) {
        return Next::Fail("[ERROR DirAvailable]: /etc/kubernetes/manifests is not empty".to_owned());
    }
    Next::Phase
}

fn token(run: &Run) -> Option<BootstrapToken> {
    BootstrapToken::parse(&run.text(KIND, &format!("{BOOTSTRAP}/token"))).ok()
}

fn discovery_timeout(run: &Run) -> Duration {
    let text = run.text(KIND, "/timeouts/discovery");
    text.split_once('m').and_then(|(m, _)| m.parse().ok()).map_or(DISCOVERY, |m: u64| Duration::from_secs(60 * m))
}

pub(super) fn discover(universe: &Rc<Universe>, run: &Run) -> Next {
    let Some(token) = token(run) else { return Next::Fail("the token is malformed".to_owned()) };
    let endpoint = run.text(KIND, &format!("{BOOTSTRAP}/apiServerEndpoint"));
    if endpoint != crate::cluster::ENDPOINT {
        return Next::Fail(format!("dial tcp: lookup {endpoint}: no such host"));
    }
    let late = universe.timeline.now() > run.began + discovery_timeout(run);
    let Some(etcd) = universe.api_behind_endpoint(run.machine) else {
        universe.count("api-away-in-join");
        return if late { Next::Fail("connection refused".to_owned()) } else { Next::Again(ms(5000)) };
    };
    if !universe.is_signed(etcd, token.id()) {
        let why = format!("could not find a JWS signature in the cluster-info ConfigMap for token ID {:?}", token.id());
        return if late { Next::Fail(why) } else { Next::Again(ms(5000)) };
    }
    let hashes = run.value(KIND, &format!("{BOOTSTRAP}/caCertHashes"));
    let pinned = hashes.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let ca = universe.etcds.borrow()[etcd].ca.clone();
    if !pinned.iter().any(|pin| pin.as_str() == Some(ca.as_str())) {
        return Next::Fail(
            "cluster CA found in cluster-info ConfigMap is invalid: none of the public keys match".to_owned(),
        );
    }
    Next::Phase
}

pub(super) fn start_kubelet(universe: &Rc<Universe>, run: &Run) -> Next {
    let (Some(etcd), Some(token)) = (universe.api_behind_endpoint(run.machine), token(run)) else {
        return Next::Fail("connection refused".to_owned());
    };
    let ca_pem = universe.etcds.borrow()[etcd].ca_pem.clone();
    let mut state = universe.machines[run.machine].state.borrow_mut();
    state.disk.put("/etc/kubernetes/bootstrap-kubelet.conf", format!("token: {}\n", token.expose().expose()), 0o600);
    state.disk.put("/etc/kubernetes/pki/ca.crt", ca_pem, 0o644);
    state.disk.put("/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\n", 0o644);
    Next::Phase
}

/// A token that died in between is 401 here, as the API server answers it.
pub(super) fn bootstrap(universe: &Rc<Universe>, run: &Run) -> Next {
    let Some(token) = token(run) else { return Next::Fail("the token is malformed".to_owned()) };
    let Some(etcd) = universe.api_behind_endpoint(run.machine) else {
        universe.count("api-away-in-join");
        // kubeadm constants.go TLSBootstrapTimeout
        let late = universe.timeline.now() > run.began + Duration::from_secs(300);
        return if late { Next::Fail("context deadline exceeded".to_owned()) } else { Next::Again(ms(5000)) };
    };
    if universe.token(etcd, token.id()).is_none_or(|known| known.secret != token.secret().expose()) {
        return Next::Fail(format!("Unauthorized (token {})", token.expose().expose()));
    }
    let ca = universe.etcds.borrow()[etcd].ca.clone();
    {
        let mut state = universe.machines[run.machine].state.borrow_mut();
        state.disk.put("/etc/kubernetes/kubelet.conf", kubeconfig(ca.as_str(), "node"), 0o600);
        state.disk.remove("/etc/kubernetes/bootstrap-kubelet.conf");
    }
    register_soon(universe.clone(), run.machine, run.text(KIND, "/nodeRegistration/name"));
    Next::Phase
}

/// The kubelet registers its node, now or whenever the API server answers, for as long as it has credentials.
pub(super) fn register_soon(universe: Rc<Universe>, machine: usize, name: String) {
    let delay = universe.rng.between(ms(300), ms(3000));
    universe.clone().timeline.after(delay, move || {
        let conf = universe.machines[machine].state.borrow().disk.text("/etc/kubernetes/kubelet.conf");
        let Some((ca, _)) = conf.and_then(|text| super::read_kubeconfig(&text)) else { return };
        if universe.machines[machine].is_dead() {
            return;
        }
        let etcd = universe.machines[machine].is_on().then(|| universe.api_behind_endpoint(machine)).flatten();
        match etcd.filter(|etcd| universe.etcds.borrow()[*etcd].ca.as_str() == ca) {
            Some(etcd) => {
                universe.note(machine, format_args!("is registered as {name}"));
                universe.etcds.borrow_mut()[etcd].nodes.insert(name, universe.timeline.now());
            }
            None => {
                let world = universe.clone();
                universe.timeline.after(Duration::from_secs(10), move || register_soon(world, machine, name));
            }
        }
    });
}
