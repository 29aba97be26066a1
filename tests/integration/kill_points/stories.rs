//! The stories, and what must be true at the end of each.

use super::stage::{Scene, temporaries};
use crate::ecr_agent::{IRELAND, PROVIDERS, hosts, written_before};
use crate::world::{CLUSTER, Machine, World};
use base64::Engine;
use nix::fcntl::{Flock, FlockArg};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;

/// A story that is told with a death at every point of it.
pub struct Story {
    /// Makes the next scene; the argument is kept from scene to scene.
    pub scene: fn(&mut Option<Shared>) -> Scene,
    /// What must hold after the repeated command.
    pub verify: fn(&Scene),
}

/// A cluster that many scenes share.
#[derive(Clone)]
pub struct Shared {
    world: Rc<World>,
    /// None when it has ended.
    master: Option<Rc<Machine>>,
}

/// A machine makes a cluster: `run --once` on a master.
pub const MASTER: Story = Story { scene: master_scene, verify: is_the_master };
/// A machine joins it: `run --once` on a worker.
pub const WORKER: Story = Story { scene: worker_scene, verify: is_a_worker };
/// An operator takes a node's machine back: `reset --force` on a worker.
pub const RESET: Story = Story { scene: reset_scene, verify: is_clean_and_joins_again };
/// An operator puts a cluster that ended aside: `cluster retire`.
pub const RETIRE: Story = Story { scene: retire_scene, verify: is_retired };

/// Nothing is locked, and no temporary or secret file of a dead process is left on the machine.
fn left_nothing(scene: &Scene) {
    let (machine, world) = (&scene.machine, &scene.world);
    kubeadm_ran_alone(machine);
    for lock in [machine.path("/var/lib/kubestrap/lock"), world.store_path(".kubestrap.lock")] {
        if !lock.exists() {
            continue;
        }
        let file = std::fs::File::options().write(true).open(&lock).expect("a lock file");
        assert_eq!(file.metadata().expect("stat").mode() & 0o777, 0o600, "{}", lock.display());
        let taken = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        assert!(taken.is_ok(), "{} is still locked", lock.display());
    }
    let left = temporaries(machine.root());
    assert!(left.is_empty(), "temporary files are left on the machine: {left:?}");
    let jobs: Vec<_> = std::fs::read_dir(machine.path("/var/lib/kubestrap/jobs")).into_iter().flatten().collect();
    assert!(jobs.is_empty(), "records of jobs, which hold kubeadm's output, are left: {jobs:?}");
    if machine.has("/var/lib/kubestrap") {
        crate::bootstrap::has_no_secret_left(machine);
    }
    // In the store a temporary file may stay until a later write in its folder finds it ten minutes old.
    let left = temporaries(&world.store_path(CLUSTER));
    for path in &left {
        assert_eq!(path.metadata().expect("stat").mode() & 0o077, 0, "{} may be read by others", path.display());
    }
}

/// Two kubeadm never work on one machine at the same time. None of them is killed here, so each one tells its end.
fn kubeadm_ran_alone(machine: &Machine) {
    let events = machine.events();
    let turns: Vec<&str> = events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .filter(|what| ["start", "end"].contains(what))
        .collect();
    assert!(turns.chunks(2).all(|turn| turn == ["start", "end"]), "two kubeadm at once: {events:#?}");
}

fn phases(machine: &Machine, name: &str) -> usize {
    machine.events().iter().filter(|event| event["event"] == "phase" && event["phase"] == name).count()
}

/// The certificate that the API server tells everybody, in PEM.
fn published_ca(master: &Machine) -> String {
    let objects = master.api_objects();
    let info = &objects["/api/v1/namespaces/kube-public/configmaps/cluster-info"]["data"]["kubeconfig"];
    let text = info.as_str().expect("a kubeconfig");
    let data = text.split("certificate-authority-data:").nth(1).and_then(|rest| rest.split_whitespace().next());
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(data.expect("a CA").trim_matches('"')).expect("base64");
    String::from_utf8(bytes).expect("PEM")
}

/// The kubelet was started with a file that is there.
fn knows_the_plugin(machine: &Machine) {
    assert!(machine.read(PROVIDERS).contains("ecr-credential-provider"));
    assert!(machine.read("/var/lib/kubelet/kubeadm-flags.env").contains(PROVIDERS));
}

fn nodes(master: &Machine) -> BTreeSet<String> {
    let objects = master.api_objects();
    objects.keys().filter_map(|path| path.strip_prefix("/api/v1/nodes/")).map(str::to_owned).collect()
}

fn run_once() -> Vec<String> {
    ["run", "--once"].map(str::to_owned).to_vec()
}

fn master_scene(_shared: &mut Option<Shared>) -> Scene {
    let world = Rc::new(World::new());
    let machine = world.master("m1");
    machine.configure("ecr: { enabled: true }\n");
    Scene { world, master: None, machine, arguments: run_once(), gives_up: false }
}

