//! `join-control-plane`: a master that did not make the cluster becomes part of its control plane.

use super::journal;
use crate::engine::{Step, Verdict};
use crate::join::control_plane::Joiner;
use crate::journal::{Attempt, AttemptKind};
use crate::kubeadm::machine::Machine;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use async_trait::async_trait;
use std::time::Duration;

/// Joins the control plane of a cluster that another master made.
#[derive(Default)]
pub struct JoinControlPlane {
    joiner: Joiner,
}

#[async_trait(?Send)]
impl Step for JoinControlPlane {
    fn name(&self) -> &'static str {
        "join-control-plane"
    }

    fn describe(&self) -> &'static str {
        "on a further master: await the turn, fetch the sealed PKI, tidy etcd's members, and run `kubeadm join`"
    }

    fn patience(&self, node: &Node) -> Duration {
        node.settings.join.api_wait
    }

    async fn check(&self, node: &Node) -> Outcome<Verdict> {
        state(journal(node).attempt()?.as_ref(), &Machine::look(&*node.world.files)?)
    }

    async fn apply(&self, node: &Node) -> Outcome<()> {
        self.joiner.join(node).await
    }
}

fn state(attempt: Option<&Attempt>, machine: &Machine) -> Outcome<Verdict> {
    let Some(attempt) = attempt.filter(|attempt| attempt.kind == AttemptKind::ControlPlane) else {
        return Ok(Verdict::Done("this machine makes the cluster, or made it".into()));
    };
    machine.refuse_foreign(Some(attempt), "join the control plane")?;
    match &attempt.joined {
        Some(ca) if machine.ca.as_ref() == Some(ca) && machine.admin_conf => {
            Ok(Verdict::Done(format!("joined the control plane of the cluster with CA {ca}")))
        }
        Some(ca) => {
            let has = machine.ca.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
            let why = format!("this machine joined the cluster with CA {ca}, but now carries CA {has}");
            Err(Failure::new(Cause::ForeignCluster, "join the control plane", why))
        }
        None if machine.is_clean() => Ok(Verdict::Wanted("this machine is not in the cluster yet".into())),
        None => Ok(Verdict::Wanted("an earlier `kubeadm join` has not been seen to its end".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::CaHash;
    use uuid::Uuid;

    #[test]
    fn a_further_master_joins_once_and_the_first_never() {
        let begun = |kind| Attempt::begun(Uuid::from_u128(1), kind, Uuid::from_u128(2), true);
        let ca = |byte| CaHash::from_digest(&[byte; 32]);
        let machine = |of: Option<u8>| Machine {
            traces: of.iter().map(|_| "/etc/kubernetes/admin.conf".to_owned()).collect(),
            ca: of.map(ca),
            kubelet_conf: of.is_some(),
            admin_conf: of.is_some(),
        };
        let joined = Attempt { joined: Some(ca(1)), ..begun(AttemptKind::ControlPlane) };
        assert!(matches!(state(None, &machine(None)), Ok(Verdict::Done(_))));
        assert!(matches!(state(Some(&begun(AttemptKind::Init)), &machine(Some(1))), Ok(Verdict::Done(_))));
        for on in [None, Some(1)] {
            let verdict = state(Some(&begun(AttemptKind::ControlPlane)), &machine(on));
            assert!(matches!(verdict, Ok(Verdict::Wanted(_))), "{verdict:?}");
        }
        assert!(matches!(state(Some(&joined), &machine(Some(1))), Ok(Verdict::Done(_))));
        for other in [None, Some(2)] {
            assert_eq!(state(Some(&joined), &machine(other)).expect_err("refused").cause, Cause::ForeignCluster);
        }
        let dirty = Attempt { machine_was_clean: false, ..begun(AttemptKind::ControlPlane) };
        assert_eq!(state(Some(&dirty), &machine(Some(1))).expect_err("refused").cause, Cause::ForeignState);
    }
}
