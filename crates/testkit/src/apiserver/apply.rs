//! Merge patches (RFC 7386) and server-side apply.

use super::state::State;
use serde_json::{Map, Value};

/// Applies a merge patch.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(map) = target {
        for (key, value) in patch {
            if value.is_null() {
                map.remove(key);
            } else {
                merge(map.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

/// A conflict: who owns which field.
pub(super) struct Conflict {
    /// The other manager.
    pub manager: String,
    /// The field, as a JSON pointer.
    pub field: String,
}

/// Server-side apply: merges what `manager` wants into what is there, removes what it wanted before and does not any
/// more, and tells conflicts unless forced. Lists are atomic, which is stricter than the real one: two managers of one
/// list conflict.
pub(super) fn apply(
    state: &mut State,
    path: &str,
    manager: &str,
    wanted: &Value,
    force: bool,
) -> Result<Value, Vec<Conflict>> {
    let mut live = state.objects.get(path).cloned().unwrap_or(Value::Object(Map::new()));
    let mut leaves = Vec::new();
    collect(wanted, "", &mut leaves);
    let owners = state.managers.entry(path.to_owned()).or_default();
    let mut conflicts = Vec::new();
    for (other, owned) in owners.iter().filter(|(other, _)| *other != manager) {
        for leaf in &leaves {
            if owned.contains(leaf) && live.pointer(leaf) != wanted.pointer(leaf) {
                conflicts.push(Conflict { manager: other.clone(), field: leaf.clone() });
            }
        }
    }
    if !conflicts.is_empty() && !force {
        return Err(conflicts);
    }
    if force {
        for (_, owned) in owners.iter_mut().filter(|(other, _)| *other != manager) {
            owned.retain(|leaf| !conflicts.iter().any(|conflict| conflict.field == *leaf));
        }
    }
    let before = owners.insert(manager.to_owned(), leaves.clone()).unwrap_or_default();
    for gone in before.iter().filter(|leaf| !leaves.contains(leaf)) {
        if !owners.iter().any(|(other, owned)| other != manager && owned.contains(gone)) {
            remove(&mut live, gone);
        }
    }
    overlay(&mut live, wanted);
    Ok(live)
}

/// The leaves of a configuration; what identifies the object is nobody's field.
fn collect(value: &Value, path: &str, leaves: &mut Vec<String>) {
    if ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"].contains(&path) {
        return;
    }
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, inner) in map {
                collect(inner, &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), leaves);
            }
        }
        _ => leaves.push(path.to_owned()),
    }
}

fn overlay(live: &mut Value, wanted: &Value) {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            for (key, value) in wanted {
                overlay(live.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (live, wanted) => *live = wanted.clone(),
    }
}

fn remove(object: &mut Value, pointer: &str) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    if let Some(Value::Object(map)) = object.pointer_mut(parent) {
        map.remove(&key.replace("~1", "/").replace("~0", "~"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merge_patches_follow_the_rfc() {
        let mut target = json!({"a": "b", "c": {"d": "e", "f": "g"}, "l": [1, 2]});
        merge(&mut target, &json!({"a": "z", "c": {"f": null}, "l": [3], "n": {"x": null, "y": 1}}));
        assert_eq!(target, json!({"a": "z", "c": {"d": "e"}, "l": [3], "n": {"y": 1}}));
    }

    #[test]
    fn apply_owns_removes_and_conflicts() {
        let mut state = State::default();
        let path = "/api/v1/namespaces/x/configmaps/y";
        let mut run = |manager: &str, data: Value, force: bool| {
            let wanted = json!({"kind": "ConfigMap", "metadata": {"name": "y"}, "data": data});
            let done = apply(&mut state, path, manager, &wanted, force)
                .map_err(|conflicts| conflicts.into_iter().map(|c| (c.manager, c.field)).collect::<Vec<_>>());
            if let Ok(object) = &done {
                state.objects.insert(path.to_owned(), object.clone());
            }
            done.map(|object| object["data"].clone())
        };
        assert_eq!(run("a", json!({"one": "1", "two": "2"}), false), Ok(json!({"one": "1", "two": "2"})));
        assert_eq!(run("a", json!({"one": "1"}), false), Ok(json!({"one": "1"})), "what it no longer wants goes");
        assert_eq!(run("b", json!({"three": "3"}), false), Ok(json!({"one": "1", "three": "3"})));
        assert_eq!(run("b", json!({"one": "x"}), false), Err(vec![("a".to_owned(), "/data/one".to_owned())]));
        assert!(run("b", json!({"one": "1", "three": "3"}), false).is_ok(), "the same value is no conflict");
        assert_eq!(run("b", json!({"one": "x"}), true), Ok(json!({"one": "x"})));
    }
}
