//! Which versions are installed together.

use super::Component;
use crate::lock;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::version::{KubeVersion, OLDEST_KUBEADM_MINOR};

/// The first minor of Kubernetes whose kubelet no longer works with containerd 1.x (announced with Kubernetes 1.35).
const NEEDS_CONTAINERD_2: u32 = 36;

/// Versions that the configuration asks for, with or without a leading `v`; what is `None` is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// kubeadm, kubelet and kubectl.
    pub kubernetes: Option<String>,
    /// Only to be checked: must be the same as `kubernetes`.
    pub kubeadm: Option<String>,
    /// Only to be checked: must be the same as `kubernetes`.
    pub kubelet: Option<String>,
    /// Only to be checked: must be the same as `kubernetes`.
    pub kubectl: Option<String>,
    /// containerd.
    pub containerd: Option<String>,
    /// runc.
    pub runc: Option<String>,
    /// The CNI project's reference plugins.
    pub cni_plugins: Option<String>,
    /// crictl.
    pub crictl: Option<String>,
}

/// Versions that fit together, each without a leading `v`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    kubernetes: String,
    containerd: String,
    runc: String,
    cni_plugins: String,
    crictl: String,
}

/// `MAJOR.MINOR.PATCH[-PRE]` without the leading `v`, or why it is none. Versions become part of URLs and paths.
pub fn check_version(text: &str) -> Result<String, String> {
    match KubeVersion::parse(text) {
        Ok(version) if !version.to_string().contains(['+', '_']) => {
            Ok(version.to_string().trim_start_matches('v').to_owned())
        }
        _ => Err(format!("{text:?} is not a released version such as 1.36.4")),
    }
}

fn refuse(why: String) -> Failure {
    Failure::new(Cause::Configuration, "choose the versions to install", why).advise("correct `install.versions`")
}

fn choose(component: Component, asked: Option<&str>) -> Outcome<String> {
    let Some(asked) = asked else { return lock::newest(component).map(str::to_owned) };
    check_version(asked).map_err(|why| refuse(format!("{component}: {why}")))
}

impl Versions {
    /// Fills in what is not asked for with the newest version of the shipped lock, and refuses what does not fit
    /// together: kubeadm, kubelet and kubectl that differ, a kubeadm that does not read our documents, containerd 1.x
    /// under a kubelet that needs 2.
    pub fn resolve(wanted: &Wanted) -> Outcome<Versions> {
        let first =
            [&wanted.kubernetes, &wanted.kubeadm, &wanted.kubelet, &wanted.kubectl].into_iter().flatten().next();
        let kubernetes = choose(Component::Kubeadm, first.map(String::as_str))?;
        for (name, other) in [("kubeadm", &wanted.kubeadm), ("kubelet", &wanted.kubelet), ("kubectl", &wanted.kubectl)]
        {
            let Some(other) = other else { continue };
            let other = check_version(other).map_err(|why| refuse(format!("{name}: {why}")))?;
            if other != kubernetes {
                return Err(refuse(format!(
                    "{name} is {other} and Kubernetes is {kubernetes}: kubeadm, kubelet and kubectl of a machine must be \
                     of one version, for kubeadm refuses a kubelet that is newer than itself or too old"
                )));
            }
        }
        let versions = Versions {
            kubernetes,
            containerd: choose(Component::Containerd, wanted.containerd.as_deref())?,
            runc: choose(Component::Runc, wanted.runc.as_deref())?,
            cni_plugins: choose(Component::CniPlugins, wanted.cni_plugins.as_deref())?,
            crictl: choose(Component::Crictl, wanted.crictl.as_deref())?,
        };
        versions.fit_together()?;
        Ok(versions)
    }

    fn fit_together(&self) -> Outcome<()> {
        let parsed = KubeVersion::parse(&self.kubernetes).map_err(refuse)?;
        if parsed.major == 1 && parsed.minor < OLDEST_KUBEADM_MINOR {
            return Err(refuse(format!(
                "Kubernetes {} is older than 1.{OLDEST_KUBEADM_MINOR}, whose kubeadm is the first that reads v1beta4 documents",
                self.kubernetes
            )));
        }
        if parsed.minor >= NEEDS_CONTAINERD_2 && self.containerd.starts_with("1.") {
            return Err(refuse(format!(
                "the kubelet of Kubernetes {} needs containerd 2, not {}",
                self.kubernetes, self.containerd
            )));
        }
        Ok(())
    }

    /// The version of a component.
    pub fn of(&self, component: Component) -> &str {
        match component {
            Component::Containerd => &self.containerd,
            Component::Runc => &self.runc,
            Component::CniPlugins => &self.cni_plugins,
            Component::Crictl => &self.crictl,
            Component::Kubeadm | Component::Kubelet | Component::Kubectl => &self.kubernetes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubernetes(version: &str) -> Wanted {
        Wanted { kubernetes: Some(version.to_owned()), ..Wanted::default() }
    }

    #[test]
    fn what_is_not_asked_for_is_the_newest_of_the_lock() {
        let versions = Versions::resolve(&Wanted::default()).expect("defaults fit together");
        for component in Component::ALL {
            assert_eq!(versions.of(component), lock::newest(component).expect("locked"));
        }
        assert_eq!(Versions::resolve(&kubernetes("v1.35.8")).expect("fits").of(Component::Kubelet), "1.35.8");
    }

    #[test]
    fn kubeadm_and_kubelet_share_a_version() {
        let mut wanted = kubernetes("1.36.4");
        wanted.kubelet = Some("v1.36.4".into());
        assert!(Versions::resolve(&wanted).is_ok());
        wanted.kubelet = Some("1.35.8".into());
        let why = Versions::resolve(&wanted).expect_err("skew");
        assert_eq!(why.cause, Cause::Configuration);
        assert!(why.detail.contains("kubelet is 1.35.8 and Kubernetes is 1.36.4"), "{why}");
        let two = Wanted { kubeadm: Some("1.36.4".into()), kubectl: Some("1.36.3".into()), ..Wanted::default() };
        assert!(Versions::resolve(&two).expect_err("skew").detail.contains("kubectl is 1.36.3"));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        assert!(Versions::resolve(&kubernetes("1.30.1")).expect_err("v1beta3").detail.contains("v1beta4"));
        let mut old = kubernetes("1.36.4");
        old.containerd = Some("1.7.34".into());
        assert!(Versions::resolve(&old).expect_err("containerd 1").detail.contains("needs containerd 2"));
        old.kubernetes = Some("1.35.8".into());
        assert!(Versions::resolve(&old).is_ok());
    }

    #[test]
    fn a_version_cannot_name_another_place() {
        for bad in
            ["", "1.36", "latest", "1.36.4/../../x", "1.36.4 ", "1.36.4+abc", "1.36.4%2e", "1.36.4?x", "1.36.4-a/b"]
        {
            assert!(check_version(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(check_version("v2.3.0-rc.1"), Ok("2.3.0-rc.1".to_owned()));
    }
}
