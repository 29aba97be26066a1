use super::*;

fn document(text: &str) -> Vec<Layer> {
    vec![Layer::document("config.yaml", text)]
}

fn problems(layers: Vec<Layer>) -> Vec<String> {
    load(layers).expect_err("problems").iter().map(ToString::to_string).collect()
}

#[test]
fn all_problems_are_reported_at_once_with_their_places() {
    let text = "\
cluster: 12
rol: worker
cluster: x
store: s3://acme-clusters//k8s
node:
  labels: { a: 1, node-role.kubernetes.io/x: '' }
  taints: [a, { key: b, efect: NoSchedule }]
join: { token_ttl: 1m }
";
    let mut layers = document(text);
    layers.push(Layer::variable("KUBESTRAP_NODE_LABELS", "a=b"));
    let expected = [
        "config.yaml:3:1: duplicate key \"cluster\"; it was first given at config.yaml:1:1; keep one of them",
        "config.yaml:1:10: `cluster` must be a text, not the number 12; write it in quotes: \"12\"",
        "config.yaml:2:1: unknown key \"rol\"; did you mean \"role\"?",
        "config.yaml:6:16: `node.labels.a` must be a text, not the number 1; write it in quotes: \"1\"",
        "config.yaml:7:25: unknown key \"efect\" in `node.taints.1`; did you mean \"effect\"?",
        "KUBESTRAP_NODE_LABELS: no key of the configuration has this name; did you mean KUBESTRAP_NODE__LABELS?",
        "config.yaml:4:8: `store`: \"/k8s\" is not a prefix: letters, digits, -, _ and . between single slashes",
        "config.yaml:6:46: `node.labels.node-role.kubernetes.io/x`: a kubelet may not set the label \
         \"node-role.kubernetes.io/x\" on its own node (NodeRestriction); set it from outside with kubectl, or use a \
         namespace of your own",
        "config.yaml:7:12: `node.taints.0`: \"a\" is not a taint key=value:Effect",
        "config.yaml:7:15: `node.taints.1`: \"\" is not an effect: NoSchedule, PreferNoSchedule or NoExecute",
        "config.yaml:8:20: `join.token_ttl`: 1m is not between 10m and 1d",
    ];
    assert_eq!(problems(layers), expected);
}

const NEEDED: &str = "cluster: prod\nrole: worker\nstore: s3://acme-clusters/k8s\n";

fn shown(layers: Vec<Layer>) -> Vec<String> {
    let effective = load(layers).unwrap_or_else(|problems| panic!("{problems:?}"));
    effective.show().iter().map(|row| format!("{}={} [{}]", row.path, row.value, row.origin)).collect()
}

#[test]
fn the_committed_schema_is_the_one_of_the_types() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.schema.json");
    let now = serde_json::to_string_pretty(&schema::generated()).expect("JSON") + "\n";
    // A test may touch the source tree; core may not.
    #[allow(clippy::disallowed_methods)]
    let committed = {
        if std::env::var("KUBESTRAP_BLESS").is_ok() {
            std::fs::write(path, &now).expect("write the schema");
        }
        std::fs::read_to_string(path).unwrap_or_default()
    };
    assert!(
        committed == now,
        "docs/config.schema.json is not what the types say; run `KUBESTRAP_BLESS=1 cargo test -p kubestrap-core schema`"
    );
}

