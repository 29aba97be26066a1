//! `kubestrap member`: what a person sees of etcd's members, and the word that a machine is gone where nobody else can
//! know it.

use super::api::{Client, Credentials};
use super::decide::{self, Fact, Removable};
use super::machines::{Finder, Whose};
use super::tidy::{self, Judged};
use crate::kube::Api;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::Role;
use crate::model::report::MemberReport;
use crate::node::Node;
use crate::store::{MachineGone, MachineWatch};
use std::collections::BTreeMap;

/// Every member as it is, and what would be done about it.
///
/// Errors: `Usage` on a worker, `NoQuorum`, `EtcdUnavailable`, and those of the API server.
pub async fn list(node: &Node) -> Outcome<Vec<MemberReport>> {
    let judged = look(node, "list etcd's members").await?;
    let mut reports = judged.reports();
    let states = states(node, &judged).await;
    for (report, fact) in reports.iter_mut().zip(&judged.facts) {
        if report.machine.is_none() {
            report.machine = states.get(&fact.member.id).cloned();
        }
    }
    Ok(reports)
}

async fn look(node: &Node, attempted: &str) -> Outcome<Judged> {
    if node.settings.role != Role::Master {
        let why = "this machine is a worker; only a master has the certificates that etcd asks for";
        return Err(Failure::new(Cause::Usage, attempted, why).advise("run it on a master"));
    }
    tidy::look(node, &MachineWatch::new(), &Api::local(node)?, &Credentials::of_master()).await
}

/// What EC2 says of the members' instances, by member. Nothing where nobody can be asked; its failure in words.
async fn states(node: &Node, judged: &Judged) -> BTreeMap<u64, String> {
    let mut states = BTreeMap::new();
    let Some(own) = node.identity.ec2() else { return states };
    let mut finder = Finder::new(node, &judged.survey.nodes);
    let mut instances: BTreeMap<u64, String> = BTreeMap::new();
    for fact in judged.facts.iter().filter(|fact| fact.is_healthy()) {
        if fact.member.name == node.identity.node_name {
            instances.insert(fact.member.id, own.instance_id.clone());
            continue;
        }
        let Some(whose) = Whose::of(&fact.member) else { continue };
        let found = finder.machines(whose).await.unwrap_or_default().into_iter().filter_map(|one| one.holder.ec2);
        let mut found = found.filter(|ec2| ec2.region == own.region);
        instances.extend(found.next().map(|ec2| (fact.member.id, ec2.instance_id)));
    }
    let ids: Vec<String> = instances.values().cloned().collect();
    let answer = if ids.is_empty() { Ok(Vec::new()) } else { node.world.cloud.instances(&own.region, &ids).await };
    for (member, id) in instances {
        let state = match &answer {
            Ok(answer) => answer.iter().find(|found| found.instance_id == id).map(|found| found.state.clone()),
            Err(failure) => Some(format!("not known ({})", failure.cause.row().label)),
        };
        states.insert(member, format!("{id} is {}", state.unwrap_or_else(|| "not known to EC2".to_owned())));
    }
    states
}

/// A removal that an operator asked for, to be shown before it is done.
#[derive(Debug, Clone)]
pub struct Removal {
    which: Removable,
    judged: Judged,
    /// The name to confirm with.
    pub name: String,
    /// What it does, for people.
    pub warning: String,
}

/// Reads what the removal of this member would do. `name` is the node's name, or the id of a member that has none.
/// `gone`: the operator knows that its machine is gone for good.
///
/// Errors: `Usage` when there is no such member, for a healthy one, and for one whose machine nobody says is gone;
/// `LastVoter` and `QuorumNeeded` for one that cannot be missed; those of etcd.
pub async fn plan_removal(node: &Node, name: &str, gone: bool) -> Outcome<Removal> {
    let attempted = format!("remove the member {name}");
    let judged = look(node, &attempted).await?;
    let is_it = |fact: &&Fact| fact.member.name == name || fact.member.hex() == name;
    let Some(named) = judged.facts.iter().find(is_it) else {
        let known: Vec<String> = judged.facts.iter().map(|fact| fact.member.title()).collect();
        let failure = Failure::new(Cause::Usage, attempted, format!("members are: {}", known.join(", ")));
        return Err(failure.advise("`kubestrap member list` shows names and ids"));
    };
    // A learner that never started may go like any that nobody is joining with.
    let todo = judged.todos.iter().find_map(|todo| match todo {
        decide::Todo::Remove(which) if which.id() == named.member.id => Some(which.clone()),
        _ => None,
    });
    let proof = gone.then(|| MachineGone::by_operator(&named.member.name));
    let which = match (todo, proof) {
        (Some(which), None) => which,
        (_, proof) => {
            decide::by_operator(&judged.facts, named, proof).map_err(|refusal| refusal.into_failure(&attempted))?
        }
    };
    let voters = judged.facts.iter().filter(|fact| fact.member.is_voter() && fact.member.id != which.id()).count();
    let title = named.member.title();
    let warning = format!(
        "The member {title} ({}) is removed from etcd: {}.\n{voters} voters stay. Its Node and the Pods of its control \
         plane are deleted. If its machine still runs, it is no master any more and must be reset before it joins again.",
        named.member.hex(),
        which.why()
    );
    Ok(Removal { name: name.to_owned(), which, warning, judged })
}

/// Removes it. `false`: it was gone already.
pub async fn remove(node: &Node, removal: &Removal) -> Outcome<bool> {
    let api = Api::local(node)?;
    let client = Client::new(node, &Credentials::of_master());
    let endpoint = removal.judged.survey.beside(removal.which.id()).unwrap_or(&removal.judged.survey.endpoint);
    // A removal that is sent without quorum would be carried out later.
    client.members(endpoint, true).await?;
    let removed = client.remove(endpoint, &removal.which).await?;
    if let (Some(proof), Some(of)) = (removal.which.gone(), removal.which.node()) {
        tidy::forget(&api, &removal.judged, of, proof).await?;
    }
    Ok(removed)
}
