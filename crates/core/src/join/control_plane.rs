//! A further master joins the control plane: one at a time, into an etcd without dead members, and back out of it when
//! the join fails.

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
use crate::steps::{holder, journal};
use crate::store::Store;
use crate::store::bundle::VerifiedBundle;
use crate::store::gone::MachineWatch;
use crate::store::lock::{JoinTurn, SeenLock, Turn};
use futures_util::future::{Either, join, select};
use std::cell::RefCell;
use std::pin::pin;
use std::time::Duration;

/// kubeadm waits 4 min for the control plane, 4 for the kubelet, 2 for etcd, and pulls images before.
const JOIN_DEADLINE: Duration = Duration::from_secs(25 * 60);
/// What `kubeadm join` has done by the time its own member of etcd is started (kubeadm join.go, order of the phases).
/// The rest can be repeated: to add a member that is there, to promote a voter, to mark a node.
const PHASES_BEFORE_MEMBER: &str = "preflight,control-plane-prepare,check-etcd,kubelet-start";
/// How often a lock that somebody else holds is looked at, before jitter: a join takes some ten seconds.
const TURN_EVERY: Duration = Duration::from_secs(1);
/// How often EC2 is asked about its holder.
const GONE_EVERY: Duration = Duration::from_secs(15);
/// How long members are tidied before the turn is given to others, and how often it is looked.
const TIDY_FOR: Duration = Duration::from_secs(120);
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether the own member has become a voter while kubeadm runs.
const VOTER_EVERY: Duration = Duration::from_secs(1);
/// How long a member that kubeadm added may take until it is a voter with an API server beside it.
const READY_WITHIN: Duration = Duration::from_secs(180);
const READY_EVERY: Duration = Duration::from_millis(500);

/// Joins; keeps what must not be asked for again in one life of the agent.
pub struct Joiner {
    memory: RefCell<Memory>,
    /// Of the members, and of the lock's holder.
    members: MachineWatch,
    holder: MachineWatch,
}

impl Default for Joiner {
    fn default() -> Self {
        Joiner { memory: RefCell::default(), members: MachineWatch::new(), holder: MachineWatch::of_lock() }
    }
}

/// What a join needs besides its turn.
struct Ready {
    visitor: Visitor,
    bundle: Option<VerifiedBundle>,
    material: PkiMaterial,
}

/// The bundle, of which it was thought that none is needed: kubeadm's job vanished since then.
fn demanded(bundle: Option<&VerifiedBundle>) -> Outcome<&VerifiedBundle> {
    bundle.ok_or_else(|| failed("its process vanished (power loss, or it was killed)"))
}

/// Where an attempt stands, when it is its turn.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// The machine is clean.
    Start,
    /// kubeadm runs, or ended well.
    Await,
    /// etcd has started on this machine: carry out the rest.
    Complete,
    /// Undo what it left, then start.
    Reset,
}

fn way(job: &JobState, attempt: &Attempt, machine: &Machine, own: Own) -> Way {
    let ours = |run: &str| run == attempt.id.to_string();
    match job {
        JobState::Running { .. } => Way::Await,
        JobState::Ended { run, end: JobEnd::Exited(0) } if ours(run) && machine.admin_conf && !attempt.resetting => {
            Way::Await
        }
        // A reset that was begun is carried through: it may have taken the member's data.
        _ if machine.is_clean() && !attempt.resetting => Way::Start,
        _ if matches!(own, Own::StartedLearner | Own::Voter) && !attempt.resetting => Way::Complete,
        _ => Way::Reset,
    }
}

