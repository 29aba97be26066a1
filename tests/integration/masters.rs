//! One cluster, one master, one CA: however many machines are configured as masters.

pub mod group;

use self::group::{Group, QUICK};
use crate::process::PATIENCE;
use crate::world::World;
use serde_json::json;

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

#[test]
fn three_masters_are_one_control_plane() {
    let (group, masters) = Group::of(3);
    let (register, uid) = (group.world.register(), group.world.register()["uid"].clone());
    assert_eq!(masters[0].voters(), ["m1", "m2", "m3"]);
    assert_eq!((&register["state"], &register["created_by"]["node_name"]), (&"established".into(), &"m1".into()));
    for (n, master) in masters.iter().enumerate() {
        assert_eq!((master.begun("init"), master.begun("join")), (usize::from(n == 0), usize::from(n > 0)));
        for file in
            ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "etcd/ca.crt", "etcd/ca.key"]
        {
            let path = format!("/etc/kubernetes/pki/{file}");
            assert_eq!(master.read(&path), masters[0].read(&path), "{file} of m{}", n + 1);
            assert_eq!(master.mode(&path), if file.ends_with("key") { 0o600 } else { 0o644 }, "{path}");
        }
        let node = masters[0].node(&master.name.replace("root", "m"));
        assert_eq!(node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"], "");
        let address = group.network.address(u8::try_from(n + 1).expect("small")).to_string();
        assert_eq!(node["status"]["addresses"][0]["address"], address.as_str());
        let left: Vec<_> = std::fs::read_dir(master.path("/var/lib/kubestrap/join")).into_iter().flatten().collect();
        assert!(left.is_empty(), "credentials of a visitor are left: {left:?}");
        // Once more: nothing is done again.
        master.run(&["run", "--once"]).expect(0);
        assert_eq!(master.begun("init") + master.begun("join"), 1);
    }
    assert!(group.lock().is_none());
    assert_eq!(group.world.register()["uid"], uid);
    let worker = group.world.worker("w1");
    worker.run(&["run", "--once"]).expect(0);
    assert_eq!(worker.read("/etc/kubernetes/pki/ca.crt"), masters[2].read("/etc/kubernetes/pki/ca.crt"));
    masters[1].run(&["member", "list"]).expect(0).says(&["m1", "m2", "m3", "voter"]);
}

#[test]
fn masters_that_start_together_join_one_after_another() {
    let group = Group::new();
    let masters = [1, 2, 3].map(|n| group.master(n));
    let agents = masters.each_ref().map(|master| master.start(&["run", "--once"]));
    for agent in agents {
        agent.finished(PATIENCE).expect(0);
    }
    assert_eq!(masters.iter().map(|master| master.begun("init")).sum::<usize>(), 1);
    let mut voters = masters[0].voters();
    voters.sort();
    assert_eq!(voters, ["m1", "m2", "m3"]);
    assert_eq!(
        masters.iter().map(|master| master.begun("reset")).sum::<usize>(),
        0,
        "nobody met a learner of another one"
    );
    assert!(group.lock().is_none());
}

#[test]
fn a_plan_of_a_further_master_shows_how_it_would_join() {
    let (group, masters) = Group::of(1);
    let second = group.master(2);
    let before = second.picture("/");
    for machine in [&second, &masters[0]] {
        let plan = machine.run(&["plan"]).expect(0).stdout;
        let of = |kind: &str| plan.contains(&format!("kind: {kind}"));
        let joins = machine.name == second.name;
        assert_eq!((of("JoinConfiguration"), of("ClusterConfiguration")), (joins, !joins), "{plan}");
        assert_eq!(plan.contains("controlPlane:"), joins, "{plan}");
        assert!(plan.contains("<secret>"), "{plan}");
    }
    assert!(second.picture("/") == before && group.lock().is_none(), "plan changed something");
}

#[test]
fn without_a_key_there_is_one_master() {
    let group = Group::new();
    let first = group.with(1, "m1", 1, "");
    first.run(&["run", "--once"]).expect(0);
    let second = group.with(2, "m2", 2, "");
    second.run(&["run", "--once"]).expect(11).says(&["already-established", "m1", "pki"]);
    assert!(!second.has("/etc/kubernetes/pki"), "something was made of the second master");
    assert_eq!(first.voters(), ["m1"]);
}

#[test]
fn an_agent_that_dies_in_a_join_goes_on_with_it() {
    let (group, mut masters) = Group::of(1);
    for (n, (phase, kubeadm_dies)) in [
        ("control-plane-prepare", true),
        ("etcd-join/add", false),
        ("etcd-join/add", true),
        ("etcd-join/promote", true),
        ("control-plane-join", true),
    ]
    .into_iter()
    .enumerate()
    {
        let master = group.master(u8::try_from(n + 2).expect("small"));
        let action = if kubeadm_dies { "die" } else { "slow" };
        master.script(&format!(
            "{QUICK}faults: [{{command: join, phase: {phase}, action: {action}, at: after, seconds: 1, times: 1}}]"
        ));
        let mut agent = master.start(&["run", "--once"]);
        agent.until("kubeadm is there", || master.events().iter().any(|event| event["event"] == "fault"));
        agent.kill();
        master.run(&["run", "--once"]).expect(0);
        let name = format!("m{}", n + 2);
        assert!(masters[0].members().contains(&(name, true)), "{phase}: {:?}", masters[0].members());
        assert!(masters[0].members().iter().all(|(_, votes)| *votes), "a learner is left: {:?}", masters[0].members());
        assert_eq!(master.begun("init"), 0);
        assert!(group.lock().is_none(), "{phase}");
        masters.push(master);
    }
}

