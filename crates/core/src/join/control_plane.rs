//! A further master joins the control plane: one at a time, into an etcd without dead members, and back out of it when
//! the join fails.

use super::turn::Queue;
use super::visitor::{self, Visitor};
use super::wait::{Memory, usable_bundle};
use super::{check_skew, kubelet};
use crate::ecr::wiring;
use crate::etcd::{self, Own};
use crate::journal::{Attempt, AttemptKind, Entry};
use crate::kube::Api;
use crate::kubeadm::documents::{self, JoinTarget};
use crate::kubeadm::machine::Machine;
use crate::kubeadm::reset::{self, ResetProof};
use crate::kubeadm::run::{self, Documented, Ended};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::register::Register;
use crate::node::{Event, Node};
use crate::pki::{self, PkiMaterial};
use crate::ports::{JobEnd, JobState};
use crate::steps::journal;
use crate::store::Store;
use crate::store::bundle::VerifiedBundle;
use crate::store::gone::MachineWatch;
use crate::store::lock::JoinTurn;
use futures_util::future::{Either, join, select};
use std::cell::RefCell;
use std::pin::pin;
use std::time::Duration;

/// kubeadm waits 4 min for the control plane, 4 for the kubelet, 2 for etcd, and pulls images before.
const JOIN_DEADLINE: Duration = Duration::from_secs(25 * 60);
/// What `kubeadm join` has done by the time its own member of etcd is started (kubeadm join.go, order of the phases).
/// The rest can be repeated: to add a member that is there, to promote a voter, to mark a node.
const PHASES_BEFORE_MEMBER: &str = "preflight,control-plane-prepare,check-etcd,kubelet-start";
/// How long members are tidied before the turn is given to others, and how often it is looked.
const TIDY_FOR: Duration = Duration::from_secs(120);
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether the own member has become a voter while kubeadm runs.
const VOTER_EVERY: Duration = Duration::from_secs(1);
/// How long a member that kubeadm added may take until it is a voter with an API server beside it.
const READY_WITHIN: Duration = Duration::from_secs(180);
const READY_EVERY: Duration = Duration::from_millis(500);

/// Joins; keeps what must not be asked for again in one life of the agent.
#[derive(Default)]
pub struct Joiner {
    memory: RefCell<Memory>,
    members: MachineWatch,
    queue: Queue,
}

/// What a join needs besides its turn.
struct Ready {
    visitor: Visitor,
    material: PkiMaterial,
    /// None when kubeadm is under way.
    bundle: Option<VerifiedBundle>,
}

/// Whether kubeadm runs, or ended well: its end is awaited then. No bundle is needed for that, and none may be: the
/// masters that would publish one may all wait here for their last step.
fn is_under_way(job: &JobState, attempt: &Attempt, machine: &Machine) -> bool {
    match job {
        JobState::Running { .. } => true,
        JobState::Ended { run, end: JobEnd::Exited(0) } => {
            *run == attempt.id.to_string() && machine.admin_conf && !attempt.resetting
        }
        JobState::Ended { .. } | JobState::Absent => false,
    }
}

/// How kubeadm is run for an attempt whose turn it is.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// The machine is clean.
    Start,
    /// etcd has started on this machine: carry out the rest.
    Complete,
    /// Undo what it left, then start.
    Reset,
}

fn way(attempt: &Attempt, machine: &Machine, own: Own) -> Way {
    // A reset that was begun is carried through: it may have taken the member's data.
    if attempt.resetting {
        return Way::Reset;
    }
    match own {
        _ if machine.is_clean() => Way::Start,
        Own::StartedLearner | Own::Voter => Way::Complete,
        Own::Absent | Own::UnstartedLearner(_) => Way::Reset,
    }
}