impl Joiner {
    /// Joins, or goes on with a join that was interrupted.
    pub async fn join(&self, node: &Node) -> Outcome<()> {
        let attempt = attempt(node)?;
        let register = register(node, &attempt).await?;
        // Before the turn: whoever waits for a bundle must not keep the others from joining.
        self.bundle(node, &attempt).await?;
        let turn = self.turn(node, &attempt).await?;
        let joined = self.in_turn(node, &attempt, &register, &turn).await;
        visitor::forget(node)?;
        joined?;
        // Before the journal says so: killed in between, this comes again.
        Store::of(node).give_turn_back(turn.attempt()).await?;
        match Machine::look(&*node.world.files)?.ca {
            Some(ca) => journal(node).note(Entry::Joined { ca }),
            None => Err(failed("it ended well, but left no CA certificate")),
        }
    }

    /// Waits for its turn.
    async fn turn(&self, node: &Node, attempt: &Attempt) -> Outcome<JoinTurn> {
        let (store, began) = (Store::of(node), node.world.time.uptime());
        let recorded = journal(node).recorded(attempt.id)?;
        let recorded = recorded.ok_or_else(|| failed("its attempt is not the last in the journal"))?;
        let (mut asked, mut lives) = (None, String::new());
        loop {
            let seen = match store.take_turn(&recorded, &holder(node)).await {
                Ok(Turn::Ours(turn)) => return Ok(turn),
                Ok(Turn::Others(seen)) => *seen,
                // Two that ask at the same moment; everything else is for the engine.
                Err(failure) if failure.cause == Cause::HeldByOther => {
                    node.world.time.sleep(node.jitter(TURN_EVERY)).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let now = node.world.time.uptime();
            if asked.is_none_or(|at| now.saturating_sub(at) >= GONE_EVERY) {
                asked = Some(now);
                match self.take_over(node, &seen, &recorded).await? {
                    Ok(turn) => return Ok(turn),
                    Err(why) => lives = why,
                }
            }
            if now.saturating_sub(began) >= node.settings.join.wait {
                return Err(held(&seen).exhausted(now.saturating_sub(began)));
            }
            let who = &seen.lock.holder.node_name;
            node.wait_for(format!("{who} to have joined the control plane ({lives})"));
            node.world.time.sleep(node.jitter(TURN_EVERY)).await;
        }
    }

    /// Takes the lock from a holder that is gone; why it is not, otherwise.
    async fn take_over(
        &self,
        node: &Node,
        seen: &SeenLock,
        recorded: &crate::journal::AttemptRecorded,
    ) -> Outcome<Result<JoinTurn, String>> {
        let judged = self.holder.look(node, &seen.lock.holder, seen.lock.attempt, seen.age()).await;
        let gone = match judged {
            Ok(Ok(gone)) => gone,
            Ok(Err(why)) => {
                node.complain(&Failure { detail: why.clone(), ..held(seen) });
                return Ok(Err(why));
            }
            // EC2 in trouble proves nothing, and the holder goes on by itself.
            Err(failure) => {
                node.complain(&failure);
                return Ok(Err(failure.detail));
            }
        };
        let name = &seen.lock.holder.node_name;
        node.tell(&Event::Note(&format!("{name}, which held the join lock, is gone: {}", gone.why())));
        match Store::of(node).take_turn_over(seen, &gone, recorded, &holder(node)).await? {
            Turn::Ours(turn) => Ok(Ok(turn)),
            Turn::Others(_) => Ok(Err("another master was faster".to_owned())),
        }
    }

    async fn in_turn(&self, node: &Node, attempt: &Attempt, register: &Register, turn: &JoinTurn) -> Outcome<()> {
        let began = self.prepare(node, attempt, register, turn).await;
        let ready = match began {
            Ok(ready) => ready,
            Err(failure) => return Err(given_back(node, attempt, failure).await),
        };
        let Ready { visitor, bundle, material } = ready;
        let job = node.world.jobs.observe(&run::job_name("join")).await?;
        let machine = Machine::look(&*node.world.files)?;
        let own = etcd::own_member(node, &visitor.api, &visitor.etcd).await?;
        let ended = match way(&job, attempt, &machine, own) {
            Way::Await => ended(node, attempt, &visitor).await?,
            Way::Complete => {
                let skip = ["--skip-phases", PHASES_BEFORE_MEMBER];
                start(node, attempt, &visitor, demanded(bundle.as_ref())?, &skip).await?
            }
            Way::Start => self.start_anew(node, attempt, &material, &visitor, demanded(bundle.as_ref())?).await?,
            Way::Reset => {
                let failure = failed("an earlier attempt did not come to its end");
                self.undo(node, attempt, &visitor, failure).await?;
                self.start_anew(node, attempt, &material, &visitor, demanded(bundle.as_ref())?).await?
            }
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
    async fn prepare(&self, node: &Node, attempt: &Attempt, register: &Register, turn: &JoinTurn) -> Outcome<Ready> {
        debug_assert_eq!(turn.attempt(), attempt.id);
        let bundle = self.bundle(node, attempt).await?;
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
        Ok(Ready { visitor, bundle, material })
    }

    /// A bundle to join with; `None` when kubeadm runs or ended well, for then none is needed: the masters that would
    /// publish one may all wait here for their last step.
    async fn bundle(&self, node: &Node, attempt: &Attempt) -> Outcome<Option<VerifiedBundle>> {
        let job = node.world.jobs.observe(&run::job_name("join")).await?;
        let machine = Machine::look(&*node.world.files)?;
        // What etcd says decides only how the rest is done.
        if way(&job, attempt, &machine, Own::Absent) == Way::Await {
            return Ok(None);
        }
        usable_bundle(node, &self.memory).await.map(Some)
    }

    /// A clean machine: waits until etcd can take a member, places the keys and runs kubeadm.
    async fn start_anew(
        &self,
        node: &Node,
        attempt: &Attempt,
        material: &PkiMaterial,
        visitor: &Visitor,
        bundle: &VerifiedBundle,
    ) -> Outcome<Ended> {
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

fn held(seen: &SeenLock) -> Failure {
    let holder = &seen.lock.holder;
    let why = format!("{} ({}) joins since {}", holder.node_name, holder.identity, seen.lock.since);
    Failure::new(Cause::HeldByOther, "join the control plane", why)
        .advise("wait for it, or, when you know that it is gone, `kubestrap unlock join`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn an_interrupted_join_is_awaited_completed_or_taken_back() {
        let attempt = Attempt::begun(Uuid::from_u128(1), AttemptKind::ControlPlane, Uuid::from_u128(2), true);
        let resetting = Attempt { resetting: true, ..attempt.clone() };
        let machine = |dirty: bool| Machine {
            traces: if dirty { vec!["x".into()] } else { Vec::new() },
            ca: None,
            kubelet_conf: dirty,
            admin_conf: dirty,
        };
        let running = JobState::Running { run: "any".into() };
        let ended =
            |run: u128, code| JobState::Ended { run: Uuid::from_u128(run).to_string(), end: JobEnd::Exited(code) };
        let table = [
            (&running, &attempt, true, Own::Absent, Way::Await),
            (&ended(1, 0), &attempt, true, Own::Voter, Way::Await),
            (&ended(1, 0), &resetting, true, Own::Voter, Way::Reset),
            (&ended(1, 1), &attempt, true, Own::Absent, Way::Reset),
            (&ended(1, 1), &attempt, true, Own::UnstartedLearner(7), Way::Reset),
            (&ended(1, 1), &attempt, true, Own::StartedLearner, Way::Complete),
            (&ended(1, 1), &attempt, true, Own::Voter, Way::Complete),
            (&JobState::Absent, &attempt, false, Own::Absent, Way::Start),
            (&JobState::Absent, &attempt, true, Own::Voter, Way::Complete),
            (&JobState::Absent, &resetting, false, Own::Absent, Way::Reset),
        ];
        for (job, attempt, dirty, own, expected) in table {
            assert_eq!(way(job, attempt, &machine(dirty), own), expected, "{job:?} dirty={dirty} {own:?}");
        }
    }
}
