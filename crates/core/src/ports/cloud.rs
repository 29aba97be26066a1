//! The cloud's API: EC2, ECR, Systems Manager, Auto Scaling.

use crate::model::cause::Outcome;
use crate::model::secret::Secret;
use async_trait::async_trait;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;

/// An instance as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceInfo {
    /// `i-…`
    pub instance_id: String,
    /// The account that owns it.
    pub account: String,
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopping`, `stopped`.
    pub state: String,
    /// IMDS response hop limit.
    pub hop_limit: Option<i32>,
    /// The image it was started from, `ami-…`.
    pub image_id: Option<String>,
    /// When it was started last.
    pub launched_at: Option<Timestamp>,
}

/// What is asked of ECR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// Which ECR.
    pub api: crate::ecr::host::Api,
    /// As whom; `None` is this machine's own credentials.
    pub role: Option<WebIdentity>,
}

/// A role that a token of another issuer opens (AssumeRoleWithWebIdentity).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebIdentity {
    /// Its ARN.
    pub role: String,
    /// The token.
    pub token: Secret,
}

/// ECR's answer, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryToken {
    /// Base64 of `AWS:password`; empty when the answer had none.
    pub authorization: Secret,
    /// When it ends, if it was said.
    pub expires_at: Option<Timestamp>,
}

/// Which images are asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageQuery {
    /// These ids, deprecated and disabled ones too.
    Ids(Vec<String>),
    /// Images that can be started, of these owners, with all of these tags; deprecated ones too.
    Newest {
        /// Account numbers, `self`, `amazon`, `aws-marketplace`.
        owners: Vec<String>,
        /// Tags with their whole values.
        tags: BTreeMap<String, String>,
        /// The image's name; `*` and `?` stand for any text and any character.
        name: Option<String>,
        /// `x86_64`, `arm64`.
        architecture: String,
    },
}

impl fmt::Display for ImageQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageQuery::Ids(ids) => write!(f, "{}", ids.join(",")),
            ImageQuery::Newest { owners, tags, name, architecture } => {
                write!(f, "newest {architecture} image of {}", owners.join(","))?;
                tags.iter().try_for_each(|(key, value)| write!(f, ", {key}={value}"))?;
                name.iter().try_for_each(|name| write!(f, ", named {name}"))
            }
        }
    }
}

/// An image as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// `ami-…`
    pub id: String,
    /// Its name; empty when it has none.
    pub name: String,
    /// `x86_64`, `arm64`; empty when EC2 does not say.
    pub architecture: String,
    /// `available`, `pending`, `disabled`, `deregistered` and others.
    pub state: String,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// From when on it is deprecated; it may be in the future.
    pub deprecated_at: Option<Timestamp>,
    /// The account that owns it.
    pub owner: String,
    /// Its tags, as far as the caller may see them: those of its own account's images.
    pub tags: BTreeMap<String, String>,
}

/// A launch template by its id or its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TemplateRef {
    /// `lt-…`
    Id(String),
    /// Its name.
    Name(String),
}

impl TemplateRef {
    /// The id or the name.
    pub fn as_str(&self) -> &str {
        match self {
            TemplateRef::Id(text) | TemplateRef::Name(text) => text,
        }
    }
}

impl fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A version of a launch template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateInfo {
    /// Its number: what `$Latest` or `$Default` stood for.
    pub version: u64,
    /// The image as it is written there: `ami-…` or `resolve:ssm:<parameter>`; `None` when it names none.
    pub image: Option<String>,
}

/// A version of a launch template, as an Auto Scaling group names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateVersion {
    /// The template.
    pub template: TemplateRef,
    /// A number, `$Latest` or `$Default`.
    pub version: String,
}

impl fmt::Display for TemplateVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.template, self.version)
    }
}

/// What an Auto Scaling group starts instances from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launch {
    /// A launch template.
    Template(TemplateVersion),
    /// A launch configuration, with the image it names; `None` when the configuration does not exist any more.
    Configuration {
        /// Its name.
        name: String,
        /// `ami-…`
        image: Option<String>,
    },
}

/// What a mixed instances policy says otherwise than its launch template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchOverride {
    /// For this instance type; `None`: types are chosen by their properties.
    pub instance_type: Option<String>,
    /// Another launch template.
    pub template: Option<TemplateVersion>,
    /// Another image, as it is written there.
    pub image: Option<String>,
}

/// The Auto Scaling group of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name.
    pub name: String,
    /// Where this instance is in the group: `InService`, `Terminating:Wait` and others.
    pub lifecycle_state: String,
    /// The launch template that this instance was started from, with the number of its version.
    pub launched_from: Option<TemplateVersion>,
    /// What the next instance is started from; `None` when the group does not say.
    pub launch: Option<Launch>,
    /// The overrides of a mixed instances policy, in its order.
    pub overrides: Vec<LaunchOverride>,
    /// Processes of the group that somebody suspended: without `Launch` there is no successor.
    pub suspended: Vec<String>,
}

/// A lifecycle hook that has stopped an instance on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleHook {
    /// The Auto Scaling group.
    pub group: String,
    /// The hook.
    pub name: String,
    /// The instance that waits.
    pub instance_id: String,
}

impl fmt::Display for LifecycleHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} for {}", self.name, self.group, self.instance_id)
    }
}

/// How the instance goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LifecycleResult {
    /// As the group had it in mind.
    Continue,
    /// A launch is taken back; a termination goes on, without its further hooks.
    Abandon,
}

impl LifecycleResult {
    /// As Auto Scaling calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            LifecycleResult::Continue => "CONTINUE",
            LifecycleResult::Abandon => "ABANDON",
        }
    }
}

/// What Auto Scaling says to a word about a lifecycle action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifecycleAnswer {
    /// It has been taken.
    Taken,
    /// No such action waits: it was completed, ran out, or has not begun yet. Also the answer when an earlier attempt
    /// was done and its answer was lost.
    NotWaiting,
}

/// The cloud's API. A change whose answer was lost may have been done.
#[async_trait(?Send)]
pub trait Cloud {
    /// DescribeInstances filtered by instance id in `region`: instances that EC2 does not know are simply not in the
    /// answer.
    async fn instances(&self, region: &str, ids: &[String]) -> Outcome<Vec<InstanceInfo>>;
    /// Whether credentials can be found at all, and of what kind; never the credentials.
    async fn credentials(&self) -> Outcome<String>;
    /// GetAuthorizationToken of ECR or ECR Public.
    async fn registry_token(&self, request: &TokenRequest) -> Outcome<RegistryToken>;
    /// DescribeImages, in no order: images that do not exist, or that this account may not see, are not in the answer.
    async fn images(&self, region: &str, query: &ImageQuery) -> Outcome<Vec<ImageInfo>>;
    /// GetParameter, not decrypted; `name` may end with `:<version or label>`. `None` when there is none.
    async fn parameter(&self, region: &str, name: &str) -> Outcome<Option<String>>;
    /// DescribeLaunchTemplateVersions of one version (a number, `$Latest` or `$Default`); `None` when there is no such
    /// template or version.
    async fn launch_template(&self, region: &str, of: &TemplateVersion) -> Outcome<Option<TemplateInfo>>;
    /// The Auto Scaling group of an instance; `None` when it is in none.
    async fn group_of(&self, region: &str, instance_id: &str) -> Outcome<Option<GroupInfo>>;
    /// TerminateInstanceInAutoScalingGroup; the group starts another one, for its desired capacity stays as it is.
    async fn terminate_in_group(&self, region: &str, instance_id: &str) -> Outcome<()>;
    /// CompleteLifecycleAction.
    async fn complete_lifecycle(
        &self,
        region: &str,
        hook: &LifecycleHook,
        result: LifecycleResult,
    ) -> Outcome<LifecycleAnswer>;
    /// RecordLifecycleActionHeartbeat: the hook's time-out begins anew.
    async fn heartbeat(&self, region: &str, hook: &LifecycleHook) -> Outcome<LifecycleAnswer>;
}
