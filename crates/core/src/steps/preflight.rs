//! `preflight`: is everything here that the other steps need?

use crate::engine::{Step, Verdict};
use crate::kubeadm::tools;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use crate::ports::FileKind;
use async_trait::async_trait;
use std::path::Path;
use std::time::Duration;

/// How long a container runtime may take to open its socket after boot (facts: reliability.md).
const RUNTIME_PATIENCE: Duration = Duration::from_secs(120);
/// The sockets kubeadm looks for, in its order (kubeadm constants.go, `DefaultCRISocket` and friends).
const SOCKETS: &[&str] = &["/run/containerd/containerd.sock", "/var/run/crio/crio.sock", "/var/run/cri-dockerd.sock"];

/// Looks for the tools and waits for the container runtime.
pub struct Preflight;

#[async_trait(?Send)]
impl Step for Preflight {
    fn name(&self) -> &'static str {
        "preflight"
    }

    fn describe(&self) -> &'static str {
        "find kubeadm and kubelet, and the container runtime's socket"
    }

    fn patience(&self, _node: &Node) -> Duration {
        RUNTIME_PATIENCE
    }

    async fn check(&self, node: &Node) -> Outcome<Verdict> {
        super::endpoint::refuse_own(node)?;
        crate::etcd::leave::refuse_left(node)?;
        let tools = tools::versions(node).await?;
        let socket = runtime_socket(node)?;
        Ok(Verdict::Done(format!("kubeadm {}, kubelet {}, {socket}", tools.kubeadm, tools.kubelet)))
    }

    /// Never wanted: what is missing is a failure of the check.
    async fn apply(&self, _node: &Node) -> Outcome<()> {
        Ok(())
    }
}

/// The path of the runtime's socket.
pub(crate) fn runtime_socket(node: &Node) -> Outcome<String> {
    let configured = node.settings.node.cri_socket.as_deref().map(|socket| socket.trim_start_matches("unix://"));
    let candidates: Vec<&str> = configured.map_or_else(|| SOCKETS.to_vec(), |socket| vec![socket]);
    for candidate in &candidates {
        if node.world.files.stat(Path::new(candidate))?.is_some_and(|info| info.kind == FileKind::Other) {
            return Ok((*candidate).to_owned());
        }
    }
    let why = format!("there is no socket at {}", candidates.join(", "));
    Err(Failure::new(Cause::RuntimeNotReady, "find the container runtime", why))
}
