//! `renew-certificates`: the leaf certificates of a control plane, and with them the agent's own credentials, are renewed
//! before they end; then the static pods are started anew, one after another.
//!
//! One master of the cluster does that at a time ([`turn`]). What is done stands in the journal and in the manifests, so an
//! agent that was killed goes on. The kubelet rotates its own certificates by itself.

mod decide;
#[cfg(test)]
mod tests;
mod turn;

use crate::engine::Duty;
use crate::journal::Entry;
use crate::kube::{Api, encode_segment};
use crate::kubeadm::certificates::Leaves;
use crate::kubeadm::documents;
use crate::kubeadm::manifests::{ANNOTATION, Manifest};
use crate::kubeadm::run::{self, Ended};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::{Event, Node};
use crate::ports::{JobSpec, JobState};
use crate::steps::journal;
use crate::store::Store;
use crate::store::bundle::clock_skew;
use async_trait::async_trait;
use decide::{Act, Past, Pod, Stage, ready_nodes};
use jiff::Timestamp;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::time::Duration;
use turn::Turn;

/// Certificates live a year; an hour shows soon enough that they are due.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// And some live minutes.
const LOOK_AT_LEAST: Duration = Duration::from_secs(10);
/// How often another master's renewal is looked at.
const WAIT: Duration = Duration::from_secs(30);
/// How often a master that is away is looked for. There are weeks.
const WAIT_FOR_MASTER: Duration = Duration::from_secs(10 * 60);
const SOON: Duration = Duration::from_secs(2);
/// What could not be renewed is tried again after this.
const REST: Duration = Duration::from_secs(24 * 60 * 60);
/// kubeadm reads the cluster's configuration (1 min at worst), signs eleven certificates and is done.
const RENEW_DEADLINE: Duration = Duration::from_secs(3 * 60);
/// A static pod ends within its grace (30 s) and starts within kubeadm's own patience (4 min).
const HEALTH: Duration = Duration::from_secs(5 * 60);
/// A tick restarts one pod, or waits for one kubeadm.
const TICK: Duration = Duration::from_secs(5 * 60);
/// `kubeadm certs renew all`, as a job.
const COMMAND: &str = "certs";
const MASTERS: &str = "/api/v1/nodes?labelSelector=node-role.kubernetes.io%2Fcontrol-plane";

/// Renews certificates.
#[derive(Default)]
pub(super) struct RenewDuty {
    turn: Turn,
    /// What is awaited, and since when, by uptime.
    awaited: RefCell<Option<(String, Duration)>>,
    /// When a renewal left something that is due, by uptime.
    gave_up: Cell<Option<Duration>>,
    /// What was told last, so that it is not told every half minute.
    told: RefCell<String>,
}

#[async_trait(?Send)]
impl Duty for RenewDuty {
    fn name(&self) -> &'static str {
        "renew-certificates"
    }

    fn deadline(&self) -> Duration {
        TICK
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        let lines = journal(node).lines()?;
        let Some(past) = Past::of(&lines) else { return Ok(node.jitter(LOOK_EVERY)) };
        let leaves = Leaves::read(&*node.world.files)?;
        let api = Api::local(node)?;
        match past.stage {
            None if self.rests(node) => Ok(node.jitter(LOOK_EVERY)),
            None => match leaves.first_due(past.made_after) {
                Some(due) if due <= node.world.time.now() => self.begin(node, &api, &leaves, &past).await,
                due => Ok(until(node, due)),
            },
            Some(Stage::Began { expired }) => self.renew(node, &api, &leaves, &past, expired).await,
            Some(Stage::Renewed { expired }) => self.restart(node, &api, &leaves, &past, expired).await,
        }
    }
}

fn until(node: &Node, due: Option<Timestamp>) -> Duration {
    let left =
        due.map_or(LOOK_EVERY, |due| Duration::try_from(due.duration_since(node.world.time.now())).unwrap_or_default());
    // Masters of one age are due together: they need not ask for the turn in the same second.
    left.clamp(LOOK_AT_LEAST, node.jitter(LOOK_EVERY).max(LOOK_AT_LEAST))
}

impl RenewDuty {
    fn rests(&self, node: &Node) -> bool {
        self.gave_up.get().is_some_and(|at| node.world.time.uptime().saturating_sub(at) < REST)
    }

