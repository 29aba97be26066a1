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
