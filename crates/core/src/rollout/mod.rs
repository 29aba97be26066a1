//! A rollout: which drifted node may go next.
//!
//! A node asks with an annotation on its own Node ([`wire`]), for it may change no other object and see no other node. The
//! agent of a master is the arbiter: each round it looks ([`view`]), decides what the ledger says next ([`decide`],
//! `advance`), stores that over the version it read, and only then does what the stored ledger asks for ([`copies`]).
//! So an arbiter that died is continued by the next, and one that slept too long can store nothing: correctness
//! comes from the version of one ConfigMap, and the Lease ([`crate::kube::lease`]) only saves work.

mod advance;
mod budget;
pub mod cluster;
pub mod copies;
pub mod decide;
pub mod ghosts;
pub mod launches;
pub mod ledger;
pub mod operator;
#[cfg(test)]
mod tests;
pub mod view;
mod window;
pub mod wire;

use crate::config::settings::RolloutSettings;
use std::time::Duration;

/// By what it is decided.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The pace.
    pub rollout: &'a RolloutSettings,
    /// How long a drain may take.
    pub drain_within: Duration,
}
