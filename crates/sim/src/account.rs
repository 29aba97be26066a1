//! What the account has beside instances: images, parameters, launch templates, and at most one Auto Scaling group.

use crate::machine::ACCOUNT;
use kubestrap_core::ports::{ImageInfo, ImageQuery, Launch, LaunchOverride, TemplateInfo, TemplateRef};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The image that every machine was started from.
pub const IMAGE: &str = "ami-0123456789abcdef0";

/// The image that comes after it, where workers are rolled.
pub const NEXT_IMAGE: &str = "ami-0fedcba9876543210";

/// The account. Everything in it may change during a run.
pub struct Account {
    /// Images by their id; what is not here was never made, or is deregistered.
    pub images: RefCell<BTreeMap<String, ImageInfo>>,
    /// Parameters by their name.
    pub parameters: RefCell<BTreeMap<String, String>>,
    /// Versions of launch templates, the oldest first; the latest is the default.
    pub templates: RefCell<BTreeMap<TemplateRef, Vec<TemplateInfo>>>,
    /// The group of every machine, when there is one.
    pub group: RefCell<Option<Group>>,
}

/// An Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What it starts instances from.
    pub launch: Launch,
    /// Its policy's overrides.
    pub overrides: Vec<LaunchOverride>,
    /// Instances that a hook has stopped, each with the hook.
    pub waiting: BTreeSet<(String, Hook)>,
}

/// A lifecycle hook.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// On launch, by its name.
    Launching(String),
    /// On termination.
    Terminating(String),
}

impl Hook {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Hook::Launching(name) | Hook::Terminating(name) => name,
        }
    }

    /// The state of an instance that it has stopped.
    pub fn state(&self) -> &'static str {
        match self {
            Hook::Launching(_) => "Pending:Wait",
            Hook::Terminating(_) => "Terminating:Wait",
        }
    }
}

impl Default for Account {
    fn default() -> Self {
        let image = ImageInfo {
            id: IMAGE.to_owned(),
            name: "node-1".to_owned(),
            architecture: "arm64".to_owned(),
            state: "available".to_owned(),
            created_at: "2026-10-01T00:00:00Z".parse().ok(),
            deprecated_at: None,
            owner: ACCOUNT.to_owned(),
            tags: BTreeMap::new(),
        };
        Account {
            images: RefCell::new(BTreeMap::from([(IMAGE.to_owned(), image)])),
            parameters: RefCell::default(),
            templates: RefCell::default(),
            group: RefCell::default(),
        }
    }
}

impl Account {
    /// The images that a query is about.
    pub fn images(&self, query: &ImageQuery) -> Vec<ImageInfo> {
        let images = self.images.borrow();
        let is_asked_for = |image: &&ImageInfo| match query {
            ImageQuery::Ids(ids) => ids.contains(&image.id),
            ImageQuery::Newest { owners, tags, name, architecture } => {
                image.state == "available"
                    && owners.iter().any(|owner| owner == "self" && image.owner == ACCOUNT || *owner == image.owner)
                    && tags.iter().all(|tag| image.tags.iter().any(|of| of == tag))
                    && name.as_ref().is_none_or(|name| fits(name, &image.name))
                    && *architecture == image.architecture
            }
        };
        images.values().filter(is_asked_for).cloned().collect()
    }

    /// A version of a launch template.
    pub fn template(&self, template: &TemplateRef, version: &str) -> Option<TemplateInfo> {
        let templates = self.templates.borrow();
        let versions = templates.get(template)?;
        match version {
            "$Latest" | "$Default" => versions.last().cloned(),
            number => versions.iter().find(|version| version.version.to_string() == number).cloned(),
        }
    }
}

/// Whether a name fits a pattern with `*` and `?`.
fn fits(pattern: &str, name: &str) -> bool {
    match (pattern.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some('*'), _) if fits(&pattern[1..], name) => true,
        (Some('*'), Some(first)) => fits(pattern, &name[first.len_utf8()..]),
        (Some(wanted), Some(first)) if wanted == '?' || wanted == first => {
            fits(&pattern[wanted.len_utf8()..], &name[first.len_utf8()..])
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_as_ec2s_do() {
        for (pattern, name) in [("*", ""), ("node-*", "node-1"), ("n?de*1", "node-11"), ("node", "node"), ("*ä*", "ä")]
        {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("", "n"), ("node-?", "node-"), ("node", "nodes"), ("?*", ""), ("*x", "xy")] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn images_are_found_by_id_whatever_they_are_and_by_their_marks_only_when_they_can_be_started() {
        let account = Account::default();
        let newest = |owner: &str, tags: BTreeMap<String, String>, architecture: &str| {
            let (owners, architecture) = (vec![owner.to_owned()], architecture.to_owned());
            account.images(&ImageQuery::Newest { owners, tags, name: Some("node-*".to_owned()), architecture }).len()
        };
        let tags = BTreeMap::from([("team".to_owned(), "web".to_owned())]);
        assert_eq!(newest("self", BTreeMap::new(), "arm64"), 1);
        assert_eq!(newest("amazon", BTreeMap::new(), "arm64"), 0);
        assert_eq!(newest("self", BTreeMap::new(), "x86_64"), 0);
        assert_eq!(newest("self", tags.clone(), "arm64"), 0);
        account.images.borrow_mut().values_mut().for_each(|image| image.tags = tags.clone());
        assert_eq!(newest("self", tags.clone(), "arm64"), 1);
        account.images.borrow_mut().values_mut().for_each(|image| image.state = "disabled".to_owned());
        assert_eq!(newest("self", tags, "arm64"), 0);
        let by_id = |id: &str| account.images(&ImageQuery::Ids(vec![id.to_owned()])).len();
        assert_eq!((by_id(IMAGE), by_id("ami-1")), (1, 0));
    }
}
