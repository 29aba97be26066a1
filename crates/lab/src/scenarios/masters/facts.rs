//! What can be seen of a control plane: etcd's members, the Nodes, who leads, and what must hold of all of it.

use super::super::support::{self, BUCKET, ca, expect, node_name, noted, register};
use super::fleet::Fleet;
use crate::lab::Lab;
use crate::machine::Machine;
use crate::{Result, attempted, fail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// etcd as a master's own programs reach it.
const ETCD: &str = "curl -s --max-time 5 --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/server.crt \
                    --key /etc/kubernetes/pki/etcd/server.key -d '{}' https://127.0.0.1:2379/v3";
/// The Lease of the agents.
const LEASE: &str = "kubestrap-leader";
/// What a join as a master has only while it lasts.
const TRACES: &[&str] = &["/var/lib/kubestrap/join/admin.conf", "/var/lib/kubestrap/join/etcd-client.key"];
/// What follows from a change within moments, on a machine of two cores.
pub const SOON: Duration = Duration::from_secs(60);

/// A member of etcd.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The Node's name; empty while it has not started.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Whether it has a vote.
    pub votes: bool,
}

/// etcd's members, as this master's own says.
pub fn members(on: &Machine) -> Result<Vec<Member>> {
    let text = on.shell(&format!("{ETCD}/cluster/member/list"))?;
    read_members(&text)
}

fn read_members(text: &str) -> Result<Vec<Member>> {
    let answer: Value = attempted(serde_json::from_str(text), format!("read etcd's members: {text}"))?;
    let Some(members) = answer["members"].as_array() else { return fail(format!("etcd tells no members: {text}")) };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let member =
        |one: &Value| Member { name: text(&one["name"]), id: text(&one["ID"]), votes: one["isLearner"] != true };
    let mut members: Vec<Member> = members.iter().map(member).collect();
    members.sort();
    Ok(members)
}

/// The agent that has the Lease, as the Lease says; empty when nobody has.
pub fn holder(on: &Machine) -> String {
    let lease = on.kubectl(&["-n", "kube-system", "get", "lease", LEASE]).unwrap_or_default();
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

/// Which of these has the Lease, when one does.
pub fn leader<'a>(on: &Machine, masters: &'a [Machine]) -> Option<&'a Machine> {
    let holder = holder(on);
    masters.iter().find(|master| holder.contains(&node_name(master)))
}

/// Waits until one of these has the Lease.
pub fn await_leader<'a>(on: &Machine, masters: &'a [Machine]) -> Result<&'a Machine> {
    let mut found = None;
    on.until("to see a leader among the agents", SOON, |on| {
        found = leader(on, masters);
        found.is_some()
    })?;
    found.map_or_else(|| fail("nobody leads"), Ok)
}

/// The names of the Nodes, and of those that are Ready.
pub fn nodes(on: &Machine) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let nodes = on.kubectl(&["get", "nodes"])?;
    let items = nodes["items"].as_array().cloned().unwrap_or_default();
    let name = |node: &Value| node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let ready = |node: &&Value| {
        let conditions = node["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
    };
    Ok((items.iter().map(name).collect(), items.iter().filter(ready).map(name).collect()))
}

/// What must hold, whatever happened: an established register, one init at most among those that are left, one CA on
/// every disk, all masters voting members and nobody else, these Nodes and no others, all Ready, and nothing left of joins.
pub fn is_whole(lab: &Lab, fleet: &Fleet, masters: &[Machine], workers: &[Machine]) -> Result<()> {
    let Some(first) = masters.first() else { return fail("a cluster without masters is not whole") };
    let all = || masters.iter().chain(workers);
    let names = |machines: &[Machine]| machines.iter().map(node_name).collect::<BTreeSet<_>>();
    let wanted = names(masters);
    // Who joins last is Ready before the others have seen its vote.
    first.until("to see exactly these members, all with a vote", SOON, |_| {
        masters.iter().all(|master| members(master).is_ok_and(|found| voters(&found) == Some(wanted.clone())))
    })?;
    let ids: BTreeSet<_> = masters.iter().map(members).collect::<Result<_>>()?;
    expect(ids.len() == 1, &format!("every member tells of the same members: {ids:?}"))?;
    let everybody: BTreeSet<_> = all().map(node_name).collect();
    first.until("to see exactly these Nodes, all Ready", SOON, |first| {
        nodes(first).is_ok_and(|(there, ready)| there == everybody && ready == everybody)
    })?;
    one_init(&register(lab, &fleet.cluster)?, masters)?;
    let hash = ca(first)?;
    let register = register(lab, &fleet.cluster)?;
    expect(
        register["ca_sha256"] == hash.as_str(),
        &format!("the register has the CA of the disks, {hash}: {register}"),
    )?;
    for machine in all() {
        let own = ca(machine)?;
        expect(own == hash, &format!("{} has the cluster's CA {hash}, not {own}", machine.name()))?;
    }
    for master in masters {
        let left: Vec<_> = TRACES.iter().filter(|trace| master.exists(trace)).collect();
        expect(left.is_empty(), &format!("nothing is left of the join on {}: {left:?}", master.name()))?;
    }
    let lock = lab.fabric().object(&format!("{BUCKET}/k8s/{}/join/control-plane.lock", fleet.cluster))?;
    expect(lock.is_none(), &format!("the join lock is given back: {lock:?}"))?;
    lab.say(&format!("one CA, {} voting members, {} Ready nodes", masters.len(), masters.len() + workers.len()));
    Ok(())
}

