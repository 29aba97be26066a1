//! Container images on this machine.

pub mod containerd;
