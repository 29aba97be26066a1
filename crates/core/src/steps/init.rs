//! `kubeadm-init`: makes the control plane, while holding the register.

use super::journal;
use crate::ecr::wiring;
use crate::engine::{Step, Verdict};
use crate::journal::{Attempt, AttemptKind, Entry};
use crate::kube::{Api, tokens};
use crate::kubeadm::machine::Machine;
use crate::kubeadm::reset::{self, ResetProof};
use crate::kubeadm::run::{self, Documented, Ended};
use crate::kubeadm::{documents, tools};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use crate::pki;
use crate::ports::{JobEnd, JobState};
use crate::store::Store;
use crate::store::register::Held;
use async_trait::async_trait;
use std::time::Duration;

/// kubeadm waits 4 min for the control plane and 4 for the kubelet, and pulls images before; a slow registry is given
/// the rest.
const INIT_DEADLINE: Duration = Duration::from_secs(25 * 60);
/// Failed attempts are reset and repeated this long.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// What `kubeadm init` has done by the time its API server is healthy (kubeadm init.go, order of the phases). The
/// rest can be repeated: it applies objects.
const PHASES_BEFORE_API: &str = "preflight,certs,kubeconfig,etcd,control-plane,kubelet-start,wait-control-plane";

/// Runs `kubeadm init`, or finishes one that was interrupted.
pub struct KubeadmInit;

#[async_trait(?Send)]
impl Step for KubeadmInit {
    fn name(&self) -> &'static str {
        "kubeadm-init"
    }

    fn describe(&self) -> &'static str {
        "make the control plane with `kubeadm init`"
    }

    fn patience(&self, _node: &Node) -> Duration {
        PATIENCE
    }

    async fn check(&self, node: &Node) -> Outcome<Verdict> {
        let attempt = journal(node).attempt()?;
        if attempt.as_ref().is_some_and(|attempt| attempt.kind == AttemptKind::ControlPlane) {
            return Ok(Verdict::Done("this machine joins a cluster that another master made".into()));
        }
        let attempt = attempt.filter(|attempt| attempt.kind == AttemptKind::Init);
        let machine = Machine::look(&*node.world.files)?;
        match attempt.and_then(|attempt| attempt.initialised) {
            Some(ca) if machine.admin_conf && machine.ca.as_ref() == Some(&ca) => {
                Ok(Verdict::Done(format!("this machine carries CA {ca}")))
            }
            _ if machine.is_clean() => Ok(Verdict::Wanted("there is no control plane on this machine".into())),
            _ => Ok(Verdict::Wanted("an earlier `kubeadm init` has not been seen to its end".into())),
        }
    }

    async fn apply(&self, node: &Node) -> Outcome<()> {
        let Some(attempt) = journal(node).attempt()? else { return Err(not_held("no attempt was recorded")) };
        let Some(held) = Store::of(node).held(attempt.id).await? else {
            return Err(not_held("the register does not name our attempt"));
        };
        let ended = begin(node, &held, &attempt).await;
        // The document holds a token: it goes as soon as kubeadm has ended, well or not.
        let removed = node.world.files.remove(&documents::path("init"));
        match ended? {
            Ended::Well => removed.and_then(|()| finish(node)),
            Ended::Badly(failure) => Err(failure),
            Ended::Vanished => {
                let why = "its process vanished (power loss, or it was killed)";
                Err(Failure::new(Cause::ToolFailed, "run `kubeadm init`", why).advise("it is repeated by itself"))
            }
        }
    }
}

fn not_held(why: &str) -> Failure {
    Failure::new(Cause::HeldByOther, "run `kubeadm init`", why)
}

/// What to do about a half-finished init.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// Its job runs, or ended well: see it to its end.
    Await,
    /// The machine is clean.
    Start,
    /// The API server is healthy under the local CA: carry out the phases that may be missing.
    Complete,
    /// Undo what it left, then start.
    Reset,
}

fn way(job: &JobState, attempt: &Attempt, machine: &Machine, api_is_ready: bool) -> Way {
    let ours = |run: &str| run == attempt.id.to_string();
    match job {
        JobState::Running { .. } => Way::Await,
        JobState::Ended { run, end: JobEnd::Exited(0) } if ours(run) && machine.admin_conf => Way::Await,
        _ if machine.is_clean() && !attempt.resetting => Way::Start,
        _ if api_is_ready && !attempt.resetting => Way::Complete,
        _ => Way::Reset,
    }
}

