//! etcd's members, and that they follow the truth: what they are and whether they answer ([`survey`]), which one is to go
//! ([`decide`], pure), that it goes and takes with it what Kubernetes keeps of it ([`mod@tidy`]), and how a master takes its
//! own member away ([`mod@leave`]).
//!
//! A removal that is sent to an etcd without quorum is carried out later, when nobody expects it. So the members are read
//! linearisably before every one, and one at a time is removed. The last voter never is.

pub mod api;
pub mod clean;
pub mod decide;
pub mod leave;
pub mod machines;
pub mod operator;
pub mod own;
pub mod survey;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod tidy;

pub use api::{Credentials, Member};
pub use decide::Own;
pub use own::{OutOfEtcd, even_masters, out_of_etcd, refuse_twin};
pub use survey::{own_member, remove_own_learner};
pub use tidy::{Tidied, tidy};
