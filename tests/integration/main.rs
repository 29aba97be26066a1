//! The real program against the stand-ins: processes, files and sockets, and nothing linked. Each case asserts what is
//! on the disk, in the store, in the API and in the log afterwards.
//!
//! `cargo build --workspace --all-targets && cargo test --workspace --test integration`

mod audit;
mod http;
mod images;
mod network;
mod peer;
#[path = "../../crates/testkit/src/ports.rs"]
mod ports;
mod process;
mod world;

mod bootstrap;
mod bundles;
mod configuration;
mod crashes;
mod disk;
mod drains;
mod drift;
mod ec2;
mod ecr_agent;
mod ecr_plugin;
mod end;
mod endless;
mod foreign;
mod hostile;
mod iam;
mod install;
mod install_proxy;
mod kill_points;
mod masters;
mod pages;
mod s3;
mod sealed;
mod secrets;
mod secrets_cloud;
mod secrets_masters;
mod secrets_memory;
mod service;
mod tokens;
mod tools;