#[test]
fn a_join_that_fails_leaves_no_learner_and_gives_the_lock_back() {
    let (group, masters) = Group::of(1);
    let second = group.master(2);
    second.script(&format!("{QUICK}faults: [{{command: join, phase: etcd-join/start, action: fail}}]"));
    let mut agent = second.start(&["run"]);
    agent.until("it was taken back", || second.succeeded("reset") > 0 && group.lock().is_none());
    assert_eq!(masters[0].members(), [("m1".to_owned(), true)]);
    // The next machine is not kept from joining.
    let third = group.master(3);
    third.run(&["run", "--once"]).expect(0);
    // What was in the way is gone: it joins by itself.
    second.script(QUICK);
    agent.until("it joined", || masters[0].voters().contains(&"m2".to_owned()) && group.lock().is_none());
    agent.kill();
    assert!(masters[0].members().iter().all(|(_, votes)| *votes));
}

#[test]
fn a_lock_of_somebody_unknown_waits_for_an_operator() {
    let (group, masters) = Group::of(1);
    let lock = json!({
        "schema": 1, "cluster": "prod", "uid": group.world.register()["uid"],
        "attempt": "00000000-0000-4000-8000-000000000001", "since": "2026-01-01T00:00:00Z",
        "holder": {"identity": "machine:ffffffffffffffffffffffffffffffff", "node_name": "m9"},
    });
    group.world.put("join/control-plane.lock", lock.to_string().as_bytes());
    let second = group.master(2);
    let mut waiting = second.start(&["run", "--once"]);
    waiting.until_logged("waiting for m9");
    waiting.until_logged("`kubestrap unlock join`");
    assert_eq!((second.begun("join"), masters[0].members().len()), (0, 1));
    masters[0].run(&["unlock", "join"]).expect(2).says(&["m9", "--yes prod"]);
    masters[0].run(&["unlock", "join", "--yes", "other"]).expect(2);
    assert!(group.lock().is_some());
    masters[0].run(&["unlock", "join", "--yes", "prod"]).expect(0);
    waiting.finished(PATIENCE).expect(0);
    assert_eq!(masters[0].voters(), ["m1", "m2"]);
    masters[0].run(&["unlock", "join", "--yes", "prod"]).says(&["lock"]);
}

#[test]
fn a_name_and_an_address_belong_to_one_machine() {
    let (group, masters) = Group::of(2);
    for (n, name, address, word) in [(3, "m2", 3, "name"), (4, "m4", 2, "address")] {
        let twin = group.named(n, name, address);
        let mut agent = twin.start(&["run", "--once"]);
        agent.until_logged("duplicate-node");
        agent.until_logged(word);
        agent.kill();
        assert_eq!(twin.begun("join"), 0, "{name} at {address}");
        assert!(!twin.has("/etc/kubernetes/admin.conf"));
        assert_eq!(masters[0].voters(), ["m1", "m2"]);
        // It keeps nobody else from joining for longer than it looks.
        twin.cut_power();
        masters[0].run(&["unlock", "join", "--yes", "prod"]);
    }
    let third = group.master(5);
    third.run(&["run", "--once"]).expect(0);
    assert_eq!(masters[0].voters(), ["m1", "m2", "m5"]);
}

#[test]
fn a_dead_member_is_removed_by_an_operators_word_and_replaced() {
    let (group, masters) = Group::of(3);
    masters[2].cut_power();
    // Its machine is not known to be gone: a join waits, and nothing is removed.
    let fourth = group.master(4);
    let mut waiting = fourth.start(&["run", "--once"]);
    waiting.until_logged("m3");
    assert_eq!((masters[0].voters().len(), fourth.begun("join")), (3, 0));
    masters[0].run(&["member", "list"]).expect(0).says(&["m3", "no"]);
    masters[0].run(&["member", "remove", "m3", "--yes", "m3"]).says(&["machine-is-gone"]);
    assert_eq!(masters[0].voters().len(), 3);
    masters[0].run(&["member", "remove", "m3", "--machine-is-gone", "--yes", "m3"]).expect(0);
    waiting.finished(PATIENCE).expect(0);
    assert_eq!(masters[0].voters(), ["m1", "m2", "m4"]);
    let objects = masters[0].api_objects();
    for path in ["/api/v1/nodes/m3", "/api/v1/namespaces/kube-system/pods/etcd-m3"] {
        assert!(!objects.contains_key(path), "{path} is still there");
    }
    // A healthy one stays, whatever is said of it.
    masters[0].run(&["member", "remove", "m2", "--machine-is-gone", "--yes", "m2"]).says(&["healthy"]);
    assert_eq!(masters[0].voters(), ["m1", "m2", "m4"]);
}

#[test]
fn without_a_quorum_nothing_is_removed() {
    let (group, masters) = Group::of(2);
    masters[1].cut_power();
    masters[0].run(&["member", "list"]).says(&["no-quorum"]);
    let said = masters[0].run(&["member", "remove", "m2", "--machine-is-gone", "--yes", "m2"]);
    assert_ne!(said.code, Some(0));
    said.says(&["no-quorum"]);
    let third = group.master(3);
    let mut agent = third.start(&["run", "--once"]);
    agent.until_logged("etcd-unavailable");
    agent.until_logged("the API server, which knows the others, is away");
    agent.kill();
    assert_eq!((masters[0].members().len(), third.begun("join")), (2, 0));
    // It comes back, and everything goes on.
    std::fs::remove_file(masters[1].path("/run/kubestrap-standin/off")).expect("remove");
    let server = std::process::Command::new(crate::process::programs().join("kubeadm"))
        .args(["standin-apiserver", "--detach", "--rootfs"])
        .arg(masters[1].root())
        .spawn();
    drop(server.expect("the API server"));
    third.run(&["run", "--once"]).expect(0);
    assert_eq!(masters[0].voters(), ["m1", "m2", "m3"]);
}
