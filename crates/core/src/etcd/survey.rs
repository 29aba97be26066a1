//! Looking at etcd: which member can be asked, what the list of members is, and how each of them is.

use super::api::{Client, Credentials, LOCAL, Member};
use super::decide::{self, Health, Own};
use super::machines::{self, ControlPlane};
use crate::kube::Api;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use futures_util::future::{Either, FutureExt, LocalBoxFuture, join_all, select, select_ok};
use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

/// A member that does not say in this time how it is does not answer: it need not ask anybody else for that.
const STATUS_WITHIN: Duration = Duration::from_secs(3);

/// etcd as it is now.
#[derive(Debug, Clone)]
pub struct Survey {
    /// A member that answered for a quorum.
    pub endpoint: String,
    /// Every member and how it is.
    pub members: Vec<(Member, Health)>,
    /// The Nodes of the control plane.
    pub nodes: Vec<ControlPlane>,
}

impl Survey {
    /// The endpoint of a healthy voter that is not this one; any that answered otherwise.
    pub fn beside(&self, id: u64) -> Option<&str> {
        let mut healthy = self.members.iter().filter(|(member, health)| {
            member.id != id && member.is_voter() && matches!(health, Health::Healthy { .. })
        });
        healthy.find_map(|(member, _)| member.clients.first()).map(String::as_str)
    }
}

/// Reads the members as a quorum has them, and asks each how it is.
///
/// Errors: `NoQuorum` when members answer and no quorum does, `EtcdUnavailable` when none answers at all.
pub async fn survey(node: &Node, api: &Api, with: &Credentials) -> Outcome<Survey> {
    let client = Client::new(node, with);
    let places = places(node, api).await?;
    let (endpoint, members) = linearizable(&client, &places).await?;
    let looks = members.iter().map(|member| health(node, &client, member));
    let health = join_all(looks).await;
    Ok(Survey { endpoint, members: members.into_iter().zip(health).collect(), nodes: places.nodes })
}

/// Where members may be.
struct Places {
    nodes: Vec<ControlPlane>,
    endpoints: Vec<String>,
    /// Why the API server does not say where the others are.
    away: Option<String>,
}

/// Where members may be: here, and at the addresses of the control plane's Nodes. When the API server is away, which it
/// is without etcd, this machine's own member can still tell what is wrong: kubeadm lets it listen at both addresses.
async fn places(node: &Node, api: &Api) -> Outcome<Places> {
    let (nodes, away) = match machines::control_planes(api).await {
        Ok(nodes) => (nodes, None),
        Err(failure) if failure.cause == Cause::ApiUnavailable || failure.cause == Cause::Deadline => {
            (Vec::new(), Some(failure.detail))
        }
        Err(failure) => return Err(failure),
    };
    let mut endpoints: BTreeSet<String> = BTreeSet::from([LOCAL.to_owned()]);
    let addresses = nodes.iter().flat_map(|node| &node.addresses);
    for address in addresses.chain([&node.identity.address]) {
        endpoints.insert(match address {
            std::net::IpAddr::V4(address) => format!("https://{address}:2379"),
            std::net::IpAddr::V6(address) => format!("https://[{address}]:2379"),
        });
    }
    Ok(Places { nodes, endpoints: endpoints.into_iter().collect(), away })
}

/// A member that is asked for the list.
type Asked<'a> = LocalBoxFuture<'a, Outcome<(String, Vec<Member>)>>;

/// The first answer that a quorum stands behind. All are asked at once: a machine that is gone takes long not to answer.
async fn linearizable(client: &Client, places: &Places) -> Outcome<(String, Vec<Member>)> {
    let endpoints = &places.endpoints;
    let ask = |linearizable: bool| {
        let asked = endpoints.iter().map(move |endpoint| {
            let answer = async move { Ok((endpoint.clone(), client.members(endpoint, linearizable).await?)) };
            answer.boxed_local()
        });
        select_ok(asked.collect::<Vec<Asked<'_>>>())
    };
    let failure = match ask(true).await {
        Ok((answer, _)) => return Ok(answer),
        Err(failure) => failure,
    };
    // Whoever is not let in must not be told that etcd is away.
    if matches!(failure.cause, Cause::BadCredentials | Cause::AccessDenied | Cause::FileAccess) {
        return Err(failure);
    }
    match ask(false).await {
        Ok(((endpoint, members), _)) => {
            let voters = members.iter().filter(|member| member.is_voter()).count();
            let why = format!(
                "{endpoint} answers, but no quorum does: {} of {voters} voters must run ({})",
                decide::quorum(voters),
                failure.detail
            );
            Err(Failure::new(Cause::NoQuorum, "read the members of etcd", why))
        }
        Err(last) => {
            let mut why = format!("none of {} answers: {}", endpoints.join(", "), last.detail);
            if let Some(away) = &places.away {
                why.push_str(&format!("; the API server, which knows the others, is away: {away}"));
            }
            Err(Failure::new(Cause::EtcdUnavailable, "read the members of etcd", why))
        }
    }
}

/// How a member is. Another one that answers at its address is not it.
async fn health(node: &Node, client: &Client, member: &Member) -> Health {
    let Some(endpoint) = member.clients.first() else {
        return Health::Silent("it never started".to_owned());
    };
    let status = match select(pin!(client.status(endpoint)), pin!(node.world.time.sleep(STATUS_WITHIN))).await {
        Either::Left((Ok(status), _)) => status,
        Either::Left((Err(failure), _)) => return Health::Silent(failure.detail),
        Either::Right(_) => return Health::Silent(format!("no answer within {} s", STATUS_WITHIN.as_secs())),
    };
    if status.member != member.id {
        return Health::Silent(format!("another member ({:x}) answers at {endpoint}", status.member));
    }
    if status.leader == 0 {
        return Health::Silent("it follows no leader".to_owned());
    }
    Health::Healthy { leader: status.leader == member.id, applied: status.applied }
}

/// This machine's own member, found by its name or, before it has one, by its peer address.
pub async fn own_member(node: &Node, api: &Api, with: &Credentials) -> Outcome<Own> {
    let client = Client::new(node, with);
    let (_, members) = linearizable(&client, &places(node, api).await?).await?;
    Ok(decide::own(&members, &node.identity.node_name, node.identity.address))
}

/// Removes the learner that this machine's own failed join left; only one that never started. `false`: there is none.
pub async fn remove_own_learner(node: &Node, api: &Api, with: &Credentials) -> Outcome<bool> {
    let client = Client::new(node, with);
    let (endpoint, members) = linearizable(&client, &places(node, api).await?).await?;
    match decide::own_learner(&members, &node.identity.node_name, node.identity.address) {
        None => Ok(false),
        Some(which) => client.remove(&endpoint, &which).await,
    }
}
