//! What is not ours is not touched: other people's clusters, cloned disks, a state folder in use.

use crate::process::PATIENCE;
use crate::world::{Machine, World};

/// The files of somebody else's control plane.
fn plant_foreign_state(machine: &Machine) {
    let (_elsewhere, other) = World::established();
    for path in ["/etc/kubernetes/admin.conf", "/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/kubelet.conf"] {
        machine.write(path, &other.read(path));
    }
    machine.write("/var/lib/etcd/member/snap/db", "somebody's data");
}

fn is_refused_untouched(machine: &Machine) {
    let folders = ["/etc", "/var/lib/etcd", "/run"];
    let before = folders.map(|folder| machine.picture(folder));
    for _ in 0..2 {
        machine.run(&["run", "--once"]).expect(11).says(&[
            "foreign-state",
            "/etc/kubernetes/admin.conf",
            "sha256:",
            "kubeadm reset",
        ]);
    }
    assert!(folders.map(|folder| machine.picture(folder)) == before, "a file was changed");
    assert!(machine.events().is_empty(), "kubeadm was run: {:?}", machine.events());
    // Not even an operator's word covers what was there before.
    machine.run(&["reset", "--force", "--yes", &machine.name]).expect(11);
    assert!(folders.map(|folder| machine.picture(folder)) == before, "a file was changed by reset");
}

#[test]
fn a_master_on_somebody_elses_control_plane_refuses() {
    let world = World::new();
    let master = world.master("m1");
    plant_foreign_state(&master);
    is_refused_untouched(&master);
    assert!(world.object("cluster.json").is_none(), "it claimed the register all the same");
}

#[test]
fn a_worker_on_somebody_elses_control_plane_refuses() {
    let (world, _master) = World::established();
    let worker = world.worker("w1");
    plant_foreign_state(&worker);
    is_refused_untouched(&worker);
}

#[test]
fn a_ca_that_was_exchanged_under_a_finished_node_is_noticed() {
    let (world, master) = World::established();
    let worker = world.worker("w1");
    worker.run(&["run", "--once"]).expect(0);
    let (_elsewhere, other) = World::established();
    for machine in [&worker, &master] {
        machine.write("/etc/kubernetes/pki/ca.crt", &other.read("/etc/kubernetes/pki/ca.crt"));
        let before = machine.picture("/etc/kubernetes");
        let refused = machine.run(&["run", "--once"]).expect(11);
        assert_eq!(refused.says(&["foreign-cluster"]).said().matches("sha256:").count() % 2, 0, "both hashes");
        assert!(machine.picture("/etc/kubernetes") == before, "a file was changed");
        assert_eq!(machine.begun("reset"), 0);
    }
}

#[test]
fn the_second_process_on_a_state_folder_ends_at_once() {
    let world = World::new();
    let worker = world.worker("w1");
    let mut first = worker.start(&["run"]);
    first.until_logged("no master has published one yet");
    let second = worker.run(&["run"]).expect(11);
    second.says(&["busy", "another kubestrap", &first.pid().to_string()]);
    assert!(first.runs(), "the first one was disturbed");
    worker.run(&["reset", "--yes", "w1"]).expect(11).says(&["busy"]);
    // A status is not a second agent.
    worker.run(&["status"]).expect(0).says(&["running"]);
    first.terminate();
    first.finished(PATIENCE).expect(0);
    let mut next = worker.start(&["run"]);
    next.until_logged("no master has published one yet");
}

#[test]
fn a_cloned_disk_is_refused() {
    let (world, master) = World::established();
    let register = world.register();
    let clone = world.master("m2");
    let copied = std::process::Command::new("cp")
        .args(["-a"])
        .arg(master.path("/var/lib/kubestrap"))
        .arg(clone.path("/var/lib/kubestrap").parent().expect("parent"))
        .status();
    // The folder is made by the first file that is written below it.
    if !copied.is_ok_and(|status| status.success()) {
        clone.write("/var/lib/kubestrap/x", "");
        std::fs::remove_file(clone.path("/var/lib/kubestrap/x")).expect("remove");
        for file in ["identity.json", "journal.jsonl"] {
            let path = format!("/var/lib/kubestrap/{file}");
            clone.write(&path, &master.read(&path));
        }
    }
    clone.run(&["run", "--once"]).expect(11).says(&["cloned-state", &master.machine_id, &clone.machine_id]);
    assert_eq!((clone.begun("init"), clone.begun("reset")), (0, 0));
    assert!(!clone.has("/etc/kubernetes"));
    assert_eq!(world.register(), register);
    assert!(clone.report(&world).is_none(), "it reported under a name it has no right to");
}
