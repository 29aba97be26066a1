//! `watch-end`: sees that this instance is about to end, and empties the node in time.
//!
//! What was begun stands on the Node (cordon, mark) and in the pods; a restarted agent goes on from there.

use crate::drain::{self, Blocked, DrainPlan, DrainState};
use crate::end::decide::{self, Plan, Policy};
use crate::end::events::{Kind, Notice};
use crate::end::hooks::Hook;
use crate::end::look::Looker;
use crate::end::mark::{self, Mark};
use crate::engine::Duty;
use crate::etcd::leave::{leave, may_pass};
use crate::identity::Imds;
use crate::kube::Api;
use crate::model::cause::{Failure, Outcome};
use crate::model::identity::Role;
use crate::model::report::EndReport;
use crate::node::{Event, Node};
use crate::ports::LifecycleResult;
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Of the two minutes that a spot instance has, this much may be lost before anything begins.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Where there is nothing to look at.
const NEVER: Duration = Duration::from_secs(60 * 60);
/// A round of a drain is over in 40 s and some lists; the calls beside it have their own deadlines.
const DEADLINE: Duration = Duration::from_secs(120);
/// So many whole looks without any notice make an end that was announced one that is called off.
const CLEAR_LOOKS: u32 = 3;
/// How long after its deadline a drain is still looked at before the hook is told to go on.
const TAIL: Duration = Duration::from_secs(30);
/// A master leaves this long before the end at the latest: it takes some seconds.
const LEAVE_BEFORE: SignedDuration = SignedDuration::from_secs(15);
/// A failure that has not come back for so long is news when it does.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5 * 60);
/// How many pods that block are named.
const NAMED: usize = 5;
/// The longest text about them, in characters.
const LONGEST: usize = 1000;

/// Watches for the end.
#[derive(Default)]
pub(super) struct EndDuty {
    imds: RefCell<Option<Rc<Imds>>>,
    looker: Looker,
    hook: Hook,
    memory: RefCell<Memory>,
}

#[derive(Default)]
struct Memory {
    /// When this life saw a kind first.
    first: BTreeMap<Kind, Timestamp>,
    /// What stands on the Node; `None`: it was not read in this life.
    mark: Option<Option<Mark>>,
    /// The end for which the node is empty, or for which the drain was given up.
    settled: Option<Kind>,
    /// Whole looks in a row without a notice.
    clear: u32,
    /// Whether there is nothing on the Node that an end left.
    released: bool,
    /// Whether this master has left, or cannot.
    left: bool,
    /// What was told, and when it was so last: it is told once.
    told: BTreeMap<String, Duration>,
}

#[async_trait(?Send)]
impl Duty for EndDuty {
    fn name(&self) -> &'static str {
        "watch-end"
    }

    fn deadline(&self) -> Duration {
        DEADLINE
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        if node.identity.ec2().is_none() || node.settings.end.watch == Some(false) {
            return Ok(NEVER);
        }
        let policy = Policy { rebalance: node.settings.end.rebalance, drain_within: node.settings.drift.drain_within };
        let seen = self.looker.look(&self.imds(node), node.world.time.uptime(), policy.rebalance).await;
        let (whole, mut failures) = (seen.is_whole(), seen.failures);
        let now = node.world.time.now();
        self.remember(&seen.notices, now);
        let after = match decide::winner(&seen.notices, now, policy) {
            Some(notice) => self.end(node, notice, &seen.notices, policy, &mut failures).await,
            None => {
                if whole {
                    failures.extend(self.clear(node).await.err());
                }
                LOOK_EVERY
            }
        };
        self.trouble(node, &failures);
        Ok(after)
    }
}

impl EndDuty {
    fn imds(&self, node: &Node) -> Rc<Imds> {
        let make = || Rc::new(Imds::new(node.world.metadata.clone(), node.world.time.clone()));
        self.imds.borrow_mut().get_or_insert_with(make).clone()
    }

    /// When each kind was seen first.
    fn remember(&self, notices: &[Notice], now: Timestamp) {
        let first = &mut self.memory.borrow_mut().first;
        first.retain(|kind, _| notices.iter().any(|notice| notice.kind == *kind));
        for notice in notices {
            first.entry(notice.kind).or_insert(now);
        }
    }

