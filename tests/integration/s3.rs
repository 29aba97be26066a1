//! An S3 that refuses, is elsewhere, or loses answers: one init all the same, and causes that are named.

use crate::http::Server;
use crate::process::{Agent, Finished, PATIENCE, finish};
use crate::world::{Machine, World};
use serde_json::Value;
use std::process::Command;

const SECRET_KEY: &str = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00";

fn machine(world: &World, stub: &Server, role: &str, name: &str, bucket: &str) -> Machine {
    let port = world.port;
    let more = match role {
        "master" => format!(
            "control_plane_endpoint: 127.0.0.1:{port}\nkubeadm: {{ InitConfiguration: {{ localAPIEndpoint: \
             {{ advertiseAddress: 127.0.0.1, bindPort: {port} }} }} }}\n"
        ),
        _ => String::new(),
    };
    let text = format!(
        "cluster: prod\nrole: {role}\nstore: s3://{bucket}/k8s\ns3: {{ endpoint: '{}', region: eu-central-1 }}\n\
         identity: host\nnode: {{ name: {name}, address: 192.0.2.10 }}\n{more}",
        stub.url()
    );
    world.bare_machine(name, &text)
}

/// The program with credentials.
fn command(machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = machine.command(arguments);
    command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

fn run(machine: &Machine) -> Finished {
    finish(&mut command(machine, &["run", "--once"]))
}

fn object(stub: &Server, key: &str) -> Value {
    let (status, body) = stub.request(&format!("GET /bucket/k8s/prod/{key}"));
    assert_eq!(status, 200, "{key}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{key}: {error}: {body}"))
}

/// A master comes up over a store with these faults, exactly once, and a worker joins it.
fn comes_up_once(script: &str) -> String {
    let world = World::new();
    let stub = Server::s3(&world, script);
    let master = machine(&world, &stub, "master", "m1", "bucket");
    let said = run(&master).expect(0).said();
    assert_eq!((master.begun("init"), master.begun("reset")), (1, 0), "{script}\n{said}");
    let (register, bundle) = (object(&stub, "cluster.json"), object(&stub, "join/worker.json"));
    assert_eq!(register["state"], "established");
    assert_eq!((&bundle["uid"], &bundle["ca_sha256"]), (&register["uid"], &register["ca_sha256"]));
    let worker = machine(&world, &stub, "worker", "w1", "bucket");
    run(&worker).expect(0);
    assert_eq!(master.node("w1")["metadata"]["name"], "w1");
    assert!(!said.contains(SECRET_KEY), "the secret key is in the log");
    said
}

#[test]
fn a_cluster_comes_up_over_s3() {
    comes_up_once("{}");
}

#[test]
fn slow_down_and_internal_errors_are_waited_out() {
    let said = comes_up_once(
        "faults: [{action: slow_down, times: 12}, {method: PUT, key: cluster.json, action: internal_error, times: 1}, \
         {method: PUT, key: worker.json, action: conflict, times: 1}]",
    );
    assert!(said.contains("throttled") || said.contains("store-unavailable"), "{said}");
}

#[test]
fn lost_answers_of_the_register_are_settled_by_reading_back() {
    for action in ["lost_answer", "done_but_error", "lost_request"] {
        comes_up_once(&format!(
            "faults: [{{method: PUT, key: cluster.json, action: {action}, times: 1}}, \
             {{method: PUT, key: cluster.json, action: {action}, after: 1, times: 1}}, \
             {{method: PUT, key: worker.json, action: {action}, times: 1}}]"
        ));
    }
}

#[test]
fn a_claim_that_lands_late_is_recognised_as_ours() {
    comes_up_once("faults: [{method: PUT, key: cluster.json, action: late_write, seconds: 0.5, times: 1}]");
}

#[test]
fn without_the_right_to_list_a_missing_key_is_forbidden_and_a_worker_waits_through_it() {
    let world = World::new();
    let stub = Server::s3(&world, "list_allowed: false");
    let worker = machine(&world, &stub, "worker", "w1", "bucket");
    let mut waiting = Agent::start(&mut command(&worker, &["run", "--once"]));
    waiting.until_logged("access-denied");
    waiting.until_logged("join/worker.json");
    assert!(worker.events().is_empty());
    // A master may list; it has another role in IAM, and here another stub cannot share the bucket: it is put there.
    let elsewhere = World::established();
    for key in ["cluster.json", "join/worker.json"] {
        let body = elsewhere.0.object(key).expect("object").to_string();
        put(&stub, key, &body);
    }
    waiting.finished(PATIENCE).expect(0);
    assert_eq!(elsewhere.1.node("w1")["metadata"]["name"], "w1");
}

