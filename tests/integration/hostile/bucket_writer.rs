//! Whoever can write to the store. They can keep nodes from joining; they cannot make one run a command, join another
//! cluster (with `ca_pin`), make a second cluster, or write to a terminal.

use super::{Attacker, Case, Ends, Scene, Waits};
use crate::process::{Agent, PATIENCE};
use crate::world::World;
use serde_json::{Value, json};

const KEY: &str = "join/worker.json";
const REGISTER: &str = "cluster.json";

/// Against a worker that has not joined yet. More of the bundle's fields: `bundles.rs`.
pub const OF_A_WORKER: Attacker =
    Attacker { who: "who can write to the store, against a worker", scene: Scene::worker, cases: WORKER };
/// Against the first master. More: `masters.rs`.
pub const OF_A_MASTER: Attacker =
    Attacker { who: "who can write to the store, against a master", scene: Scene::master, cases: MASTER };

macro_rules! rejected {
    ($what:literal, $prepare:expr, $($says:expr),+) => {
        Case { name: $what, prepare: $prepare, answer: Waits, cause: "object-rejected", says: &[$($says),+] }
    };
}

const WORKER: &[Case] = &[
    Case {
        name: "register and bundle of another cluster, against a ca_pin",
        prepare: |scene| {
            scene.victim.configure(&format!("ca_pin: sha256:{}\n", "1".repeat(64)));
            let uid = json!("6f1f2f8a-0000-4000-8000-000000000001");
            scene.register(|register| register["uid"] = uid.clone());
            scene.bundle(|bundle| bundle["uid"] = uid.clone());
        },
        answer: Ends(11),
        cause: "foreign-cluster",
        says: &["use prod/join/worker.json", "insist on sha256:1111", "find out who changed the CA"],
    },
    Case {
        name: "bundle: a server that this kubelet cannot join",
        prepare: |scene| scene.bundle(|bundle| bundle["server_version"] = json!("v1.20.0")),
        answer: Ends(11),
        cause: "version-skew",
        says: &["v1.20.0", "join the cluster"],
    },
    rejected!(
        "bundle: a field twice",
        |scene| scene.bundle_text(|text| text.replacen('{', "{\"token\":\"aaaaaa.aaaaaaaaaaaaaaaa\",", 1).into()),
        KEY,
        "twice"
    ),
    rejected!(
        "bundle: 10,000 lists in each other",
        |scene| scene.bundle_text(|_| "[".repeat(10_000).into()),
        KEY,
        "recursion limit"
    ),
    rejected!(
        "bundle: 10,000 lists in a field that nobody reads",
        |scene| scene.bundle_text(|text| text
            .replacen('{', &format!("{{\"later\":{}{},", "[".repeat(10_000), "]".repeat(10_000)), 1)
            .into()),
        KEY,
        "recursion limit"
    ),
    rejected!(
        "bundle: NUL bytes",
        |scene| scene.bundle_text(|text| [text.as_bytes(), &[0; 16]].concat()),
        KEY,
        "not JSON"
    ),
    rejected!(
        "bundle: not UTF-8 in a text",
        |scene| scene.bundle_text(|text| {
            let mut bytes = text.as_bytes().to_vec();
            let at = text.find("127.0.0.1").expect("the endpoint");
            bytes[at] = 0xff;
            bytes
        }),
        KEY,
        "not JSON"
    ),
    rejected!(
        "bundle: one byte more than 64 KiB",
        |scene| scene.bundle_text(|text| format!("{text}{}", " ".repeat(65_537 - text.len())).into()),
        KEY,
        "65536"
    ),
    rejected!("bundle: an empty object", |scene| scene.bundle_text(|_| b"{}".to_vec()), KEY, "no schema number"),
    rejected!(
        "bundle: gzip",
        |scene| scene.bundle_text(|_| vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0xae, 5, 0]),
        KEY,
        "not JSON"
    ),
    rejected!(
        "bundle: a token of the wrong type",
        |scene| scene.bundle(|bundle| bundle["token"] = json!(["abcdef.0123456789abcdef"])),
        KEY,
        "token: it is missing, or not a text"
    ),
    rejected!(
        "bundle: a token in capitals",
        |scene| scene.bundle(|bundle| bundle["token"] = json!("ABCDEF.0123456789ABCDEF")),
        KEY,
        "the token is not of the form"
    ),
    rejected!(
        "bundle: a sequence below zero",
        |scene| scene.bundle(|bundle| bundle["sequence"] = json!(-1)),
        KEY,
        "sequence is not a number that is not negative"
    ),
    rejected!(
        "bundle: a sequence beyond all numbers",
        |scene| scene.bundle_text(|text| text.replacen("\"sequence\":1", "\"sequence\":1e999", 1).into()),
        KEY,
        "not JSON"
    ),
    rejected!(
        "bundle: an endpoint of the wrong type",
        |scene| scene.bundle(|bundle| bundle["endpoint"] = json!({ "host": "api" })),
        KEY,
        "endpoint is not host:port"
    ),
    rejected!(
        "bundle: a URL as the endpoint",
        |scene| scene.bundle(|bundle| bundle["endpoint"] = json!("https://evil.example.com:6443")),
        KEY,
        "endpoint is not host:port"
    ),
    rejected!(
        "bundle: an endpoint with a user",
        |scene| scene.bundle(|bundle| bundle["endpoint"] = json!("api@evil.example.com:6443")),
        KEY,
        "endpoint is not host:port"
    ),
    rejected!(
        "bundle: an endpoint of two lines",
        |scene| scene.bundle(|bundle| bundle["endpoint"] = json!("api:6443\nnodeRegistration:6443")),
        KEY,
        "endpoint is not host:port"
    ),
    rejected!(
        "bundle: a version that is YAML",
        |scene| scene.bundle(|bundle| bundle["server_version"] = json!("v1.36.1\nx: y")),
        KEY,
        "server_version is not a version"
    ),
    rejected!(
        "bundle: it would live for 49 hours",
        |scene| scene.bundle(|bundle| {
            let issued = bundle["issued_at"].as_str().expect("text").to_owned();
            let (day, _) = issued.split_once('T').expect("a time");
            bundle["issued_at"] = json!(format!("{day}T00:00:00Z"));
            bundle["expires_at"] = json!("2999-01-01T00:00:00Z");
        }),
        KEY,
        "48 h is the most"
    ),
    rejected!(
        "bundle: it expires before it was issued",
        |scene| scene.bundle(|bundle| bundle["expires_at"] = json!("1970-01-01T00:00:00Z")),
        KEY,
        "it expires before it was issued"
    ),
    rejected!(
        "bundle: a publisher that writes to the terminal",
        |scene| scene.bundle(|bundle| bundle["publisher"] = json!("m1\u{1b}[2J\u{1b}]0;pwned\u{7}")),
        KEY,
        "publisher is not one line of text"
    ),
    rejected!(
        "bundle: without a register",
        |scene| std::fs::remove_file(scene.object(REGISTER)).expect("remove"),
        "there is a bundle, but no cluster.json of an established cluster",
        "status --cluster"
    ),
    rejected!(
        "bundle: while the cluster is being initialised",
        |scene| scene.register(|register| {
            *register = json!({
                "schema": 1, "cluster": "prod", "uid": register["uid"], "state": "initialising",
                "attempt": register["attempt"], "holder": register["created_by"], "since": register["created_at"]
            });
        }),
        "no cluster.json of an established cluster"
    ),
    rejected!(
        "register: a field twice",
        |scene| {
            let text = scene.world.register().to_string();
            scene.world.put(REGISTER, text.replacen('{', "{\"state\":\"initialising\",", 1).as_bytes());
        },
        REGISTER,
        "twice"
    ),
    rejected!(
        "register: a state that nobody knows",
        |scene| scene.register(|register| register["state"] = json!("anarchy")),
        REGISTER,
        "anarchy"
    ),
    rejected!(
        "register: of a later major release",
        |scene| scene.register(|register| register["schema"] = json!(2)),
        REGISTER,
        "its schema is 2",
        "install the kubestrap release"
    ),
    rejected!(
        "register: established without a CA",
        |scene| scene.register(|register| drop(register.as_object_mut().expect("map").remove("ca_sha256"))),
        REGISTER,
        "ca_sha256"
    ),
    rejected!(
        "register: made by nobody",
        |scene| scene
            .register(|register| drop(register["created_by"].as_object_mut().expect("map").remove("identity"))),
        REGISTER,
        "identity"
    ),
    rejected!(
        "register: a uid of zeros",
        |scene| scene.register(|register| register["uid"] = json!("00000000-0000-0000-0000-000000000000")),
        REGISTER,
        "is nil"
    ),
    rejected!(
        "register: a creator that writes to the terminal",
        |scene| scene.register(|register| register["created_by"]["node_name"] = json!("m1\u{1b}[2J")),
        REGISTER,
        "not one line of text"
    ),
    rejected!(
        "register: a state that writes to the terminal",
        |scene| scene.register(|register| register["state"] = json!("x\u{1b}[2J\u{202e}y")),
        REGISTER,
        "not of the expected form"
    ),
    rejected!("register: empty", |scene| scene.world.put(REGISTER, b""), REGISTER, "it is empty"),
    Case {
        name: "register: of another cluster",
        prepare: |scene| scene.register(|register| register["cluster"] = json!("staging")),
        answer: Ends(11),
        cause: "foreign-cluster",
        says: &["read prod/cluster.json", "the register of cluster \"staging\""],
    },
];

