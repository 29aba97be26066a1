//! `kubeadm join` of a further control plane, phase by phase (kubeadm cmd/phases/join, v1.36 with
//! ControlPlaneKubeletLocalMode): preflight, discovery, control-plane-prepare, check-etcd, kubelet-start, etcd-join (a
//! learner is added, starts, is promoted), kubelet-wait-bootstrap, control-plane-join, wait-control-plane.

use super::{Next, Phase, Run, ca, join, kubeconfig};
use crate::cluster::{API_MANIFEST, ETCD_DATA, ETCD_MANIFEST};
use crate::members::{self, Refusal, STATIC_PODS};
use crate::universe::Universe;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const PKI: &str = "/etc/kubernetes/pki";
/// What must have been placed beforehand (kubeadm app/phases/copycerts, SharedCertificateExists).
const SHARED: &[&str] =
    &["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "etcd/ca.crt", "etcd/ca.key", "sa.pub", "sa.key"];
/// kubeadm tries a call of etcd this long (EtcdAPICallTimeout), twice with the check before.
const ETCD_CALLS: Duration = Duration::from_secs(240);
/// Endpoints of masters that are gone are tried in vain, when their pods are still listed (kubeadm#2071; measured: 146 s
/// instead of 30).
const STALE_ENDPOINTS: Duration = Duration::from_secs(116);
/// constants.go ControlPlaneComponentHealthCheckTimeout.
const HEALTH: Duration = Duration::from_secs(240);

pub(super) const PHASES: &[Phase] = &[
    ("preflight", ms(500), preflight),
    ("discovery", ms(200), join::discover),
    ("control-plane-prepare", ms(900), prepare),
    ("check-etcd", ms(300), check_etcd),
    ("kubelet-start", ms(300), join::start_kubelet),
    ("etcd-join", ms(500), add),
    ("etcd-join/start", ms(500), start),
    ("etcd-join/promote", ms(1500), promote),
    ("kubelet-wait-bootstrap", ms(700), bootstrap),
    ("control-plane-join", ms(500), mark),
    ("wait-control-plane", ms(1500), wait),
];

fn preflight(universe: &Rc<Universe>, run: &Run) -> Next {
    let state = universe.machines[run.machine].state.borrow();
    for path in ["/etc/kubernetes/kubelet.conf", "/etc/kubernetes/bootstrap-kubelet.conf", API_MANIFEST, ETCD_MANIFEST]
    {
        if state.disk.has(path) {
            return Next::Fail(format!("[ERROR FileAvailable]: {path} already exists"));
        }
    }
    if state.disk.is_folder(Path::new("/var/lib/etcd")) {
        return Next::Fail("[ERROR DirAvailable--var-lib-etcd]: /var/lib/etcd is not empty".to_owned());
    }
    match SHARED.iter().find(|name| !state.disk.has(format!("{PKI}/{name}"))) {
        Some(missing) => Next::Fail(format!(
            "failure loading certificate: couldn't load the certificate file {PKI}/{missing}: no such file or directory"
        )),
        None => Next::Phase,
    }
}

/// The certificates that the machine's own authorities sign for it.
pub(super) fn leaves(universe: &Rc<Universe>, machine: usize) {
    let mut state = universe.machines[machine].state.borrow_mut();
    let authority = |state: &crate::machine::State, name: &str| state.disk.text(format!("{PKI}/{name}.crt"));
    let (Some(cluster), Some(etcd)) = (authority(&state, "ca"), authority(&state, "etcd/ca")) else { return };
    for (authority, name, group, user) in [
        (&cluster, "apiserver", "", "kube-apiserver"),
        (&cluster, "apiserver-kubelet-client", "kubeadm:cluster-admins", "kubelet-client"),
        (&etcd, "apiserver-etcd-client", "", "etcd-client"),
        (&etcd, "etcd/server", "", "server"),
        (&etcd, "etcd/peer", "", "peer"),
        (&etcd, "etcd/healthcheck-client", "", "healthcheck"),
    ] {
        let certificate = ca::leaf(authority, group, user);
        state.disk.put(format!("{PKI}/{name}.key"), ca::private_key(&certificate), 0o600);
        state.disk.put(format!("{PKI}/{name}.crt"), certificate, 0o644);
    }
}

/// Certificates, kubeconfigs and the manifests of everything but etcd. The authorities must be the cluster's.
fn prepare(universe: &Rc<Universe>, run: &Run) -> Next {
    let Some(etcd) = universe.api_behind_endpoint(run.machine) else {
        return Next::Fail("connection refused".to_owned());
    };
    let placed = universe.machines[run.machine].state.borrow().disk.text(format!("{PKI}/ca.crt"));
    let pin = placed.as_deref().and_then(ca::pin);
    if pin.as_ref() != Some(&universe.etcds.borrow()[etcd].ca) {
        universe.violate(1, format!("{} joins with another CA: {pin:?}", universe.machines[run.machine].name));
        return Next::Fail("x509: certificate signed by unknown authority".to_owned());
    }
    let pin = pin.map(|pin| pin.to_string()).unwrap_or_default();
    leaves(universe, run.machine);
    let mut state = universe.machines[run.machine].state.borrow_mut();
    for (name, user) in [("admin", "admin"), ("controller-manager", "controller"), ("scheduler", "scheduler")] {
        state.disk.put(format!("/etc/kubernetes/{name}.conf"), kubeconfig(&pin, user), 0o600);
    }
    for name in STATIC_PODS.iter().filter(|name| **name != "etcd") {
        state.disk.put(format!("/etc/kubernetes/manifests/{name}.yaml"), "kind: Pod\n", 0o600);
    }
    Next::Phase
}

/// The cluster and the machine whose member is asked: any that has an API server.
fn cluster_of(universe: &Universe, machine: usize) -> Option<(usize, usize)> {
    let number = universe.api_behind_endpoint(machine)?;
    let asked = (0..universe.machines.len()).find(|other| universe.api_at(machine, *other) == Some(number))?;
    Some((number, asked))
}

/// Every member must answer, the dead ones too; and pods of masters that are gone name endpoints that nobody answers at.
fn check_etcd(universe: &Rc<Universe>, run: &Run) -> Next {
    let late = universe.timeline.now() > run.began + ETCD_CALLS;
    let Some((number, asked)) = cluster_of(universe, run.machine) else {
        return if late { Next::Fail("context deadline exceeded".to_owned()) } else { Next::Again(ms(5000)) };
    };
    universe.tend_members(number);
    let etcds = universe.etcds.borrow();
    let etcd = &etcds[number];
    let (seen, all) = universe.votes(number, etcd, asked);
    if seen < all {
        universe.count("join-with-dead-member");
        let why = "etcd cluster is not healthy: failed to dial endpoint: context deadline exceeded".to_owned();
        return if late { Next::Fail(why) } else { Next::Again(ms(5000)) };
    }
    let of_nobody = |pod: &&String| {
        !etcd.members.iter().any(|member| pod.ends_with(&universe.machines[member.machine].identity.node_name))
    };
    if etcd.mirrors.iter().any(|pod| of_nobody(&pod)) && universe.timeline.now() < run.began + STALE_ENDPOINTS {
        universe.count("join-with-stale-endpoints");
        return Next::Again(STALE_ENDPOINTS);
    }
    Next::Phase
}

fn again_or(universe: &Universe, run: &Run, Refusal(_, why): Refusal) -> Next {
    let late = universe.timeline.now() > run.began + ETCD_CALLS;
    if late { Next::Fail(why.to_owned()) } else { Next::Again(ms(2000)) }
}

/// `MemberAdd` of a learner; one of the same address that is listed is used as it is.
fn add(universe: &Rc<Universe>, run: &Run) -> Next {
    let Some((number, asked)) = cluster_of(universe, run.machine) else {
        return again_or(universe, run, members::TIMED_OUT);
    };
    universe.judge_member_addition(run.machine, number);
    if universe.etcds.borrow()[number].member_of(run.machine).is_some() {
        return Next::Phase;
    }
    match universe.add_learner(number, asked, run.machine) {
        Ok(_) => Next::Phase,
        Err(refusal) => again_or(universe, run, refusal),
    }
}

/// The manifest is written, and the kubelet starts the member, which copies the data.
fn start(universe: &Rc<Universe>, run: &Run) -> Next {
    let Some((number, _)) = cluster_of(universe, run.machine) else {
        return again_or(universe, run, members::TIMED_OUT);
    };
    let runs_from = universe.timeline.now() + universe.rng.between(ms(800), ms(4000));
    let mut etcds = universe.etcds.borrow_mut();
    let Some(member) = etcds[number].members.iter_mut().find(|member| member.machine == run.machine) else {
        return Next::Fail("member count is unequal".to_owned());
    };
    member.runs_from = runs_from;
    let mut state = universe.machines[run.machine].state.borrow_mut();
    state.disk.put(ETCD_DATA, members::data(number, member.id), 0o600);
    state.disk.put(ETCD_MANIFEST, "kind: Pod\n", 0o600);
    Next::Phase
}

fn promote(universe: &Rc<Universe>, run: &Run) -> Next {
    let Some((number, asked)) = cluster_of(universe, run.machine) else {
        return again_or(universe, run, members::TIMED_OUT);
    };
    let member = universe.etcds.borrow()[number].member_of(run.machine).map(|member| (member.id, member.learner));
    let Some((id, learner)) = member else { return Next::Fail(members::NOT_FOUND.1.to_owned()) };
    match if learner { universe.promote(number, asked, id) } else { Ok(()) } {
        Ok(()) => {
            universe.count("control-planes-joined");
            Next::Phase
        }
        Err(refusal) => again_or(universe, run, refusal),
    }
}

/// As a worker's, but with its own API server, which answers by now.
fn bootstrap(universe: &Rc<Universe>, run: &Run) -> Next {
    join::bootstrap(universe, run)
}

/// The Node's label and taint: the Node must be there.
fn mark(universe: &Rc<Universe>, run: &Run) -> Next {
    let late = universe.timeline.now() > run.began + HEALTH;
    let name = run.text("JoinConfiguration", "/nodeRegistration/name");
    let registered = universe.api_behind_endpoint(run.machine).is_some_and(|etcd| universe.is_registered(etcd, &name));
    match registered {
        true => Next::Phase,
        false if late => Next::Fail(format!("nodes {name:?} not found")),
        false => Next::Again(ms(500)),
    }
}

fn wait(universe: &Rc<Universe>, run: &Run) -> Next {
    if universe.api_on(run.machine).is_some() {
        return Next::Phase;
    }
    if universe.timeline.now() > run.began + HEALTH {
        return Next::Fail("the API server did not become healthy".to_owned());
    }
    Next::Again(ms(500))
}
