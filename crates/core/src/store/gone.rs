//! The judgement *gone*: the only ground on which a register is taken from its holder, a member of the control plane is
//! removed, and a Node of a machine that is no more.
//!
//! EC2 must say `terminated`, in the holder's recorded account and region, in an answer that also shows the asker (so
//! that it is an answer about that account and region at all). NotFound is weaker, for a living instance can be NotFound
//! for a while: it counts only for an old record, and in several looks. Clocks may delay a takeover, never cause one.
//! Everything else is not gone: stopped and shutting down, another account, no EC2. Then an operator decides.

use super::register::Seen;
use crate::model::cause::Outcome;
use crate::model::identity::{Ec2, Identity};
use crate::model::register::{Holder, RegisterState};
use crate::node::Node;
use crate::ports::{ETag, InstanceInfo};
use jiff::SignedDuration;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// An instance that EC2 does not know counts only when the record is older, by the store's clock alone.
const NOT_FOUND_AGE: SignedDuration = SignedDuration::from_hours(1);
/// And only after this many looks ...
const NOT_FOUND_LOOKS: usize = 5;
/// ... over this long ...
const NOT_FOUND_SPAN: Duration = Duration::from_secs(600);
/// ... so far apart that five of them cannot be a burst and one more.
const NOT_FOUND_SPACING: Duration = Duration::from_secs(150);
/// Looks at a machine that are older than this do not belong to those that come now.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 60);
/// What an operator can do about a holder that nobody can prove gone.
const OPERATOR: &str = "if you know that it is gone, `kubestrap unlock init`";
/// The same of the holder of the join lock.
const OPERATOR_OF_LOCK: &str = "if you know that it is gone, `kubestrap unlock join`";
/// The same of a member of the control plane.
const OPERATOR_OF_MEMBER: &str = "if you know that it is gone, `kubestrap member remove`";

/// A proof that the holder of exactly this version of the register is gone: made only by [`GoneWatch::look`].
#[derive(Debug, PartialEq, Eq)]
pub struct Gone {
    attempt: Uuid,
    etag: ETag,
    why: String,
}

impl Gone {
    /// Why it is known to be gone, for people.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// For tests of what demands the proof.
    #[cfg(test)]
    pub(super) fn for_test(seen: &Seen) -> Self {
        Gone { attempt: seen.register.attempt(), etag: seen.etag.clone(), why: "a test says so".to_owned() }
    }

    /// Whether it is about this version of the register.
    pub(super) fn covers(&self, seen: &Seen) -> bool {
        seen.register.ca().is_none() && self.attempt == seen.register.attempt() && self.etag == seen.etag
    }
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It may be taken over.
    Gone(Gone),
    /// It may not, and why, for people.
    NotGone(String),
}

/// Judges whether the register's holder is gone; keeps the looks that a NotFound needs. One per process.
#[derive(Debug, Default)]
pub struct GoneWatch {
    looks: RefCell<Looks>,
}

impl GoneWatch {
    /// A watch that has seen nothing.
    pub fn new() -> Self {
        GoneWatch::default()
    }

    /// One look at the holder of this register. Errors are those of EC2's API; they prove nothing.
    pub async fn look(&self, node: &Node, seen: &Seen) -> Outcome<Judgement> {
        let attempt = seen.register.attempt();
        let gone = |why: String| Judgement::Gone(Gone { attempt, etag: seen.etag.clone(), why });
        let RegisterState::Initialising { holder, .. } = &seen.register.state else {
            return Ok(Judgement::NotGone("the cluster is established; nobody holds the register".to_owned()));
        };
        let (theirs, own) = match question(holder.as_ref(), &node.identity, OPERATOR) {
            Question::Ask { holder, own } => (holder, own),
            Question::Unlocked => return Ok(gone("an operator unlocked the register".to_owned())),
            Question::Pointless(why) => return Ok(Judgement::NotGone(why)),
        };
        let found = ask(node, theirs, own).await?;
        let verdict = self.looks.borrow_mut().judge(attempt, found, seen.age(), node.world.time.uptime());
        Ok(match verdict {
            Ok(why) => gone(format!("{}: {why}", theirs.instance_id)),
            Err(why) => Judgement::NotGone(format!("{}: {why}; {OPERATOR}", theirs.instance_id)),
        })
    }
}