    /// Whether it may begin: the clock is right, this machine is healthy, the others are, and it is our turn.
    async fn begin(&self, node: &Node, api: &Api, leaves: &Leaves, past: &Past) -> Outcome<Duration> {
        let now = node.world.time.now();
        let due = leaves.due(now, past.made_after);
        if due.iter().all(|leaf| leaf.missing_key.is_some()) {
            self.gave_up.set(Some(node.world.time.uptime()));
            return Err(decide::left_over(&due));
        }
        check_clock(node).await?;
        let expired = leaves.is_expired(now);
        if expired {
            self.tell(
                node,
                "a certificate of this control plane has ended; all are renewed at once, without the other masters",
            );
        } else {
            must_be_ready(api, "this machine's API server").await?;
            if let Some(urgent) = leaves.urgent_at(past.made_after).filter(|urgent| *urgent > now) {
                // kubeadm reads the lives of certificates from the cluster, through the endpoint; without them it takes its
                // defaults, which is better than to let them end.
                must_be_ready(&Api::admin(&node.world.cluster), "the control plane endpoint").await?;
                let nodes = api.get(MASTERS).await?.unwrap_or_default();
                let away = ready_nodes::not_ready(&nodes, &node.identity.node_name);
                if !away.is_empty() {
                    self.tell(node, &format!("certificates are due; waiting until {} is Ready", away.join(", ")));
                    // Certificates that live minutes do not outlast a wait for weeks.
                    return Ok(node.jitter(WAIT_FOR_MASTER).min(until(node, Some(urgent))));
                }
            }
            if let Some(holder) = self.turn.take(node, api).await? {
                self.tell(node, &format!("certificates are due; waiting for {holder}, which renews its own"));
                return Ok(node.jitter(WAIT));
            }
            let first = due.first().map_or("", |leaf| leaf.path);
            self.tell(node, &format!("renewing {} certificates, {first} first", due.len()));
        }
        journal(node).note(Entry::RenewalBegan { expired })?;
        Ok(Duration::ZERO)
    }

    async fn renew(&self, node: &Node, api: &Api, leaves: &Leaves, past: &Past, expired: bool) -> Outcome<Duration> {
        let due = leaves.due(node.world.time.now(), past.made_after);
        let job = node.world.jobs.observe(&run::job_name(COMMAND)).await?;
        let ended = match job {
            JobState::Running { .. } => run::wait(node, COMMAND).await?,
            // It ended before the journal said so.
            _ if due.is_empty() => Ended::Well,
            _ => {
                // Whoever lost the turn, for it was away for long, asks for it again.
                if !expired && let Some(holder) = self.turn.take(node, api).await? {
                    self.tell(node, &format!("the renewal waits for {holder}, which renews its own certificates"));
                    return Ok(node.jitter(WAIT));
                }
                start(node).await?
            }
        };
        match ended {
            Ended::Well => {
                let now = Leaves::read(&*node.world.files)?;
                let all = !due.iter().any(|before| now.list.contains(before));
                journal(node).note(Entry::CertificatesRenewed { all })?;
                node.world.jobs.forget(&run::job_name(COMMAND)).await?;
                Ok(Duration::ZERO)
            }
            Ended::Badly(failure) => Err(failure),
            Ended::Vanished => {
                let why = "its process vanished (power loss, or it was killed)";
                Err(Failure::new(Cause::ToolFailed, "run `kubeadm certs renew all`", why)
                    .advise("it is repeated by itself"))
            }
        }
    }

    /// One pod is started anew, or awaited; at the end the turn is given back.
    async fn restart(&self, node: &Node, api: &Api, leaves: &Leaves, past: &Past, expired: bool) -> Outcome<Duration> {
        // No answer is no error: the API server may be the one that restarts.
        let turn = if expired { Ok(None) } else { self.turn.take(node, api).await };
        let is_ready = api.is_ready().await.unwrap_or(false);
        let manifests = Manifest::read_all(&*node.world.files)?;
        let mut pods = Vec::new();
        for manifest in &manifests {
            let has = manifest.certificates.as_deref() == Some(leaves.digest.as_str());
            // With certificates that had ended, the kubelet may be unable to say how its pods are.
            let is_up = has && (expired || is_up(api, manifest, node, &leaves.digest).await);
            pods.push(Pod { has, is_up });
        }
        match decide::next(&pods, is_ready, matches!(turn, Ok(None)), expired) {
            Act::Restart(index) => {
                let manifest = &manifests[index];
                manifest.restart(&*node.world.files, &leaves.digest)?;
                self.await_since(node, &manifest.name);
                self.tell(node, &format!("{} is started anew, with its renewed certificates", manifest.name));
                Ok(SOON)
            }
            Act::Await(index) => {
                let what = index.map_or("kube-apiserver", |index| manifests[index].name.as_str());
                self.patience(node, what)?;
                if let Ok(Some(holder)) = turn {
                    self.tell(node, &format!("the renewal waits for {holder}, which renews its own certificates"));
                    return Ok(node.jitter(WAIT));
                }
                Ok(SOON)
            }
            Act::End => self.end(node, api, leaves, past, expired).await,
        }
    }