    /// One round of the end: a sign of life for the hook, a round of the drain, and the hook's completion when the node
    /// is empty or its time is over. What fails is told, and does not keep the rest from being done.
    async fn end(
        &self,
        node: &Node,
        notice: &Notice,
        notices: &[Notice],
        policy: Policy,
        failures: &mut Vec<Failure>,
    ) -> Duration {
        let api = Api::kubelet(&node.world.cluster);
        let hook = node.settings.end.terminate_hook.as_deref();
        let hook = hook.filter(|_| notices.iter().any(|notice| notice.kind == Kind::Termination));
        if let Some(name) = hook {
            failures.extend(self.hook.beat(node, name).await.err());
        }
        let read = self.read_mark(node, &api).await;
        let plan = self.plan(notice, policy, node.world.time.now());
        self.announce(node, &plan);
        let drained = match read {
            Ok(()) => self.empty(node, &api, &plan).await,
            Err(failure) => Err(failure),
        };
        let after = drained.unwrap_or_else(|failure| {
            failures.push(failure);
            LOOK_EVERY
        });
        let late = Duration::try_from(node.world.time.now().duration_since(plan.deadline)).unwrap_or_default();
        let settled = self.memory.borrow().settled == Some(plan.kind);
        let soon = later_than(node.world.time.now(), plan.deadline, LEAVE_BEFORE);
        if self.must_leave(node, plan.kind) && (settled || soon) && !self.leave(node, late, failures).await {
            return LOOK_EVERY;
        }
        if let Some(name) = hook.filter(|_| settled || late >= TAIL)
            && !self.hook.is_over()
        {
            match self.hook.complete(node, name, LifecycleResult::Continue).await {
                Ok(true) => node.tell(&Event::Note(&format!("the lifecycle hook {name} was told to continue"))),
                Ok(false) => {}
                Err(failure) => failures.push(failure),
            }
        }
        after.min(LOOK_EVERY)
    }

    /// Whether the machine of a master ends for good: its member must not stay behind. A reboot and a maintenance bring it
    /// back, and a rebalance is no end yet. Without the setting `pki` there is no other master.
    fn must_leave(&self, node: &Node, kind: Kind) -> bool {
        let ends = matches!(kind, Kind::Spot | Kind::Termination);
        ends && node.settings.role == Role::Master && node.settings.pki.is_some() && !self.memory.borrow().left
    }

    /// Takes this master's member away. `false`: it is tried again. What cannot be, or not in time, keeps nothing from
    /// going on: the machine ends in any case, and the master that leads removes the member then.
    async fn leave(&self, node: &Node, late: Duration, failures: &mut Vec<Failure>) -> bool {
        let over = match leave(node).await {
            Ok(farewell) => {
                node.tell(&Event::Note("this master has left its cluster"));
                failures.extend(farewell.node_left);
                true
            }
            Err(failure) => {
                let over = !may_pass(&failure) || late >= TAIL;
                failures.push(failure);
                over
            }
        };
        self.memory.borrow_mut().left = over;
        over
    }

    async fn read_mark(&self, node: &Node, api: &Api) -> Outcome<()> {
        if self.memory.borrow().mark.is_none() {
            let found = mark::read(api, &node.identity.node_name).await?;
            self.memory.borrow_mut().mark = Some(found);
        }
        Ok(())
    }

    fn plan(&self, notice: &Notice, policy: Policy, now: Timestamp) -> Plan {
        let memory = self.memory.borrow();
        let first = memory.first.get(&notice.kind).copied().unwrap_or(now);
        let known = memory.mark.as_ref().and_then(|mark| mark.as_ref()?.deadline_of(notice.kind));
        decide::plan(notice, first, known, policy)
    }

    /// Says it in the log and the report, when it is another end than before.
    fn announce(&self, node: &Node, plan: &Plan) {
        let mut memory = self.memory.borrow_mut();
        (memory.clear, memory.released) = (0, false);
        let at = plan.deadline;
        let known = node.status().end;
        if known.is_none_or(|known| known.event != plan.kind.as_str() || known.at != at) {
            node.tell(&Event::Note(&format!("this node ends ({}); it is to be empty at {at}", plan.what)));
            let (event, what) = (plan.kind.as_str().to_owned(), plan.what.clone());
            let report = EndReport { event, what, at, state: "draining".to_owned(), why: None };
            node.update(|status| status.end = Some(report));
        }
    }