/// One cluster with one CA and one node, whatever happened.
fn is_the_master(scene: &Scene) {
    let (world, master) = (&scene.world, &scene.machine);
    let (register, bundle) = (world.register(), world.bundle());
    assert_eq!(register["state"], "established");
    assert_eq!((&bundle["uid"], &bundle["ca_sha256"]), (&register["uid"], &register["ca_sha256"]));
    assert_eq!(published_ca(master).trim(), master.read("/etc/kubernetes/pki/ca.crt").trim());
    let journal = scene.journal();
    let of = |entry: &str| journal.iter().filter(|line| line["entry"] == entry).collect::<Vec<_>>();
    let made: BTreeSet<String> =
        of("initialised").iter().chain(&of("committed")).map(|line| line["ca"].to_string()).collect();
    assert_eq!(made, [register["ca_sha256"].to_string()].into(), "{journal:?}");
    let attempts: BTreeSet<String> = of("began").iter().map(|line| line["attempt"].to_string()).collect();
    assert_eq!(attempts, [register["attempt"].to_string()].into(), "{journal:?}");
    let (certs, resets) = (phases(master, "certs"), master.succeeded("reset"));
    assert!(certs <= 1 + resets, "{certs} CAs were made, and {resets} resets");
    assert_eq!(nodes(master), ["m1".to_owned()].into());
    knows_the_plugin(master);
    left_nothing(scene);
}

fn established(shared: &mut Option<Shared>) -> Shared {
    let make = || {
        let (world, master) = World::established();
        Shared { world: Rc::new(world), master: Some(Rc::new(master)) }
    };
    shared.get_or_insert_with(make).clone()
}

fn worker_scene(shared: &mut Option<Shared>) -> Scene {
    let Shared { world, master } = established(shared);
    let count = std::fs::read_dir(world.path("")).expect("list").count();
    let machine = world.worker(&format!("w{count}"));
    machine.configure("ecr: { enabled: true }\n");
    Scene { world, master, machine, arguments: run_once(), gives_up: false }
}

fn is_a_worker(scene: &Scene) {
    let (worker, master) = (&scene.machine, scene.master.as_ref().expect("a master"));
    assert_eq!(worker.read("/etc/kubernetes/pki/ca.crt"), master.read("/etc/kubernetes/pki/ca.crt"));
    assert!(nodes(master).contains(&worker.name), "{:?}", nodes(master));
    let journal = scene.journal();
    assert!(journal.iter().any(|line| line["entry"] == "completed"), "{journal:?}");
    knows_the_plugin(worker);
    let secrets = crate::secrets::secrets(&scene.world, master);
    assert_eq!(crate::secrets::only_root_reads(worker, &secrets), 0, "a worker keeps no token");
    left_nothing(scene);
}

fn reset_scene(shared: &mut Option<Shared>) -> Scene {
    let mut scene = worker_scene(shared);
    scene.machine.run(&["run", "--once"]).expect(0);
    written_before(&scene.machine, IRELAND, 3600, 1800);
    // Too quick for its wrapper to note its pid, otherwise.
    scene.machine.script("faults: [{command: reset, phase: preflight, action: slow, seconds: 0.15}]");
    scene.gives_up = true;
    scene.arguments = ["reset", "--force", "--yes", &scene.machine.name].map(str::to_owned).to_vec();
    scene
}

fn is_clean_and_joins_again(scene: &Scene) {
    let worker = &scene.machine;
    for path in ["/etc/kubernetes/kubelet.conf", "/etc/kubernetes/pki/ca.crt", "/var/lib/kubelet/config.yaml"] {
        assert!(!worker.has(path), "{path} is still there");
    }
    assert!(!worker.has(PROVIDERS) && !worker.has(&hosts(IRELAND)), "what was written for ECR is still there");
    left_nothing(scene);
    worker.run(&["run", "--once"]).expect(0);
    is_a_worker(scene);
}

/// A store whose cluster has ended, copied for each scene.
fn retire_scene(shared: &mut Option<Shared>) -> Scene {
    let shared = shared.get_or_insert_with(|| {
        let (world, _master) = World::established();
        // It ends here, and its API server with it.
        Shared { world: Rc::new(world), master: None }
    });
    let world = World::new();
    copy(&shared.world.store_path(CLUSTER), &world.store_path(CLUSTER));
    copy(&shared.world.store_path(CLUSTER), &world.path("before"));
    let machine = world.master("m2");
    let arguments = ["cluster", "retire", "--yes", CLUSTER].map(str::to_owned).to_vec();
    Scene { world: Rc::new(world), master: None, machine, arguments, gives_up: false }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("mkdir");
    for entry in std::fs::read_dir(from).expect("list").map(|entry| entry.expect("entry")) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}

/// Every object is where it is retired, whole, and nowhere else.
fn is_retired(scene: &Scene) {
    let world = &scene.world;
    let before = objects(&world.path("before"));
    let uid: serde_json::Value = serde_json::from_slice(&before["cluster.json"]).expect("JSON");
    let retired = |key: &str| format!("retired/{}/{key}", uid["uid"].as_str().expect("a uid"));
    let is_kept = |key: &str| key.starts_with("selftest/");
    let expected: BTreeMap<String, Vec<u8>> =
        before.into_iter().map(|(key, body)| if is_kept(&key) { (key, body) } else { (retired(&key), body) }).collect();
    let now = objects(&world.store_path(CLUSTER));
    let keys = |objects: &BTreeMap<String, Vec<u8>>| objects.keys().cloned().collect::<Vec<_>>();
    assert!(now == expected, "{:?}\nand not\n{:?}", keys(&now), keys(&expected));
    left_nothing(scene);
}

/// The objects below a folder, by key.
fn objects(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(place) = folders.pop() {
        for entry in std::fs::read_dir(&place).expect("list").map(|entry| entry.expect("entry").path()) {
            let key = entry.strip_prefix(folder).expect("below").display().to_string();
            if entry.is_dir() {
                folders.push(entry);
            } else if !entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                found.insert(key, std::fs::read(&entry).expect("read"));
            }
        }
    }
    found
}
