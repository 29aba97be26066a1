//! What the checks conclude from what they read. Pure functions.

use super::Check;
use crate::observe::text::duration;
use jiff::Timestamp;
use kubestrap_core::config::settings::StoreLocation;
use kubestrap_core::model::cause::{Cause, Failure};
use kubestrap_core::ports::{ExpiryRule, InstanceInfo};
use kubestrap_core::store::bundle::clock_skew;

/// With a hop limit of 2 every pod reaches the metadata service and has the node's role.
pub fn hop_limit(info: Option<&InstanceInfo>) -> Check {
    const WHAT: &str = "IMDS hop limit";
    match info.map(|info| info.hop_limit) {
        None => Check::skipped(WHAT, "EC2 does not list this instance"),
        Some(None) => Check::skipped(WHAT, "EC2 does not say what it is"),
        Some(Some(limit)) if limit >= 2 => Check::warning(
            WHAT,
            format!("it is {limit}: every pod can get this machine's credentials from the metadata service"),
            "set HttpPutResponseHopLimit to 1 (`aws ec2 modify-instance-metadata-options`), unless pods need it",
        ),
        Some(Some(limit)) => Check::ok(WHAT, format!("{limit}: pods cannot reach the metadata service")),
    }
}

/// A rule that deletes our objects by age deletes the cluster's register some day.
pub fn expiry_rules(rules: &[ExpiryRule], store: &StoreLocation, cluster: &str) -> Check {
    const WHAT: &str = "bucket lifecycle rules";
    let StoreLocation::S3 { prefix, .. } = store else {
        return Check::skipped(WHAT, "a folder has none");
    };
    let ours = if prefix.is_empty() { format!("{cluster}/") } else { format!("{prefix}/{cluster}/") };
    let touches = |rule: &&ExpiryRule| ours.starts_with(&rule.prefix) || rule.prefix.starts_with(&ours);
    let bad: Vec<String> = rules
        .iter()
        .filter(touches)
        .map(|rule| {
            let age = rule.days.map_or_else(|| "by age or date".to_owned(), |days| format!("after {days} days"));
            format!("rule {:?} deletes {:?} {age}", rule.id, rule.prefix)
        })
        .collect();
    if bad.is_empty() {
        return Check::ok(WHAT, format!("none deletes below {ours}"));
    }
    let failure = Failure::new(Cause::Configuration, "trust the bucket with a cluster", bad.join("; "))
        .advise(format!("exclude {ours} from these rules: a deleted register stops every further master"));
    Check::failed(WHAT, &failure)
}

/// The local clock against the store's Date header.
pub fn clock(now: Timestamp, served_at: Option<Timestamp>) -> Check {
    const WHAT: &str = "clock";
    let Some(served_at) = served_at else {
        return Check::skipped(WHAT, "the store has no clock to compare with");
    };
    match clock_skew(now, Some(served_at)) {
        None => Check::ok(WHAT, "agrees with the store's within a minute"),
        Some(skew) => {
            let direction = if skew.is_positive() { "ahead of" } else { "behind" };
            let by = duration(std::time::Duration::from_secs(skew.as_secs().unsigned_abs()));
            let why = format!("the local clock is {by} {direction} the store's");
            Check::failed(WHAT, &Failure::new(Cause::ClockSkew, "compare the clocks", why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Finding;
    use super::*;

    fn info(hop_limit: Option<i32>) -> InstanceInfo {
        InstanceInfo {
            instance_id: "i-1".into(),
            account: "1".into(),
            state: "running".into(),
            hop_limit,
            image_id: None,
            launched_at: None,
        }
    }

    #[test]
    fn a_hop_limit_of_two_is_a_warning() {
        assert_eq!(hop_limit(Some(&info(Some(1)))).finding, Finding::Ok);
        assert_eq!(hop_limit(Some(&info(Some(2)))).finding, Finding::Warning);
        assert_eq!(hop_limit(Some(&info(None))).finding, Finding::Skipped);
        assert_eq!(hop_limit(None).finding, Finding::Skipped);
    }

    #[test]
    fn rules_that_touch_our_keys_are_found_above_at_and_below_them() {
        let store = StoreLocation::S3 { bucket: "acme".into(), prefix: "k8s".into() };
        let finding = |prefix: &str| {
            let rule = ExpiryRule { id: "r".into(), prefix: prefix.into(), days: Some(30) };
            expiry_rules(&[rule], &store, "prod").finding
        };
        for touching in ["", "k8s", "k8s/", "k8s/prod/", "k8s/prod/join/", "k8s/pr"] {
            assert_eq!(finding(touching), Finding::Failed, "{touching:?}");
        }
        for harmless in ["logs/", "k8s/prod2/", "k8s/test/"] {
            assert_eq!(finding(harmless), Finding::Ok, "{harmless:?}");
        }
        let bare = StoreLocation::S3 { bucket: "acme".into(), prefix: String::new() };
        let rule = ExpiryRule { id: "r".into(), prefix: "prod/".into(), days: None };
        assert_eq!(expiry_rules(&[rule], &bare, "prod").finding, Finding::Failed);
        assert_eq!(expiry_rules(&[], &StoreLocation::Folder("/s".into()), "prod").finding, Finding::Skipped);
    }

    #[test]
    fn clocks_may_differ_by_a_minute() {
        let at = |second| Timestamp::from_second(second).expect("time");
        assert_eq!(clock(at(1000), Some(at(1050))).finding, Finding::Ok);
        let behind = clock(at(1000), Some(at(1700)));
        assert_eq!((behind.finding, behind.cause), (Finding::Failed, Some("clock-skew")));
        assert!(behind.detail.contains("11 m 40 s behind"), "{}", behind.detail);
        assert_eq!(clock(at(1000), None).finding, Finding::Skipped);
    }
}
