//! Content drift: the machine against its bake manifest.
//!
//! Digests are made by `sha256sum` (coreutils), in a process of its own: hundreds of megabytes are neither read into the
//! agent nor do they keep it from its other duties.

use super::manifest::{Manifest, octal};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use crate::ports::{FileInfo, FileKind};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Where the kernel says its release.
const OSRELEASE: &str = "/proc/sys/kernel/osrelease";
/// So many paths go to one `sha256sum`: its answer stays below the 64 KiB that are kept of it.
const AT_ONCE: usize = 64;
/// Some hundred megabytes on a slow disk.
const HASH_DEADLINE: Duration = Duration::from_secs(120);

/// What is known of a file of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// There is none.
    Missing,
    /// It is a folder, a device, a link to nowhere.
    NotAFile,
    /// A file.
    File {
        /// Permission bits; `None` behind a symbolic link, which has none of its own.
        mode: Option<u32>,
        /// Its SHA-256 in hex.
        sha256: String,
    },
}

/// A difference, for people: `kubelet: /usr/bin/kubelet is not the v1.36.1 that was baked`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// `kubelet`, `kernel`, or the path of a file.
    pub what: String,
    /// How it differs.
    pub how: String,
}

/// What differs, in the manifest's order. A kernel that was not seen does not differ.
pub fn compare(manifest: &Manifest, observed: &BTreeMap<String, Observed>, kernel: Option<&str>) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut differs = |what: &str, how: String| differences.push(Difference { what: what.to_owned(), how });
    for program in &manifest.components {
        let (path, version) = (&program.path, &program.version);
        match observed.get(path) {
            Some(Observed::File { sha256, .. }) if *sha256 == program.sha256 => {}
            Some(Observed::File { .. }) => {
                differs(&program.name, format!("{path} is not the {version} that was baked"))
            }
            Some(Observed::NotAFile) => differs(&program.name, format!("{path} is not a file")),
            Some(Observed::Missing) | None => differs(&program.name, format!("{path} ({version}) is missing")),
        }
    }
    for file in &manifest.files {
        let mode_baked = file.mode.as_deref().and_then(octal);
        match observed.get(&file.path) {
            Some(Observed::File { sha256, .. }) if *sha256 != file.sha256 => {
                differs(&file.path, "it was changed by hand or by a package".to_owned());
            }
            Some(Observed::File { mode, .. }) => {
                if let Some((baked, mode)) = mode_baked.zip(*mode).filter(|(baked, mode)| baked != mode) {
                    differs(&file.path, format!("its mode is {mode:04o}, and {baked:04o} was baked"));
                }
            }
            Some(Observed::NotAFile) => differs(&file.path, "it is not a file".to_owned()),
            Some(Observed::Missing) | None => differs(&file.path, "it is missing".to_owned()),
        }
    }
    if let (Some(baked), Some(running)) = (&manifest.kernel, kernel)
        && baked != running
    {
        differs("kernel", format!("{running} runs, and {baked} was baked"));
    }
    differences
}

/// Looks at everything the manifest names. Errors: a file that cannot be read, `sha256sum` that is missing or hangs.
pub async fn observe(node: &Node, manifest: &Manifest) -> Outcome<(BTreeMap<String, Observed>, Option<String>)> {
    let (mut observed, mut to_hash) = (BTreeMap::new(), BTreeMap::new());
    for (path, _, _) in manifest.entries() {
        match node.world.files.stat(Path::new(path))? {
            None => _ = observed.insert(path.to_owned(), Observed::Missing),
            // Distributions link programs (/usr/sbin, alternatives): the file behind the link is hashed.
            Some(FileInfo { kind: FileKind::Link, .. }) => _ = to_hash.insert(path.to_owned(), None),
            Some(FileInfo { kind: FileKind::File, mode, .. }) => _ = to_hash.insert(path.to_owned(), Some(mode)),
            Some(_) => _ = observed.insert(path.to_owned(), Observed::NotAFile),
        }
    }
    let all: Vec<(&String, &Option<u32>)> = to_hash.iter().collect();
    for some in all.chunks(AT_ONCE) {
        let paths: Vec<&str> = some.iter().map(|(path, _)| path.as_str()).collect();
        let digests = hash(node, &paths).await?;
        for (path, mode) in some {
            let seen = match digests.get(path.as_str()) {
                Some(sha256) => Observed::File { mode: **mode, sha256: sha256.clone() },
                None => Observed::NotAFile,
            };
            observed.insert((*path).clone(), seen);
        }
    }
    let kernel = node.world.files.read(Path::new(OSRELEASE), 256)?;
    let kernel = kernel.map(|text| String::from_utf8_lossy(&text).trim().to_owned());
    Ok((observed, kernel))
}

