//! Members over a small control plane ([`super::testing`]): what goes, in which order, and what never does.

use super::api::Credentials;
use super::leave::{intent, leave, may_pass, refuse_left};
use super::testing::{Plane, name};
use super::{Own, Tidied, operator, own_member, refuse_twin, remove_own_learner, tidy};
use crate::kube::Api;
use crate::model::cause::{Cause, Outcome};
use crate::model::register::Holder;
use crate::node::Node;
use crate::ports::{Condition, Objects};
use crate::store::MachineWatch;
use crate::store::fake::run;
use serde_json::json;
use std::rc::Rc;
use std::time::Duration;

fn tidied(node: &Node, joining: Option<&str>) -> Outcome<Tidied> {
    watched(node, &MachineWatch::new(), joining)
}

fn watched(node: &Node, watch: &MachineWatch, joining: Option<&str>) -> Outcome<Tidied> {
    let api = Api::local(node).expect("an endpoint");
    run(tidy(node, watch, &api, &Credentials::of_master(), joining)).expect("alive")
}

fn own(node: &Node) -> Own {
    let api = Api::local(node).expect("an endpoint");
    run(own_member(node, &api, &Credentials::of_master())).expect("alive").expect("an answer")
}

/// Puts a lock into the store, held by the machine of this number.
fn lock(plane: &Rc<Plane>, n: u8) {
    let holder = plane.agent(n, true);
    let held = Holder { identity: holder.identity.key(), node_name: name(n), ec2: holder.identity.ec2().cloned() };
    let body = json!({"schema": 1, "cluster": "test", "uid": uuid::Uuid::from_u128(9), "attempt": uuid::Uuid::from_u128(7),
        "holder": held, "since": "2026-11-21T12:00:00Z"});
    let put = plane.lab.objects.put("test/join/control-plane.lock", body.to_string().into_bytes(), Condition::Absent);
    run(put).expect("alive").expect("stored");
}

#[test]
fn a_healthy_control_plane_is_left_alone() {
    let plane = Plane::new(3);
    let node = plane.agent(1, true);
    let done = tidied(&node, None).expect("tidied");
    assert_eq!((done.members.len(), done.removed, done.waits), (3, vec![], None));
    assert!(plane.changes().is_empty());
    let members = node.status().members.expect("reported");
    assert_eq!(members.iter().filter(|member| member.leader && member.healthy).count(), 1);
    assert_eq!(own(&node), Own::Voter);
    assert_eq!(own(&plane.agent(4, true)), Own::Absent);
}

#[test]
fn a_member_whose_machine_is_gone_goes_first_then_its_pods_then_its_node() {
    let plane = Plane::new(3);
    plane.off(3, "terminated");
    let done = tidied(&plane.agent(1, true), None).expect("tidied");
    assert_eq!((done.members.len(), done.removed), (2, vec!["cp-3".to_owned()]));
    let expected = [
        "remove member 3",
        "delete etcd-cp-3",
        "delete kube-apiserver-cp-3",
        "delete kube-controller-manager-cp-3",
        "delete kube-scheduler-cp-3",
        "taint cp-3",
        "delete cp-3",
    ];
    assert_eq!(plane.changes(), expected);
    // A machine that joins meanwhile does the same, and nothing twice.
    assert_eq!(tidied(&plane.agent(4, true), Some("cp-4")).expect("tidied").waits, None);
    assert!(plane.changes().is_empty());
}

#[test]
fn a_member_that_is_silent_stays_until_its_machine_is_gone() {
    for state in ["running", "stopped", "shutting-down", "stopping"] {
        let plane = Plane::new(3);
        plane.off(3, state);
        let done = tidied(&plane.agent(1, true), None).expect("tidied");
        assert!(done.waits.is_some_and(|why| why.contains("cp-3") && why.contains(state)), "{state}");
        assert!(plane.changes().is_empty(), "{state}");
    }
    // Terminated for EC2, and it answers: nobody removes a healthy member.
    let plane = Plane::new(3);
    plane.instances.borrow_mut().insert("i-3".to_owned(), "terminated".to_owned());
    assert_eq!(tidied(&plane.agent(1, true), None).expect("tidied").waits, None);
    assert!(plane.changes().is_empty());
}

