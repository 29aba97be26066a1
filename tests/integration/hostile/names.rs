//! Names that lead elsewhere: of clusters, stores, folders, nodes, endpoints. All come from a configuration (or
//! user-data), and none may become a path, a host or a flag that it does not look like.

use super::{Attacker, Case, Ends, Scene};

const GOOD: &str =
    "cluster: prod\nrole: worker\nstore: file:///srv/store\nidentity: host\nnode: { address: 192.0.2.10 }\n";

/// Whoever fills in a template with somebody else's words.
pub const ATTACKER: Attacker =
    Attacker { who: "who chooses names in the configuration", scene: Scene::bare, cases: CASES };

/// The good configuration with one line more or another.
fn with(scene: &Scene, key: &str, line: &str) {
    let mut lines: Vec<&str> = GOOD.lines().filter(|line| !line.starts_with(key)).collect();
    lines.push(line);
    scene.victim.write("/etc/kubestrap/config.yaml", &format!("{}\n", lines.join("\n")));
}

macro_rules! names {
    ($($what:literal, $key:literal, $line:literal, $said:expr;)*) => {
        &[$(Case {
            name: $what,
            prepare: |scene| with(scene, $key, $line),
            answer: Ends(10),
            cause: "configuration",
            says: &["config.yaml:", $said],
        }),*]
    };
}

const CASES: &[Case] = names![
    "a cluster that climbs: ../../etc", "cluster:", "cluster: ../../etc", "is not a DNS label";
    "a cluster that climbs in disguise: %2e%2e", "cluster:", "cluster: '%2e%2e'", "is not a DNS label";
    "a cluster that is the folder itself: .", "cluster:", "cluster: .", "is not a DNS label";
    "a cluster that is absolute: /etc", "cluster:", "cluster: /etc", "is not a DNS label";
    "a cluster without a name", "cluster:", "cluster: ''", "is not a DNS label";
    "a cluster that is a flag: --force", "cluster:", "cluster: '--force'", "is not a DNS label";
    "a cluster of two lines", "cluster:", "cluster: \"prod\\nrole: master\"", "is not a DNS label";
    "a prefix that climbs", "store:", "store: s3://bucket/../../etc", "is not a prefix";
    "a prefix that climbs in disguise", "store:", "store: s3://bucket/%2e%2e/etc", "is not a prefix";
    "a prefix with an empty part", "store:", "store: s3://bucket//etc", "is not a prefix";
    "a prefix that is a point", "store:", "store: s3://bucket/./k8s", "is not a prefix";
    "a bucket that is another host", "store:", "store: s3://evil.example.com@bucket/k8s", "the URL contains a user";
    "a bucket that climbs", "store:", "store: s3://../k8s", "is not a bucket name";
    "a folder that climbs", "store:", "store: file:///srv/../etc", "is not an absolute path without ..";
    "a folder that is relative", "store:", "store: file://srv/store", "is not an absolute path";
    "a folder with a terminal's escape", "store:", "store: \"file:///srv/\\e[31m\"", "is not an absolute path";
    "a store of another kind", "store:", "store: https://evil.example.com/k8s", "is not a store";
    "a node that climbs", "node:", "node: { name: ../../etc/passwd, address: 192.0.2.10 }", "is not a DNS name";
    "a node that is a flag", "node:", "node: { name: '--kubeconfig', address: 192.0.2.10 }", "is not a DNS name";
    "a node of two lines", "node:", "node: { name: \"w1\\nw2\", address: 192.0.2.10 }", "is not a DNS name";
    "a label that adds labels", "node:", "node: { address: 192.0.2.10, labels: { a: 'b,node-role.kubernetes.io/master=' } }", "is not a value";
    "a label that the kubelet may not set", "node:", "node: { address: 192.0.2.10, labels: { node-restriction.kubernetes.io/x: y } }", "NodeRestriction";
    "a taint that adds a flag", "node:", "node: { address: 192.0.2.10, taints: [{ key: 'a --v=9', effect: NoSchedule }] }", "is not a key";
    "an endpoint that is a command", "control_plane_endpoint:", "control_plane_endpoint: '$(reboot):6443'", "is not a host name or address";
    "an endpoint that is a URL", "control_plane_endpoint:", "control_plane_endpoint: 'https://api:6443'", "is not";
    "a metadata service with a user", "aws:", "aws: { metadata_endpoint: 'http://169.254.169.254@evil.example.com' }", "contains a user";
    "a metadata service with a path", "aws:", "aws: { metadata_endpoint: 'http://169.254.169.254/../evil' }", "is not a base URL";
    "an S3 server with another scheme", "s3:", "s3: { endpoint: 'file:///etc/passwd' }", "is not a base URL";
    "an S3 server with a query", "s3:", "s3: { endpoint: 'https://s3.example.com?x=' }", "is not a base URL";
    "a region that is another host", "s3:", "s3: { region: 'eu-west-1.evil.example.com#' }", "is not a region";
    "a key of another service", "s3:", "s3: { kms_key_id: \"alias/x\\r\\nx-amz-acl: public-read\" }", "is not a KMS key";
    "an addon that climbs", "addons:", "addons: [ /etc/kubestrap/../../root/*.yaml ]", "is not an absolute path without ..";
    "an addon of every folder", "addons:", "addons: [ '/*/*.yaml' ]", "has a * outside of the file name";
    "a textfile that is something else", "metrics:", "metrics: { textfile: /etc/cron.d/x }", "must end in .prom";
    "metrics for everybody", "metrics:", "metrics: { listen: '0.0.0.0:9753' }", "can be reached by other machines";
];

#[test]
fn names_do_not_lead_elsewhere() {
    super::withstands(&ATTACKER);
}

#[test]
fn a_name_in_the_environment_is_judged_like_one_in_a_file() {
    let mut scene = Scene::bare();
    scene.victim.write("/etc/kubestrap/config.yaml", GOOD);
    scene.environment("KUBESTRAP_CLUSTER", "../../etc");
    let said = crate::process::finish(&mut scene.command()).expect(10).said();
    assert!(said.contains("KUBESTRAP_CLUSTER") && said.contains("is not a DNS label"), "{said}");
}
