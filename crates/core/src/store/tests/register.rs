use crate::journal::Attempt;
use crate::journal::AttemptKind;
use crate::model::cause::{Cause, Outcome};
use crate::model::register::{Register, RegisterState};
use crate::store::fake::{FAULTS, Fault, Lab, ca, etag_of, holder, interleave, run};
use crate::store::{Claim, Gone, Held, Seen, Store};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use uuid::Uuid;

const KEY: &str = "prod/cluster.json";

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn in_store(lab: &Lab) -> Option<Register> {
    lab.objects.body(KEY).map(|body| serde_json::from_slice(&body).expect("a register"))
}

fn held(claim: Claim) -> Held {
    match claim {
        Claim::Held(held) => held,
        Claim::Lost => panic!("lost"),
    }
}

fn seen(lab: &Lab) -> Seen {
    run(lab.store.register()).expect("alive").expect("readable").expect("there")
}

fn unlocked(lab: &Lab) -> Seen {
    let claim = run(lab.store.claim(&lab.recorded(1, 9), &holder("a"))).expect("alive").expect("claim");
    assert!(matches!(claim, Claim::Held(_)));
    run(lab.store.unlock_init(&seen(lab))).expect("alive").expect("unlock")
}

/// A master as the steps drive it: killed anywhere it starts again from the store and its attempt.
async fn master(lab: &Lab, store: &Store, attempt: u128, uid: u128) -> Outcome<Option<Seen>> {
    if let Some(seen) = store.register().await?
        && seen.register.attempt() == id(attempt)
        && seen.register.ca().is_some()
    {
        return Ok(Some(seen));
    }
    let held = match store.held(id(attempt)).await? {
        Some(held) => held,
        None => match store.claim(&lab.recorded(attempt, uid), &holder("a")).await? {
            Claim::Held(held) => held,
            Claim::Lost => return Ok(None),
        },
    };
    // The CA is made anew by each run of init; here it tells attempts apart.
    store.commit(&held, &ca(attempt as u8), &holder("a")).await.map(Some)
}

/// Runs `work` in lives until it succeeds; what is late lands in between or at the end.
fn until_done<T, F: Future<Output = Outcome<T>>>(lab: &Lab, mut life: impl FnMut() -> F) -> T {
    for _ in 0..6 {
        match run(life()) {
            Some(Ok(value)) => {
                lab.objects.land();
                return value;
            }
            Some(Err(failure)) => assert!(failure.is_transient(), "{failure}"),
            None => lab.objects.heal(),
        }
    }
    panic!("six lives were not enough");
}

#[test]
fn a_master_alone_ends_established_whatever_two_calls_do() {
    let clean = Lab::new();
    until_done(&clean, || master(&clean, &clean.store, 1, 9));
    // Faults make more calls; eight more cover the read-backs and repeats of two faults.
    let calls = clean.objects.calls() + 8;
    for first in 0..calls {
        for second in first..calls {
            for one in FAULTS {
                for two in FAULTS {
                    let lab = Lab::new();
                    lab.objects.fail(first, *one);
                    lab.objects.fail(second, *two);
                    let end = until_done(&lab, || master(&lab, &lab.store, 1, 9));
                    let case = format!("{one:?} at {first}, {two:?} at {second}");
                    let register = in_store(&lab).unwrap_or_else(|| panic!("{case}: no register"));
                    assert_eq!(register.ca(), Some(&ca(1)), "{case}");
                    assert_eq!(end.map(|seen| seen.etag), lab.objects.body(KEY).map(|b| etag_of(&b)), "{case}");
                }
            }
        }
    }
}

#[test]
fn of_two_claimants_exactly_one_holds_in_every_interleaving_and_under_every_fault() {
    let mut winners = BTreeSet::new();
    for schedule in 0..(1 << 11) {
        let lab = Lab::new();
        // Every schedule meets another fault at another call.
        let fault = FAULTS[schedule as usize % FAULTS.len()];
        if !matches!(fault, Fault::DieBefore | Fault::DieAfter) {
            lab.objects.fail(schedule as usize / FAULTS.len() % 16, fault);
        }
        let (one, two) = (lab.recorded(1, 8), lab.recorded(2, 9));
        let (a, b) = (holder("a"), holder("b"));
        let (left, right) = interleave(schedule, lab.store.claim(&one, &a), lab.store.claim(&two, &b));
        lab.objects.land();
        let holds = |claim: &Option<Outcome<Claim>>| matches!(claim, Some(Ok(Claim::Held(_))));
        let (left, right) = (holds(&left), holds(&right));
        assert!(!(left && right), "both hold, schedule {schedule:b}");
        let register = in_store(&lab).expect("one of them wrote");
        assert!(!left || register.attempt() == id(1), "schedule {schedule:b}");
        assert!(!right || register.attempt() == id(2), "schedule {schedule:b}");
        assert_eq!(lab.objects.history(KEY).len(), 1, "schedule {schedule:b}");
        winners.insert((left, right));
    }
    assert!(winners.contains(&(true, false)) && winners.contains(&(false, true)), "{winners:?}");
}