    async fn end(&self, node: &Node, api: &Api, leaves: &Leaves, past: &Past, expired: bool) -> Outcome<Duration> {
        if !expired {
            self.turn.give_back(node, api).await?;
        }
        journal(node).note(Entry::RenewalEnded)?;
        let ends = super::certificates::earliest_expiry(node)?;
        node.update(|status| status.certificates_expire_at = ends);
        self.awaited.replace(None);
        let left = leaves.due(node.world.time.now(), past.made_after);
        if left.is_empty() {
            self.tell(node, "certificates are renewed, and every static pod uses them");
            return Ok(LOOK_AT_LEAST);
        }
        self.gave_up.set(Some(node.world.time.uptime()));
        Err(decide::left_over(&left))
    }

    fn await_since(&self, node: &Node, what: &str) {
        self.awaited.replace(Some((what.to_owned(), node.world.time.uptime())));
    }

    /// An error when this has been awaited for too long. It is awaited all the same, and no other pod is touched before.
    fn patience(&self, node: &Node, what: &str) -> Outcome<()> {
        let known = self.awaited.borrow().clone().filter(|(known, _)| known == what);
        let Some((_, since)) = known else {
            self.await_since(node, what);
            return Ok(());
        };
        let waited = node.world.time.uptime().saturating_sub(since);
        if waited < HEALTH {
            return Ok(());
        }
        let attempted = format!("start {what} anew with its renewed certificates");
        let why = format!("it is not healthy after {} s; no other static pod is touched before", waited.as_secs());
        Err(Failure::new(Cause::ApiUnavailable, attempted, why)
            .advise("look at `crictl ps -a`, its log, and `journalctl -u kubelet`; the renewal goes on by itself when it is healthy"))
    }

    fn tell(&self, node: &Node, text: &str) {
        if self.told.replace(text.to_owned()) != text {
            node.tell(&Event::Note(text));
        }
    }
}

/// With a wrong clock certificates would be made that are not valid yet (safety rule 9). A store without a clock of its
/// own cannot tell.
async fn check_clock(node: &Node) -> Outcome<()> {
    let reading = Store::of(node).bundle(None).await?;
    match clock_skew(node.world.time.now(), reading.served_at) {
        None => Ok(()),
        Some(skew) => {
            let why = format!("the local clock differs from the store's by {} s", skew.as_secs());
            Err(Failure::new(Cause::ClockSkew, "renew the certificates of this control plane", why))
        }
    }
}

async fn must_be_ready(api: &Api, what: &str) -> Outcome<()> {
    if api.is_ready().await? {
        return Ok(());
    }
    let attempted = "renew the certificates of this control plane";
    Err(Failure::new(Cause::ApiUnavailable, attempted, format!("{what} is not ready (/readyz)")))
}

/// Whether the pod that runs has the annotation of its manifest, and is Ready. The kubelet makes the mirror pod anew once the
/// old one has ended, so an old pod is never taken for the new one.
async fn is_up(api: &Api, manifest: &Manifest, node: &Node, certificates: &str) -> bool {
    let (namespace, name) = (encode_segment(&manifest.namespace), &manifest.name);
    let name = encode_segment(&format!("{name}-{}", node.identity.node_name));
    let Ok(Some(pod)) = api.get(&format!("/api/v1/namespaces/{namespace}/pods/{name}")).await else { return false };
    let annotation = pod.get("metadata").and_then(|it| it.get("annotations")).and_then(|it| it.get(ANNOTATION));
    annotation.and_then(Value::as_str) == Some(certificates) && ready_nodes::is_ready(&pod)
}

async fn start(node: &Node) -> Outcome<Ended> {
    let root_flags = documents::root_flags(node);
    let mut argv: Vec<String> = ["kubeadm", "certs", "renew", "all"].map(str::to_owned).to_vec();
    argv.extend(root_flags);
    let job = JobSpec { name: run::job_name(COMMAND), run: node.uuid().to_string(), argv, deadline: RENEW_DEADLINE };
    node.world.jobs.start(&job).await?;
    run::wait(node, COMMAND).await
}
