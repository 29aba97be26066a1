//! `kubeadm version` and `kubeadm config images list`.

use super::{Failure, config, validation};
use crate::files;
use crate::script::Script;
use serde_json::json;
use std::path::Path;

/// `kubeadm version -o short|json|yaml`; without `-o` a line of Go's struct.
///
/// # Errors
/// For an unknown format.
pub fn print(script: &Script, output: Option<&str>) -> Result<(), Failure> {
    let version = &script.kubeadm_version;
    let (major, minor) = validation::minor(version)
        .ok_or_else(|| Failure::new(format!("the script's kubeadm_version {version:?} is not a version")))?;
    match output {
        Some("short") => println!("{version}"),
        Some("json") => {
            let info = json!({"clientVersion": {
                "major": major.to_string(), "minor": minor.to_string(), "gitVersion": version,
                "gitCommit": "standin", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
                "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
            }});
            println!("{}", serde_json::to_string_pretty(&info).map_err(|e| Failure::new(e.to_string()))?);
        }
        None => println!(
            "kubeadm version: &version.Info{{Major:\"{major}\", Minor:\"{minor}\", GitVersion:\"{version}\", \
             GitCommit:\"standin\", Platform:\"linux/amd64\"}}"
        ),
        Some(other) => return Err(Failure::new(format!("invalid output format: {other}"))),
    }
    Ok(())
}

/// `kubeadm config images list`: the control plane's images.
///
/// # Errors
/// When the configuration is refused.
pub fn images(script: &Script, config: Option<&str>, root: &Path) -> Result<(), Failure> {
    let (mut repository, mut version) = ("registry.k8s.io".to_owned(), script.kubeadm_version.clone());
    if let Some(given) = config {
        let inside = files::under(root, given);
        let path = if inside.exists() { inside } else { given.into() };
        let cluster = config::load_init(&path, &script.kubeadm_version)?.cluster;
        (repository, version) = (cluster.image_repository, cluster.kubernetes_version);
    }
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        println!("{repository}/{component}:{version}");
    }
    println!("{repository}/coredns/coredns:v1.13.1\n{repository}/pause:3.10.1\n{repository}/etcd:3.6.6-0");
    Ok(())
}