/// Registers that a master must neither take for an empty store nor for its own.
const MASTER: &[Case] = &[
    rejected!("register: not JSON", |scene| scene.world.put(REGISTER, b"rm -rf /"), REGISTER, "not JSON"),
    rejected!("register: empty", |scene| scene.world.put(REGISTER, b""), REGISTER, "it is empty"),
    rejected!(
        "register: of a later major release",
        |scene| scene.register(|register| register["schema"] = json!(7)),
        REGISTER,
        "its schema is 7"
    ),
    Case {
        name: "register: somebody else's cluster",
        prepare: |scene| scene.register(|_| ()),
        answer: Ends(11),
        cause: "already-established",
        says: &["the cluster exists", "m1", "role: worker"],
    },
    Case {
        name: "register: held by somebody who is not on EC2",
        prepare: |scene| {
            scene.world.put(
                REGISTER,
                json!({
                    "schema": 1, "cluster": "prod", "uid": "6f1f2f8a-0000-4000-8000-000000000001",
                    "state": "initialising", "attempt": "6f1f2f8a-0000-4000-8000-000000000002",
                    "holder": { "identity": "machine-00", "node_name": "ghost" }, "since": "2026-01-01T00:00:00Z"
                })
                .to_string()
                .as_bytes(),
            );
        },
        answer: Waits,
        cause: "held-by-other",
        says: &["ghost", "unlock init"],
    },
    Case {
        name: "register gone, a report that cannot be read is left",
        prepare: |scene| scene.world.put("nodes/machine-00/report.json", b"{"),
        answer: Ends(11),
        cause: "register-missing",
        says: &["prod/nodes/machine-00/report.json", "cluster retire"],
    },
    Case {
        name: "register gone, junk where a PKI would be",
        prepare: |scene| scene.world.put("pki/bundle", &[0xff; 100_000]),
        answer: Ends(11),
        cause: "register-missing",
        says: &["prod/pki/bundle", "cluster retire"],
    },
    Case {
        name: "register gone, an old bundle is left",
        prepare: |scene| scene.bundle(|_| ()),
        answer: Ends(11),
        cause: "register-missing",
        says: &["prod/join/worker.json", "claim prod/cluster.json"],
    },
];

