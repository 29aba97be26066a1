//! A master and a worker come up, and coming up again changes nothing.

use crate::world::{CLUSTER, Machine, World};
use serde_json::Value;

/// What kubeadm and kubestrap leave behind that only root may read.
const SECRET_FILES: &[&str] = &[
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/super-admin.conf",
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/pki/ca.key",
    "/var/lib/kubestrap/journal.jsonl",
    "/var/lib/kubestrap/identity.json",
    "/var/lib/kubestrap/lock",
    "/var/lib/etcd/standin.json",
];

pub fn has_no_secret_left(machine: &Machine) {
    assert!(!machine.has("/etc/kubernetes/bootstrap-kubelet.conf"), "the bootstrap token is still on the disk");
    for document in ["init", "join"] {
        let path = format!("/var/lib/kubestrap/kubeadm/{document}.yaml");
        assert!(!machine.has(&path), "{path} holds a token and is still there");
    }
    for path in SECRET_FILES.iter().filter(|path| machine.has(path)) {
        assert_eq!(machine.mode(path), 0o600, "{path}");
    }
    assert_eq!(machine.mode("/var/lib/kubestrap"), 0o700);
}

#[test]
fn a_master_and_a_worker_become_nodes() {
    let world = World::new();
    let (master, worker) = (world.master("m1"), world.worker("w1"));
    worker.configure("node: { labels: { team: web }, taints: ['dedicated=web:NoSchedule'] }\n");
    master.run(&["run", "--once"]).expect(0);
    worker.run(&["run", "--once"]).expect(0);

    let (register, bundle) = (world.register(), world.bundle());
    assert_eq!((&register["state"], &register["cluster"]), (&"established".into(), &CLUSTER.into()));
    assert_eq!(register["created_by"]["node_name"], "m1");
    assert_eq!((&bundle["uid"], &bundle["ca_sha256"]), (&register["uid"], &register["ca_sha256"]));
    assert_eq!(bundle["endpoint"], format!("127.0.0.1:{}", world.port));

    assert_eq!((master.succeeded("init"), worker.succeeded("join")), (1, 1));
    let node = master.node("w1");
    assert_eq!(node["metadata"]["labels"]["team"], "web");
    assert_eq!(node["spec"]["taints"][0]["key"], "dedicated");
    assert!(master.node("m1")["metadata"]["labels"].get("node-role.kubernetes.io/control-plane").is_some());
    let ca = |machine: &Machine| machine.read("/etc/kubernetes/pki/ca.crt");
    assert_eq!(ca(&master), ca(&worker));
    has_no_secret_left(&master);
    has_no_secret_left(&worker);
}

#[test]
fn status_shows_the_node_and_the_cluster() {
    let (world, master) = World::established();
    let worker = world.worker("w1");
    worker.run(&["run", "--once"]).expect(0);
    for machine in [&master, &worker] {
        let status: Value =
            serde_json::from_str(&machine.run(&["status", "-o", "json"]).expect(0).stdout).expect("JSON");
        assert_eq!((&status["complete"], &status["agent_running"]), (&true.into(), &false.into()), "{status}");
        assert!(status["steps"].as_array().is_some_and(|s| s.iter().all(|s| s["failure"].is_null())), "{status}");
    }
    let human = worker.run(&["status"]).expect(0);
    human.says(&["w1 (worker)", "complete: a node of cluster", "join-cluster"]);
    let asked = worker.run(&["status", "--cluster", "--output", "json"]).expect(0);
    let cluster: Value = serde_json::from_str(&asked.stdout).expect("JSON");
    let of = |name: &str| {
        let nodes = cluster["nodes"].as_array().expect("nodes").iter();
        let mut found = nodes.filter(|node| node["report"]["identity"]["node_name"] == name);
        found.next().unwrap_or_else(|| panic!("{name} is not in {cluster}")).clone()
    };
    for (name, role) in [("m1", "master"), ("w1", "worker")] {
        let node = of(name);
        assert_eq!((&node["report"]["phase"], &node["stale"]), (&"ready".into(), &false.into()), "{node}");
        assert_eq!(node["report"]["role"], role);
        assert_eq!(node["report"]["uid"], world.register()["uid"]);
        assert_eq!(node["report"]["versions"]["kubelet"], "v1.36.1");
    }
    // From a laptop that has neither configuration nor identity.
    let laptop = world.bare_machine("laptop", "");
    std::fs::remove_dir_all(laptop.path("/etc")).expect("remove");
    let url = format!("file://{}", world.path("store").display());
    laptop.run(&["status", "--cluster", "--store", &url, "--cluster-name", CLUSTER]).expect(0).says(&[
        "m1",
        "w1",
        "established",
        "master",
        "worker",
        "ready",
    ]);
    assert!(!laptop.has("/var/lib/kubestrap"), "a look at the cluster made a state folder");
}

#[test]
fn running_again_is_nothing_to_do() {
    let (world, master) = World::established();
    let worker = world.worker("w1");
    worker.run(&["run", "--once"]).expect(0);
    let (register, bundle) = (world.register(), world.bundle());
    let pictures = [master.picture("/etc/kubernetes"), worker.picture("/etc/kubernetes")];
    for _ in 0..2 {
        master.run(&["run", "--once"]).expect(0);
        worker.run(&["run", "--once"]).expect(0).says(&["join-cluster: nothing to do: joined the cluster with CA"]);
    }
    assert_eq!((master.begun("init"), master.begun("reset")), (1, 0));
    assert_eq!((worker.begun("join"), worker.begun("reset")), (1, 0));
    assert_eq!((world.register(), world.bundle()), (register, bundle));
    assert!([master.picture("/etc/kubernetes"), worker.picture("/etc/kubernetes")] == pictures, "a file has changed");
}

#[test]
fn a_worker_that_is_there_first_waits_for_the_master() {
    let world = World::new();
    let (worker, master) = (world.worker("w1"), world.master("m1"));
    let mut waiting = worker.start(&["run", "--once"]);
    waiting.until_logged("no master has published one yet");
    assert_eq!(worker.begun("join"), 0);
    master.run(&["run", "--once"]).expect(0);
    waiting.finished(crate::process::PATIENCE).expect(0);
    assert_eq!(master.node("w1")["metadata"]["name"], "w1");
}

#[test]
fn a_master_whose_api_server_was_restarted_goes_on() {
    let (world, master) = World::established();
    let server = crate::process::processes_of("standin-apiserver");
    let root = master.root().display().to_string();
    let (pid, _) = server.iter().find(|(_, line)| line.contains(&root)).expect("an API server");
    crate::process::signal(*pid, nix::sys::signal::Signal::SIGKILL);
    let mut again = master.start(&["run"]);
    // The kubelet would start it again; here we are the kubelet.
    let mut kubelet = std::process::Command::new(crate::process::programs().join("kubeadm"));
    kubelet.arg("standin-apiserver").arg("--detach").arg("--rootfs").arg(master.root());
    let mut kubelet = crate::process::Agent::start(&mut kubelet);
    again.until_logged("phase: ready");
    assert!(kubelet.runs());
    assert_eq!(master.begun("init"), 1);
    assert_eq!(world.register()["state"], "established");
}
