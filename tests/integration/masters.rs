//! One cluster, one master, one CA: however many machines are configured as masters.

use crate::process::PATIENCE;
use crate::world::World;

#[test]
fn a_second_master_is_refused_and_told_who_made_the_cluster() {
    let (world, _master) = World::established();
    let register = world.register();
    let second = world.master("m2");
    let refused = second.run(&["run", "--once"]).expect(11);
    refused.says(&["already-established", "m1", "role: worker"]);
    assert_eq!(second.begun("init"), 0);
    assert!(!second.has("/etc/kubernetes"), "something was made of the second master");
    // Afterwards too, when the agent is gone and only its journal is left.
    second.run(&["status"]).says(&["already-established", "m1"]);
    assert_eq!(world.register(), register);
    let report = second.report(&world).expect("a report");
    assert_eq!((&report["phase"], &report["error"]["cause"]), (&"failed".into(), &"already-established".into()));
    // Its own status says the same, without the store.
    std::fs::rename(world.path("store"), world.path("unmounted")).expect("rename");
    let status = second.run(&["status", "--output", "json"]).expect(0);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!((&status["phase"], &status["error"]["cause"]), (&"failed".into(), &"already-established".into()));
    assert!(status["error"]["message"].as_str().is_some_and(|text| text.contains("m1")), "{status}");
    second.run(&["status"]).expect(0).says(&["It says", "role: worker"]);
}

#[test]
fn two_masters_at_the_same_instant_make_one_cluster() {
    for _ in 0..3 {
        let world = World::new();
        let machines = [world.master("m1"), world.master("m2")];
        // Slow enough for the loser to see the register being held.
        machines
            .iter()
            .for_each(|machine| machine.script("faults: [{command: init, phase: certs, action: slow, seconds: 0.5}]"));
        let agents = machines.each_ref().map(|machine| machine.start(&["run", "--once"]));
        let ended = agents.map(|agent| agent.finished(PATIENCE));
        let mut codes = ended.each_ref().map(|ended| ended.code);
        codes.sort_unstable();
        assert_eq!(codes, [Some(0), Some(11)], "{}\n---\n{}", ended[0].said(), ended[1].said());
        let (winner, loser) = if ended[0].code == Some(0) { (0, 1) } else { (1, 0) };
        assert_eq!((machines[winner].begun("init"), machines[loser].begun("init")), (1, 0));
        assert!(!machines[loser].has("/etc/kubernetes"));
        assert_eq!(world.register()["created_by"]["node_name"], machines[winner].name.as_str());
        // The stand-in checks the pin of the bundle against the CA of the API server that answers.
        let worker = world.worker("w1");
        worker.run(&["run", "--once"]).expect(0);
        assert_eq!(worker.read("/etc/kubernetes/pki/ca.crt"), machines[winner].read("/etc/kubernetes/pki/ca.crt"));
    }
}

#[test]
fn a_master_waits_for_a_holder_that_is_not_known_to_be_gone_until_an_operator_unlocks() {
    let world = World::new();
    let (first, second) = (world.master("m1"), world.master("m2"));
    first.script("faults: [{command: init, phase: kubeconfig, action: hang}]");
    let mut holder = first.start(&["run"]);
    holder.until("the first master has a CA", || first.reached("init", "kubeconfig"));
    holder.kill();
    let mut waiting = second.start(&["run", "--once"]);
    waiting.until_logged("held-by-other");
    waiting.until_logged("m1");
    assert_eq!(second.begun("init"), 0);
    // The word of the operator needs the name of the cluster.
    second.run(&["unlock", "init"]).expect(2).says(&["m1", "--yes prod"]);
    second.run(&["unlock", "init", "--yes", "other"]).expect(2);
    assert_eq!(world.register()["holder"]["node_name"], "m1");
    second.run(&["unlock", "init", "--yes", "prod"]).expect(0);
    waiting.finished(PATIENCE).expect(0);
    assert_eq!(world.register()["created_by"]["node_name"], "m2");
    assert_eq!(second.succeeded("init"), 1);
    // The first one lost the right: it never commits, and says so.
    first.run(&["run", "--once"]).expect(11).says(&["taken-over"]);
    // Its kubeadm hung; it is killed, so that it cannot make a second control plane. The kubelet of the machine the
    // tests run on is left alone, for this node lives below a folder.
    first.run(&["run", "--once"]).expect(11);
    assert_eq!(first.succeeded("init"), 0);
    assert!(!std::path::Path::new(&first.path("/systemctl.log")).exists());
    assert_eq!(world.register()["created_by"]["node_name"], "m2");
}

#[test]
fn a_register_that_vanished_is_not_a_reason_for_a_second_cluster() {
    let (world, master) = World::established();
    let register = world.register();
    std::fs::remove_file(world.store_path("prod/cluster.json")).expect("remove");
    let second = world.master("m2");
    second.run(&["run", "--once"]).expect(11).says(&["register-missing", "cluster retire"]);
    assert_eq!(second.begun("init"), 0);
    assert!(world.object("cluster.json").is_none());
    // The master that made it puts it back, with the same uid and CA.
    master.run(&["run", "--once"]).expect(0);
    let back = world.register();
    for field in ["uid", "ca_sha256", "attempt", "state"] {
        assert_eq!(back[field], register[field], "{field}");
    }
    assert_eq!(master.begun("init"), 1);
}

#[test]
fn a_retired_cluster_makes_room_for_another_one() {
    let (world, master) = World::established();
    let uid = world.register()["uid"].as_str().expect("uid").to_owned();
    master.run(&["cluster", "retire", "--yes", "prod"]).expect(11).says(&["still answers"]);
    assert_eq!(world.register()["uid"], uid.as_str());
    drop(master);
    let second = world.master("m2");
    second.run(&["cluster", "retire"]).expect(2).says(&["m1", &uid, "--yes prod"]);
    second.run(&["cluster", "retire", "--yes", "prod"]).expect(0).says(&[&format!("retired/{uid}/")]);
    assert!(world.object("cluster.json").is_none());
    assert!(world.object(&format!("retired/{uid}/cluster.json")).is_some());
    second.run(&["run", "--once"]).expect(0);
    assert_ne!(world.register()["uid"], uid.as_str());
}
