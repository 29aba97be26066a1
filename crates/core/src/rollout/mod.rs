//! A rollout: which drifted node may go next. A node asks with an annotation on its own Node; the agent of a master is
//! the arbiter and grants.

pub mod wire;
