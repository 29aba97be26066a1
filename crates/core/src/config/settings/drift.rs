//! What is said of the image a node should run, of how a fleet is brought to it, and of a node's end.

pub use crate::ports::TemplateRef;
use jiff::civil::{Time, Weekday};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is looked at, and how far it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriftSettings {
    /// Where the desired image is found; `None`: images are not compared.
    pub image: Option<ImageSource>,
    /// How often (default 5 min); callers add jitter.
    pub every: Duration,
    /// What comes of a node that differs from its bake manifest.
    pub content: ContentPolicy,
    /// Whether an image with the same content under another id is as good as the desired one.
    pub same_content_stays: bool,
    /// How far the node may go.
    pub action: Action,
    /// The group in which a replacement is expected; the Auto Scaling group, else the role, when absent.
    pub group: Option<String>,
    /// Program and arguments that replace a machine outside of EC2, run on it after its drain.
    pub hook: Option<Vec<String>>,
    /// The longest that a drain may take before it is given up (default 15 min).
    pub drain_within: Duration,
    /// The pace, read by the arbiter on a master.
    pub rollout: RolloutSettings,
}

impl Default for DriftSettings {
    fn default() -> Self {
        DriftSettings {
            image: None,
            every: minutes(5),
            content: ContentPolicy::Report,
            same_content_stays: false,
            action: Action::Report,
            group: None,
            hook: None,
            drain_within: minutes(15),
            rollout: RolloutSettings::default(),
        }
    }
}

/// What comes of a node that differs from its bake manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentPolicy {
    /// It is not compared.
    Off,
    /// It is told, and nothing else: unattended upgrades make every node differ.
    #[default]
    Report,
    /// It is drift like another image.
    Act,
}

/// How far a drifted node may go; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Action {
    /// It is told: report, metrics, annotation, event.
    #[default]
    Report,
    /// New pods go elsewhere where there is room: a label by the node, a taint by the arbiter.
    Mark,
    /// When the arbiter grants it, its pods are evicted; a person replaces it.
    Drain,
    /// After the drain the arbiter has it replaced.
    Replace,
}

impl Action {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Report => "report",
            Action::Mark => "mark",
            Action::Drain => "drain",
            Action::Replace => "replace",
        }
    }
}

/// Where the desired image is found: exactly one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// This one.
    Ami(String),
    /// The value of an SSM parameter, the account's own or a public one.
    SsmParameter(String),
    /// The newest image of these owners.
    Newest {
        /// Account ids, `self` or `amazon`.
        owners: Vec<String>,
        /// Tags it must have.
        tags: BTreeMap<String, String>,
        /// Pattern of its name, with `*` and `?` as EC2 has them.
        name: Option<String>,
    },
    /// That of a launch template.
    LaunchTemplate {
        /// Which.
        template: TemplateRef,
        /// A number, `$Latest` or `$Default`.
        version: String,
    },
    /// What the instance's own Auto Scaling group would launch.
    AutoScalingGroup,
}

/// The pace of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutSettings {
    /// Nodes that may be away at once; nodes that are not Ready count (default 1).
    pub at_once: u32,
    /// When a node may begin; always, when there is none.
    pub windows: Vec<Window>,
    /// A younger Node is left alone (default 1 h).
    pub min_age: Duration,
    /// A replacement counts after it has been Ready for this long (default 5 min).
    pub ready_for: Duration,
    /// Without a replacement by then the group pauses (default 30 min).
    pub successor_within: Duration,
}

impl Default for RolloutSettings {
    fn default() -> Self {
        RolloutSettings {
            at_once: 1,
            windows: Vec::new(),
            min_age: minutes(60),
            ready_for: minutes(5),
            successor_within: minutes(30),
        }
    }
}

/// A time of the week, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Days on which it opens; all, when there is none.
    pub days: Vec<Weekday>,
    /// When it opens.
    pub from: Time,
    /// When it closes: on the next day, when that is not after `from`.
    pub to: Time,
}

/// How a node ends when its machine is taken away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndSettings {
    /// Whether the metadata service is asked for it; on EC2, when absent.
    pub watch: Option<bool>,
    /// Whether a recommendation to rebalance is an end too.
    pub rebalance: bool,
    /// Auto Scaling lifecycle hook that waits for the bootstrap.
    pub launch_hook: Option<String>,
    /// Auto Scaling lifecycle hook that waits for the drain.
    pub terminate_hook: Option<String>,
    /// The kubelet's `shutdownGracePeriod`; its own default (off) when absent.
    pub shutdown_grace: Option<Duration>,
    /// The part of it that is kept for critical pods (`shutdownGracePeriodCriticalPods`).
    pub shutdown_grace_critical: Option<Duration>,
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}
