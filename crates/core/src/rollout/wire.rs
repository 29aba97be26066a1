//! What a node and the arbiter tell each other: annotations on the node's own Node object, as JSON.
//!
//! A node may write its own Node only, and the arbiter believes an annotation only about the node that carries it. The
//! truth about grants is the ledger ([`super::ledger`]); the annotation of a grant is a copy of it. Fields that a reader
//! does not know are ignored; another `schema` is refused, and so is everything that is too long or shows otherwise
//! than it is.

use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::plain::is_plain;
use crate::store::fields;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The node's request: [`Request`].
pub const REQUEST: &str = "kubestrap.io/drift";
/// The arbiter's grant: [`Grant`]. The arbiter removes it when the grant ends.
pub const GRANT: &str = "kubestrap.io/grant";
/// How far the node is with its grant: [`Progress`].
pub const PROGRESS: &str = "kubestrap.io/grant-progress";
/// The id of the last grant that ended on this Node, by the arbiter. It is never set again, by nobody.
pub const ENDED: &str = "kubestrap.io/grant-ended";
/// Whose cordon it is: the id of a grant, or `end:<event>`. A cordon without it is a person's.
pub const CORDONED_BY: &str = "kubestrap.io/cordoned-by";
/// Label by the node (`true`), from the action `mark` on.
pub const DRIFTED_LABEL: &str = "kubestrap.io/drifted";
/// Taint by the arbiter, from the action `mark` on. Its effect is [`TAINT_EFFECT`].
pub const DRIFTED_TAINT: &str = "kubestrap.io/drifted";
/// When a whole fleet drifts its pods must still find a place.
pub const TAINT_EFFECT: &str = "PreferNoSchedule";

/// The only form of the annotations there is.
pub const SCHEMA: u32 = 1;
/// The number of the rules by which a node is compared with what it should be. Whoever changes them so that a node which
/// did not change gets another verdict counts it up: a request with another number is not drift.
pub const COMPARISON: u32 = 1;

/// The longest annotation that is read, in bytes.
const MAX_ANNOTATION: usize = 8 * 1024;
/// The longest text for people in one, in bytes; writers shorten with [`shortened`].
pub const MAX_TEXT: usize = 1024;
/// The longest name in one: image, group, instance.
const MAX_NAME: usize = 256;

/// What the node thinks of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is not what it should be.
    Drifted,
    /// It is.
    Current,
    /// It could not be learnt.
    Unknown,
}

/// How far the node's configuration goes; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is told.
    Report,
    /// New pods go elsewhere where there is room.
    Mark,
    /// Its pods are evicted when it has a grant; a person replaces it.
    Drain,
    /// After the drain it is replaced.
    Replace,
}

/// The node's request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`SCHEMA`].
    pub schema: u32,
    /// [`COMPARISON`] of the node's agent; 0, which is nobody's, when it is missing.
    #[serde(default)]
    pub comparison: u32,
    /// What it thinks of itself.
    pub verdict: Verdict,
    /// Why, for people; at most [`MAX_TEXT`] bytes.
    pub reason: String,
    /// The image it runs, when it is known.
    pub running: Option<String>,
    /// The image it should run, when it is known.
    pub desired: Option<String>,
    /// The group in which a replacement is expected.
    pub group: Option<String>,
    /// How far its configuration goes.
    pub action: Action,
    /// `i-…` on EC2.
    pub instance: Option<String>,
    /// Since when the verdict is this, by the node's clock: for people.
    pub since: Timestamp,
}

impl Request {
    /// Whether the node is drifted by the arbiter's rules too: another comparison, or an unknown verdict, is not drift.
    pub fn is_drifted(&self) -> bool {
        self.verdict == Verdict::Drifted && self.comparison == COMPARISON
    }

    /// Whether it runs what it should.
    pub fn is_current(&self) -> bool {
        self.verdict == Verdict::Current && self.comparison == COMPARISON
    }
}

/// What comes of a granted node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// It is drained, and a person replaces it.
    Drain,
    /// It is drained and replaced: by the arbiter on EC2, by the node's hook elsewhere.
    Replace,
}

