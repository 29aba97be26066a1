//! The engine: passes over steps, and the supervisor of duties.
//!
//! A pass checks the steps from the top, applies the first that is wanted, checks it again, and begins anew. So a
//! retry, a restart and a reboot are the same code, and steps need not hand values to each other.

mod bootstrap;
mod patience;
mod plan;
mod supervise;

pub use bootstrap::bootstrap;
pub use patience::{Backoff, limit};
pub use plan::{PlanRow, Wish, plan};
pub use supervise::{live, supervise};

use crate::model::cause::Outcome;
use crate::node::Node;
use async_trait::async_trait;
use std::time::Duration;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is to be done, and why.
    Done(String),
    /// It is to be applied, and why.
    Wanted(String),
}

/// One named, idempotent piece of work. The machine and the store are read, never remembered.
#[async_trait(?Send)]
pub trait Step {
    /// Kebab-case, stable: used in journals, metrics and `--only/--skip`.
    fn name(&self) -> &'static str;
    /// One line for `plan`.
    fn describe(&self) -> &'static str;
    /// Whether `--skip` may leave it out.
    fn optional(&self) -> bool {
        false
    }
    /// How long transient failures are retried before the engine gives up.
    fn patience(&self, node: &Node) -> Duration;
    /// Whether it is needed; changes nothing.
    async fn check(&self, node: &Node) -> Outcome<Verdict>;
    /// Does it. Killed at any point, the next check and apply converge.
    async fn apply(&self, node: &Node) -> Outcome<()>;
    /// Completes when a check that has just failed may have another answer, so that its next attempt need not wait until
    /// it is due. Most steps have no such news.
    async fn news(&self, _node: &Node) {
        std::future::pending().await
    }
}

/// Bounded work that comes again.
#[async_trait(?Send)]
pub trait Duty {
    /// Kebab-case, stable.
    fn name(&self) -> &'static str;
    /// Whether it runs from the start of the agent, and not only once the machine is a node.
    fn runs_during_bootstrap(&self) -> bool {
        false
    }
    /// A tick that lasts longer is cut off; the watchdog is fed only while ticks keep to it.
    fn deadline(&self) -> Duration;
    /// Does what is due, and says when to come again. After a failure the supervisor backs off.
    async fn tick(&self, node: &Node) -> Outcome<Duration>;
}
