//! `join-cluster`: waits for a bundle, checks it, and runs `kubeadm join`. One step, because what was checked must be
//! what is used.

use super::journal;
use crate::ecr::wiring;
use crate::engine::{Step, Verdict};
use crate::join::check_skew;
use crate::join::wait::{Memory, usable_bundle};
use crate::journal::{Attempt, AttemptKind, Entry};
use crate::kube::Api;
use crate::kubeadm::documents::{self, JoinTarget};
use crate::kubeadm::machine::{BOOTSTRAP_CONF, Machine};
use crate::kubeadm::reset::{self, ResetProof};
use crate::kubeadm::run::{self, Documented, Ended};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use crate::ports::{JobEnd, JobState};
use crate::store::bundle::VerifiedBundle;
use async_trait::async_trait;
use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

/// kubeadm waits 1 min for discovery (our document), 5 for the TLS bootstrap and 4 for the kubelet.
const JOIN_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Joins the cluster as a worker.
#[derive(Default)]
pub struct JoinCluster {
    /// A token that kubeadm found dead is not used a second time, nor a bundle that is older than one seen.
    memory: RefCell<Memory>,
}

#[async_trait(?Send)]
impl Step for JoinCluster {
    fn name(&self) -> &'static str {
        "join-cluster"
    }

    fn describe(&self) -> &'static str {
        "await a join bundle, verify it, check version skew, and run `kubeadm join`"
    }

    fn patience(&self, node: &Node) -> Duration {
        node.settings.join.api_wait
    }

    async fn check(&self, node: &Node) -> Outcome<Verdict> {
        let attempt = journal(node).attempt()?;
        let machine = Machine::look(&*node.world.files)?;
        state(attempt.as_ref(), &machine)
    }

    async fn apply(&self, node: &Node) -> Outcome<()> {
        if let Some(result) = self.resume(node).await? {
            return result;
        }
        let bundle = usable_bundle(node, &self.memory).await?;
        node.update(|status| status.uid = Some(bundle.bundle().uid));
        check_skew(node, &bundle).await?;
        let attempt = record(node, &bundle)?;
        let result = join(node, &bundle, &attempt).await;
        if result.as_ref().is_err_and(|failure| failure.cause == Cause::TokenGone) {
            self.memory.borrow_mut().burn(&bundle);
        }
        result
    }
}

fn state(attempt: Option<&Attempt>, machine: &Machine) -> Outcome<Verdict> {
    machine.refuse_foreign(attempt, "join the cluster")?;
    if let Some(init) = attempt.filter(|attempt| attempt.kind != AttemptKind::Join && !machine.is_clean()) {
        let why = format!("this machine is a master (attempt {})", init.id);
        return Err(Failure::new(Cause::ForeignState, "join the cluster", why));
    }
    match attempt.and_then(|attempt| attempt.joined.as_ref()) {
        Some(ca) if machine.ca.as_ref().is_some_and(|local| local != ca) => {
            let local = machine.ca.as_ref().map_or_else(String::new, ToString::to_string);
            let why = format!("this machine joined the cluster with CA {ca}, but now carries CA {local}");
            Err(Failure::new(Cause::ForeignCluster, "join the cluster", why))
        }
        Some(ca) if machine.kubelet_conf => Ok(Verdict::Done(format!("joined the cluster with CA {ca}"))),
        _ if machine.is_clean() => Ok(Verdict::Wanted("this machine is in no cluster".into())),
        _ => Ok(Verdict::Wanted("an earlier `kubeadm join` has not been seen to its end".into())),
    }
}

impl JoinCluster {
    /// What an earlier life left: `Some` when the join is thereby decided, `None` when the machine is clean.
    async fn resume(&self, node: &Node) -> Outcome<Option<Outcome<()>>> {
        let Some(attempt) = journal(node).attempt()? else { return Ok(None) };
        let ours = |run: &str| run == attempt.id.to_string();
        match node.world.jobs.observe(&run::job_name("join")).await? {
            JobState::Running { run } if ours(&run) => {
                let ended = run::wait(node, "join").await?;
                return Ok(Some(concluded(node, ended)));
            }
            JobState::Ended { run, end: JobEnd::Exited(0) } if ours(&run) && !attempt.resetting => {
                return Ok(Some(concluded(node, Ended::Well)));
            }
            _ => {}
        }
        let machine = Machine::look(&*node.world.files)?;
        if machine.is_clean() && !attempt.resetting {
            return Ok(None);
        }
        // The kubelet has its certificate and the cluster knows the node: only kubeadm's last words are missing.
        if machine.kubelet_conf && !attempt.resetting {
            let api = Api::kubelet(&node.world.cluster);
            if api.node(&node.identity.node_name).await.is_ok_and(|found| found.is_some()) {
                return Ok(Some(joined(node)));
            }
        }
        reset::reset(node, ResetProof::from_journal(Some(&attempt), &machine)?).await?;
        Ok(None)
    }
}

