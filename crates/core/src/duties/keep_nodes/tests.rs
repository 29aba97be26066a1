use super::*;
use crate::etcd::testing::{Plane, name};
use crate::model::report::Phase;
use crate::ports::Objects;
use crate::store::fake::run;
use serde_json::json;
use std::rc::Rc;

fn tick(duty: &NodesDuty, node: &Node) -> Duration {
    run(duty.tick(node)).expect("alive").expect("a round")
}

/// A control plane with one master, and a worker of the number 7.
fn with_worker() -> (Rc<Plane>, Node) {
    let plane = Plane::new(1);
    plane.register(7, "w-7", false);
    let node = plane.agent(1, false);
    (plane, node)
}

fn keys(plane: &Plane, prefix: &str) -> Vec<String> {
    run(plane.lab.objects.list(prefix, None)).expect("alive").expect("a page").keys
}

#[test]
fn a_worker_whose_machine_is_gone_is_tainted_and_deleted_when_its_volumes_are_off() {
    let (plane, node) = with_worker();
    let duty = NodesDuty::default();
    assert_eq!(tick(&duty, &node), LOOK_EVERY);
    plane.off(7, "terminated");
    let attached = json!([{"name": "vol-1", "devicePath": ""}]);
    plane.objects.borrow_mut().get_mut("/api/v1/nodes/w-7").expect("a node")["status"]["volumesAttached"] = attached;
    assert_eq!(tick(&duty, &node), SOON);
    assert_eq!(plane.changes(), ["taint w-7"]);
    let taints = plane.objects.borrow()["/api/v1/nodes/w-7"]["spec"]["taints"].clone();
    assert_eq!(
        taints,
        json!([{"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}])
    );
    plane.lab.time.pass(TAINTED_FOR);
    tick(&duty, &node);
    assert!(plane.changes().is_empty(), "a volume is attached");
    plane.objects.borrow_mut().get_mut("/api/v1/nodes/w-7").expect("a node")["status"]["volumesAttached"] = json!([]);
    tick(&duty, &node);
    assert_eq!(plane.changes(), ["delete w-7"]);
    assert_eq!(tick(&duty, &node), LOOK_EVERY);
}

#[test]
fn a_volume_that_stays_does_not_keep_a_node_for_ever() {
    let (plane, node) = with_worker();
    let duty = NodesDuty::default();
    plane.off(7, "terminated");
    plane.objects.borrow_mut().get_mut("/api/v1/nodes/w-7").expect("a node")["status"]["volumesAttached"] = json!([{}]);
    tick(&duty, &node);
    plane.lab.time.pass(TAINTED_AT_MOST);
    tick(&duty, &node);
    assert_eq!(plane.changes(), ["taint w-7", "delete w-7"]);
}

#[test]
fn machines_that_are_not_gone_masters_and_a_cloud_controllers_nodes_are_left_alone() {
    for state in ["running", "stopped", "shutting-down"] {
        let (plane, node) = with_worker();
        plane.off(7, state);
        tick(&NodesDuty::default(), &node);
        assert!(plane.changes().is_empty(), "{state}");
    }
    let plane = Plane::new(3);
    plane.off(3, "terminated");
    tick(&NodesDuty::default(), &plane.agent(1, false));
    assert!(plane.changes().is_empty(), "{} goes with its member", name(3));
    let (plane, mut node) = with_worker();
    plane.off(7, "terminated");
    let mut settings = (*node.settings).clone();
    settings.node.cloud_provider = CloudProvider::External;
    node.settings = Rc::new(settings);
    tick(&NodesDuty::default(), &node);
    assert!(plane.changes().is_empty(), "a cloud controller does it");
    // A node that answers is not looked at, whatever EC2 says.
    let (plane, node) = with_worker();
    plane.instances.borrow_mut().insert("i-7".to_owned(), "terminated".to_owned());
    tick(&NodesDuty::default(), &node);
    assert!(plane.changes().is_empty());
}

#[test]
fn who_follows_asks_nobody_and_bare_metal_is_nobodys() {
    let plane = Plane::new(1);
    plane.api_away.set(true);
    assert_eq!(tick(&NodesDuty::default(), &plane.agent(1, true)), FOLLOWING);
    let mut bare = plane.agent(1, false);
    bare.identity = Rc::new(crate::testing::identity("cp-1"));
    assert_eq!(tick(&NodesDuty::default(), &bare), NEVER);
}

#[test]
fn reports_of_machines_that_are_gone_and_have_no_node_are_archived() {
    let (plane, node) = with_worker();
    for n in [1, 7, 8, 9] {
        let mut report = crate::duties::build_report(&plane.agent(n, false));
        report.phase = Phase::Ready;
        run(Store::of(&node).put_report(&report, None)).expect("alive").expect("stored");
    }
    plane.off(7, "terminated");
    plane.instances.borrow_mut().insert("i-8".to_owned(), "terminated".to_owned());
    plane.instances.borrow_mut().insert("i-9".to_owned(), "running".to_owned());
    let duty = NodesDuty::default();
    tick(&duty, &node);
    let left = || run(Store::of(&node).reporters()).expect("alive").expect("a list");
    let has = |id: &str| left().iter().any(|identity| identity.ends_with(id));
    assert!(has("/i-1") && has("/i-7") && !has("/i-8") && has("/i-9"), "{:?}", left());
    let archived = keys(&plane, "test/retired/00000000-0000-0000-0000-000000000009/nodes/");
    assert_eq!(archived.len(), 1, "{archived:?}");
    // With its Node the other one's goes too.
    plane.lab.time.pass(TAINTED_FOR);
    tick(&duty, &node);
    plane.lab.time.pass(SOON);
    tick(&duty, &node);
    assert!(!has("/i-7") && has("/i-9"), "{:?}", left());
}
