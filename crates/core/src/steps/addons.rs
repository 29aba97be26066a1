//! `apply-addons`: the manifests of the configuration (a CNI, for example), by server-side apply.

use super::{HALF_AN_HOUR, journal};
use crate::config::settings::Action;
use crate::engine::{Step, Verdict};
use crate::journal::Entry;
use crate::kube::Api;
use crate::kube::apply::{Manifest, in_order, parse_manifest};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest CNI manifests are some 500 KiB.
const MAX_MANIFEST: u64 = 4 * 1024 * 1024;

/// What nodes that drain themselves need, applied where the configuration lets them.
const NODE_DRAIN: (&str, &str) = ("kubestrap:node-drain (built in)", include_str!("../drain/rbac.yaml"));

/// Applies the addons once for each content they have.
pub struct ApplyAddons;

#[async_trait(?Send)]
impl Step for ApplyAddons {
    fn name(&self) -> &'static str {
        "apply-addons"
    }

    fn describe(&self) -> &'static str {
        "apply the manifests named under `addons`"
    }

    fn optional(&self) -> bool {
        true
    }

    fn patience(&self, _node: &Node) -> Duration {
        HALF_AN_HOUR
    }

    async fn check(&self, node: &Node) -> Outcome<Verdict> {
        let texts = read(node)?;
        let applied = journal(node).attempt()?.and_then(|attempt| attempt.addons);
        if texts.is_empty() {
            Ok(Verdict::Done("none are configured".into()))
        } else if applied.as_deref() == Some(digest(&texts).as_str()) {
            Ok(Verdict::Done(format!("{} manifests are applied", texts.len())))
        } else {
            Ok(Verdict::Wanted(format!("{} manifests are new or have changed", texts.len())))
        }
    }

    async fn apply(&self, node: &Node) -> Outcome<()> {
        let texts = read(node)?;
        let mut manifests: Vec<Manifest> = Vec::new();
        for (path, text) in &texts {
            manifests.extend(parse_manifest(&path.to_string_lossy(), text)?);
        }
        let api = Api::admin(&node.world.cluster);
        for manifest in in_order(manifests) {
            api.apply(&manifest).await?;
        }
        journal(node).note(Entry::AddonsApplied { digest: digest(&texts) })
    }
}

/// The manifests in the order of the configuration; a pattern's files in the order of their names.
fn read(node: &Node) -> Outcome<Vec<(PathBuf, String)>> {
    let mut texts = Vec::new();
    for path in &node.settings.addons {
        for file in expand(node, path)? {
            let missing = |why: &str| {
                Failure::new(Cause::Configuration, format!("read the addon {}", file.display()), why)
                    .advise("correct `addons`, or bring the file")
            };
            let body = node.world.files.read(&file, MAX_MANIFEST)?.ok_or_else(|| missing("there is no such file"))?;
            let text = String::from_utf8(body).map_err(|_| missing("it is not UTF-8 text"))?;
            texts.push((file, text));
        }
    }
    if node.settings.drift.action >= Action::Drain {
        texts.push((PathBuf::from(NODE_DRAIN.0), NODE_DRAIN.1.to_owned()));
    }
    Ok(texts)
}

/// `folder/*.yaml` is every such file of the folder, possibly none; anything else is itself.
fn expand(node: &Node, path: &Path) -> Outcome<Vec<PathBuf>> {
    let (Some(folder), Some(pattern)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(vec![path.to_owned()]);
    };
    let Some(ending) = pattern.strip_prefix('*') else { return Ok(vec![path.to_owned()]) };
    let names = node.world.files.list(folder)?;
    Ok(names.into_iter().filter(|name| name.ends_with(ending)).map(|name| folder.join(name)).collect())
}

fn digest(texts: &[(PathBuf, String)]) -> String {
    let mut hasher = Sha256::new();
    for (path, text) in texts {
        hasher.update(path.to_string_lossy().as_bytes());
        hasher.update([0]);
        hasher.update(Sha256::digest(text.as_bytes()));
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_manifest_grants_reading_of_daemonsets_to_nodes_and_nothing_else() {
        let manifests = parse_manifest(NODE_DRAIN.0, NODE_DRAIN.1).expect("a manifest");
        let rules: Vec<_> = manifests.iter().filter_map(|manifest| manifest.object.get("rules")).collect();
        let wanted = serde_json::json!([{ "apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["get"] }]);
        assert_eq!(rules, [&wanted]);
        let groups: Vec<_> =
            manifests.iter().filter_map(|manifest| manifest.object.pointer("/subjects/0/name")).collect();
        assert_eq!(groups, ["system:nodes"]);
    }
}
