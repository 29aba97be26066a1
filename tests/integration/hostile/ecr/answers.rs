//! Answers that ECR does not give.

use super::{HOST, PASSWORD, Plugin, data, each, replies, token, well};
use crate::peer::{Peer, Reply};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Made when its case begins.
type Made<T> = fn() -> T;

fn later() -> Value {
    json!((Timestamp::now() + SignedDuration::from_hours(12)).as_second())
}

fn tells(plain: &[u8]) -> Reply {
    replies(&data(&json!(STANDARD.encode(plain)), &later()))
}

/// What, and the answer. Each ends with exit code 12, for it may be better a second time.
pub const REFUSED: &[(&str, Made<Reply>)] = &[
    ("no authorization data", || replies("{}")),
    ("an empty list of authorization data", || replies("{\"authorizationData\":[]}")),
    ("authorization data that is null", || replies("{\"authorizationData\":null}")),
    ("authorization data with nothing in it", || replies("{\"authorizationData\":[{}]}")),
    ("no token", || replies(&data(&Value::Null, &later()))),
    ("an empty token", || replies(&data(&json!(""), &later()))),
    ("a token that is no base64", || replies(&data(&json!(format!("AWS:{PASSWORD}")), &later()))),
    ("a token with a line feed", || {
        replies(&data(&json!(format!("{}\n", token().as_str().unwrap_or_default())), &later()))
    }),
    ("a token without padding", || replies(&data(&json!("QVdTOng"), &later()))),
    ("a token without a colon", || tells(PASSWORD.as_bytes())),
    ("a token without a password", || tells(b"AWS:")),
    ("a token without a user", || tells(format!(":{PASSWORD}").as_bytes())),
    ("a password with a line feed", || tells(format!("AWS:{PASSWORD}\r\nx: y").as_bytes())),
    ("a password with a NUL", || tells(format!("AWS:{PASSWORD}\0").as_bytes())),
    ("a password that is no text", || tells(b"AWS:\xff\xfe")),
    ("a token of 100 KB", || tells(format!("AWS:{}", "x".repeat(100_000)).as_bytes())),
    ("a token that is a number", || replies(&data(&json!(7), &later()))),
    ("a list of tokens", || replies(&data(&json!([token()]), &later()))),
    ("an expiry that is an object", || replies(&data(&token(), &json!({ "at": 1 })))),
    ("JSON that is cut off", || replies(&data(&token(), &later())[..60])),
    ("a page of a proxy", || Reply::whole("200 OK", "content-type: text/html\r\n", "<html>Please log in</html>")),
    ("nothing", || replies("")),
    ("an answer without an end", || Reply::endless("200 OK", "content-type: application/x-amz-json-1.1\r\n", " ")),
    ("a head without an end", || Reply::endless_head("x: yyyyyyyyyyyyyyyy\r\n")),
    ("a server in trouble", || Reply::whole("500 Internal Server Error", "", "{}")),
];

/// What, the expiry, and how long the kubelet may keep the login: not at all when it is as good as dead.
pub const EXPIRIES: &[(&str, Made<Value>, &str)] = &[
    ("an expiry that is missing", || Value::Null, "0s"),
    ("an expiry in the past", || json!(Timestamp::now().as_second() - 1), "0s"),
    ("an expiry in half a minute", || json!(Timestamp::now().as_second() + 30), "0s"),
    ("an expiry at the beginning of time", || json!(0), "0s"),
    ("an expiry before it", || json!(-62_135_596_800_i64), "0s"),
    ("an expiry in a thousand years", || json!(33_000_000_000_i64), "5h"),
    ("an expiry in ten thousand years", || json!(253_402_300_799_i64), "0s"),
    ("an expiry that no calendar has", || json!(9_007_199_254_740_991_i64), "0s"),
];

#[test]
fn what_is_no_login_is_not_handed_out_nor_kept() {
    each(
        13,
        REFUSED,
        |(name, _)| (*name).to_owned(),
        |(_, reply)| {
            let reply: fn() -> Reply = *reply;
            let aws = Peer::start(move |_| reply());
            let plugin = Plugin::of(&aws);
            plugin.asked_for(&format!("{HOST}/app")).refused(12, "ECR");
            assert!(aws.requests() > 0);
            for path in plugin.files("json") {
                let kept = std::fs::read_to_string(&path).expect("read");
                assert!(kept.contains("\"login\":null") && !kept.contains(PASSWORD), "{kept}");
            }
        },
    );
}

#[test]
fn an_expiry_is_believed_only_as_far_as_ecr_goes() {
    each(
        4,
        EXPIRIES,
        |(name, ..)| (*name).to_owned(),
        |(name, expires, kept)| {
            let body = data(&token(), &expires());
            let aws = Peer::start(move |_| replies(&body));
            let plugin = Plugin::of(&aws);
            let image = format!("{HOST}/app");
            let said = plugin.asked_for(&image).login_for(HOST);
            assert!(said.starts_with(kept), "{name}: {said}");
            // And by us: what is as good as dead is not given to the next one.
            plugin.asked_for(&image).login_for(HOST);
            assert_eq!(aws.requests(), if *kept == "0s" { 2 } else { 1 }, "{name}");
        },
    );
}

/// A redirect would take the signed request, with a session token, to somebody else.
#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Peer::start(well);
    let location = format!("location: {}/\r\n", elsewhere.url());
    let aws = Peer::start(move |_| Reply::whole("307 Temporary Redirect", &location, ""));
    let refused = Plugin::of(&aws).asked_for(&format!("{HOST}/app"));
    assert!(refused.code.is_some_and(|code| code != 0) && refused.stdout.is_empty(), "{}", refused.stderr);
    assert!(refused.stderr.contains("307"), "{}", refused.stderr);
    assert_eq!(elsewhere.requests(), 0);
}
