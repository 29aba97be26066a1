use crate::model::cause::Cause;
use crate::model::names::ClusterName;
use crate::ports::{ETag, Fetched};
use crate::store::bundle::Newest;
use crate::store::fake::{FAULTS, Fault, Lab, ca, etag_of, interleave, run};
use crate::store::{Expectation, Published, clock_skew, verify};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

const KEY: &str = "prod/join/worker.json";
const SECRET: &str = "0123456789abcdef";

/// A good bundle, with some fields replaced.
pub(super) fn document(fields: &[(&str, Value)]) -> Value {
    let mut document = json!({
        "schema": 1, "cluster": "prod", "uid": Uuid::from_u128(9), "endpoint": "api.prod.example.com:6443",
        "ca_sha256": ca(1), "server_version": "v1.36.1", "token": format!("abcdef.{SECRET}"),
        "issued_at": "2026-11-21T12:00:00Z", "expires_at": "2026-11-21T13:00:00Z", "sequence": 7,
        "publisher": "machine-a", "write_id": Uuid::from_u128(3)
    });
    for (name, value) in fields {
        document[*name] = value.clone();
    }
    document
}

fn expectation() -> Expectation {
    Expectation {
        cluster: ClusterName::parse("prod").expect("name"),
        uid: Some(Uuid::from_u128(9)),
        ca: Some(ca(1)),
        ca_pin: Some(ca(1)),
        now: "2026-11-21T12:10:00Z".parse().expect("time"),
        min_life: Duration::from_secs(120),
        newest: Some(Newest { sequence: 7, issued_at: "2026-11-21T12:00:00Z".parse().expect("time") }),
    }
}

fn refused(name: &str, body: &[u8], expect: &Expectation) -> Cause {
    let failure = verify(body, expect).map(|_| ()).expect_err(name);
    let told = format!("{failure} {failure:?}");
    assert!(told.contains(KEY), "{name}: {told}");
    assert!(!told.contains(SECRET) && !told.contains("hunter2"), "{name} leaks: {told}");
    assert!(!told.contains("reboot") && !told.contains('\n'), "{name} repeats hostile text: {told}");
    failure.cause
}

#[test]
fn a_good_bundle_is_verified_also_with_fields_of_a_later_minor() {
    for body in [document(&[]), document(&[("later", json!([1]))])] {
        let verified = verify(body.to_string().as_bytes(), &expectation()).expect("good");
        assert_eq!(verified.bundle().token.secret().expose(), SECRET);
        assert_eq!(verified.bundle().endpoint.as_str(), "api.prod.example.com:6443");
        assert!(!format!("{verified:?}").contains(SECRET));
    }
    let alone = Expectation { uid: None, ca: None, ca_pin: None, newest: None, ..expectation() };
    assert!(verify(document(&[]).to_string().as_bytes(), &alone).is_ok());
}

#[test]
fn a_publisher_that_begins_again_is_no_rollback() {
    let later = [("sequence", json!(1)), ("issued_at", json!("2026-11-21T12:05:00Z"))];
    assert!(verify(document(&later).to_string().as_bytes(), &expectation()).is_ok());
    let older = [("sequence", json!(6)), ("issued_at", json!("2026-11-21T11:55:00Z"))];
    assert_eq!(refused("older", document(&older).to_string().as_bytes(), &expectation()), Cause::ObjectRejected);
}

#[test]
fn bytes_that_are_no_bundle_are_refused() {
    let good = document(&[]).to_string();
    let mut large = good.clone();
    large.push_str(&" ".repeat(64 * 1024 + 1 - good.len()));
    let cases: [(&str, &[u8]); 8] = [
        ("empty", b""),
        ("truncated", &good.as_bytes()[..good.len() - 1]),
        ("64 KiB and a byte", large.as_bytes()),
        ("a shell script", b"kubeadm join api:6443 --token abcdef.0123456789abcdef"),
        ("a list", b"[]"),
        ("a text", b"\"abcdef.0123456789abcdef\""),
        ("not UTF-8", &[0xfe; 9]),
        ("nothing in it", b"{}"),
    ];
    for (name, body) in cases {
        assert_eq!(refused(name, body, &expectation()), Cause::ObjectRejected, "{name}");
    }
    for cut in 0..good.len() {
        refused("truncated", &good.as_bytes()[..cut], &expectation());
    }
}

