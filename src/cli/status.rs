//! `status`: this node's journal and health; `--cluster`: what every node says of itself in the store.

use super::compose::{self, StoreArgs};
use super::control_planes::ControlPlanes;
use super::last_word::LastWord;
use super::state::Lock;
use super::{Form, Global, Output, print, print_json};
use crate::observe::text::{ago, duration, expiry, fold, table};
use clap::Args;
use jiff::Timestamp;
use kubestrap_core::config::settings::Settings;
use kubestrap_core::gate::ReadOnly;
use kubestrap_core::journal::{Attempt, Entry, Journal, Line, last_attempt};
use kubestrap_core::kube::Api;
use kubestrap_core::kubeadm::machine::Machine;
use kubestrap_core::model::cause::{ExitCode, Outcome};
use kubestrap_core::model::plain::plain;
use kubestrap_core::model::register::{Register, RegisterState, SCHEMA};
use kubestrap_core::model::report::DriftReport;
use kubestrap_core::node::{Node, Silent};
use kubestrap_core::rollout::wire::Verdict;
use kubestrap_core::store::Store;
use kubestrap_core::store::reports::ReportEntry;
use kubestrap_core::world::World;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Show how this node stands, or, with --cluster, all nodes of the cluster.
#[derive(Args)]
#[command(after_help = "Examples:
  kubestrap status
  kubestrap status --cluster
  kubestrap status --cluster --store s3://acme-clusters/k8s --cluster-name prod
                             from a laptop: needs only the right to read the bucket")]
pub struct Status {
    /// Read every node's report from the store.
    #[arg(long)]
    cluster: bool,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    output: Output,
}

impl Status {
    /// Prints the status; exit code 0 whatever it says.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        if self.cluster || self.store.is_given() {
            let (settings, world) = compose::reader(global, &self.store).await?;
            let view = ClusterView::read(&settings, &world).await?;
            match self.output.output {
                Form::Human => print(&view.human())?,
                Form::Json => print_json(&view.json())?,
            }
        } else {
            let node = compose::node(global, Rc::new(ReadOnly), Rc::new(Silent)).await?;
            let view = NodeView::read(&node, Lock::is_held(global)).await?;
            match self.output.output {
                Form::Human => print(&view.human(&node))?,
                Form::Json => print_json(&view.json(&node))?,
            }
        }
        Ok(ExitCode::Done)
    }
}

/// The cluster as the store shows it.
struct ClusterView {
    name: String,
    now: Timestamp,
    register: Option<Register>,
    reports: Vec<ReportEntry>,
}

impl ClusterView {
    async fn read(settings: &Settings, world: &World) -> Outcome<ClusterView> {
        let store = Store::new(world.objects.clone(), world.time.clone(), settings.cluster.clone());
        Ok(ClusterView {
            name: settings.cluster.to_string(),
            now: world.time.now(),
            register: store.register().await?.map(|seen| seen.register),
            reports: store.reports().await?,
        })
    }

    fn human(&self) -> String {
        let mut out = match &self.register {
            None => format!("Cluster {}: no master has claimed it yet\n", self.name),
            Some(register) => format!("Cluster {} ({}): {}\n", self.name, register.uid, self.register_words(register)),
        };
        if self.reports.is_empty() {
            out.push_str("No node has reported yet.\n");
            return out;
        }
        let heading = ["NODE", "ROLE", "PHASE", "STEP", "VERSION", "DRIFT", "BUNDLE", "CERTIFICATES", "REPORTED"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(self.reports.iter().map(|entry| self.row(entry)));
        out.push('\n');
        out.push_str(&table(&rows));
        out.push_str(&self.control_planes().human(self.now));
        for entry in &self.reports {
            let (name, message) = match &entry.report {
                Ok(report) => match &report.error {
                    Some(error) => (&report.identity.node_name, &error.message),
                    None => continue,
                },
                Err(failure) => (&entry.identity, &failure.detail),
            };
            out.push_str(&format!("\n{}: {}\n", plain(name), fold(&plain(message), 100, 2)));
        }
        out
    }

    fn control_planes(&self) -> ControlPlanes<'_> {
        let reports = self.reports.iter();
        ControlPlanes::of(reports.filter_map(|entry| Some((entry.report.as_ref().ok()?, self.is_stale(entry)))))
    }

