//! `nodes/<identity>/report.json`: what a node tells the others (and the person on call) about itself.

use crate::model::identity::{Identity, Role};
use crate::rollout::wire::Verdict;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing done yet.
    #[default]
    Starting,
    /// Steps are being carried out.
    Bootstrapping,
    /// A step waits for something outside this machine.
    Waiting,
    /// It is a node; duties run.
    Ready,
    /// It gave up; see `error`.
    Failed,
    /// It was told to stop.
    Stopped,
}

impl Phase {
    /// The word used in reports and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Bootstrapping => "bootstrapping",
            Phase::Waiting => "waiting",
            Phase::Ready => "ready",
            Phase::Failed => "failed",
            Phase::Stopped => "stopped",
        }
    }

    /// Every phase, for a metric with one series each.
    pub const ALL: &'static [Phase] =
        &[Phase::Starting, Phase::Bootstrapping, Phase::Waiting, Phase::Ready, Phase::Failed, Phase::Stopped];
}

/// A failure as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedError {
    /// The failure table's label.
    pub cause: String,
    /// The whole sentence, without secrets.
    pub message: String,
    /// When it was first seen.
    pub since: Timestamp,
}

/// How one step went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step's name.
    pub name: String,
    /// `done`, `running`, `failed`.
    pub state: String,
    /// When it was begun, if it was wanted in this life of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Timestamp>,
    /// How long *apply* took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// The last check's reason.
    pub why: String,
}

/// What a node says of its drift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftReport {
    /// `drifted`, `current`, `unknown`.
    pub verdict: Verdict,
    /// Why, for people.
    pub reason: String,
    /// How far it may go: `report`, `mark`, `drain`, `replace`.
    pub action: String,
    /// The image it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,
    /// The image it should run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
    /// How much differs from the bake manifest.
    #[serde(default)]
    pub differences: u64,
    /// Troubles of the running image: deprecated, disabled, deregistered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Since when the verdict is this.
    pub since: Timestamp,
}

/// How a node ends when its machine is taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndReport {
    /// `spot`, `termination`, `maintenance` or `rebalance`.
    pub event: String,
    /// For people.
    pub what: String,
    /// When the node is to be empty.
    pub at: Timestamp,
    /// `draining`, `drained` or `gave-up`.
    pub state: String,
    /// What the drain waits for, or what it left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A member of etcd, as the master that looks after them saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its id, in hexadecimal digits as etcdctl shows it.
    pub id: String,
    /// The node's name; empty for one that never started.
    pub name: String,
    /// `voter`, `learner` or `unstarted`.
    pub role: String,
    /// Whether it answers.
    pub healthy: bool,
    /// Whether it is etcd's leader.
    pub leader: bool,
    /// What is known of its machine, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// What would be done, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

/// The report itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Major version of the form.
    pub schema: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's uid once this node knows it; a missing register with such a report means *restore or retire*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Uuid>,
    /// Its role.
    pub role: Role,
    /// Who it is.
    pub identity: Identity,
    /// Where it stands.
    pub phase: Phase,
    /// The step it is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Why it is not further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ReportedError>,
    /// The steps so far.
    pub steps: Vec<StepReport>,
    /// `kubestrap`, `kubelet`, `kubeadm` and what else is known.
    pub versions: BTreeMap<String, String>,
    /// Expiry of the bundle this node publishes (masters).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_expires_at: Option<Timestamp>,
    /// Earliest expiry of the certificates below /etc/kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates_expire_at: Option<Timestamp>,
    /// Whether the node is what it should be, where something is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftReport>,
    /// How the node ends, when its machine is about to be taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<EndReport>,
    /// etcd's members, on the master that looks after them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<MemberReport>>,
    /// Whether this agent is the one that carries out the duties of which a cluster needs one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leads: bool,
    /// The last lines of kubeadm's output, redacted, when it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
    /// When the agent started, by its clock.
    pub started_at: Timestamp,
    /// When this was written, by the node's clock.
    pub reported_at: Timestamp,
    /// Seconds until the next report at the latest; a reader calls an older one stale.
    pub next_within_s: u64,
}

fn is_false(value: &bool) -> bool {
    !*value
}
