//! Strict checks of the component configurations by the table in [`super::component_fields`].

use super::component_fields::TYPES;
use crate::golang;
use serde_json::Value;

/// Checks a document of this kind; the errors have the form of the strict decoder of `k8s.io/apimachinery`.
///
/// # Errors
/// The first field that is unknown or has a wrong type.
pub fn check(kind: &str, document: &Value) -> Result<(), String> {
    check_type(kind, document, "", kind)
}

fn check_type(kind: &str, value: &Value, path: &str, root: &str) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    if let Some(inner) = kind.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let items = value.as_array().ok_or_else(|| wrong(value, path, root, "list"))?;
        return items
            .iter()
            .enumerate()
            .try_for_each(|(i, item)| check_type(inner, item, &format!("{path}[{i}]"), root));
    }
    if let Some(inner) = kind.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let map = value.as_object().ok_or_else(|| wrong(value, path, root, "map"))?;
        return map.iter().try_for_each(|(key, item)| check_type(inner, item, &join(path, key), root));
    }
    if kind.starts_with(char::is_uppercase) {
        let map = value.as_object().ok_or_else(|| wrong(value, path, root, kind))?;
        return map.iter().try_for_each(|(key, item)| match field(kind, key) {
            Some(inner) => check_type(inner, item, &join(path, key), root),
            None => Err(format!("strict decoding error: unknown field {:?}", join(path, key))),
        });
    }
    let right = match kind {
        "bool" => value.is_boolean(),
        "int" => value.is_i64() || value.is_u64(),
        "float" => value.is_number(),
        "string" => value.is_string(),
        "quantity" => value.is_string() || value.is_number(),
        "duration" => return check_duration(value, path, root),
        "duration_or_int" if value.is_u64() => true,
        "duration_or_int" => return check_duration(value, path, root),
        _ => false,
    };
    if right { Ok(()) } else { Err(wrong(value, path, root, kind)) }
}

fn check_duration(value: &Value, path: &str, root: &str) -> Result<(), String> {
    let text = value.as_str().ok_or_else(|| wrong(value, path, root, "string"))?;
    golang::parse_duration(text).map(|_| ())
}

/// The type of a field; `None` when the type has no such field.
fn field(kind: &str, name: &str) -> Option<&'static str> {
    let line = TYPES.lines().find(|line| line.strip_prefix(kind).is_some_and(|rest| rest.starts_with(':')))?;
    line.split_whitespace().skip(1).filter_map(|pair| pair.split_once('=')).find(|(n, _)| *n == name).map(|(_, k)| k)
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn wrong(value: &Value, path: &str, root: &str, expected: &str) -> String {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {found} into Go struct field {root}.{path} of type {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn known_fields_of_the_right_type_pass_and_others_do_not() {
        let kubelet = "KubeletConfiguration";
        for good in [
            json!({"cgroupDriver": "systemd", "maxPods": 110, "failSwapOn": false, "systemReserved": {"cpu": "100m"}}),
            json!({"authentication": {"webhook": {"enabled": true, "cacheTTL": "2m0s"}}, "clusterDNS": ["10.96.0.10"]}),
            json!({"logging": {"flushFrequency": 0, "verbosity": 0, "options": {"json": {"infoBufferSize": "0"}}}}),
            json!({"registerWithTaints": [{"key": "a", "effect": "NoSchedule"}], "shutdownGracePeriod": "30s"}),
        ] {
            assert_eq!(check(kubelet, &good), Ok(()), "{good}");
        }
        for (bad, error) in [
            (json!({"cgroupDrivr": "x"}), "unknown field \"cgroupDrivr\""),
            (json!({"authentication": {"webhok": {}}}), "unknown field \"authentication.webhok\""),
            (json!({"maxPods": "110"}), "KubeletConfiguration.maxPods of type int"),
            (json!({"clusterDNS": "10.96.0.10"}), "of type list"),
            (json!({"shutdownGracePeriod": "30"}), "missing unit"),
            (json!({"evictionHard": {"memory.available": 5}}), "of type string"),
        ] {
            let found = check(kubelet, &bad).expect_err("refused");
            assert!(found.contains(error), "{found}");
        }
        assert_eq!(
            check("KubeProxyConfiguration", &json!({"mode": "nftables", "iptables": {"syncPeriod": "1s"}})),
            Ok(())
        );
        assert!(check("KubeProxyConfiguration", &json!({"iptables": {"sync": "1s"}})).is_err());
    }
}