fn put(stub: &Server, key: &str, body: &str) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(stub.address).expect("connect");
    let length = body.len();
    let head =
        format!("PUT /bucket/k8s/prod/{key} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}");
    write!(stream, "{head}\r\n\r\n{body}").expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_cluster_is_not_retired_when_the_store_does_not_say_where_it_lives() {
    let (living, _master) = World::established();
    let world = World::new();
    let stub = Server::s3(&world, "faults: [{method: GET, key: worker.json, action: internal_error, times: 1}]");
    for key in ["cluster.json", "join/worker.json"] {
        put(&stub, key, &living.object(key).expect("object").to_string());
    }
    // A worker's configuration does not name the endpoint: it is read from the bundle.
    let worker = machine(&world, &stub, "worker", "w1", "bucket");
    let retire = || finish(&mut command(&worker, &["cluster", "retire", "--yes", "prod"]));
    retire().expect(12).says(&["store-unavailable", "join/worker.json"]);
    retire().expect(11).says(&["still answers"]);
    assert_eq!(object(&stub, "cluster.json")["state"], "established");
}

#[test]
fn a_bucket_that_does_not_exist_is_a_wrong_configuration() {
    let world = World::new();
    let stub = Server::s3(&world, "{}");
    for role in ["master", "worker"] {
        let machine = machine(&world, &stub, role, role, "other-bucket");
        run(&machine).expect(10).says(&["bucket-missing", "other-bucket", "create the bucket"]);
        assert!(machine.events().is_empty());
    }
}

#[test]
fn denied_access_is_named_with_the_key_and_nothing_is_initialised() {
    let world = World::new();
    let stub = Server::s3(&world, "faults: [{key: cluster.json, action: access_denied}]");
    let master = machine(&world, &stub, "master", "m1", "bucket");
    let mut agent = Agent::start(&mut command(&master, &["run"]));
    agent.until_logged("access-denied");
    agent.until_logged("cluster.json");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(agent.runs(), "it is waited for a policy that is being attached:\n{}", agent.log());
    assert!(master.events().is_empty());
    let judged = finish(&mut command(&master, &["doctor"]));
    judged.expect(21).says(&["access-denied"]);
}

#[test]
fn a_bucket_in_another_region_is_named() {
    let world = World::new();
    let stub = Server::s3(&world, "faults: [{key: '', action: wrong_region}]");
    let master = machine(&world, &stub, "master", "m1", "bucket");
    let mut agent = Agent::start(&mut command(&master, &["run", "--once"]));
    agent.until_logged("region");
    assert!(master.events().is_empty());
}

#[test]
fn a_bucket_of_another_owner_is_refused_when_the_owner_is_configured() {
    let world = World::new();
    let stub = Server::s3(&world, "owner: '123456789012'");
    let master = machine(&world, &stub, "master", "m1", "bucket");
    master.configure("s3: { expected_bucket_owner: '999999999999' }\n");
    let mut agent = Agent::start(&mut command(&master, &["run", "--once"]));
    agent.until_logged("access-denied");
    assert!(master.events().is_empty());
    drop(agent);
    master.configure("s3: { expected_bucket_owner: '123456789012' }\n");
    run(&master).expect(0);
}

#[test]
fn no_credentials_are_named_and_waited_for() {
    let world = World::new();
    let stub = Server::s3(&world, "{}");
    let worker = machine(&world, &stub, "worker", "w1", "bucket");
    let mut bare = worker.command(&["run"]);
    bare.env("AWS_EC2_METADATA_DISABLED", "true");
    let mut agent = Agent::start(&mut bare);
    agent.until_logged("no-credentials");
    assert!(agent.runs());
}

#[test]
fn bodies_without_an_end_and_garbage_are_refused_in_bounded_memory() {
    let world = World::new();
    let script = "faults: [{method: GET, key: worker.json, action: endless, times: 2}, \
                  {method: GET, key: worker.json, action: garbage, times: 2}]";
    let stub = Server::s3(&world, script);
    let worker = machine(&world, &stub, "worker", "w1", "bucket");
    let mut agent = Agent::start(&mut command(&worker, &["run", "--once"]));
    agent.until_logged("object-rejected");
    agent.until_logged("no master has published one yet");
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("status");
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
    assert!(peak.is_some_and(|kib| kib < 100 * 1024), "{peak:?} KiB");
    assert!(worker.events().is_empty());
}
