//! Which image a node should run, asked of moto by the real program: every source, and every way in which one is wrong.

use super::cloud::{Cloud, IMAGE, NEWER};
use super::machines::{Node, Principal, policy};
use crate::world::World;
use serde_json::Value;

/// A worker that may do everything that a source takes, on the first of these instances.
fn worker(cloud: &Cloud, world: &World, instance: &str) -> Node {
    // moto looks at resources of S3 alone: what is allowed on some would be refused. So nothing is enforced here.
    let policies = [policy("worker", "prod", instance, None), policy("optional/drift", "prod", instance, None)];
    Principal::new(cloud, "drifter", "prod", instance, &policies).node(world, "worker", "w1")
}

fn answer(node: &Node, source: &str, code: i32) -> Value {
    let said = node.drift(source).expect(code);
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {}", said.said()))
}

#[test]
fn every_source_names_the_image_that_a_node_should_run() {
    let Some(cloud) = Cloud::start() else { return };
    let instance = cloud.instances(1).remove(0);
    cloud.parameter("/kubestrap/prod/image", NEWER);
    cloud.template("plain", NEWER);
    cloud.template("indirect", "resolve:ssm:/kubestrap/prod/image");
    cloud.group("web", "indirect", &instance);
    let world = World::new();
    let node = worker(&cloud, &world, &instance);
    let sources = [
        format!("{{ ami: {NEWER} }}"),
        "{ ssm_parameter: /kubestrap/prod/image }".to_owned(),
        "{ newest: { owners: ['099720109477'], name: 'ubuntu/images/hvm-ssd/ubuntu-trusty-14.04-amd64-*' } }"
            .to_owned(),
        "{ launch_template: { name: plain } }".to_owned(),
        "{ launch_template: { name: indirect, version: $Latest } }".to_owned(),
        "{ auto_scaling_group: true }".to_owned(),
    ];
    for source in sources {
        let found = answer(&node, &source, 20);
        assert_eq!((&found["verdict"], &found["image"]["desired"]), (&"drifted".into(), &NEWER.into()), "{source}");
        assert_eq!(found["image"]["running"], IMAGE);
    }
    assert_eq!(answer(&node, &format!("{{ ami: {IMAGE} }}"), 0)["verdict"], "current");
}

#[test]
fn a_source_that_is_wrong_is_an_error_of_its_own_and_never_drift() {
    let Some(cloud) = Cloud::start() else { return };
    let instance = cloud.instances(1).remove(0);
    let foreign = cloud.foreign_image("foreign");
    cloud.parameter("/kubestrap/prod/foreign", &foreign);
    cloud.parameter("/kubestrap/prod/secret", "hunter2");
    cloud.template("missing", "ami-00000000000000000");
    let world = World::new();
    let node = worker(&cloud, &world, &instance);
    let table = [
        ("{ ssm_parameter: /kubestrap/prod/none }", "there is no parameter /kubestrap/prod/none"),
        // moto says of a registered image no architecture at all.
        ("{ ssm_parameter: /kubestrap/prod/foreign }", "and this machine is x86_64"),
        ("{ ssm_parameter: /kubestrap/prod/secret }", "it is not an image's id"),
        ("{ newest: { owners: [self], name: nobody-* } }", "there is none"),
        ("{ launch_template: { name: missing } }", "ami-00000000000000000 does not exist"),
        ("{ launch_template: { name: of-nobody } }", "no such template or version"),
        ("{ auto_scaling_group: true }", "is in no Auto Scaling group"),
    ];
    for (source, why) in table {
        let said = node.drift(source).expect(10).says(&["image-source", why, "unknown"]);
        assert!(!said.said().contains("hunter2"), "{}", said.said());
    }
}
