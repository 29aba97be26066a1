//! All of kubestrap's logic, and none of its I/O.
//!
//! A node is one future: it is handed a [`world::World`] of [`ports`], and every call it makes passes a
//! [`gate::Gate`]. The binary gives it the real world; `kubestrap-sim` gives it a simulated one. Nothing here may
//! name a clock, a file, a socket, a process or a runtime (`clippy.toml` of this crate enforces that).
//!
//! Where to read: [`steps`] and [`duties`] are the two stories (how a machine becomes a node, how it stays a good
//! one); [`engine`] runs them; [`store`] is the protocol nodes share; [`model::cause`] is the table of failures.

pub mod config;
pub mod drain;
pub mod drift;
pub mod duties;
pub mod ecr;
pub mod end;
pub mod engine;
pub mod etcd;
pub mod gate;
pub mod identity;
pub mod image;
pub mod join;
pub mod journal;
pub mod kube;
pub mod kubeadm;
pub mod model;
pub mod node;
pub mod operator;
pub mod pki;
pub mod ports;
pub mod rollout;
pub mod steps;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod world;
