//! What must be installed and running on the machine.

use super::Check;
use kubestrap_core::journal::Journal;
use kubestrap_core::kubeadm::machine::Machine;
use kubestrap_core::kubeadm::tools;
use kubestrap_core::model::cause::Cause;
use kubestrap_core::model::version::kubelet_skew;
use kubestrap_core::node::Node;
use kubestrap_core::steps;

/// Tools, container runtime, and whose state the machine carries.
pub async fn checks(node: &Node) -> Vec<Check> {
    vec![tools(node).await, runtime(node).await, state(node)]
}

async fn tools(node: &Node) -> Check {
    const WHAT: &str = "kubeadm and kubelet";
    match tools::versions(node).await {
        Err(failure) => Check::failed(WHAT, &failure),
        Ok(tools) => match kubelet_skew(&tools.kubelet, &tools.kubeadm) {
            Some(why) => {
                Check::warning(WHAT, format!("{why}, judged by kubeadm's version"), "install matching versions")
            }
            None => Check::ok(WHAT, format!("kubeadm {}, kubelet {}", tools.kubeadm, tools.kubelet)),
        },
    }
}

/// By the same check that `run` makes first.
async fn runtime(node: &Node) -> Check {
    const WHAT: &str = "container runtime";
    let steps = steps::of(&node.settings);
    let Some(preflight) = steps.iter().find(|step| step.name() == "preflight") else {
        return Check::skipped(WHAT, "this role has no preflight");
    };
    match preflight.check(node).await {
        Ok(_) => Check::ok(WHAT, "its socket is there"),
        Err(failure) if failure.cause == Cause::RuntimeNotReady => Check::failed(WHAT, &failure),
        Err(failure) => Check::skipped(WHAT, format!("not asked: {}", failure.detail)),
    }
}

fn state(node: &Node) -> Check {
    const WHAT: &str = "Kubernetes state";
    let look = || {
        let attempt = Journal::new(node.world.files.clone(), node.world.time.clone()).attempt()?;
        let machine = Machine::look(&*node.world.files)?;
        machine.refuse_foreign(attempt.as_ref(), "use this machine")?;
        Ok(match (machine.is_clean(), machine.ca) {
            (true, _) => "none: the machine is clean".to_owned(),
            (false, Some(ca)) => format!("made by kubestrap, CA {ca}"),
            (false, None) => "made by kubestrap".to_owned(),
        })
    };
    Check::of(WHAT, look())
}
