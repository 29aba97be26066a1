//! `arbitrate-rollout`: the agent of a master decides which drifted node may go next, and does what only it may do.
//!
//! Every round begins anew from what the API server says. Nodes are read before the ledger: so what the ledger says is
//! never older than what is on a Node, and a change of a Node over the version that was read cannot undo what came later.

use crate::config::settings::{Action as Configured, DriftSettings};
use crate::engine::Duty;
use crate::kube::Api;
use crate::kube::lease::{FOLLOWING, leads};
use crate::model::cause::{Failure, Outcome};
use crate::node::{Event, Node, RolloutStatus};
use crate::rollout::copies::{Act, acts, may_be_ended};
use crate::rollout::decide::{Plan, decide, should_hand_over};
use crate::rollout::ghosts::Ghosts;
use crate::rollout::launches::launches;
use crate::rollout::ledger::{Ledger, Phase, image};
use crate::rollout::view::{View, Watch, suspects};
use crate::rollout::wire::{Action, Request};
use crate::rollout::{Rules, cluster};
use async_trait::async_trait;
use jiff::Timestamp;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

/// While nobody asks for anything: one list of the Nodes ...
const IDLE: Duration = Duration::from_secs(2 * 60);
/// ... and where the master's own configuration expects no rollout: an idle master has a budget of requests to keep
/// (`idle.rs` of the simulator).
const UNEXPECTED: Duration = Duration::from_secs(20 * 60);
/// While something goes on.
const ACTIVE: Duration = Duration::from_secs(10);
/// While somebody asks and nothing can be granted, which may last for ever: the only master's own node.
const RESTING: Duration = Duration::from_secs(40);
/// Somebody else changed the ledger in between.
const AGAIN: Duration = Duration::from_secs(2);
/// A decision may ask what groups would start; each answer may lead to one more question.
const QUESTIONS: usize = 4;

#[derive(Default)]
pub(crate) struct RolloutDuty {
    watch: RefCell<Watch>,
    ghosts: Ghosts,
    /// Whether the last round had something to do; then others may be at it too.
    busy: Cell<bool>,
    /// Whether the ledger had no grant when it was read last: a new one follows from a request, which is seen on a Node.
    quiet: Cell<bool>,
    /// What was told already.
    told: RefCell<BTreeSet<String>>,
}

fn idle(node: &Node) -> Duration {
    if node.settings.drift.action > Configured::Report { IDLE } else { UNEXPECTED }
}

#[async_trait(?Send)]
impl Duty for RolloutDuty {
    fn name(&self) -> &'static str {
        "arbitrate-rollout"
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(5 * 60)
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        if !leads(node).await? {
            return Ok(FOLLOWING);
        }
        let api = Api::admin(&node.world.cluster);
        let mut view = cluster::read_nodes(&api, &node.identity.node_name).await?;
        let asked = is_asked(&view);
        if !asked && self.quiet.get() {
            return Ok(node.jitter(idle(node)));
        }
        let stored = cluster::read_ledger(&api).await?;
        self.quiet.set(stored.ledger.grants.is_empty());
        self.busy.set(asked || !self.quiet.get());
        if !self.busy.get() {
            node.update(|status| status.rollout = summary(&stored.ledger, &[]));
            return Ok(node.jitter(idle(node)));
        }
        let Some(clock) = clock(node, &api).await? else { return Ok(FOLLOWING) };
        view.api_clock = view.api_clock.max(Some(clock));
        view.paused.clone_from(&stored.paused);
        let trouble = self.complete(node, &api, &mut view, &stored.ledger).await?;
        let plan = plan(node, &mut view, &stored.ledger).await;
        if plan.ledger != stored.ledger && !cluster::write_ledger(&api, &stored, &plan.ledger).await? {
            return Ok(AGAIN);
        }
        self.tell(node, &view, &stored.ledger, &plan);
        node.update(|status| status.rollout = summary(&plan.ledger, &plan.holds));
        let failure = carry_out(node, &api, &view, &plan.ledger).await.or(trouble);
        if failure.is_none() && should_hand_over(&view, &plan.ledger) && node.lease.give_back(node, &api).await? {
            node.tell(&Event::Note("this master's own node is drifted: another master leads"));
        }
        let rests = plan.ledger == stored.ledger && plan.ledger.grants.is_empty();
        failure.map_or(Ok(if rests { RESTING } else { ACTIVE }), Err)
    }
}

impl RolloutDuty {
    /// Adds to the Nodes what others say. EC2's silence is told, and stops only what needs its word.
    async fn complete(&self, node: &Node, api: &Api, view: &mut View, ledger: &Ledger) -> Outcome<Option<Failure>> {
        if view.nodes.iter().any(|node| node.master && node.wants()) {
            view.voters = cluster::read_voters(api).await?;
        }
        self.watch.borrow_mut().observe(view, ledger, node.world.time.uptime());
        match self.ghosts.look(node, &suspects(view, ledger)).await {
            Ok(instances) => view.instances = instances,
            Err(failure) => return Ok(Some(failure)),
        }
        Ok(None)
    }