    fn register_words(&self, register: &Register) -> String {
        match &register.state {
            RegisterState::Established { created_by, created_at, .. } => {
                format!("established {} by {}", ago(self.now, *created_at), plain(&created_by.node_name))
            }
            RegisterState::Initialising { holder: Some(holder), since, .. } => {
                format!("being initialised by {}, begun {}", plain(&holder.node_name), ago(self.now, *since))
            }
            RegisterState::Initialising { holder: None, .. } => "unlocked; the next master initialises it".to_owned(),
        }
    }

    fn row(&self, entry: &ReportEntry) -> Vec<String> {
        let Ok(report) = &entry.report else {
            return [plain(&entry.identity).as_str(), "?", "unreadable"].map(str::to_owned).to_vec();
        };
        let stale = if self.is_stale(entry) { " (stale)" } else { "" };
        let when = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| expiry(self.now, time));
        vec![
            plain(&report.identity.node_name),
            report.role.as_str().to_owned(),
            report.phase.as_str().to_owned(),
            report.step.as_deref().map_or_else(|| "-".to_owned(), plain),
            report.versions.get("kubelet").map_or_else(|| "-".to_owned(), |version| plain(version)),
            report.drift.as_ref().map_or_else(|| "-".to_owned(), drift),
            when(report.bundle_expires_at),
            when(report.certificates_expire_at),
            format!("{}{stale}", ago(self.now, report.reported_at)),
        ]
    }

    /// By the store's clock where it has one; the clocks of nodes differ.
    fn is_stale(&self, entry: &ReportEntry) -> bool {
        let Ok(report) = &entry.report else { return false };
        let (written, now) = match (entry.modified, entry.served_at) {
            (Some(written), Some(now)) => (written, now),
            _ => (report.reported_at, self.now),
        };
        let age = now.as_second() - written.as_second();
        age > i64::try_from(report.next_within_s).unwrap_or(i64::MAX)
    }

    fn json(&self) -> Value {
        let nodes = self.reports.iter().map(|entry| match &entry.report {
            Ok(report) => json!({ "identity": entry.identity, "stale": self.is_stale(entry), "report": report }),
            Err(failure) => json!({ "identity": entry.identity, "unreadable": failure.to_string() }),
        });
        json!({
            "schema": SCHEMA,
            "cluster": self.name,
            "register": self.register,
            "nodes": nodes.collect::<Vec<_>>(),
            "control_plane": self.control_planes().json(),
        })
    }
}

/// `drifted (replace)`: the verdict, and how far it may go.
fn drift(drift: &DriftReport) -> String {
    match drift.verdict {
        Verdict::Drifted => format!("drifted ({})", plain(&drift.action)),
        Verdict::Current if drift.warnings.is_empty() => "current".to_owned(),
        Verdict::Current => "current (warning)".to_owned(),
        Verdict::Unknown => "unknown".to_owned(),
    }
}

/// This machine, from its own files and its own API access; the store is not asked.
struct NodeView {
    now: Timestamp,
    agent: bool,
    lines: Vec<Line>,
    attempt: Option<Attempt>,
    traces: Vec<String>,
    registration: Registration,
    said: Option<LastWord>,
}

/// What the API server says of this node.
enum Registration {
    NotAsked,
    Failed(String),
    Absent,
    Ready { kubelet: String },
    NotReady { why: String },
}

impl NodeView {
    async fn read(node: &Node, agent: bool) -> Outcome<NodeView> {
        let journal = Journal::new(node.world.files.clone(), node.world.time.clone());
        let lines = journal.lines()?;
        let machine = Machine::look(&*node.world.files)?;
        let registration = if machine.kubelet_conf { ask(node).await } else { Registration::NotAsked };
        let now = node.world.time.now();
        let said = LastWord::load(&*node.world.files);
        Ok(NodeView { now, agent, attempt: last_attempt(&lines), lines, traces: machine.traces, registration, said })
    }

    fn attempt_words(&self) -> String {
        match &self.attempt {
            None if self.traces.is_empty() => "nothing was begun on this machine".to_owned(),
            None => "this machine carries Kubernetes state that kubestrap did not make".to_owned(),
            Some(a) if a.resetting => format!("a reset of attempt {} did not end", a.id),
            Some(a) if a.completed => format!("complete: a node of cluster {}", a.uid),
            Some(a) if a.committed.is_some() => format!("made cluster {}; not complete yet", a.uid),
            Some(a) if a.joined.is_some() => format!("joined cluster {}; not complete yet", a.uid),
            Some(a) => format!("attempt {} for cluster {} has not ended", a.id, a.uid),
        }
    }

