//! Masters join one at a time: the join lock in the store is waited for, and taken from a holder that is gone.

use crate::journal::AttemptRecorded;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::{Event, Node};
use crate::steps::holder;
use crate::store::Store;
use crate::store::gone::MachineWatch;
use crate::store::lock::{JoinTurn, SeenLock, Turn};
use std::time::Duration;

/// How often a lock that somebody else holds is looked at, before jitter: a join takes some ten seconds.
const TURN_EVERY: Duration = Duration::from_secs(1);
/// How often EC2 is asked about its holder.
const GONE_EVERY: Duration = Duration::from_secs(15);

/// The masters that wait, as one of them sees it.
pub struct Queue {
    holder: MachineWatch,
}

impl Default for Queue {
    fn default() -> Self {
        Queue { holder: MachineWatch::of_lock() }
    }
}

impl Queue {
    /// Waits until the lock is this attempt's, as long as `join.wait`.
    ///
    /// Errors: `HeldByOther` after that time, and those of the store.
    pub async fn wait(&self, node: &Node, recorded: &AttemptRecorded) -> Outcome<JoinTurn> {
        let (store, began) = (Store::of(node), node.world.time.uptime());
        let (mut asked, mut lives) = (None, String::new());
        loop {
            let seen = match store.take_turn(recorded, &holder(node)).await {
                Ok(Turn::Ours(turn)) => return Ok(turn),
                Ok(Turn::Others(seen)) => *seen,
                // Two that ask at the same moment; everything else is for the engine.
                Err(failure) if failure.cause == Cause::HeldByOther => {
                    node.world.time.sleep(node.jitter(TURN_EVERY)).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let now = node.world.time.uptime();
            if asked.is_none_or(|at| now.saturating_sub(at) >= GONE_EVERY) {
                asked = Some(now);
                match self.take_over(node, &seen, recorded).await? {
                    Ok(turn) => return Ok(turn),
                    Err(why) => lives = why,
                }
            }
            if now.saturating_sub(began) >= node.settings.join.wait {
                return Err(held(&seen).exhausted(now.saturating_sub(began)));
            }
            let who = &seen.lock.holder.node_name;
            node.wait_for(format!("{who} to have joined the control plane ({lives})"));
            node.world.time.sleep(node.jitter(TURN_EVERY)).await;
        }
    }

    /// Takes the lock from a holder that is gone; why it is not, otherwise.
    async fn take_over(
        &self,
        node: &Node,
        seen: &SeenLock,
        recorded: &AttemptRecorded,
    ) -> Outcome<Result<JoinTurn, String>> {
        let judged = self.holder.look(node, &seen.lock.holder, seen.lock.attempt, seen.age()).await;
        let gone = match judged {
            Ok(Ok(gone)) => gone,
            Ok(Err(why)) => {
                node.complain(&Failure { detail: why.clone(), ..held(seen) });
                return Ok(Err(why));
            }
            // EC2 in trouble proves nothing, and the holder goes on by itself.
            Err(failure) => {
                node.complain(&failure);
                return Ok(Err(failure.detail));
            }
        };
        let name = &seen.lock.holder.node_name;
        node.tell(&Event::Note(&format!("{name}, which held the join lock, is gone: {}", gone.why())));
        match Store::of(node).take_turn_over(seen, &gone, recorded, &holder(node)).await? {
            Turn::Ours(turn) => Ok(Ok(turn)),
            Turn::Others(_) => Ok(Err("another master was faster".to_owned())),
        }
    }
}

fn held(seen: &SeenLock) -> Failure {
    let holder = &seen.lock.holder;
    let why = format!("{} ({}) joins since {}", holder.node_name, holder.identity, seen.lock.since);
    Failure::new(Cause::HeldByOther, "join the control plane", why)
        .advise("wait for it, or, when you know that it is gone, `kubestrap unlock join`")
}
