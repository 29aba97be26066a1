use super::*;
use crate::drain::order::Class;
use crate::drain::pods::Controller;
use crate::model::cause::Cause;
use proptest::prelude::*;

fn pod(grace: u32, ends_by: Option<Timestamp>) -> Pod {
    Pod {
        namespace: "shop".into(),
        name: "web-1".into(),
        uid: "u-1".into(),
        class: Class::Workload,
        grace,
        ends_by,
        controller: Controller::Other,
        finished: false,
        empty_dirs: Vec::new(),
    }
}

fn status(code: u16, message: &str, details: &Value) -> ApiAnswer {
    let body = json!({"kind": "Status", "status": "Failure", "message": message, "code": code, "details": details});
    ApiAnswer { status: code, body: body.to_string().into_bytes() }
}

fn judged(answer: &ApiAnswer) -> Answer {
    judge(&pod(30, None), answer)
}

/// The texts are those of Kubernetes 1.36's eviction.go.
fn by_budget(message: &str, seconds: u64) -> ApiAnswer {
    let causes = json!([{"reason": "DisruptionBudget", "message": message}]);
    let details = json!({"causes": causes, "retryAfterSeconds": seconds});
    status(429, "Cannot evict pod as it would violate the pod's disruption budget.", &details)
}

#[test]
fn an_eviction_that_began_or_has_nothing_to_do_is_accepted() {
    for code in [200, 201, 202] {
        let body = json!({"kind": "Status", "status": "Success"}).to_string().into_bytes();
        assert_eq!(judged(&ApiAnswer { status: code, body }), Answer::Accepted);
    }
    assert_eq!(judged(&ApiAnswer { status: 201, body: Vec::new() }), Answer::Accepted);
    assert_eq!(judged(&status(404, "pods \"web-1\" not found", &json!({}))), Answer::Accepted);
    let conflict = "the UID in the precondition (u-1) does not match the UID in record (u-2)";
    assert_eq!(judged(&status(409, conflict, &json!({}))), Answer::Accepted);
}

#[test]
fn a_budget_that_forbids_it_is_named() {
    let told = "The disruption budget web needs 2 healthy pods and has 2 currently";
    let expected = Answer::Later { why: told.into(), budget: Some("web".into()), wait: Duration::ZERO };
    assert_eq!(judged(&by_budget(told, 0)), expected);
    let Answer::Later { budget, wait, .. } =
        judged(&by_budget("The disruption budget web is still being processed by the server.", 10))
    else {
        panic!("not later")
    };
    assert_eq!((budget.as_deref(), wait), (Some("web"), Duration::from_secs(10)));
    // Without a cause the message says at least that it is a budget.
    let bare = status(429, "Cannot evict pod as it would violate the pod's disruption budget.", &json!({}));
    assert!(matches!(judged(&bare), Answer::Later { budget: None, .. }));
    let forever = judged(&by_budget(told, 86_400));
    assert!(matches!(forever, Answer::Later { wait: LONGEST_WAIT, .. }), "{forever:?}");
}

#[test]
fn a_server_with_too_much_to_do_is_not_a_budget() {
    let text = b"Too many requests, please try again later.".to_vec();
    assert_eq!(judged(&ApiAnswer { status: 429, body: text }), Answer::Busy { wait: Duration::ZERO });
    let asked = status(429, "Too many requests", &json!({"retryAfterSeconds": 3}));
    assert_eq!(judged(&asked), Answer::Busy { wait: Duration::from_secs(3) });
}

#[test]
fn several_budgets_are_reported_in_both_forms_of_the_answer() {
    let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    let plain = status(500, message, &Value::Null);
    // As the API server does it: created, and in the body a failure.
    let real = ApiAnswer { status: 201, ..plain.clone() };
    for answer in [plain, real] {
        let Answer::Later { why, .. } = judged(&answer) else { panic!("not later") };
        assert!(why.starts_with("more than one PodDisruptionBudget"), "{why}");
    }
}

