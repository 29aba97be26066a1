//! `install`: what is downloaded runs as root on every node, so versions and checksums are exact or refused.

use super::{Check, images, values};
use crate::config::document::{Checksums, ContainerdKind, HostPart, InstallPart, SwapKind, VersionsPart};
use crate::config::settings::{
    HostSettings, InstallSettings, InstallSource, KubeletNeeds, Swap, WantedVersions, WhoseContainerd,
};
use crate::config::tree::shorten;
use serde_json::{Map, Value};

/// Names of components in `install.checksums`.
const COMPONENTS: &[&str] = &["containerd", "runc", "cni-plugins", "crictl", "kubeadm", "kubelet", "kubectl"];
const ARCHITECTURES: &[&str] = &["amd64", "arm64"];

impl Check<'_> {
    /// The section; what other sections say that the machine must fit is added by the caller.
    pub(super) fn install(&mut self, part: InstallPart, cluster: Option<&str>) -> InstallSettings {
        let path = ["install"];
        let mirror = self.parse(&["install", "mirror"], part.mirror, mirror);
        let bundle = self.parse(&["install", "bundle"], part.bundle, values::absolute);
        let mut sources: Vec<InstallSource> = mirror.map(InstallSource::Mirror).into_iter().collect();
        sources.extend(bundle.map(InstallSource::Bundle));
        sources.extend((part.from_store == Some(true)).then_some(InstallSource::Store));
        if sources.len() > 1 {
            self.problem(&path, "only one of `mirror`, `bundle` and `from_store: true` can say where the files are");
        }
        InstallSettings {
            versions: self.versions(part.versions.unwrap_or_default(), cluster),
            source: sources.into_iter().next(),
            checksums: self.checksums(part.checksums.unwrap_or_default()),
            index_sha256: self.parse(&["install", "index_sha256"], part.index_sha256, sha256),
            trust_release_checksums: part.trust_release_checksums.unwrap_or(false),
            images: self.list(&["install", "images"], part.images, pinned_image),
            containerd: part.containerd.map(|kind| match kind {
                ContainerdKind::Install => WhoseContainerd::Install,
                ContainerdKind::Keep => WhoseContainerd::Keep,
            }),
            host: self.host(part.host.unwrap_or_default()),
            ..InstallSettings::default()
        }
    }

    /// kubeadm, kubelet and kubectl are of one version; the cluster's when the section says none.
    fn versions(&mut self, part: VersionsPart, cluster: Option<&str>) -> WantedVersions {
        let kubernetes = |text: &str| values::version(text).map(|version| bare(&version.to_string()));
        let all = self.parse(&["install", "versions", "kubernetes"], part.kubernetes, kubernetes);
        let mut named: Option<(&str, String)> = all.map(|version| ("kubernetes", version));
        for (key, text) in [("kubeadm", part.kubeadm), ("kubelet", part.kubelet), ("kubectl", part.kubectl)] {
            let Some(version) = self.parse(&["install", "versions", key], text, kubernetes) else { continue };
            match &named {
                Some((other, first)) if *first != version => {
                    let why = format!(
                        "{version} is not the {first} of `install.versions.{other}`; kubeadm, kubelet and kubectl are \
                         installed in one version: write `install.versions.kubernetes` alone"
                    );
                    self.problem(&["install", "versions", key], why);
                }
                Some(_) => {}
                None => named = Some((key, version)),
            }
        }
        let cluster = cluster.and_then(|text| kubernetes(text).ok());
        let mut other =
            |key: &'static str, text: Option<String>| self.parse(&["install", "versions", key], text, release);
        WantedVersions {
            kubernetes: named.map(|(_, version)| version).or(cluster),
            containerd: other("containerd", part.containerd),
            runc: other("runc", part.runc),
            cni_plugins: other("cni_plugins", part.cni_plugins),
            crictl: other("crictl", part.crictl),
        }
    }

    fn checksums(&mut self, all: Checksums) -> Checksums {
        let mut checked = Checksums::new();
        for (component, versions) in all {
            if !COMPONENTS.contains(&component.as_str()) {
                let why = format!("{:?} is not a component: {}", shorten(&component), COMPONENTS.join(", "));
                self.problem(&["install", "checksums", &component], why);
                continue;
            }
            for (version, digests) in versions {
                let path = ["install", "checksums", &component, &version];
                let Some(release) = self.parse(&path, Some(&version), release) else { continue };
                for (arch, digest) in digests {
                    let path = [&path[..], &[arch.as_str()]].concat();
                    if !ARCHITECTURES.contains(&arch.as_str()) {
                        self.problem(&path, format!("{:?} is not amd64 or arm64", shorten(&arch)));
                    } else if let Some(digest) = self.parse(&path, Some(digest), sha256) {
                        let of_component = checked.entry(component.clone()).or_default();
                        of_component.entry(release.clone()).or_default().insert(arch, digest);
                    }
                }
            }
        }
        checked
    }

    fn host(&mut self, part: HostPart) -> HostSettings {
        let sysctls = part.sysctls.unwrap_or_default();
        for (name, value) in &sysctls {
            let path = ["install", "host", "sysctls", name.as_str()];
            self.parse(&path, Some(name), sysctl_name);
            self.parse(&path, Some(value), sysctl_value);
        }
        HostSettings {
            modules: self.list(&["install", "host", "modules"], part.modules, module),
            sysctls,
            swap: part.swap.map(|kind| match kind {
                SwapKind::Off => Swap::Off,
                SwapKind::Keep => Swap::Keep,
            }),
        }
    }
}

