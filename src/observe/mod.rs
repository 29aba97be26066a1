//! What people and machines see of a node while it works: logs, systemd, a terminal, metrics, and the trace of the
//! bootstrap. All of it listens to [`Event`]s and to the gate; none of it can change what the node does.

pub mod calls;
pub mod logs;
pub mod metrics;
pub mod notify;
pub mod plugin_counts;
pub mod progress;
pub mod screen;
pub mod serve;
pub mod text;
pub mod trace;

use kubestrap_core::node::{Event, Observer};
use std::rc::Rc;

/// Tells several observers, in order.
pub struct Fan(pub Vec<Rc<dyn Observer>>);

impl Observer for Fan {
    fn on(&self, event: &Event<'_>) {
        for observer in &self.0 {
            observer.on(event);
        }
    }
}
