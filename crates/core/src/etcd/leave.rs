//! A master leaves well: it hands over etcd's leadership, gives the Lease back, takes its own member away through another
//! one, and its Node. What it needs is on this machine: its journal, its certificates, its API server.
//!
//! The journal says so before the removal is sent. From then on nothing is joined or reset here by itself: a member that
//! may be gone must not be followed by another of the same disk.

use super::api::{Client, Credentials, LOCAL};
use super::clean;
use super::decide::{self, Fact, Fate, Health, Own, Removable};
use super::machines;
use super::survey::{Survey, survey};
use crate::journal::{Attempt, Entry, Journal};
use crate::kube::Api;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::Role;
use crate::node::{Event, Node};
use std::time::Duration;

/// What is attempted here.
const LEAVE: &str = "leave the cluster";
/// How often another member is asked whether it leads, and whether ours is gone, and the pause in between.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);
/// How often the Node is tried to be deleted: the balancer needs some time to see that this API server is gone.
const FAREWELLS: u32 = 6;
const FAREWELL_PAUSE: Duration = Duration::from_secs(2);

/// What leaving came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farewell {
    /// Whether a member was removed now; `false` when there was none any more.
    pub removed: bool,
    /// Why the Node is still there; the master that leads deletes it when the machine is gone.
    pub node_left: Option<Failure>,
}

/// What an operator is told before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// How many voters stay.
    pub voters: usize,
    /// Whether the member leads etcd now.
    pub leader: bool,
    /// Whether there is a member to remove.
    pub member: bool,
}

/// Whether this machine may leave now; changes nothing.
///
/// Errors: `Usage` on a worker or a machine that is no master yet, `LastVoter`, `QuorumNeeded` where the quorum would be
/// lost, `NoQuorum` when there is none.
pub async fn intent(node: &Node) -> Outcome<Intent> {
    let attempt = master(node)?;
    let seen = look(node, &attempt).await?;
    let voters = seen.facts.iter().filter(|fact| fact.member.is_voter() && !is_own(node, fact)).count();
    let (leader, member) = (seen.own.as_ref().is_some_and(|own| own.leads), seen.own.is_some());
    Ok(Intent { voters, leader, member })
}

/// Leaves. It can be repeated until it succeeds.
///
/// Errors: as [`intent`]'s, and those of etcd.
pub async fn leave(node: &Node) -> Outcome<Farewell> {
    let attempt = master(node)?;
    let with = Credentials::of_master();
    let seen = look(node, &attempt).await?;
    let Some(own) = seen.own else {
        note(node, &attempt)?;
        return Ok(Farewell { removed: false, node_left: farewell(node).await.err() });
    };
    let client = Client::new(node, &with);
    if own.leads {
        hand_over(node, &client, &seen.facts, &own.proof).await;
    }
    // Without it the Lease lapses by itself.
    let local = Api::local(node)?;
    if let Err(failure) = node.lease.resign(node, &local).await {
        node.tell(&Event::Note(&format!("the Lease is left to its end: {failure}")));
    }
    note(node, &attempt)?;
    client.remove(&own.beside, &own.proof).await?;
    await_removal(node, &client, &own).await?;
    node.tell(&Event::Note("this machine's member of etcd was removed: it leaves the cluster"));
    Ok(Farewell { removed: true, node_left: farewell(node).await.err() })
}

/// The attempt that made this machine a master.
fn master(node: &Node) -> Outcome<Attempt> {
    let refused = |why: &str| Failure::new(Cause::Usage, LEAVE, why);
    if node.settings.role != Role::Master {
        let advice = "drain it with kubectl and end the machine: a worker has no member of etcd, and its Node is deleted when its machine is gone";
        return Err(refused("this machine is a worker").advise(advice));
    }
    let journal = Journal::new(node.world.files.clone(), node.world.time.clone());
    let attempt = journal.attempt()?.filter(|attempt| attempt.master_of().is_some());
    attempt.ok_or_else(|| refused("this machine is no master yet").advise("end it; nothing of it is in the cluster"))
}

fn note(node: &Node, attempt: &Attempt) -> Outcome<()> {
    if attempt.left {
        return Ok(());
    }
    Journal::new(node.world.files.clone(), node.world.time.clone()).note(Entry::Left)
}

struct OwnMember {
    proof: Removable,
    leads: bool,
    /// Through whom it is removed.
    beside: String,
}

struct Seen {
    facts: Vec<Fact>,
    own: Option<OwnMember>,
}

fn is_own(node: &Node, fact: &Fact) -> bool {
    decide::is_of(&fact.member, &node.identity.node_name, node.identity.address)
}