#[test]
fn a_machine_that_ec2_has_forgotten_goes_after_ten_minutes_of_looks() {
    let plane = Plane::new(3);
    plane.off(3, "");
    let (node, watch) = (plane.agent(1, true), MachineWatch::new());
    let api = Api::local(&node).expect("an endpoint");
    let mut gone_at = None;
    for minute in 0..20 {
        // The age of a Node is told by the API server's clock, which the Lease shows.
        assert_eq!(run(node.lease.round(&node, &api)), Some(Ok(true)));
        if !watched(&node, &watch, None).expect("tidied").removed.is_empty() {
            gone_at = gone_at.or(Some(minute));
        }
        plane.lab.time.pass(Duration::from_secs(60));
    }
    assert_eq!(gone_at, Some(12));
}

#[test]
fn without_quorum_nothing_is_removed_and_it_is_said_plainly() {
    let plane = Plane::new(3);
    plane.off(2, "terminated");
    plane.off(3, "terminated");
    let failure = tidied(&plane.agent(1, true), None).expect_err("no quorum");
    assert_eq!(failure.cause, Cause::NoQuorum);
    assert!(failure.to_string().contains("2 of 3 voters must run"), "{failure}");
    let nobody = Plane::new(1);
    nobody.off(1, "terminated");
    assert_eq!(tidied(&nobody.agent(1, true), None).expect_err("nobody").cause, Cause::EtcdUnavailable);
    assert!(plane.changes().is_empty() && nobody.changes().is_empty());
}

#[test]
fn of_two_the_dead_one_holds_the_quorum_and_nothing_goes() {
    let plane = Plane::new(2);
    plane.off(2, "terminated");
    assert_eq!(tidied(&plane.agent(1, true), None).expect_err("no quorum").cause, Cause::NoQuorum);
    assert_eq!(plane.names(), ["cp-1", "cp-2"]);
}

#[test]
fn a_learner_that_never_started_goes_when_nobody_joins() {
    let plane = Plane::new(1);
    plane.add(4, "", true);
    lock(&plane, 4);
    plane.instances.borrow_mut().insert("i-4".to_owned(), "running".to_owned());
    let done = tidied(&plane.agent(1, true), None).expect("tidied");
    assert!(done.waits.is_some_and(|why| why.contains("cp-4 joins")) && plane.changes().is_empty());
    // Its owner, which holds the lock and runs nothing, takes it away itself, and may wait for nothing.
    let joiner = plane.agent(4, true);
    assert_eq!(own(&joiner), Own::UnstartedLearner(4));
    assert_eq!(tidied(&joiner, Some("cp-4")).expect("tidied").waits, None);
    assert_eq!(plane.changes(), ["remove member 4"]);
    // A power cut in the middle of a join: EC2 says that the owner of the lock is gone.
    plane.add(4, "", true);
    plane.instances.borrow_mut().insert("i-4".to_owned(), "terminated".to_owned());
    assert_eq!(tidied(&plane.agent(1, true), None).expect("tidied").waits, None);
    assert_eq!(plane.changes(), ["remove member 4"]);
    // A lock that cannot be read is somebody's.
    let garbled = Plane::new(1);
    garbled.add(4, "", true);
    let put = garbled.lab.objects.put("test/join/control-plane.lock", b"{".to_vec(), Condition::Absent);
    run(put).expect("alive").expect("stored");
    assert!(tidied(&garbled.agent(1, true), None).expect("tidied").waits.is_some());
    assert!(garbled.changes().is_empty());
}