    /// Tells what is new, in one line each.
    fn tell(&self, node: &Node, view: &View, before: &Ledger, plan: &Plan) {
        let mut lines: Vec<String> = Vec::new();
        for entry in &plan.ledger.grants {
            let known = before.grants.iter().find(|known| known.id == entry.id);
            if known.is_none_or(|known| known.phase != entry.phase) {
                let (name, word) = (&entry.node, entry.phase.as_str());
                lines.push(format!(
                    "rollout of group {} to {}: {name} is {word}: {}",
                    entry.group,
                    image(&entry.desired),
                    entry.why
                ));
            }
        }
        for rollout in &plan.ledger.rollouts {
            if let Some(pause) = &rollout.paused {
                lines.push(format!(
                    "the rollout of group {} to {} is paused: {}",
                    rollout.group,
                    image(&rollout.desired),
                    pause.why
                ));
            }
        }
        lines.extend(plan.holds.iter().map(|hold| format!("nothing more is granted: {hold}")));
        lines.extend(view.nodes.iter().flat_map(|node| &node.faults).map(ToString::to_string));
        let mut told = self.told.borrow_mut();
        for line in &lines {
            if !told.contains(line) {
                node.tell(&Event::Note(line));
            }
        }
        *told = lines.into_iter().collect();
    }
}

/// The API server's clock of the latest renewal of the Lease; `None` when another master leads. A cluster with one master
/// has no duty that renews it, so that is done here, while something goes on.
async fn clock(node: &Node, api: &Api) -> Outcome<Option<Timestamp>> {
    if node.settings.pki.is_none() && !node.lease.round(node, api).await? {
        return Ok(None);
    }
    Ok(node.lease.api_clock(node))
}

/// Whether a Node asks for anything, or carries what may have to be taken away.
fn is_asked(view: &View) -> bool {
    let asks = |request: &Request| request.is_drifted() && request.action >= Action::Mark;
    view.nodes.iter().any(|node| node.is_touched() || node.request.as_ref().is_some_and(asks))
}

async fn plan(node: &Node, view: &mut View, ledger: &Ledger) -> Plan {
    let drift: &DriftSettings = &node.settings.drift;
    let rules = Rules { rollout: &drift.rollout, drain_within: drift.drain_within };
    let (now, id) = (node.world.time.now(), node.uuid());
    let mut plan = decide(view, ledger, &rules, now, id);
    for _ in 0..QUESTIONS {
        let Some(own) = node.identity.ec2() else { break };
        if plan.questions.is_empty() {
            break;
        }
        for instance in std::mem::take(&mut plan.questions) {
            let answer = launches(&*node.world.cloud, &own.region, &instance).await;
            view.launches.insert(instance, answer);
        }
        plan = decide(view, ledger, &rules, now, id);
    }
    plan
}

/// Does what the stored ledger asks for; the first failure, after everything was tried.
async fn carry_out(node: &Node, api: &Api, view: &View, ledger: &Ledger) -> Option<Failure> {
    let mut first = None;
    for act in acts(view, ledger) {
        let done = match &act {
            Act::Show { node, grant } => cluster::show_grant(api, node, grant).await,
            Act::TakeAway { node, id } => cluster::take_away(api, node, id).await,
            Act::Taint { node, taints } => cluster::set_taints(api, node, taints).await,
            Act::Remove { node } => cluster::remove_node(api, node).await,
            Act::Terminate { entry, instance } => terminate(node, api, entry.id, instance).await,
        };
        if let Err(failure) = done {
            first.get_or_insert(Failure { attempted: format!("{}: {}", act.title(), failure.attempted), ..failure });
        }
    }
    first
}

/// Ends an instance, when the ledger and the Node still say so at this moment.
async fn terminate(node: &Node, api: &Api, grant: uuid::Uuid, instance: &str) -> Outcome<()> {
    let Some(own) = node.identity.ec2().filter(|own| own.instance_id != instance) else { return Ok(()) };
    let stored = cluster::read_ledger(api).await?;
    let entry = stored.ledger.grants.iter().find(|entry| entry.id == grant && entry.phase == Phase::Replacing);
    let Some(entry) = entry.filter(|_| stored.paused.is_none()) else { return Ok(()) };
    let Some(found) = cluster::read_node(api, &entry.node).await? else { return Ok(()) };
    if !may_be_ended(&found, entry) || entry.instance.as_deref() != Some(instance) {
        return Ok(());
    }
    node.world.cloud.terminate_in_group(&own.region, instance).await?;
    node.tell(&Event::Note(&format!("the instance {instance} of node {} is being replaced", entry.node)));
    Ok(())
}

fn summary(ledger: &Ledger, holds: &[String]) -> Option<RolloutStatus> {
    let paused = ledger.rollouts.iter().filter(|rollout| rollout.paused.is_some()).count();
    let refused = ledger.rollouts.iter().filter(|rollout| rollout.refused.is_some()).count();
    Some(RolloutStatus { open: ledger.grants.len(), paused, refused, held_because: holds.first().cloned() })
}