/// Looks at the members; once the own one may be gone, past the own API server, which is gone with it.
async fn look(node: &Node, attempt: &Attempt) -> Outcome<Seen> {
    let api = if attempt.left { Api::admin(&node.world.cluster) } else { Api::local(node)? };
    let survey: Survey = survey(node, &api, &Credentials::of_master()).await?;
    let of = |(member, health): &(_, Health)| {
        let member: &super::Member = member;
        Fact { member: member.clone(), health: health.clone(), fate: Fate::Lives }
    };
    let facts: Vec<Fact> = survey.members.iter().map(of).collect();
    let members: Vec<_> = facts.iter().map(|fact| fact.member.clone()).collect();
    if decide::own(&members, &node.identity.node_name, node.identity.address) == Own::Absent {
        return Ok(Seen { facts, own: None });
    }
    let mut mine = facts.iter().filter(|fact| is_own(node, fact));
    let Some(fact) = mine.next() else { return Ok(Seen { own: None, facts }) };
    let proof = decide::leaving(&facts, fact).map_err(|why| why.into_failure(LEAVE))?;
    let beside = survey.beside(fact.member.id).map(str::to_owned);
    let beside = beside.ok_or_else(|| Failure::new(Cause::QuorumNeeded, LEAVE, "no other voter is healthy"))?;
    let leads = matches!(fact.health, Health::Healthy { leader: true, .. });
    Ok(Seen { own: Some(OwnMember { proof, leads, beside }), facts })
}

/// Hands the leadership to the healthy voter that has applied most. What fails costs an election and nothing else.
async fn hand_over(node: &Node, client: &Client, facts: &[Fact], own: &Removable) {
    let others = facts.iter().filter(|fact| fact.member.is_voter() && fact.member.id != own.id());
    let applied = |fact: &&Fact| match fact.health {
        Health::Healthy { applied, .. } => Some(applied),
        Health::Silent(_) => None,
    };
    let Some(next) = others.filter(|fact| applied(fact).is_some()).max_by_key(applied) else { return };
    if let Err(failure) = client.move_leader(LOCAL, next.member.id).await {
        node.tell(&Event::Note(&format!("etcd elects a leader by itself: {failure}")));
        return;
    }
    for _ in 0..LOOKS {
        match client.status(LOCAL).await {
            Ok(status) if status.leader != 0 && status.leader != own.id() => return,
            _ => node.world.time.sleep(PAUSE).await,
        }
    }
}

async fn await_removal(node: &Node, client: &Client, own: &OwnMember) -> Outcome<()> {
    for _ in 0..LOOKS {
        if let Ok(members) = client.members(&own.beside, true).await
            && !members.iter().any(|member| member.id == own.proof.id())
        {
            return Ok(());
        }
        node.world.time.sleep(PAUSE).await;
    }
    let why = format!("{} still lists it", own.beside);
    Err(Failure::new(Cause::EtcdUnavailable, "see that this machine's member is gone", why))
}

/// Deletes the own Node, then the mirror Pods, which a kubelet without a Node does not make again. Through the endpoint
/// of the control plane: the own API server has lost its etcd.
async fn farewell(node: &Node) -> Outcome<()> {
    let api = Api::admin(&node.world.cluster);
    let mut tries = 1;
    loop {
        match delete_node(node, &api).await {
            Err(failure) if failure.is_transient() && tries < FAREWELLS => {
                node.world.time.sleep(FAREWELL_PAUSE).await;
            }
            end => return end,
        }
        tries += 1;
    }
}

async fn delete_node(node: &Node, api: &Api) -> Outcome<()> {
    let name = &node.identity.node_name;
    let path = format!("/api/v1/nodes/{}", crate::kube::encode_segment(name));
    if let Some(found) = api.get(&path).await?.as_ref().and_then(machines::read) {
        crate::rollout::cluster::remove_node(api, &found.facts).await?;
    }
    clean::mirror_pods(api, name).await
}

/// Whether what kept this machine from leaving may be over soon: another voter that does not answer just now, or whatever
/// is tried again anyway. That it is the last voter stays as it is.
pub fn may_pass(failure: &Failure) -> bool {
    failure.is_transient() || failure.cause == Cause::QuorumNeeded
}

/// Refuses to go on with a machine that left.
pub fn refuse_left(node: &Node) -> Outcome<()> {
    let attempt = Journal::new(node.world.files.clone(), node.world.time.clone()).attempt()?;
    if attempt.is_some_and(|attempt| attempt.left) {
        let why = "the journal says that this master left its cluster";
        return Err(Failure::new(Cause::LeftCluster, "go on as a node", why));
    }
    Ok(())
}
