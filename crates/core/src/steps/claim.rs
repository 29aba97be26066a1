//! `claim-register`: the right to run `kubeadm init`, from the one register that all masters of a cluster share.

mod decision;

use self::decision::{Decision, decide};
use super::{HALF_AN_HOUR, journal};
use crate::engine::{Step, Verdict};
use crate::journal::AttemptKind;
use crate::kubeadm::machine::Machine;
use crate::kubeadm::reset::{self, ResetProof};
use crate::kubeadm::run;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::register::Holder;
use crate::node::Node;
use crate::ports::{ETag, JobSpec, JobState};
use crate::store::Store;
use crate::store::gone::{Gone, GoneWatch, Judgement};
use crate::store::register::{Claim, Seen};
use async_trait::async_trait;
use std::cell::RefCell;
use std::future::pending;
use std::time::Duration;
use uuid::Uuid;

/// Stopping a service: systemd's own default is 90 s.
const STOP_DEADLINE: Duration = Duration::from_secs(120);
/// How often it is looked whether another master has made the cluster, before jitter, and for how long.
const NEWS_EVERY: Duration = Duration::from_secs(1);
const NEWS_FOR: Duration = Duration::from_secs(120);

/// Claims the register, takes it over from a holder that is gone, or puts it back when it vanished.
#[derive(Default)]
pub struct ClaimRegister {
    watch: GoneWatch,
    /// The register of somebody else, and when it was first seen.
    awaited: RefCell<Option<(ETag, Duration)>>,
}

/// Who we are, as the register records it.
pub fn holder(node: &Node) -> Holder {
    Holder {
        identity: node.identity.key(),
        node_name: node.identity.node_name.clone(),
        ec2: node.identity.ec2().cloned(),
    }
}

#[async_trait(?Send)]
impl Step for ClaimRegister {
    fn name(&self) -> &'static str {
        "claim-register"
    }

    fn describe(&self) -> &'static str {
        "claim the cluster register, so that one machine alone runs `kubeadm init`"
    }

    fn patience(&self, node: &Node) -> Duration {
        node.settings.join.wait.max(HALF_AN_HOUR)
    }

    async fn check(&self, node: &Node) -> Outcome<Verdict> {
        let (seen, decision) = look(node).await?;
        if let Some(seen) = &seen {
            node.update(|status| status.uid = Some(seen.register.uid));
        }
        match decision {
            Decision::Ours(why) => Ok(Verdict::Done(why)),
            Decision::Claim => {
                refuse_traces(node).await?;
                Ok(Verdict::Wanted("there is no cluster yet".into()))
            }
            Decision::Follow(uid) => Ok(Verdict::Wanted(format!("cluster {uid} exists: this master joins it"))),
            Decision::PutBack => Ok(Verdict::Wanted("cluster.json vanished; this machine made the cluster".into())),
            Decision::Lost(why) => Ok(Verdict::Wanted(format!("{why}: stop the kubelet"))),
            Decision::Refuse(failure) => Err(failure),
            Decision::Contested => {
                self.gone(node, seen.as_ref()).await?;
                Ok(Verdict::Wanted("its holder is gone".into()))
            }
        }
    }

    /// An init that goes well takes less than a minute, and its end is what the other masters wait for. Later there is no
    /// hurry any more.
    async fn news(&self, node: &Node) {
        let Some((known, since)) = self.awaited.borrow().clone() else { return pending().await };
        while node.world.time.uptime().saturating_sub(since) < NEWS_FOR {
            node.world.time.sleep(node.jitter(NEWS_EVERY)).await;
            // A store that is away has no news.
            if Store::of(node).register().await.is_ok_and(|seen| seen.is_none_or(|seen| seen.etag != known)) {
                return;
            }
        }
        pending().await
    }

    async fn apply(&self, node: &Node) -> Outcome<()> {
        let (seen, decision) = look(node).await?;
        match (decision, seen) {
            (Decision::Ours(_), _) => Ok(()),
            (Decision::Claim, _) => claim(node).await,
            (Decision::Follow(uid), _) => follow(node, uid),
            (Decision::PutBack, _) => put_back(node).await,
            (Decision::Lost(why), _) => Err(step_down(node, why).await),
            (Decision::Refuse(failure), _) => Err(failure),
            (Decision::Contested, seen) => {
                let gone = self.gone(node, seen.as_ref()).await?;
                take_over(node, seen, gone).await
            }
        }
    }
}

