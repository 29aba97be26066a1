//! `KUBESTRAP_*` variables: `KUBESTRAP_JOIN__WAIT=2h` says `join: {wait: 2h}`.
//!
//! The name is the path of the key in capitals, levels joined by `__`. The value is read as YAML; where a text is
//! expected it is taken as it is, and where a map of texts is expected `k=v,k2=v2` will do too.

use super::fragment::{self, Layer};
use super::problem::{Place, Problem};
use super::schema::{Shape, nearest};
use super::tree::{Entry, Kind, Node, Scalar};
use serde_json::Value;

/// What the names of our variables begin with.
pub const PREFIX: &str = "KUBESTRAP_";

/// Variables with our prefix that are not configuration: the root folder, the log filter, and the test benches' own.
fn is_foreign(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).unwrap_or_default();
    matches!(rest, "ROOT" | "LOG" | "BLESS") || rest.starts_with("TEST_") || rest.starts_with("LAB_")
}

/// The layers of an environment, in the order of their names; one a variable.
pub fn layers(environment: impl IntoIterator<Item = (String, String)>) -> Vec<Layer> {
    let ours = |(name, _): &(String, String)| name.starts_with(PREFIX) && !is_foreign(name);
    let mut layers: Vec<Layer> =
        environment.into_iter().filter(ours).map(|(name, value)| Layer::variable(name, value)).collect();
    // A variable for a whole map (KUBESTRAP_JOIN) sorts before those for its keys (KUBESTRAP_JOIN__WAIT).
    layers.sort_by(|a, b| a.name.cmp(&b.name));
    layers
}

/// The tree one variable stands for.
pub fn parse(name: &str, value: &str, root: &Value) -> (Option<Node>, Vec<Problem>) {
    let place = Place::whole(name);
    let (path, shape) = match resolve(name, Shape::of(root)) {
        Ok(found) => found,
        Err(problem) => return (None, vec![problem]),
    };
    let leaf = match pairs(value, shape, &place) {
        Some(map) => map,
        None if shape.is_text() => text(value, &place),
        None => match fragment::parse(name, value) {
            (Some(node), problems) if problems.is_empty() => placed(node, &place),
            (_, problems) => {
                let at_variable = |problem: Problem| Problem { place: Some(place.clone()), ..problem };
                return (None, problems.into_iter().map(at_variable).collect());
            }
        },
    };
    let wrap =
        |node, key: &String| Kind::Map(vec![Entry { key: key.clone(), place: place.clone(), node }]).at(place.clone());
    (Some(path.iter().rev().fold(leaf, wrap)), Vec::new())
}

fn resolve<'s>(name: &str, mut shape: Shape<'s>) -> Result<(Vec<String>, Shape<'s>), Problem> {
    let place = Place::whole(name);
    let mut path: Vec<String> = Vec::new();
    for segment in name.strip_prefix(PREFIX).unwrap_or(name).split("__") {
        let found = shape.keys().into_iter().find(|key| key.eq_ignore_ascii_case(segment));
        let Some((key, below)) = found.and_then(|key| Some((key, shape.key(key)?))) else {
            return Err(unknown(name, &place, &path, shape));
        };
        path.push(key.to_owned());
        shape = below;
    }
    Ok((path, shape))
}

fn unknown(name: &str, place: &Place, path: &[String], shape: Shape<'_>) -> Problem {
    let problem = Problem::at(place, "no key of the configuration has this name");
    if shape.keys().is_empty() && !path.is_empty() {
        let parent = variable(path);
        return problem.suggest(format!("give the whole of `{}` as YAML in {parent}", path.join(".")));
    }
    let known = variables(Shape::of_root(shape), &mut Vec::new());
    // Compared without the prefix, which would make every name alike.
    let known: Vec<&str> = known.iter().filter_map(|name| name.strip_prefix(PREFIX)).collect();
    match nearest(name.strip_prefix(PREFIX).unwrap_or(name), &known) {
        Some(near) => problem.suggest(format!("did you mean {PREFIX}{near}?")),
        None => problem.suggest("levels are joined by two underscores, as in KUBESTRAP_JOIN__WAIT"),
    }
}

fn variable(path: &[String]) -> String {
    format!("{PREFIX}{}", path.join("__").to_ascii_uppercase())
}

fn variables(shape: Shape<'_>, path: &mut Vec<String>) -> Vec<String> {
    let mut all = Vec::new();
    for key in shape.keys() {
        path.push(key.to_owned());
        all.push(variable(path));
        if let Some(below) = shape.key(key) {
            // Lists of maps (taints) have keys too, but no variables of their own.
            if !below.is_list() {
                all.extend(variables(below, path));
            }
        }
        path.pop();
    }
    all
}