/// What the kubelet's patch says of the machine.
pub(super) fn kubelet_needs(patch: &Map<String, Value>) -> KubeletNeeds {
    let is = |key: &str, value: Value| patch.get(key) == Some(&value);
    KubeletNeeds {
        systemd_cgroups: !is("cgroupDriver", "cgroupfs".into()),
        fails_on_cgroup_v1: !is("failCgroupV1", false.into()),
        fails_on_swap: !is("failSwapOn", false.into()),
    }
}

fn bare(version: &str) -> String {
    version.strip_prefix('v').unwrap_or(version).to_owned()
}

/// It becomes part of a URL and of a path.
fn release(text: &str) -> Result<String, String> {
    let version = bare(text);
    let (core, suffix) = version.split_at(version.find(['-', '+']).unwrap_or(version.len()));
    let number = |part: &str| (1..=5).contains(&part.len()) && part.chars().all(|c| c.is_ascii_digit());
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let is = core.split('.').count() == 3 && core.split('.').all(number) && suffix.chars().all(safe);
    if is && version.len() <= 64 {
        Ok(version)
    } else {
        Err(format!("{:?} is not a version such as 2.1.4", shorten(text)))
    }
}

/// A base URL with a path.
fn mirror(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    let start = trimmed.find("://").map_or(0, |at| at + 3);
    let (base, path) = trimmed.split_at(trimmed[start..].find('/').map_or(trimmed.len(), |at| start + at));
    values::base_url(base)?;
    let segment = |part: &str| {
        !matches!(part, "" | "." | "..") && part.chars().all(|c| c.is_ascii_alphanumeric() || "-._~%+".contains(c))
    };
    if path.is_empty() || path[1..].split('/').all(segment) {
        return Ok(trimmed.to_owned());
    }
    Err(format!("{:?} is not a base URL such as https://mirror.example.com/k8s", shorten(text)))
}

fn pinned_image(text: &str) -> Result<String, String> {
    let image = images::image(text)?;
    if image.contains("@sha256:") {
        return Ok(image);
    }
    Err(format!("{:?} has no digest: a tag can be moved; write it as name:tag@sha256:...", shorten(text)))
}

fn sha256(text: &str) -> Result<String, String> {
    let digest = text.to_ascii_lowercase();
    let is = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
    if is { Ok(digest) } else { Err(format!("{:?} is not a SHA-256: 64 hex digits", shorten(text))) }
}

/// A name for modprobe: it becomes an argument.
fn module(text: &str) -> Result<String, String> {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let is = (1..=64).contains(&text.len()) && text.chars().all(safe) && !text.starts_with('-');
    if is { Ok(text.to_owned()) } else { Err(format!("{:?} is not the name of a kernel module", shorten(text))) }
}

/// It becomes a path below /proc/sys.
fn sysctl_name(text: &str) -> Result<(), String> {
    let safe = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-/".contains(c));
    let climbs = text.contains('/') && text.split(['.', '/']).any(str::is_empty);
    let is = text.contains('.') && text.len() <= 256 && text.split('.').all(safe) && !climbs;
    if is { Ok(()) } else { Err(format!("{:?} is not a name such as net.ipv4.ip_forward", shorten(text))) }
}