/// The members' names, when all of them have started and vote.
fn voters(members: &[Member]) -> Option<BTreeSet<String>> {
    let well = members.iter().all(|member| member.votes && !member.name.is_empty());
    well.then(|| members.iter().map(|member| member.name.clone()).collect())
}

/// One machine committed the register's attempt, unless that one is gone; all others joined, once each.
fn one_init(register: &Value, masters: &[Machine]) -> Result<()> {
    expect(register["state"] == "established", &format!("the register is established: {register}"))?;
    let mut inits = 0;
    for master in masters {
        let journal = master.journal();
        let begun: Vec<&Value> = journal.iter().filter(|line| line["entry"] == "began").collect();
        let last = begun.last().copied().unwrap_or(&Value::Null);
        if last["kind"] == "init" {
            inits += 1;
            let own = last["attempt"] == register["attempt"] && noted(master, "committed") == 1;
            expect(own, &format!("{} committed the register's attempt {register}: {begun:?}", master.name()))?;
        } else {
            let joined = last["kind"] == "control-plane" && noted(master, "joined") == 1;
            expect(joined, &format!("{} joined once, as a control plane: {begun:?}", master.name()))?;
            expect(noted(master, "committed") == 0, &format!("{} committed nothing", master.name()))?;
        }
    }
    expect(inits <= 1, &format!("one of these initialised the cluster, not {inits}"))
}

/// The pod of the control plane is gone with the Node of its machine, and so is the Node.
pub fn is_forgotten(on: &Machine, gone: &Machine) -> Result<()> {
    let name = node_name(gone);
    on.until("to have forgotten the Node that is gone", SOON, |on| {
        nodes(on).is_ok_and(|(there, _)| !there.contains(&name))
            && members(on).is_ok_and(|members| members.iter().all(|member| member.name != name))
    })?;
    let pods =
        on.kubectl(&["-n", "kube-system", "get", "pods", "--field-selector", &format!("spec.nodeName={name}")])?;
    let mirrors = pods["items"].as_array().cloned().unwrap_or_default();
    let left = |pod: &&Value| pod["metadata"]["name"].as_str().is_some_and(|pod| pod.starts_with("etcd-"));
    expect(!mirrors.iter().any(|pod| left(&pod)), "no pod of its etcd is left, which kubeadm would ask")
}

/// The cluster's join bundle; null when there is none yet.
pub fn bundle(lab: &Lab, fleet: &Fleet) -> Value {
    support::bundle(lab, &fleet.cluster).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_as_etcd_tells_them() {
        let text = r#"{"header":{},"members":[
            {"ID":"2","name":"b","peerURLs":["https://10.0.0.2:2380"],"clientURLs":["https://10.0.0.2:2379"]},
            {"ID":"1","name":"a","peerURLs":["https://10.0.0.1:2380"],"clientURLs":["https://10.0.0.1:2379"]}]}"#;
        let found = read_members(text).expect("members");
        assert_eq!(voters(&found), Some(["a".to_owned(), "b".to_owned()].into()));
        let learner = r#"{"members":[{"ID":"1","name":"a"},{"ID":"3","peerURLs":["x"],"isLearner":true}]}"#;
        let found = read_members(learner).expect("members");
        assert_eq!((found.len(), found[0].votes, voters(&found)), (2, false, None));
        assert!(read_members(r#"{"error":"etcdserver: no leader"}"#).is_err() && read_members("").is_err());
    }

    #[test]
    fn two_names_may_not_be_one() {
        let both = read_members(r#"{"members":[{"ID":"1","name":"a"},{"ID":"2","name":""}]}"#).expect("members");
        assert_eq!(voters(&both), None, "one has not started");
    }
}