#[test]
fn a_namespace_that_is_deleted_is_waited_for_and_other_refusals_follow_the_table() {
    let cause =
        json!({"causes": [{"reason": "NamespaceTerminating", "message": "namespace shop is being terminated"}]});
    let Answer::Later { why, budget: None, .. } = judged(&status(403, "forbidden", &cause)) else {
        panic!("not later")
    };
    assert_eq!(why, "the namespace shop is being deleted");
    for (code, expected) in [
        (401, Cause::BadCredentials),
        (403, Cause::AccessDenied),
        (422, Cause::ApiRefused),
        (500, Cause::ApiUnavailable),
        (504, Cause::ApiUnavailable),
    ] {
        let Answer::Refused(failure) = judged(&status(code, "no", &json!({}))) else { panic!("{code} not refused") };
        assert_eq!(failure.cause, expected);
        assert!(failure.to_string().contains("/namespaces/shop/pods/web-1"), "{failure}");
    }
    // A failure that hides in an accepted answer.
    let hidden = ApiAnswer { status: 201, ..status(504, "time-out", &json!({})) };
    assert!(matches!(judged(&hidden), Answer::Refused(_)));
}

#[test]
fn a_request_is_about_exactly_one_pod() {
    let pod = pod(30, None);
    let body = eviction(&pod, None);
    assert_eq!(body.pointer("/deleteOptions/preconditions/uid"), Some(&json!("u-1")));
    assert_eq!(body.pointer("/deleteOptions/gracePeriodSeconds"), None, "the pod's own");
    assert_eq!(body.get("apiVersion"), Some(&json!("policy/v1")));
    assert_eq!(eviction(&pod, Some(1)).pointer("/deleteOptions/gracePeriodSeconds"), Some(&json!(1)));
    assert_eq!(deletion(&pod, 7).pointer("/preconditions/uid"), Some(&json!("u-1")));
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

#[test]
fn a_soft_drain_evicts_with_the_pods_own_grace_and_never_deletes() {
    for now in [at(0), at(99), at(100), at(5000)] {
        assert_eq!(ask(&pod(30, None), now, at(100), false), Ask::Evict(None));
        assert_eq!(ask(&pod(0, None), now, at(100), false), Ask::Evict(Some(1)));
        assert_eq!(ask(&pod(30, Some(at(9999))), now, at(100), false), Ask::Nothing);
    }
}

#[test]
fn a_hard_drain_deletes_when_the_grace_would_not_fit_otherwise() {
    let table = [
        (0, pod(30, None), Ask::Evict(None)),
        (84, pod(30, None), Ask::Evict(None)),
        (85, pod(30, None), Ask::Delete(30)),
        (110, pod(30, None), Ask::Delete(10)),
        (119, pod(30, None), Ask::Delete(1)),
        (500, pod(30, None), Ask::Delete(1)),
        (0, pod(600, None), Ask::Delete(120)),
        (0, pod(0, None), Ask::Evict(Some(1))),
        // Ending already: in time, or with more time than there is.
        (60, pod(600, Some(at(120))), Ask::Nothing),
        (60, pod(600, Some(at(600))), Ask::Delete(60)),
        (130, pod(600, Some(at(600))), Ask::Delete(1)),
        (130, pod(600, Some(at(131))), Ask::Nothing),
    ];
    for (now, pod, expected) in table {
        assert_eq!(ask(&pod, at(now), at(120), true), expected, "at {now}: {pod:?}");
    }
}

proptest! {
    #[test]
    fn a_grace_is_never_0_nor_beyond_a_hard_deadline(
        grace in 0u32..4000, ends in proptest::option::of(-100i64..5000), now in 0i64..5000, deadline in 0i64..5000,
        hard: bool,
    ) {
        let left = deadline - now;
        match ask(&pod(grace, ends.map(at)), at(now), at(deadline), hard) {
            Ask::Evict(Some(grace)) => prop_assert_eq!(grace, 1),
            Ask::Evict(None) => prop_assert!(grace > 0 && (!hard || i64::from(grace) < left)),
            Ask::Delete(grace) => {
                prop_assert!(hard && grace >= 1);
                prop_assert!(i64::from(grace) <= left.max(1));
            }
            Ask::Nothing => prop_assert!(ends.is_some()),
        }
    }

    #[test]
    fn a_deletion_is_not_overslept(grace in 0u32..4000, now in 0i64..5000, deadline in 0i64..5000) {
        let pod = pod(grace, None);
        let due = due_in(&pod, at(now), at(deadline));
        let then = now + i64::try_from(due.as_secs()).expect("short");
        prop_assert!(matches!(ask(&pod, at(then), at(deadline), true), Ask::Delete(_)));
    }
}