    fn registration_words(&self) -> String {
        match &self.registration {
            Registration::NotAsked => "not known: the kubelet has no credentials yet".to_owned(),
            Registration::Failed(why) => format!("not known: {why}"),
            Registration::Absent => "not registered".to_owned(),
            Registration::Ready { kubelet } => format!("Ready ({kubelet})"),
            Registration::NotReady { why } => format!("NotReady: {why}"),
        }
    }

    /// The last run of each step, in the order they were first run.
    fn steps(&self) -> Vec<StepLine> {
        let mut steps: Vec<StepLine> = Vec::new();
        let mut place: BTreeMap<String, usize> = BTreeMap::new();
        for line in &self.lines {
            if let Entry::StepBegan { step, .. } = &line.entry {
                let fresh = StepLine { name: step.clone(), began: line.at, took: None, failure: None };
                match place.get(step) {
                    Some(index) => steps[*index] = fresh,
                    None => {
                        place.insert(step.clone(), steps.len());
                        steps.push(fresh);
                    }
                }
            }
            if let Entry::StepEnded { step, took_ms, failure } = &line.entry
                && let Some(known) = place.get(step).and_then(|index| steps.get_mut(*index))
            {
                known.took = Some(Duration::from_millis(*took_ms));
                known.failure = failure.as_ref().map(|(_, text)| text.clone());
            }
        }
        steps
    }

    fn human(&self, node: &Node) -> String {
        let agent = if self.agent { "running" } else { "not running (`systemctl status kubestrap`)" };
        let facts = [
            ("Node", format!("{} ({})", node.identity.node_name, node.settings.role.as_str())),
            ("Cluster", node.settings.cluster.to_string()),
            ("Identity", node.identity.key()),
            ("Agent", agent.to_owned()),
            ("State", self.attempt_words()),
            ("Kubernetes", self.registration_words()),
        ];
        let mut out = String::new();
        let said = self.said.as_ref().and_then(LastWord::words).map(|words| ("It says", words));
        for (name, value) in facts.into_iter().chain(said) {
            out.push_str(&format!("{name:12}{}\n", fold(&plain(&value), 100, 12)));
        }
        let steps = self.steps();
        if steps.is_empty() {
            return out;
        }
        let mut rows = vec![["STEP", "LAST RUN", "TOOK", "RESULT"].map(str::to_owned).to_vec()];
        rows.extend(steps.into_iter().map(|step| {
            let result = match (&step.took, &step.failure) {
                (None, _) => "did not end".to_owned(),
                (Some(_), None) => "ok".to_owned(),
                (Some(_), Some(failure)) => plain(failure),
            };
            vec![step.name, ago(self.now, step.began), step.took.map_or_else(|| "-".to_owned(), duration), result]
        }));
        out.push('\n');
        out.push_str(&table(&rows));
        out
    }

    fn json(&self, node: &Node) -> Value {
        let steps = self.steps().into_iter().map(|step| {
            json!({
                "name": step.name,
                "began": step.began,
                "took_ms": step.took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
                "failure": step.failure,
            })
        });
        json!({
            "schema": SCHEMA,
            "node": node.identity.node_name,
            "role": node.settings.role,
            "cluster": node.settings.cluster,
            "identity": node.identity.key(),
            "agent_running": self.agent,
            "phase": self.said.as_ref().map(|said| said.phase),
            "step": self.said.as_ref().and_then(|said| said.step.as_deref()),
            "waiting_for": self.said.as_ref().and_then(|said| said.waiting_for.as_deref()),
            "error": self.said.as_ref().and_then(|said| said.error.as_ref()),
            "complete": self.attempt.as_ref().is_some_and(|attempt| attempt.completed),
            "state": self.attempt_words(),
            "kubernetes": self.registration_words(),
            "steps": steps.collect::<Vec<_>>(),
        })
    }
}

struct StepLine {
    name: String,
    began: Timestamp,
    took: Option<Duration>,
    failure: Option<String>,
}

async fn ask(node: &Node) -> Registration {
    match Api::kubelet(&node.world.cluster).node(&node.identity.node_name).await {
        Err(failure) => Registration::Failed(failure.to_string()),
        Ok(None) => Registration::Absent,
        Ok(Some(view)) => match view.not_ready_because {
            None => Registration::Ready { kubelet: view.kubelet_version.unwrap_or_default() },
            Some(why) => Registration::NotReady { why },
        },
    }
}
