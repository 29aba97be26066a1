//! The protocol against the fake store, under every fault at every call.

mod bundle;
mod lock;
mod register;
mod reports;
mod retire;
mod selftest;