#[test]
fn every_bad_field_is_refused_and_nothing_of_it_is_repeated() {
    let rejected = Cause::ObjectRejected;
    let token = json!(format!("abcdef.{SECRET}"));
    let cases: Vec<(&str, Value, Cause)> = vec![
        ("schema", json!(2), rejected),
        ("schema", json!(null), rejected),
        ("schema", token.clone(), rejected),
        ("cluster", json!("dev"), rejected),
        ("cluster", token.clone(), rejected),
        ("cluster", json!(7), rejected),
        ("uid", json!(Uuid::from_u128(8)), rejected),
        ("uid", token.clone(), rejected),
        ("endpoint", json!("api.prod.example.com"), rejected),
        ("endpoint", json!("api;reboot:6443"), rejected),
        ("endpoint", json!("$(reboot):6443"), rejected),
        ("endpoint", json!("api\nreboot:6443"), rejected),
        ("endpoint", json!("api:6443\n"), rejected),
        ("endpoint", json!("api:0"), rejected),
        ("endpoint", token.clone(), rejected),
        ("ca_sha256", json!("sha256:00"), rejected),
        ("ca_sha256", json!(format!("sha256:{}", "0".repeat(65))), rejected),
        ("ca_sha256", token.clone(), rejected),
        ("ca_sha256", json!(ca(2)), Cause::ForeignCluster),
        ("server_version", json!("v1.36.1;reboot"), rejected),
        ("server_version", token.clone(), rejected),
        ("token", json!("abcdef.0123456789abcdef;reboot"), rejected),
        ("token", json!("abcdef.0123456789abcdef\n"), rejected),
        ("token", json!("$(reboot)"), rejected),
        ("token", json!("hunter2"), rejected),
        ("token", json!(["abcdef.0123456789abcdef"]), rejected),
        ("token", json!(null), rejected),
        ("issued_at", json!("2026-11-21T12:12:01Z"), rejected),
        ("issued_at", json!("yesterday"), rejected),
        ("issued_at", token.clone(), rejected),
        ("expires_at", json!("2026-11-21T12:10:00Z"), Cause::NoBundle),
        ("expires_at", json!("2026-11-21T12:11:59Z"), Cause::NoBundle),
        ("expires_at", json!("2026-11-21T12:00:00Z"), rejected),
        ("expires_at", json!("2026-11-20T12:00:00Z"), rejected),
        ("expires_at", json!("2026-11-23T12:00:01Z"), rejected),
        ("expires_at", json!("9999-12-30T12:00:00Z"), rejected),
        ("expires_at", json!("99999-12-30T12:00:00Z"), rejected),
        ("sequence", json!(6), rejected),
        ("sequence", json!(-1), rejected),
        ("sequence", json!(1e300), rejected),
        ("sequence", token, rejected),
        ("publisher", json!("a\u{1b}[2J"), rejected),
        ("publisher", json!({"hunter2": 1}), rejected),
        ("write_id", json!("hunter2"), rejected),
    ];
    for (name, value, want) in cases {
        let body = document(&[(name, value.clone())]).to_string();
        assert_eq!(refused(name, body.as_bytes(), &expectation()), want, "{name} {value}");
    }
}

#[test]
fn no_field_may_be_missing_and_the_pin_or_the_register_decides_about_the_ca() {
    let rejected = Cause::ObjectRejected;
    for name in document(&[]).as_object().expect("an object").keys() {
        let mut document = document(&[]);
        document.as_object_mut().expect("an object").remove(name);
        assert_eq!(refused(name, document.to_string().as_bytes(), &expectation()), rejected, "without {name}");
    }
    // Without a pin the register decides; with neither, nothing does.
    let other = document(&[("ca_sha256", json!(ca(2)))]).to_string();
    let unpinned = Expectation { ca_pin: None, ..expectation() };
    assert_eq!(refused("another CA", other.as_bytes(), &unpinned), rejected);
    assert!(verify(other.as_bytes(), &Expectation { ca: None, ..unpinned }).is_ok());
}