#[test]
fn only_an_own_learner_that_never_started_is_taken_back() {
    let plane = Plane::new(2);
    let node = plane.agent(4, true);
    let take_back = || {
        let api = Api::local(&node).expect("an endpoint");
        run(remove_own_learner(&node, &api, &Credentials::of_master())).expect("alive").expect("an answer")
    };
    assert!(!take_back());
    plane.add(5, "", true);
    assert!(!take_back(), "another machine's");
    plane.members.borrow_mut().retain(|member| member.id != 5);
    plane.add(4, "", true);
    assert!(take_back());
    plane.add(4, "cp-4", true);
    assert!(!take_back(), "it has started");
    assert_eq!(own(&node), Own::StartedLearner);
    assert_eq!(plane.changes(), ["remove member 4"]);
}

#[test]
fn a_joiner_waits_for_members_that_are_away_and_not_for_one_of_its_own_name() {
    let plane = Plane::new(3);
    plane.off(3, "running");
    let waits = tidied(&plane.agent(4, true), Some("cp-4")).expect("tidied").waits.expect("a reason");
    assert!(waits.contains("cp-3"), "{waits}");
    let twin = Plane::new(3);
    let (own, done) = (twin.agent(2, true), tidied(&twin.agent(2, true), Some("cp-2")).expect("tidied"));
    assert_eq!((&done.waits, done.removed.len()), (&None, 0));
    let refused = refuse_twin(&done.members, &own.identity).expect_err("a twin");
    assert_eq!(refused.cause, Cause::DuplicateNode);
    // A machine that was replaced under the same name and address: the Node names the old instance.
    let reused = Plane::new(3);
    reused.off(3, "running");
    reused.objects.borrow_mut().get_mut("/api/v1/nodes/cp-3").expect("a node")["spec"]["providerID"] =
        "aws:///eu-west-1a/i-33".into();
    reused.instances.borrow_mut().insert("i-33".to_owned(), "terminated".to_owned());
    let done = tidied(&reused.agent(3, true), Some("cp-3")).expect("tidied");
    assert_eq!((done.removed, done.waits), (vec!["cp-3".to_owned()], None));
    assert_eq!(reused.changes().last().map(String::as_str), Some("delete cp-3"));
}

#[test]
fn what_an_interrupted_pass_left_is_taken_away_by_the_next() {
    let plane = Plane::new(3);
    plane.off(3, "terminated");
    plane.lose.set(true);
    // The removal is carried out and its answer lost.
    assert_eq!(tidied(&plane.agent(1, true), None).expect_err("lost").cause, Cause::EtcdUnavailable);
    assert_eq!(plane.changes(), ["remove member 3"]);
    assert!(tidied(&plane.agent(2, true), None).expect("tidied").removed.is_empty());
    let changes = plane.changes();
    assert_eq!(changes.last().map(String::as_str), Some("delete cp-3"), "{changes:?}");
    assert!(changes.contains(&"delete etcd-cp-3".to_owned()), "{changes:?}");
}

#[test]
fn a_master_leaves_by_another_member_after_handing_over() {
    let plane = Plane::new(3);
    let node = plane.agent(1, true);
    let api = Api::local(&node).expect("an endpoint");
    assert_eq!(run(node.lease.round(&node, &api)), Some(Ok(true)));
    assert_eq!(run(intent(&node)).expect("alive").map(|it| (it.voters, it.leader, it.member)), Ok((2, true, true)));
    assert!(refuse_left(&node).is_ok());
    let farewell = run(leave(&node)).expect("alive").expect("left");
    assert!(farewell.removed && farewell.node_left.is_none(), "{farewell:?}");
    let changes = plane.changes();
    assert!(changes[0].starts_with("leader ") && changes[1] == "remove member 1", "{changes:?}");
    assert_eq!(changes[2], "delete cp-1", "the kubelet makes its mirror Pods again while there is a Node");
    assert!(changes.contains(&"delete etcd-cp-1".to_owned()), "{changes:?}");
    assert_eq!(refuse_left(&node).expect_err("it left").cause, Cause::LeftCluster);
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kubestrap-leader";
    assert_eq!(plane.objects.borrow()[lease]["spec"]["holderIdentity"], "");
    // Again: nothing is there any more, and nothing goes wrong.
    assert_eq!(run(leave(&node)).expect("alive").map(|farewell| farewell.removed), Ok(false));
    assert_eq!(plane.names(), ["cp-2", "cp-3"]);
}

