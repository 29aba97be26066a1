//! `keep-register`: the register says what this master made; one that a bucket rule deleted is put back (safety rule 3).

use crate::engine::Duty;
use crate::journal::Journal;
use crate::kube::lease::{FOLLOWING, leads};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::{Event, Node};
use crate::store::Store;
use async_trait::async_trait;
use std::time::Duration;

/// Nothing depends on the register of an established cluster but workers that join, and they wait for it.
const LOOK_EVERY: Duration = Duration::from_secs(10 * 60);

pub(super) struct RegisterDuty;

#[async_trait(?Send)]
impl Duty for RegisterDuty {
    fn name(&self) -> &'static str {
        "keep-register"
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(2 * 60)
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        if !leads(node).await? {
            return Ok(FOLLOWING);
        }
        let journal = Journal::new(node.world.files.clone(), node.world.time.clone());
        let Some((attempt, ca)) = journal.attempt()?.and_then(|a| a.committed.clone().map(|ca| (a, ca))) else {
            return Ok(LOOK_EVERY);
        };
        let store = Store::of(node);
        match store.register().await? {
            None => {
                node.tell(&Event::Note("cluster.json vanished from the store; putting it back"));
                store.put_back(&attempt, &crate::steps::holder(node), node.world.time.now()).await?;
            }
            Some(seen) if seen.register.ca() != Some(&ca) || seen.register.uid != attempt.uid => {
                let why = format!(
                    "it names cluster {} with CA {}, but this machine made {} with CA {ca}",
                    seen.register.uid,
                    seen.register.ca().map_or_else(|| "none".to_owned(), ToString::to_string),
                    attempt.uid
                );
                return Err(Failure::new(Cause::ForeignCluster, "keep the cluster register", why));
            }
            Some(_) => {}
        }
        Ok(LOOK_EVERY)
    }
}
