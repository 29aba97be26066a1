//! kubeadm missing, failing, hanging, killed.

use crate::process::{PATIENCE, finish, processes_of, programs, signal};
use crate::world::World;
use std::os::unix::fs::symlink;

#[test]
fn a_missing_tool_is_named() {
    let world = World::new();
    let master = world.master("m1");
    let folder = world.path("bin");
    std::fs::create_dir(&folder).expect("mkdir");
    for (there, missing) in [(None, "kubeadm"), (Some("kubeadm"), "kubelet")] {
        if let Some(name) = there {
            symlink(programs().join(name), folder.join(name)).expect("link");
        }
        let mut command = master.command(&["run", "--once"]);
        let ended = finish(command.env("PATH", &folder)).expect(13);
        ended.says(&["tool-missing", &format!("{missing} is not installed"), "PATH"]);
        assert!(world.object("cluster.json").is_none(), "it claimed the register without {missing}");
    }
}

#[test]
fn a_kubeadm_that_is_too_old_is_refused() {
    let world = World::new();
    let master = world.master("m1");
    master.tool("kubeadm", "echo v1.30.9");
    master.tool("kubelet", "echo Kubernetes v1.30.9");
    master.run(&["run", "--once"]).expect(11).says(&["v1.30.9", "v1.31"]);
    assert!(world.object("cluster.json").is_none());
}

#[test]
fn a_kubeadm_that_fails_is_told_with_its_last_words_and_tried_again() {
    let world = World::new();
    let master = world.master("m1");
    master.script("faults: [{command: init, phase: kubeconfig, action: fail, times: 1}]");
    let mut agent = master.start(&["run"]);
    agent.until_logged("tool-failed");
    agent.until_logged("the stand-in was told to fail here");
    agent.until_logged("phase: ready");
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    assert_eq!(master.succeeded("init"), 1);
    let failures = master.journal().into_iter().filter(|l| l["entry"] == "step-ended" && !l["failure"].is_null());
    assert_eq!(failures.count(), 1);
}

#[test]
fn a_kubeadm_that_goes_on_failing_is_in_the_report_for_others_to_see() {
    let (world, _master) = World::established();
    let worker = world.worker("w1");
    worker.script("faults: [{command: join, phase: kubelet-start, action: fail}]");
    let mut agent = worker.start(&["run"]);
    agent.until_logged("the stand-in was told to fail here");
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    let report = worker.report(&world).expect("a report");
    assert_eq!((&report["phase"], &report["error"]["cause"]), (&"stopped".into(), &"tool-failed".into()));
    let tail = report["log_tail"].to_string();
    assert!(tail.contains("the stand-in was told to fail here"), "{tail}");
    worker.run(&["status", "--cluster"]).expect(0).says(&["w1", "the stand-in was told to fail here"]);
    // Mended, it converges without a hand.
    worker.script("");
    worker.run(&["run", "--once"]).expect(0);
    assert!(!worker.has("/etc/kubernetes/bootstrap-kubelet.conf"));
}

#[test]
fn a_kubeadm_that_hangs_does_not_hold_the_agent_and_is_killed_by_the_operator() {
    let world = World::new();
    let master = world.master("m1");
    master.script("faults: [{command: init, phase: etcd, action: hang, times: 1}]");
    let mut agent = master.start(&["run"]);
    agent.until("init hangs", || master.events().iter().any(|event| event["event"] == "fault"));
    let asked = std::time::Instant::now();
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    assert!(asked.elapsed() < std::time::Duration::from_secs(5), "it took {:?} to stop", asked.elapsed());
    let own = format!(
        "kubeadm init --config /var/lib/kubestrap/kubeadm/init.yaml --skip-token-print --rootfs {} ",
        master.root().display()
    );
    let hanging = processes_of(&own);
    assert_eq!(hanging.len(), 1, "kubeadm is a job of its own: {hanging:?}");
    // The next life finds it running and does not start another one.
    let mut agent = master.start(&["run", "--once"]);
    agent.until_logged("kubeadm-init");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(master.begun("init"), 1);
    signal(hanging[0].0, nix::sys::signal::Signal::SIGKILL);
    agent.finished(PATIENCE).expect(0).says(&["signal 9"]);
    assert_eq!((master.begun("init"), master.succeeded("init")), (2, 1));
    assert_eq!(world.register()["state"], "established");
}

#[test]
fn a_container_runtime_that_is_late_is_waited_for() {
    let (world, _master) = World::established();
    let worker = world.worker("w1");
    let socket = worker.path("/run/containerd/containerd.sock");
    std::fs::remove_file(&socket).expect("remove");
    let mut agent = worker.start(&["run", "--once"]);
    agent.until_logged("runtime-not-ready");
    assert!(worker.events().is_empty());
    let _runtime = std::os::unix::net::UnixListener::bind(&socket).expect("socket");
    agent.finished(PATIENCE).expect(0);
}
