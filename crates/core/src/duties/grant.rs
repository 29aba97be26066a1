//! `carry-out-grant`: drains this node when the arbiter has granted it, says how far it is, and takes back what it did
//! when the grant is withdrawn or given up.
//!
//! What it has done stands on the Node: the grant, how far it is with it ([`Progress`]), and whose the cordon is. So an
//! agent that was killed goes on.

mod decide;
mod hook;
#[cfg(test)]
mod tests;

use crate::config::settings::Action;
use crate::drain::{self, Blocked, DrainPlan, DrainState};
use crate::engine::Duty;
use crate::kube::{Api, encode_segment, refused};
use crate::model::cause::Outcome;
use crate::node::{Event, Node};
use crate::rollout::wire::{Annotation, Progress, SCHEMA, State, shortened};
use async_trait::async_trait;
use decide::{Act, Seen, decide};
use hook::Hook;
use jiff::Timestamp;
use serde_json::json;
use std::cell::RefCell;
use std::time::Duration;
use uuid::Uuid;

/// How soon a grant is seen, plus and minus a half. A read of the own Node is what every kubelet does every ten seconds.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// Settings do not change in the life of an agent.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);
/// What blocks a drain is written to the Node when it is another thing, but not more often: etcd keeps every version.
const WORD_EVERY: Duration = Duration::from_secs(30);
/// A round of a drain is bounded itself: some lists of 20 s at worst.
const TICK: Duration = Duration::from_secs(3 * 60);
/// How many blocked pods a text names.
const NAMED: usize = 5;

/// Carries out grants.
#[derive(Default)]
pub(super) struct GrantDuty {
    memory: RefCell<Memory>,
}

/// What only makes texts better or rarer; a restart may lose it.
#[derive(Default)]
struct Memory {
    grant: Option<Uuid>,
    /// What was lost for good so far.
    lost: Vec<String>,
    /// When what blocks was last written, by uptime.
    worded_at: Option<Duration>,
}

#[async_trait(?Send)]
impl Duty for GrantDuty {
    fn name(&self) -> &'static str {
        "carry-out-grant"
    }

    fn deadline(&self) -> Duration {
        TICK
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        if node.settings.drift.action < Action::Drain {
            return Ok(NEVER);
        }
        let look_again = node.jitter(LOOK_EVERY);
        let desk = Desk { node, api: Api::kubelet(&node.world.cluster), name: &node.identity.node_name };
        let Some(object) = desk.api.get(&desk.path()).await? else { return Ok(look_again) };
        let seen = Seen::read(desk.name, &object)?;
        let hook = argv(node);
        match decide(&seen, node.world.time.now(), node.settings.drift.drain_within, hook.is_some()) {
            Act::Nothing => Ok(look_again),
            Act::Release => {
                for owner in &seen.owners {
                    desk.uncordon(owner).await?;
                }
                Ok(look_again)
            }
            Act::GiveUp { id } => {
                let why = "its deadline had passed before the drain began; are the clocks right?";
                desk.say(id, State::GaveUp, why, None).await?;
                Ok(look_again)
            }
            Act::Drain { id, deadline, begins } => {
                if begins {
                    // The time counts from here, also for the agent's next life.
                    desk.say(id, State::Draining, "the drain begins", None).await?;
                }
                self.drain(&desk, id, deadline, seen.progress.as_ref()).await
            }
            Act::Hook { id, told } => {
                desk.replace(id, told, hook.unwrap_or_default()).await?;
                Ok(look_again)
            }
        }
    }
}

/// The hook, where a machine replaces itself: on EC2 the arbiter has it terminated.
fn argv(node: &Node) -> Option<&[String]> {
    let drift = &node.settings.drift;
    let wanted = drift.action >= Action::Replace && node.identity.ec2().is_none();
    drift.hook.as_deref().filter(|argv| wanted && !argv.is_empty())
}

