//! The sealed keys of the cluster's authorities: made and stored before `kubeadm init`, used by it and by a successor,
//! refused when anything about them is wrong, sealed with another key.

use crate::ecr_agent::{command, refusal};
use crate::http;
use crate::peer::{Peer, Reply};
use crate::process::{Agent, Finished, PATIENCE, finish};
use crate::world::{Machine, World};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const KEY: &str = "/etc/kubestrap/pki.key";
const PASSPHRASE: &str = "/etc/kubestrap/pki.passphrase";
const BUNDLE: &str = "pki/bundle";
/// Small keys: RSA takes seconds in a debug build.
const QUICK: &str = "kubeadm: { ClusterConfiguration: { encryptionAlgorithm: ECDSA-P256 } }\n";
const PRIVATE: [&str; 4] = ["ca.key", "front-proxy-ca.key", "etcd/ca.key", "sa.key"];

/// A master with a key file.
fn master(world: &World, name: &str) -> Machine {
    let machine = world.master(name);
    key_file(&machine, 1);
    machine.configure(&format!("pki: {{ key_file: {KEY} }}\n{QUICK}"));
    machine
}

fn key_file(machine: &Machine, byte: u8) {
    machine.write(KEY, &format!("{}\n", STANDARD.encode([byte; 32])));
    machine.set_mode(KEY, 0o600);
}

fn bundle(world: &World) -> Value {
    world.object(BUNDLE).expect("pki/bundle")
}

/// Everything of a machine's or the store's that others see, without one line of a private key.
#[track_caller]
fn tells_no_key(machine: &Machine, text: &str) {
    for name in PRIVATE {
        let key = machine.read(&format!("/etc/kubernetes/pki/{name}"));
        let lines = key.lines().filter(|line| !line.starts_with("-----"));
        lines.for_each(|line| assert!(!text.contains(line), "a line of {name} is in:\n{text}"));
    }
}

/// m1 dies in the middle of `kubeadm init`; whoever comes next may take over.
fn half_made(world: &World) -> Machine {
    let first = master(world, "m1");
    first.script("faults: [{command: init, phase: kubeconfig, action: hang}]");
    let mut agent = first.start(&["run"]);
    agent.until("the first master has a CA", || first.reached("init", "kubeconfig"));
    agent.kill();
    first.run(&["unlock", "init", "--yes", "prod"]).expect(0);
    first
}

#[test]
fn the_keys_are_sealed_before_init_and_init_uses_them() {
    let world = World::new();
    let machine = master(&world, "m1");
    let said = machine.run(&["run", "--once"]).expect(0).said();
    let (register, sealed) = (world.register(), bundle(&world));
    assert_eq!((&sealed["uid"], &sealed["ca_sha256"]), (&register["uid"], &register["ca_sha256"]));
    assert_eq!((&sealed["key"], &sealed["sequence"]), (&json!({ "kind": "file" }), &json!(1)));
    for name in PRIVATE {
        assert_eq!(machine.mode(&format!("/etc/kubernetes/pki/{name}")), 0o600, "{name}");
    }
    for name in ["ca.crt", "front-proxy-ca.crt", "etcd/ca.crt"] {
        assert_eq!(machine.mode(&format!("/etc/kubernetes/pki/{name}")), 0o644, "{name}");
    }
    let status = machine.run(&["pki", "status"]).expect(0).says(&["a key file", "opens", "yes"]).said();
    let json = machine.run(&["pki", "status", "-o", "json"]).expect(0).stdout;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["opens"], &json["machine_ca_sha256"]), (&json!(true), &register["ca_sha256"]));
    let journal = machine.read("/var/lib/kubestrap/journal.jsonl");
    let plan = machine.run(&["plan"]).said();
    for text in [said, status, journal, plan, sealed.to_string()] {
        tells_no_key(&machine, &text);
        assert!(!text.contains(&STANDARD.encode([1; 32])), "the key is in:\n{text}");
    }
    // Once more: nothing is sealed twice.
    machine.run(&["run", "--once"]).expect(0);
    assert_eq!(bundle(&world), sealed);
    // A worker joins by the CA that was sealed.
    world.worker("w1").run(&["run", "--once"]).expect(0);
}

#[test]
fn a_successor_makes_the_same_cluster() {
    let world = World::new();
    let first = half_made(&world);
    let sealed = bundle(&world);
    let second = master(&world, "m2");
    second.run(&["run", "--once"]).expect(0);
    assert_eq!(bundle(&world), sealed);
    assert_eq!(world.register()["ca_sha256"], sealed["ca_sha256"]);
    for name in PRIVATE.into_iter().chain(["ca.crt", "front-proxy-ca.crt", "etcd/ca.crt", "sa.pub"]) {
        let path = format!("/etc/kubernetes/pki/{name}");
        assert_eq!(second.read(&path), first.read(&path), "{name}");
    }
}