impl ClaimRegister {
    fn await_change(&self, node: &Node, seen: &Seen) {
        let mut awaited = self.awaited.borrow_mut();
        if awaited.as_ref().is_none_or(|(known, _)| *known != seen.etag) {
            *awaited = Some((seen.etag.clone(), node.world.time.uptime()));
        }
    }

    async fn gone(&self, node: &Node, seen: Option<&Seen>) -> Outcome<Gone> {
        let waiting = |why: String| Failure::new(Cause::HeldByOther, "claim the cluster register", why);
        let Some(seen) = seen else { return Err(waiting("it has just changed".into())) };
        self.await_change(node, seen);
        match self.watch.look(node, seen).await? {
            Judgement::Gone(gone) => Ok(gone),
            Judgement::NotGone(why) => {
                node.wait_for(format!("the holder of the register: {why}"));
                Err(waiting(why))
            }
        }
    }
}

/// Whether this master joins, or joined, a cluster that another one made, as things stand now. Errors: the store's, and
/// those of reading the machine.
pub async fn follows(node: &Node) -> Outcome<bool> {
    let attempt = journal(node).attempt()?;
    let began = attempt.is_some_and(|attempt| attempt.kind == AttemptKind::ControlPlane);
    Ok(began || matches!(look(node).await?.1, Decision::Follow(_)))
}

async fn look(node: &Node) -> Outcome<(Option<Seen>, Decision)> {
    let seen = Store::of(node).register().await?;
    let attempt = journal(node).attempt()?;
    let machine = Machine::look(&*node.world.files)?;
    let register = seen.as_ref().map(|seen| &seen.register);
    let may_follow = node.settings.pki.is_some();
    let decision = decide(register, attempt.as_ref(), &machine, node.settings.cluster.as_str(), may_follow);
    // A job of ours that has made nothing yet would go on to make a control plane: it counts like one.
    let decision = match (decision, &seen) {
        (Decision::Refuse(_) | Decision::Contested | Decision::Follow(_), Some(seen)) if init_runs(node).await? => {
            Decision::Lost(format!(
                "the register names attempt {}, but an init of ours still runs",
                seen.register.attempt()
            ))
        }
        (decision, _) => decision,
    };
    Ok((seen, decision))
}

async fn init_runs(node: &Node) -> Outcome<bool> {
    let job = node.world.jobs.observe(&run::job_name("init")).await?;
    Ok(matches!(job, JobState::Running { .. }))
}

/// Safety rule 3: a store that names a uid while `cluster.json` is missing held a cluster once.
async fn refuse_traces(node: &Node) -> Outcome<()> {
    let (store, own) = (Store::of(node), journal(node).attempt()?.map(|attempt| attempt.uid));
    match store.refuse_traces(&node.identity.key(), own).await {
        // The traces may be of a cluster that was begun between the two readings.
        Err(failure) if failure.cause == Cause::RegisterMissing && store.register().await?.is_some() => {
            Err(lost_race())
        }
        result => result,
    }
}

async fn claim(node: &Node) -> Outcome<()> {
    refuse_traces(node).await?;
    let store = Store::of(node);
    store.self_test().await?;
    let journal = journal(node);
    let machine = Machine::look(&*node.world.files)?;
    let earlier = journal.attempt()?.filter(|attempt| attempt.kind == AttemptKind::Init && !attempt.commit_attempted);
    // An earlier claim of the same attempt may still land: it must be recognised as ours.
    let recorded = match earlier {
        Some(attempt) => journal.recorded(attempt.id)?,
        None => Some(journal.begin(node.uuid(), AttemptKind::Init, node.uuid(), machine.is_clean())?),
    };
    let Some(recorded) = recorded else {
        return Err(Failure::new(
            Cause::Internal,
            "claim the cluster register",
            "the attempt just recorded is not the last",
        ));
    };
    match store.claim(&recorded, &holder(node)).await? {
        Claim::Held(_) => Ok(()),
        Claim::Lost => Err(lost_race()),
    }
}