impl GrantDuty {
    async fn drain(
        &self,
        desk: &Desk<'_>,
        id: Uuid,
        deadline: Timestamp,
        last: Option<&Progress>,
    ) -> Outcome<Duration> {
        let owner = id.to_string();
        let plan = DrainPlan { deadline, hard: false, owner: &owner };
        if self.memory.borrow().grant != Some(id) {
            *self.memory.borrow_mut() = Memory { grant: Some(id), ..Memory::default() };
        }
        match drain::tick(desk.node, &desk.api, desk.name, &plan).await? {
            DrainState::Drained => {
                let lost = self.memory.borrow().lost.join("; ");
                let why = if lost.is_empty() { "every pod that must go has gone".to_owned() } else { lost };
                desk.say(id, State::Drained, &why, None).await?;
                Ok(Duration::from_secs(1))
            }
            DrainState::GaveUp { why } => {
                let why = match last.map(|last| last.why.as_str()).filter(|last| last.starts_with(BLOCKED)) {
                    Some(last) => format!("{why}; the last word: {last}"),
                    None => why,
                };
                desk.uncordon(&owner).await?;
                desk.say(id, State::GaveUp, &why, None).await?;
                Ok(desk.node.jitter(LOOK_EVERY))
            }
            DrainState::Waiting { blocked, lost, after, left } => {
                for loss in &lost {
                    desk.node.tell(&Event::Note(&format!("drain: {loss}")));
                }
                self.memory.borrow_mut().lost.extend(lost);
                self.word(desk, id, &words(&blocked, left), last).await?;
                Ok(after)
            }
        }
    }

    /// Says what blocks, when that is news and the last word is a while ago.
    async fn word(&self, desk: &Desk<'_>, id: Uuid, why: &str, last: Option<&Progress>) -> Outcome<()> {
        let now = desk.node.world.time.uptime();
        let recently = self.memory.borrow().worded_at.is_some_and(|at| now.saturating_sub(at) < WORD_EVERY);
        if recently || last.is_some_and(|last| last.why == shortened(why)) {
            return Ok(());
        }
        desk.say(id, State::Draining, why, last.map(|last| last.at)).await?;
        self.memory.borrow_mut().worded_at = Some(now);
        Ok(())
    }
}

/// How a text about what blocks begins.
const BLOCKED: &str = "blocked: ";

/// Which pod, and which budget.
fn words(blocked: &[Blocked], left: usize) -> String {
    if blocked.is_empty() {
        return format!("{left} pods are ending or wait for their turn");
    }
    let mut blocked: Vec<&Blocked> = blocked.iter().collect();
    blocked.sort_by(|a, b| a.pod.cmp(&b.pod));
    let one = |b: &&Blocked| match &b.budget {
        Some(budget) => format!("{} by the PodDisruptionBudget {budget} ({})", b.pod, b.why),
        None => format!("{} ({})", b.pod, b.why),
    };
    let named: Vec<String> = blocked.iter().take(NAMED).map(one).collect();
    let more = blocked.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{BLOCKED}{}{rest}", named.join(", "))
}

/// The own Node, through the kubelet's credentials.
struct Desk<'a> {
    node: &'a Node,
    api: Api,
    name: &'a str,
}

impl Desk<'_> {
    fn path(&self) -> String {
        format!("/api/v1/nodes/{}", encode_segment(self.name))
    }

    /// Writes how far the grant is; `since` is when the state began, now when it is new.
    async fn say(&self, id: Uuid, state: State, why: &str, since: Option<Timestamp>) -> Outcome<()> {
        let at = since.unwrap_or_else(|| self.node.world.time.now());
        let progress = Progress { schema: SCHEMA, id, state, why: shortened(why), at };
        let body = json!({"metadata": {"annotations": {(Progress::KEY): progress.write()?}}});
        let path = self.path();
        let answer = self.api.call("PATCH", &path, Some(("application/merge-patch+json", &body))).await?;
        if answer.status != 200 {
            return Err(refused("write how far the drain is to", &path, &answer));
        }
        let state = serde_json::to_value(state).unwrap_or_default();
        let state = state.as_str().unwrap_or_default().to_owned();
        self.node.tell(&Event::Note(&format!("grant {id}: {state}: {}", progress.why)));
        Ok(())
    }

    async fn uncordon(&self, owner: &str) -> Outcome<()> {
        if drain::uncordon_if_ours(&self.api, self.name, owner).await? {
            self.node.tell(&Event::Note(&format!("uncordoned: what the grant {owner} did is taken back")));
        }
        Ok(())
    }

    /// One look at the hook, and what follows.
    async fn replace(&self, id: Uuid, told: bool, argv: &[String]) -> Outcome<()> {
        let state = match hook::look(self.node, id).await? {
            // Somebody said that it runs, on a disk that is no more: it ran.
            Hook::Due if told => Hook::Traceless,
            Hook::Due => {
                hook::start(self.node, id, argv).await?;
                Hook::Running
            }
            state => state,
        };
        match state {
            Hook::Failed(why) => self.say(id, State::Failed, &why, None).await,
            _ if told => Ok(()),
            Hook::Traceless => {
                let why = "the hook was started before this machine was restarted; it does not run twice for a grant";
                self.say(id, State::Replacing, why, None).await
            }
            _ => self.say(id, State::Replacing, "the hook runs", None).await,
        }
    }
}
