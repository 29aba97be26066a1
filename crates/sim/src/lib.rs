//! A simulated world for `kubestrap-core`.
mod agent;
mod calamity;
mod campaign;
mod cluster;
mod disk;
mod gate;
mod invariants;
mod kubeadm;
mod machine;
mod operator;
mod ports;
mod rng;
mod run;
pub mod scenario;
mod store;
mod timeline;
mod trace;
mod universe;

pub use campaign::{Campaign, campaign};
pub use run::{Summary, Violation, run_seed, tell};
pub use scenario::Scenario;
