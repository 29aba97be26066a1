//! The judgement *gone*: the only ground on which a register is taken from its holder.

use super::register::Seen;
use crate::model::cause::Outcome;
use crate::node::Node;
use crate::ports::ETag;
use std::cell::RefCell;
use std::time::Duration;
use uuid::Uuid;

/// A proof that the holder of exactly this version of the register is gone: made only by [`GoneWatch::look`].
#[derive(Debug, PartialEq, Eq)]
pub struct Gone {
    attempt: Uuid,
    etag: ETag,
    why: String,
}

impl Gone {
    /// Why it is known to be gone, for people.
    pub fn why(&self) -> &str {
        &self.why
    }
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It may be taken over.
    Gone(Gone),
    /// It may not, and why, for people.
    NotGone(String),
}

/// Judges whether the register's holder is gone; keeps the looks that a NotFound needs. One per process.
#[derive(Debug, Default)]
pub struct GoneWatch {
    looks: RefCell<Vec<(Uuid, Duration)>>,
}

impl GoneWatch {
    /// A watch that has seen nothing.
    pub fn new() -> Self {
        GoneWatch::default()
    }

    /// One look at the holder of this register. Errors are those of EC2's API; they prove nothing.
    pub async fn look(&self, node: &Node, seen: &Seen) -> Outcome<Judgement> {
        let _ = (node, seen, &self.looks);
        todo!()
    }
}
