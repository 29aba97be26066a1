//! `cargo xtask verify`: the rules for dependencies that need no network. `deny.toml` has the same rules, and the
//! advisories, for those who can reach the advisory database with cargo-deny.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Licences that may be linked into an Apache-2.0 program, without obligations beyond a notice.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that must not be linked, with the reason.
const FORBIDDEN: &[(&str, Option<&str>, &str)] = &[
    ("ring", None, "a second TLS provider beside aws-lc-rs"),
    ("openssl", None, "a second TLS provider, and one that is not Rust's"),
    ("openssl-sys", None, "a second TLS provider, and one that is not Rust's"),
    ("native-tls", None, "a second TLS provider"),
    ("serde_yaml", None, "no longer maintained"),
    ("serde_yml", None, "unsound and archived (RUSTSEC-2025-0068)"),
    ("backoff", None, "no longer maintained; retries belong in core"),
    ("hyper", Some("0.14"), "the old HTTP stack beside the new one"),
];

/// Crates that may be there in several versions, with the reason; everything else may not.
const DUPLICATES: &[(&str, &str)] = &[
    ("crypto-common", "belongs to the two digests"),
    ("digest", "the AWS SDKs and pest are not at 0.11 yet"),
    ("syn", "half of the derive macros are not at 3 yet; build time only"),
    ("synstructure", "asn1-rs-derive is not at 0.14 yet; build time only"),
    ("untrusted", "aws-lc-rs is at 0.7, rustls-webpki at 0.9"),
];

/// Checks all rules; the error lists every violation.
pub fn run() -> io::Result<()> {
    let metadata = MetadataCommand::new()
        .current_dir(crate::process::workspace())
        .other_options(vec!["--filter-platform".to_owned(), "x86_64-unknown-linux-gnu".to_owned()])
        .exec()
        .map_err(io::Error::other)?;
    let linked = linked(&metadata);
    let mut problems: Vec<String> = Vec::new();
    for package in &linked {
        problems.extend(forbidden(package));
        problems.extend(licence(package));
    }
    problems.extend(duplicates(&linked));
    if problems.is_empty() {
        println!("{} crates: licences, forbidden crates and duplicates are as they should be", linked.len());
        return Ok(());
    }
    Err(io::Error::other(format!("{} violations:\n  {}", problems.len(), problems.join("\n  "))))
}

/// What ends up in a program or runs while it is built: reachable from the workspace without dev-dependencies.
fn linked(metadata: &Metadata) -> Vec<&Package> {
    let nodes: BTreeMap<&PackageId, _> =
        metadata.resolve.iter().flat_map(|resolve| &resolve.nodes).map(|node| (&node.id, node)).collect();
    let mut todo: Vec<&PackageId> = metadata.workspace_members.iter().collect();
    let mut seen: BTreeSet<&PackageId> = BTreeSet::new();
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        let Some(node) = nodes.get(id) else { continue };
        let package = &metadata[id];
        let links = node.deps.iter().filter(|dependency| {
            let kinds = &dependency.dep_kinds;
            kinds.iter().any(|kind| kind.kind != DependencyKind::Development)
                && is_enabled(package, &node.features, &metadata[&dependency.pkg].name)
        });
        todo.extend(links.map(|dependency| &dependency.pkg));
    }
    metadata.packages.iter().filter(|package| seen.contains(&package.id)).collect()
}

/// Whether a package really uses a dependency. The resolution names optional ones that no feature enables, when
/// another feature speaks of them weakly (`ring?/std`).
fn is_enabled(package: &Package, features: &[cargo_metadata::FeatureName], dependency: &str) -> bool {
    package.dependencies.iter().filter(|declared| declared.name == dependency).any(|declared| {
        let name = declared.rename.as_deref().unwrap_or(&declared.name);
        let enables = |value: &str| {
            value == name || value.strip_prefix("dep:") == Some(name) || value.starts_with(&format!("{name}/"))
        };
        let named = features.iter().any(|feature| feature.as_str() == name);
        let by_feature = features.iter().filter_map(|feature| package.features.get(feature.as_str()));
        !declared.optional || named || by_feature.flatten().any(|value| enables(value))
    })
}

fn forbidden(package: &Package) -> Option<String> {
    let version = package.version.to_string();
    let rule = FORBIDDEN.iter().find(|(name, prefix, _)| {
        package.name.as_str() == *name && prefix.is_none_or(|prefix| version.starts_with(prefix))
    });
    rule.map(|(name, _, why)| format!("{name} {version} is forbidden: {why}"))
}

fn licence(package: &Package) -> Option<String> {
    let name = format!("{} {}", package.name, package.version);
    match &package.license {
        None => Some(format!("{name} has no licence expression")),
        Some(expression) if allowed(expression) => None,
        Some(expression) => Some(format!("{name}: the licence {expression} is not in the list")),
    }
}

/// Whether an SPDX expression can be satisfied with licences of the list: OR needs one side, AND all of them. The old
/// form with a slash means OR.
fn allowed(expression: &str) -> bool {
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    matches!(alternatives(&words), Some((true, [])))
}

/// Whether the first words can be satisfied, and the words behind them; `None` when they are no expression.
type Parsed<'a> = Option<(bool, &'a [&'a str])>;

fn alternatives<'a>(words: &'a [&'a str]) -> Parsed<'a> {
    let (mut result, mut rest) = conjunction(words)?;
    while let Some((&"OR", tail)) = rest.split_first() {
        let (other, after) = conjunction(tail)?;
        (result, rest) = (result | other, after);
    }
    Some((result, rest))
}

fn conjunction<'a>(words: &'a [&'a str]) -> Parsed<'a> {
    let (mut result, mut rest) = atom(words)?;
    while let Some((&"AND", tail)) = rest.split_first() {
        let (other, after) = atom(tail)?;
        (result, rest) = (result & other, after);
    }
    Some((result, rest))
}

fn atom<'a>(words: &'a [&'a str]) -> Parsed<'a> {
    match words {
        ["(", inner @ ..] => match alternatives(inner)? {
            (result, [")", rest @ ..]) => Some((result, rest)),
            _ => None,
        },
        [name, "WITH", exception, rest @ ..] => {
            Some((LICENCES.contains(&format!("{name} WITH {exception}").as_str()), rest))
        }
        [name, rest @ ..] => Some((LICENCES.contains(name), rest)),
        [] => None,
    }
}

fn duplicates(linked: &[&Package]) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for package in linked {
        versions.entry(package.name.as_str()).or_default().insert(package.version.to_string());
    }
    let listed = |name: &str| DUPLICATES.iter().any(|(other, _)| *other == name);
    let several = versions.iter().filter(|(name, versions)| versions.len() > 1 && !listed(name));
    let mut problems: Vec<String> = several
        .map(|(name, versions)| {
            let versions: Vec<&str> = versions.iter().map(String::as_str).collect();
            format!("{name} is linked in several versions: {}", versions.join(", "))
        })
        .collect();
    // An exception that is no longer needed would hide the next duplicate.
    let single = |name: &str| versions.get(name).is_none_or(|versions| versions.len() < 2);
    let stale = DUPLICATES.iter().filter(|(name, _)| single(name));
    problems.extend(stale.map(|(name, _)| format!("{name} is no longer a duplicate: remove the exception")));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions_are_read_as_spdx_means_them() {
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "MIT/Apache-2.0",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
            "GPL-3.0 OR (MIT AND ISC)",
        ] {
            assert!(allowed(good), "{good} was refused");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT OR", "MPL-2.0", "GPL-3.0 WITH GCC-exception"] {
            assert!(!allowed(bad), "{bad} was allowed");
        }
    }
}
