//! Which member is to go, and why: pure. At most one at a time, so that every decision is made of what is.

use super::api::Member;
use crate::model::cause::{Cause, Failure};
use crate::store::MachineGone;
use std::fmt;
use std::net::IpAddr;

/// Whether a member answers, and for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does, follows a leader and has nothing to complain about.
    Healthy {
        /// Whether it is the leader.
        leader: bool,
        /// What it has applied of the log.
        applied: u64,
    },
    /// It does not, and why.
    Silent(String),
}

/// What is known of a member's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was not asked: the member is healthy.
    Lives,
    /// It is gone.
    Gone(MachineGone),
    /// It is not known to be gone, and why.
    Unknown(String),
}

/// A member with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// As the list has it.
    pub member: Member,
    /// Whether it answers.
    pub health: Health,
    /// Its machine.
    pub fate: Fate,
}

impl Fact {
    /// Whether it answers.
    pub fn is_healthy(&self) -> bool {
        matches!(self.health, Health::Healthy { .. })
    }
}

/// Who holds the lock of joining masters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lock {
    /// Nobody.
    Free,
    /// This machine.
    Ours,
    /// A machine that is not known to be gone: its name.
    Living(String),
    /// A machine that is gone.
    Gone,
}

/// A proof that this member may be removed: made only by the decisions of this module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removable {
    id: u64,
    name: String,
    node: Option<String>,
    why: String,
    gone: Option<MachineGone>,
}

impl Removable {
    /// The member's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The member's name, or what it is called without one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its node; `None` for one that never started.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// Why it may go, for people.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// The proof that its machine is gone, when that is the reason.
    pub fn gone(&self) -> Option<&MachineGone> {
        self.gone.as_ref()
    }

    fn of(member: &Member, why: String, gone: Option<MachineGone>) -> Self {
        let node = member.is_started().then(|| member.name.clone());
        Removable { id: member.id, name: member.title(), node, why, gone }
    }
}

/// What is to be done about one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Todo {
    /// Nothing.
    Keep,
    /// Nothing, but it stands in the way of a join; why, for people.
    Wait(String),
    /// It is removed.
    Remove(Removable),
}

/// So many voters must answer.
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Why etcd cannot do without a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// There is no other voter; waiting does not change it.
    LastVoter,
    /// The others would have no quorum.
    ByQuorum {
        /// How many of the others are healthy.
        healthy: usize,
        /// How many others there are.
        voters: usize,
    },
}

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Needed::LastVoter => f.write_str("it is the last voter: without it there is no cluster"),
            Needed::ByQuorum { healthy, voters } => {
                let needed = quorum(*voters);
                write!(f, "without it {healthy} of {voters} voters would be healthy, and {needed} are needed")
            }
        }
    }
}

impl Needed {
    /// The same as a failure.
    pub fn into_failure(self, attempted: &str) -> Failure {
        let cause = match self {
            Needed::LastVoter => Cause::LastVoter,
            Needed::ByQuorum { .. } => Cause::QuorumNeeded,
        };
        Failure::new(cause, attempted, self.to_string())
    }
}

/// How many voters there are, and how many of them are healthy, without the member of this id.
fn others(facts: &[Fact], id: u64) -> (usize, usize) {
    let voters = facts.iter().filter(|fact| fact.member.is_voter() && fact.member.id != id);
    (voters.clone().count(), voters.filter(|fact| fact.is_healthy()).count())
}

/// Why this voter must stay for the sake of the quorum; `None` when etcd can do without it.
fn needed(facts: &[Fact], member: &Member) -> Option<Needed> {
    if !member.is_voter() {
        return None;
    }
    let (voters, healthy) = others(facts, member.id);
    if voters == 0 {
        return Some(Needed::LastVoter);
    }
    let started = facts.iter().any(|fact| fact.member.is_voter() && fact.member.id != member.id && fact.is_healthy());
    (!started || healthy < quorum(voters)).then_some(Needed::ByQuorum { healthy, voters })
}

/// What is to be done about each member, in the order of the list.
pub fn judge(facts: &[Fact], lock: &Lock) -> Vec<Todo> {
    facts.iter().map(|fact| judge_one(facts, fact, lock)).collect()
}

fn judge_one(facts: &[Fact], fact: &Fact, lock: &Lock) -> Todo {
    let (member, title) = (&fact.member, fact.member.title());
    if fact.is_healthy() {
        // A learner that has not caught up yet: etcd has one at a time.
        return if member.learner { Todo::Wait(format!("{title} is a learner that catches up")) } else { Todo::Keep };
    }
    let Health::Silent(silence) = &fact.health else { return Todo::Keep };
    if !member.is_started() && member.learner {
        return match lock {
            Lock::Living(who) => Todo::Wait(format!("{who} joins the control plane: {title} is its")),
            Lock::Free => unstarted(member, "nobody joins the control plane"),
            Lock::Ours => unstarted(member, "no other machine joins the control plane"),
            Lock::Gone => unstarted(member, "whoever joined the control plane is gone"),
        };
    }
    match &fact.fate {
        Fate::Gone(proof) => match needed(facts, member) {
            None => Todo::Remove(Removable::of(member, proof.why().to_owned(), Some(proof.clone()))),
            Some(why) => Todo::Wait(format!("{title} is gone ({}), but {why}", proof.why())),
        },
        Fate::Unknown(why) => Todo::Wait(format!("{title} does not answer ({silence}); {why}")),
        Fate::Lives => Todo::Wait(format!("{title} does not answer ({silence})")),
    }
}

