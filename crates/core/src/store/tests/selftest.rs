use crate::model::cause::Cause;
use crate::store::Conditions;
use crate::store::fake::{FAULTS, Fault, Ignores, Lab, interleave, run};

const GOOD: Conditions = Conditions { deletes: Some(true) };

#[test]
fn a_good_store_passes_again_and_again_and_keeps_one_small_object() {
    let lab = Lab::new();
    for _ in 0..3 {
        assert_eq!(run(lab.store.self_test()), Some(Ok(GOOD)));
        assert_eq!(lab.objects.keys(), ["prod/selftest/conditions"]);
    }
    assert!(lab.objects.body("prod/selftest/conditions").is_some_and(|body| body.len() < 200));
}

#[test]
fn a_store_that_ignores_any_condition_of_a_write_or_read_is_refused() {
    let ignores = [
        Ignores { create: true, ..Ignores::default() },
        Ignores { replace: true, ..Ignores::default() },
        Ignores { get: true, ..Ignores::default() },
        Ignores { create: true, replace: true, get: true, delete: true },
    ];
    for ignored in ignores {
        let lost = |f: &&Fault| matches!(f, Fault::LostAfter | Fault::LostBefore | Fault::Late(_));
        for fault in FAULTS.iter().filter(lost) {
            for at in 0..10 {
                let lab = Lab::new();
                lab.objects.ignores.set(ignored);
                lab.objects.fail(at, *fault);
                let answer = run(lab.store.self_test()).expect("alive");
                // A read that fails ends the test without a verdict; no answer is ever "good".
                let cause = answer.map(|_| ()).expect_err("good?").cause;
                let allowed = [Cause::StoreUnconditional, Cause::StoreUnavailable];
                assert!(allowed.contains(&cause), "{ignored:?} {fault:?} at {at}: {cause:?}");
            }
        }
    }
    let lab = Lab::new();
    lab.objects.ignores.set(Ignores { delete: true, ..Ignores::default() });
    assert_eq!(run(lab.store.self_test()), Some(Ok(Conditions { deletes: Some(false) })));
}

#[test]
fn a_good_store_is_never_called_bad_whatever_one_call_does() {
    for fault in FAULTS.iter().filter(|f| !matches!(f, Fault::Refused)) {
        for at in 0..12 {
            let lab = Lab::new();
            lab.objects.fail(at, *fault);
            match run(lab.store.self_test()) {
                Some(Ok(conditions)) => assert_ne!(conditions.deletes, Some(false), "{fault:?} at {at}"),
                Some(Err(failure)) => assert!(failure.is_transient(), "{fault:?} at {at}: {failure}"),
                None => assert!(matches!(fault, Fault::DieAfter | Fault::DieBefore)),
            }
            lab.objects.land();
            lab.objects.heal();
            assert_eq!(run(lab.store.self_test()), Some(Ok(GOOD)), "{fault:?} at {at}, again");
        }
    }
}

#[test]
fn two_masters_may_test_at_once() {
    for schedule in 0..(1 << 11) {
        let lab = Lab::new();
        let answers = interleave(schedule, lab.store.self_test(), lab.store.self_test());
        assert_eq!(answers, (Some(Ok(GOOD)), Some(Ok(GOOD))), "{schedule:b}");
    }
}
