//! Fuzzing: every parser of kubestrap-core that reads what somebody else wrote, as a function of bytes that asserts
//! properties. A panic is a finding; so is a broken property, and an input that takes seconds.
//!
//! The same targets run in three ways: replayed and mutated in process on the stable toolchain (`cargo xtask fuzz`, and
//! a test), or guided by coverage for hours (`cargo fuzz`, folder `fuzz/`). docs/fuzzing.md says how.

mod engine;
mod mutate;
mod targets;
mod world;

pub use engine::{Finding, Session, corpus};
pub use targets::{TARGETS, Target};