#[test]
fn commit_and_takeover_exclude_each_other_in_every_interleaving_and_under_every_fault() {
    let mut ends = BTreeSet::new();
    for fault in FAULTS.iter().copied().filter(|f| !matches!(f, Fault::DieBefore | Fault::DieAfter)) {
        for at in 0..6 {
            for schedule in 0..(1 << 7) {
                let lab = Lab::new();
                let claim = run(lab.store.claim(&lab.recorded(1, 9), &holder("a"))).expect("alive").expect("claim");
                let (mine, judged) = (held(claim), seen(&lab));
                lab.objects.fail(at, fault);
                let (successor, a, b) = (lab.recorded(2, 9), holder("a"), holder("b"));
                let hash = ca(1);
                let (commit, taken) = interleave(
                    schedule,
                    lab.store.commit(&mine, &hash, &a),
                    lab.store.take_over(&judged, Gone::for_test(&judged), &successor, &b),
                );
                lab.objects.land();
                let (commit, taken) = (commit.expect("alive"), taken.expect("alive"));
                let register = in_store(&lab).expect("never vanishes");
                let case = format!("{fault:?} at {at}, schedule {schedule:b}: {commit:?} {taken:?}");
                assert_eq!(register.uid, id(9), "{case}");
                match (&commit, &taken) {
                    (Ok(_), Ok(Claim::Held(_))) => panic!("both: {case}"),
                    (Ok(_), _) => assert_eq!(register.ca(), Some(&hash), "{case}"),
                    (_, Ok(Claim::Held(_))) => assert_eq!(register.attempt(), id(2), "{case}"),
                    (Err(failure), Ok(Claim::Lost)) => assert!(failure.is_transient(), "{case}"),
                    (Err(_), Err(_)) => {}
                }
                if let Err(failure) = &commit
                    && !failure.is_transient()
                {
                    assert_eq!((failure.cause, register.attempt()), (Cause::TakenOver, id(2)), "{case}");
                }
                ends.insert((commit.is_ok(), matches!(taken, Ok(Claim::Held(_)))));
            }
        }
    }
    assert!(ends.contains(&(true, false)) && ends.contains(&(false, true)), "{ends:?}");
}

#[test]
fn a_takeover_under_any_fault_keeps_the_uid_and_is_settled() {
    for fault in FAULTS {
        for at in 0..6 {
            let lab = Lab::new();
            let before = unlocked(&lab);
            lab.objects.fail(at, *fault);
            until_done(&lab, || async {
                let recorded = lab.recorded(2, 9);
                if let Some(held) = lab.store.held(id(2)).await? {
                    return Ok(held);
                }
                lab.store.take_over(&before, Gone::for_test(&before), &recorded, &holder("b")).await.map(held)
            });
            let register = in_store(&lab).expect("there");
            assert_eq!((register.uid, register.attempt()), (id(9), id(2)), "{fault:?} at {at}");
        }
    }
}

#[test]
fn proofs_of_other_things_are_refused() {
    let lab = Lab::new();
    let before = unlocked(&lab);
    let stale = Seen { etag: etag_of(b"another"), ..before.clone() };
    let take = |gone: Gone, uid: u128| {
        run(lab.store.take_over(&before, gone, &lab.recorded(2, uid), &holder("b"))).expect("alive")
    };
    assert_eq!(take(Gone::for_test(&stale), 9).map_err(|f| f.cause), Err(Cause::Internal));
    assert_eq!(take(Gone::for_test(&before), 8).map_err(|f| f.cause), Err(Cause::Internal));
    assert!(matches!(take(Gone::for_test(&before), 9), Ok(Claim::Held(_))));
}

