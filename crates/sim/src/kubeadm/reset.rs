//! `kubeadm reset --force`: it removes what any kubeadm made, whoever asked for it.

use super::{Next, Phase, Run};
use crate::universe::Universe;
use std::rc::Rc;
use std::time::Duration;

pub(super) const PHASES: &[Phase] = &[
    ("remove-etcd-member", Duration::from_millis(300), leave),
    ("stop", Duration::from_millis(400), stop),
    ("cleanup-node", Duration::from_millis(400), cleanup),
];

/// It removes the machine's own member where it can, and goes on where it cannot: a warning is all that is seen of it.
fn leave(universe: &Rc<Universe>, run: &Run) -> Next {
    let machine = run.machine;
    if let Some((number, id)) = universe.data_on(machine)
        && universe.api_on(machine) == Some(number)
    {
        universe.judge_member_removal(Some(machine), number, id);
        let _ = universe.remove_member(number, machine, id);
    }
    Next::Phase
}

fn stop(universe: &Rc<Universe>, run: &Run) -> Next {
    let mut state = universe.machines[run.machine].state.borrow_mut();
    state.disk.wipe("/etc/kubernetes/manifests");
    state.disk.wipe("/var/lib/etcd");
    Next::Phase
}

fn cleanup(universe: &Rc<Universe>, run: &Run) -> Next {
    let mut state = universe.machines[run.machine].state.borrow_mut();
    state.disk.wipe("/etc/kubernetes/pki");
    for name in ["admin", "super-admin", "kubelet", "bootstrap-kubelet", "controller-manager", "scheduler"] {
        state.disk.remove(format!("/etc/kubernetes/{name}.conf"));
    }
    state.disk.wipe("/var/lib/kubelet");
    Next::Phase
}
