//! The launch hook of an Auto Scaling group: what is signalled when, and for which failures.

use super::events::{self, LIFECYCLE};
use super::hooks::Hook;
use crate::identity::Imds;
use crate::journal::{Entry, Journal};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use crate::ports::LifecycleResult;
use std::time::Duration;

/// How often a last word is tried where Auto Scaling does not take it, and the pause in between.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_secs(2);

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
        | Cause::LeftCluster
        | Cause::ToolMissing => LaunchSignal::Abandon,
        // A defect of ours is in the next instance too.
        Cause::Internal => LaunchSignal::Heartbeat,
        // What is wrong is in the store, in the cluster, where released files are or in what names an image, and the next
        // instance meets it again.
        Cause::BucketMissing
        | Cause::DownloadMissing
        | Cause::DownloadRejected
        | Cause::DownloadUnavailable
        | Cause::ImageSource
        | Cause::StoreUnconditional
        | Cause::ForeignCluster
        | Cause::AlreadyEstablished
        | Cause::RegisterMissing
        | Cause::ObjectRejected
        | Cause::PkiRejected
        | Cause::NoBundle
        | Cause::HeldByOther
        | Cause::DuplicateNode
        | Cause::TokenGone
        | Cause::StoreUnavailable
        | Cause::ApiUnavailable
        | Cause::ApiRefused
        | Cause::EtcdUnavailable
        | Cause::NoQuorum
        | Cause::EtcdRefused
        | Cause::LastVoter
        | Cause::QuorumNeeded
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

/// The hook that waits for this machine's launch; `None` when none is configured or it is no EC2 instance.
pub fn hook(node: &Node) -> Option<&str> {
    node.identity.ec2()?;
    node.settings.end.launch_hook.as_deref()
}

/// Where Auto Scaling takes the instance: `InService`, or `Warmed:Stopped` and others in a warm pool.
pub async fn target(imds: &Imds) -> Outcome<String> {
    // An instance that is in no group, or in none yet, has no such path.
    imds.glance(LIFECYCLE).await?.map_or_else(|| Ok("InService".to_owned()), |text| events::target_state(&text))
}

/// Whether the journal says that the hook was told of a success, of this launch or, with `None`, of any.
pub fn is_signalled(node: &Node, hook: &str, target: Option<&str>) -> Outcome<bool> {
    let is_it = |entry: &Entry| match entry {
        Entry::LaunchSignalled { hook: told, target: of } => told == hook && target.is_none_or(|target| of == target),
        _ => false,
    };
    Ok(journal(node).lines()?.iter().any(|line| is_it(&line.entry)))
}

/// Notes that the hook was told of a success.
pub fn note(node: &Node, hook: &str, target: &str) -> Outcome<()> {
    journal(node).note(Entry::LaunchSignalled { hook: hook.to_owned(), target: target.to_owned() })
}

fn journal(node: &Node) -> Journal {
    Journal::new(node.world.files.clone(), node.world.time.clone())
}

/// The last word of a life that ended with this failure: ABANDON where [`launch_signal`] says so, a sign of life
/// otherwise. Nothing is said of a machine that was a node once, or without a hook. `reported`: the store accepted the
/// last report with its log tail; without it nothing is abandoned, for with the instance everything else is gone.
///
/// Returns whether the launch was abandoned.
pub async fn last_word(node: &Node, failure: &Failure, reported: bool) -> Outcome<bool> {
    let Some(name) = hook(node) else { return Ok(false) };
    let was_a_node = journal(node).attempt().is_ok_and(|attempt| attempt.is_some_and(|attempt| attempt.completed));
    if was_a_node {
        return Ok(false);
    }
    let hook = Hook::default();
    if !reported || launch_signal(failure) == LaunchSignal::Heartbeat {
        return hook.beat(node, name).await.map(|()| false);
    }
    // There is no later: this is the end of the agent's life.
    let mut attempts = 1;
    loop {
        match hook.complete(node, name, LifecycleResult::Abandon).await {
            Ok(true) => return Ok(true),
            Err(failure) if !failure.is_transient() || attempts >= ATTEMPTS => return Err(failure),
            Ok(false) | Err(_) => node.world.time.sleep(PAUSE).await,
        }
        attempts += 1;
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
        ("download-missing", LaunchSignal::Heartbeat),
        ("download-rejected", LaunchSignal::Heartbeat),
        ("download-unavailable", LaunchSignal::Heartbeat),
        ("etcd-refused", LaunchSignal::Heartbeat),
        ("etcd-unavailable", LaunchSignal::Heartbeat),
        ("file-access", LaunchSignal::Abandon),
        ("foreign-cluster", LaunchSignal::Heartbeat),
        ("foreign-state", LaunchSignal::Abandon),
        ("held-by-other", LaunchSignal::Heartbeat),
        ("internal", LaunchSignal::Heartbeat),
        ("last-voter", LaunchSignal::Heartbeat),
        ("left-cluster", LaunchSignal::Abandon),
        ("metadata-unavailable", LaunchSignal::Heartbeat),
        ("network", LaunchSignal::Heartbeat),
        ("no-bundle", LaunchSignal::Heartbeat),
        ("no-credentials", LaunchSignal::Heartbeat),
        ("pki-rejected", LaunchSignal::Heartbeat),
        ("duplicate-node", LaunchSignal::Heartbeat),
        ("no-quorum", LaunchSignal::Heartbeat),
        ("not-registered", LaunchSignal::Heartbeat),
        ("object-rejected", LaunchSignal::Heartbeat),
        ("quorum-needed", LaunchSignal::Heartbeat),
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
            let given_up = Failure::new(row.cause, "do it", "it failed").exhausted(Duration::from_secs(1));
            assert_eq!(launch_signal(&given_up), LaunchSignal::Heartbeat, "{}", row.label);
        }
    }
}
