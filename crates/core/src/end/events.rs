//! What the metadata service says of an instance's end: pure reading.
//!
//! A 404 is never seen here: it means that there is nothing to say. What is malformed is an error with the path and the
//! reason, and never an event: a node must not be emptied because of garbage.

use crate::model::cause::{Cause, Failure, Outcome};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::Value;
use std::fmt;

/// Spot interruption notice: `{"action": "terminate", "time": "2026-11-21T08:22:00Z"}`.
pub const SPOT: &str = "meta-data/spot/instance-action";
/// Rebalance recommendation: `{"noticeTime": "2026-11-21T08:22:00Z"}`.
pub const REBALANCE: &str = "meta-data/events/recommendations/rebalance";
/// Scheduled events: a JSON list, often empty.
pub const MAINTENANCE: &str = "meta-data/events/maintenance/scheduled";
/// Where Auto Scaling takes the instance: one word.
pub const LIFECYCLE: &str = "meta-data/autoscaling/target-lifecycle-state";

/// The longest text that is read, in bytes; a hundred scheduled events fit.
const LONGEST: usize = 32 * 1024;
/// EC2 has a handful of scheduled events for an instance at most.
const MOST_EVENTS: usize = 100;
/// The longest word (an action, a code, a state, an event's id).
const LONGEST_WORD: usize = 64;

/// What ends the instance. The order is the order of urgency: of several, the least one decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A spot instance is taken back: two minutes.
    Spot,
    /// Its Auto Scaling group terminates it.
    Termination,
    /// EC2 stops, retires or reboots it at a time that is known.
    Maintenance,
    /// Its spot capacity is at risk; nothing is certain.
    Rebalance,
}

impl Kind {
    /// Every kind, the most urgent first.
    pub const ALL: [Kind; 4] = [Kind::Spot, Kind::Termination, Kind::Maintenance, Kind::Rebalance];

    /// The word in annotations, reports and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Spot => "spot",
            Kind::Termination => "termination",
            Kind::Maintenance => "maintenance",
            Kind::Rebalance => "rebalance",
        }
    }

    /// The kind with this word.
    pub fn parse(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A notice, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What ends the instance.
    pub kind: Kind,
    /// For people, in one line of plain text.
    pub what: String,
    /// When it takes effect, by AWS's clock; `None` when it was not said.
    pub at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct InstanceAction {
    action: String,
    time: String,
}

#[derive(Deserialize)]
struct Recommendation {
    #[serde(rename = "noticeTime")]
    notice_time: String,
}

#[derive(Deserialize)]
struct Scheduled {
    #[serde(rename = "Code")]
    code: String,
    #[serde(rename = "State")]
    state: String,
    #[serde(rename = "EventId", default)]
    event_id: String,
    #[serde(rename = "NotBefore")]
    not_before: String,
}

/// A spot interruption notice.
pub fn spot(text: &str) -> Outcome<Notice> {
    let said: InstanceAction = json(SPOT, text)?;
    if !["terminate", "stop", "hibernate"].contains(&said.action.as_str()) {
        return Err(malformed(SPOT, format!("the action {:?} is not known", shown(&said.action))));
    }
    let at = rfc3339(SPOT, &said.time)?;
    Ok(Notice { kind: Kind::Spot, what: format!("spot interruption: {} at {at}", said.action), at: Some(at) })
}

/// A rebalance recommendation.
pub fn rebalance(text: &str) -> Outcome<Notice> {
    let said: Recommendation = json(REBALANCE, text)?;
    let at = rfc3339(REBALANCE, &said.notice_time)?;
    Ok(Notice { kind: Kind::Rebalance, what: format!("rebalance recommendation of {at}"), at: Some(at) })
}

/// The earliest scheduled event that is active and stops, retires or reboots the instance; `None` when there is none.
///
/// Events that are completed or cancelled stay in the list for a week. Those of the network (`system-maintenance`) and
/// codes that are not known leave the instance running.
pub fn maintenance(text: &str) -> Outcome<Option<Notice>> {
    let events: Vec<Value> = json(MAINTENANCE, text)?;
    if events.len() > MOST_EVENTS {
        return Err(malformed(MAINTENANCE, format!("{} events in one list", events.len())));
    }
    let mut earliest: Option<Notice> = None;
    for event in events {
        let event: Scheduled =
            serde_json::from_value(event).map_err(|error| malformed(MAINTENANCE, error.to_string()))?;
        for text in [&event.code, &event.state, &event.event_id] {
            word(MAINTENANCE, text)?;
        }
        let ends = ["instance-stop", "instance-retirement", "instance-reboot", "system-reboot"];
        if event.state != "active" || !ends.contains(&event.code.as_str()) {
            continue;
        }
        let at = gmt(&event.not_before)?;
        if earliest.as_ref().is_none_or(|known| known.at > Some(at)) {
            let what = format!("scheduled {} ({}) not before {at}", event.code, event.event_id);
            earliest = Some(Notice { kind: Kind::Maintenance, what, at: Some(at) });
        }
    }
    Ok(earliest)
}

/// Whether Auto Scaling terminates the instance. Other states (`InService`, `Standby`, `Detached`, `Warmed:Stopped`) are
/// `None`.
pub fn lifecycle(text: &str) -> Outcome<Option<Notice>> {
    let state = target_state(text)?;
    let bare = state.strip_prefix("Warmed:").unwrap_or(&state);
    let ends = bare == "Terminated" || bare.starts_with("Terminated:");
    let what = format!("its Auto Scaling group takes it to {state}");
    Ok(ends.then_some(Notice { kind: Kind::Termination, what, at: None }))
}

/// The word itself.
pub fn target_state(text: &str) -> Outcome<String> {
    word(LIFECYCLE, text)?;
    if text.is_empty() { Err(malformed(LIFECYCLE, "it is empty")) } else { Ok(text.to_owned()) }
}

fn json<T: serde::de::DeserializeOwned>(path: &str, text: &str) -> Outcome<T> {
    if text.len() > LONGEST {
        return Err(malformed(path, format!("{} bytes, where {LONGEST} are read at most", text.len())));
    }
    serde_json::from_str(text).map_err(|error| malformed(path, error.to_string()))
}

/// Letters, digits, `-`, `_`, `.` and `:`, not too many: it is shown, and compared.
fn word(path: &str, text: &str) -> Outcome<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if text.len() <= LONGEST_WORD && text.chars().all(is_plain) {
        return Ok(());
    }
    Err(malformed(path, format!("{:?} is not a word", shown(text))))
}