#[test]
fn sealed_keys_that_were_changed_or_do_not_open_stop_a_master_before_init() {
    let world = World::new();
    let _first = half_made(&world);
    let whole = bundle(&world);
    let text = whole.to_string();
    let with = |field: &str, value: Value| {
        let mut changed = whole.clone();
        changed[field] = value;
        changed.to_string()
    };
    let mut bytes = STANDARD.decode(whole["sealed"].as_str().expect("text")).expect("base64");
    *bytes.last_mut().expect("bytes") ^= 1;
    let table = [
        text[..text.len() / 2].to_owned(),
        String::new(),
        with("sealed", json!(STANDARD.encode(bytes))),
        with("uid", json!("00000000-0000-0000-0000-000000000001")),
        with("ca_sha256", json!(format!("sha256:{}", "0".repeat(64)))),
        with("cluster", json!("other")),
        with("sequence", json!(7)),
        with("key", json!({ "kind": "passphrase", "salt": STANDARD.encode([0; 16]), "rounds": 4_000_000_000_u32 })),
    ];
    let second = master(&world, "m2");
    for body in table {
        world.put(BUNDLE, body.as_bytes());
        second.run(&["run", "--once"]).expect(11).says(&["pki-rejected", "pki/bundle"]);
        assert_eq!(second.begun("init"), 0);
        assert!(!second.has("/etc/kubernetes/pki"), "{body}");
    }
    world.put(BUNDLE, text.as_bytes());
    key_file(&second, 2);
    second.run(&["run", "--once"]).expect(11).says(&["pki-rejected", "another key"]);
    second.run(&["pki", "status"]).expect(21).says(&["no:", "another key"]);
    key_file(&second, 1);
    second.set_mode(KEY, 0o640);
    second.run(&["run", "--once"]).expect(11).says(&["unsafe-file", KEY, "0640"]);
    second.write(KEY, "too short\n");
    second.set_mode(KEY, 0o600);
    let said = second.run(&["run", "--once"]).expect(10).says(&["openssl rand -base64 32"]).said();
    assert!(!said.contains("too short") && !second.has("/etc/kubernetes/pki"), "{said}");
    key_file(&second, 1);
    second.run(&["run", "--once"]).expect(0);
    assert_eq!(world.register()["ca_sha256"], whole["ca_sha256"]);
}

#[test]
fn an_older_cluster_is_sealed_and_sealed_anew_with_another_key() {
    let world = World::new();
    let machine = world.master("m1");
    machine.configure(QUICK);
    machine.run(&["run", "--once"]).expect(0);
    machine.run(&["pki", "status"]).expect(21).says(&["there is no pki/bundle"]);
    machine.write(PASSPHRASE, "correct horse battery staple\n");
    machine.set_mode(PASSPHRASE, 0o600);
    machine.configure(&format!("pki: {{ passphrase_file: {PASSPHRASE} }}\n{QUICK}"));
    let mut agent = machine.start(&["run"]);
    agent.until("the keys are sealed", || world.object(BUNDLE).is_some());
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    let (register, before) = (world.register(), bundle(&world));
    assert_eq!((&before["ca_sha256"], &before["key"]["rounds"]), (&register["ca_sha256"], &json!(600_000)));
    machine.run(&["pki", "status"]).expect(0).says(&["a passphrase (600000 rounds)"]);

    key_file(&machine, 3);
    machine.configure(&format!("pki: {{ key_file: {KEY} }}\n{QUICK}"));
    machine.run(&["pki", "status"]).expect(21).says(&["sealed with a passphrase", "pki rewrap"]);
    machine.run(&["pki", "rewrap"]).expect(2).says(&["the key file", "--yes prod"]);
    machine.run(&["pki", "rewrap", "--yes", "other"]).expect(2);
    assert_eq!(bundle(&world), before);
    machine.run(&["pki", "rewrap", "--yes", "prod"]).expect(0).says(&["Sealed anew"]);
    let after = bundle(&world);
    assert_eq!((&after["ca_sha256"], &after["sequence"]), (&before["ca_sha256"], &json!(2)));
    machine.run(&["pki", "status"]).expect(0).says(&["version 2 with a key file"]);
    tells_no_key(&machine, &after.to_string());
    // Another machine's CA never goes under this cluster's name.
    let other = World::new();
    let stranger = master(&other, "m9");
    stranger.run(&["run", "--once"]).expect(0);
    other.put("cluster.json", world.register().to_string().as_bytes());
    stranger.run(&["pki", "rewrap", "--yes", "prod"]).expect(11).says(&["foreign-cluster"]);
    world.worker("w1").run(&["pki", "rewrap", "--yes", "prod"]).expect(2).says(&["worker"]);
}

