use crate::model::cause::Cause;
use crate::model::identity::Role;
use crate::model::report::{Phase, Report};
use crate::ports::MAX_OBJECT;
use crate::store::fake::{FAULTS, Lab, etag_of, run};
use crate::testing::identity;
use jiff::Timestamp;
use std::collections::BTreeMap;
use uuid::Uuid;

pub(super) fn report(name: &str, uid: Option<u128>) -> Report {
    Report {
        schema: 1,
        cluster: "prod".into(),
        uid: uid.map(Uuid::from_u128),
        role: Role::Worker,
        identity: identity(name),
        phase: Phase::Ready,
        step: None,
        error: None,
        steps: Vec::new(),
        versions: BTreeMap::new(),
        bundle_expires_at: None,
        certificates_expire_at: None,
        drift: None,
        end: None,
        members: None,
        leads: false,
        log_tail: Vec::new(),
        started_at: Timestamp::UNIX_EPOCH,
        reported_at: Timestamp::UNIX_EPOCH,
        next_within_s: 300,
    }
}

fn key(name: &str) -> String {
    format!("prod/nodes/{}/report.json", identity(name).key())
}

#[test]
fn a_report_is_replaced_from_any_remembered_version_under_any_fault() {
    let old = serde_json::to_vec(&report("a", None)).expect("json");
    for there in [None, Some(old.clone())] {
        for remembered in [None, Some(etag_of(&old)), Some(etag_of(b"ancient"))] {
            for fault in FAULTS {
                // Nothing goes wrong with call 99.
                for at in [0, 1, 2, 3, 4, 99] {
                    let lab = Lab::new();
                    if let Some(body) = &there {
                        lab.objects.set(&key("a"), body.clone());
                    }
                    lab.objects.fail(at, *fault);
                    let new = Report { next_within_s: 60, ..report("a", None) };
                    let answer = run(lab.store.put_report(&new, remembered.as_ref()));
                    lab.objects.land();
                    let now = lab.objects.body(&key("a")).map(|body| etag_of(&body));
                    match answer {
                        Some(Ok(etag)) => assert_eq!(now, Some(etag), "{fault:?} at {at}"),
                        Some(Err(failure)) => assert!(failure.is_transient() && at < 99, "{failure}"),
                        None => assert!(at < 99),
                    }
                }
            }
        }
    }
}

#[test]
fn a_long_log_loses_its_oldest_lines_until_the_report_fits() {
    let lab = Lab::new();
    let line = |n: usize| format!("{n:06} {}", "\"".repeat(100));
    let long = Report { log_tail: (0..2000).map(line).collect(), ..report("a", None) };
    run(lab.store.put_report(&long, None)).expect("alive").expect("stored");
    let body = lab.objects.body(&key("a")).expect("there");
    assert!(body.len() <= MAX_OBJECT && body.len() > MAX_OBJECT / 3, "{}", body.len());
    let kept: Report = serde_json::from_slice(&body).expect("json");
    assert_eq!(kept.log_tail.last(), long.log_tail.last());
    let one = Report { log_tail: vec!["x".repeat(MAX_OBJECT)], ..report("b", None) };
    run(lab.store.put_report(&one, None)).expect("alive").expect("stored");
}

#[test]
fn every_report_is_listed_and_a_bad_one_is_an_entry_with_its_failure() {
    let lab = Lab::new();
    for name in ["a", "b", "c", "d", "e"] {
        run(lab.store.put_report(&report(name, Some(9)), None)).expect("alive").expect("stored");
    }
    let foreign = Report { cluster: "dev".into(), ..report("f", None) };
    for (name, body) in [
        ("b", serde_json::to_vec(&report("a", None)).expect("json")),
        ("c", b"{".to_vec()),
        ("f", serde_json::to_vec(&foreign).expect("json")),
        ("g", vec![b' '; MAX_OBJECT + 1]),
    ] {
        lab.objects.set(&key(name), body);
    }
    lab.objects.set("prod/nodes/machine-x/notes.txt", "not a report");
    let entries = run(lab.store.reports()).expect("alive").expect("listed");
    let told: Vec<(String, Option<Cause>)> =
        entries.iter().map(|e| (e.identity.clone(), e.report.as_ref().err().map(|f| f.cause))).collect();
    let bad = Some(Cause::ObjectRejected);
    let want = [("a", None), ("b", bad), ("c", bad), ("d", None), ("e", None), ("f", bad), ("g", bad)];
    assert_eq!(told, want.map(|(name, cause)| (identity(name).key(), cause)).to_vec());
    assert!(entries.iter().all(|entry| entry.modified.is_some() && entry.served_at.is_some()));
}