/// `held` is the proof that the register is ours: init demands it (safety rule 1).
async fn begin(node: &Node, held: &Held, attempt: &Attempt) -> Outcome<Ended> {
    let machine = Machine::look(&*node.world.files)?;
    let job = node.world.jobs.observe(&run::job_name("init")).await?;
    // No answer is as good as "not ready": what cannot be reached cannot be adopted.
    let ready = machine.admin_conf && Api::admin(&node.world.cluster).is_ready().await.unwrap_or(false);
    match way(&job, attempt, &machine, ready) {
        Way::Await => run::wait(node, "init").await,
        Way::Start => anew(node, held, attempt).await,
        Way::Complete => start(node, attempt, &["--skip-phases", PHASES_BEFORE_API]).await,
        Way::Reset => {
            reset::reset(node, ResetProof::from_journal(Some(attempt), &machine)?).await?;
            anew(node, held, attempt).await
        }
    }
}

/// An init from the beginning. The authorities that are sealed for the cluster are there before kubeadm, which then makes
/// none of its own; a machine that dies in between is dirty, and reset like after any other half of an init.
async fn anew(node: &Node, held: &Held, attempt: &Attempt) -> Outcome<Ended> {
    if node.settings.pki.is_some() {
        pki::place(node, &pki::seal_new(node, held).await?)?;
    }
    start(node, attempt, &[]).await
}

async fn start(node: &Node, attempt: &Attempt, more: &[&str]) -> Outcome<Ended> {
    let tools = tools::versions(node).await?;
    let token = tokens::random_token(&*node.world.time);
    let flags = wiring::flags(node)?;
    let documents = documents::init(&node.settings, &node.identity, &tools.kubeadm, &token, flags.as_ref());
    let more = [&["--skip-token-print"], more].concat();
    let run = Documented {
        command: "init",
        attempt: attempt.id,
        documents: &documents,
        more: &more,
        deadline: INIT_DEADLINE,
    };
    run::start_documented(node, &run).await?;
    run::wait(node, "init").await
}

/// The proof for every later life: this attempt made this CA.
fn finish(node: &Node) -> Outcome<()> {
    let machine = Machine::look(&*node.world.files)?;
    match machine.ca {
        Some(ca) if machine.admin_conf => journal(node).note(Entry::Initialised { ca }),
        _ => {
            let why = "it ended well, but left no CA certificate or no admin.conf";
            Err(Failure::new(Cause::ToolFailed, "run `kubeadm init`", why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_half_finished_init_is_awaited_completed_or_reset() {
        let attempt = Attempt::begun(Uuid::from_u128(1), AttemptKind::Init, Uuid::from_u128(2), true);
        let resetting = Attempt { resetting: true, ..attempt.clone() };
        let machine = |dirty: bool| Machine {
            traces: if dirty { vec!["x".into()] } else { Vec::new() },
            ca: None,
            kubelet_conf: dirty,
            admin_conf: dirty,
        };
        let running = JobState::Running { run: "other".into() };
        let ended =
            |run: u128, code| JobState::Ended { run: Uuid::from_u128(run).to_string(), end: JobEnd::Exited(code) };
        let table = [
            (&running, &attempt, true, false, Way::Await),
            (&ended(1, 0), &attempt, true, false, Way::Await),
            (&ended(1, 0), &attempt, false, false, Way::Start),
            (&ended(2, 0), &attempt, true, false, Way::Reset),
            (&ended(1, 1), &attempt, true, false, Way::Reset),
            (&ended(1, 1), &attempt, true, true, Way::Complete),
            (&JobState::Absent, &attempt, false, false, Way::Start),
            (&JobState::Absent, &attempt, true, true, Way::Complete),
            (&JobState::Absent, &resetting, true, true, Way::Reset),
            (&JobState::Absent, &resetting, false, false, Way::Reset),
        ];
        for (job, attempt, dirty, ready, expected) in table {
            assert_eq!(way(job, attempt, &machine(dirty), ready), expected, "{job:?} dirty={dirty} ready={ready}");
        }
    }
}
