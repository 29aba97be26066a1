//! Draining this node: the eviction contract of kubectl, as rounds.
//!
//! A round remembers nothing: what is cordoned, what still runs and what has been asked to end is read from the API
//! server each time. So a restart of the agent at any point is a round like any other.

mod cordon;
mod evict;
mod order;
mod pods;
#[cfg(test)]
mod tests;

pub(crate) use cordon::annotation;
pub use cordon::{END, EXCLUDE, EXCLUDED_BY, cordon, uncordon_if_ours};
pub use order::Class;
pub use pods::{Controller, Pod};

use crate::kube::{Api, encode_segment, refused};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::{Event, Node};
use evict::{Answer, Ask};
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use pods::Fate;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a pod that cannot go now is left alone, plus and minus a half: kubectl's and bottlerocket's 5 s.
const AGAIN: Duration = Duration::from_secs(5);
/// How often pods that are ending are looked at, plus and minus a half.
const LOOK: Duration = Duration::from_secs(2);
/// No request begins later in a round. One may take 20 s, so a round is over in 40 s and some lists.
const ROUND: Duration = Duration::from_secs(20);
/// A hard deadline leaves no time for one pod after the other, each behind a slow webhook.
const AT_ONCE: usize = 8;
/// Pods on a page: an answer has at most 4 MiB, and pods of 20 KiB are common.
const PAGE: usize = 50;
/// A node has some hundred pods; a list that goes on has no end.
const PAGES: usize = 100;
/// How often a list begins anew when its continuation has expired.
const LISTS: usize = 3;
/// How many pods a text names.
const NAMED: usize = 10;

/// What a drain is to keep to.
#[derive(Debug, Clone, Copy)]
pub struct DrainPlan<'a> {
    /// When it is over, by the wall clock.
    pub deadline: Timestamp,
    /// Whether the machine goes away then: no budget is asked any more when a pod's grace would not fit otherwise, and
    /// what is left at the deadline is deleted. A soft drain gives up instead, and has not touched a budget.
    pub hard: bool,
    /// Who drains, for [`crate::rollout::wire::CORDONED_BY`]: a grant's id, or `end:<event>`.
    pub owner: &'a str,
}

/// A pod that could not be evicted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// `namespace/name`.
    pub pod: String,
    /// Why, in the words of whoever refused.
    pub why: String,
    /// The PodDisruptionBudget that forbids it.
    pub budget: Option<String>,
}

/// Where a drain stands after a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrainState {
    /// Nothing is left but what stays: static pods, and pods of DaemonSets.
    Drained,
    /// Another round is needed.
    Waiting {
        /// What could not be evicted in this round.
        blocked: Vec<Blocked>,
        /// How many pods have not gone yet.
        left: usize,
        /// What was lost for good in this round: pods that no controller brings back, and data in `emptyDir`s.
        lost: Vec<String>,
        /// When the next round is due.
        after: Duration,
    },
    /// The deadline has passed. After a hard one what was left has been deleted.
    GaveUp {
        /// What is left.
        why: String,
    },
}

/// One bounded round: cordons, asks the pods whose turn it is to go, and says where the drain stands.
///
/// # Errors
/// When the API server gives no answer, or refuses what no drain can do without. The next round goes on from there.
pub async fn tick(node: &Node, access: &Api, node_name: &str, plan: &DrainPlan<'_>) -> Outcome<DrainState> {
    let begun = node.world.time.uptime();
    cordon(access, node_name, plan.owner).await?;
    let pods = list(access, node_name).await?;
    let pods: Vec<Pod> = pods.into_iter().filter(|pod| pod.fate() != Fate::Stays).collect();
    let now = node.world.time.now();
    let Some(turn) = turn(access, &pods).await? else { return Ok(DrainState::Drained) };
    let left: Vec<&Pod> = pods.iter().filter(|pod| pod.fate() == Fate::Goes || turn.contains(pod)).collect();
    let over = now >= plan.deadline;
    if over && !plan.hard {
        return Ok(DrainState::GaveUp { why: unfinished(&left) });
    }
    // What is due for deletion does not wait for its turn.
    let act = |pod: &Pod| evict::ask(pod, now, plan.deadline, plan.hard);
    let due = left.iter().filter(|pod| turn.contains(pod) || matches!(act(pod), Ask::Delete(_)));
    let asked: Vec<(&Pod, Ask)> =
        order::rotated(due.copied().collect(), draw(node)).into_iter().map(|pod| (pod, act(pod))).collect();
    let told = ask_all(node, access, &asked, begun).await?;
    if over {
        return Ok(DrainState::GaveUp { why: format!("{}; they were deleted", unfinished(&left)) });
    }
    let after = told.after(node, &left, now, plan);
    Ok(DrainState::Waiting { blocked: told.blocked, left: left.len(), lost: told.lost, after })
}

