//! `containerd-configuration`: what the kubelet expects of containerd, for the containerd that is there.

use super::{Item, Job, Runtime, State, Step, Text, files, owner};
use async_trait::async_trait;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::version::KubeVersion;
use std::time::Duration;

/// Where containerd reads it.
const PATH: &str = "/etc/containerd/config.toml";
/// Where crictl reads where containerd is.
const CRICTL: &str = "/etc/crictl.yaml";
/// Where containerd's documentation has its hosts.
const CERTS_DIR: &str = "/etc/containerd/certs.d";
/// Asking a program for its version, or a package manager for an owner.
pub(super) const QUICK: Duration = Duration::from_secs(30);
/// The first minor of Kubernetes whose kubelet no longer works with containerd 1.x (announced with Kubernetes 1.35).
const NEEDS_CONTAINERD_2: u32 = 36;

/// Writes containerd's configuration, and crictl's.
pub struct Configuration;

#[async_trait(?Send)]
impl Step for Configuration {
    fn name(&self) -> &'static str {
        "containerd-configuration"
    }

    fn describe(&self) -> &'static str {
        "systemd cgroups, the sandbox image, registries in certs.d, and where CNI plugins are"
    }

    async fn check(&self, job: &Job<'_>) -> Outcome<Vec<Item>> {
        refuse_old(job)?;
        let mut items = Vec::new();
        for text in texts(job) {
            items.push(files::one(job, &text, may_replace(job, &text).await?)?);
        }
        Ok(items)
    }

    async fn apply(&self, job: &Job<'_>) -> Outcome<()> {
        for text in texts(job) {
            if files::one(job, &text, may_replace(job, &text).await?)?.state == State::Wanted {
                files::write(job, &text)?;
            }
        }
        Ok(())
    }
}

/// What a package brought and nobody changed is nobody's work.
async fn may_replace(job: &Job<'_>, text: &Text) -> Outcome<bool> {
    Ok(job.replace || owner::is_a_packages_own(&job.host, &text.path).await?)
}

fn refuse_old(job: &Job<'_>) -> Outcome<()> {
    let Runtime::Kept { path, version: Some(version) } = &job.runtime else { return Ok(()) };
    let wanted = job.versions.of(crate::catalog::Component::Kubelet);
    let minor = KubeVersion::parse(wanted).map_or(0, |version| version.minor);
    if minor < NEEDS_CONTAINERD_2 || !version.starts_with("1.") {
        return Ok(());
    }
    let why = format!("{path} is containerd {version}, and the kubelet of Kubernetes {wanted} needs containerd 2");
    let failure = Failure::new(Cause::Configuration, "keep the machine's containerd", why);
    Err(failure.advise("say `install.containerd: install`, and another one is put beside it"))
}

/// The files of this step.
pub(super) fn texts(job: &Job<'_>) -> Vec<Text> {
    let version = match &job.runtime {
        Runtime::Ours => Some(job.versions.of(crate::catalog::Component::Containerd)),
        Runtime::Kept { version, .. } => version.as_deref(),
    };
    let sandbox = sandbox(job);
    let certs = job.settings.certs_dir.as_ref().map_or(CERTS_DIR.to_owned(), |path| path.display().to_string());
    let body = configuration(version, &sandbox, &certs, job.settings.kubelet.systemd_cgroups);
    vec![Text::new(PATH, body), Text::new(CRICTL, crictl())]
}

fn crictl() -> String {
    let socket = "unix:///run/containerd/containerd.sock";
    format!("# Written by `kubestrap install`.\nruntime-endpoint: {socket}\nimage-endpoint: {socket}\n")
}

/// The sandbox image of this machine.
pub(super) fn sandbox(job: &Job<'_>) -> String {
    job.settings.sandbox.clone().unwrap_or_else(|| sandbox_of(job.versions.of(crate::catalog::Component::Kubelet)))
}

/// The sandbox image of a Kubernetes version (kubeadm, `constants.go`, `PauseVersion`).
fn sandbox_of(kubernetes: &str) -> String {
    let minor = KubeVersion::parse(kubernetes).map_or(u32::MAX, |version| version.minor);
    let version = match minor {
        ..=33 => "3.10",
        34 | 35 => "3.10.1",
        _ => "3.10.2",
    };
    format!("registry.k8s.io/pause:{version}")
}