    /// One round of the drain; when to come again.
    async fn empty(&self, node: &Node, api: &Api, plan: &Plan) -> Outcome<Duration> {
        let name = &node.identity.node_name;
        let mark = Mark::new(plan.kind, plan.deadline);
        if self.memory.borrow().mark.as_ref().and_then(Option::as_ref) != Some(&mark) {
            mark::write(api, name, &mark).await?;
            self.memory.borrow_mut().mark = Some(Some(mark));
        }
        if self.memory.borrow().settled == Some(plan.kind) {
            return Ok(LOOK_EVERY);
        }
        let owner = mark::owner(plan.kind);
        let drain = DrainPlan { deadline: plan.deadline, hard: plan.hard, owner: &owner };
        let (state, why, after) = match drain::tick(node, api, name, &drain).await? {
            DrainState::Drained => ("drained", None, LOOK_EVERY),
            DrainState::Waiting { blocked, left, after, .. } => ("draining", waits(left, &blocked), after),
            DrainState::GaveUp { why } => ("gave-up", Some(why), LOOK_EVERY),
        };
        // After a hard deadline pods are still on their way out: it is looked at until it is empty.
        if state == "drained" || (state == "gave-up" && !plan.hard) {
            self.memory.borrow_mut().settled = Some(plan.kind);
        }
        self.progress(node, state, why);
        Ok(after)
    }

    /// Puts it into the report; an end of the drain is news for the log.
    fn progress(&self, node: &Node, state: &str, why: Option<String>) {
        let Some(known) = node.status().end else { return };
        if known.state != state && state != "draining" {
            let more = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            node.tell(&Event::Note(&format!("the drain for {}: {state}{more}", known.event)));
        }
        if known.state != state || known.why != why {
            node.update(|status| {
                if let Some(end) = &mut status.end {
                    (end.state, end.why) = (state.to_owned(), why);
                }
            });
        }
    }

    /// Nothing ends this instance. What an end that did not come has left on the Node is taken back: once in each life,
    /// for the life before may have seen a reboot that is over now.
    async fn clear(&self, node: &Node) -> Outcome<()> {
        {
            let mut memory = self.memory.borrow_mut();
            memory.clear = memory.clear.saturating_add(1);
            if memory.released || memory.clear < CLEAR_LOOKS {
                return Ok(());
            }
        }
        if mark::release(&Api::kubelet(&node.world.cluster), &node.identity.node_name).await? {
            node.tell(&Event::Note("nothing ends this instance any more: the node takes pods again"));
        }
        {
            let mut memory = self.memory.borrow_mut();
            (memory.released, memory.mark, memory.settled) = (true, Some(None), None);
        }
        if node.status().end.is_some() {
            node.update(|status| status.end = None);
        }
        Ok(())
    }

    /// Tells what is new of these failures, and forgets what is over.
    fn trouble(&self, node: &Node, failures: &[Failure]) {
        let now = node.world.time.uptime();
        let mut told = std::mem::take(&mut self.memory.borrow_mut().told);
        told.retain(|_, at| now.saturating_sub(*at) < FORGOTTEN_AFTER);
        for failure in failures {
            if told.insert(failure.to_string(), now).is_none() {
                node.tell(&Event::Retrying { what: self.name(), beside: true, failure, after: LOOK_EVERY });
            }
        }
        self.memory.borrow_mut().told = told;
    }
}

/// Whether less than `before` is left until `deadline`.
fn later_than(now: Timestamp, deadline: Timestamp, before: SignedDuration) -> bool {
    deadline.duration_since(now) <= before
}

/// What a drain waits for.
fn waits(left: usize, blocked: &[Blocked]) -> Option<String> {
    let named: Vec<String> = blocked.iter().take(NAMED).map(|of| format!("{}: {}", of.pod, of.why)).collect();
    let more = blocked.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    let held = if named.is_empty() { String::new() } else { format!("; {}{rest}", named.join("; ")) };
    let told = format!("{left} pods are left{held}");
    // It is part of the report, which has an end.
    Some(told.chars().take(LONGEST).collect())
}

#[cfg(test)]
mod tests;
