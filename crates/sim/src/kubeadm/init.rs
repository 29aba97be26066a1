//! `kubeadm init`, phase by phase (kubeadm cmd/phases/init, v1.36): preflight, certs, kubeconfig, etcd and
//! control-plane, wait-control-plane, upload-config, bootstrap-token, addons.

use super::{Next, Phase, Run, ca, kubeconfig};
use crate::cluster::{API_MANIFEST, ETCD_DATA, Etcd, Token};
use crate::members::{self, Member, STATIC_PODS};
use crate::universe::Universe;
use jiff::SignedDuration;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(super) const PHASES: &[Phase] = &[
    ("preflight", ms(600), preflight),
    ("certs", ms(900), certs),
    ("kubeconfig", ms(300), kubeconfigs),
    ("control-plane", ms(400), control_plane),
    ("wait-control-plane", ms(1000), wait),
    ("upload-config", ms(500), register),
    ("bootstrap-token", ms(500), tokens),
    ("addon", ms(500), |_, _| Next::Phase),
];

/// kubeadm refuses what an earlier run left, even its own (kubeadm#2095).
fn preflight(universe: &Rc<Universe>, run: &Run) -> Next {
    let state = universe.machines[run.machine].state.borrow();
    if run.documents.is_empty() {
        return Next::Fail("[ERROR Config]: no documents".to_owned());
    }
    if state.disk.has(API_MANIFEST) {
        return Next::Fail(format!("[ERROR FileAvailable]: {API_MANIFEST} already exists"));
    }
    if state.disk.is_folder(Path::new("/var/lib/etcd")) {
        return Next::Fail("[ERROR DirAvailable--var-lib-etcd]: /var/lib/etcd is not empty".to_owned());
    }
    Next::Phase
}

/// Authorities that are there are used, as kubeadm does; otherwise new ones are made.
fn certs(universe: &Rc<Universe>, run: &Run) -> Next {
    let placed = universe.machines[run.machine].state.borrow().disk.text("/etc/kubernetes/pki/ca.crt");
    universe.judge_authorities(run.machine, placed.as_deref().and_then(ca::pin).as_ref());
    {
        let mut state = universe.machines[run.machine].state.borrow_mut();
        for name in ["ca", "front-proxy-ca", "etcd/ca"] {
            let path = |end: &str| format!("/etc/kubernetes/pki/{name}.{end}");
            if !state.disk.has(path("crt")) {
                let pem = ca::generate(&universe.rng);
                universe.learn_key(&ca::private_key(&pem));
                state.disk.put(path("key"), ca::private_key(&pem), 0o600);
                state.disk.put(path("crt"), pem, 0o644);
            }
        }
        if !state.disk.has("/etc/kubernetes/pki/sa.key") {
            state.disk.put("/etc/kubernetes/pki/sa.pub", "public", 0o644);
            state.disk.put("/etc/kubernetes/pki/sa.key", "private", 0o600);
        }
    }
    super::control_plane::leaves(universe, run.machine);
    Next::Phase
}

fn kubeconfigs(universe: &Rc<Universe>, run: &Run) -> Next {
    let mut state = universe.machines[run.machine].state.borrow_mut();
    let Some(pin) = state.disk.text("/etc/kubernetes/pki/ca.crt").and_then(|pem| ca::pin(&pem)) else {
        return Next::Fail("the CA certificate is unreadable".to_owned());
    };
    for (name, user) in [
        ("admin", "admin"),
        ("super-admin", "admin"),
        ("kubelet", "node"),
        ("controller-manager", "controller"),
        ("scheduler", "scheduler"),
    ] {
        state.disk.put(format!("/etc/kubernetes/{name}.conf"), kubeconfig(pin.as_str(), user), 0o600);
    }
    Next::Phase
}

fn control_plane(universe: &Rc<Universe>, run: &Run) -> Next {
    let mut state = universe.machines[run.machine].state.borrow_mut();
    let pem = |name: &str| state.disk.text(format!("/etc/kubernetes/pki/{name}.crt")).unwrap_or_default();
    let (ca_pem, etcd_ca) = (pem("ca"), pem("etcd/ca"));
    let Some(pin) = ca::pin(&ca_pem) else { return Next::Fail("the CA certificate is unreadable".to_owned()) };
    let mut etcds = universe.etcds.borrow_mut();
    let healthy_from = universe.timeline.now() + universe.rng.between(ms(1500), ms(4000));
    for name in STATIC_PODS {
        state.disk.put(format!("/etc/kubernetes/manifests/{name}.yaml"), "kind: Pod\n", 0o600);
    }
    state.disk.put("/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\n", 0o644);
    let id = universe.rng.next();
    state.disk.put(ETCD_DATA, members::data(etcds.len(), id), 0o600);
    let first = Member { id, machine: run.machine, learner: false, started: true, runs_from: healthy_from };
    etcds.push(Etcd {
        creator: run.machine,
        ca: pin,
        ca_pem,
        etcd_ca,
        healthy_from,
        members: vec![first],
        leader: id,
        pending: Vec::new(),
        mirrors: BTreeSet::new(),
        tokens: BTreeMap::new(),
        nodes: BTreeMap::new(),
        objects: Default::default(),
        pods: Vec::new(),
    });
    Next::Phase
}

fn wait(universe: &Rc<Universe>, run: &Run) -> Next {
    if universe.api_on(run.machine).is_some() {
        return Next::Phase;
    }
    // kubeadm's control-plane health timeout.
    if universe.timeline.now() > run.began + Duration::from_secs(240) {
        return Next::Fail("the API server did not become healthy".to_owned());
    }
    Next::Again(ms(500))
}

fn register(universe: &Rc<Universe>, run: &Run) -> Next {
    let Some(etcd) = universe.api_on(run.machine) else { return Next::Fail("connection refused".to_owned()) };
    let name = run.text("InitConfiguration", "/nodeRegistration/name");
    universe.etcds.borrow_mut()[etcd].nodes.insert(name, universe.timeline.now());
    Next::Phase
}

fn tokens(universe: &Rc<Universe>, run: &Run) -> Next {
    let Some(etcd) = universe.api_on(run.machine) else { return Next::Fail("connection refused".to_owned()) };
    let text = run.text("InitConfiguration", "/bootstrapTokens/0/token");
    let Some((id, secret)) = text.split_once('.') else { return Next::Phase };
    universe.learn_secret(secret);
    let ttl = run.text("InitConfiguration", "/bootstrapTokens/0/ttl");
    let minutes = ttl.split_once('m').and_then(|(minutes, _)| minutes.parse().ok()).unwrap_or(24 * 60);
    let token = Token {
        secret: secret.to_owned(),
        expires_at: universe.wall_of(run.machine) + SignedDuration::from_mins(minutes),
        made_at: universe.timeline.now(),
        description: None,
    };
    universe.etcds.borrow_mut()[etcd].tokens.insert(id.to_owned(), token);
    Next::Phase
}
