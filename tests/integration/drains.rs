//! A node that drains itself: a grant on its Node, evictions over HTTPS with the kubelet's own kubeconfig, a budget that
//! blocks and then yields, an agent that is killed in between.

use crate::process::{Agent, eventually, processes_of, programs, signal};
use crate::world::{Machine, World};
use serde_json::{Value, json};
use std::process::Command;

const NODE: &str = "/api/v1/nodes/w1";
const BUDGET: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/web";
const GRANT: &str = "11111111-2222-4333-8444-555555555555";

/// Changes what the API server of this master has stored, while it is away.
fn rewrite(master: &Machine, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Agent {
    let root = format!("{} ", master.root().display());
    for (pid, _) in processes_of(&root).iter().filter(|(_, line)| line.contains("standin-apiserver")) {
        signal(*pid, nix::sys::signal::Signal::SIGKILL);
    }
    eventually("the API server is gone", || processes_of(&root).iter().all(|(_, l)| !l.contains("standin-apiserver")));
    let mut state: Value = serde_json::from_str(&master.read("/var/lib/etcd/standin.json")).expect("JSON");
    change(state["objects"].as_object_mut().expect("objects"));
    master.write("/var/lib/etcd/standin.json", &state.to_string());
    let mut command = Command::new(programs().join("kubeadm"));
    Agent::start(command.arg("standin-apiserver").arg("--rootfs").arg(master.root()))
}

fn pod(objects: &mut serde_json::Map<String, Value>, name: &str, node: &str, owner: &str, labels: &Value) {
    let owner = json!([{"kind": owner, "apiVersion": "apps/v1", "name": "proxy", "uid": "x", "controller": true}]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "status": {"phase": "Running"},
        "metadata": {
            "name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": labels, "ownerReferences": owner,
        },
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1},
    });
    objects.insert(format!("/api/v1/namespaces/default/pods/{name}"), pod);
}

fn grant(objects: &mut serde_json::Map<String, Value>) {
    let node = objects.get_mut(NODE).expect("the worker");
    let grant = json!({
        "schema": 1, "id": GRANT, "node_uid": node["metadata"]["uid"], "step": "drain", "deadline": "2099-01-01T00:00:00Z",
    });
    node["metadata"]["annotations"]["kubestrap.io/grant"] = json!(grant.to_string());
}

fn progress(master: &Machine) -> Value {
    let node = master.node("w1");
    let text = node["metadata"]["annotations"]["kubestrap.io/grant-progress"].as_str();
    text.map(|text| serde_json::from_str(text).expect("JSON")).unwrap_or_default()
}

fn pods(master: &Machine) -> Vec<String> {
    let name = |path: &String| path.strip_prefix("/api/v1/namespaces/default/pods/").map(str::to_owned);
    master.api_objects().keys().filter_map(name).collect()
}

#[test]
fn a_granted_node_drains_itself_through_a_budget_and_a_kill_and_is_given_back() {
    let (world, master) = World::established();
    let worker = world.worker("w1");
    worker.configure("drift: { action: drain }\n");
    worker.run(&["run", "--once"]).expect(0);
    let server = rewrite(&master, |objects| {
        for name in ["web-1", "web-2"] {
            pod(objects, name, "w1", "ReplicaSet", &json!({"app": "web"}));
        }
        for n in 0..60 {
            pod(objects, &format!("job-{n:02}"), "w1", "ReplicaSet", &json!({}));
        }
        pod(objects, "proxy-w1", "w1", "DaemonSet", &json!({}));
        pod(objects, "elsewhere", "m1", "ReplicaSet", &json!({"app": "web"}));
        let daemonset = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "proxy", "namespace": "default"}});
        objects.insert("/apis/apps/v1/namespaces/default/daemonsets/proxy".into(), daemonset);
        let budget = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}}, "status": {"disruptionsAllowed": 0},
        });
        objects.insert(BUDGET.into(), budget);
        grant(objects);
    });
    let mut agent = worker.start(&["run"]);
    let blocked = "blocked: default/web-1 by the PodDisruptionBudget web";
    agent.until("the budget is named on the Node", || progress(&master)["why"].to_string().contains(blocked));
    eventually("all others are gone", || pods(&master) == ["elsewhere", "proxy-w1", "web-1", "web-2"]);
    let node = master.node("w1");
    assert_eq!(node["spec"]["unschedulable"], true);
    assert_eq!(node["metadata"]["annotations"]["kubestrap.io/cordoned-by"], GRANT);
    assert!(node["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"].is_string());
    assert_eq!(progress(&master)["state"], "draining");
    let begun = progress(&master)["at"].clone();
    agent.kill();

    drop(server);
    let server = rewrite(&master, |objects| {
        objects.get_mut(BUDGET).expect("the budget")["status"]["disruptionsAllowed"] = json!(2);
    });
    let mut agent = worker.start(&["run"]);
    agent.until("the node is drained", || progress(&master)["state"] == "drained");
    assert_eq!(pods(&master), ["elsewhere", "proxy-w1"]);
    let (begun, ended) = (begun.as_str().expect("a time"), progress(&master));
    assert!(ended["at"].as_str().expect("a time") > begun, "{ended}");
    assert_eq!(master.node("w1")["spec"]["unschedulable"], true, "until the grant is gone");
    agent.kill();

    drop(server);
    let _server = rewrite(&master, |objects| {
        let annotations = objects.get_mut(NODE).expect("the worker")["metadata"]["annotations"].as_object_mut();
        annotations.expect("annotations").remove("kubestrap.io/grant");
    });
    let mut agent = worker.start(&["run"]);
    agent.until("the node is given back", || master.node("w1")["spec"]["unschedulable"] != true);
    let node = master.node("w1");
    assert!(node["metadata"]["annotations"]["kubestrap.io/cordoned-by"].is_null());
    assert!(node["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"].is_null());
    agent.terminate();
}

#[test]
fn a_node_that_is_not_configured_to_drain_reads_no_grant() {
    let (world, master) = World::established();
    let worker = world.worker("w1");
    worker.run(&["run", "--once"]).expect(0);
    let _server = rewrite(&master, |objects| {
        pod(objects, "web-1", "w1", "ReplicaSet", &json!({}));
        grant(objects);
    });
    let mut agent = worker.start(&["run"]);
    agent.until_logged("phase: ready");
    eventually("the report says ready", || worker.report(&world).is_some_and(|report| report["phase"] == "ready"));
    assert_eq!(pods(&master), ["web-1"]);
    assert!(progress(&master).is_null() && master.node("w1")["spec"]["unschedulable"].is_null());
    agent.terminate();
}
