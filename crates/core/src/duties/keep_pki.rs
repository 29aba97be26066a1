//! `keep-pki`: the sealed keys are in the store at all times, with the encryption at rest that the leader has.

use crate::engine::Duty;
use crate::journal::Journal;
use crate::kube::lease::{FOLLOWING, leads};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::{Event, Node};
use crate::pki::{self, Judged, Kept};
use crate::store::Store;
use async_trait::async_trait;
use std::cell::RefCell;
use std::time::Duration;

/// Only a master that joins needs them; a changed file of encryption at rest reaches the store within this time.
const LOOK_EVERY: Duration = Duration::from_secs(5 * 60);

/// Looks whether the sealed keys are there and are this machine's.
#[derive(Default)]
pub(super) struct PkiDuty {
    judged: RefCell<Option<Judged>>,
}

#[async_trait(?Send)]
impl Duty for PkiDuty {
    fn name(&self) -> &'static str {
        "keep-pki"
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(2 * 60)
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        if !leads(node).await? {
            return Ok(FOLLOWING);
        }
        let journal = Journal::new(node.world.files.clone(), node.world.time.clone());
        let master = journal.attempt()?.and_then(|attempt| attempt.master_of().cloned().map(|ca| (attempt.uid, ca)));
        // A register that is missing is put back by `keep-register`, and then this goes on.
        let (Some((uid, ca)), Some(seen)) = (master, Store::of(node).register().await?) else {
            return Ok(LOOK_EVERY);
        };
        if seen.register.uid != uid || seen.register.ca() != Some(&ca) {
            let why =
                format!("the register names another cluster than {uid} with CA {ca}, whose master this machine is");
            return Err(Failure::new(Cause::ForeignCluster, "keep the sealed keys of the cluster", why));
        }
        match pki::keep(node, &seen.register, &self.judged).await? {
            Kept::Same => {}
            Kept::Sealed => node.tell(&Event::Note("this cluster's keys were not sealed; they are now in the store")),
            Kept::Replaced => {
                node.tell(&Event::Note("the encryption at rest changed; the sealed keys were replaced"));
            }
        }
        Ok(LOOK_EVERY)
    }
}