#[test]
fn a_worker_withstands_it() {
    super::withstands(&OF_A_WORKER);
}

#[test]
fn a_master_withstands_it() {
    super::withstands(&OF_A_MASTER);
}

/// What is not refused: a field of a later minor release.
#[test]
fn unknown_fields_are_no_attack() {
    let (world, _master) = World::established();
    for key in [KEY, REGISTER] {
        let mut object = world.object(key).expect("object");
        object["later"] = json!({ "a": [1, null] });
        world.put(key, object.to_string().as_bytes());
    }
    world.worker("w1").run(&["run", "--once"]).expect(0);
}

/// kubeadm found the token of bundle 2 dead; bundle 1 is put back.
#[test]
fn an_old_bundle_is_refused_after_a_newer_one_was_used() {
    let (world, master) = World::established();
    let old = world.bundle();
    master.run(&["token", "rotate"]).expect(0);
    let mut newer = world.bundle();
    assert!(newer["sequence"].as_u64() > old["sequence"].as_u64());
    // Of the newer bundle's token the cluster knows nothing.
    newer["token"] = json!("aaaaaa.bbbbbbbbbbbbbbbb");
    world.put(KEY, newer.to_string().as_bytes());
    let worker = world.worker("w1");
    worker.script("timeout_scale: 0.02");
    let mut agent = worker.start(&["run", "--once"]);
    agent.until_logged("token-gone");
    world.put(KEY, old.to_string().as_bytes());
    agent.until_logged("an old bundle was put back");
    let begun = worker.begun("join");
    let word = || worker.read("/var/lib/kubestrap/agent.json");
    agent.until("it says what to do", || word().contains("find out who writes to the store besides the master"));
    assert_eq!(worker.begun("join"), begun, "it was used all the same");
    master.run(&["token", "rotate"]).expect(0);
    agent.finished(PATIENCE).expect(0);
    assert_eq!(master.node("w1")["metadata"]["name"], "w1");
}