/// The digests of these files by path; a link to nowhere or to a folder has none.
async fn hash(node: &Node, paths: &[&str]) -> Outcome<BTreeMap<String, String>> {
    let root = node.rootfs.as_deref().unwrap_or_default().trim_end_matches('/');
    let mut argv: Vec<String> = ["sha256sum", "--"].map(str::to_owned).to_vec();
    argv.extend(paths.iter().map(|path| format!("{root}{path}")));
    let output = node.world.jobs.run(&argv, HASH_DEADLINE).await?;
    let digests = read_digests(&output.stdout, root);
    if digests.is_empty() && output.code != Some(0) {
        let first = output.stderr.lines().next().unwrap_or("it said nothing").to_owned();
        return Err(Failure::new(Cause::ToolFailed, "hash the files of the bake manifest with sha256sum", first));
    }
    Ok(digests)
}

/// `<64 hex digits>  <path>` lines.
fn read_digests(stdout: &str, root: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let (digest, path) = line.split_once("  ")?;
        let hex = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        let path = path.strip_prefix(root)?;
        hex.then(|| (path.to_owned(), digest.to_owned()))
    };
    stdout.lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::manifest;

    fn baked() -> (Manifest, BTreeMap<String, Observed>) {
        let manifest = Manifest::parse(manifest::tests::text().as_bytes()).expect("good");
        let seen = |(path, digest, _): (&str, &str, Option<&str>)| {
            (path.to_owned(), Observed::File { mode: Some(0o644), sha256: digest.to_owned() })
        };
        let observed = manifest.entries().map(seen).collect();
        (manifest, observed)
    }

    fn words(manifest: &Manifest, observed: &BTreeMap<String, Observed>, kernel: Option<&str>) -> Vec<String> {
        compare(manifest, observed, kernel).iter().map(|d| format!("{}: {}", d.what, d.how)).collect()
    }

    #[test]
    fn what_was_baked_does_not_differ() {
        let (manifest, observed) = baked();
        assert_eq!(words(&manifest, &observed, Some("6.12.0-1-amd64")), [""; 0]);
        assert_eq!(words(&manifest, &observed, None), [""; 0], "a kernel nobody saw is no difference");
    }

    #[test]
    fn every_difference_has_its_words() {
        let (manifest, good) = baked();
        let with = |path: &str, seen: Observed| {
            let mut observed = good.clone();
            observed.insert(path.to_owned(), seen);
            words(&manifest, &observed, Some("6.12.0-1-amd64"))
        };
        let other = Observed::File { mode: Some(0o644), sha256: "0".repeat(64) };
        let loose = Observed::File { mode: Some(0o666), sha256: manifest.files[0].sha256.clone() };
        let config = "/etc/containerd/config.toml";
        for (path, seen, expected) in [
            ("/usr/bin/kubelet", other.clone(), "kubelet: /usr/bin/kubelet is not the v1.36.1 that was baked"),
            ("/usr/bin/kubelet", Observed::Missing, "kubelet: /usr/bin/kubelet (v1.36.1) is missing"),
            ("/usr/bin/containerd", Observed::NotAFile, "containerd: /usr/bin/containerd is not a file"),
            (config, other, "/etc/containerd/config.toml: it was changed by hand or by a package"),
            (config, loose, "/etc/containerd/config.toml: its mode is 0666, and 0644 was baked"),
            (config, Observed::Missing, "/etc/containerd/config.toml: it is missing"),
        ] {
            assert_eq!(with(path, seen), [expected]);
        }
        assert_eq!(
            words(&manifest, &good, Some("6.12.0-2-amd64")),
            ["kernel: 6.12.0-2-amd64 runs, and 6.12.0-1-amd64 was baked"]
        );
    }

    #[test]
    fn the_answer_of_sha256sum_is_read_below_a_root() {
        let digest = "a".repeat(64);
        let text = format!("{digest}  /root/usr/bin/a b\nnonsense\n{digest} */x\n");
        assert_eq!(read_digests(&text, "/root"), BTreeMap::from([("/usr/bin/a b".to_owned(), digest)]));
    }
}
