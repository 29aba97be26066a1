//! `kubeadm reset`, only with a proof that what it destroys is ours.
//!
//! `kubeadm reset -f` empties /var/lib/etcd even where kubeadm never ran, so it is the most dangerous command we run.

use super::machine::{BOOTSTRAP_CONF, Machine};
use super::run;
use crate::etcd::OutOfEtcd;
use crate::journal::{Attempt, AttemptKind, Entry, Journal};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use std::path::Path;
use std::time::Duration;

/// It takes 0.4 s on an idle machine (measured); stopping pods of a loaded one can take a minute or two.
const RESET_DEADLINE: Duration = Duration::from_secs(300);

/// A proof that the Kubernetes state on this machine was made by the attempt in our journal, on a machine that was
/// clean before, and that no commit of it was ever sent.
#[derive(Debug)]
pub struct ResetProof {
    run: String,
    /// The attempt is over with it: an operator starts anew.
    abandons: bool,
}

impl ResetProof {
    /// The proof, or the refusal that says what it lacks (safety rule 5).
    pub fn from_journal(attempt: Option<&Attempt>, machine: &Machine) -> Outcome<ResetProof> {
        let refuse = |why: &str| {
            let ca = machine.ca.as_ref().map_or_else(|| "no CA".to_owned(), ToString::to_string);
            Err(Failure::new(Cause::ForeignState, "reset this machine", format!("{why} (machine: {ca})")))
        };
        match attempt {
            None => refuse("there is no journal of an attempt, so what it carries is not ours"),
            Some(attempt) if !attempt.machine_was_clean => refuse("it carried Kubernetes state before our attempt"),
            Some(attempt) if attempt.commit_attempted => {
                refuse("a commit of this cluster was sent, so it may be established")
            }
            Some(attempt) if attempt.completed => refuse("it is a node that was completed"),
            Some(attempt) if attempt.kind == AttemptKind::ControlPlane => {
                refuse("it was joining a control plane, so etcd may count on its member")
            }
            Some(attempt) => Ok(ResetProof { run: attempt.id.to_string(), abandons: false }),
        }
    }

    /// The proof for a further master whose join did not come to its end: besides, etcd does not count on it.
    pub fn half_joined(attempt: &Attempt, machine: &Machine, _out: &OutOfEtcd) -> Outcome<ResetProof> {
        let joining = Attempt { kind: AttemptKind::Join, ..attempt.clone() };
        if attempt.joined.is_some() {
            let why = "it is a master that has joined";
            return Err(Failure::new(Cause::ForeignState, "reset this machine", why));
        }
        ResetProof::from_journal(Some(&joining), machine)
    }

    /// The proof for an operator who has confirmed it: also for a node that was completed or committed. What was on the
    /// machine before kubestrap is refused all the same.
    pub fn by_operator(attempt: Option<&Attempt>, machine: &Machine) -> Outcome<ResetProof> {
        let kind = |kind| if kind == AttemptKind::ControlPlane { AttemptKind::Join } else { kind };
        let unfinished =
            attempt.cloned().map(|a| Attempt { kind: kind(a.kind), commit_attempted: false, completed: false, ..a });
        Ok(ResetProof { abandons: true, ..ResetProof::from_journal(unfinished.as_ref(), machine)? })
    }
}

/// Resets the machine and notes it; killed half-way, the next attempt resets again.
///
/// `--cleanup-tmp-dir` is not given: kubeadm then leaves `/etc/kubernetes/tmp`, which holds no credentials of ours.
pub async fn reset(node: &Node, proof: ResetProof) -> Outcome<()> {
    let journal = Journal::new(node.world.files.clone(), node.world.time.clone());
    journal.note(Entry::ResetBegan)?;
    node.tell(&crate::node::Event::Note("resetting what kubestrap's own attempt left on this machine"));
    let root_flags = super::documents::root_flags(node);
    let mut argv = vec!["kubeadm", "reset", "--force"];
    argv.extend(root_flags.iter().map(String::as_str));
    run::start_and_wait(node, "reset", &proof.run, &argv, RESET_DEADLINE).await?;
    // kubeadm reset removes it too; a join that was given up must not leave a token, whatever kubeadm did.
    node.world.files.remove(Path::new(BOOTSTRAP_CONF))?;
    node.world.jobs.forget(&run::job_name("init")).await?;
    node.world.jobs.forget(&run::job_name("join")).await?;
    node.world.jobs.forget(&run::job_name("reset")).await?;
    let machine = Machine::look(&*node.world.files)?;
    if !machine.is_clean() {
        let left = machine.traces.join(", ");
        return Err(Failure::new(Cause::ToolFailed, "reset this machine", format!("`kubeadm reset` left {left}")));
    }
    journal.note(if proof.abandons { Entry::Abandoned } else { Entry::ResetDone })
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn attempt() -> Attempt {
        Attempt::begun(Uuid::from_u128(1), AttemptKind::Init, Uuid::from_u128(2), true)
    }

    #[test]
    fn only_a_clean_uncommitted_attempt_of_ours_may_be_reset() {
        let machine = Machine { traces: vec!["x".into()], ca: None, kubelet_conf: true, admin_conf: true };
        assert!(ResetProof::from_journal(Some(&attempt()), &machine).is_ok());
        let refused = [
            None,
            Some(Attempt { machine_was_clean: false, ..attempt() }),
            Some(Attempt { commit_attempted: true, ..attempt() }),
            Some(Attempt { completed: true, ..attempt() }),
        ];
        for case in &refused {
            let failure = ResetProof::from_journal(case.as_ref(), &machine).expect_err("refused");
            assert_eq!(failure.cause, Cause::ForeignState);
        }
        // etcd may count on a master that was joining, until somebody has looked.
        let joining = Attempt { kind: AttemptKind::ControlPlane, ..attempt() };
        let joined = Attempt { joined: Some(crate::model::names::CaHash::from_digest(&[1; 32])), ..joining.clone() };
        assert!(ResetProof::from_journal(Some(&joining), &machine).is_err());
        let out = OutOfEtcd::for_test();
        assert!(ResetProof::half_joined(&joining, &machine, &out).is_ok());
        assert!(ResetProof::half_joined(&joined, &machine, &out).is_err());
        let dirty = Attempt { machine_was_clean: false, ..joining.clone() };
        assert!(ResetProof::half_joined(&dirty, &machine, &out).is_err());
        assert!(ResetProof::by_operator(Some(&joined), &machine).is_ok());
        // An operator's word covers our own finished work, and nothing that was there before.
        assert!(ResetProof::by_operator(refused[3].as_ref(), &machine).is_ok());
        assert!(ResetProof::by_operator(refused[1].as_ref(), &machine).is_err());
        assert!(ResetProof::by_operator(None, &machine).is_err());
    }
}