/// The arbiter's leave to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The ledger's entry.
    pub id: Uuid,
    /// The Node it is for: one of the same name that was made later has another.
    pub node_uid: String,
    /// How far it goes.
    pub step: Step,
    /// When the node gives up a drain that has not ended.
    pub deadline: Timestamp,
}

/// Where the node is with its grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Pods are being evicted.
    Draining,
    /// None is left that must go. The node stays cordoned.
    Drained,
    /// The drain was given up, and the node uncordoned.
    GaveUp,
    /// The hook that replaces the machine runs, or ran well.
    Replacing,
    /// The hook failed.
    Failed,
}

/// What the node says of its grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Which grant.
    pub id: Uuid,
    /// Where it is.
    pub state: State,
    /// What blocks it, or why it ended so, for people; at most [`MAX_TEXT`] bytes.
    pub why: String,
    /// Since when, by the node's clock: for people.
    pub at: Timestamp,
}

/// A text that an annotation may carry: without its end when it is too long, one line of plain characters.
pub fn shortened(text: &str) -> String {
    let text = crate::model::plain::plain(text);
    if text.len() <= MAX_TEXT { text } else { text[..text.floor_char_boundary(MAX_TEXT - 5)].to_owned() + " ..." }
}

/// An annotation that can be read strictly.
pub trait Annotation: DeserializeOwned + Serialize {
    /// Its key.
    const KEY: &'static str;
    /// The texts in it with their names, and how long they may be.
    fn texts(&self) -> Vec<(&'static str, &str, usize)>;

    /// What the Node of this name says; the failure names annotation and node, and not what is in it.
    fn parse(node: &str, text: &str) -> Outcome<Self> {
        let what = format!("the annotation {} of node {node}", Self::KEY);
        let wrong = |why: String| {
            let advice = "its writer puts it right with its next round; see whether somebody changed it by hand";
            Failure::new(Cause::ObjectRejected, format!("read {what}"), why).advise(advice)
        };
        if text.len() > MAX_ANNOTATION {
            return Err(wrong(format!("it has {} bytes, and at most {MAX_ANNOTATION} are read", text.len())));
        }
        let object = Value::Object(fields(&what, text.as_bytes())?);
        let value: Self = serde_json::from_value(object).map_err(|error| wrong(kind_of(&error)))?;
        for (name, text, limit) in value.texts() {
            if text.len() > limit {
                return Err(wrong(format!("{name} has {} bytes, and at most {limit} are read", text.len())));
            }
            if !text.chars().all(is_plain) {
                return Err(wrong(format!("{name} has characters that cannot be shown")));
            }
        }
        Ok(value)
    }

    /// The annotation's text.
    fn write(&self) -> Outcome<String> {
        serde_json::to_string(self).map_err(|error| {
            Failure::new(Cause::Internal, format!("write the annotation {}", Self::KEY), error.to_string())
        })
    }
}

/// serde_json's text for a field that is not what it must be repeats its value, which is whatever the writer liked.
fn kind_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let field = text.strip_prefix("missing field ").map(|field| format!("the field {field} is missing"));
    field.unwrap_or_else(|| "a field of it is not what it must be".to_owned())
}

fn name<'a>(label: &'static str, value: Option<&'a String>) -> Option<(&'static str, &'a str, usize)> {
    value.map(|text| (label, text.as_str(), MAX_NAME))
}

impl Annotation for Request {
    const KEY: &'static str = REQUEST;
    fn texts(&self) -> Vec<(&'static str, &str, usize)> {
        let names = [
            name("running", self.running.as_ref()),
            name("desired", self.desired.as_ref()),
            name("group", self.group.as_ref()),
            name("instance", self.instance.as_ref()),
        ];
        names.into_iter().flatten().chain([("reason", self.reason.as_str(), MAX_TEXT)]).collect()
    }
}

impl Annotation for Grant {
    const KEY: &'static str = GRANT;
    fn texts(&self) -> Vec<(&'static str, &str, usize)> {
        vec![("node_uid", &self.node_uid, MAX_NAME)]
    }
}