#[test]
fn the_old_holder_can_neither_commit_nor_believe_it_holds_after_an_unlock() {
    for fault in FAULTS.iter().filter(|f| !matches!(f, Fault::DieBefore | Fault::DieAfter | Fault::Denied)) {
        for at in 0..4 {
            let lab = Lab::new();
            let claim = run(lab.store.claim(&lab.recorded(1, 9), &holder("a"))).expect("alive").expect("claim");
            let before = seen(&lab);
            lab.objects.fail(at, *fault);
            let after = run(lab.store.unlock_init(&before)).expect("alive").expect("unlocked");
            lab.objects.land();
            lab.objects.heal();
            assert!(matches!(&after.register.state, RegisterState::Initialising { holder: None, .. }));
            assert_eq!(in_store(&lab).as_ref(), Some(&after.register), "{fault:?} at {at}");
            assert_eq!(run(lab.store.held(id(1))), Some(Ok(None)));
            let commit = run(lab.store.commit(&held(claim), &ca(1), &holder("a"))).expect("alive");
            assert_eq!(commit.map_err(|f| f.cause), Err(Cause::TakenOver), "{fault:?} at {at}");
        }
    }
}

#[test]
fn a_register_that_vanished_is_not_committed_and_is_not_claimed_over_traces() {
    let lab = Lab::new();
    let claim = run(lab.store.claim(&lab.recorded(1, 9), &holder("a"))).expect("alive").expect("claim");
    lab.objects.erase(KEY);
    let commit = run(lab.store.commit(&held(claim), &ca(1), &holder("a"))).expect("alive");
    assert_eq!(commit.map_err(|f| f.cause), Err(Cause::RegisterMissing));
    for (key, body, refused) in [
        ("prod/pki/bundle", "sealed", true),
        ("prod/snapshots/1", "", true),
        ("prod/join/worker.json", "{}", true),
        ("prod/nodes/machine-b/report.json", "{\"uid\":\"00000000-0000-0000-0000-000000000009\"}", true),
        ("prod/nodes/machine-b/report.json", "{\"schema\":7,\"uid\":\"something new\"}", true),
        ("prod/nodes/machine-b/report.json", "{\"schema\"", true),
        ("prod/nodes/machine-b/report.json", "{\"schema\":1,\"uid\":null}", false),
        ("prod/nodes/machine-b/report.json", "{\"schema\":7}", false),
        // Our own report of our own attempt, and of another.
        ("prod/nodes/machine-a/report.json", "{\"uid\":\"00000000-0000-0000-0000-000000000009\"}", false),
        ("prod/nodes/machine-a/report.json", "{\"uid\":\"00000000-0000-0000-0000-000000000008\"}", true),
        ("prod/selftest/conditions", "{}", false),
        ("prod/retired/1/cluster.json", "{}", false),
        ("production/join/worker.json", "{}", false),
    ] {
        let lab = Lab::new();
        lab.objects.set(key, body);
        let claim = run(lab.store.claim(&lab.recorded(1, 9), &holder("a"))).expect("alive");
        let want = if refused { Err(Cause::RegisterMissing) } else { Ok(true) };
        assert_eq!(claim.map(|c| matches!(c, Claim::Held(_))).map_err(|f| f.cause), want, "{key} {body}");
        assert_eq!(in_store(&lab).is_some(), !refused, "{key} {body}");
    }
}

fn made(committed: bool) -> Attempt {
    Attempt {
        id: id(1),
        kind: AttemptKind::Init,
        uid: id(9),
        machine_was_clean: true,
        initialised: Some(ca(1)),
        commit_attempted: true,
        committed: committed.then(|| ca(1)),
        joined: None,
        resetting: false,
        left: false,
        completed: false,
        addons: None,
    }
}

