//! Object stores.

#[cfg(test)]
mod conformance;
pub mod folder;
pub mod install;
pub mod s3;
#[cfg(test)]
mod s3_faults;

use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::MAX_OBJECT;
use kubestrap_core::store::is_plain;

/// Refuses what cannot be a key of the store protocol.
fn check_key(key: &str) -> Outcome<()> {
    if is_plain(key) {
        return Ok(());
    }
    Err(Failure::new(Cause::Internal, format!("use {key:?} as an object key"), "it is not a plain relative path"))
}

/// Like [`check_key`] for the beginning of keys, which may be empty or end anywhere.
fn check_prefix(prefix: &str) -> Outcome<()> {
    if prefix.is_empty() { Ok(()) } else { check_key(prefix.strip_suffix('/').unwrap_or(prefix)) }
}

/// Refuses to write what nobody could read.
fn check_size(key: &str, body: &[u8]) -> Outcome<()> {
    if body.len() <= MAX_OBJECT {
        return Ok(());
    }
    let why = format!("it has {} bytes and the protocol allows {MAX_OBJECT}", body.len());
    Err(Failure::new(Cause::Internal, format!("write {key}"), why))
}

fn too_large(attempted: impl Into<String>) -> Failure {
    Failure::new(Cause::ObjectRejected, attempted, format!("it is larger than {MAX_OBJECT} bytes"))
}