impl Annotation for Progress {
    const KEY: &'static str = PROGRESS;
    fn texts(&self) -> Vec<(&'static str, &str, usize)> {
        vec![("why", &self.why, MAX_TEXT)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request() -> Request {
        Request {
            schema: SCHEMA,
            comparison: COMPARISON,
            verdict: Verdict::Drifted,
            reason: "it runs ami-1, and ami-2 is desired".into(),
            running: Some("ami-1".into()),
            desired: Some("ami-2".into()),
            group: Some("workers".into()),
            action: Action::Replace,
            instance: Some("i-1".into()),
            since: Timestamp::UNIX_EPOCH,
        }
    }

    fn with(field: &str, value: Value) -> Outcome<Request> {
        let mut object = serde_json::to_value(request()).expect("JSON");
        object[field] = value;
        Request::parse("web-1", &object.to_string())
    }

    #[test]
    fn annotations_are_read_as_they_were_written() {
        assert_eq!(Request::parse("n", &request().write().expect("text")), Ok(request()));
        let id = Uuid::from_u128(7);
        let grant = Grant { schema: 1, id, node_uid: "u".into(), step: Step::Replace, deadline: Timestamp::UNIX_EPOCH };
        assert_eq!(Grant::parse("n", &grant.write().expect("text")), Ok(grant));
        for (state, word) in [(State::GaveUp, "gave-up"), (State::Drained, "drained")] {
            let progress = Progress { schema: 1, id, state, why: String::new(), at: Timestamp::UNIX_EPOCH };
            let text = progress.write().expect("text");
            assert!(text.contains(&format!("\"state\":\"{word}\"")), "{text}");
            assert_eq!(Progress::parse("n", &text), Ok(progress));
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_missing_data_is_no_drift() {
        assert_eq!(with("color", json!("red")), Ok(request()));
        assert!(request().is_drifted());
        for other in [json!(0), json!(COMPARISON + 1)] {
            let other = with("comparison", other).expect("a request");
            assert!(!other.is_drifted() && !other.is_current());
        }
        let text = request().write().expect("text").replace("\"comparison\":1,", "");
        assert!(!Request::parse("n", &text).expect("a request").is_drifted());
        assert!(!with("verdict", json!("unknown")).expect("a request").is_drifted());
    }

    #[test]
    fn what_is_refused_is_named_with_annotation_and_node_and_not_repeated() {
        for (field, value, why) in [
            ("schema", json!(2), "schema is 2"),
            ("schema", json!("1"), "no schema number"),
            ("verdict", json!("s3cret"), "not what it must be"),
            ("action", json!("s3cret"), "not what it must be"),
            ("since", json!("s3cret"), "not what it must be"),
            ("reason", json!("s3cret ".repeat(200)), "reason has 1400 bytes"),
            ("reason", json!("s3cret\u{1b}[2J"), "reason has characters"),
            ("group", json!("s3cret ".repeat(50)), "group has 350 bytes"),
            ("x", json!("s3cret ".repeat(2000)), "at most 8192"),
        ] {
            let failure = with(field, value).expect_err(field).to_string();
            assert!(failure.contains("annotation kubestrap.io/drift of node web-1"), "{failure}");
            assert!(failure.contains(why) && !failure.contains("s3cret"), "{failure}");
        }
        let text = request().write().expect("text");
        assert!(
            Request::parse("n", &text.replace("\"verdict\"", "\"v\"")).is_err_and(|f| f.detail.contains("verdict"))
        );
        for broken in ["", "{", "[]", "null", &text.replace("\"group\"", "\"schema\":1,\"group\"")] {
            assert!(Request::parse("n", broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn what_a_writer_shortened_can_be_read() {
        for text in ["ä".repeat(2000), "a\u{1b}\nb".into(), String::new(), "x".repeat(MAX_TEXT)] {
            let reason = shortened(&text);
            assert!(with("reason", json!(reason)).is_ok(), "{reason}");
        }
        assert_eq!(shortened("short"), "short");
    }
}
