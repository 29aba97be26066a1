use super::reports::report;
use crate::model::cause::Cause;
use crate::ports::{Condition, MAX_OBJECT, Objects, Written};
use crate::store::fake::{FAULTS, Fault, Lab, ca, etag_of, holder, run};
use crate::store::{Claim, Retired};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A cluster with everything; with its register or without.
fn cluster(with_register: bool) -> Lab {
    let lab = Lab::new();
    let claim = run(lab.store.claim(&lab.recorded(1, 9), &holder("a"))).expect("alive").expect("claim");
    let Claim::Held(held) = claim else { panic!("lost") };
    run(lab.store.commit(&held, &ca(1), &holder("a"))).expect("alive").expect("commit");
    lab.objects.set("prod/join/worker.json", super::bundle::document(&[]).to_string());
    lab.objects.set("prod/pki/bundle", "sealed");
    lab.objects.set("prod/grants/x", "{}");
    lab.objects.set("prod/selftest/conditions", "{}");
    lab.objects.set("dev/cluster.json", "another cluster's");
    for name in ["a", "b", "c"] {
        run(lab.store.put_report(&report(name, Some(9)), None)).expect("alive").expect("report");
    }
    if !with_register {
        lab.objects.erase("prod/cluster.json");
    }
    lab
}

fn contents(lab: &Lab) -> BTreeMap<String, Vec<u8>> {
    lab.objects.keys().into_iter().map(|key| (key.clone(), lab.objects.body(&key).expect("listed"))).collect()
}

/// What must be there afterwards.
fn retired(before: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let stays = |key: &str| key.starts_with("dev/") || key.starts_with("prod/selftest/");
    let moved = |key: &str| key.replacen("prod/", &format!("prod/retired/{}/", Uuid::from_u128(9)), 1);
    before.iter().map(|(key, body)| (if stays(key) { key.clone() } else { moved(key) }, body.clone())).collect()
}

#[test]
fn everything_moves_and_the_next_master_may_begin() {
    let lab = cluster(true);
    let before = contents(&lab);
    let plan = run(lab.store.retirement()).expect("alive").expect("read").expect("something");
    assert_eq!((plan.uid, plan.reports.len(), plan.keys.len()), (Uuid::from_u128(9), 3, 7));
    assert_eq!(plan.keys.last().map(String::as_str), Some("prod/cluster.json"));
    let done = run(lab.store.retire(&plan)).expect("alive");
    assert_eq!(done, Ok(Retired { uid: Uuid::from_u128(9), moved: 7 }));
    assert!(contents(&lab) == retired(&before), "{:?}", lab.objects.keys());
    assert_eq!(run(lab.store.retirement()), Some(Ok(None)));
    // The plan is used up: what is there later is another cluster's.
    assert_eq!(run(lab.store.retire(&plan)).expect("alive").map_err(|f| f.cause), Err(Cause::TakenOver));
    let claim = run(lab.store.claim(&lab.recorded(2, 8), &holder("b"))).expect("alive").expect("claim");
    assert!(matches!(claim, Claim::Held(_)));
    assert_eq!(run(lab.store.retire(&plan)).expect("alive").map_err(|f| f.cause), Err(Cause::TakenOver));
}

#[test]
fn killed_or_disturbed_at_any_call_the_next_run_converges_and_nothing_is_lost() {
    for with_register in [true, false] {
        for fault in FAULTS {
            for at in 0..80 {
                let lab = cluster(with_register);
                let before = contents(&lab);
                lab.objects.fail(at, *fault);
                for _ in 0..3 {
                    let _ = run(async {
                        match lab.store.retirement().await? {
                            Some(plan) => lab.store.retire(&plan).await.map(|_| ()),
                            None => Ok(()),
                        }
                    });
                    let now = contents(&lab);
                    for (key, body) in &before {
                        assert!(now.values().any(|kept| kept == body), "{key} is lost: {fault:?} at {at}");
                    }
                }
                lab.objects.land();
                let keys = lab.objects.keys();
                assert!(contents(&lab) == retired(&before), "{fault:?} at {at}, {with_register}: {keys:?}");
            }
        }
    }
}

#[test]
fn a_report_that_was_replaced_after_it_was_copied_is_kept_too() {
    let lab = cluster(true);
    let key = format!("prod/nodes/{}/report.json", report("a", None).identity.key());
    let copy = key.replacen("prod/", &format!("prod/retired/{}/", Uuid::from_u128(9)), 1);
    lab.objects.set(&copy, "an earlier one");
    let plan = run(lab.store.retirement()).expect("alive").expect("read").expect("something");
    let last = lab.objects.body(&key).expect("there");
    run(lab.store.retire(&plan)).expect("alive").expect("retired");
    assert_eq!(lab.objects.body(&copy).as_deref(), Some(b"an earlier one".as_slice()));
    let kept: Vec<String> = lab.objects.keys().into_iter().filter(|k| k.starts_with(&format!("{copy}."))).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(lab.objects.body(&kept[0]), Some(last));
}

#[test]
fn a_report_that_changes_at_any_moment_is_moved_in_its_last_version() {
    let key = format!("prod/nodes/{}/report.json", report("b", None).identity.key());
    let mut landed = 0;
    for late in 1..80 {
        let lab = cluster(true);
        let plan = run(lab.store.retirement()).expect("alive").expect("read").expect("something");
        let old = etag_of(&lab.objects.body(&key).expect("there"));
        lab.objects.fail(0, Fault::Late(late));
        let write = lab.objects.put(&key, b"the last one".to_vec(), Condition::Matches(old));
        assert!(matches!(run(write), Some(Ok(Written::Unknown(_)))));
        run(lab.store.retire(&plan)).expect("alive").expect("retired");
        lab.objects.land();
        assert!(lab.objects.keys().iter().all(|key| !key.starts_with("prod/nodes/")), "late by {late}");
        if !lab.objects.history(&key).iter().any(|body| body == b"the last one") {
            continue;
        }
        landed += 1;
        let kept = contents(&lab).into_values().any(|body| body == b"the last one");
        assert!(kept, "late by {late}: the last version is lost");
    }
    assert!(landed > 10, "{landed}");
}

#[test]
fn without_a_register_the_uid_comes_from_what_names_it_and_that_goes_last() {
    let lab = cluster(false);
    let plan = run(lab.store.retirement()).expect("alive").expect("read").expect("something");
    assert_eq!(plan.uid, Uuid::from_u128(9));
    assert_eq!(plan.keys.last().map(String::as_str), Some("prod/join/worker.json"));
    let lab = Lab::new();
    lab.objects.set("prod/pki/bundle", vec![b'x'; MAX_OBJECT]);
    let plan = run(lab.store.retirement()).expect("alive").expect("read").expect("something");
    assert!(plan.uid.is_nil());
    run(lab.store.retire(&plan)).expect("alive").expect("retired");
    assert_eq!(lab.objects.keys(), [format!("prod/retired/{}/pki/bundle", Uuid::nil())]);
}
