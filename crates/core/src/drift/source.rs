//! Which image this machine should run, by the one source that is configured, and what became of the one it runs.
//!
//! A source that is wrong is an error of its own ([`Cause::ImageSource`]), with the place to mend it. Whatever else goes
//! wrong (a throttle, an outage, a right that is missing) keeps its own cause: nothing is concluded from it.

mod choose;

#[cfg(test)]
mod tests;

use super::cache::{Answer, Cache, Question};
use crate::config::settings::ImageSource;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::Ec2;
use crate::node::Node;
use crate::ports::{Cloud, GroupInfo, ImageInfo, ImageQuery, TemplateVersion};
use choose::{Next, Written};
use jiff::Timestamp;
use std::time::Duration;

/// The tag of an image that says what is in it: two images with the same value are the same to a node.
pub const CONTENT_TAG: &str = "kubestrap:content";
/// The state of an image that EC2 does not show (any more).
pub const DEREGISTERED: &str = "deregistered";

/// The image that this machine should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// `ami-…`
    pub image: String,
    /// The value of its tag [`CONTENT_TAG`]; EC2 shows tags to the image's own account alone.
    pub content: Option<String>,
    /// For people: "SSM parameter /acme/image".
    pub named_by: String,
    /// The one that it runs.
    pub running: RunningImage,
    /// The instance's Auto Scaling group; only the source that is the group asks for it.
    pub group: Option<GroupInfo>,
}

/// The image that this machine was started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningImage {
    /// `ami-…`
    pub id: String,
    /// As EC2 has it; [`DEREGISTERED`] when EC2 does not show it.
    pub state: String,
    /// From when on it is deprecated.
    pub deprecated_at: Option<Timestamp>,
    /// The value of its tag [`CONTENT_TAG`].
    pub content: Option<String>,
    /// `x86_64`, `arm64`; this program's own when EC2 does not show the image.
    pub architecture: String,
}

impl RunningImage {
    /// What is wrong with it, whichever image is desired; `None` when nothing is.
    pub fn complaint(&self, now: Timestamp) -> Option<String> {
        let id = &self.id;
        match (self.state.as_str(), self.deprecated_at) {
            (DEREGISTERED, _) => {
                Some(format!("{id} is deregistered, or no longer shared with this account: EC2 does not show it"))
            }
            ("available", Some(at)) if at <= now => Some(format!("{id} is deprecated since {at}")),
            ("available", _) => None,
            (state, _) => Some(format!("{id} is {state}: nothing new can be started from it")),
        }
    }
}

/// The image that this machine should run.
///
/// # Errors
/// [`Cause::ImageSource`] when the source resolves to nothing, to several equally new images, to one of another
/// architecture, to one that cannot be started, or to what is no image id. [`Cause::Configuration`] on a machine that is
/// no EC2 instance. Everything else is the failure of a call: then nothing is known.
pub async fn resolve(node: &Node, cache: &Cache, source: &ImageSource) -> Outcome<Desired> {
    let asker = Asker::of(node, cache)?;
    asker.resolve(source).await
}

/// The image that this machine runs, whatever the desired one is.
///
/// # Errors
/// [`Cause::Configuration`] on a machine that is no EC2 instance; else the failure of the call.
pub async fn running_image(node: &Node, cache: &Cache) -> Outcome<RunningImage> {
    Asker::of(node, cache)?.running().await
}

/// Asks AWS, or the cache.
struct Asker<'a> {
    cloud: &'a dyn Cloud,
    ec2: &'a Ec2,
    cache: &'a Cache,
    /// How long an answer lasts, with jitter.
    spread: Box<dyn Fn(Duration) -> Duration + 'a>,
    uptime: Duration,
    now: Timestamp,
}

fn is_no_instance() -> Failure {
    let why = "this machine is no EC2 instance: it was started from no image";
    Failure::new(Cause::Configuration, "find the desired image", why)
        .advise("remove `drift.image` from the configuration; the content of this machine is compared without it")
}

fn wrong(named_by: &str, why: impl Into<String>, mend: &str) -> Failure {
    Failure::new(Cause::ImageSource, format!("find the desired image by {named_by}"), why).advise(mend)
}

