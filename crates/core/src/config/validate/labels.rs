//! Labels and taints: their syntax, and what a kubelet may not say about itself.

use crate::config::settings::Taint;
use crate::model::names::is_dns_name;

/// Labels of the kubernetes.io and k8s.io namespaces a kubelet may set on its own node
/// (kubelet/pkg/apis/well_known_labels.go, `kubeletLabels`).
const KUBELET_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
/// Namespaces a kubelet may use, with everything below them (same file, `kubeletLabelNamespaces`).
const KUBELET_NAMESPACES: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Longest name and longest value (apimachinery validation.go, `LabelValueMaxLength`, `qualifiedNameMaxLength`).
const MAX_NAME: usize = 63;

/// Refuses a label key that is not one, or that the API server would refuse from a kubelet
/// (plugin/pkg/admission/noderestriction/admission.go, `getForbiddenLabels`; the kubelet itself exits on it).
pub fn label_key(key: &str) -> Result<(), String> {
    qualified_name(key)?;
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let within = |suffix: &str| namespace == suffix || namespace.strip_suffix(suffix).is_some_and(|p| p.ends_with('.'));
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let allowed = KUBELET_LABELS.contains(&key) || KUBELET_NAMESPACES.iter().any(|suffix| within(suffix));
    if kubernetes && !allowed {
        return Err(format!(
            "a kubelet may not set the label {key:?} on its own node (NodeRestriction); \
             set it from outside with kubectl, or use a namespace of your own"
        ));
    }
    Ok(())
}

/// `[prefix/]name` (apimachinery `IsQualifiedName`).
fn qualified_name(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_some_and(|prefix| !is_dns_name(prefix)) || name.is_empty() || !is_name(name) {
        return Err(format!(
            "{key:?} is not a key such as team or example.com/team: at most {MAX_NAME} letters, digits, -, _ and . \
             that begin and end with a letter or digit"
        ));
    }
    Ok(())
}

/// A label's or taint's value: empty, or like a key's name.
pub fn label_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    let value = crate::config::tree::shorten(value);
    Err(format!(
        "{value:?} is not a value: at most {MAX_NAME} letters, digits, -, _ and . that begin and end with a letter or digit"
    ))
}

fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= MAX_NAME && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().next_back())
}

/// Parses `key=value:Effect` or `key:Effect`.
pub fn taint(text: &str) -> Result<Taint, String> {
    let (pair, effect) = text.rsplit_once(':').ok_or_else(|| format!("{text:?} is not a taint key=value:Effect"))?;
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    taint_of(key, value, effect)
}

/// Checks the parts of a taint. Taints are not restricted like labels: a node registers with them.
pub fn taint_of(key: &str, value: &str, effect: &str) -> Result<Taint, String> {
    qualified_name(key)?;
    label_value(value)?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(format!("{effect:?} is not an effect: NoSchedule, PreferNoSchedule or NoExecute"));
    }
    Ok(Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kubelet_may_say_of_itself() {
        for good in [
            "team",
            "example.com/team",
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
            "node.kubernetes.io/instance-type",
            "node.kubernetes.io/anything",
            "x.node.kubernetes.io/y",
            "kubelet.kubernetes.io/pool",
            "notkubernetes.io/x",
            "Team_1.x",
        ] {
            assert_eq!(label_key(good), Ok(()), "{good}");
        }
        for bad in [
            "node-role.kubernetes.io/worker",
            "node-role.kubernetes.io/control-plane",
            "kubernetes.io/role",
            "node-restriction.kubernetes.io/x",
            "a.node-restriction.kubernetes.io/x",
            "topology.kubernetes.io/rack",
            "k8s.io/x",
            "sub.k8s.io/x",
            "xnode.kubernetes.io/y",
        ] {
            assert!(label_key(bad).is_err_and(|why| why.contains("NodeRestriction")), "{bad}");
        }
        for bad in ["", "/x", "x/", "a b", "-a", "a-", "a/b/c", "Example.com/x", "x=y", &"a".repeat(64)] {
            assert!(label_key(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn values_have_one_form() {
        for good in ["", "web", "1", "A_b-c.d"] {
            assert_eq!(label_value(good), Ok(()), "{good}");
        }
        for bad in ["a b", "-a", "a.", "a/b", "a,b", "ä", &"a".repeat(64)] {
            assert!(label_value(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn taints_are_read_as_kubectl_writes_them() {
        let full = taint("dedicated=gpu:NoSchedule").expect("a taint");
        assert_eq!((full.key.as_str(), full.value.as_str(), full.effect.as_str()), ("dedicated", "gpu", "NoSchedule"));
        assert_eq!(taint("node-role.kubernetes.io/control-plane:NoSchedule").map(|t| t.value), Ok(String::new()));
        for bad in ["", "a", "a=b", "a=b:Never", ":NoSchedule", "a=b c:NoSchedule", "a b:NoExecute", "a=b:noschedule"] {
            assert!(taint(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
