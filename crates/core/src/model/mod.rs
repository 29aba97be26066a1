//! Plain types: what can be said about a cluster, a node and a failure. No I/O, no policy.

pub mod bundle;
pub mod cause;
pub mod identity;
pub mod lock;
pub mod names;
pub mod pki;
pub mod plain;
pub mod register;
pub mod report;
pub mod secret;
pub mod version;
