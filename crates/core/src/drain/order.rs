//! Which pods go first. A class begins when the one before it is gone, so that what others need (DNS, the network's
//! agents) goes last.

use super::pods::Pod;

/// Kubernetes' own: priorities from here on are reserved for system-critical pods.
const CRITICAL_PRIORITY: i64 = 2_000_000_000;
const CRITICAL_CLASSES: [&str; 2] = ["system-cluster-critical", "system-node-critical"];

/// The classes, in the order in which they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Whatever is in none of the others.
    Workload,
    /// Of a DaemonSet.
    Daemon,
    /// Of a system-critical priority.
    CriticalWorkload,
    /// Both.
    CriticalDaemon,
}

impl Class {
    /// All of them, in order.
    pub const ALL: [Class; 4] = [Class::Workload, Class::Daemon, Class::CriticalWorkload, Class::CriticalDaemon];
}

/// The class of a pod by its priority, and by whether a DaemonSet made it.
pub(super) fn class(priority_class: &str, priority: i64, daemon: bool) -> Class {
    let critical = CRITICAL_CLASSES.contains(&priority_class) || priority >= CRITICAL_PRIORITY;
    match (critical, daemon) {
        (false, false) => Class::Workload,
        (false, true) => Class::Daemon,
        (true, false) => Class::CriticalWorkload,
        (true, true) => Class::CriticalDaemon,
    }
}

/// The pods in the order in which they are asked, beginning at another one each time: a pod whose every request hangs
/// must not keep those behind it from their turn.
pub(super) fn rotated(mut pods: Vec<&Pod>, by: usize) -> Vec<&Pod> {
    if !pods.is_empty() {
        let by = by % pods.len();
        pods.rotate_left(by);
    }
    pods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn critical_goes_after_noncritical_and_daemons_after_workloads() {
        assert_eq!(class("", 0, false), Class::Workload);
        assert_eq!(class("high", CRITICAL_PRIORITY - 1, true), Class::Daemon);
        assert_eq!(class("", CRITICAL_PRIORITY, false), Class::CriticalWorkload);
        assert_eq!(class("system-cluster-critical", 0, false), Class::CriticalWorkload);
        assert_eq!(class("system-node-critical", CRITICAL_PRIORITY + 1000, true), Class::CriticalDaemon);
        assert!(Class::ALL.is_sorted());
    }
}
