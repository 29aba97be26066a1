//! The bootstrap token: replaced, revoked, vanished.

use crate::process::{Agent, PATIENCE, eventually, processes_of, programs, signal};
use crate::world::{Machine, World};
use serde_json::Value;
use std::process::Command;

fn secret_of(token: &Value) -> String {
    let id = token.as_str().and_then(|token| token.split_once('.')).expect("a token").0;
    format!("/api/v1/namespaces/kube-system/secrets/bootstrap-token-{id}")
}

fn restart_api_server(master: &Machine, meanwhile: impl FnOnce()) -> Agent {
    let root = format!("{} ", master.root().display());
    for (pid, _) in processes_of(&root).iter().filter(|(_, line)| line.contains("standin-apiserver")) {
        signal(*pid, nix::sys::signal::Signal::SIGKILL);
    }
    eventually("the API server is gone", || processes_of(&root).iter().all(|(_, l)| !l.contains("standin-apiserver")));
    meanwhile();
    let mut command = Command::new(programs().join("kubeadm"));
    Agent::start(command.arg("standin-apiserver").arg("--rootfs").arg(master.root()))
}

#[test]
fn a_worker_whose_token_was_revoked_joins_with_the_next_one() {
    let (world, master) = World::established();
    let worker = world.worker("w1");
    // It has its documents, and with them the old token, before it asks the API server.
    worker.script(
        "timeout_scale: 0.02\nfaults: [{command: join, phase: preflight, action: slow, seconds: 1.5, times: 1}]",
    );
    let mut agent = worker.start(&["run", "--once"]);
    agent.until("kubeadm join was begun", || worker.begun("join") == 1);
    let before = world.bundle();
    master.run(&["token", "rotate", "--revoke"]).expect(0).says(&["were revoked"]);
    let after = world.bundle();
    assert_ne!(before["token"], after["token"]);
    assert!(after["sequence"].as_u64() > before["sequence"].as_u64());
    let objects = master.api_objects();
    assert!(!objects.contains_key(&secret_of(&before["token"])) && objects.contains_key(&secret_of(&after["token"])));
    agent.finished(PATIENCE).expect(0).says(&["token-gone"]);
    assert!(worker.begun("join") >= 2);
    assert_eq!(master.node("w1")["metadata"]["name"], "w1");
    assert!(!worker.has("/etc/kubernetes/bootstrap-kubelet.conf"));
}

#[test]
fn a_rotation_without_revocation_leaves_the_old_token_to_expire() {
    let (world, master) = World::established();
    let before = world.bundle();
    master.run(&["token", "rotate"]).expect(0).says(&["expire by themselves"]);
    let objects = master.api_objects();
    assert!(objects.contains_key(&secret_of(&before["token"])));
    assert!(objects.contains_key(&secret_of(&world.bundle()["token"])));
    let worker = world.worker("w1");
    worker.run(&["token", "rotate"]).expect(2).says(&["only a master"]);
}

#[test]
fn a_token_that_vanished_from_the_cluster_is_replaced_by_the_next_run() {
    let (world, master) = World::established();
    let before = world.bundle();
    let _server = restart_api_server(&master, || {
        let mut state: Value = serde_json::from_str(&master.read("/var/lib/etcd/standin.json")).expect("JSON");
        let removed = state["objects"].as_object_mut().and_then(|objects| objects.remove(&secret_of(&before["token"])));
        assert!(removed.is_some(), "the token was not there");
        master.write("/var/lib/etcd/standin.json", &state.to_string());
    });
    master.run(&["run", "--once"]).expect(0);
    let after = world.bundle();
    assert_ne!(before["token"], after["token"]);
    assert_eq!(after["sequence"].as_u64(), before["sequence"].as_u64().map(|sequence| sequence + 1));
    world.worker("w1").run(&["run", "--once"]).expect(0);
}

#[test]
fn a_bundle_that_vanished_from_the_store_is_published_again() {
    let (world, master) = World::established();
    std::fs::remove_file(world.store_path("prod/join/worker.json")).expect("remove");
    let worker = world.worker("w1");
    let mut agent = worker.start(&["run", "--once"]);
    agent.until_logged("no master has published one yet");
    master.run(&["run", "--once"]).expect(0);
    agent.finished(PATIENCE).expect(0);
    assert_eq!(world.bundle()["ca_sha256"], world.register()["ca_sha256"]);
}