fn with_kms(world: &World, name: &str, endpoint: &str, key_id: &str) -> Machine {
    let machine = world.master(name);
    machine.configure(&format!("pki: {{ kms_key_id: '{key_id}' }}\naws: {{ kms_endpoint: '{endpoint}' }}\n{QUICK}"));
    machine
}

const ARN: &str = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555";

fn run(machine: &Machine, arguments: &[&str]) -> Finished {
    finish(&mut command(machine, arguments))
}

#[test]
fn a_kms_that_denies_or_is_down_is_waited_for_and_named() {
    let denied = Peer::start(|_| refusal("AccessDeniedException"));
    let down = Peer::start(|_| Reply::whole("500 Internal Server Error", "", "{\"__type\":\"KMSInternalException\"}"));
    for (peer, texts) in [
        (denied, ["access-denied", "kms:GenerateDataKey on arn:aws:kms:eu-west-1"]),
        (down, ["cloud-unavailable", "get a data key of KMS key arn:aws:kms:eu-west-1"]),
    ] {
        let world = World::new();
        let machine = with_kms(&world, "m1", &peer.url(), ARN);
        let mut agent = Agent::start(&mut command(&machine, &["run", "--once"]));
        texts.iter().for_each(|text| agent.until_logged(text));
        agent.kill();
        assert!(peer.requests() > 0 && machine.begun("init") == 0 && !machine.has("/etc/kubernetes/pki"));
        assert_eq!(world.object(BUNDLE), None);
    }
    let gone = Peer::start(|_| refusal("NotFoundException"));
    let world = World::new();
    let machine = with_kms(&world, "m1", &gone.url(), ARN);
    run(&machine, &["run", "--once"]).expect(10).says(&["pki.kms_key_id"]);
    // Outside of EC2 an alias does not say in which region it is.
    let nowhere = with_kms(&world, "m2", &gone.url(), "alias/pki");
    nowhere.run(&["unlock", "init", "--yes", "prod"]).expect(0);
    run(&nowhere, &["run", "--once"]).expect(10).says(&["the key's whole ARN"]);
}

#[test]
fn moto_wraps_and_unwraps_the_key() {
    let Some(endpoint) = std::env::var("KUBESTRAP_TEST_S3").ok().filter(|url| !url.is_empty()) else {
        println!("skipped: KUBESTRAP_TEST_S3 is not set (cargo xtask test sets it)");
        return;
    };
    let [key, other] = [1, 2].map(|_| made_key(&endpoint));
    let world = World::new();
    let machine = with_kms(&world, "m1", &endpoint, &key);
    run(&machine, &["run", "--once"]).expect(0);
    let sealed = bundle(&world);
    assert_eq!((&sealed["key"]["kind"], &sealed["key"]["key_id"]), (&json!("kms"), &json!(key)));
    assert_eq!(sealed["ca_sha256"], world.register()["ca_sha256"]);
    run(&machine, &["pki", "status"]).expect(0).says(&[&key]);
    // A wrapped key that was changed, and one of another cluster: its encryption context is another one.
    for wrapped in [STANDARD.encode([0; 200]), "AAAA".to_owned()] {
        let mut changed = sealed.clone();
        changed["key"]["wrapped"] = json!(wrapped);
        world.put(BUNDLE, changed.to_string().as_bytes());
        run(&machine, &["pki", "status"]).expect(21).says(&["no:"]);
    }
    world.put(BUNDLE, sealed.to_string().as_bytes());
    machine.configure(&format!("pki: {{ kms_key_id: '{other}' }}\naws: {{ kms_endpoint: '{endpoint}' }}\n{QUICK}"));
    run(&machine, &["pki", "rewrap", "--yes", "prod"]).expect(0);
    assert_eq!((&bundle(&world)["key"]["key_id"], &bundle(&world)["sequence"]), (&json!(other), &json!(2)));
    run(&machine, &["pki", "status"]).expect(0).says(&[&other]);
}

/// A key in moto's KMS; its ARN.
fn made_key(endpoint: &str) -> String {
    let address = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let head = "x-amz-target: TrentService.CreateKey\r\ncontent-type: application/x-amz-json-1.1\r\n\
                authorization: AWS4-HMAC-SHA256 Credential=AKIATEST/20261122/eu-west-1/kms/aws4_request, \
                SignedHeaders=host, Signature=0\r\n";
    let answer = http::send(address, "POST /", head, "{}").1;
    let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
    answer["KeyMetadata"]["Arn"].as_str().expect("an ARN").to_owned()
}
