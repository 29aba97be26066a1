//! The bake manifest: what was installed into the image, written at bake time. Here it is read.

use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::plain::is_plain;
use crate::ports::Files;
use crate::store::fields_within;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Component, Path};

/// Where it is.
pub const PATH: &str = "/usr/lib/kubestrap/manifest.json";
/// The largest manifest that is read, in bytes: some thousand files.
const MAX_BYTES: usize = 1024 * 1024;
/// The most components and files together, and the longest path in bytes.
const MAX_ENTRIES: usize = 4096;
const MAX_PATH: usize = 512;

/// What was baked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Manifest {
    /// 1.
    pub schema: u64,
    /// Programs with a version.
    #[serde(default)]
    pub components: Vec<Program>,
    /// Other files that the image owns: configuration, units.
    #[serde(default)]
    pub files: Vec<Owned>,
    /// Release of the kernel (`uname -r`), when the image fixes one.
    #[serde(default)]
    pub kernel: Option<String>,
}

/// A program that was installed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Program {
    /// `kubelet`, `containerd`, ...
    pub name: String,
    /// Its version, as its project writes it.
    pub version: String,
    /// Its file.
    pub path: String,
    /// SHA-256 of the file, 64 lower-case hex digits.
    pub sha256: String,
}

/// A file that belongs to the image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Owned {
    /// Its path.
    pub path: String,
    /// SHA-256 of the file, 64 lower-case hex digits.
    pub sha256: String,
    /// Permission bits in octal (`"0644"`); not compared when absent.
    #[serde(default)]
    pub mode: Option<String>,
}

impl Manifest {
    /// Reads the machine's manifest; `None` when there is none. Truncated, malformed, of a newer major version, with
    /// paths that are not plain: an error that names the place and what to do.
    pub fn read(files: &dyn Files) -> Outcome<Option<Manifest>> {
        files.read(Path::new(PATH), MAX_BYTES as u64)?.map(|body| Manifest::parse(&body)).transpose()
    }

    /// The same for bytes.
    pub fn parse(body: &[u8]) -> Outcome<Manifest> {
        let what = format!("the bake manifest {PATH}");
        let wrong = |why: String| {
            Failure::new(Cause::FileAccess, format!("read {what}"), why).advise(
                "the image's build writes it: bake again with the kubestrap that the node runs, or remove it, and content is not \
                 compared",
            )
        };
        let object = fields_within(&what, body, MAX_BYTES).map_err(|failure| wrong(failure.detail))?;
        let manifest: Manifest =
            serde_json::from_value(Value::Object(object)).map_err(|error| wrong(error.to_string()))?;
        manifest.check().map_err(wrong)?;
        Ok(manifest)
    }

    /// Every path with its digest and mode.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str, Option<&str>)> {
        let programs = self.components.iter().map(|c| (c.path.as_str(), c.sha256.as_str(), None));
        programs.chain(self.files.iter().map(|f| (f.path.as_str(), f.sha256.as_str(), f.mode.as_deref())))
    }

    /// The content as one digest, `sha256:…`: what an image's tag `kubestrap:content` holds. Times, sources and the
    /// order of the entries do not count.
    pub fn content(&self) -> String {
        let programs =
            self.components.iter().map(|c| format!("component {} {} {} {}", c.name, c.version, c.path, c.sha256));
        let files =
            self.files.iter().map(|f| format!("file {} {} {}", f.path, f.sha256, f.mode.as_deref().unwrap_or("-")));
        let kernel = self.kernel.iter().map(|release| format!("kernel {release}"));
        let lines: BTreeSet<String> = programs.chain(files).chain(kernel).collect();
        let mut hash = Sha256::new();
        for line in lines {
            hash.update(line.as_bytes());
            hash.update(b"\n");
        }
        format!("sha256:{}", hex(&hash.finalize()))
    }

    fn check(&self) -> Result<(), String> {
        if self.components.len() + self.files.len() > MAX_ENTRIES {
            return Err(format!("it has more than {MAX_ENTRIES} entries"));
        }
        let words = self.components.iter().flat_map(|c| [&c.name, &c.version]).chain(&self.kernel);
        if let Some(word) =
            words.into_iter().find(|word| word.is_empty() || word.len() > 128 || !word.chars().all(is_plain))
        {
            return Err(format!("{word:?} is not a name or version"));
        }
        let mut seen = BTreeSet::new();
        for (path, digest, mode) in self.entries() {
            if !is_plain_path(path) {
                return Err(format!("{path:?} is not an absolute path of plain characters"));
            }
            if !seen.insert(path) {
                return Err(format!("{path} is there twice"));
            }
            if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
                return Err(format!("the sha256 of {path} is not 64 lower-case hex digits"));
            }
            if mode.is_some_and(|mode| octal(mode).is_none()) {
                return Err(format!("the mode of {path} is not octal such as \"0644\""));
            }
        }
        Ok(())
    }
}

