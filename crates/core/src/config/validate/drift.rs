//! `drift` and `end`: what may come of them is the loss of machines, so nothing is guessed.

use super::{Check, values};
use crate::config::document::{
    ActionKind, ContentKind, DriftPart, EndPart, ImagePart, LaunchTemplatePart, NewestPart, RolloutPart, WindowPart,
};
use crate::config::settings::{
    Action, ContentPolicy, DriftSettings, EndSettings, ImageSource, RolloutSettings, TemplateRef, Window,
};
use crate::config::tree::shorten;
use crate::model::names::is_ami;
use jiff::civil::{Time, Weekday};
use std::time::Duration;

/// What a machine of few pods is content with, and what no rollout ends with.
const MOST_AT_ONCE: u32 = 1000;

impl Check<'_> {
    pub(super) fn drift(&mut self, part: DriftPart) -> Option<DriftSettings> {
        let image = part.image.and_then(|image| self.image_source(image));
        let action = match part.action {
            None | Some(ActionKind::Report) => Action::Report,
            Some(ActionKind::Mark) => Action::Mark,
            Some(ActionKind::Drain) => Action::Drain,
            Some(ActionKind::Replace) => Action::Replace,
        };
        let group = self.parse(&["drift", "group"], part.group, group_name);
        let hook = part.hook.and_then(|hook| self.hook(hook));
        let every = self.duration(&["drift", "every"], part.every, "10s", "1d");
        let drain_within = self.duration(&["drift", "drain_within"], part.drain_within, "1m", "1d");
        let rollout = self.rollout(part.rollout.unwrap_or_default());
        Some(DriftSettings {
            image,
            every: every?,
            content: match part.content {
                Some(ContentKind::Off) => ContentPolicy::Off,
                None | Some(ContentKind::Report) => ContentPolicy::Report,
                Some(ContentKind::Act) => ContentPolicy::Act,
            },
            same_content_stays: part.same_content_stays.unwrap_or(false),
            action,
            group,
            hook,
            drain_within: drain_within?,
            rollout: rollout?,
        })
    }

    fn image_source(&mut self, part: ImagePart) -> Option<ImageSource> {
        let path = ["drift", "image"];
        let own_group = part.auto_scaling_group == Some(true);
        let given = [
            ("ami", part.ami.is_some()),
            ("ssm_parameter", part.ssm_parameter.is_some()),
            ("newest", part.newest.is_some()),
            ("launch_template", part.launch_template.is_some()),
            ("auto_scaling_group", own_group),
        ];
        let named: Vec<&str> = given.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        if named.len() > 1 {
            self.problem(&path, format!("exactly one source is needed, and there are {}", named.join(" and ")));
            return None;
        }
        if let Some(ami) = part.ami {
            return self.parse(&["drift", "image", "ami"], Some(ami), ami_id).map(ImageSource::Ami);
        }
        if let Some(name) = part.ssm_parameter {
            return self
                .parse(&["drift", "image", "ssm_parameter"], Some(name), parameter)
                .map(ImageSource::SsmParameter);
        }
        if let Some(newest) = part.newest {
            return self.newest(newest);
        }
        if let Some(template) = part.launch_template {
            return self.launch_template(template);
        }
        if own_group {
            return Some(ImageSource::AutoScalingGroup);
        }
        let sources = "ami, ssm_parameter, newest, launch_template or auto_scaling_group: true";
        self.problem(&path, format!("it names no source: {sources}"));
        None
    }

    fn newest(&mut self, part: NewestPart) -> Option<ImageSource> {
        let path = ["drift", "image", "newest", "owners"];
        let before = self.problems.len();
        let owners = self.list(&path, part.owners, owner);
        if owners.is_empty() && self.problems.len() == before {
            let why = "without owners anybody's public image would be a candidate: account ids, self or amazon";
            self.problem(&path[..3], why);
        }
        let tags = part.tags.unwrap_or_default();
        if tags.is_empty() && part.name.is_none() && self.problems.len() == before {
            self.problem(&path[..3], "it needs `tags` or `name`: else every image of the owners is a candidate");
        }
        let name = self.parse(&["drift", "image", "newest", "name"], part.name, image_name);
        (self.problems.len() == before).then_some(ImageSource::Newest { owners, tags, name })
    }

    fn launch_template(&mut self, part: LaunchTemplatePart) -> Option<ImageSource> {
        let path = ["drift", "image", "launch_template"];
        let version = part.version.unwrap_or_else(|| "$Default".to_owned());
        let version = self.parse(&["drift", "image", "launch_template", "version"], Some(version), template_version);
        let template = match (part.id, part.name) {
            (Some(id), None) => {
                self.parse(&["drift", "image", "launch_template", "id"], Some(id), template_id).map(TemplateRef::Id)
            }
            (None, Some(name)) => self
                .parse(&["drift", "image", "launch_template", "name"], Some(name), template_name)
                .map(TemplateRef::Name),
            _ => {
                self.problem(&path, "exactly one of `id` and `name` is needed");
                None
            }
        };
        Some(ImageSource::LaunchTemplate { template: template?, version: version? })
    }

    fn hook(&mut self, hook: Vec<String>) -> Option<Vec<String>> {
        match hook.first() {
            None => self.problem(&["drift", "hook"], "it is empty: a program and its arguments"),
            Some(program) if values::absolute(program).is_err() => {
                let why = format!("{:?} is not an absolute path of a program", shorten(program));
                self.problem(&["drift", "hook"], why);
            }
            Some(_) if hook.iter().any(|word| word.chars().any(char::is_control)) => {
                self.problem(&["drift", "hook"], "a control character in an argument");
            }
            Some(_) => return Some(hook),
        }
        None
    }

    fn rollout(&mut self, part: RolloutPart) -> Option<RolloutSettings> {
        let path = |key: &'static str| ["drift", "rollout", key];
        let defaults = RolloutSettings::default();
        let at_once = part.at_once.unwrap_or(defaults.at_once);
        if at_once == 0 || at_once > MOST_AT_ONCE {
            let why = format!(
                "{at_once} is not between 1 and {MOST_AT_ONCE}; to stop a rollout, `kubestrap rollout pause` or `action: report`"
            );
            self.problem(&path("at_once"), why);
        }
        let mut windows = Vec::new();
        for (index, window) in part.windows.unwrap_or_default().into_iter().enumerate() {
            windows.extend(self.window(&index.to_string(), window));
        }
        let min_age = self.duration(&path("min_age"), part.min_age, "0s", "30d");
        let ready_for = self.duration(&path("ready_for"), part.ready_for, "1s", "1d");
        let successor_within = self.duration(&path("successor_within"), part.successor_within, "30s", "7d");
        if let (Some(ready), Some(within)) = (ready_for, successor_within)
            && ready >= within
        {
            self.problem(&path("successor_within"), "no replacement can be Ready for `ready_for` before it ends");
        }
        Some(RolloutSettings {
            at_once,
            windows,
            min_age: min_age?,
            ready_for: ready_for?,
            successor_within: successor_within?,
        })
    }

    fn window(&mut self, index: &str, part: WindowPart) -> Option<Window> {
        let path = ["drift", "rollout", "windows", index];
        let before = self.problems.len();
        if part.days.as_ref().is_some_and(Vec::is_empty) {
            self.problem(&path, "it never opens: `days` is empty; leave it out for every day");
        }
        let days = self.list(&[&path[..], &["days"]].concat(), part.days, weekday);
        let from = self.parse(&[&path[..], &["from"]].concat(), part.from, time_of_day);
        // From midnight to midnight is the whole day, and no mistake.
        let whole_day = part.to.as_deref() == Some("24:00");
        let to = self.parse(&[&path[..], &["to"]].concat(), part.to, time_of_day);
        if self.problems.len() > before {
            return None;
        }
        let (Some(from), Some(to)) = (from, to) else {
            self.problem(&path, "it needs `from` and `to`, for example from: \"02:00\", to: \"05:00\"");
            return None;
        };
        if from == to && !whole_day {
            self.problem(&path, "it never opens: it ends when it begins; leave `windows` out for always");
            return None;
        }
        Some(Window { days, from, to })
    }

    pub(super) fn end(&mut self, part: EndPart) -> EndSettings {
        let grace = self.duration(&["end", "shutdown_grace"], part.shutdown_grace, "10s", "1h");
        let critical = part.shutdown_grace_critical;
        let critical = self.duration(&["end", "shutdown_grace_critical"], critical, "1s", "1h");
        match (grace, critical) {
            (None, Some(_)) => {
                self.problem(
                    &["end", "shutdown_grace_critical"],
                    "it is a part of `end.shutdown_grace`, which is not set",
                );
            }
            (Some(grace), Some(critical)) if critical >= grace => {
                self.problem(
                    &["end", "shutdown_grace_critical"],
                    "it is a part of `end.shutdown_grace`: less than that",
                );
            }
            _ => {}
        }
        EndSettings {
            watch: part.watch,
            rebalance: part.rebalance.unwrap_or(false),
            launch_hook: self.parse(&["end", "launch_hook"], part.launch_hook, hook_name),
            terminate_hook: self.parse(&["end", "terminate_hook"], part.terminate_hook, hook_name),
            shutdown_grace: grace,
            shutdown_grace_critical: critical.or(grace.map(|grace| Duration::from_secs((grace.as_secs() / 3).max(1)))),
        }
    }
}