/// A proof that a machine is gone: made by [`MachineWatch::look`], or from an operator's confirmed word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineGone {
    identity: String,
    why: String,
    word: bool,
}

impl MachineGone {
    /// The machine, as [`Identity::key`] has it; of an operator's word the name of the node.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Whether it is about the machine of this identity.
    pub fn is(&self, identity: &str) -> bool {
        self.identity == identity
    }

    /// Why it is known to be gone, for people.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Whether it rests on an operator's word alone.
    pub fn is_word(&self) -> bool {
        self.word
    }

    /// For tests of what demands the proof.
    #[cfg(test)]
    pub(crate) fn for_test(identity: &str) -> Self {
        MachineGone { identity: identity.to_owned(), why: "a test says so".to_owned(), word: false }
    }

    /// An operator named this node and confirmed that its machine is gone.
    pub(crate) fn by_operator(name: &str) -> Self {
        MachineGone { identity: name.to_owned(), why: "an operator says that it is gone".to_owned(), word: true }
    }
}

/// Judges whether machines are gone: members of the control plane, workers, the holder of the join lock. Keeps the looks
/// that a NotFound needs, of each machine. One per process and purpose.
#[derive(Debug)]
pub struct MachineWatch {
    looks: RefCell<BTreeMap<String, Looks>>,
    operator: &'static str,
}

impl Default for MachineWatch {
    fn default() -> Self {
        MachineWatch { looks: RefCell::default(), operator: OPERATOR_OF_MEMBER }
    }
}

impl MachineWatch {
    /// A watch over members and workers that has seen nothing.
    pub fn new() -> Self {
        MachineWatch::default()
    }

    /// A watch over the holder of the join lock: its texts name `kubestrap unlock join`.
    pub fn of_lock() -> Self {
        MachineWatch { operator: OPERATOR_OF_LOCK, ..MachineWatch::default() }
    }

    /// One look at a machine. `record` is what named it (the attempt of a lock, [`MachineWatch::record_of`] a machine
    /// that was seen otherwise), `age` how old that is by one server's clock. The inner `Err` says why it is not gone,
    /// for people; the outer are failures of EC2's API, which prove nothing.
    pub async fn look(
        &self,
        node: &Node,
        holder: &Holder,
        record: Uuid,
        age: Option<SignedDuration>,
    ) -> Outcome<Result<MachineGone, String>> {
        let (theirs, own) = match question(Some(holder), &node.identity, self.operator) {
            Question::Ask { holder, own } => (holder, own),
            Question::Unlocked => return Ok(Err("nobody is named".to_owned())),
            Question::Pointless(why) => return Ok(Err(why)),
        };
        let found = ask(node, theirs, own).await?;
        let now = node.world.time.uptime();
        let mut looks = self.looks.borrow_mut();
        // Machines come and go for years: what was not looked at for long is begun anew.
        looks.retain(|_, looks| looks.at.last().is_some_and(|last| now.saturating_sub(*last) <= FORGOTTEN_AFTER));
        let verdict = looks.entry(holder.identity.clone()).or_default().judge(record, found, age, now);
        let (id, operator) = (&theirs.instance_id, self.operator);
        Ok(match verdict {
            Ok(why) => Ok(MachineGone { identity: holder.identity.clone(), why: format!("{id}: {why}"), word: false }),
            Err(why) => Err(format!("{id}: {why}; {operator}")),
        })
    }

