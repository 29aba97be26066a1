//! Membership follows the truth: members whose machine is gone go, and what a failed join left; one at a time, with what
//! Kubernetes keeps of them.

use super::api::{Client, Credentials, Member};
use super::clean;
use super::decide::{self, Fact, Fate, Health, Lock, Removable, Todo};
use super::machines::{ControlPlane, Finder, Whose};
use super::survey::{Survey, survey};
use crate::kube::Api;
use crate::model::cause::Outcome;
use crate::model::report::MemberReport;
use crate::node::{Event, Node};
use crate::store::{MachineGone, MachineWatch, Store};

/// No pass removes more: what goes on for longer is looked at again.
const AT_MOST: usize = 8;

/// What a pass came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tidied {
    /// The members that are left.
    pub members: Vec<Member>,
    /// What was removed, by name.
    pub removed: Vec<String>,
    /// Why a join must wait, when it must.
    pub waits: Option<String>,
}

/// etcd's members with everything that is known of them, and what would be done.
#[derive(Debug, Clone)]
pub struct Judged {
    /// As etcd and Kubernetes have it.
    pub survey: Survey,
    /// What is known of each member.
    pub facts: Vec<Fact>,
    /// What would be done about each of them.
    pub todos: Vec<Todo>,
}

impl Judged {
    /// The same for people and other programs.
    pub fn reports(&self) -> Vec<MemberReport> {
        let of = |(fact, todo): (&Fact, &Todo)| MemberReport {
            id: fact.member.hex(),
            name: fact.member.name.clone(),
            role: match (fact.member.is_started(), fact.member.learner) {
                (false, _) => "unstarted",
                (true, true) => "learner",
                (true, false) => "voter",
            }
            .to_owned(),
            healthy: fact.is_healthy(),
            leader: matches!(fact.health, Health::Healthy { leader: true, .. }),
            machine: match &fact.fate {
                Fate::Lives => None,
                Fate::Gone(proof) => Some(proof.why().to_owned()),
                Fate::Unknown(why) => Some(why.clone()),
            },
            todo: match todo {
                Todo::Keep => None,
                Todo::Wait(why) => Some(format!("nothing: {why}")),
                Todo::Remove(which) => Some(format!("it is removed: {}", which.why())),
            },
        };
        self.facts.iter().zip(&self.todos).map(of).collect()
    }
}

/// Looks and judges; changes nothing. EC2 is asked only about members that do not answer.
pub async fn look(node: &Node, watch: &MachineWatch, api: &Api, with: &Credentials) -> Outcome<Judged> {
    let survey = survey(node, api, with).await?;
    let mut finder = Finder::new(node, &survey.nodes);
    let mut facts = Vec::with_capacity(survey.members.len());
    for (member, health) in &survey.members {
        let fate = match (health, Whose::of(member)) {
            (Health::Healthy { .. }, _) => Fate::Lives,
            (_, None) => Fate::Unknown("it has neither a name nor an address".to_owned()),
            (_, Some(whose)) => finder.is_gone(watch, whose).await.map_or_else(Fate::Unknown, Fate::Gone),
        };
        facts.push(Fact { member: member.clone(), health: health.clone(), fate });
    }
    let unstarted = facts.iter().any(|fact| !fact.member.is_started());
    // Read after the members: who has a learner there held the lock before.
    let lock = if unstarted { lock(node, watch).await } else { Lock::Free };
    let todos = decide::judge(&facts, &lock);
    Ok(Judged { survey, facts, todos })
}

/// Who joins now. What cannot be known is somebody who does.
async fn lock(node: &Node, watch: &MachineWatch) -> Lock {
    let found = match Store::of(node).join_lock().await {
        Ok(None) => return Lock::Free,
        Ok(Some(found)) => found,
        Err(failure) => return Lock::Living(format!("somebody (the lock cannot be read: {})", failure.detail)),
    };
    let holder = &found.lock.holder;
    if holder.identity == node.identity.key() {
        return Lock::Ours;
    }
    match watch.look(node, holder, found.lock.attempt, found.age()).await {
        Ok(Ok(_)) => Lock::Gone,
        Ok(Err(_)) | Err(_) => Lock::Living(holder.node_name.clone()),
    }
}