/// The pods of the first class that is not gone; `None` when all are.
async fn turn<'a>(access: &Api, pods: &'a [Pod]) -> Outcome<Option<Vec<&'a Pod>>> {
    let mut known = BTreeMap::new();
    for class in Class::ALL {
        let mut here = Vec::new();
        for pod in pods.iter().filter(|pod| pod.class == class) {
            let goes = match (pod.fate(), &pod.controller) {
                (Fate::Daemon, Controller::DaemonSet(name)) => !lives(access, &mut known, &pod.namespace, name).await?,
                (fate, _) => fate == Fate::Goes,
            };
            if goes {
                here.push(pod);
            }
        }
        if !here.is_empty() {
            return Ok(Some(here));
        }
    }
    Ok(None)
}

/// Whether a DaemonSet exists; one that may not be read does.
async fn lives(
    access: &Api,
    known: &mut BTreeMap<(String, String), bool>,
    namespace: &str,
    name: &str,
) -> Outcome<bool> {
    let key = (namespace.to_owned(), name.to_owned());
    if let Some(lives) = known.get(&key) {
        return Ok(*lives);
    }
    let path = format!("/apis/apps/v1/namespaces/{}/daemonsets/{}", encode_segment(namespace), encode_segment(name));
    let answer = access.call("GET", &path, None).await?;
    let lives = match answer.status {
        200 | 403 => true,
        404 => false,
        _ => return Err(refused("read", &path, &answer)),
    };
    known.insert(key, lives);
    Ok(lives)
}

/// Every pod of the node.
async fn list(access: &Api, node_name: &str) -> Outcome<Vec<Pod>> {
    let first = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}&limit={PAGE}", encode_segment(node_name));
    let mut expired = None;
    for _ in 0..LISTS {
        match pages(access, node_name, &first).await? {
            Ok(pods) => return Ok(pods),
            Err(failure) => expired = Some(failure),
        }
    }
    let nothing = || Failure::new(Cause::ApiRefused, "list the pods of this node", "no answer");
    Err(expired.unwrap_or_else(nothing))
}

/// All pages of one list; the inner failure: its continuation has expired (410), begin anew.
async fn pages(access: &Api, node_name: &str, first: &str) -> Outcome<Result<Vec<Pod>, Failure>> {
    let (mut pods, mut path) = (Vec::new(), first.to_owned());
    for _ in 0..PAGES {
        let answer = access.call("GET", &path, None).await?;
        match answer.status {
            200 => {}
            410 => return Ok(Err(refused("list", &path, &answer))),
            _ => return Err(refused("list", &path, &answer)),
        }
        let page: Value = serde_json::from_slice(&answer.body).map_err(|error| {
            Failure::new(Cause::ApiRefused, "list the pods of this node", format!("not JSON: {error}"))
        })?;
        let items = page.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        // Whatever a selector did on the way: a pod of another node is never touched.
        let ours = items.iter().filter(|pod| pod.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node_name));
        pods.extend(ours.filter_map(Pod::read));
        match page.pointer("/metadata/continue").and_then(Value::as_str).filter(|token| !token.is_empty()) {
            Some(token) => path = format!("{first}&continue={}", encode_segment(token)),
            None => return Ok(Ok(pods)),
        }
    }
    Err(Failure::new(Cause::ApiRefused, "list the pods of this node", format!("it does not end after {PAGES} pages")))
}

/// What a round was told.
#[derive(Default)]
struct Told {
    blocked: Vec<Blocked>,
    lost: Vec<String>,
    /// The longest wait that was asked for.
    wait: Duration,
    /// The first request without an answer, and whether any had one.
    failure: Option<Failure>,
    answered: bool,
}

