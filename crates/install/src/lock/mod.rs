//! What the content of a released file must be.
//!
//! In this order: the configuration (`install.checksums`), the lock that is compiled in (`known.yaml`, with its origin
//! in its head), and only when the configuration says so, what the project publishes beside the file.

mod release;

pub use release::trust_releases;

use crate::catalog::{Arch, Component, Versions};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;

const KNOWN: &str = include_str!("known.yaml");

type Known = BTreeMap<(Component, String, Arch), String>;

/// Who says what the content must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChecksumFrom {
    /// `install.checksums`.
    Configuration,
    /// The lock that this program was built with.
    Lock,
    /// The index of a bundle whose own SHA-256 was given.
    Bundle,
    /// The file that the project publishes beside the released one.
    Release,
}

impl ChecksumFrom {
    /// Who it is, for messages.
    pub fn told(self) -> &'static str {
        match self {
            ChecksumFrom::Configuration => "`install.checksums`",
            ChecksumFrom::Lock => "the lock of this kubestrap",
            ChecksumFrom::Bundle => "the index of the bundle",
            ChecksumFrom::Release => "the project's own checksum file",
        }
    }
}

/// 64 lower-case hex digits, or why not. Upper-case ones are made lower-case.
pub fn check_sha256(text: &str) -> Result<String, String> {
    let text = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text)
    } else {
        Err(format!("{text:?} is not a SHA-256 of 64 hex digits"))
    }
}

struct Lock {
    checksums: Known,
    newest: BTreeMap<Component, String>,
}

fn lock() -> Outcome<&'static Lock> {
    static LOCK: OnceLock<Result<Lock, String>> = OnceLock::new();
    let parsed = LOCK.get_or_init(|| parse(KNOWN));
    parsed.as_ref().map_err(|why| Failure::new(Cause::Internal, "read the shipped checksums", why))
}

fn parse(text: &str) -> Result<Lock, String> {
    type Document = BTreeMap<Component, BTreeMap<String, BTreeMap<Arch, String>>>;
    // By way of a value, as everywhere: a second kind of target is a second reader of YAML in the program.
    let value: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let document: Document = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let mut lock = Lock { checksums: BTreeMap::new(), newest: BTreeMap::new() };
    for (component, versions) in document {
        let newest =
            versions.keys().max_by_key(|version| order(version)).ok_or_else(|| format!("{component}: none"))?;
        lock.newest.insert(component, newest.clone());
        for (version, arches) in versions {
            for (arch, sha256) in arches {
                lock.checksums.insert((component, version.clone(), arch), check_sha256(&sha256)?);
            }
        }
    }
    Ok(lock)
}

/// Sorts versions by their numbers.
fn order(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or_default()).collect()
}

/// The newest version of the component in the shipped lock: what is installed when nothing is asked for.
pub fn newest(component: Component) -> Outcome<&'static str> {
    let found = lock()?.newest.get(&component);
    found.map(String::as_str).ok_or_else(|| {
        Failure::new(Cause::Internal, "choose the versions to install", format!("the shipped lock has no {component}"))
    })
}

/// All checksums that count on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checksums {
    given: BTreeMap<(Component, String, Arch), (String, ChecksumFrom)>,
}

impl Checksums {
    /// Only what the lock knows.
    pub fn new() -> Checksums {
        Checksums::default()
    }

    /// Adds a checksum of the configuration. It wins over all others; `version` may have a leading `v`.
    pub fn configure(&mut self, component: Component, version: &str, arch: Arch, sha256: &str) -> Outcome<()> {
        self.add(component, version, arch, sha256, ChecksumFrom::Configuration).map_err(|why| {
            Failure::new(Cause::Configuration, format!("read `install.checksums` of {component} {version} {arch}"), why)
        })
    }

    /// Adds a checksum unless the configuration has one.
    pub(crate) fn add(
        &mut self,
        component: Component,
        version: &str,
        arch: Arch,
        sha256: &str,
        from: ChecksumFrom,
    ) -> Result<(), String> {
        let sha256 = check_sha256(sha256)?;
        let key = (component, crate::catalog::check_version(version)?, arch);
        if from == ChecksumFrom::Configuration {
            self.given.insert(key, (sha256, from));
        } else {
            self.given.entry(key).or_insert((sha256, from));
        }
        Ok(())
    }

    /// What is known of a file. `version` is without `v`.
    pub fn get(&self, component: Component, version: &str, arch: Arch) -> Outcome<Option<(String, ChecksumFrom)>> {
        let key = (component, version.to_owned(), arch);
        let given = self.given.get(&key);
        if let Some((sha256, ChecksumFrom::Configuration)) = given {
            return Ok(Some((sha256.clone(), ChecksumFrom::Configuration)));
        }
        let locked = lock()?.checksums.get(&key).map(|sha256| (sha256.clone(), ChecksumFrom::Lock));
        Ok(locked.or_else(|| given.cloned()))
    }