impl<'a> Asker<'a> {
    fn of(node: &'a Node, cache: &'a Cache) -> Outcome<Self> {
        let ec2 = node.identity.ec2().ok_or_else(is_no_instance)?;
        let time = &node.world.time;
        let spread = Box::new(|base| node.jitter(base));
        Ok(Asker { cloud: &*node.world.cloud, ec2, cache, spread, uptime: time.uptime(), now: time.now() })
    }

    async fn resolve(&self, source: &ImageSource) -> Outcome<Desired> {
        let running = self.running().await?;
        let mut group = None;
        let (named_by, id, mend) = match source {
            ImageSource::Ami(id) => {
                let (named_by, mend) = ("the id in `drift.image.ami`".to_owned(), "correct `drift.image.ami`");
                let id = choose::ami(id).map_err(|why| wrong(&named_by, why, mend))?;
                (named_by, id, mend)
            }
            ImageSource::SsmParameter(name) => {
                let mend = "correct the parameter, or `drift.image.ssm_parameter`";
                let named_by = format!("the SSM parameter {name}");
                let id = self.parameter(name, &named_by, mend).await?;
                (named_by, id, mend)
            }
            ImageSource::Newest { owners, tags, name } => {
                let (owners, tags, name, architecture) =
                    (owners.clone(), tags.clone(), name.clone(), running.architecture.clone());
                let query = ImageQuery::Newest { owners, tags, name, architecture };
                let named_by = format!("the {query}");
                let mend = "correct `drift.image.newest`, or the images";
                let id = self.newest(query, &named_by, mend, &running).await?;
                (named_by, id, mend)
            }
            ImageSource::LaunchTemplate { template, version } => {
                let of = TemplateVersion { template: template.clone(), version: version.clone() };
                let mend = "correct the launch template, or `drift.image.launch_template`";
                let (named_by, id) = self.template(&of, "", mend).await?;
                (named_by, id, mend)
            }
            ImageSource::AutoScalingGroup => {
                let mend = "correct the Auto Scaling group, or choose another source in `drift.image`";
                let found = self.group(mend).await?;
                let (named_by, id) = self.of_group(&found, mend).await?;
                group = Some(found);
                (named_by, id, mend)
            }
        };
        let content = self.startable(&id, &named_by, mend, &running).await?;
        Ok(Desired { image: id, content, named_by, running, group })
    }

    async fn running(&self) -> Outcome<RunningImage> {
        let id = self.ec2.image_id.clone();
        let image = self.image(&id).await?;
        let content = image.as_ref().and_then(|image| image.tags.get(CONTENT_TAG).cloned());
        let deprecated_at = image.as_ref().and_then(|image| image.deprecated_at);
        let (state, architecture) = match image {
            Some(image) => (image.state, image.architecture),
            None => (DEREGISTERED.to_owned(), String::new()),
        };
        let architecture = if architecture.is_empty() { own_architecture().to_owned() } else { architecture };
        Ok(RunningImage { id, state, deprecated_at, content, architecture })
    }

    /// Whether the image is one that this machine could be started from; the value of its tag [`CONTENT_TAG`].
    async fn startable(&self, id: &str, named_by: &str, mend: &str, running: &RunningImage) -> Outcome<Option<String>> {
        // It runs: what became of the image since is said of the running one.
        if *id == running.id {
            return Ok(running.content.clone());
        }
        let Some(image) = self.image(id).await? else {
            let region = &self.ec2.region;
            let why = format!("{id} does not exist in {region}, or is not shared with this account");
            return Err(wrong(named_by, why, mend));
        };
        if image.architecture != running.architecture {
            let named =
                if image.architecture.is_empty() { "no architecture that EC2 names" } else { &image.architecture };
            let why = format!("{id} is for {named}, and this machine is {}", running.architecture);
            return Err(wrong(named_by, why, mend));
        }
        if image.state != "available" {
            let why = format!("{id} is {}: nothing can be started from it", image.state);
            return Err(wrong(named_by, why, mend));
        }
        Ok(image.tags.get(CONTENT_TAG).cloned())
    }

