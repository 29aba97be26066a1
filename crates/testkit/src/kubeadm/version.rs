//! `kubeadm version` and `kubeadm config images list`.

use super::flags::Flags;
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
pub fn images(script: &Script, flags: &Flags, root: &Path) -> Result<(), Failure> {
    let of = |flag: &str, default: &str| flags.text(flag).unwrap_or(default).to_owned();
    let mut repository = of("image-repository", "registry.k8s.io");
    let mut version = of("kubernetes-version", &script.kubeadm_version);
    if let Some(given) = flags.text("config") {
        let mixed = ["kubernetes-version", "image-repository"].into_iter().find(|flag| flags.text(flag).is_some());
        if let Some(flag) = mixed {
            return Err(Failure::new(format!("can not mix '--config' with arguments [{flag}]")));
        }
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
