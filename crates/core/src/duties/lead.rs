//! `lead`: takes part in the election of the one master that carries out the duties of which a cluster needs one.

use crate::engine::Duty;
use crate::kube::Api;
use crate::kube::lease::{RENEW_EVERY, leads};
use crate::model::cause::{Cause, Outcome};
use crate::node::{Event, Node};
use async_trait::async_trait;
use std::cell::Cell;
use std::time::Duration;

#[derive(Default)]
pub(crate) struct LeadDuty {
    /// Why the last rounds failed: it is told once.
    told: Cell<Option<Cause>>,
}

#[async_trait(?Send)]
impl Duty for LeadDuty {
    fn name(&self) -> &'static str {
        "lead"
    }

    fn deadline(&self) -> Duration {
        // Two requests, each with a deadline of its own.
        Duration::from_secs(60)
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        let round = match Api::local(node) {
            Ok(api) => node.lease.round(node, &api).await,
            Err(failure) => Err(failure),
        };
        // A round that failed does not end the lead: only time does, for the Lease still stands.
        node.lease.show(node, leads(node).await?);
        match round {
            Ok(_) => self.told.set(None),
            // An election has no back-off: whoever comes back late to it is late with everything that only a leader does.
            Err(failure) => {
                if self.told.replace(Some(failure.cause)) != Some(failure.cause) {
                    node.tell(&Event::Retrying {
                        what: self.name(),
                        beside: true,
                        failure: &failure,
                        after: RENEW_EVERY,
                    });
                }
            }
        }
        Ok(RENEW_EVERY)
    }
}
