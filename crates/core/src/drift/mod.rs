//! Drift: whether this node is what it should be.

pub mod content;
pub mod manifest;
pub mod verdict;