fn ami_id(text: &str) -> Result<String, String> {
    if is_ami(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is not an image id such as ami-0123456789abcdef0", shorten(text)))
    }
}

/// Letters, digits and `.-_/`; a full ARN names a parameter of another account.
fn parameter(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | ':');
    if (1..=1011).contains(&text.len()) && text.chars().all(plain) && !text.starts_with("ssm:") {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is not the name of an SSM parameter such as /acme/node-image", shorten(text)))
    }
}

fn owner(text: &str) -> Result<String, String> {
    match text {
        "self" | "amazon" => Ok(text.to_owned()),
        "aws-marketplace" => Err("images of the marketplace are many sellers' and none is the newest".to_owned()),
        _ => values::account(text).map_err(|why| format!("{why}; or self, or amazon")),
    }
}

/// EC2's names: 3 to 128 characters; `*` and `?` make it a pattern.
fn image_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_*?".contains(c);
    if (1..=128).contains(&text.len()) && text.chars().all(plain) && text.chars().any(|c| c != '*') {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is not a pattern of image names such as node-v1.36-*", shorten(text)))
    }
}

fn template_id(text: &str) -> Result<String, String> {
    let hex = |rest: &str| (8..=17).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_hexdigit());
    if text.strip_prefix("lt-").is_some_and(hex) {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is not the id of a launch template such as lt-0123456789abcdef0", shorten(text)))
    }
}

