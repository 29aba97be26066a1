//! What a machine needs before it can become a node: the released files of containerd, runc, the CNI plugins, crictl,
//! kubeadm, kubelet and kubectl.
//!
//! In the order of use: [`catalog`] says what there is and where it belongs, [`lock`] what its SHA-256 must be,
//! [`source`] where it is taken from, [`download`] brings it into a cache and verifies it, [`unpack`] puts it in
//! place, and [`bundle`] carries it to machines without a network. Nothing is used before it was verified.
//!
//! [`steps`] tells the installation: what is done on a [`host`], in which order, so that a second run finds nothing to do;
//! [`baked`] is the record of it.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod baked;
// It writes new files alone: bundles, and copies of image archives in the cache, which are compared when they are whole.
#[allow(clippy::disallowed_methods)]
pub mod bundle;
pub mod catalog;
mod disk;
pub mod download;
pub mod host;
pub mod image_archive;
#[cfg(test)]
mod kill;
pub mod lock;
pub mod progress;
pub mod source;
pub mod steps;
pub mod supply;
#[cfg(test)]
mod testing;
pub mod unpack;