#[test]
fn the_last_voter_never_leaves_nor_one_that_the_quorum_needs() {
    let alone = Plane::new(1);
    let failure = run(leave(&alone.agent(1, true))).expect("alive").expect_err("the last");
    assert_eq!(failure.cause, Cause::LastVoter);
    assert!(!may_pass(&failure), "{failure}");
    let needed = Plane::new(3);
    needed.off(3, "running");
    let node = needed.agent(1, true);
    let failure = run(leave(&node)).expect("alive").expect_err("needed");
    assert_eq!(failure.cause, Cause::QuorumNeeded);
    assert!(may_pass(&failure), "{failure}");
    assert!(refuse_left(&node).is_ok(), "nothing was begun");
    assert!(alone.changes().is_empty() && needed.changes().is_empty());
}

#[test]
fn a_lost_answer_to_the_own_removal_is_no_failure_for_the_next_try() {
    let plane = Plane::new(3);
    let node = plane.agent(2, true);
    plane.lose.set(true);
    assert!(run(leave(&node)).expect("alive").expect_err("lost").is_transient());
    assert_eq!(refuse_left(&node).expect_err("it began").cause, Cause::LeftCluster);
    let farewell = run(leave(&node)).expect("alive").expect("left");
    assert!(!farewell.removed && farewell.node_left.is_none());
    assert_eq!(plane.names(), ["cp-1", "cp-3"]);
}

#[test]
fn an_operator_removes_what_nobody_else_can_judge_and_never_what_is_needed() {
    let plane = Plane::new(3);
    plane.off(3, "running");
    let node = plane.agent(1, true);
    let plan = |name: &str, gone| run(operator::plan_removal(&node, name, gone)).expect("alive");
    let listed = run(operator::list(&node)).expect("alive").expect("members");
    assert_eq!(listed[0].machine.as_deref(), Some("i-1 is running"));
    assert!(listed[2].todo.as_deref().is_some_and(|todo| todo.starts_with("nothing: cp-3 does not answer")));
    assert_eq!(plan("cp-9", true).expect_err("unknown").cause, Cause::Usage);
    let healthy = plan("cp-2", true).expect_err("healthy");
    assert!(healthy.detail.contains("it is healthy") && healthy.fix().contains("kubestrap leave"), "{healthy}");
    assert!(plan("cp-3", false).expect_err("nobody says so").fix().contains("--machine-is-gone"));
    let removal = plan("cp-3", true).expect("planned");
    assert!(removal.warning.contains("2 voters stay") && plane.changes().is_empty());
    assert_eq!(run(operator::remove(&node, &removal)).expect("alive"), Ok(true));
    let changes = plane.changes();
    assert_eq!((changes[0].as_str(), changes.last().map(String::as_str)), ("remove member 3", Some("delete cp-3")));
    assert_eq!(run(operator::remove(&node, &removal)).expect("alive"), Ok(false), "confirmed late");
    // A worker has no certificates for etcd.
    let mut worker = plane.agent(1, true);
    worker.settings = Rc::new(crate::testing::settings("role: worker"));
    assert_eq!(run(operator::list(&worker)).expect("alive").expect_err("a worker").cause, Cause::Usage);
    assert_eq!(run(leave(&worker)).expect("alive").expect_err("a worker").cause, Cause::Usage);
}