#[test]
fn every_key_of_the_schema_is_described() {
    fn undescribed(value: &Value, path: &str, found: &mut Vec<String>) {
        for (key, below) in value.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let described = below.get("description").and_then(Value::as_str).is_some_and(|text| !text.is_empty());
            if !described {
                found.push(format!("{path}.{key}"));
            }
        }
        for (key, below) in value.get("$defs").and_then(Value::as_object).into_iter().flatten() {
            undescribed(below, key, found);
        }
    }
    let mut found = Vec::new();
    undescribed(&schema(), "", &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn shipped_examples_are_valid_and_use_a_dns_endpoint() {
    for (name, text) in [
        ("master-ec2.yaml", include_str!("../../../../examples/config/master-ec2.yaml")),
        ("masters-ec2.yaml", include_str!("../../../../examples/config/masters-ec2.yaml")),
        ("worker-ec2.yaml", include_str!("../../../../examples/config/worker-ec2.yaml")),
        ("master-baremetal.yaml", include_str!("../../../../examples/config/master-baremetal.yaml")),
        ("worker-baremetal.yaml", include_str!("../../../../examples/config/worker-baremetal.yaml")),
    ] {
        let settings = load(vec![Layer::document(name, text)]).unwrap_or_else(|found| panic!("{found:?}")).settings;
        assert!(name.starts_with(settings.role.as_str()), "{name}");
        let endpoint = settings.control_plane_endpoint.unwrap_or_else(|| panic!("{name} has no endpoint"));
        assert!(endpoint.host().parse::<std::net::IpAddr>().is_err(), "{name}: {endpoint}");
        assert!(endpoint.host().contains('.'), "{name}: {endpoint}");
    }
}

#[test]
fn later_layers_win_per_leaf_and_every_value_keeps_its_origin() {
    let layers = vec![
        Layer::document("a", format!("{NEEDED}node:\n  labels: {{ team: web, tier: one }}\n  taints: [a:NoExecute]\n")),
        Layer::document("b", "node:\n  labels: { team: db }\n  taints: []\njoin: { wait: 2h }\n"),
        Layer::document("c", "role:\nnode:\n"),
        Layer::variable("KUBESTRAP_NODE__LABELS", "disk=ssd"),
        Layer::variable("KUBESTRAP_REPORT_EVERY", "90s"),
    ];
    let rows = shown(layers);
    for row in [
        "role=worker [a:2:7]",
        "node.labels.team=db [b:2:19]",
        "node.labels.tier=one [a:5:30]",
        "node.labels.disk=ssd [KUBESTRAP_NODE__LABELS]",
        "node.taints=[] [b:3:11]",
        "join.wait=2h [b:4:15]",
        "join.token_ttl=1h [built-in defaults:3:30]",
        "report_every=90s [KUBESTRAP_REPORT_EVERY]",
    ] {
        assert!(rows.iter().any(|shown| shown == row), "{row} is not among {rows:#?}");
    }
}

#[test]
fn no_configuration_names_the_three_keys_that_are_needed() {
    for layers in [vec![], document(""), document("# nothing\n---\n"), document("node:\n")] {
        let found = problems(layers);
        assert_eq!(found.len(), 1, "{found:?}");
        for word in ["`cluster`", "`role`", "`store`", "/etc/kubestrap/config.yaml"] {
            assert!(found[0].contains(word), "{found:?}");
        }
    }
    assert_eq!(
        problems(document("cluster: prod\nrole: worker\n")),
        ["`store` is not set: s3://bucket/prefix or file:///folder"]
    );
}

#[test]
fn a_layer_that_cannot_be_read_does_not_make_its_keys_missing() {
    let found = problems(document("cluster: prod\nrole: [worker\n"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("config.yaml:") && found[0].contains("not valid YAML"), "{found:?}");
}

#[test]
fn a_patch_may_delete_and_is_shown_without_what_looks_like_a_secret() {
    let text = format!(
        "{NEEDED}kubeadm:\n  KubeletConfiguration: {{ serializeImagePulls: null, maxPods: 60 }}\n  \
         ClusterConfiguration:\n    etcd: {{ external: {{ password: hunter2, note: abcdef.0123456789abcdef }} }}\n    \
         args: [{{ name: token, secretKey: hunter2 }}]\n"
    );
    let effective = load(document(&text)).expect("valid");
    assert_eq!(
        Value::Object(effective.settings.kubeadm.kubelet.clone()),
        serde_json::json!({"serializeImagePulls": null, "maxPods": 60})
    );
    let rows = shown(document(&text)).join("\n");
    assert!(!rows.contains("hunter2") && !rows.contains("0123456789abcdef"), "{rows}");
    assert!(rows.contains("kubeadm.KubeletConfiguration.maxPods=60"), "{rows}");
}

#[test]
fn yaml_that_hides_what_it_says_is_refused() {
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n\
                c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n\
                e: [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\n";
    let deep = format!("kubeadm: {}{}", "[".repeat(200), "]".repeat(200));
    let both = format!("{}{}{}", "- ".repeat(50), "[".repeat(50), "]".repeat(50));
    // One long text, repeated by aliases of three characters; and anchors within anchors, each of which is kept.
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a,".repeat(3_000));
    let kept = (0..40).map(|level| format!("&x{level} [")).collect::<String>() + &"x".repeat(500_000) + &"]".repeat(40);
    let deeper: String = (1..40).fold("a0: &a0 [[[[[[[[]]]]]]]]\n".to_owned(), |text, n| {
        format!("{text}a{n}: &a{n} [[[[[[[[*a{}]]]]]]]]\n", n - 1)
    });
    for (text, why) in [
        (bomb, "more than 4000 values"),
        (deep.as_str(), "not valid YAML"),
        (deeper.as_str(), "more than 64 levels"),
        (both.as_str(), "more than 64 levels"),
        (long.as_str(), "more than 4194304 bytes"),
        (kept.as_str(), "more than 4194304 bytes"),
        ("a: &a [*a]\n", "alias"),
        ("a: *nothing\n", "not valid YAML"),
        ("node: { <<: { name: a } }\n", "merge keys"),
        ("cluster: !secret x\n", "tags"),
        ("cluster: a\n---\ncluster: b\n", "second YAML document"),
        ("? [a]\n: b\n", "a key must be"),
        ("node:\n\tname: a\n", "not valid YAML"),
        ("cluster: \"a\n", "not valid YAML"),
        ("- a\n", "the document must be a map, not a list"),
        ("hello", "the document must be a map, not the text"),
        ("cluster: a\u{0}b\n", "not"),
    ] {
        let found = problems(document(text));
        assert!(found.iter().any(|problem| problem.contains(why)), "{text:?}: {found:?}");
    }
}

#[test]
fn aliases_are_put_in_and_texts_are_not_made_numbers() {
    let text = "cluster: &c prod\nrole: worker\nstore: s3://acme-clusters/k8s\nnode:\n  labels: { a: *c, b: '1', c: yes, d: !!str 3 }\n";
    let labels = load(document(text)).expect("valid").settings.node.labels;
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["a=prod", "b=1", "c=yes", "d=3"]);
}

#[test]
fn user_data_is_asked_for_where_the_early_settings_say() {
    let sources = Sources {
        files: document("identity: ec2\naws: { metadata_endpoint: 'http://[fd00:ec2::254]' }\nrol: x\n"),
        user_data: vec![],
        environment: environment::layers([("KUBESTRAP_CLUSTER".to_owned(), "prod".to_owned())]),
    };
    let early = sources.early();
    assert_eq!(early.identity, settings::IdentitySource::Ec2);
    assert_eq!(early.metadata_endpoint.as_deref(), Some("http://[fd00:ec2::254]"));
    assert_eq!(Sources { files: document("identity: [\n"), ..Sources::default() }.early(), Early::default());
    let order: Vec<String> = sources.into_layers().into_iter().map(|layer| layer.name).collect();
    assert_eq!(order, ["config.yaml", "KUBESTRAP_CLUSTER"]);
}