/// A bundle with the right CA and the address of somebody else: kubeadm finds no signature with its token, and nothing of
/// the attempt is left.
#[test]
fn an_endpoint_of_somebody_else_is_not_joined() {
    let (world, _master) = World::established();
    let (rogue, other) = World::established();
    let mut bundle = world.bundle();
    bundle["endpoint"] = json!(format!("127.0.0.1:{}", rogue.port));
    world.put(KEY, bundle.to_string().as_bytes());
    let worker = world.worker("w1");
    worker.script("timeout_scale: 0.02");
    let mut agent = worker.start(&["run"]);
    agent.until_logged("kubeadm join");
    agent.until("an attempt failed", || worker.begun("join") > 0 && agent_failed(&worker));
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    assert_eq!(worker.succeeded("join"), 0);
    for left in [
        "/etc/kubernetes/kubelet.conf",
        "/etc/kubernetes/bootstrap-kubelet.conf",
        "/var/lib/kubestrap/kubeadm/join.yaml",
    ] {
        assert!(!worker.has(left), "{left} is left");
    }
    assert!(!other.api_objects().keys().any(|path| path.ends_with("/nodes/w1")), "it joined somebody else's cluster");
}

fn agent_failed(worker: &crate::world::Machine) -> bool {
    worker.journal().iter().any(|line| line["entry"] == "step-ended" && !line["failure"].is_null())
}

/// Reports that lie: shown as what they are, and without the means to command a terminal.
#[test]
fn reports_of_liars_are_shown_as_such() {
    let (world, master) = World::established();
    let own = master.report(&world).expect("a report");
    let key = |identity: &str| format!("nodes/{identity}/report.json");
    let mut loud = own.clone();
    loud["identity"]["origin"]["machine_id"] = json!("loud");
    loud["identity"]["node_name"] = json!("w\u{1b}[2J\u{1b}]0;pwned\u{7}\u{202e}9");
    loud["step"] = json!("\u{9b}31mjoin\r\n");
    loud["error"] = json!({ "cause": "x\u{1b}[0m", "message": "a\nb\u{8}c\u{1b}[A", "since": "2026-01-01T00:00:00Z" });
    world.put(&key("machine-loud"), loud.to_string().as_bytes());
    world.put(&key("machine-somebody-else"), own.to_string().as_bytes());
    world.put(&key("machine-junk"), b"\x1b[2J");
    let shown =
        master.run(&["status", "--cluster"]).expect(0).says(&["speaks for another machine than its key"]).said();
    let commands = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!shown.contains(commands), "it commands a terminal: {shown:?}");
    for (line, told) in [("machine-junk", "unreadable"), ("machine-somebody-else", "unreadable")] {
        assert!(shown.lines().any(|text| text.contains(line) && text.contains(told)), "{line}:\n{shown}");
    }
    let json: Value =
        serde_json::from_str(&master.run(&["status", "--cluster", "--output", "json"]).expect(0).stdout).expect("JSON");
    assert!(json.to_string().contains("machine-junk"));
}

/// A thousand fake reports cost a page more, and no more memory than there is.
#[test]
fn a_thousand_fake_reports_do_not_hide_the_true_one() {
    let (world, master) = World::established();
    let own = master.report(&world).expect("a report");
    for number in 0..1_200 {
        let mut fake = own.clone();
        fake["identity"]["origin"]["machine_id"] = json!(format!("fake-{number}"));
        fake["identity"]["node_name"] = json!(format!("fake-{number}"));
        fake["log_tail"] = json!(["x".repeat(20_000)]);
        world.put(&format!("nodes/machine-fake-{number}/report.json"), fake.to_string().as_bytes());
    }
    let mut agent = Agent::start(&mut master.command(&["status", "--cluster"]));
    let mut peak = 0;
    while agent.runs() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        peak = peak.max(line.unwrap_or_default());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let shown = agent.finished(PATIENCE).expect(0).stdout;
    assert!(shown.lines().any(|line| line.contains("m1 ")) && shown.contains("fake-1199"), "{shown:.2000}");
    assert!(peak > 0 && peak < 200 * 1024, "{peak} KiB");
}
