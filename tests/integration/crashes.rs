//! Killed at any point, the next run converges: the agent, kubeadm, or both.

use crate::process::{PATIENCE, eventually, processes_of, signal};
use crate::world::{Machine, World};
use nix::sys::signal::Signal;

/// One CA: the register's, the bundle's and the API server's, which a joining stand-in compares.
fn has_one_ca(world: &World, master: &Machine) {
    let (register, bundle) = (world.register(), world.bundle());
    assert_eq!(register["state"], "established");
    assert_eq!((&bundle["uid"], &bundle["ca_sha256"]), (&register["uid"], &register["ca_sha256"]));
    let worker = world.worker("w-proof");
    worker.run(&["run", "--once"]).expect(0);
    assert_eq!(worker.read("/etc/kubernetes/pki/ca.crt"), master.read("/etc/kubernetes/pki/ca.crt"));
}

#[test]
fn an_init_outlives_the_agent_and_is_awaited_by_the_next_one() {
    let world = World::new();
    let master = world.master("m1");
    master.script("faults: [{command: init, phase: control-plane, action: slow, seconds: 1.5}]");
    let mut agent = master.start(&["run"]);
    agent.until("init has come to control-plane", || master.reached("init", "control-plane"));
    agent.kill();
    assert_eq!(master.succeeded("init"), 0, "it ended before the agent was killed");
    master.run(&["run", "--once"]).expect(0);
    assert_eq!((master.begun("init"), master.succeeded("init"), master.begun("reset")), (1, 1, 0));
    has_one_ca(&world, &master);
}

#[test]
fn an_init_that_ended_while_nobody_looked_is_adopted() {
    let world = World::new();
    let master = world.master("m1");
    master.script("faults: [{command: init, phase: certs, action: slow, seconds: 0.5}]");
    let mut agent = master.start(&["run"]);
    agent.until("init has come to certs", || master.reached("init", "certs"));
    agent.kill();
    eventually("init ends alone", || master.succeeded("init") == 1);
    master.run(&["run", "--once"]).expect(0);
    assert_eq!((master.begun("init"), master.begun("reset")), (1, 0));
    assert!(!master.has("/var/lib/kubestrap/kubeadm/init.yaml"), "the document with the token is still there");
    has_one_ca(&world, &master);
}

/// kubeadm dies in a phase; the agent lives on, or is killed too.
fn init_dies(phase: &str, at: &str, with_agent: bool) {
    let world = World::new();
    let master = world.master("m1");
    master.script(&format!("faults: [{{command: init, phase: {phase}, action: die, at: {at}, times: 1}}]"));
    if with_agent {
        let mut agent = master.start(&["run"]);
        let died = || master.events().iter().any(|event| event["event"] == "fault");
        agent.until("kubeadm dies", died);
        agent.kill();
    }
    let ended = master.run(&["run", "--once"]);
    assert_eq!(ended.code, Some(0), "{phase} {at}:\n{}", ended.said());
    assert_eq!(master.begun("init"), 2, "{phase} {at}: {:?}", master.events());
    assert!(!master.has("/var/lib/kubestrap/kubeadm/init.yaml"), "{phase} {at}");
    has_one_ca(&world, &master);
}

#[test]
fn kubeadm_dies_before_certs() {
    init_dies("certs", "before", false);
}

#[test]
fn kubeadm_dies_after_certs() {
    init_dies("certs", "after", false);
}

#[test]
fn kubeadm_dies_after_control_plane() {
    init_dies("control-plane", "after", false);
}

#[test]
fn kubeadm_dies_before_wait_control_plane() {
    init_dies("wait-control-plane", "before", false);
}

#[test]
fn kubeadm_dies_after_wait_control_plane() {
    init_dies("wait-control-plane", "after", false);
}

#[test]
fn kubeadm_dies_before_upload_config() {
    init_dies("upload-config", "before", false);
}

#[test]
fn kubeadm_and_the_agent_die_after_certs() {
    init_dies("certs", "after", true);
}

#[test]
fn kubeadm_and_the_agent_die_after_upload_config() {
    init_dies("upload-config", "after", true);
}

