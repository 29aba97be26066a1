//! `kubeadm reset --force`: it removes what any kubeadm made, whoever asked for it.

use super::{Next, Phase, Run};
use crate::universe::Universe;
use std::rc::Rc;
use std::time::Duration;

pub(super) const PHASES: &[Phase] =
    &[("stop", Duration::from_millis(400), stop), ("cleanup-node", Duration::from_millis(400), cleanup)];

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