    /// A record's id for a machine that no object of the store names: always the same for the same machine.
    pub fn record_of(identity: &str) -> Uuid {
        let digest = Sha256::digest(identity.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

/// What EC2 says of one machine, in an answer that should show the asker too.
async fn ask(node: &Node, theirs: &Ec2, own: &Ec2) -> Outcome<Finding> {
    let ids = [theirs.instance_id.clone(), own.instance_id.clone()];
    let answer = node.world.cloud.instances(&theirs.region, &ids).await?;
    Ok(finding(&answer, theirs, own))
}

/// Whether and whom EC2 is asked about.
#[derive(Debug, PartialEq, Eq)]
enum Question<'a> {
    Ask { holder: &'a Ec2, own: &'a Ec2 },
    Unlocked,
    Pointless(String),
}

fn question<'a>(holder: Option<&'a Holder>, own: &'a Identity, operator: &str) -> Question<'a> {
    let Some(holder) = holder else { return Question::Unlocked };
    let name = &holder.node_name;
    if holder.identity == own.key() {
        return Question::Pointless(
            "the holder is this very machine, in an earlier attempt of its own: its journal decides, not EC2"
                .to_owned(),
        );
    }
    let (Some(theirs), Some(own)) = (&holder.ec2, own.ec2()) else {
        return Question::Pointless(format!(
            "{name} or this machine is not on EC2, so nobody can be asked; {operator}"
        ));
    };
    let place = |ec2: &'a Ec2| (&ec2.partition, &ec2.account, &ec2.region);
    if place(theirs) != place(own) {
        return Question::Pointless(format!(
            "{name} is in account {} and region {}, which this machine cannot be shown in; {operator}",
            theirs.account, theirs.region
        ));
    }
    Question::Ask { holder: theirs, own }
}

/// What one answer of EC2 says of the holder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    Terminated,
    NotFound,
    Exists(String),
    /// The answer proves nothing.
    Blind(String),
}

fn finding(answer: &[InstanceInfo], holder: &Ec2, own: &Ec2) -> Finding {
    let entry = |ec2: &Ec2| answer.iter().find(|i| i.instance_id == ec2.instance_id && i.account == ec2.account);
    if holder.instance_id == own.instance_id {
        return Finding::Blind("the holder has this machine's own instance id".to_owned());
    }
    if entry(own).is_none() {
        return Finding::Blind("EC2's answer does not show this machine either, so it proves nothing".to_owned());
    }
    if answer.iter().any(|i| i.instance_id == holder.instance_id && i.account != holder.account) {
        return Finding::Blind("EC2 shows it in another account than the one recorded".to_owned());
    }
    match entry(holder) {
        None => Finding::NotFound,
        Some(instance) if instance.state == "terminated" => Finding::Terminated,
        Some(instance) => Finding::Exists(instance.state.clone()),
    }
}

/// The looks so far in which the holder of one attempt was NotFound, by uptime.
#[derive(Debug, Default)]
struct Looks {
    of: Option<Uuid>,
    at: Vec<Duration>,
}

impl Looks {
    /// `Ok` when it is gone, `Err` when it is not; why, for people, in both.
    fn judge(
        &mut self,
        attempt: Uuid,
        found: Finding,
        age: Option<SignedDuration>,
        now: Duration,
    ) -> Result<String, String> {
        if self.of.replace(attempt) != Some(attempt) {
            self.at.clear();
        }
        match found {
            Finding::Terminated => Ok("EC2 says that it is terminated".to_owned()),
            Finding::Exists(state) => {
                self.at.clear();
                Err(format!("EC2 says that it is {state}"))
            }
            Finding::Blind(why) => Err(why),
            Finding::NotFound => self.not_found(age, now),
        }
    }

    fn not_found(&mut self, age: Option<SignedDuration>, now: Duration) -> Result<String, String> {
        let unknown = "EC2 does not know it, which may be passing";
        match age {
            None => return Err(format!("{unknown}, and the store has no clock to tell the record's age")),
            Some(age) if age <= NOT_FOUND_AGE => {
                let minutes = age.as_mins();
                return Err(format!("{unknown}: the record is {minutes} min old, and counts from 60 min"));
            }
            Some(_) => {}
        }
        if self.at.last().is_none_or(|last| now.saturating_sub(*last) >= NOT_FOUND_SPACING) {
            self.at.push(now);
        }
        let span = self.at.first().map_or(Duration::ZERO, |first| now.saturating_sub(*first));
        if self.at.len() >= NOT_FOUND_LOOKS && span >= NOT_FOUND_SPAN {
            Ok(format!("EC2 did not know it in {} looks over {} min", self.at.len(), span.as_secs() / 60))
        } else {
            Err(format!("{unknown}: {} of {NOT_FOUND_LOOKS} looks", self.at.len()))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