impl Joiner {
    /// Joins, or goes on with a join that was interrupted.
    pub async fn join(&self, node: &Node) -> Outcome<()> {
        let attempt = attempt(node)?;
        let register = register(node, &attempt).await?;
        let job = node.world.jobs.observe(&run::job_name("join")).await?;
        let under_way = is_under_way(&job, &attempt, &Machine::look(&*node.world.files)?);
        // Before the turn: whoever waits for a bundle must not keep the others from joining.
        self.bundle(node, under_way).await?;
        let recorded = journal(node).recorded(attempt.id)?;
        let recorded = recorded.ok_or_else(|| failed("its attempt is not the last in the journal"))?;
        let turn = self.queue.wait(node, &recorded).await?;
        let joined = self.in_turn(node, &attempt, &register, &turn, under_way).await;
        visitor::forget(node)?;
        joined?;
        // Before the journal says so: killed in between, this comes again.
        Store::of(node).give_turn_back(turn.attempt()).await?;
        match Machine::look(&*node.world.files)?.ca {
            Some(ca) => journal(node).note(Entry::Joined { ca }),
            None => Err(failed("it ended well, but left no CA certificate")),
        }
    }

    async fn in_turn(
        &self,
        node: &Node,
        attempt: &Attempt,
        register: &Register,
        turn: &JoinTurn,
        under_way: bool,
    ) -> Outcome<()> {
        debug_assert_eq!(turn.attempt(), attempt.id);
        let ready = match self.prepare(node, register, under_way).await {
            Ok(ready) => ready,
            Err(failure) => return Err(given_back(node, attempt, failure).await),
        };
        let Ready { visitor, material, bundle } = ready;
        let ended = match &bundle {
            Some(bundle) => self.run(node, attempt, &material, &visitor, bundle).await?,
            None => ended(node, attempt, &visitor).await?,
        };
        node.world.files.remove(&documents::path("join"))?;
        let failure = match ended {
            Ended::Well => return confirm(node, register, &visitor).await,
            Ended::Badly(failure) => failure,
            Ended::Vanished => failed("its process vanished (power loss, or it was killed)"),
        };
        if let Some(bundle) = bundle.filter(|_| failure.cause == Cause::TokenGone) {
            self.memory.borrow_mut().burn(&bundle);
        }
        let failure = self.undo(node, attempt, &visitor, failure.clone()).await.err().unwrap_or(failure);
        Err(given_back(node, attempt, failure).await)
    }

    /// What a join needs besides its turn. The sealed keys are opened once: KMS is asked once, and a passphrase is
    /// stretched once.
    async fn prepare(&self, node: &Node, register: &Register, under_way: bool) -> Outcome<Ready> {
        let bundle = self.bundle(node, under_way).await?;
        if let Some(bundle) = &bundle {
            check_skew(node, bundle).await?;
        }
        let Some(material) = pki::fetch(node, register).await? else {
            let why = "the store has no sealed PKI of this cluster";
            return Err(Failure::new(Cause::NoBundle, "join the control plane", why)
                .advise("a master with `pki` in its configuration puts it there; see docs/ha-pki.md"));
        };
        pki::encryption_matches(node, &material)?;
        let endpoint = bundle.as_ref().map(|bundle| &bundle.bundle().endpoint);
        let Some(endpoint) = endpoint.or(node.settings.control_plane_endpoint.as_ref()) else {
            return Err(failed("there is neither a join bundle nor a `control_plane_endpoint`"));
        };
        let visitor = visitor::enter(node, &material, endpoint)?;
        Ok(Ready { visitor, material, bundle })
    }

    /// A bundle to join with; none for a kubeadm that is under way.
    async fn bundle(&self, node: &Node, under_way: bool) -> Outcome<Option<VerifiedBundle>> {
        match under_way {
            true => Ok(None),
            false => usable_bundle(node, &self.memory).await.map(Some),
        }
    }

    /// Runs kubeadm: from the start, or what is left of it.
    async fn run(
        &self,
        node: &Node,
        attempt: &Attempt,
        material: &PkiMaterial,
        visitor: &Visitor,
        bundle: &VerifiedBundle,
    ) -> Outcome<Ended> {
        let own = etcd::own_member(node, &visitor.api, &visitor.etcd).await?;
        match way(attempt, &Machine::look(&*node.world.files)?, own) {
            Way::Start => {}
            Way::Complete => {
                return start(node, attempt, visitor, bundle, &["--skip-phases", PHASES_BEFORE_MEMBER]).await;
            }
            Way::Reset => {
                self.undo(node, attempt, visitor, failed("an earlier attempt did not come to its end")).await?;
            }
        }
        // The machine is clean now.
        if let Err(failure) = self.room(node, visitor).await {
            return Ok(Ended::Badly(failure));
        }
        pki::place(node, material)?;
        start(node, attempt, visitor, bundle, &[]).await
    }