fn unstarted(member: &Member, why: &str) -> Todo {
    Todo::Remove(Removable::of(member, format!("a failed join left it: {why}"), None))
}

/// The one that goes next: learners that never started before voters.
pub fn next(todos: &[Todo]) -> Option<&Removable> {
    let removals = || todos.iter().filter_map(|todo| if let Todo::Remove(which) = todo { Some(which) } else { None });
    removals().find(|which| which.gone.is_none()).or_else(|| removals().next())
}

/// Why a join must wait, when it must.
pub fn waits(todos: &[Todo]) -> Option<String> {
    let texts: Vec<&str> =
        todos.iter().filter_map(|todo| if let Todo::Wait(why) = todo { Some(why.as_str()) } else { None }).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// What this machine's own member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// There is none.
    Absent,
    /// One that was added and never started; its id.
    UnstartedLearner(u64),
    /// One that catches up.
    StartedLearner,
    /// One with a vote.
    Voter,
}

/// Whether this member is of the machine with this name or address. One that never started has no name.
pub fn is_of(member: &Member, name: &str, address: IpAddr) -> bool {
    if member.is_started() { member.name == name } else { member.is_at(address) }
}

/// The machine's own member. A started one of its name counts before one that never started.
pub fn own(members: &[Member], name: &str, address: IpAddr) -> Own {
    let mut mine = members.iter().filter(|member| is_of(member, name, address));
    let started = mine.clone().find(|member| member.is_started());
    match started.or_else(|| mine.next()) {
        None => Own::Absent,
        Some(member) if member.is_started() && member.learner => Own::StartedLearner,
        Some(member) if !member.is_started() && member.learner => Own::UnstartedLearner(member.id),
        Some(_) => Own::Voter,
    }
}

/// The proof that the machine's own unstarted learner may go.
pub fn own_learner(members: &[Member], name: &str, address: IpAddr) -> Option<Removable> {
    let mine = |member: &&Member| !member.is_started() && member.learner && member.is_at(address);
    let member = members.iter().find(mine).filter(|member| is_of(member, name, address))?;
    Some(Removable::of(member, "this machine's own join failed".to_owned(), None))
}

/// The proof that the machine's own member may go because it leaves; why it may not otherwise.
pub fn leaving(facts: &[Fact], own: &Fact) -> Result<Removable, Needed> {
    match needed(facts, &own.member) {
        None => Ok(Removable::of(&own.member, "its machine leaves the cluster".to_owned(), None)),
        Some(why) => Err(why),
    }
}

/// Why an operator's removal is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It answers.
    Healthy,
    /// etcd cannot do without it.
    Needed(Needed),
    /// Nobody says that its machine is gone; what is known of it.
    Alive(String),
}

impl Refusal {
    /// The same as a failure.
    pub fn into_failure(self, attempted: &str) -> Failure {
        let refused = |cause, why: String| Failure::new(cause, attempted, why);
        match self {
            Refusal::Healthy => refused(Cause::Usage, "it is healthy".to_owned())
                .advise("`kubestrap leave` on its machine takes it away; nobody else may"),
            Refusal::Needed(why) => why.into_failure(attempted),
            Refusal::Alive(why) => refused(Cause::Usage, format!("its machine is not known to be gone: {why}"))
                .advise("if you know that it is gone for good, add --machine-is-gone"),
        }
    }
}

/// The proof that a member may go on an operator's word; why it may not otherwise. `proof`: the operator says that its
/// machine is gone.
pub fn by_operator(facts: &[Fact], named: &Fact, proof: Option<MachineGone>) -> Result<Removable, Refusal> {
    if named.is_healthy() && named.member.is_started() {
        return Err(Refusal::Healthy);
    }
    if let Some(why) = needed(facts, &named.member) {
        return Err(Refusal::Needed(why));
    }
    let proof = match (proof, &named.fate) {
        (Some(proof), _) => proof,
        (None, Fate::Gone(proof)) => proof.clone(),
        (None, Fate::Unknown(why)) => return Err(Refusal::Alive(why.clone())),
        (None, Fate::Lives) => return Err(Refusal::Alive("it was not asked".to_owned())),
    };
    Ok(Removable::of(&named.member, proof.why().to_owned(), Some(proof)))
}

#[cfg(test)]
mod tests;