/// Permission bits from their octal text.
pub fn octal(mode: &str) -> Option<u32> {
    u32::from_str_radix(mode, 8).ok().filter(|bits| *bits <= 0o7777 && mode.bytes().all(|b| b.is_ascii_digit()))
}

/// It becomes an argument of `sha256sum`, whose answer is read back by lines: no `\`, no control characters.
fn is_plain_path(path: &str) -> bool {
    let parts = Path::new(path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    path.starts_with('/') && parts && path.len() <= MAX_PATH && path.chars().all(is_plain) && !path.contains('\\')
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// A manifest of two programs and a file.
    pub(crate) fn text() -> String {
        format!(
            r#"{{"schema":1,"baked_at":"2026-11-01T00:00:00Z","kubestrap":"0.1.0","kernel":"6.12.0-1-amd64",
            "components":[{{"name":"kubelet","version":"v1.36.1","path":"/usr/bin/kubelet","sha256":"{DIGEST}","source":"x"}},
            {{"name":"containerd","version":"v2.1.4","path":"/usr/bin/containerd","sha256":"{DIGEST}"}}],
            "files":[{{"path":"/etc/containerd/config.toml","sha256":"{DIGEST}","mode":"0644"}}]}}"#
        )
    }

    #[test]
    fn what_is_unknown_is_ignored_and_the_order_does_not_count() {
        let manifest = Manifest::parse(text().as_bytes()).expect("good");
        assert_eq!(manifest.components.len(), 2);
        let mut turned = manifest.clone();
        turned.components.reverse();
        assert_eq!(manifest.content(), turned.content());
        turned.components[0].version = "v1.36.2".into();
        assert_ne!(manifest.content(), turned.content());
        let mut other_mode = manifest.clone();
        other_mode.files[0].mode = None;
        assert_ne!(manifest.content(), other_mode.content());
    }

    #[test]
    fn a_large_image_has_a_large_manifest() {
        let file = |n| format!(r#"{{"path":"/usr/share/f{n}","sha256":"{DIGEST}"}}"#);
        let files: Vec<String> = (0..2000).map(file).collect();
        let text = format!(r#"{{"schema":1,"files":[{}]}}"#, files.join(","));
        assert!(text.len() > 64 * 1024);
        assert_eq!(Manifest::parse(text.as_bytes()).expect("good").files.len(), 2000);
    }

    #[test]
    fn bad_manifests_are_refused_with_the_place() {
        let good = text();
        let cases: Vec<(String, &str)> = vec![
            (good[..good.len() / 2].to_owned(), "line"),
            (String::new(), "it is empty"),
            ("[]".into(), "read the bake manifest"),
            (good.replace("\"schema\":1", "\"schema\":2"), "its schema is 2, and this kubestrap reads up to 1"),
            (good.replace("\"schema\":1,", ""), "it has no schema number"),
            (good.replace("/usr/bin/kubelet", "usr/bin/kubelet"), "is not an absolute path"),
            (good.replace("/usr/bin/kubelet", "/usr/../etc/shadow"), "is not an absolute path"),
            (good.replace("/usr/bin/kubelet", "/usr/bin/containerd"), "is there twice"),
            (good.replacen(DIGEST, "abc", 1), "64 lower-case hex digits"),
            (good.replace("0644", "0999"), "is not octal"),
            (good.replace("\"v1.36.1\"", "\"\""), "is not a name or version"),
            (good.replace("\"v1.36.1\"", "7"), "invalid type"),
        ];
        for (text, words) in cases {
            let failure = Manifest::parse(text.as_bytes()).expect_err(&text).to_string();
            assert!(failure.contains(words) && failure.contains(PATH), "{text}: {failure}");
        }
    }
}