fn concluded(node: &Node, ended: Ended) -> Outcome<()> {
    node.world.files.remove(&documents::path("join"))?;
    match ended {
        Ended::Well => joined(node),
        Ended::Badly(failure) => given_up(node, failure),
        Ended::Vanished => {
            let why = "its process vanished (power loss, or it was killed)";
            let failure = Failure::new(Cause::ToolFailed, "run `kubeadm join`", why);
            given_up(node, failure.advise("it is repeated by itself"))
        }
    }
}

/// A join that failed leaves no token behind, also when nobody repeats it (safety rule 6).
fn given_up(node: &Node, failure: Failure) -> Outcome<()> {
    node.world.files.remove(Path::new(BOOTSTRAP_CONF))?;
    Err(failure)
}

/// The attempt, durable before anything is changed; one that has made nothing yet is used again.
fn record(node: &Node, bundle: &VerifiedBundle) -> Outcome<Attempt> {
    let journal = journal(node);
    let uid = bundle.bundle().uid;
    let usable =
        |attempt: &Attempt| attempt.kind == AttemptKind::Join && attempt.uid == uid && attempt.joined.is_none();
    if let Some(attempt) = journal.attempt()?.filter(usable) {
        return Ok(attempt);
    }
    let clean = Machine::look(&*node.world.files)?.is_clean();
    journal.begin(node.uuid(), AttemptKind::Join, uid, clean)?;
    let lost = || Failure::new(Cause::Internal, "record the attempt to join", "it is not in the journal");
    journal.attempt()?.ok_or_else(lost)
}

/// The bundle is verified, which its type proves: nothing else can be joined (safety rule 4).
async fn join(node: &Node, bundle: &VerifiedBundle, attempt: &Attempt) -> Outcome<()> {
    let bundle = bundle.bundle();
    let flags = wiring::flags(node)?;
    let documents = documents::join(&node.settings, &node.identity, JoinTarget::from(bundle), flags.as_ref());
    node.wait_for(format!("`kubeadm join` to {}", bundle.endpoint));
    let run =
        Documented { command: "join", attempt: attempt.id, documents: &documents, more: &[], deadline: JOIN_DEADLINE };
    let ended = match run::start_documented(node, &run).await {
        Ok(()) => run::wait(node, "join").await?,
        Err(failure) => Ended::Badly(failure),
    };
    if ended != Ended::Well {
        return concluded(node, ended);
    }
    node.world.files.remove(&documents::path("join"))?;
    let local = Machine::look(&*node.world.files)?.ca;
    if local.as_ref() != Some(&bundle.ca_sha256) {
        let has = local.map_or_else(|| "none".to_owned(), |ca| ca.to_string());
        let why = format!("the bundle names CA {}, but the machine now carries CA {has}", bundle.ca_sha256);
        return Err(Failure::new(Cause::ForeignCluster, "join the cluster", why));
    }
    joined(node)
}

/// The proof for every later life.
fn joined(node: &Node) -> Outcome<()> {
    match Machine::look(&*node.world.files)?.ca {
        Some(ca) => journal(node).note(Entry::Joined { ca }),
        None => Err(Failure::new(Cause::ToolFailed, "run `kubeadm join`", "it ended well, but left no CA certificate")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::CaHash;
    use uuid::Uuid;

    fn attempt(joined: Option<u8>) -> Attempt {
        Attempt {
            joined: joined.map(|byte| CaHash::from_digest(&[byte; 32])),
            ..Attempt::begun(Uuid::from_u128(1), AttemptKind::Join, Uuid::from_u128(2), true)
        }
    }

    fn machine(ca: Option<u8>) -> Machine {
        let ca = ca.map(|byte| CaHash::from_digest(&[byte; 32]));
        let traces = ca.iter().map(|_| "/etc/kubernetes/kubelet.conf".to_owned()).collect();
        Machine { traces, kubelet_conf: ca.is_some(), admin_conf: false, ca }
    }

    #[test]
    fn a_machine_is_joined_once_and_never_over_anothers_state() {
        let cause = |result: Outcome<Verdict>| result.expect_err("refused").cause;
        assert!(matches!(state(None, &machine(None)), Ok(Verdict::Wanted(_))));
        assert!(matches!(state(Some(&attempt(Some(1))), &machine(Some(1))), Ok(Verdict::Done(_))));
        assert!(matches!(state(Some(&attempt(None)), &machine(Some(1))), Ok(Verdict::Wanted(_))));
        assert_eq!(cause(state(None, &machine(Some(1)))), Cause::ForeignState);
        assert_eq!(cause(state(Some(&attempt(Some(1))), &machine(Some(2)))), Cause::ForeignCluster);
        let master = Attempt { kind: AttemptKind::Init, ..attempt(None) };
        assert_eq!(cause(state(Some(&master), &machine(Some(1)))), Cause::ForeignState);
    }
}
