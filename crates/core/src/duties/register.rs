//! `keep-register`: the register says what this master made; one that a bucket rule deleted is put back (safety rule 3).

use crate::engine::Duty;
use crate::journal::{Attempt, AttemptKind, Journal};
use crate::kube::lease::{FOLLOWING, leads};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::{Event, Node};
use crate::store::Store;
use async_trait::async_trait;
use std::cell::Cell;
use std::time::Duration;

/// Nothing depends on the register of an established cluster but workers that join, and they wait for it.
const LOOK_EVERY: Duration = Duration::from_secs(10 * 60);

/// How long after its start an agent looks often for a lock of its own that came late, and how often.
const LATE_FOR: Duration = Duration::from_secs(10 * 60);
const LATE_EVERY: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct RegisterDuty {
    /// When this machine's own lock was looked for first and last, by uptime.
    looked: Cell<Option<(Duration, Duration)>>,
}

impl RegisterDuty {
    /// A write of the lock that came late, after its turn was over, would lock the others out for ever. When to look
    /// again: such a write is one of minutes at most, sent by this life of the agent or by the one before.
    async fn give_back(&self, node: &Node, store: &Store, attempt: &Attempt) -> Outcome<Duration> {
        if attempt.kind != AttemptKind::ControlPlane {
            return Ok(LOOK_EVERY);
        }
        let now = node.world.time.uptime();
        let (began, last) = self.looked.get().map_or((now, None), |(began, last)| (began, Some(last)));
        let every = if now.saturating_sub(began) < LATE_FOR { LATE_EVERY } else { LOOK_EVERY };
        if last.is_none_or(|last| now.saturating_sub(last) >= every) {
            store.give_turn_back(attempt.id).await?;
            self.looked.set(Some((began, now)));
        }
        Ok(every)
    }
}

#[async_trait(?Send)]
impl Duty for RegisterDuty {
    fn name(&self) -> &'static str {
        "keep-register"
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(2 * 60)
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        let journal = Journal::new(node.world.files.clone(), node.world.time.clone());
        let Some((attempt, ca)) = journal.attempt()?.and_then(|a| a.master_of().cloned().map(|ca| (a, ca))) else {
            return Ok(LOOK_EVERY);
        };
        let store = Store::of(node);
        let after = self.give_back(node, &store, &attempt).await?;
        if !leads(node).await? {
            return Ok(FOLLOWING);
        }
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
        Ok(after)
    }
}
