//! timing

use super::{Needs, Scenario};

/// See the module.
pub const SCENARIOS: &[Scenario] = &[];
