//! The table of bad values: each line is laid on a valid configuration and must be refused with these words.

use crate::config::settings::{IdentitySource, StoreLocation};
use crate::config::{Layer, load};
use std::path::PathBuf;
use std::time::Duration;

const BASE: &str = "\
cluster: prod
role: master
store: s3://acme-clusters/k8s
control_plane_endpoint: api.prod.example.com:6443
";

fn found(over: &str) -> Vec<String> {
    let layers = vec![Layer::document("base", BASE), Layer::document("over", over)];
    load(layers).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// What is laid on the valid configuration, and the words of the only problem.
const BAD: &[(&str, &str)] = &[
    ("cluster: Prod", "`cluster`: \"Prod\" is not a DNS label"),
    ("cluster: a.b", "is not a DNS label"),
    ("cluster: \"a\\nb\"", "is not a DNS label"),
    ("cluster: [a]", "`cluster` must be a text, not a list"),
    ("role: workr", "`role` must be one of master, worker, not the text \"workr\"; did you mean \"worker\"?"),
    ("role: Master", "did you mean \"master\"?"),
    ("store: acme-clusters", "is not a store"),
    ("store: https://acme-clusters", "is not a store"),
    ("store: s3://", "is not a bucket name"),
    ("store: s3://Acme/x", "is not a bucket name"),
    ("store: s3://a..b/x", "is not a bucket name"),
    ("store: 's3://AKIA:sec/ret@bucket/x'", "the URL contains a user"),
    ("store: s3://acme/a//b", "is not a prefix"),
    ("store: s3://acme/../b", "is not a prefix"),
    ("store: s3://acme/a b", "is not a prefix"),
    ("store: file://srv", "is not an absolute path"),
    ("store: file:///srv/../etc", "is not an absolute path"),
    ("control_plane_endpoint: api.prod.example.com", "is not host:port"),
    ("control_plane_endpoint: https://api:6443", "is not a host name"),
    ("control_plane_endpoint: api$(id):6443", "is not a host name"),
    ("control_plane_endpoint: api:0", "is not a port"),
    ("ca_pin: abc", "does not begin with sha256:"),
    ("identity: gcp", "must be one of auto, ec2, host"),
    ("kubernetes: { version: 1.36 }", "must be a text, not the number 1.36; write it in quotes"),
    ("kubernetes: { version: v1.36 }", "is not a Kubernetes version"),
    ("kubernetes: { version: v1.30.4 }", "need v1.31 or newer"),
    ("kubernetes: { pod_subnet: 10.244.0.0 }", "is not a network"),
    ("kubernetes: { pod_subnet: 10.244.0.0/33 }", "is not a network"),
    ("kubernetes: { pod_subnet: 10.244.0.0/+8 }", "is not a network"),
    ("kubernetes: { pod_subnet: 10.244.1.0/16 }", "the network is 10.244.0.0/16"),
    ("kubernetes: { pod_subnet: '10.1.0.0/16,10.2.0.0/16' }", "one of IPv4 and one of IPv6"),
    ("kubernetes: { pod_subnet: 10.0.0.0/8, service_subnet: 10.96.0.0/12 }", "overlaps the pod network"),
    ("kubernetes: { dns_domain: Cluster.Local }", "is not a DNS name"),
    ("kubernetes: { image_repository: 'a b' }", "is not a repository"),
    ("kubernetes: { cert_sans: [good.example.com, 'bad name'] }", "`kubernetes.cert_sans.1`: \"bad name\" is neither"),
    ("kubernetes: { cert_sans: good.example.com }", "must be a list, not the text"),
    ("kubernetes: { cert_sans: [~] }", "must be a text, not nothing"),
    ("node: { name: Node_1 }", "is not a DNS name"),
    ("node: { address: 127.0.0.1 }", "cannot be the address of a node"),
    ("node: { address: 10.0.0 }", "is not an IP address"),
    ("node: { labels: { 'a b': x } }", "is not a key"),
    ("node: { labels: { a: 'b c' } }", "is not a value"),
    ("node: { labels: [a] }", "must be a map, not a list"),
    ("node: { labels: { node-role.kubernetes.io/worker: '' } }", "NodeRestriction"),
    ("node: { taints: [dedicated=gpu] }", "is not a taint"),
    ("node: { taints: [dedicated=gpu:Never] }", "is not an effect"),
    ("node: { taints: [a=b:NoSchedule, { key: a, effect: NoSchedule }] }", "a second taint a:NoSchedule"),
    ("node: { taints: [3] }", "must be a text or a map, not the number 3"),
    ("node: { cri_socket: /run/containerd.sock }", "is not a socket"),
    ("node: { cloud_provider: aws }", "must be one of none, external"),
    ("kubeadm: { KubeletConfig: {} }", "did you mean \"KubeletConfiguration\"?"),
    ("kubeadm: { KubeletConfiguration: 3 }", "must be a map, not the number 3"),
    ("kubeadm: { KubeletConfiguration: { kind: x } }", "`kubeadm.KubeletConfiguration.kind` cannot be patched"),
    ("kubeadm: { InitConfiguration: { apiVersion: x } }", "cannot be patched"),
    ("kubeadm: { InitConfiguration: { bootstrapTokens: [] } }", "is a secret"),
    ("kubeadm: { InitConfiguration: { BootstrapTokens: [] } }", "is a secret"),
    ("kubeadm: { InitConfiguration: { certificateKey: x } }", "is a secret"),
    ("kubeadm: { InitConfiguration: { nodeRegistration: null } }", "is said by `node.name`"),
    ("kubeadm: { JoinConfiguration: { NodeRegistration: [] } }", "is said by `node.name`"),
    ("kubeadm: { JoinConfiguration: { controlPlane: { certificateKey: x } } }", "is a secret"),
    ("kubeadm: { JoinConfiguration: { discovery: { bootstrapToken: { token: x } } } }", "join bundle"),
    ("kubeadm: { ClusterConfiguration: { certificatesDir: /pki } }", "PKI"),
    ("kubeadm: { ClusterConfiguration: { controlPlaneEndpoint: 'a:1' } }", "`control_plane_endpoint`"),
    ("join: { wait: 5 }", "must be a text, not the number 5; write it in quotes: \"5\""),
    ("join: { wait: 1.5h }", "is not a duration"),
    ("join: { wait: 10 m }", "is not a duration"),
    ("join: { wait: 1s }", "is not between 10s and 30d"),
    ("join: { wait: 99999999999999999999h }", "is not a duration"),
    ("join: { wait: 9999999999999999999d }", "is not a duration"),
    ("join: { token_ttl: 9m59s }", "is not between 10m and 1d"),
    ("join: { token_ttl: 24h1s }", "is not between 10m and 1d"),
    ("addons: [addons/cni.yaml]", "is not an absolute path"),
    ("addons: [/etc/*/cni.yaml]", "outside of the file name"),
    ("addons: [/etc/addons]", "is not a manifest"),
    ("s3: { endpoint: s3.example.com }", "is not a base URL"),
    ("s3: { endpoint: 'user:hunter2@s3.example.com' }", "the URL contains a user"),
    ("s3: { endpoint: 'https://s3.example.com/path' }", "is not a base URL"),
    ("s3: { endpoint: 'https://key:hunter2@s3.example.com' }", "the URL contains a user"),
    ("s3: { endpoint: 'http://s3.example.com:99999' }", "the port is not"),
    ("s3: { path_style: yes }", "must be true or false, not the text \"yes\""),
    ("s3: { region: EU }", "is not a region"),
    ("s3: { expected_bucket_owner: '12345' }", "twelve digits"),
    ("s3: { expected_bucket_owner: 123456789012 }", "write it in quotes: \"123456789012\""),
    ("s3: { kms_key_id: 'a b' }", "is not a KMS key"),
    ("store: file:///srv\ns3: { region: eu-west-1 }", "`s3`: these options need a store s3://"),
    ("aws: { metadata_endpoint: 'https://169.254.169.254' }", "speaks http only"),
    ("aws: { ec2_endpoint: x }", "is not a base URL"),
    ("aws: { ecr_endpoint: 'https://api.ecr.example.com/path' }", "is not a base URL"),
    ("aws: { sts_endpoint: sts.example.com }", "is not a base URL"),
    ("ecr: { enabled: maybe }", "`ecr.enabled` must be"),
    ("ecr: { registries: [registry.example.com] }", "`ecr.registries.0`: \"registry.example.com\" is not an ECR host"),
    ("ecr: { registries: [registry.example.com] }", "another host goes to `ecr.mirrors`"),
    ("ecr: { registries: [12345678901.dkr.ecr.eu-west-1.amazonaws.com] }", "is not an ECR host"),
    ("ecr: { registries: [123456789012.dkr.ecr.eu-west-1.amazonaws.com.example.com] }", "is not an ECR host"),
    ("ecr: { registries: ['https://123456789012.dkr.ecr.eu-west-1.amazonaws.com'] }", "without https://"),
    ("ecr: { registries: [123456789012.dkr.ecr.eu-west-1.amazonaws.com/team] }", "without a path"),
    ("ecr: { registries: ['123456789012.dkr.ecr.eu-west-1.amazonaws.com:8443'] }", "no other port"),
    ("ecr: { mirrors: { 'https://m.example.com': public.ecr.aws } }", "without a scheme"),
    ("ecr: { mirrors: { m.example.com/cache: public.ecr.aws } }", "without a path"),
    ("ecr: { mirrors: { 'm.example.com:99999': public.ecr.aws } }", "the port is not"),
    ("ecr: { mirrors: { 'm.example.com:+80': public.ecr.aws } }", "the port is not"),
    ("ecr: { mirrors: { M.example.com: public.ecr.aws } }", "is not a host such as"),
    ("ecr: { mirrors: { '*.example.com': public.ecr.aws } }", "is not a host such as"),
    ("ecr: { mirrors: { mirror: public.ecr.aws } }", "is not a host such as"),
    ("ecr: { mirrors: { 'u:hunter2@m.example.com': public.ecr.aws } }", "contains a user"),
    ("ecr: { mirrors: { public.ecr.aws: public.ecr.aws } }", "a registry of ECR itself"),
    ("ecr: { mirrors: { '123456789012.dkr.ecr.eu-west-1.amazonaws.com:443': public.ecr.aws } }", "of ECR itself"),
    ("ecr: { mirrors: { docker.io: public.ecr.aws } }", "Docker Hub"),
    (
        "ecr: { mirrors: { m.example.com: registry.example.com } }",
        "`ecr.mirrors.m.example.com`: \"registry.example.com\"",
    ),
    ("ecr: { mirrors: [m.example.com] }", "must be a map"),
    ("ecr: { service_account_audience: 'a b' }", "is not an audience"),
    ("ecr: { service_account_audience: '' }", "is not an audience"),
    ("ecr: { certs_dir: certs.d }", "is not an absolute path"),
    ("images: { sandbox: pause }", "name its registry"),
    ("images: { sandbox: 'library/pause:3.10' }", "name its registry"),
    ("images: { sandbox: 'https://registry.k8s.io/pause:3.10' }", "name its registry"),
    ("images: { sandbox: registry.k8s.io/pause }", "neither a tag nor a digest"),
    ("images: { sandbox: 'registry.k8s.io/pause:3.10 --user=x' }", "its tag is"),
    ("images: { sandbox: '--user=a.b/pause:3.10' }", "name its registry"),
    (
        "images: { pull: ['registry.k8s.io/Pause:3.10'] }",
        "`images.pull.0`: \"registry.k8s.io/Pause:3.10\" is not an image",
    ),
    ("images: { pull: ['registry.k8s.io//pause:3.10'] }", "its path is"),
    ("images: { pull: ['registry.k8s.io/pause@sha256:abc'] }", "its digest is not"),
    ("images: { pull: registry.k8s.io/pause:3.10 }", "must be a list"),
    ("metrics: { textfile: /var/metrics.txt }", "must end in .prom"),
    ("metrics: { listen: '0.0.0.0:9753' }", "say `metrics: {allow_remote: true}`"),
    ("metrics: { listen: 9753 }", "must be a text"),
    ("metrics: { listen: 'localhost:9753' }", "is not address:port"),
    ("metrics: { listen: '127.0.0.1:0' }", "has no port"),
    ("report_every: 1s", "is not between 30s and 1d"),
    ("report_every: ''", "is not a duration"),
];

#[test]
fn bad_values_are_refused_with_their_place() {
    for (over, words) in BAD {
        let found = found(over);
        assert_eq!(found.len(), 1, "{over}: {found:?}");
        assert!(found[0].starts_with("over:") && found[0].contains(words), "{over}: {found:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
}

#[test]
fn a_master_needs_an_endpoint_and_a_worker_does_not() {
    let document = |role: &str| {
        load(vec![Layer::document("c", format!("cluster: prod\nrole: {role}\nstore: file:///srv/store\n"))])
    };
    let problems = document("master").expect_err("no endpoint");
    assert!(problems[0].to_string().starts_with("c:2:7: "), "{problems:?}");
    assert!(problems[0].to_string().contains("api.prod.example.com:6443"), "{problems:?}");
    let worker = document("worker").expect("valid").settings;
    assert_eq!(worker.store, StoreLocation::Folder(PathBuf::from("/srv/store")));
}

#[test]
fn settings_have_the_defaults_of_the_design() {
    let settings = load(vec![Layer::document("base", BASE)]).expect("valid").settings;
    assert_eq!(settings.identity, IdentitySource::Auto);
    assert_eq!(settings.join.wait, Duration::from_secs(3600));
    assert_eq!(settings.join.token_ttl, Duration::from_secs(3600));
    assert_eq!(settings.join.api_wait, Duration::from_secs(1800));
    assert_eq!(settings.report_every, Duration::from_secs(300));
    assert_eq!(settings.node.taints, None);
    assert!(!settings.s3.path_style);
    assert_eq!(settings.store, StoreLocation::S3 { bucket: "acme-clusters".to_owned(), prefix: "k8s".to_owned() });
}

#[test]
fn credentials_of_ecr_are_for_ec2_and_for_who_asks() {
    let ecr = |over: &str| {
        let layers = vec![Layer::document("base", BASE), Layer::document("over", over)];
        load(layers).unwrap_or_else(|found| panic!("{found:?}")).settings.ecr
    };
    let on_a_host = |over: &str| ecr(over).is_on(&crate::testing::identity("node"));
    assert!(!on_a_host("{}") && !on_a_host("ecr: { certs_dir: /etc/certs }"));
    assert!(on_a_host("ecr: { enabled: true }"));
    assert!(on_a_host("ecr: { registries: [public.ecr.aws] }"));
    assert!(!on_a_host("ecr: { enabled: false, registries: [public.ecr.aws] }"), "a later layer says no");
    let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    let said = ecr(&format!("ecr: {{ mirrors: {{ 'm.corp.example:5000': {host} }}, certs_dir: /srv/certs }}"));
    assert_eq!(said.mirrors["m.corp.example:5000"].host(), host);
    assert_eq!(said.certs_dir(), std::path::Path::new("/srv/certs"));
    assert_eq!(ecr("{}").certs_dir(), std::path::Path::new("/etc/containerd/certs.d"));
}

#[test]
fn good_values_are_taken_over() {
    let over = "\
store: s3://acme.clusters/
s3: { endpoint: 'http://[::1]:9000/' }
kubernetes: { version: 1.36.1, pod_subnet: '10.244.0.0/16,fd00:1::/56', service_subnet: 10.96.0.0/12, cert_sans: ['*.x.io', 10.0.0.1] }
node:
  address: fd00::7
  taints: ['node-role.kubernetes.io/control-plane:NoSchedule', { key: gpu, value: '1', effect: NoExecute }]
  cloud_provider: external
metrics: { listen: '0.0.0.0:9753', allow_remote: true }
join: { token_ttl: 1d, wait: 1h30m }
";
    let layers = vec![Layer::document("base", BASE), Layer::document("over", over)];
    let settings = load(layers).unwrap_or_else(|found| panic!("{found:?}")).settings;
    assert_eq!(settings.store, StoreLocation::S3 { bucket: "acme.clusters".to_owned(), prefix: String::new() });
    assert_eq!(settings.s3.endpoint.as_deref(), Some("http://[::1]:9000"));
    assert!(settings.s3.path_style, "the default with an endpoint");
    assert_eq!(settings.kubernetes.version.map(|version| version.to_string()).as_deref(), Some("v1.36.1"));
    assert_eq!(settings.kubernetes.pod_subnet.as_deref(), Some("10.244.0.0/16,fd00:1::/56"));
    assert_eq!(settings.node.taints.map(|taints| taints.len()), Some(2));
    assert_eq!(settings.join.token_ttl, Duration::from_secs(86_400));
    assert_eq!(settings.join.wait, Duration::from_secs(5_400));
    assert!(settings.metrics.listen.is_some());
}
