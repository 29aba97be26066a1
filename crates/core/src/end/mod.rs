//! A node's graceful end, and the signals of its beginning: what EC2 and Auto Scaling say of this instance, which of it
//! decides, until when the node must be empty, and what the group's lifecycle hooks are told.

pub mod decide;
pub mod events;
pub mod hooks;
pub mod launch;
pub mod look;
pub mod mark;
#[cfg(test)]
pub(crate) mod testing;