#[test]
fn an_agent_killed_at_any_moment_of_its_life_is_followed_by_one_that_converges() {
    // The moments are spread over what an uninterrupted bootstrap takes; each life begins where the last one ended.
    let world = World::new();
    let (master, worker) = (world.master("m1"), world.worker("w1"));
    for machine in [&master, &worker] {
        for life in 1..=6_u64 {
            let agent = machine.start(&["run"]);
            std::thread::sleep(std::time::Duration::from_millis(60 * life));
            agent.kill();
        }
        machine.run(&["run", "--once"]).expect(0);
    }
    assert_eq!((master.succeeded("init"), worker.succeeded("join")), (1, 1));
    assert!(!worker.has("/etc/kubernetes/bootstrap-kubelet.conf"));
    has_one_ca(&world, &master);
}

#[test]
fn a_join_outlives_the_agent_and_is_awaited_by_the_next_one() {
    let (world, master) = World::established();
    let worker = world.worker("w1");
    worker.script("faults: [{command: join, phase: kubelet-start, action: slow, at: after, seconds: 1.5}]");
    let mut agent = worker.start(&["run"]);
    agent.until("the bootstrap token is on the disk", || worker.has("/etc/kubernetes/bootstrap-kubelet.conf"));
    agent.kill();
    worker.run(&["run", "--once"]).expect(0);
    assert_eq!((worker.begun("join"), worker.begun("reset")), (1, 0));
    assert!(!worker.has("/etc/kubernetes/bootstrap-kubelet.conf"));
    assert!(!worker.has("/var/lib/kubestrap/kubeadm/join.yaml"), "the document with the token is still there");
    assert_eq!(master.node("w1")["metadata"]["name"], "w1");
}

/// kubeadm join dies in a phase; the agent lives on, or is killed too.
fn join_dies(phase: &str, at: &str, with_agent: bool) {
    let (world, master) = World::established();
    let worker = world.worker("w1");
    worker.script(&format!("faults: [{{command: join, phase: {phase}, action: die, at: {at}, times: 1}}]"));
    if with_agent {
        let mut agent = worker.start(&["run"]);
        agent.until("kubeadm dies", || worker.events().iter().any(|event| event["event"] == "fault"));
        agent.kill();
    }
    worker.run(&["run", "--once"]).expect(0);
    assert!(!worker.has("/etc/kubernetes/bootstrap-kubelet.conf"), "{phase} {at}: a token is left behind");
    assert!(!worker.has("/var/lib/kubestrap/kubeadm/join.yaml"), "{phase} {at}: a token is left behind");
    assert!(worker.has("/etc/kubernetes/kubelet.conf"), "{phase} {at}");
    assert_eq!(master.node("w1")["metadata"]["name"], "w1");
}

#[test]
fn kubeadm_join_dies_in_preflight() {
    join_dies("preflight", "after", false);
}

#[test]
fn kubeadm_join_dies_before_kubelet_start() {
    join_dies("kubelet-start", "before", false);
}

#[test]
fn kubeadm_join_dies_after_kubelet_start() {
    join_dies("kubelet-start", "after", false);
}

#[test]
fn kubeadm_join_dies_before_the_kubelet_has_its_certificate() {
    join_dies("kubelet-wait-bootstrap", "before", false);
}

#[test]
fn kubeadm_join_and_the_agent_die_after_kubelet_start() {
    join_dies("kubelet-start", "after", true);
}

#[test]
fn kubeadm_join_and_the_agent_die_when_the_kubelet_has_its_certificate() {
    join_dies("kubelet-wait-bootstrap", "after", true);
}

#[test]
fn a_job_whose_wrapper_was_killed_is_still_seen_to_its_end() {
    let world = World::new();
    let master = world.master("m1");
    master.script("faults: [{command: init, phase: certs, action: slow, seconds: 1.5}]");
    let agent_of = |agent: &mut crate::process::Agent| {
        agent.until("init has come to certs", || master.reached("init", "certs"));
    };
    let mut agent = master.start(&["run"]);
    agent_of(&mut agent);
    let wrapper = processes_of(&format!("job --dir {}/", master.root().display()));
    assert_eq!(wrapper.len(), 1, "{wrapper:?}");
    signal(wrapper[0].0, Signal::SIGKILL);
    agent.until_logged("phase: ready");
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    // How it ended is not known, so the phases after the API server's start are carried out again, and no other.
    let events = master.events();
    let phases = |name: &str| events.iter().filter(|e| e["event"] == "phase" && e["phase"] == name).count();
    assert_eq!((phases("certs"), phases("kubelet-start"), master.begun("reset")), (1, 1, 0), "{:?}", master.events());
    has_one_ca(&world, &master);
}
