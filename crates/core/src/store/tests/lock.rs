use crate::model::cause::{Cause, Outcome};
use crate::model::lock::JoinLock;
use crate::store::fake::{FAULTS, Fault, Lab, holder, interleave, run};
use crate::store::gone::MachineGone;
use crate::store::lock::{SeenLock, Turn};
use serde_json::json;
use std::collections::BTreeSet;
use uuid::Uuid;

const KEY: &str = "prod/join/control-plane.lock";

fn held_by(lab: &Lab) -> Option<Uuid> {
    let lock: Option<JoinLock> = lab.objects.body(KEY).map(|body| serde_json::from_slice(&body).expect("a lock"));
    lock.map(|lock| lock.attempt)
}

fn is_ours(turn: &Option<Outcome<Turn>>) -> bool {
    matches!(turn, Some(Ok(Turn::Ours(_))))
}

fn seen(lab: &Lab) -> SeenLock {
    run(lab.store.join_lock()).expect("alive").expect("readable").expect("there")
}

#[test]
fn of_two_masters_one_joins_in_every_interleaving_and_under_every_fault() {
    let mut winners = BTreeSet::new();
    for schedule in 0..(1 << 9) {
        let lab = Lab::new();
        let fault = FAULTS[schedule as usize % FAULTS.len()];
        if !matches!(fault, Fault::DieBefore | Fault::DieAfter) {
            lab.objects.fail(schedule as usize / FAULTS.len() % 16, fault);
        }
        let (one, two) = (lab.recorded(1, 9), lab.recorded(2, 9));
        let (a, b) = (holder("a"), holder("b"));
        let (left, right) = interleave(schedule, lab.store.take_turn(&one, &a), lab.store.take_turn(&two, &b));
        lab.objects.land();
        let (left, right) = (is_ours(&left), is_ours(&right));
        assert!(!(left && right), "both, schedule {schedule:b}");
        let holds = held_by(&lab);
        assert!(!left || holds == Some(Uuid::from_u128(1)), "schedule {schedule:b}");
        assert!(!right || holds == Some(Uuid::from_u128(2)), "schedule {schedule:b}");
        winners.insert((left, right));
    }
    assert!(winners.contains(&(true, false)) && winners.contains(&(false, true)), "{winners:?}");
}

#[test]
fn a_turn_is_resumed_given_back_and_taken_again() {
    let lab = Lab::new();
    let take = |attempt: u128, by: &str| run(lab.store.take_turn(&lab.recorded(attempt, 9), &holder(by)));
    assert!(is_ours(&take(1, "a")) && is_ours(&take(1, "a")));
    let Some(Ok(Turn::Others(shown))) = take(2, "b") else { panic!("two at a time") };
    assert_eq!((shown.lock.holder.node_name.as_str(), shown.lock.attempt), ("a", Uuid::from_u128(1)));
    // Somebody who does not hold it gives nothing back.
    assert_eq!(run(lab.store.give_turn_back(Uuid::from_u128(2))), Some(Ok(())));
    assert_eq!(held_by(&lab), Some(Uuid::from_u128(1)));
    // The same machine begins anew after an operator's reset.
    assert!(is_ours(&take(3, "a")));
    assert_eq!(run(lab.store.give_turn_back(Uuid::from_u128(3))), Some(Ok(())));
    assert_eq!(held_by(&lab), None);
    assert!(is_ours(&take(2, "b")));
}

#[test]
fn giving_back_is_settled_whatever_a_call_does() {
    for fault in FAULTS.iter().filter(|fault| !matches!(fault, Fault::DieBefore | Fault::DieAfter | Fault::Denied)) {
        for at in 0..4 {
            let lab = Lab::new();
            assert!(is_ours(&run(lab.store.take_turn(&lab.recorded(1, 9), &holder("a")))));
            lab.objects.fail(at, *fault);
            let mut end = run(lab.store.give_turn_back(Uuid::from_u128(1)));
            if !matches!(end, Some(Ok(()))) {
                end = run(lab.store.give_turn_back(Uuid::from_u128(1)));
            }
            assert_eq!((end, held_by(&lab)), (Some(Ok(())), None), "{fault:?} at {at}");
        }
    }
}

#[test]
fn a_lock_is_taken_over_only_with_a_proof_about_its_holder() {
    let lab = Lab::new();
    assert!(is_ours(&run(lab.store.take_turn(&lab.recorded(1, 9), &holder("a")))));
    let judged = seen(&lab);
    let over = |gone: &str| {
        let gone = MachineGone::for_test(&holder(gone).identity);
        run(lab.store.take_turn_over(&judged, &gone, &lab.recorded(2, 9), &holder("b"))).expect("alive")
    };
    assert_eq!(over("c").map_err(|failure| failure.cause), Err(Cause::Internal));
    assert_eq!(held_by(&lab), Some(Uuid::from_u128(1)));
    assert!(matches!(over("a"), Ok(Turn::Ours(_))));
    // The old holder neither resumes nor gives it back.
    assert!(!is_ours(&run(lab.store.take_turn(&lab.recorded(1, 9), &holder("a")))));
    assert_eq!(run(lab.store.give_turn_back(Uuid::from_u128(1))), Some(Ok(())));
    assert_eq!(held_by(&lab), Some(Uuid::from_u128(2)));
    // What was judged is not there any more.
    assert!(matches!(over("a"), Ok(Turn::Ours(_))), "the same attempt again");
    let stale = run(lab.store.take_turn_over(
        &judged,
        &MachineGone::for_test(&holder("a").identity),
        &lab.recorded(3, 9),
        &holder("c"),
    ));
    assert!(matches!(stale, Some(Ok(Turn::Others(_)))), "{stale:?}");
}

#[test]
fn what_is_no_lock_of_this_cluster_stops_a_join_and_an_operator_removes_it() {
    let lock = |key: &str, value: serde_json::Value| {
        let mut lock = json!({"schema": 1, "cluster": "prod", "uid": Uuid::from_u128(9), "attempt": Uuid::from_u128(1),
            "holder": {"identity": "machine-a", "node_name": "a"}, "since": "2026-11-21T12:00:00Z"});
        lock[key] = value;
        lock.to_string()
    };
    for bad in [
        String::new(),
        "{".to_owned(),
        lock("schema", json!(2)),
        lock("cluster", json!("dev")),
        lock("uid", json!(Uuid::from_u128(8))),
        lock("attempt", json!(Uuid::nil())),
        lock("holder", json!({"identity": "a\nb", "node_name": "a"})),
    ] {
        let lab = Lab::new();
        lab.objects.set(KEY, bad.clone());
        let failure = run(lab.store.take_turn(&lab.recorded(2, 9), &holder("b"))).expect("alive").expect_err(&bad);
        assert_eq!(failure.cause, Cause::ObjectRejected, "{bad}");
        assert_eq!(lab.objects.history(KEY).len(), 1, "{bad}");
        let (etag, _) = run(lab.store.lock_to_show()).expect("alive").expect("shown").expect("there");
        assert_eq!(run(lab.store.unlock_join(&etag)), Some(Ok(())), "{bad}");
        assert!(is_ours(&run(lab.store.take_turn(&lab.recorded(2, 9), &holder("b")))), "{bad}");
        // What an operator was shown is not what is there now.
        let late = run(lab.store.unlock_join(&etag)).expect("alive").expect_err("changed");
        assert_eq!(late.cause, Cause::HeldByOther, "{bad}");
    }
}