fn rfc3339(path: &str, text: &str) -> Outcome<Timestamp> {
    // jiff reads more than RFC 3339: a time without its zone is nobody's.
    text.parse::<Timestamp>().map_err(|_| malformed(path, format!("{:?} is not a time", shown(text))))
}

/// `21 Jan 2019 09:00:43 GMT`, the form of scheduled events.
fn gmt(text: &str) -> Outcome<Timestamp> {
    let wrong = || malformed(MAINTENANCE, format!("{:?} is not a time", shown(text)));
    let local = text.strip_suffix(" GMT").ok_or_else(wrong)?;
    let local = DateTime::strptime("%d %b %Y %H:%M:%S", local).map_err(|_| wrong())?;
    TimeZone::UTC.to_timestamp(local).map_err(|_| wrong())
}

fn shown(text: &str) -> String {
    text.chars().take(LONGEST_WORD).collect()
}

fn malformed(path: &str, why: impl Into<String>) -> Failure {
    Failure::new(Cause::MetadataUnavailable, format!("read {path} of the metadata service"), why)
        .advise("nothing is done because of it; look at the instance's events with aws ec2 describe-instance-status")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("time")
    }

    fn event(code: &str, state: &str, not_before: &str) -> String {
        format!(
            r#"{{"NotBefore": "{not_before}", "Code": "{code}", "Description": "x", "EventId": "instance-event-0d59",
                "NotAfter": "21 Jan 2030 09:17:23 GMT", "State": "{state}"}}"#
        )
    }

    #[test]
    fn a_spot_interruption_has_an_action_and_a_time() {
        for action in ["terminate", "stop", "hibernate"] {
            let notice = spot(&format!(r#"{{"action": "{action}", "time": "2026-11-21T08:22:00Z", "new": 1}}"#));
            let notice = notice.expect("a notice");
            assert_eq!((notice.kind, notice.at), (Kind::Spot, Some(time("2026-11-21T08:22:00Z"))));
            assert_eq!(notice.what, format!("spot interruption: {action} at 2026-11-21T08:22:00Z"));
        }
        let recommended = rebalance(r#"{"noticeTime": "2026-11-21T08:22:00Z"}"#).expect("a notice");
        assert_eq!((recommended.kind, recommended.at), (Kind::Rebalance, Some(time("2026-11-21T08:22:00Z"))));
    }

    #[test]
    fn of_scheduled_events_the_earliest_that_ends_the_instance_counts() {
        let early = "9 Jan 2019 09:00:43 GMT";
        let late = "21 Jan 2019 09:00:43 GMT";
        let cases: &[(&[String], Option<&str>)] = &[
            (&[], None),
            (&[event("system-reboot", "active", late)], Some("2019-01-21T09:00:43Z")),
            (&[event("instance-reboot", "active", "09 Jan 2019 09:00:43 GMT")], Some("2019-01-09T09:00:43Z")),
            (&[event("instance-stop", "active", late)], Some("2019-01-21T09:00:43Z")),
            (
                &[event("instance-retirement", "active", late), event("system-reboot", "active", early)],
                Some("2019-01-09T09:00:43Z"),
            ),
            (
                &[event("system-reboot", "completed", early), event("system-reboot", "active", late)],
                Some("2019-01-21T09:00:43Z"),
            ),
            (&[event("instance-retirement", "canceled", late)], None),
            (&[event("system-maintenance", "active", late)], None),
            (&[event("instance-something-new", "active", "whenever")], None),
        ];
        for (events, expected) in cases {
            let text = format!("[{}]", events.join(","));
            let found = maintenance(&text).expect("readable");
            assert_eq!(found.as_ref().and_then(|notice| notice.at), expected.map(time), "{text}");
            assert!(found.is_none_or(|notice| notice.kind == Kind::Maintenance), "{text}");
        }
    }

    #[test]
    fn of_auto_scalings_states_only_termination_ends_the_instance() {
        for (state, ends) in [
            ("InService", false),
            ("Standby", false),
            ("Detached", false),
            ("Warmed:Stopped", false),
            ("Warmed:Running", false),
            ("Warmed:Hibernated", false),
            ("TerminatedNot", false),
            ("Terminated", true),
            ("Terminated:Wait", true),
            ("Warmed:Terminated", true),
        ] {
            let notice = lifecycle(state).expect(state);
            assert_eq!(notice.map(|notice| (notice.kind, notice.at)), ends.then_some((Kind::Termination, None)));
        }
    }

    type Read = fn(&str) -> Outcome<Option<Notice>>;
    const READERS: [(&str, Read); 4] = [
        (SPOT, |text| spot(text).map(Some)),
        (REBALANCE, |text| rebalance(text).map(Some)),
        (MAINTENANCE, maintenance),
        (LIFECYCLE, lifecycle),
    ];

    #[test]
    fn what_is_malformed_is_an_error_that_names_its_path_and_never_an_event() {
        let many = format!("[{}]", vec![event("a", "b", "c"); MOST_EVENTS + 1].join(","));
        let long = format!(r#"{{"noticeTime": "2026-11-21T08:22:00Z", "x": "{}"}}"#, "x".repeat(LONGEST));
        let wrong_time = format!("[{}]", event("system-reboot", "active", "2019-01-21T09:00:43Z"));
        let wrong_day = format!("[{}]", event("system-reboot", "active", "31 Feb 2019 09:00:43 GMT"));
        let wrong_state = format!("[{}]", event("system-reboot", "act\u{1b}ive", "21 Jan 2019 09:00:43 GMT"));
        let long_state = "x".repeat(LONGEST_WORD + 1);
        let cases: &[(&str, &[&str])] = &[
            (
                SPOT,
                &[
                    "",
                    "null",
                    "{}",
                    "terminate",
                    "<html>",
                    r#"{"action": "terminate"}"#,
                    r#"{"action": "terminate", "time": "soon"}"#,
                    r#"{"action": "terminate", "time": "2026-11-21T08:22:00"}"#,
                    r#"{"action": "terminate", "time": "2026-13-21T08:22:00Z"}"#,
                    r#"{"action": "dance", "time": "2026-11-21T08:22:00Z"}"#,
                    r#"{"action": "terminate", "time": "2026-11-21T08:22:00Z"}]"#,
                    r#"{"action": 1, "time": 2}"#,
                ],
            ),
            (REBALANCE, &["", "[]", "{}", r#"{"noticeTime": ""}"#, &long]),
            (
                MAINTENANCE,
                &["", "{}", "[1]", r#"[{"Code": "system-reboot"}]"#, &many, &wrong_time, &wrong_day, &wrong_state],
            ),
            (LIFECYCLE, &["", "two words", "<html>", "Terminated\u{7}", &long_state]),
        ];
        for (path, texts) in cases {
            let (_, read) = READERS.iter().find(|(of, _)| of == path).expect("a reader");
            for text in *texts {
                let failure = read(text).expect_err(text);
                assert_eq!(failure.cause, Cause::MetadataUnavailable);
                let told = failure.to_string();
                assert!(told.contains(path) && told.len() < 600, "{told}");
                assert!(!told.contains('\u{1b}'), "{told}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic_and_what_is_told_of_a_notice_is_plain(text in "\\PC{0,200}|[\\x00-\\x7f]{0,200}") {
            for (_, read) in READERS {
                if let Ok(Some(notice)) = read(&text) {
                    prop_assert!(notice.what.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{}", notice.what);
                }
            }
        }

        #[test]
        fn whatever_the_words_of_an_event_are_only_an_active_one_that_is_known_counts(
            code in "[a-z-]{0,20}|system-reboot|instance-stop", state in "[a-z]{0,10}|active", day in 1u8..=28,
        ) {
            let text = format!("[{}]", event(&code, &state, &format!("{day} Feb 2027 09:00:43 GMT")));
            let counts = state == "active" && ["system-reboot", "instance-stop"].contains(&code.as_str());
            prop_assert_eq!(maintenance(&text).expect("readable").is_some(), counts);
        }
    }

    #[test]
    fn words_of_kinds_come_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(Kind::parse("dance"), None);
    }
}