/// EC2: 3 to 128 letters, digits and `().-/_`.
fn template_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "().-/_".contains(c);
    if (3..=128).contains(&text.len()) && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is not the name of a launch template", shorten(text)))
    }
}

fn template_version(text: &str) -> Result<String, String> {
    let number = text.parse::<u64>().is_ok_and(|number| number > 0 && number.to_string() == text);
    if number || matches!(text, "$Latest" | "$Default") {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is not a version: a number, $Latest or $Default", shorten(text)))
    }
}

/// It becomes part of annotations, and of keys of the rollout's ledger.
fn group_name(text: &str) -> Result<String, String> {
    if (1..=255).contains(&text.len()) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is not the name of a group: at most 255 characters", shorten(text)))
    }
}

/// Auto Scaling: 1 to 255 letters, digits and `-_/`.
fn hook_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/');
    if (1..=255).contains(&text.len()) && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is not the name of a lifecycle hook", shorten(text)))
    }
}

fn weekday(text: &str) -> Result<Weekday, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "mon" | "monday" => Weekday::Monday,
        "tue" | "tuesday" => Weekday::Tuesday,
        "wed" | "wednesday" => Weekday::Wednesday,
        "thu" | "thursday" => Weekday::Thursday,
        "fri" | "friday" => Weekday::Friday,
        "sat" | "saturday" => Weekday::Saturday,
        "sun" | "sunday" => Weekday::Sunday,
        _ => return Err(format!("{:?} is not a day: mon, tue, wed, thu, fri, sat or sun", shorten(text))),
    })
}

/// `HH:MM`; `24:00` is the midnight that ends a day.
fn time_of_day(text: &str) -> Result<Time, String> {
    let wrong = || format!("{:?} is not a time such as \"02:00\"", shorten(text));
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let number = |part: &str| {
        (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse::<i8>().ok()).flatten()
    };
    match (number(hour), number(minute)) {
        (Some(24), Some(0)) => Ok(Time::midnight()),
        (Some(hour), Some(minute)) => Time::new(hour, minute, 0, 0).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests;
