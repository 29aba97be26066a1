//! Drift: whether this node is what it should be.

pub mod cache;
pub mod content;
pub mod manifest;
pub mod source;
pub mod verdict;
