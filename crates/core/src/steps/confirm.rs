//! `confirm-node`: the cluster knows this node.

use crate::engine::{Step, Verdict};
use crate::kube::Api;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use async_trait::async_trait;
use std::time::Duration;

/// A kubelet registers within seconds of its start; a loaded one within minutes.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How often the API server is asked, and how often before the engine is told.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOKS: u32 = 20;

/// Waits until the Node object exists, seen with the kubelet's own credentials.
pub struct ConfirmNode;

#[async_trait(?Send)]
impl Step for ConfirmNode {
    fn name(&self) -> &'static str {
        "confirm-node"
    }

    fn describe(&self) -> &'static str {
        "see that the cluster knows this node"
    }

    fn patience(&self, _node: &Node) -> Duration {
        PATIENCE
    }

    async fn check(&self, node: &Node) -> Outcome<Verdict> {
        // A node that was confirmed once stays one through an outage of the API server.
        if super::journal(node).attempt()?.is_some_and(|attempt| attempt.completed) {
            return Ok(Verdict::Done(format!("{} was confirmed", node.identity.node_name)));
        }
        match Api::kubelet(&node.world.cluster).node(&node.identity.node_name).await? {
            Some(_) => Ok(Verdict::Done(format!("{} is registered", node.identity.node_name))),
            None => Ok(Verdict::Wanted(format!("{} is not registered yet", node.identity.node_name))),
        }
    }

    async fn apply(&self, node: &Node) -> Outcome<()> {
        let name = &node.identity.node_name;
        node.wait_for(format!("the kubelet to register {name}"));
        for _ in 0..LOOKS {
            if Api::kubelet(&node.world.cluster).node(name).await?.is_some() {
                return Ok(());
            }
            node.world.time.sleep(LOOK_EVERY).await;
        }
        Err(Failure::new(Cause::NotRegistered, format!("find the node {name}"), "the API server does not know it"))
    }
}
