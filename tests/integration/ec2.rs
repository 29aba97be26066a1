//! Who a machine is on EC2, from a metadata service that is as bad as the real one can be.

use crate::http::Server;
use crate::process::{PATIENCE, finish};
use crate::world::{Machine, World};

const INSTANCE: &str = "instances: [{instance_id: i-0123456789abcdef0, account: '123456789012', region: eu-central-1, \
    availability_zone: eu-central-1b, instance_type: m7g.large, image_id: ami-0abc, private_ip: 10.0.0.7, \
    local_hostname: ip-10-0-0-7.eu-central-1.compute.internal USER_DATA}]\n";
const NAME: &str = "ip-10-0-0-7.eu-central-1.compute.internal";

fn instance(user_data: &str) -> String {
    INSTANCE.replace("USER_DATA", user_data)
}

fn worker(world: &World, imds: &Server) -> Machine {
    let store = world.path("store").display().to_string();
    let text = format!(
        "cluster: prod\nrole: worker\nstore: file://{store}\nidentity: ec2\naws: {{ metadata_endpoint: '{}', ecr_endpoint: 'http://127.0.0.1:9' }}\n",
        imds.url()
    );
    world.bare_machine("i-0123456789abcdef0", &text)
}

/// A worker joins whatever the metadata service does at first, and is what the instance is.
fn joins_in_spite_of(faults: &str) {
    let (world, master) = World::established();
    let imds = Server::imds(&world, &format!("{}{faults}", instance("")));
    let worker = worker(&world, &imds);
    worker.run(&["run", "--once"]).expect(0);
    let node = master.node(NAME);
    assert_eq!(node["spec"]["providerID"], "aws:///eu-central-1b/i-0123456789abcdef0");
    for (label, value) in [
        ("topology.kubernetes.io/region", "eu-central-1"),
        ("topology.kubernetes.io/zone", "eu-central-1b"),
        ("node.kubernetes.io/instance-type", "m7g.large"),
    ] {
        assert_eq!(node["metadata"]["labels"][label], value, "{label}");
    }
    let arn = "arn:aws:ec2:eu-central-1:123456789012:instance/i-0123456789abcdef0";
    let report = world.object(&format!("nodes/{arn}/report.json")).expect("a report under the instance's ARN");
    assert_eq!(report["identity"]["node_name"], NAME);
}

#[test]
fn a_node_is_what_its_instance_is() {
    joins_in_spite_of("");
}

#[test]
fn a_metadata_service_that_is_late_is_waited_for() {
    joins_in_spite_of("late_seconds: 2\n");
}

#[test]
fn answers_401_and_500_are_asked_again() {
    joins_in_spite_of(
        "faults: [{path: api/token, status: 500, times: 2}, {path: instance-identity, status: 401, times: 2}, \
         {path: local-hostname, status: 404, times: 1}]\n",
    );
}

#[test]
fn garbage_is_refused_and_the_next_start_is_not_hurt() {
    for path in ["local-hostname", "instance-identity"] {
        let (world, master) = World::established();
        let faults = format!("faults: [{{path: {path}, garbage: true, times: 1}}]\n");
        let imds = Server::imds(&world, &format!("{}{faults}", instance("")));
        let worker = worker(&world, &imds);
        // 12 is what systemd starts again.
        worker.run(&["run", "--once"]).expect(12).says(&["metadata-unavailable", path]);
        assert!(worker.events().is_empty());
        worker.run(&["run", "--once"]).expect(0);
        assert_eq!(master.node(NAME)["spec"]["providerID"], "aws:///eu-central-1b/i-0123456789abcdef0");
    }
}

#[test]
fn a_metadata_service_that_stays_bad_is_named_while_it_is_waited_for() {
    let world = World::new();
    let imds = Server::imds(&world, &format!("{}faults: [{{path: '', status: 500}}]\n", instance("")));
    let worker = worker(&world, &imds);
    let mut agent = worker.start(&["run"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(agent.runs(), "it gave up at once:\n{}", agent.log());
    let asked = std::time::Instant::now();
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    assert!(asked.elapsed() < std::time::Duration::from_secs(5), "stopping took {:?}", asked.elapsed());
}

#[test]
fn user_data_is_a_layer_of_the_configuration() {
    let (world, master) = World::established();
    let mime = "MIME-Version: 1.0\\r\\nContent-Type: multipart/mixed; boundary=x\\r\\n\\r\\n--x\\r\\n\
                Content-Type: text/x-shellscript\\r\\n\\r\\n#!/bin/sh\\ntrue\\r\\n--x\\r\\n\
                Content-Type: application/x-kubestrap+yaml\\r\\n\\r\\nnode: {labels: {team: data}}\\r\\n--x--\\r\\n";
    let imds = Server::imds(&world, &instance(&format!(", user_data: \"{mime}\"")));
    let worker = worker(&world, &imds);
    worker.run(&["run", "--once"]).expect(0);
    assert_eq!(master.node(NAME)["metadata"]["labels"]["team"], "data");
    worker.run(&["config", "show"]).expect(0).says(&["node.labels.team", "user-data"]);
}

#[test]
fn user_data_of_ours_with_an_unknown_key_is_refused_with_its_place_and_other_peoples_is_left_alone() {
    let wrong = "node: {lables: {a: b}}";
    for (first_line, code) in
        [("#kubestrap", 10), ("cluster: prod\\nrole: worker", 10), ("#cloud-config", 0), ("a: b", 0)]
    {
        let world = World::new();
        let text = format!(", user_data: \"{first_line}\\n{wrong}\\n\"");
        let imds = Server::imds(&world, &instance(&text));
        let worker = worker(&world, &imds);
        let checked = finish(&mut worker.command(&["config", "check"])).expect(code);
        if code == 10 {
            checked.says(&["user-data:", "lables", "labels"]);
        }
    }
}
