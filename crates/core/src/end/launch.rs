//! The launch hook of an Auto Scaling group: what is signalled when, and for which failures.

use crate::model::cause::{Cause, Failure};

/// What a group is told when the bootstrap of its new instance ended with a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchSignal {
    /// ABANDON: the group ends this instance and launches another one.
    Abandon,
    /// Nothing but a sign of life: another instance would meet the same, and a relaunch without end mends nothing.
    Heartbeat,
}

/// What is signalled for this failure.
pub fn launch_signal(failure: &Failure) -> LaunchSignal {
    of_cause(failure.cause)
}

/// ABANDON is only for what belongs to this machine or its image and cannot mend itself. There is no catch-all: a new
/// cause does not compile before somebody has thought about it.
fn of_cause(cause: Cause) -> LaunchSignal {
    match cause {
        // The image or the user-data of this instance is wrong, or its disk carries somebody else's state.
        Cause::Usage
        | Cause::Configuration
        | Cause::ForeignState
        | Cause::TakenOver
        | Cause::ClonedState
        | Cause::VersionSkew
        | Cause::UnsafeFile
        | Cause::FileAccess
        | Cause::ToolMissing => LaunchSignal::Abandon,
        // A defect of ours is in the next instance too.
        Cause::Internal => LaunchSignal::Heartbeat,
        // What is wrong is in the store, in the cluster or in what names an image, and the next instance meets it again.
        Cause::BucketMissing
        | Cause::ImageSource
        | Cause::StoreUnconditional
        | Cause::ForeignCluster
        | Cause::AlreadyEstablished
        | Cause::RegisterMissing
        | Cause::ObjectRejected
        | Cause::NoBundle
        | Cause::HeldByOther
        | Cause::TokenGone
        | Cause::StoreUnavailable
        | Cause::ApiUnavailable
        | Cause::ApiRefused
        | Cause::NotRegistered => LaunchSignal::Heartbeat,
        // Another process of this machine does the work.
        Cause::Busy => LaunchSignal::Heartbeat,
        // The network, AWS and its permissions: an outage must not become an endless relaunch.
        Cause::Throttled
        | Cause::MetadataUnavailable
        | Cause::CloudUnavailable
        | Cause::Dns
        | Cause::Network
        | Cause::Tls
        | Cause::Deadline
        | Cause::NoCredentials
        | Cause::BadCredentials
        | Cause::AccessDenied => LaunchSignal::Heartbeat,
        // Of this machine, but it may mend itself; systemd starts the agent again.
        Cause::ClockSkew | Cause::RuntimeNotReady | Cause::DiskFull | Cause::ToolFailed | Cause::ToolHung => {
            LaunchSignal::Heartbeat
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cause::{CAUSES, Lasting};

    /// Every cause with what it means for a launch: a new one is missing here until somebody lists it.
    const TABLE: &[(&str, LaunchSignal)] = &[
        ("access-denied", LaunchSignal::Heartbeat),
        ("already-established", LaunchSignal::Heartbeat),
        ("api-refused", LaunchSignal::Heartbeat),
        ("api-unavailable", LaunchSignal::Heartbeat),
        ("bad-credentials", LaunchSignal::Heartbeat),
        ("bucket-missing", LaunchSignal::Heartbeat),
        ("image-source", LaunchSignal::Heartbeat),
        ("busy", LaunchSignal::Heartbeat),
        ("clock-skew", LaunchSignal::Heartbeat),
        ("cloned-state", LaunchSignal::Abandon),
        ("cloud-unavailable", LaunchSignal::Heartbeat),
        ("configuration", LaunchSignal::Abandon),
        ("deadline", LaunchSignal::Heartbeat),
        ("disk-full", LaunchSignal::Heartbeat),
        ("dns", LaunchSignal::Heartbeat),
        ("file-access", LaunchSignal::Abandon),
        ("foreign-cluster", LaunchSignal::Heartbeat),
        ("foreign-state", LaunchSignal::Abandon),
        ("held-by-other", LaunchSignal::Heartbeat),
        ("internal", LaunchSignal::Heartbeat),
        ("metadata-unavailable", LaunchSignal::Heartbeat),
        ("network", LaunchSignal::Heartbeat),
        ("no-bundle", LaunchSignal::Heartbeat),
        ("no-credentials", LaunchSignal::Heartbeat),
        ("not-registered", LaunchSignal::Heartbeat),
        ("object-rejected", LaunchSignal::Heartbeat),
        ("register-missing", LaunchSignal::Heartbeat),
        ("runtime-not-ready", LaunchSignal::Heartbeat),
        ("store-unavailable", LaunchSignal::Heartbeat),
        ("store-unconditional", LaunchSignal::Heartbeat),
        ("taken-over", LaunchSignal::Abandon),
        ("throttled", LaunchSignal::Heartbeat),
        ("tls", LaunchSignal::Heartbeat),
        ("token-gone", LaunchSignal::Heartbeat),
        ("tool-failed", LaunchSignal::Heartbeat),
        ("tool-hung", LaunchSignal::Heartbeat),
        ("tool-missing", LaunchSignal::Abandon),
        ("unsafe-file", LaunchSignal::Abandon),
        ("usage", LaunchSignal::Abandon),
        ("version-skew", LaunchSignal::Abandon),
    ];

    fn signal(cause: Cause) -> LaunchSignal {
        launch_signal(&Failure::new(cause, "do it", "it failed"))
    }

    #[test]
    fn every_cause_has_its_signal() {
        for row in CAUSES {
            let listed = TABLE.iter().find(|(label, _)| *label == row.label);
            assert_eq!(listed.map(|(_, signal)| *signal), Some(signal(row.cause)), "{}", row.label);
        }
        assert_eq!(TABLE.len(), CAUSES.len());
    }

    #[test]
    fn what_waiting_can_mend_is_never_abandoned_not_even_after_the_patience() {
        for row in CAUSES.iter().filter(|row| row.lasting == Lasting::Transient) {
            let given_up = Failure::new(row.cause, "do it", "it failed").exhausted(std::time::Duration::from_secs(1));
            assert_eq!(launch_signal(&given_up), LaunchSignal::Heartbeat, "{}", row.label);
        }
    }
}