fn text(value: &str, place: &Place) -> Node {
    Kind::Scalar(Scalar { value: Value::String(value.to_owned()), raw: value.to_owned() }).at(place.clone())
}

/// `k=v,k2=v2`, where a map of texts is expected and the value does not look like YAML's own form.
fn pairs(value: &str, shape: Shape<'_>, place: &Place) -> Option<Node> {
    if !shape.is_text_map() || value.trim_start().starts_with('{') {
        return None;
    }
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        Some(Entry { key: key.trim().to_owned(), place: place.clone(), node: text(value.trim(), place) })
    };
    let entries: Option<Vec<Entry>> = value.split(',').map(pair).collect();
    entries.map(|entries| Kind::Map(entries).at(place.clone()))
}

/// The same tree, every place being the variable: its value has no lines.
fn placed(node: Node, place: &Place) -> Node {
    let kind = match node.kind {
        Kind::Scalar(scalar) => Kind::Scalar(scalar),
        Kind::List(items) => Kind::List(items.into_iter().map(|item| placed(item, place)).collect()),
        Kind::Map(entries) => {
            let entry = |entry: Entry| Entry { place: place.clone(), node: placed(entry.node, place), ..entry };
            Kind::Map(entries.into_iter().map(entry).collect())
        }
    };
    kind.at(place.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::schema;
    use serde_json::json;

    fn tree(name: &str, value: &str) -> Value {
        let (node, problems) = parse(name, value, &schema());
        assert_eq!(problems, [], "{name}={value}");
        node.expect(name).to_json()
    }

    #[test]
    fn names_are_paths_and_values_are_yaml() {
        assert_eq!(tree("KUBESTRAP_CLUSTER", "prod"), json!({"cluster": "prod"}));
        assert_eq!(tree("KUBESTRAP_CLUSTER", "123"), json!({"cluster": "123"}));
        assert_eq!(tree("KUBESTRAP_JOIN__WAIT", "2h"), json!({"join": {"wait": "2h"}}));
        assert_eq!(tree("KUBESTRAP_S3__PATH_STYLE", "true"), json!({"s3": {"path_style": true}}));
        assert_eq!(tree("KUBESTRAP_ADDONS", "[/a.yaml, /b.yaml]"), json!({"addons": ["/a.yaml", "/b.yaml"]}));
        let labels = json!({"node": {"labels": {"team": "web", "gpu": "true"}}});
        assert_eq!(tree("KUBESTRAP_NODE__LABELS", "team=web, gpu=true"), labels);
        assert_eq!(tree("KUBESTRAP_NODE__LABELS", "{team: web, gpu: 'true'}"), labels);
        let patch = json!({"kubeadm": {"KubeletConfiguration": {"maxPods": 50}}});
        assert_eq!(tree("KUBESTRAP_KUBEADM__KUBELETCONFIGURATION", "{maxPods: 50}"), patch);
    }

    #[test]
    fn unknown_names_are_problems_with_a_suggestion() {
        for (name, hint) in [
            ("KUBESTRAP_CLUSTR", "did you mean KUBESTRAP_CLUSTER?"),
            ("KUBESTRAP_NODE_LABELS", "did you mean KUBESTRAP_NODE__LABELS?"),
            ("KUBESTRAP_JOIN__WAITS", "did you mean KUBESTRAP_JOIN__WAIT?"),
            ("KUBESTRAP_CLUSTER__NAME", "in KUBESTRAP_CLUSTER"),
            ("KUBESTRAP_", "two underscores"),
        ] {
            let (node, problems) = parse(name, "x", &schema());
            assert_eq!(node, None, "{name}");
            let shown = problems[0].to_string();
            assert!(shown.starts_with(&format!("{name}: ")) && shown.contains(hint), "{shown}");
        }
    }

    #[test]
    fn a_broken_value_names_the_variable() {
        let (_, problems) = parse("KUBESTRAP_ADDONS", "[a", &schema());
        assert!(problems[0].to_string().starts_with("KUBESTRAP_ADDONS: not valid YAML"), "{problems:?}");
    }

    #[test]
    fn only_our_variables_become_layers() {
        let pairs = [
            "PATH",
            "KUBESTRAP_ROOT",
            "KUBESTRAP_LOG",
            "KUBESTRAP_TEST_X",
            "KUBESTRAP_LAB_Y",
            "KUBESTRAP_ROLE",
            "KUBESTRAP_CLUSTER",
        ];
        let names: Vec<String> =
            layers(pairs.map(|name| (name.to_owned(), "x".to_owned()))).into_iter().map(|layer| layer.name).collect();
        assert_eq!(names, ["KUBESTRAP_CLUSTER", "KUBESTRAP_ROLE"]);
    }
}