    async fn newest(&self, query: ImageQuery, named_by: &str, mend: &str, running: &RunningImage) -> Outcome<String> {
        let images = self.images(query).await?;
        let newest = choose::newest(&images, &running.architecture, self.now);
        newest.map(|image| image.id.clone()).map_err(|why| wrong(named_by, why, mend))
    }

    async fn parameter(&self, name: &str, named_by: &str, mend: &str) -> Outcome<String> {
        let question = Question::Parameter(name.to_owned());
        let kept = self.cache.get(&question, self.uptime);
        let value = match kept {
            Some(Answer::Parameter(value)) => Some(value),
            _ => {
                let value = self.cloud.parameter(&self.ec2.region, name).await?;
                if let Some(value) = &value {
                    self.keep(question, Answer::Parameter(value.clone()));
                }
                value
            }
        };
        let Some(value) = value else {
            let why = format!("there is no parameter {name} in {}", self.ec2.region);
            return Err(wrong(named_by, why, mend));
        };
        choose::ami(&value).map_err(|why| wrong(named_by, format!("of the value of {name}: {why}"), mend))
    }

    /// The image of a launch template, and how it was found; `of` is who named the template.
    async fn template(&self, version: &TemplateVersion, of: &str, mend: &str) -> Outcome<(String, String)> {
        let asked = format!("the launch template {version}{of}");
        let found = self.cloud.launch_template(&self.ec2.region, version).await?;
        let Some(found) = found else {
            let why = format!("there is no such template or version in {}", self.ec2.region);
            return Err(wrong(&asked, why, mend));
        };
        let named_by = match version.version.as_str() {
            "$Latest" | "$Default" => format!("{asked} ({})", found.version),
            _ => asked,
        };
        match found.image {
            Some(image) => self.written(&image, named_by, mend).await,
            None => Err(wrong(&named_by, "it names no image", mend)),
        }
    }

    async fn written(&self, text: &str, named_by: String, mend: &str) -> Outcome<(String, String)> {
        match choose::written(text).map_err(|why| wrong(&named_by, format!("of what it names: {why}"), mend))? {
            Written::Image(id) => Ok((named_by, id)),
            Written::Parameter(name) => {
                let named_by = format!("{named_by}, SSM parameter {name}");
                let id = self.parameter(&name, &named_by, mend).await?;
                Ok((named_by, id))
            }
        }
    }

    async fn group(&self, mend: &str) -> Outcome<GroupInfo> {
        let group = self.cloud.group_of(&self.ec2.region, &self.ec2.instance_id).await?;
        let why = || format!("{} is in no Auto Scaling group", self.ec2.instance_id);
        group.ok_or_else(|| wrong("the instance's Auto Scaling group", why(), mend))
    }

    async fn of_group(&self, group: &GroupInfo, mend: &str) -> Outcome<(String, String)> {
        let named_by = format!("the Auto Scaling group {}", group.name);
        match choose::next(group, &self.ec2.instance_type).map_err(|why| wrong(&named_by, why, mend))? {
            Next::Written(text) => self.written(text, named_by, mend).await,
            Next::Template(version) => self.template(version, &format!(" of {named_by}"), mend).await,
        }
    }

    async fn image(&self, id: &str) -> Outcome<Option<ImageInfo>> {
        let images = self.images(ImageQuery::Ids(vec![id.to_owned()])).await?;
        Ok(images.into_iter().find(|image| image.id == id))
    }

    async fn images(&self, query: ImageQuery) -> Outcome<Vec<ImageInfo>> {
        let question = Question::Images(query.clone());
        if let Some(Answer::Images(images)) = self.cache.get(&question, self.uptime) {
            return Ok(images);
        }
        let images = self.cloud.images(&self.ec2.region, &query).await?;
        if !images.is_empty() {
            self.keep(question, Answer::Images(images.clone()));
        }
        Ok(images)
    }

    fn keep(&self, question: Question, answer: Answer) {
        if let Some(lasts) = question.lasts() {
            let until = self.uptime + (self.spread)(lasts);
            self.cache.put(question, answer, self.uptime, until);
        }
    }
}

/// What EC2 calls the architecture that this program was built for.
fn own_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}
