//! The keys `drift` and `end`.

use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The image a node should run, and what is done when it runs another one.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DriftPart {
    /// Where the desired image is found: exactly one key. Without it images are not compared.
    pub image: Option<ImagePart>,
    /// How often (default 5m).
    pub every: Option<String>,
    /// What comes of a node that differs from its bake manifest (default report).
    pub content: Option<ContentKind>,
    /// Whether an image whose tag `kubestrap:content` is that of the own manifest is as good as the desired one (default
    /// false).
    pub same_content_stays: Option<bool>,
    /// How far a drifted node may go (default report).
    pub action: Option<ActionKind>,
    /// The group in which a replacement is expected (default: the Auto Scaling group, else the role).
    pub group: Option<String>,
    /// Program (an absolute path) and arguments that replace a machine outside of EC2; run on it, as root, after its drain.
    pub hook: Option<Vec<String>>,
    /// The longest that a drain may take before it is given up, 1m to 1d (default 15m).
    pub drain_within: Option<String>,
    /// The pace, read by the masters.
    pub rollout: Option<RolloutPart>,
}

/// What comes of a node that differs from its bake manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContentKind {
    /// It is not compared.
    Off,
    /// It is told, and nothing else.
    Report,
    /// It is drift like another image.
    Act,
}

/// How far a drifted node may go; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActionKind {
    /// It is told.
    Report,
    /// New pods go elsewhere where there is room.
    Mark,
    /// Its pods are evicted when the arbiter grants it.
    Drain,
    /// And it is replaced.
    Replace,
}

/// Where the desired image is found: exactly one key.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImagePart {
    /// An image id: `ami-0123456789abcdef0`.
    pub ami: Option<String>,
    /// Name of an SSM parameter whose value is an image id.
    pub ssm_parameter: Option<String>,
    /// The newest image of these owners and tags, of this machine's architecture.
    pub newest: Option<NewestPart>,
    /// The image of a launch template.
    pub launch_template: Option<LaunchTemplatePart>,
    /// `true`: what the instance's own Auto Scaling group would launch.
    pub auto_scaling_group: Option<bool>,
}

/// Which images are candidates.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewestPart {
    /// Account ids in quotes, `self` or `amazon`. Needed: without it anybody's image would be a candidate.
    pub owners: Option<Vec<String>>,
    /// Tags they must have.
    pub tags: Option<BTreeMap<String, String>>,
    /// Pattern of their name, with `*` and `?`.
    pub name: Option<String>,
}

/// A launch template.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LaunchTemplatePart {
    /// `lt-…`; this or `name`.
    pub id: Option<String>,
    /// Its name; this or `id`.
    pub name: Option<String>,
    /// A number in quotes, `$Latest` or `$Default` (default `$Default`, as EC2 has it).
    pub version: Option<String>,
}

/// The pace of a rollout.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutPart {
    /// Nodes that may be away at once; nodes that are not Ready count (default 1).
    pub at_once: Option<u32>,
    /// When a node may begin, in UTC; always, when absent.
    pub windows: Option<Vec<WindowPart>>,
    /// A younger Node is left alone (default 1h).
    pub min_age: Option<String>,
    /// A replacement counts after it has been Ready for this long (default 5m).
    pub ready_for: Option<String>,
    /// Without a replacement by then the group pauses (default 30m).
    pub successor_within: Option<String>,
}

/// A time of the week, in UTC.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowPart {
    /// `mon` to `sun`, on which it opens; all, when absent.
    pub days: Option<Vec<String>>,
    /// When it opens: `"02:00"`, in quotes.
    pub from: Option<String>,
    /// When it closes; on the next day, when it is earlier than `from`. `"24:00"` is midnight.
    pub to: Option<String>,
}

/// How a node ends when its machine is taken away.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndPart {
    /// Whether spot interruptions, maintenance and Auto Scaling's end are watched for (default: on EC2).
    pub watch: Option<bool>,
    /// Whether a recommendation to rebalance is an end too (default false).
    pub rebalance: Option<bool>,
    /// Auto Scaling lifecycle hook that waits for the bootstrap: it is told how that ended.
    pub launch_hook: Option<String>,
    /// Auto Scaling lifecycle hook that waits for the drain.
    pub terminate_hook: Option<String>,
    /// The kubelet's shutdownGracePeriod, 10s to 1h; off when absent.
    pub shutdown_grace: Option<String>,
    /// The part of it that is kept for critical pods; a third when absent.
    pub shutdown_grace_critical: Option<String>,
}
