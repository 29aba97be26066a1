//! Which image it is, out of the answers of AWS. Pure functions; an error is the reason, for people.

use crate::model::names::is_ami;
use crate::ports::{GroupInfo, ImageInfo, Launch, LaunchOverride, TemplateVersion};
use jiff::Timestamp;

/// How launch templates name a parameter instead of an image.
const PARAMETER: &str = "resolve:ssm:";

/// An image's id, or where it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    /// An id.
    Image(String),
    /// The name of a parameter.
    Parameter(String),
}

/// Reads what a launch template or an override says.
pub(super) fn written(text: &str) -> Result<Written, String> {
    match text.strip_prefix(PARAMETER) {
        Some("") => Err(format!("{text:?} names no parameter")),
        Some(name) => Ok(Written::Parameter(name.to_owned())),
        None => ami(text).map(Written::Image),
    }
}

/// An image's id. What it is instead is not repeated: a parameter may be any secret.
pub(super) fn ami(text: &str) -> Result<String, String> {
    let text = text.trim();
    if is_ami(text) {
        return Ok(text.to_owned());
    }
    let is_json = text.starts_with('{');
    let hint = if is_json { ", but a JSON document: name the parameter below it that is the id alone" } else { "" };
    Err(format!("it is not an image's id (`ami-` and 8 or 17 hexadecimal digits){hint}"))
}

/// The newest of the images that this machine could have been started from; one that is not deprecated is preferred.
pub(super) fn newest<'a>(images: &'a [ImageInfo], architecture: &str, now: Timestamp) -> Result<&'a ImageInfo, String> {
    let is_current = |image: &ImageInfo| image.deprecated_at.is_none_or(|at| at > now);
    let usable = images
        .iter()
        .filter(|image| image.state == "available" && image.architecture == architecture && is_ami(&image.id));
    let mut order: Vec<_> = usable.map(|image| (is_current(image), image.created_at, image)).collect();
    order.sort_by(|a, b| (b.0, b.1, &a.2.id).cmp(&(a.0, a.1, &b.2.id)));
    match order.as_slice() {
        [] if images.is_empty() => Err("there is none".to_owned()),
        [] => Err(format!("none of the {} that there are is available and for {architecture}", images.len())),
        [a, b, ..] if (a.0, a.1) == (b.0, b.1) => {
            let made = a.1.map_or_else(|| "nobody says when".to_owned(), |at| at.to_string());
            Err(format!("two equally new images {} and {}: both were made at the same time ({made})", a.2.id, b.2.id))
        }
        [first, ..] => Ok(first.2),
    }
}

/// What a group starts next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A launch template.
    Template(&'a TemplateVersion),
    /// An image, as it is written in an override or in a launch configuration.
    Written(&'a str),
}

/// What the group starts next in place of an instance of this type.
pub(super) fn next<'a>(group: &'a GroupInfo, instance_type: &str) -> Result<Next<'a>, String> {
    let of_type = |with: &&LaunchOverride| with.instance_type.as_deref() == Some(instance_type);
    let own: Vec<&LaunchOverride> = group.overrides.iter().filter(of_type).collect();
    let overrides = if own.is_empty() { group.overrides.iter().collect() } else { own };
    let mut found = Vec::new();
    for with in overrides {
        let next = overridden(group, with)?;
        if !found.contains(&next) {
            found.push(next);
        }
    }
    match found.as_slice() {
        [] => base(group),
        [one] => Ok(one.clone()),
        several => Err(format!(
            "its mixed instances policy starts {instance_type} from one of {} launch templates or images",
            several.len()
        )),
    }
}

fn overridden<'a>(group: &'a GroupInfo, with: &'a LaunchOverride) -> Result<Next<'a>, String> {
    match (&with.image, &with.template) {
        (Some(image), _) => Ok(Next::Written(image)),
        (None, Some(template)) => Ok(Next::Template(template)),
        (None, None) => base(group),
    }
}

fn base(group: &GroupInfo) -> Result<Next<'_>, String> {
    match &group.launch {
        Some(Launch::Template(template)) => Ok(Next::Template(template)),
        Some(Launch::Configuration { image: Some(image), .. }) => Ok(Next::Written(image)),
        Some(Launch::Configuration { name, image: None }) => {
            Err(format!("its launch configuration {name} does not exist"))
        }
        None => Err("it names neither a launch template nor a launch configuration".to_owned()),
    }
}