/// Asks for every pod, some at once, until the round's time is over or the server has too much to do.
async fn ask_all(node: &Node, access: &Api, asked: &[(&Pod, Ask)], begun: Duration) -> Outcome<Told> {
    let busy = std::cell::Cell::new(false);
    let requests = asked.iter().filter(|(_, ask)| *ask != Ask::Nothing).map(|(pod, ask)| {
        let busy = &busy;
        async move {
            let late = node.world.time.uptime().saturating_sub(begun) > ROUND;
            if late || busy.get() {
                return (*pod, None);
            }
            let answer = request(access, pod, *ask).await;
            busy.set(busy.get() || matches!(answer, Ok(Answer::Busy { .. })));
            (*pod, Some(answer))
        }
    });
    let mut told = Told::default();
    let mut answers = stream::iter(requests).buffer_unordered(AT_ONCE);
    while let Some((pod, answer)) = answers.next().await {
        told.hear(node, pod, answer);
    }
    match told.failure.take() {
        // Nobody answers at all: that is the API server's trouble, not the pods'.
        Some(failure) if !told.answered => Err(failure),
        _ => Ok(told),
    }
}

async fn request(access: &Api, pod: &Pod, ask: Ask) -> Outcome<Answer> {
    let path = evict::pod_path(pod);
    let (method, path, body) = match ask {
        Ask::Nothing => return Ok(Answer::Accepted),
        Ask::Evict(grace) => ("POST", format!("{path}/eviction"), evict::eviction(pod, grace)),
        Ask::Delete(grace) => ("DELETE", path, evict::deletion(pod, grace)),
    };
    let answer = access.call(method, &path, Some(("application/json", &body))).await?;
    Ok(evict::judge(pod, &answer))
}

impl Told {
    /// `None`: the pod was not asked in this round.
    fn hear(&mut self, node: &Node, pod: &Pod, answer: Option<Outcome<Answer>>) {
        let blocked = |why: String, budget| Blocked { pod: pod.full_name(), why, budget };
        self.answered |= matches!(answer, Some(Ok(_)));
        match answer {
            None => self.blocked.push(blocked("it was not asked yet: the API server is slow or busy".to_owned(), None)),
            Some(Ok(Answer::Accepted)) => {
                node.tell(&Event::Note(&format!("the pod {} is asked to end", pod.full_name())));
                self.lost.extend(pod.loss());
            }
            Some(Ok(Answer::Later { why, budget, wait })) => {
                self.wait = self.wait.max(wait);
                self.blocked.push(blocked(why, budget));
            }
            Some(Ok(Answer::Busy { wait })) => {
                self.wait = self.wait.max(wait);
                self.blocked.push(blocked("the API server has too much to do".to_owned(), None));
            }
            Some(Ok(Answer::Refused(failure))) => self.blocked.push(blocked(failure.to_string(), None)),
            Some(Err(failure)) => {
                self.blocked.push(blocked(failure.to_string(), None));
                self.failure.get_or_insert(failure);
            }
        }
    }

    /// When the next round is due: not before who refused wants to be asked again, and not after a deadline.
    fn after(&self, node: &Node, left: &[&Pod], now: Timestamp, plan: &DrainPlan<'_>) -> Duration {
        let wanted = if self.blocked.is_empty() { node.jitter(LOOK) } else { node.jitter(AGAIN).max(self.wait) };
        let ends = Duration::try_from(plan.deadline.duration_since(now)).unwrap_or_default();
        let due = left.iter().filter(|pod| plan.hard && pod.ends_by.is_none());
        let first = due.map(|pod| evict::due_in(pod, now, plan.deadline)).filter(|due| !due.is_zero()).min();
        wanted.min(ends).min(first.unwrap_or(ends)).max(Duration::from_secs(1))
    }
}

/// A number to begin a round at.
fn draw(node: &Node) -> usize {
    let mut byte = [0];
    node.world.time.random(&mut byte);
    usize::from(byte[0])
}

/// What is left, by name.
fn unfinished(left: &[&Pod]) -> String {
    let name =
        |pod: &&Pod| if pod.ends_by.is_some() { format!("{} (ending)", pod.full_name()) } else { pod.full_name() };
    let names: Vec<String> = left.iter().take(NAMED).map(name).collect();
    let more = left.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("at the deadline {} pods were left: {}{rest}", left.len(), names.join(", "))
}