fn sysctl_value(text: &str) -> Result<(), String> {
    let is = !text.trim().is_empty() && text.len() <= 256 && !text.chars().any(char::is_control);
    if is { Ok(()) } else { Err(format!("{:?} is not a value: one line of text", shorten(text))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layer, load_install};
    use std::path::PathBuf;

    fn settings(text: &str) -> InstallSettings {
        load_install(vec![Layer::document("c", text)]).unwrap_or_else(|found| panic!("{found:?}")).install
    }

    #[test]
    fn a_machine_without_role_cluster_and_store_can_be_installed() {
        let empty = settings("{}");
        assert_eq!(empty, InstallSettings::default());
        assert!(empty.kubelet.systemd_cgroups && empty.kubelet.fails_on_swap && empty.kubelet.fails_on_cgroup_v1);
        let loaded = load_install(vec![Layer::document("c", "cluster: a\nrole: worker\nstore: file:///srv/s\n")]);
        assert!(loaded.expect("good").node.is_some(), "what is said of the node is there too");
    }

    #[test]
    fn the_section_is_taken_over() {
        let digest = "a".repeat(64);
        let text = format!(
            "install:
  versions: {{ kubernetes: v1.36.1, kubelet: 1.36.1, containerd: v2.1.4 }}
  mirror: https://mirror.example.com/k8s/
  checksums: {{ kubelet: {{ v1.36.1: {{ amd64: {} }} }} }}
  images: ['registry.k8s.io/pause:3.10.2@sha256:{digest}']
  containerd: keep
  host: {{ modules: [nf_conntrack], sysctls: {{ fs.inotify.max_user_watches: '524288' }}, swap: off }}
images: {{ sandbox: 'registry.example.com/pause:3.10' }}
ecr: {{ certs_dir: /srv/certs.d }}
kubeadm: {{ KubeletConfiguration: {{ cgroupDriver: cgroupfs, failCgroupV1: false, failSwapOn: false }} }}
",
            digest.to_uppercase()
        );
        let said = settings(&text);
        assert_eq!(said.versions.kubernetes.as_deref(), Some("1.36.1"));
        assert_eq!(said.versions.containerd.as_deref(), Some("2.1.4"));
        assert_eq!(said.source, Some(InstallSource::Mirror("https://mirror.example.com/k8s".into())));
        assert_eq!(said.checksums["kubelet"]["1.36.1"]["amd64"], digest, "found by the version without its v");
        assert_eq!((said.containerd, said.host.swap), (Some(WhoseContainerd::Keep), Some(Swap::Off)));
        assert_eq!(said.sandbox.as_deref(), Some("registry.example.com/pause:3.10"));
        assert_eq!(said.certs_dir, Some(PathBuf::from("/srv/certs.d")));
        let needs = KubeletNeeds { systemd_cgroups: false, fails_on_cgroup_v1: false, fails_on_swap: false };
        assert_eq!(said.kubelet, needs);
    }

    #[test]
    fn the_clusters_version_is_installed_when_none_is_named() {
        let of = |text: &str| settings(text).versions.kubernetes;
        assert_eq!(of("kubernetes: { version: v1.35.2 }").as_deref(), Some("1.35.2"));
        let both = "kubernetes: { version: v1.35.2 }\ninstall: { versions: { kubernetes: v1.36.0 } }";
        assert_eq!(of(both).as_deref(), Some("1.36.0"));
    }

    #[test]
    fn bad_values_are_refused_with_their_place() {
        let cases = [
            ("install: { verions: {} }", "c:1:12: unknown key \"verions\""),
            ("install: { versions: { kubernetes: v1.36 } }", "c:1:36: `install.versions.kubernetes`"),
            ("install: { versions: { kubelet: v1.36.1, kubeadm: v1.36.0 } }", "is not the 1.36.0 of"),
            ("install: { versions: { kubernetes: v1.36.1, kubectl: v1.35.0 } }", "kubeadm, kubelet and kubectl"),
            ("install: { versions: { containerd: ../2.1.4 } }", "is not a version"),
            ("install: { versions: { runc: '1.3' } }", "is not a version"),
            ("install: { mirror: mirror.example.com }", "is not a base URL"),
            ("install: { mirror: 'https://u:hunter2@m.example.com/k8s' }", "contains a user"),
            ("install: { mirror: 'https://m.example.com/../k8s' }", "is not a base URL"),
            ("install: { bundle: bundle.tar }", "is not an absolute path"),
            ("install: { index_sha256: abc }", "is not a SHA-256"),
            ("install: { mirror: 'https://m.example.com', from_store: true }", "only one of"),
            ("install: { checksums: { kublet: {} } }", "is not a component"),
            ("install: { checksums: { runc: { 1.3.0: { amd64: abc } } } }", "is not a SHA-256"),
            ("install: { checksums: { runc: { 1.3.0: { x86: abc } } } }", "is not amd64 or arm64"),
            ("install: { images: ['registry.k8s.io/pause:3.10'] }", "has no digest"),
            ("install: { containerd: ours }", "must be one of install, keep"),
            ("install: { host: { modules: ['-r overlay'] } }", "is not the name of a kernel module"),
            ("install: { host: { sysctls: { '../../etc/passwd': '1' } } }", "is not a name such as"),
            ("install: { host: { sysctls: { net.ipv4.ip_forward: \"1\\n2\" } } }", "is not a value"),
            ("install: { host: { swap: false } }", "`install.host.swap`"),
            ("role: workr", "`role` must be one of"),
        ];
        for (text, words) in cases {
            let found = load_install(vec![Layer::document("c", text)]).err().unwrap_or_default();
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert!(found.len() == 1 && found[0].starts_with("c:1:") && found[0].contains(words), "{text}: {found:?}");
            assert!(!found[0].contains("hunter2"), "{found:?}");
        }
    }
}