#[test]
fn a_vanished_register_is_put_back_under_any_fault_and_never_over_another() {
    for fault in FAULTS {
        for at in 0..6 {
            let lab = Lab::new();
            lab.objects.fail(at, *fault);
            let created = "2026-11-20T00:00:00Z".parse().expect("time");
            until_done(&lab, || async { lab.store.put_back(&made(true), &holder("a"), created).await });
            let register = in_store(&lab).expect("there");
            assert_eq!((register.uid, register.ca()), (id(9), Some(&ca(1))), "{fault:?} at {at}");
        }
    }
    let lab = Lab::new();
    let put_back =
        |made: Attempt| run(lab.store.put_back(&made, &holder("a"), jiff::Timestamp::UNIX_EPOCH)).expect("alive");
    assert_eq!(put_back(made(false)).map_err(|f| f.cause), Err(Cause::RegisterMissing));
    let claim = run(lab.store.claim(&lab.recorded(2, 8), &holder("b"))).expect("alive").expect("claim");
    assert_eq!(put_back(made(true)).map_err(|f| f.cause), Err(Cause::ForeignCluster));
    run(lab.store.commit(&held(claim), &ca(2), &holder("b"))).expect("alive").expect("commit");
    assert_eq!(put_back(made(true)).map_err(|f| f.cause), Err(Cause::ForeignCluster));
    lab.objects.erase(KEY);
    let bundle = super::bundle::document(&[("ca_sha256", json!(ca(2)))]);
    lab.objects.set("prod/join/worker.json", bundle.to_string());
    assert_eq!(put_back(made(true)).map_err(|f| f.cause), Err(Cause::ForeignCluster));
    assert_eq!(in_store(&lab), None);
}

fn document() -> Value {
    json!({
        "schema": 1, "cluster": "prod", "uid": id(9), "state": "initialising", "attempt": id(1),
        "holder": { "identity": "machine-a", "node_name": "a" }, "since": "2026-11-21T00:00:00Z"
    })
}

#[test]
fn bad_registers_are_refused_with_their_key_and_good_ones_of_later_minors_are_read() {
    let with = |name: &str, value: Value| {
        let mut document = document();
        document[name] = value;
        document.to_string().into_bytes()
    };
    let rejected = Cause::ObjectRejected;
    let cases: Vec<(&str, Vec<u8>, Result<(), Cause>)> = vec![
        ("good", document().to_string().into_bytes(), Ok(())),
        ("unknown fields", with("later", json!({"a": 1})), Ok(())),
        ("empty", Vec::new(), Err(rejected)),
        ("truncated", document().to_string().into_bytes()[..80].to_vec(), Err(rejected)),
        ("too large", with("pad", json!("x".repeat(64 * 1024))), Err(rejected)),
        ("not JSON", b"#!/bin/sh".to_vec(), Err(rejected)),
        ("not UTF-8", vec![0xff; 20], Err(rejected)),
        ("a list", b"[1]".to_vec(), Err(rejected)),
        ("newer schema", with("schema", json!(2)), Err(rejected)),
        ("no schema", with("schema", json!("1")), Err(rejected)),
        ("schema 0", with("schema", json!(0)), Err(rejected)),
        ("another cluster", with("cluster", json!("dev")), Err(Cause::ForeignCluster)),
        ("unknown state", with("state", json!("retired")), Err(rejected)),
        ("bad uid", with("uid", json!("9")), Err(rejected)),
        ("nil uid", with("uid", json!(Uuid::nil())), Err(rejected)),
        ("nil attempt", with("attempt", json!(Uuid::nil())), Err(rejected)),
        ("escape in a name", with("holder", json!({"identity": "a", "node_name": "\u{1b}[2J"})), Err(rejected)),
        (
            "a short CA hash",
            {
                let mut document = document();
                document["state"] = json!("established");
                document["ca_sha256"] = json!("sha256:00");
                document["created_by"] = document["holder"].clone();
                document["created_at"] = document["since"].clone();
                document.to_string().into_bytes()
            },
            Err(rejected),
        ),
    ];
    for (name, body, want) in cases {
        let lab = Lab::new();
        lab.objects.set(KEY, body);
        let answer = run(lab.store.register()).expect("alive");
        if let Err(failure) = &answer {
            assert!(failure.attempted.contains(KEY), "{name}: {failure}");
            // What cannot be read is never claimed over.
            let claim = run(lab.store.claim(&lab.recorded(1, 9), &holder("a"))).expect("alive");
            assert!(claim.is_err(), "{name}");
        }
        assert_eq!(answer.map(|_| ()).map_err(|f| f.cause), want, "{name}");
    }
}

#[test]
fn a_denied_read_is_never_absent_and_names_list_bucket() {
    let lab = Lab::new();
    lab.objects.fail(0, Fault::Denied);
    let failure = run(lab.store.register()).expect("alive").expect_err("denied");
    assert!(failure.cause == Cause::AccessDenied && failure.fix().contains("s3:ListBucket"), "{failure}");
}