/// Removes what is proven to be gone, one member at a time, and what Kubernetes keeps of it. `joining` is the own node's
/// name of a machine that holds the join lock and runs no `kubeadm join`: its own unstarted learner goes too, and it is
/// told why it must wait.
///
/// Errors: `NoQuorum` (then nothing was removed), and those of etcd and of the API server; the next pass goes on.
pub async fn tidy(
    node: &Node,
    watch: &MachineWatch,
    api: &Api,
    with: &Credentials,
    joining: Option<&str>,
) -> Outcome<Tidied> {
    let client = Client::new(node, with);
    let mut removed = Vec::new();
    loop {
        let judged = look(node, watch, api, with).await?;
        if joining.is_none() {
            node.update(|status| status.members = Some(judged.reports()));
        }
        let next = decide::next(&judged.todos).filter(|which| joining.is_some() || !is_own(node, &judged, which));
        let Some(which) = next.filter(|_| removed.len() < AT_MOST) else {
            leftovers(node, watch, api, &judged).await?;
            let waits = decide::waits(&judged.todos);
            let members = judged.facts.into_iter().map(|fact| fact.member).collect();
            return Ok(Tidied { members, removed, waits });
        };
        if which.gone().is_none() && has_started(&client, &judged, which).await? {
            // Its join ended well between the two looks, and gave the lock back.
            continue;
        }
        client.remove(&judged.survey.endpoint, which).await?;
        let name = which.name().to_owned();
        node.tell(&Event::Note(&format!("etcd's member {name} was removed: {}", which.why())));
        if let (Some(proof), Some(of)) = (which.gone(), which.node()) {
            forget(api, &judged, of, proof).await?;
        }
        removed.push(name);
    }
}

/// Whether a learner that had not started has done so since. The lock was free in between: had it not started by now, its
/// join failed.
async fn has_started(client: &Client, judged: &Judged, which: &Removable) -> Outcome<bool> {
    let members = client.members(&judged.survey.endpoint, true).await?;
    Ok(members.iter().any(|member| member.id == which.id() && member.is_started()))
}

/// Whether it is the member of this very machine: only a join of its own takes that away.
fn is_own(node: &Node, judged: &Judged, which: &Removable) -> bool {
    let (name, address) = (&node.identity.node_name, node.identity.address);
    let member = judged.facts.iter().map(|fact| &fact.member).find(|member| member.id == which.id());
    member.is_some_and(|member| decide::is_of(member, name, address))
}

/// Takes away what Kubernetes keeps of a member that was removed. A Node of its name that belongs to another machine by
/// now stays, and so does one that is Ready whatever an operator says.
pub(super) async fn forget(api: &Api, judged: &Judged, name: &str, proof: &MachineGone) -> Outcome<()> {
    let is_its = |node: &&ControlPlane| match &node.facts.instance {
        Some(instance) if !proof.is_word() => proof.identity().ends_with(instance),
        _ => !node.facts.ready,
    };
    let node = judged.survey.nodes.iter().find(|node| node.facts.name == name);
    clean::master(api, name, node.filter(is_its)).await
}

/// Nodes of the control plane without a member whose machine is gone: an earlier pass was interrupted, or the machine
/// left and ended.
async fn leftovers(node: &Node, watch: &MachineWatch, api: &Api, judged: &Judged) -> Outcome<()> {
    let has_member = |name: &str| judged.facts.iter().any(|fact| fact.member.name == name);
    let mut finder = Finder::new(node, &judged.survey.nodes);
    for found in &judged.survey.nodes {
        let facts = &found.facts;
        if facts.ready || facts.instance.is_none() || has_member(&facts.name) {
            continue;
        }
        if let Ok(proof) = finder.is_gone(watch, Whose::Name(&facts.name)).await {
            clean::master(api, &facts.name, Some(found)).await?;
            node.tell(&Event::Note(&format!("the Node {} was deleted: {}", facts.name, proof.why())));
        }
    }
    Ok(())
}
