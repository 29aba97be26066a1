//! The store protocol: what the nodes of one cluster share, over the [`Objects`] port.
//!
//! Every write is conditional, and a write whose answer was lost is settled here (`settle.rs`): what was written is read
//! back and compared with what only this writer could have written. So nothing above this module ever sees "unknown".
//! 503 and time-outs mean unknown, never *lost*; 403 never means absent.

pub mod bundle;
mod document;
#[cfg(test)]
pub(crate) mod fake;
pub mod gone;
mod keys;
pub mod lock;
pub mod pki;
pub mod register;
pub mod reports;
pub mod retire;
pub mod selftest;
mod settle;
#[cfg(test)]
mod tests;
pub mod traces;

pub(crate) use document::{fields, fields_within};

pub use bundle::{Expectation, Published, VerifiedBundle, clock_skew, verify};
pub use gone::{Gone, GoneWatch, Judgement, MachineGone, MachineWatch};
pub use keys::{Keys, is_plain};
pub use register::{Claim, Held, Seen};
pub use reports::ReportEntry;
pub use retire::{Retired, Retirement};
pub use selftest::Conditions;
pub use traces::Trace;

use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::names::ClusterName;
use crate::node::Node;
use crate::ports::{ETag, Objects, Reading, Time};
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

/// What the keys of one listing may take of our memory, in bytes: some hundred thousand reports, and Kubernetes supports
/// 5000 nodes. Whoever can write to the store must not fill it, and a store that lists for ever is given up.
const MAX_LISTED: usize = 16 * 1024 * 1024;
/// What a key takes besides its text: the string, and what the allocator adds.
const PER_KEY: usize = 48;

/// The shared store as one cluster sees it.
#[derive(Clone)]
pub struct Store {
    objects: Rc<dyn Objects>,
    time: Rc<dyn Time>,
    cluster: ClusterName,
    keys: Keys,
}

impl Store {
    /// The part of the store that belongs to this cluster.
    pub fn new(objects: Rc<dyn Objects>, time: Rc<dyn Time>, cluster: ClusterName) -> Self {
        let keys = Keys::of(&cluster);
        Store { objects, time, cluster, keys }
    }

    /// The store of this node's cluster, behind the node's gate.
    pub fn of(node: &Node) -> Self {
        Store::new(node.world.objects.clone(), node.world.time.clone(), node.settings.cluster.clone())
    }

    /// The keys of this cluster.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// One read. A refusal says that S3 also refuses to tell that an object does not exist.
    async fn get(&self, key: &str, known: Option<&ETag>) -> Outcome<Reading> {
        self.objects.get(key, known).await.map_err(|failure| match failure {
            Failure { cause: Cause::AccessDenied, advice: None, .. } => failure.advise(format!(
                "allow s3:GetObject on {key} and s3:ListBucket on its bucket; without the latter S3 answers 403 for an object that does not exist"
            )),
            other => other,
        })
    }

    /// Every key with this prefix that a node can have written, in ascending order. What a store lists besides, and names
    /// that nothing of ours has (`../x`), is not there for us.
    async fn list_all(&self, prefix: &str) -> Outcome<Vec<String>> {
        let mut keys = self.list_raw(prefix).await?;
        keys.retain(|key| key.starts_with(prefix) && is_plain(key));
        Ok(keys)
    }

    async fn list_raw(&self, prefix: &str) -> Outcome<Vec<String>> {
        let (mut keys, mut listed) = (Vec::<String>::new(), 0);
        loop {
            let page = self.objects.list(prefix, keys.last().map(String::as_str)).await?;
            let progress = page.keys.first().is_some_and(|first| keys.last().is_none_or(|last| last < first));
            listed += page.keys.iter().map(|key| key.len() + PER_KEY).sum::<usize>();
            keys.extend(page.keys);
            if listed > MAX_LISTED {
                let why =
                    format!("there are more than {} objects; a cluster has some for each of its nodes", keys.len());
                return Err(Failure::new(Cause::ObjectRejected, format!("list {prefix}"), why)
                    .advise("find out who fills the store, and remove what is not kubestrap's"));
            }
            match (page.more, progress) {
                (false, _) => return Ok(keys),
                (true, true) => {}
                (true, false) => {
                    let why = "the store says that there are more keys and does not give them";
                    return Err(Failure::new(Cause::StoreUnavailable, format!("list {prefix}"), why));
                }
            }
        }
    }

    fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.time.random(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Sleeps between half of `base` and one and a half of it.
    async fn pause(&self, base: Duration) {
        let mut bytes = [0; 4];
        self.time.random(&mut bytes);
        let share = f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX);
        self.time.sleep(base / 2 + base.mul_f64(share)).await;
    }
}