/// The attempt, durable before anything is changed. What is on this machine was looked at: it is clean.
fn follow(node: &Node, uid: Uuid) -> Outcome<()> {
    let clean = Machine::look(&*node.world.files)?.is_clean();
    journal(node).begin(node.uuid(), AttemptKind::ControlPlane, uid, clean).map(|_| ())
}

fn lost_race() -> Failure {
    Failure::new(Cause::HeldByOther, "claim the cluster register", "another machine was faster")
}

async fn take_over(node: &Node, seen: Option<Seen>, gone: Gone) -> Outcome<()> {
    let Some(seen) = seen else { return Err(lost_race()) };
    let journal = journal(node);
    let machine = Machine::look(&*node.world.files)?;
    if !machine.is_clean() {
        let proof = ResetProof::from_journal(journal.attempt()?.as_ref(), &machine)?;
        reset::reset(node, proof).await?;
    }
    let recorded = journal.begin(node.uuid(), AttemptKind::Init, seen.register.uid, true)?;
    match Store::of(node).take_over(&seen, gone, &recorded, &holder(node)).await? {
        Claim::Held(_) => Ok(()),
        Claim::Lost => Err(lost_race()),
    }
}

async fn put_back(node: &Node) -> Outcome<()> {
    let Some(attempt) = journal(node).attempt()? else { return Err(lost_race()) };
    node.tell(&crate::node::Event::Note("cluster.json vanished from the store; putting it back"));
    Store::of(node).put_back(&attempt, &holder(node), node.world.time.now()).await.map(|_| ())
}

/// Another machine makes the cluster: an init of ours that runs is stopped, and ours must not serve a second one.
///
/// Below a root folder (`--root`) the machine's own kubelet is none of our business and stays as it is.
pub(super) async fn step_down(node: &Node, why: String) -> Failure {
    let mut said = Vec::new();
    if let Err(failure) = node.world.jobs.stop(&run::job_name("init")).await {
        said.push(format!("the running init could not be stopped ({failure})"));
    }
    if node.rootfs.is_none() {
        let stop = JobSpec {
            name: "stop-kubelet".into(),
            run: "step-down".into(),
            argv: ["systemctl", "disable", "--now", "kubelet"].map(str::to_owned).to_vec(),
            deadline: STOP_DEADLINE,
        };
        said.push(match node.world.jobs.start(&stop).await {
            Ok(()) => "the kubelet is being stopped".to_owned(),
            Err(failure) => format!("the kubelet could not be stopped ({failure})"),
        });
    }
    let what = std::iter::once(why).chain(said).collect::<Vec<_>>().join("; ");
    Failure::new(Cause::TakenOver, "keep the cluster register", what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::tests::world::Site;
    use crate::store::fake::run;

    #[test]
    fn a_master_hears_at_once_that_the_register_has_changed_but_does_not_listen_for_ever() {
        let site = Site::new();
        let (master, step) = (site.master(), ClaimRegister::default());
        let uptime = || master.node.world.time.uptime();
        assert_eq!(run(step.news(&master.node)), None, "nobody else holds it");
        run(master.held(&site.lab, 1)).expect("alive");
        let seen = run(Store::of(&master.node).register()).expect("alive").expect("read").expect("a register");
        let began = uptime();
        step.await_change(&master.node, &seen);
        assert_eq!(run(step.news(&master.node)), None);
        let listened = uptime() - began;
        assert!(listened >= NEWS_FOR && listened < 2 * NEWS_FOR, "{listened:?}");
        // Another check of the same register does not begin anew.
        step.await_change(&master.node, &seen);
        assert_eq!(run(step.news(&master.node)), None);
        assert_eq!(uptime() - began, listened);
        let (other, step) = (site.master(), ClaimRegister::default());
        step.await_change(&other.node, &seen);
        let key = site.lab.objects.keys().into_iter().find(|key| key.ends_with("cluster.json")).expect("the register");
        site.lab.objects.erase(&key);
        let began = uptime();
        assert_eq!(run(step.news(&other.node)), Some(()));
        assert!(uptime() - began < NEWS_FOR);
    }
}