/// The version in what `containerd --version` prints: `containerd github.com/containerd/containerd/v2 2.1.9+unknown`.
pub(super) fn version_in(said: &str) -> Option<String> {
    let version = |word: &str| {
        let word = word.strip_prefix('v').unwrap_or(word);
        let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
        (word[..end].split('.').filter(|part| !part.is_empty()).count() == 3).then(|| word[..end].to_owned())
    };
    said.split_whitespace().find_map(version)
}

fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// The text for a containerd of this version. One of an unknown version gets the form of 1.x, which 2.x reads too.
fn configuration(version: Option<&str>, sandbox: &str, certs: &str, systemd: bool) -> String {
    let numbers = version.map(numbers).unwrap_or((1, 0));
    let head = "# Written by `kubestrap install`. What is to be different belongs into /etc/containerd/conf.d/*.toml, which is read\n\
                # after this file: a file that was changed here is no longer kept up to date.\n";
    let imports = "imports = [\"/etc/containerd/conf.d/*.toml\"]";
    // containerd 2.1 reads both keys, and the plural's default would come first.
    let plugins = match numbers {
        (2.., 1..) | (3.., _) => "bin_dirs = [\"/opt/cni/bin\"]",
        _ => "bin_dir = \"/opt/cni/bin\"",
    };
    if numbers.0 < 2 {
        let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
        return format!(
            "{head}version = 2\n{imports}\n\n[{cri}]\n  sandbox_image = \"{sandbox}\"\n\n[{cri}.registry]\n  \
             config_path = \"{certs}\"\n\n[{cri}.cni]\n  {plugins}\n  conf_dir = \"/etc/cni/net.d\"\n\n\
             [{cri}.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\n\
             [{cri}.containerd.runtimes.runc.options]\n  SystemdCgroup = {systemd}\n"
        );
    }
    let (images, runtime) = ("plugins.\"io.containerd.cri.v1.images\"", "plugins.\"io.containerd.cri.v1.runtime\"");
    format!(
        "{head}version = 3\n{imports}\n\n[{images}.pinned_images]\n  sandbox = \"{sandbox}\"\n\n[{images}.registry]\n  \
         config_path = \"{certs}\"\n\n[{runtime}.cni]\n  {plugins}\n  conf_dir = \"/etc/cni/net.d\"\n\n\
         [{runtime}.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\n\
         [{runtime}.containerd.runtimes.runc.options]\n  SystemdCgroup = {systemd}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_containerd_gets_the_form_that_it_reads() {
        let of = |version| configuration(version, "registry.k8s.io/pause:3.10.2", "/etc/containerd/certs.d", true);
        for (version, form, plugins) in [
            (Some("1.7.27"), "version = 2", "bin_dir = "),
            (Some("2.0.5"), "version = 3", "bin_dir = "),
            (Some("2.1.9"), "version = 3", "bin_dirs = ["),
            (Some("3.0.0"), "version = 3", "bin_dirs = ["),
            (None, "version = 2", "bin_dir = "),
        ] {
            let text = of(version);
            assert!(text.contains(form) && text.contains(plugins), "{version:?}: {text}");
            assert!(text.contains("SystemdCgroup = true") && text.contains("pause:3.10.2"), "{text}");
            assert!(text.contains("config_path = \"/etc/containerd/certs.d\""), "{text}");
        }
        assert!(of(Some("2.1.9")).contains("[plugins.\"io.containerd.cri.v1.images\".pinned_images]"));
        assert!(of(Some("1.7.27")).contains("sandbox_image = "));
        assert!(configuration(None, "a", "b", false).contains("SystemdCgroup = false"));
    }

    #[test]
    fn versions_are_found_in_what_containerds_say() {
        for (said, version) in [
            ("containerd github.com/containerd/containerd/v2 2.1.9+unknown \n", "2.1.9"),
            ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1\n", "1.6.20"),
            ("containerd containerd.io v1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da", "1.7.27"),
        ] {
            assert_eq!(version_in(said).as_deref(), Some(version));
        }
        assert_eq!(version_in("containerd"), None);
    }

    #[test]
    fn the_sandbox_is_that_of_the_kubernetes_version() {
        assert_eq!(sandbox_of("1.33.0"), "registry.k8s.io/pause:3.10");
        assert_eq!(sandbox_of("1.35.1"), "registry.k8s.io/pause:3.10.1");
        assert_eq!(sandbox_of("1.36.4"), "registry.k8s.io/pause:3.10.2");
    }
}
