//! The ends of the join bundle: the master that publishes it, the worker that waits for it, and the further master, which
//! needs more than a bundle.

pub mod control_plane;
mod kubelet;
pub mod publish;
mod turn;
pub mod visitor;
pub mod wait;

use crate::kubeadm::tools;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::version::kubelet_skew;
use crate::node::Node;
use crate::store::bundle::VerifiedBundle;

/// Refused before the machine is touched: a kubelet that the API server will not serve.
pub(crate) async fn check_skew(node: &Node, bundle: &VerifiedBundle) -> Outcome<()> {
    let tools = tools::versions(node).await?;
    match kubelet_skew(&tools.kubelet, &bundle.bundle().server_version) {
        None => Ok(()),
        Some(why) => Err(Failure::new(Cause::VersionSkew, "join the cluster", why)),
    }
}
