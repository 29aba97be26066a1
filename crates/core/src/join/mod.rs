//! Both ends of the join bundle: the master that publishes it, and the worker that waits for it.

pub mod publish;
pub mod wait;
