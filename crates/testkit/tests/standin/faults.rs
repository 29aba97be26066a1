use crate::machine::{Machine, said};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

#[test]
fn a_phase_that_fails_once_is_passed_the_second_time_with_the_same_ca() {
    let master = Machine::new();
    master.script_with("faults: [{command: init, phase: etcd, action: fail, times: 1}]");
    let failed = master.init(&master.init_documents());
    assert_eq!(failed.status.code(), Some(1));
    assert!(said(&failed).contains("error: error execution phase etcd:"), "{}", said(&failed));
    let before = master.pin();
    assert!(!master.path("/etc/kubernetes/manifests").exists());
    let again = master.init(&master.init_documents());
    assert!(again.status.success(), "{}", said(&again));
    assert!(said(&again).contains("[certs] Using existing ca certificate authority"));
    assert_eq!(master.pin(), before);
}

#[test]
fn dying_half_way_leaves_a_machine_that_preflight_refuses() {
    let master = Machine::new();
    master.script_with("faults: [{command: init, phase: control-plane, action: die, at: after, times: 1}]");
    assert_eq!(master.init(&master.init_documents()).status.signal(), Some(9));
    let refused = master.init(&master.init_documents());
    assert!(said(&refused).contains("[ERROR FileAvailable--etc-kubernetes-manifests-etcd.yaml]"), "{}", said(&refused));
    assert!(master.run(&["reset", "-f"]).status.success());
    assert!(master.init(&master.init_documents()).status.success());
}

#[test]
fn a_kubeconfig_of_another_ca_is_refused() {
    let (one, two) = (Machine::master(), Machine::new());
    let foreign = std::fs::read_to_string(one.path("/etc/kubernetes/admin.conf")).expect("admin.conf");
    two.write("/etc/kubernetes/admin.conf", &foreign);
    let refused = two.init(&two.init_documents());
    let text = "a kubeconfig file \"/etc/kubernetes/admin.conf\" exists already but has got the wrong CA cert";
    assert!(said(&refused).contains(text), "{}", said(&refused));
}

#[test]
fn a_hanging_phase_hangs_until_it_is_killed() {
    let (master, worker) = (Machine::master(), Machine::new());
    worker.script_with("faults: [{command: join, phase: kubelet-start, action: hang, at: after}]");
    worker.write("/etc/kubeadm.yaml", &master.join_documents("worker-0"));
    let mut child = worker.spawn(&["join", "--config", "/etc/kubeadm.yaml"]);
    crate::machine::eventually("the token is on the disk", || worker.path("/var/lib/kubelet/config.yaml").exists());
    assert_eq!(worker.mode("/etc/kubernetes/bootstrap-kubelet.conf"), 0o600);
    assert!(child.try_wait().expect("wait").is_none());
    child.kill().and_then(|()| child.wait()).expect("killed");
    let refused = worker.join(&master.join_documents("worker-0"));
    assert!(
        said(&refused).contains("[ERROR FileAvailable--etc-kubernetes-bootstrap-kubelet.conf]"),
        "{}",
        said(&refused)
    );
}

#[test]
fn a_slow_phase_takes_its_time_and_the_log_says_what_ran() {
    let master = Machine::new();
    master.script_with("faults: [{command: init, phase: certs, action: slow, seconds: 0.3, times: 1}]");
    let began = Instant::now();
    assert!(master.init(&master.init_documents()).status.success());
    assert!(began.elapsed() >= Duration::from_millis(300));
    let log = std::fs::read_to_string(master.path("/var/lib/kubestrap-standin/runs.jsonl")).expect("log");
    let events: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let phases: Vec<&str> =
        events.iter().filter(|e| e["event"] == "phase").filter_map(|e| e["phase"].as_str()).collect();
    assert_eq!(phases[..4], ["preflight", "certs", "certs/ca", "certs/front-proxy-ca"]);
    assert_eq!(phases.last(), Some(&"show-join-command"));
    assert_eq!((&events[0]["event"], &events[events.len() - 1]["code"]), (&"start".into(), &0.into()));
    assert!(!log.contains("0123456789abcdef"), "no secrets in the log");
}

#[test]
fn a_signature_that_comes_late_is_waited_for() {
    let (master, worker) = (Machine::new(), Machine::new());
    master.script_with("api: {signer_delay: 0.4}");
    assert!(master.init(&master.init_documents()).status.success());
    let joined = worker.join(&master.join_documents("worker-0").replace("discovery: 500ms", "discovery: 5s"));
    assert!(joined.status.success(), "{}", said(&joined));
}

#[test]
fn the_api_server_fails_as_it_is_told() {
    let (master, worker) = (Machine::new(), Machine::new());
    master.script_with("api: {signer_delay: 0, faults: [{path: certificatesigningrequests, status: 500, times: 1}]}");
    assert!(master.init(&master.init_documents()).status.success());
    let failed = worker.join(&master.join_documents("worker-0"));
    assert!(said(&failed).contains("failed while waiting for TLS bootstrap"), "{}", said(&failed));
    assert!(!worker.path("/etc/kubernetes/bootstrap-kubelet.conf").exists(), "the phase removes it even when it fails");
    assert!(!worker.path("/etc/kubernetes/kubelet.conf").exists());
}