#[test]
fn the_limits_themselves_are_allowed() {
    for (name, value) in [
        ("issued_at", "2026-11-21T12:12:00Z"),
        ("expires_at", "2026-11-21T12:12:00Z"),
        ("expires_at", "2026-11-23T12:00:00Z"),
    ] {
        let body = document(&[(name, json!(value))]).to_string();
        assert!(verify(body.as_bytes(), &expectation()).is_ok(), "{name} {value}");
    }
}

#[test]
fn clocks_disagree_from_a_minute_on() {
    let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).expect("time");
    assert_eq!(clock_skew(at(0), None), None);
    for (skew, told) in [(0, None), (60, None), (-60, None), (61, Some(61)), (-61, Some(-61))] {
        assert_eq!(clock_skew(at(skew), Some(at(0))), told.map(SignedDuration::from_secs), "{skew}");
    }
}

fn bundle(write: u128) -> crate::model::bundle::JoinBundle {
    let body = document(&[("write_id", json!(Uuid::from_u128(write)))]).to_string();
    verify(body.as_bytes(), &expectation()).expect("good").bundle().clone()
}

#[test]
fn a_publication_under_two_faults_is_settled_truly() {
    for previous in [None, Some("{\"old\":1}")] {
        for (one, two) in FAULTS.iter().flat_map(|one| FAULTS.iter().map(move |two| (*one, *two))) {
            for at in 0..5 {
                let lab = Lab::new();
                let etag: Option<ETag> = previous.map(|old| etag_of(old.as_bytes()));
                if let Some(old) = previous {
                    lab.objects.set(KEY, old);
                }
                lab.objects.fail(at, one);
                lab.objects.fail(at + 1, two);
                let answer = run(lab.store.publish_bundle(&bundle(5), etag.as_ref()));
                let now = lab.objects.body(KEY).map(|body| etag_of(&body));
                match answer {
                    Some(Ok(Published::Stored(etag))) => assert_eq!(now, Some(etag), "{one:?} {two:?} at {at}"),
                    Some(Ok(Published::Overtaken)) => panic!("by whom? {one:?} {two:?} at {at}"),
                    Some(Err(failure)) => assert!(failure.is_transient(), "{failure}"),
                    None => {}
                }
                // What lands late never changes what was told.
                lab.objects.land();
                if now != etag {
                    assert_eq!(lab.objects.body(KEY).map(|body| etag_of(&body)), now, "{one:?} {two:?} at {at}");
                }
            }
        }
    }
}

#[test]
fn of_two_publishers_one_is_overtaken() {
    for schedule in 0..64 {
        for fault in [Fault::LostAfter, Fault::Late(1), Fault::Late(3), Fault::LostBefore, Fault::RefusedAfter] {
            let lab = Lab::new();
            lab.objects.fail(schedule as usize % 4, fault);
            let (a, b) = (bundle(5), bundle(6));
            let (left, right) =
                interleave(schedule, lab.store.publish_bundle(&a, None), lab.store.publish_bundle(&b, None));
            let (left, right) = (left.expect("alive").expect("settled"), right.expect("alive").expect("settled"));
            let stored = |published: &Published| matches!(published, Published::Stored(_));
            assert!(stored(&left) != stored(&right), "{fault:?} {schedule:b}: {left:?} {right:?}");
        }
    }
}

#[test]
fn a_known_bundle_is_not_sent_again() {
    let lab = Lab::new();
    let published = run(lab.store.publish_bundle(&bundle(5), None)).expect("alive").expect("settled");
    let Published::Stored(etag) = published else { panic!("overtaken") };
    let reading = run(lab.store.bundle(Some(&etag))).expect("alive").expect("read");
    assert_eq!(reading.fetched, Fetched::Unchanged);
}
