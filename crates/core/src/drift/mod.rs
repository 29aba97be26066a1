//! Drift: whether this node is what it should be.

pub mod assess;
pub mod cache;
pub mod content;
pub mod manifest;
pub mod source;
pub mod tell;
pub mod verdict;
