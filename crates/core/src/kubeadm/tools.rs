//! The tools a node needs, and their versions.

use super::output::tail;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::version::{KubeVersion, OLDEST_KUBEADM_MINOR};
use crate::node::Node;
use std::time::Duration;

/// Printing a version reads one binary from disk; a cold, throttled disk takes seconds.
const VERSION_DEADLINE: Duration = Duration::from_secs(20);

/// Versions of the tools on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// kubeadm's.
    pub kubeadm: KubeVersion,
    /// The kubelet's.
    pub kubelet: KubeVersion,
}

/// Asks the tools for their versions. `ToolMissing` when one is not installed, `ToolFailed` when its answer is not a
/// version or is older than what reads v1beta4 documents.
///
/// What was found once in this life is remembered in the node's status: asking costs two processes, and a worker asks
/// right before it joins.
pub async fn versions(node: &Node) -> Outcome<Tools> {
    let known = node.status().versions;
    let remembered = |tool: &str| known.get(tool).and_then(|text| KubeVersion::parse(text).ok());
    if let (Some(kubeadm), Some(kubelet)) = (remembered("kubeadm"), remembered("kubelet")) {
        return Ok(Tools { kubeadm, kubelet });
    }
    let kubeadm = ask(node, &["kubeadm", "version", "-o", "short"]).await?;
    let kubelet = ask(node, &["kubelet", "--version"]).await?;
    if kubeadm.major == 1 && kubeadm.minor < OLDEST_KUBEADM_MINOR {
        let why = format!("it is {kubeadm}; v1.{OLDEST_KUBEADM_MINOR} is the first that reads v1beta4 documents");
        return Err(
            Failure::new(Cause::VersionSkew, "use this machine's kubeadm", why).advise("install a newer kubeadm")
        );
    }
    node.update(|status| {
        status.versions.insert("kubeadm".to_owned(), kubeadm.to_string());
        status.versions.insert("kubelet".to_owned(), kubelet.to_string());
    });
    Ok(Tools { kubeadm, kubelet })
}

async fn ask(node: &Node, argv: &[&str]) -> Outcome<KubeVersion> {
    let argv: Vec<String> = argv.iter().map(|part| (*part).to_owned()).collect();
    let attempted = format!("run `{}`", argv.join(" "));
    let output = node.world.jobs.run(&argv, VERSION_DEADLINE).await?;
    if output.code != Some(0) {
        let said = tail(&output.stderr).join("; ");
        let how = output.code.map_or("a signal ended it".to_owned(), |code| format!("it ended with exit code {code}"));
        return Err(Failure::new(Cause::ToolFailed, attempted, format!("{how}: {said}")));
    }
    KubeVersion::find(&output.stdout).ok_or_else(|| {
        let shown: String = output.stdout.chars().take(80).collect();
        Failure::new(Cause::ToolFailed, attempted, format!("{:?} is not a version", shown.trim()))
    })
}
