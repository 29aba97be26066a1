//! What may end machines is refused when it is doubtful: each line is laid on a valid configuration.

use crate::config::settings::{Action, DriftSettings, EndSettings, ImageSource, Settings, TemplateRef, Window};
use crate::config::{Layer, load};
use jiff::civil::{Weekday, time};
use std::time::Duration;

const BASE: &str = "cluster: prod\nrole: worker\nstore: s3://acme-clusters/k8s\n";

fn laid(over: &str) -> Result<Settings, Vec<String>> {
    let layers = vec![Layer::document("base", BASE), Layer::document("over", over)];
    load(layers).map(|effective| effective.settings).map_err(|all| all.iter().map(ToString::to_string).collect())
}

fn settings(over: &str) -> Settings {
    laid(over).unwrap_or_else(|problems| panic!("{over}: {problems:?}"))
}

const BAD: &[(&str, &str)] = &[
    ("drift: { image: {} }", "it names no source"),
    ("drift: { image: { auto_scaling_group: false } }", "it names no source"),
    (
        "drift: { image: { ami: ami-0123abcd, ssm_parameter: /x } }",
        "exactly one source is needed, and there are ami and ssm_parameter",
    ),
    ("drift: { image: { ami: ami-0123 } }", "\"ami-0123\" is not an image id"),
    ("drift: { image: { ami: AMI-0123abcd } }", "is not an image id"),
    ("drift: { image: { ami: ami-0123abcdef0123456789 } }", "is not an image id"),
    ("drift: { image: { ssm_parameter: '' } }", "is not the name of an SSM parameter"),
    ("drift: { image: { ssm_parameter: '/a b' } }", "is not the name of an SSM parameter"),
    ("drift: { image: { newest: { tags: { a: b } } } }", "anybody's public image"),
    ("drift: { image: { newest: { owners: [], name: n-* } } }", "anybody's public image"),
    ("drift: { image: { newest: { owners: [self] } } }", "it needs `tags` or `name`"),
    ("drift: { image: { newest: { owners: [self], name: '*' } } }", "is not a pattern of image names"),
    ("drift: { image: { newest: { owners: ['12'], name: n-* } } }", "`drift.image.newest.owners.0`"),
    ("drift: { image: { newest: { owners: [aws-marketplace], name: n-* } } }", "none is the newest"),
    ("drift: { image: { launch_template: {} } }", "exactly one of `id` and `name`"),
    (
        "drift: { image: { launch_template: { id: lt-0123456789abcdef0, name: web } } }",
        "exactly one of `id` and `name`",
    ),
    ("drift: { image: { launch_template: { id: web } } }", "is not the id of a launch template"),
    ("drift: { image: { launch_template: { name: web, version: $Newest } } }", "a number, $Latest or $Default"),
    ("drift: { image: { launch_template: { name: web, version: '0' } } }", "a number, $Latest or $Default"),
    ("drift: { action: reboot }", "`drift.action` must be one of report, mark, drain, replace"),
    ("drift: { content: roll }", "`drift.content` must be one of"),
    ("drift: { every: 1s }", "1s is not between 10s and 1d"),
    ("drift: { drain_within: 0s }", "0s is not between 1m and 1d"),
    ("drift: { hook: [] }", "it is empty"),
    ("drift: { hook: [reimage] }", "is not an absolute path"),
    ("drift: { hook: ['/sbin/reimage', \"a\\nb\"] }", "a control character"),
    ("drift: { rollout: { at_once: 0 } }", "0 is not between 1 and 1000"),
    ("drift: { rollout: { ready_for: 30m, successor_within: 30m } }", "no replacement can be Ready"),
    ("drift: { rollout: { windows: [{ from: '02:00' }] } }", "it needs `from` and `to`"),
    ("drift: { rollout: { windows: [{ from: '02:00', to: '02:00' }] } }", "`drift.rollout.windows.0`: it never opens"),
    ("drift: { rollout: { windows: [{ days: [], from: '02:00', to: '03:00' }] } }", "it never opens: `days` is empty"),
    ("drift: { rollout: { windows: [{ days: [someday], from: '02:00', to: '03:00' }] } }", "\"someday\" is not a day"),
    ("drift: { rollout: { windows: [{ from: '2:00', to: '03:00' }] } }", "\"2:00\" is not a time"),
    ("drift: { rollout: { windows: [{ from: '23:00', to: '24:30' }] } }", "\"24:30\" is not a time"),
    ("end: { shutdown_grace: 1s }", "1s is not between 10s and 1h"),
    ("end: { shutdown_grace_critical: 10s }", "which is not set"),
    ("end: { shutdown_grace: 30s, shutdown_grace_critical: 30s }", "less than that"),
    ("end: { terminate_hook: 'a b' }", "is not the name of a lifecycle hook"),
];

#[test]
fn what_is_doubtful_is_refused() {
    for (over, words) in BAD {
        let problems = laid(over).err().unwrap_or_default();
        assert!(problems.len() == 1 && problems[0].contains(words), "{over}: {problems:?}");
        assert!(problems[0].starts_with("over:1:"), "{over} has no place: {problems:?}");
    }
}

#[test]
fn what_is_not_said_is_the_cautious_thing() {
    let silent = settings("");
    assert_eq!(silent.drift, DriftSettings::default(), "the built-in layer and the type must agree");
    assert_eq!(silent.end, EndSettings::default());
    assert_eq!((silent.drift.image, silent.drift.action), (None, Action::Report));
}

#[test]
fn every_source_is_understood() {
    let source = |image: &str| settings(&format!("drift: {{ image: {image} }}")).drift.image.expect(image);
    assert_eq!(source("{ ami: ami-0123abcd }"), ImageSource::Ami("ami-0123abcd".into()));
    assert_eq!(source("{ ssm_parameter: /acme/node }"), ImageSource::SsmParameter("/acme/node".into()));
    assert_eq!(source("{ auto_scaling_group: true }"), ImageSource::AutoScalingGroup);
    assert_eq!(
        source("{ launch_template: { name: web } }"),
        ImageSource::LaunchTemplate { template: TemplateRef::Name("web".into()), version: "$Default".into() }
    );
    assert_eq!(
        source("{ launch_template: { id: lt-0123456789abcdef0, version: '7' } }"),
        ImageSource::LaunchTemplate { template: TemplateRef::Id("lt-0123456789abcdef0".into()), version: "7".into() }
    );
    let ImageSource::Newest { owners, tags, name } =
        source("{ newest: { owners: [self, '123456789012'], tags: { role: node }, name: 'node-*' } }")
    else {
        panic!("not the newest")
    };
    assert_eq!((owners.len(), tags["role"].as_str(), name.as_deref()), (2, "node", Some("node-*")));
}

#[test]
fn windows_and_graces_are_understood() {
    let rollout = settings(
        "drift: { rollout: { windows: [{ days: [sat, Sunday], from: '22:30', to: '04:00' }, { from: '00:00', to: '24:00' }] } }",
    )
    .drift
    .rollout;
    let night =
        Window { days: vec![Weekday::Saturday, Weekday::Sunday], from: time(22, 30, 0, 0), to: time(4, 0, 0, 0) };
    let always = Window { days: Vec::new(), from: time(0, 0, 0, 0), to: time(0, 0, 0, 0) };
    assert_eq!(rollout.windows, [night, always]);
    let end = settings("end: { shutdown_grace: 90s, watch: false }").end;
    assert_eq!(end.shutdown_grace_critical, Some(Duration::from_secs(30)), "a third");
    assert_eq!(end.watch, Some(false));
}
