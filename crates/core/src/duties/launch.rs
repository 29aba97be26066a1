//! `signal-launch`: tells the launch hook of the Auto Scaling group that this instance is alive, and once that it is a
//! node.

use crate::end::hooks::{BEAT, Hook};
use crate::end::{events, launch};
use crate::engine::Duty;
use crate::identity::Imds;
use crate::kube::Api;
use crate::model::cause::Outcome;
use crate::model::report::Phase;
use crate::node::{Event, Node};
use crate::ports::LifecycleResult;
use async_trait::async_trait;
use std::cell::{OnceCell, RefCell};
use std::time::Duration;

/// How soon it is seen that the bootstrap is over, and that the node is Ready.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Where there is no hook, or nothing more to tell it.
const NEVER: Duration = Duration::from_secs(60 * 60);

/// Signals the launch.
#[derive(Default)]
pub(super) struct LaunchDuty {
    hook: Hook,
    imds: OnceCell<Imds>,
    over: RefCell<bool>,
}

#[async_trait(?Send)]
impl Duty for LaunchDuty {
    fn name(&self) -> &'static str {
        "signal-launch"
    }

    fn runs_during_bootstrap(&self) -> bool {
        true
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(90)
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        let Some(name) = launch::hook(node) else { return Ok(NEVER) };
        if *self.over.borrow() {
            return Ok(NEVER);
        }
        let imds = self.imds.get_or_init(|| Imds::new(node.world.metadata.clone(), node.world.time.clone()));
        // An instance of a warm pool is launched twice, and waits at its hook twice.
        let target = launch::target(imds).await?;
        // On its way out nothing waits for its launch any more.
        let ends = events::lifecycle(&target)?.is_some();
        if ends || launch::is_signalled(node, name, Some(&target))? {
            self.over.replace(true);
            return Ok(NEVER);
        }
        if !is_ready(node).await? {
            self.hook.beat(node, name).await?;
            return Ok(LOOK_EVERY.min(BEAT));
        }
        if !self.hook.complete(node, name, LifecycleResult::Continue).await? {
            return Ok(LOOK_EVERY);
        }
        launch::note(node, name, &target)?;
        node.tell(&Event::Note(&format!("the launch hook {name} was told to continue")));
        self.over.replace(true);
        Ok(NEVER)
    }
}

/// Whether the bootstrap is over and the cluster calls the node Ready.
async fn is_ready(node: &Node) -> Outcome<bool> {
    if node.status().phase != Phase::Ready {
        return Ok(false);
    }
    let view = Api::kubelet(&node.world.cluster).node(&node.identity.node_name).await?;
    Ok(view.is_some_and(|view| view.ready))
}

#[cfg(test)]
mod tests;