    pub(crate) fn require(&self, component: Component, version: &str, arch: Arch) -> Outcome<(String, ChecksumFrom)> {
        if let Some(known) = self.get(component, version, arch)? {
            return Ok(known);
        }
        let why = format!(
            "the SHA-256 of {component} {version} for {arch} is not known, and nothing is installed unverified"
        );
        let advice = format!(
            "write `install.checksums.{component}.\"{version}\".{arch}: <64 hex digits>` (published at {}), choose a version \
             that this kubestrap knows ({} is the newest), or set `install.trust_release_checksums: true`",
            component.checksum_url(version, arch),
            newest(component)?
        );
        Err(Failure::new(Cause::Configuration, format!("pin {}", component.file(version, arch)), why).advise(advice))
    }

    /// The files of these versions that have no checksum yet.
    pub fn unknown(&self, versions: &Versions, arch: Arch) -> Outcome<Vec<Component>> {
        let mut unknown = Vec::new();
        for component in Component::ALL {
            if self.get(component, versions.of(component), arch)?.is_none() {
                unknown.push(component);
            }
        }
        Ok(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Wanted, artifacts};

    const OTHER: &str = "00000000000000000000000000000000000000000000000000000000000000Ff";

    fn versions(kubernetes: &str) -> Versions {
        Versions::resolve(&Wanted { kubernetes: Some(kubernetes.into()), ..Wanted::default() }).expect("versions")
    }

    #[test]
    fn the_lock_has_both_architectures_of_every_version_and_different_digests() {
        let lock = lock().expect("lock");
        let mut seen = BTreeMap::new();
        for ((component, version, arch), sha256) in &lock.checksums {
            assert_eq!(crate::catalog::check_version(version).as_ref(), Ok(version));
            for other in Arch::ALL {
                assert!(
                    lock.checksums.contains_key(&(*component, version.clone(), other)),
                    "{component} {version} {other}"
                );
            }
            assert_eq!(seen.insert(sha256, (component, version, arch)), None, "{component} {version} {arch}");
        }
        assert_eq!(lock.newest.len(), Component::ALL.len());
        let all = artifacts(&versions("1.36.4"), Arch::Arm64, &Checksums::new()).expect("known");
        assert_eq!(all.len(), Component::ALL.len());
        assert!(all.iter().all(|artifact| artifact.checksum_from == ChecksumFrom::Lock));
    }

    #[test]
    fn kubeadm_kubelet_and_kubectl_are_known_in_the_same_versions() {
        let known = |component| {
            let lock = lock().expect("lock");
            lock.checksums.keys().filter(move |key| key.0 == component).map(|key| (&key.1, key.2)).collect::<Vec<_>>()
        };
        assert_eq!(known(Component::Kubeadm), known(Component::Kubelet));
        assert_eq!(known(Component::Kubeadm), known(Component::Kubectl));
    }

    #[test]
    fn the_newest_is_found_by_number() {
        assert!(order("1.7.34") > order("1.7.9") && order("2.0.0") > order("1.99.0"));
        let text = format!("runc:\n  \"1.2.9\":\n    amd64: {OTHER}\n  \"1.2.10\":\n    arm64: {OTHER}\n");
        assert_eq!(parse(&text).expect("lock").newest[&Component::Runc], "1.2.10");
    }

    #[test]
    fn the_configuration_wins_over_the_lock_and_the_lock_over_a_release() {
        let mut checksums = Checksums::new();
        let known = |checksums: &Checksums| checksums.get(Component::Kubelet, "1.36.4", Arch::Amd64).expect("lock");
        checksums.add(Component::Kubelet, "1.36.4", Arch::Amd64, OTHER, ChecksumFrom::Release).expect("digest");
        assert_eq!(known(&checksums).expect("known").1, ChecksumFrom::Lock);
        checksums.configure(Component::Kubelet, "v1.36.4", Arch::Amd64, OTHER).expect("digest");
        assert_eq!(known(&checksums), Some((OTHER.to_lowercase(), ChecksumFrom::Configuration)));
        checksums
            .add(Component::Kubelet, "1.36.4", Arch::Amd64, &"1".repeat(64), ChecksumFrom::Bundle)
            .expect("digest");
        assert_eq!(known(&checksums), Some((OTHER.to_lowercase(), ChecksumFrom::Configuration)));
    }

    #[test]
    fn an_unknown_file_is_refused_with_the_line_to_write() {
        let why = artifacts(&versions("1.36.99"), Arch::Amd64, &Checksums::new()).expect_err("unknown");
        assert_eq!(why.cause, Cause::Configuration);
        assert!(why.fix().contains("install.checksums.kubeadm.\"1.36.99\".amd64:"), "{why}");
        assert!(why.fix().contains("https://dl.k8s.io/release/v1.36.99/bin/linux/amd64/kubeadm.sha256"), "{why}");
        let unknown = Checksums::new().unknown(&versions("1.36.99"), Arch::Amd64).expect("lock");
        assert_eq!(unknown, [Component::Kubeadm, Component::Kubelet, Component::Kubectl]);
    }

    #[test]
    fn a_digest_that_is_none_is_refused() {
        for bad in ["", "abc", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65), &format!("sha512:{}", "0".repeat(64))]
        {
            let why = Checksums::new().configure(Component::Runc, "1.4.3", Arch::Amd64, bad).expect_err(bad);
            assert!(why.attempted.contains("runc 1.4.3 amd64"), "{why}");
        }
    }
}
