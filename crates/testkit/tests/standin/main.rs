//! Drives the stand-ins as programs and servers: what they accept, refuse, leave behind, and how they break on demand.
#![allow(missing_docs)] // A test's name says what it is about.

mod api;
mod control_planes;
mod faults;
mod init_join;
mod machine;
mod moto;
mod refusals;
mod renew;
mod servers;
