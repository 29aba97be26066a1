//! `publish-join-bundle`: a usable bundle is in the store at all times. The master that leads sees to it.

use crate::engine::Duty;
use crate::join::publish::Publisher;
use crate::kube::lease::{FOLLOWING, leads};
use crate::model::cause::Outcome;
use crate::node::Node;
use async_trait::async_trait;
use std::time::Duration;

/// A revoked token is noticed within this time (facts: reliability.md promises a minute).
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Looks each minute whether the token still exists, and publishes what is due.
#[derive(Default)]
pub(super) struct BundleDuty {
    publisher: Publisher,
}

#[async_trait(?Send)]
impl Duty for BundleDuty {
    fn name(&self) -> &'static str {
        "publish-join-bundle"
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(3 * 60)
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        if !leads(node).await? {
            return Ok(FOLLOWING);
        }
        self.publisher.refresh(node).await?;
        Ok(LOOK_EVERY)
    }
}