    /// Waits until etcd has neither dead members nor an unfinished learner, and nobody has this machine's name.
    async fn room(&self, node: &Node, visitor: &Visitor) -> Outcome<()> {
        let began = node.world.time.uptime();
        loop {
            let tidied =
                etcd::tidy(node, &self.members, &visitor.api, &visitor.etcd, Some(&node.identity.node_name)).await?;
            etcd::refuse_twin(&tidied.members, &node.identity)?;
            let Some(why) = tidied.waits else {
                if let Some(warning) = etcd::even_masters(tidied.members.len() + 1) {
                    node.tell(&Event::Note(&warning));
                }
                return Ok(());
            };
            if node.world.time.uptime().saturating_sub(began) >= TIDY_FOR {
                return Err(Failure::new(Cause::EtcdUnavailable, "find a place in etcd", why));
            }
            node.wait_for(format!("etcd: {why}"));
            node.world.time.sleep(TIDY_EVERY).await;
        }
    }

    /// Takes back what a failed join left: the learner, then what is on this machine. Nothing of a member that has
    /// started: the attempt goes on with it.
    async fn undo(&self, node: &Node, attempt: &Attempt, visitor: &Visitor, failure: Failure) -> Outcome<()> {
        let machine = Machine::look(&*node.world.files)?;
        if machine.is_clean() && !attempt.resetting {
            return Ok(());
        }
        let out = etcd::out_of_etcd(node, &visitor.api, &visitor.etcd).await?;
        let Some(out) = out else {
            return Err(failure.advise("its member of etcd has started, so the join is completed by itself"));
        };
        reset::reset(node, ResetProof::half_joined(attempt, &machine, &out)?).await
    }
}

/// The turn is given back when nothing of the attempt is left; what stands in the way of that is told with the failure.
async fn given_back(node: &Node, attempt: &Attempt, failure: Failure) -> Failure {
    let clean = Machine::look(&*node.world.files).is_ok_and(|machine| machine.is_clean());
    let resetting = journal(node).attempt().is_ok_and(|now| now.is_some_and(|now| now.resetting));
    if !clean || resetting {
        return failure;
    }
    match Store::of(node).give_turn_back(attempt.id).await {
        Ok(()) => failure,
        Err(other) => Failure { detail: format!("{} (and the join lock stays: {other})", failure.detail), ..failure },
    }
}

async fn start(
    node: &Node,
    attempt: &Attempt,
    visitor: &Visitor,
    bundle: &VerifiedBundle,
    more: &[&str],
) -> Outcome<Ended> {
    let bundle = bundle.bundle();
    let flags = wiring::flags(node)?;
    let documents =
        documents::join_control_plane(&node.settings, &node.identity, JoinTarget::from(bundle), flags.as_ref());
    node.wait_for(format!("`kubeadm join` to {} as a control plane", bundle.endpoint));
    let run = Documented { command: "join", attempt: attempt.id, documents: &documents, more, deadline: JOIN_DEADLINE };
    match run::start_documented(node, &run).await {
        Ok(()) => ended(node, attempt, visitor).await,
        Err(failure) => Ok(Ended::Badly(failure)),
    }
}

/// Waits for kubeadm's end. Once this machine's member has a vote, kubeadm changes nothing of etcd any more but waits for
/// the control plane: the next master need not wait for that.
async fn ended(node: &Node, attempt: &Attempt, visitor: &Visitor) -> Outcome<Ended> {
    let beside = join(hand_on(node, attempt, visitor), kubelet::start_anew_when_served(node, attempt));
    match select(pin!(run::wait(node, "join")), pin!(beside)).await {
        Either::Left((ended, _)) => ended,
        Either::Right((_, end)) => end.await,
    }
}

/// Gives the turn back as soon as the own member is a voter. What fails is tried again: at the latest when kubeadm has
/// ended.
async fn hand_on(node: &Node, attempt: &Attempt, visitor: &Visitor) {
    loop {
        node.world.time.sleep(VOTER_EVERY).await;
        let own = etcd::own_member(node, &visitor.api, &visitor.etcd).await;
        if own.is_ok_and(|own| own == Own::Voter) && Store::of(node).give_turn_back(attempt.id).await.is_ok() {
            return;
        }
    }
}

/// kubeadm ended well: it is believed when etcd and the API server of this machine say so too.
async fn confirm(node: &Node, register: &Register, visitor: &Visitor) -> Outcome<()> {
    let machine = Machine::look(&*node.world.files)?;
    if machine.ca.as_ref() != register.ca() {
        let has = machine.ca.map_or_else(|| "none".to_owned(), |ca| ca.to_string());
        let why = format!("the register names another CA than the one this machine now carries ({has})");
        return Err(Failure::new(Cause::ForeignCluster, "join the control plane", why));
    }
    let began = node.world.time.uptime();
    node.wait_for("etcd and the API server of this machine to be ready");
    loop {
        // No answer is as good as "not yet".
        let voter = etcd::own_member(node, &visitor.api, &visitor.etcd).await.is_ok_and(|own| own == Own::Voter);
        if voter && Api::local(node)?.is_ready().await.unwrap_or(false) {
            return Ok(());
        }
        if node.world.time.uptime().saturating_sub(began) >= READY_WITHIN {
            let what = if voter { "its API server is not ready" } else { "its member of etcd is no voter yet" };
            return Err(Failure::new(Cause::ApiUnavailable, "join the control plane", what));
        }
        node.world.time.sleep(READY_EVERY).await;
    }
}

fn attempt(node: &Node) -> Outcome<Attempt> {
    let attempt = journal(node).attempt()?.filter(|attempt| attempt.kind == AttemptKind::ControlPlane);
    attempt.ok_or_else(|| failed("no attempt to join as a master was recorded"))
}

async fn register(node: &Node, attempt: &Attempt) -> Outcome<Register> {
    let found = Store::of(node).register().await?.map(|seen| seen.register);
    let ours = found.filter(|register| register.uid == attempt.uid && register.ca().is_some());
    ours.ok_or_else(|| Failure::new(Cause::HeldByOther, "join the control plane", "the register has just changed"))
}

fn failed(why: &str) -> Failure {
    Failure::new(Cause::ToolFailed, "join the control plane", why).advise("it is repeated by itself")
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn machine(dirty: bool) -> Machine {
        let traces = if dirty { vec!["x".into()] } else { Vec::new() };
        Machine { traces, ca: None, kubelet_conf: dirty, admin_conf: dirty }
    }

    fn attempts() -> (Attempt, Attempt) {
        let attempt = Attempt::begun(Uuid::from_u128(1), AttemptKind::ControlPlane, Uuid::from_u128(2), true);
        (attempt.clone(), Attempt { resetting: true, ..attempt })
    }

    #[test]
    fn a_kubeadm_that_runs_or_ended_well_is_awaited() {
        let (attempt, resetting) = attempts();
        let running = JobState::Running { run: "any".into() };
        let ended =
            |run: u128, code| JobState::Ended { run: Uuid::from_u128(run).to_string(), end: JobEnd::Exited(code) };
        let table = [
            (&running, &attempt, true, true),
            (&running, &resetting, true, true),
            (&ended(1, 0), &attempt, true, true),
            (&ended(1, 0), &attempt, false, false),
            (&ended(1, 0), &resetting, true, false),
            (&ended(3, 0), &attempt, true, false),
            (&ended(1, 1), &attempt, true, false),
            (&JobState::Absent, &attempt, true, false),
        ];
        for (job, attempt, dirty, expected) in table {
            assert_eq!(is_under_way(job, attempt, &machine(dirty)), expected, "{job:?} dirty={dirty}");
        }
    }

    #[test]
    fn an_interrupted_join_is_completed_or_taken_back() {
        let (attempt, resetting) = attempts();
        let table = [
            (&attempt, false, Own::Absent, Way::Start),
            (&attempt, true, Own::Absent, Way::Reset),
            (&attempt, true, Own::UnstartedLearner(7), Way::Reset),
            (&attempt, true, Own::StartedLearner, Way::Complete),
            (&attempt, true, Own::Voter, Way::Complete),
            (&resetting, true, Own::Voter, Way::Reset),
            (&resetting, false, Own::Absent, Way::Reset),
        ];
        for (attempt, dirty, own, expected) in table {
            assert_eq!(way(attempt, &machine(dirty), own), expected, "dirty={dirty} {own:?}");
        }
    }
}
