use super::*;
use crate::store::fake::{Lab, OneFile, run};
use crate::testing::api::{Fault, Logged, NODE, Server, failure, pod};
use crate::testing::{no_jobs, settings};
use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;
use std::rc::Rc;

const OWNER: &str = "g1";
/// More rounds than any story here needs.
const ROUNDS: usize = 2000;

fn server() -> Rc<Server> {
    Server::new(&Lab::new().time)
}

fn within(server: &Server, seconds: i64, hard: bool) -> DrainPlan<'static> {
    use crate::ports::Time;
    let deadline = server.time.now() + SignedDuration::from_secs(seconds);
    DrainPlan { deadline, hard, owner: OWNER }
}

/// One round in a life of its own; `None` when the agent died.
fn round(server: &Rc<Server>, plan: &DrainPlan<'_>) -> Option<Outcome<DrainState>> {
    server.revive();
    let node = crate::testing::node(settings("role: worker"), server, &no_jobs(), &(Rc::new(OneFile::default()) as _));
    let result = run(tick(&node, &Api::kubelet(&node.world.cluster), NODE, plan));
    // A call that is cut off by the death of the agent.
    result.filter(|result| !matches!(result, Err(failure) if failure.cause == Cause::Internal))
}

/// Rounds until the drain ends, each in a life of its own.
fn drain(server: &Rc<Server>, plan: &DrainPlan<'_>) -> (DrainState, Vec<Blocked>) {
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        match round(server, plan) {
            Some(Ok(DrainState::Waiting { blocked, after, .. })) => {
                assert!(after >= Duration::from_secs(1), "{after:?}");
                seen.extend(blocked);
                server.time.pass(after);
            }
            Some(Ok(state)) => return (state, seen),
            Some(Err(_)) | None => server.time.pass(Duration::from_secs(5)),
        }
    }
    panic!("no end: {:?}", server.names());
}

fn changed(mut pod: Value, pointer: &str, key: &str, value: Value) -> Value {
    pod.pointer_mut(pointer).expect("a place")[key] = value;
    pod
}

fn daemon(name: &str, set: &str) -> Value {
    let owner = json!([{"kind": "DaemonSet", "apiVersion": "apps/v1", "name": set, "controller": true}]);
    changed(pod(name, 5), "/metadata", "ownerReferences", owner)
}

fn mirror(name: &str) -> Value {
    changed(pod(name, 5), "/metadata", "annotations", json!({"kubernetes.io/config.mirror": "h"}))
}

fn critical(pod: Value) -> Value {
    changed(pod, "/spec", "priorityClassName", json!("system-cluster-critical"))
}

fn order(server: &Server) -> Vec<String> {
    let mut order: Vec<String> = server.asked().iter().filter_map(Logged::asked).collect();
    order.dedup();
    order
}

#[test]
fn pods_go_class_by_class_and_what_belongs_to_the_node_stays() {
    let server = server();
    server.state().daemonsets.insert("shop/proxy".into(), 200);
    for name in ["a", "b", "c", "d", "e"] {
        server.add(pod(name, 7));
    }
    server.add(critical(pod("dns", 30)));
    server.add(daemon("proxy-1", "proxy"));
    server.add(critical(daemon("gone-2", "gone")));
    server.add(daemon("gone-1", "gone"));
    server.add(mirror("etcd"));
    server.add(changed(mirror("old"), "/status", "phase", json!("Failed")));
    server.add(changed(pod("elsewhere", 5), "/spec", "nodeName", json!("web-2")));
    let (state, blocked) = drain(&server, &within(&server, 600, false));
    assert_eq!((state, blocked), (DrainState::Drained, Vec::new()));
    assert_eq!(server.names(), ["shop/elsewhere", "shop/etcd", "shop/old", "shop/proxy-1"]);
    let order = order(&server);
    assert_eq!(order[..5].iter().map(String::as_str).collect::<BTreeSet<_>>().len(), 5);
    assert_eq!(order[5..], ["shop/gone-1", "shop/dns", "shop/gone-2"]);
    assert!(server.asked().iter().all(|asked| asked.cordoned && asked.method == "POST" && asked.grace().is_none()));
    assert!(server.is_cordoned());
}

#[test]
fn a_budget_is_named_and_waited_for_and_asked_again_at_a_distance() {
    let server = server();
    server.state().budgets.insert("web".into(), 1);
    for name in ["web-1", "web-2", "web-3"] {
        server.guard(pod(name, 7), &["web"]);
    }
    let plan = within(&server, 600, false);
    let Some(Ok(DrainState::Waiting { blocked, left: 3, .. })) = round(&server, &plan) else { panic!("not waiting") };
    assert_eq!(blocked.len(), 2);
    assert!(blocked.iter().all(|b| b.budget.as_deref() == Some("web") && b.why.contains("needs 1 healthy pods")));
    let (state, _) = drain(&server, &plan);
    assert_eq!(state, DrainState::Drained);
    assert!(server.asked().iter().all(|asked| asked.method == "POST"));
}

#[test]
fn a_soft_drain_gives_up_at_its_deadline_and_touches_nothing_more() {
    let server = server();
    server.guard(pod("web-1", 7), &["web"]);
    let plan = within(&server, 30, false);
    let (state, _) = drain(&server, &plan);
    let DrainState::GaveUp { why } = state else { panic!("{state:?}") };
    assert_eq!(why, "at the deadline 1 pods were left: shop/web-1");
    let asked = server.asked();
    assert!(asked.iter().all(|asked| asked.method == "POST" && asked.at < plan.deadline));
    assert!((4..=15).contains(&asked.len()), "every 5 s with jitter: {}", asked.len());
}

#[test]
fn a_hard_drain_deletes_in_time_what_budgets_hold() {
    let server = server();
    server.guard(pod("web-1", 30), &["web"]);
    server.guard(critical(pod("dns", 30)), &["dns"]);
    server.add(pod("slow", 3600));
    let plan = within(&server, 120, true);
    let (state, blocked) = drain(&server, &plan);
    assert_eq!(state, DrainState::Drained);
    assert!(blocked.iter().any(|b| b.pod == "shop/web-1"));
    let deleted: Vec<(String, Option<i64>, i64)> = server
        .asked()
        .iter()
        .filter(|asked| asked.method == "DELETE")
        .filter_map(|asked| Some((asked.asked()?, asked.grace(), plan.deadline.duration_since(asked.at).as_secs())))
        .collect();
    for (pod, grace, left) in &deleted {
        assert!(grace.is_some_and(|grace| grace >= 1 && grace <= (*left).max(1)), "{pod} {grace:?} of {left}");
    }
    let web = deleted.iter().find(|(pod, ..)| pod == "shop/web-1").expect("deleted");
    assert!(web.1 == Some(30) && web.2 >= 30, "it has its whole grace: {web:?}");
}

#[test]
fn what_a_hard_drain_finds_after_its_deadline_is_deleted_and_given_up() {
    let server = server();
    server.guard(pod("web-1", 30), &["web"]);
    let plan = within(&server, -10, true);
    let Some(Ok(DrainState::GaveUp { why })) = round(&server, &plan) else { panic!("not given up") };
    assert!(why.contains("shop/web-1") && why.ends_with("they were deleted"), "{why}");
    assert_eq!(server.asked().iter().map(Logged::grace).collect::<Vec<_>>(), [Some(1)]);
}

#[test]
fn several_budgets_and_a_namespace_that_is_deleted_are_reported_and_asked_again() {
    let server = server();
    server.guard(pod("web-1", 7), &["a", "b"]);
    server.add(pod("late", 7));
    let causes = json!({"causes": [{"reason": "NamespaceTerminating", "message": "m"}]});
    let (code, mut body) = failure(403, "forbidden");
    body["details"] = causes;
    let plan = within(&server, 60, false);
    // GET and PATCH of the Node, the list; then one of the two pods.
    server.fail(4, Fault::Answer(code, body));
    let Some(Ok(DrainState::Waiting { blocked, .. })) = round(&server, &plan) else { panic!("not waiting") };
    assert!(blocked.iter().any(|b| b.why.contains("more than one PodDisruptionBudget") || b.why.contains("deleted")));
    let (state, blocked) = drain(&server, &plan);
    assert!(matches!(state, DrainState::GaveUp { .. }), "{state:?}");
    assert!(blocked.iter().all(|b| b.pod == "shop/web-1" && b.why.contains("more than one")), "{blocked:?}");
    assert_eq!(server.names(), ["shop/web-1"]);
}

#[test]
fn a_server_with_too_much_to_do_is_asked_no_further_in_that_round() {
    let server = server();
    server.state().page = 50;
    for n in 0..30 {
        server.add(pod(&format!("p{n:02}"), 7));
    }
    let (code, mut body) = failure(429, "Too many requests, please try again later.");
    body["details"] = json!({"retryAfterSeconds": 17});
    server.fail(3, Fault::Answer(code, body));
    let plan = within(&server, 600, false);
    let Some(Ok(DrainState::Waiting { blocked, after, .. })) = round(&server, &plan) else { panic!("not waiting") };
    assert_eq!((server.asked().len(), blocked.len(), after), (1, 30, Duration::from_secs(17)));
    assert_eq!(drain(&server, &plan).0, DrainState::Drained);
}

#[test]
fn an_expired_continuation_begins_the_list_anew_and_a_list_without_end_is_refused() {
    let server = server();
    for n in 0..8 {
        server.add(mirror(&format!("p{n}")));
    }
    server.state().expire = 2;
    let plan = within(&server, 600, false);
    assert_eq!(round(&server, &plan), Some(Ok(DrainState::Drained)));
    let lists = |server: &Server| server.state().log.iter().filter(|l| l.path.starts_with("/api/v1/pods?")).count();
    assert_eq!(lists(&server), 2 + 2 + 3, "two that expired at their second page, and one of three pages");
    server.state().expire = 99;
    let result = round(&server, &plan);
    assert!(matches!(&result, Some(Err(failure)) if failure.detail.starts_with("410")), "{result:?}");
    server.state().expire = 0;
    server.state().page = 0;
    let result = round(&server, &plan);
    assert!(matches!(&result, Some(Err(failure)) if failure.detail.contains("does not end")), "{result:?}");
}

#[test]
fn a_daemonset_that_may_not_be_read_lives_and_one_that_cannot_be_read_is_waited_for() {
    for (status, stays) in [(200, true), (403, true), (404, false)] {
        let server = server();
        server.state().daemonsets.insert("shop/proxy".into(), status);
        server.add(daemon("proxy-1", "proxy"));
        server.add(daemon("proxy-2", "proxy"));
        assert_eq!(drain(&server, &within(&server, 60, false)).0, DrainState::Drained, "{status}");
        assert_eq!(server.names().len() == 2, stays, "{status}");
        let reads = server.state().log.iter().filter(|l| l.path.contains("daemonsets") && l.life == 1).count();
        assert_eq!(reads, 1, "once a round");
    }
    let server = server();
    server.state().daemonsets.insert("shop/proxy".into(), 503);
    server.add(daemon("proxy-1", "proxy"));
    let result = round(&server, &within(&server, 60, false));
    assert!(matches!(&result, Some(Err(failure)) if failure.cause == Cause::ApiUnavailable), "{result:?}");
}

#[test]
fn an_api_server_that_refuses_everything_fails_the_round_and_one_refusal_does_not() {
    let server = server();
    server.add(pod("a", 7));
    server.add(pod("b", 7));
    let plan = within(&server, 60, false);
    server.fail(3, Fault::LostBefore);
    server.fail(4, Fault::LostAfter);
    let result = round(&server, &plan);
    assert!(matches!(&result, Some(Err(failure)) if failure.cause == Cause::ApiUnavailable), "{result:?}");
    let server = self::server();
    server.add(pod("a", 7));
    server.add(pod("b", 7));
    let (code, body) = failure(403, "pods \"a\" is forbidden");
    server.fail(3, Fault::Answer(code, body));
    let Some(Ok(DrainState::Waiting { blocked, .. })) = round(&server, &plan) else { panic!("not waiting") };
    assert!(blocked.len() == 1 && blocked[0].why.contains("access-denied"), "{blocked:?}");
}

#[test]
fn what_is_lost_is_told_once() {
    let server = server();
    server.add(changed(pod("alone", 7), "/metadata", "ownerReferences", json!([])));
    let plan = within(&server, 60, false);
    let Some(Ok(DrainState::Waiting { lost, .. })) = round(&server, &plan) else { panic!("not waiting") };
    assert_eq!(lost, ["shop/alone: no controller brings it back"]);
    let Some(Ok(DrainState::Waiting { lost, .. })) = round(&server, &plan) else { panic!("not waiting") };
    assert_eq!(lost, Vec::<String>::new());
}

#[test]
fn a_kubelet_that_writes_its_node_does_not_stop_the_cordon() {
    let server = server();
    server.state().conflicts = 3;
    assert_eq!(round(&server, &within(&server, 60, false)), Some(Ok(DrainState::Drained)));
    assert!(server.is_cordoned());
    server.state().conflicts = 99;
    let node = crate::testing::node(settings("role: worker"), &server, &no_jobs(), &(Rc::new(OneFile::default()) as _));
    let result = run(uncordon_if_ours(&Api::kubelet(&node.world.cluster), NODE, OWNER)).expect("alive");
    assert!(matches!(&result, Err(failure) if failure.detail.starts_with("409")), "{result:?}");
    server.state().conflicts = 0;
    assert_eq!(run(uncordon_if_ours(&Api::kubelet(&node.world.cluster), NODE, OWNER)), Some(Ok(true)));
    assert!(!server.is_cordoned());
}

/// A pod, as a property draws it: kind, grace, budget, whether it is critical.
type Drawn = (u8, u8, Option<u8>, bool);

fn build(pods: &[Drawn], server: &Server) {
    server.state().budgets = (0..3).map(|budget| (format!("b{budget}"), 1)).collect();
    server.state().daemonsets.insert("shop/proxy".into(), 200);
    for (n, (kind, grace, budget, is_critical)) in pods.iter().enumerate() {
        let name = format!("p{n:02}");
        let plain = match kind % 6 {
            0 => daemon(&name, "proxy"),
            1 => daemon(&name, "gone"),
            2 => mirror(&name),
            3 => changed(pod(&name, i64::from(*grace)), "/status", "phase", json!("Succeeded")),
            _ => pod(&name, i64::from(*grace)),
        };
        let plain = if *is_critical { critical(plain) } else { plain };
        match budget {
            Some(budget) => server.guard(plain, &[&format!("b{}", budget % 3)]),
            None => server.add(plain),
        }
    }
}

fn fault(kind: u8) -> Fault {
    match kind % 6 {
        0 => Fault::LostBefore,
        1 => Fault::LostAfter,
        2 => Fault::DieBefore,
        3 => Fault::DieAfter,
        4 => Fault::Answer(503, failure(503, "unavailable").1),
        _ => Fault::Answer(429, failure(429, "Too many requests").1),
    }
}

/// The class of a pod as it was drawn.
fn class_of(pods: &[Drawn], name: &str) -> (bool, bool) {
    let (kind, _, _, is_critical) = pods[name[6..].parse::<usize>().expect("a number")];
    (is_critical, kind % 6 < 2)
}

fn holds(server: &Server, pods: &[Drawn], hard: bool) {
    let log = server.asked();
    for (n, asked) in log.iter().enumerate() {
        let name = asked.asked().expect("a pod");
        assert!(asked.cordoned, "{name} before the cordon");
        assert!(asked.grace().is_none_or(|grace| grace >= 1), "{asked:?}");
        let own = pods[name[6..].parse::<usize>().expect("a number")];
        assert!(own.1 > 0 || own.0 % 6 < 3 || asked.grace().is_some(), "the pod's own 0: {asked:?}");
        assert!(!matches!(own.0 % 6, 0 | 2), "{name} is not to be touched");
        // Refused, and asked again at once.
        if let Some(next) = log[n + 1..].iter().find(|next| next.path == asked.path && next.life == asked.life) {
            panic!("twice in one round: {next:?}");
        }
        if hard {
            continue;
        }
        assert_eq!(asked.method, "POST");
        // Those of earlier classes that go at all.
        let earlier = asked.there.iter().find(|other| {
            let (kind, ..) = pods[other[6..].parse::<usize>().expect("a number")];
            !matches!(kind % 6, 0 | 2) && class_of(pods, other) < class_of(pods, &name)
        });
        assert_eq!(earlier, None, "{name} before its turn");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Each round is a life of its own, and any call may go wrong or kill the agent.
    #[test]
    fn a_drain_converges_whatever_happens(
        pods in proptest::collection::vec((any::<u8>(), 0u8..60, proptest::option::of(any::<u8>()), any::<bool>()), 0..14),
        faults in proptest::collection::vec((0usize..60, any::<u8>()), 0..8),
        persons: bool,
        hard: bool,
    ) {
        let server = server();
        build(&pods, &server);
        server.state().node["spec"]["unschedulable"] = json!(persons);
        for (nth, kind) in &faults {
            server.fail(*nth, fault(*kind));
        }
        let (state, _) = drain(&server, &within(&server, if hard { 120 } else { 3600 }, hard));
        prop_assert_eq!(state, DrainState::Drained);
        holds(&server, &pods, hard);
        let left: Vec<bool> = pods.iter().map(|(kind, ..)| matches!(kind % 6, 0 | 2)).filter(|stays| *stays).collect();
        prop_assert_eq!(server.names().len(), left.len());
        let node = crate::testing::node(
            settings("role: worker"), &server, &no_jobs(), &(Rc::new(OneFile::default()) as _));
        server.state().faults.clear();
        server.revive();
        prop_assert!(run(uncordon_if_ours(&Api::kubelet(&node.world.cluster), NODE, OWNER)).expect("alive").is_ok());
        prop_assert_eq!(server.is_cordoned(), persons, "a person's cordon stays, ours goes");
    }

    /// Asked again only after an answer, and at a distance.
    #[test]
    fn a_refused_pod_is_left_alone_for_a_while(count in 1usize..6, seconds in 20i64..200) {
        let server = server();
        for n in 0..count {
            server.guard(pod(&format!("p{n:02}"), 5), &["never"]);
        }
        drain(&server, &within(&server, seconds, false));
        let log = server.asked();
        for (n, asked) in log.iter().enumerate() {
            prop_assert_eq!(asked.answered, Some(429));
            if let Some(next) = log[n + 1..].iter().find(|next| next.path == asked.path) {
                let near_the_end = SignedDuration::from_secs(1);
                prop_assert!(next.at.duration_since(asked.at) >= near_the_end);
            }
        }
        let most = usize::try_from(seconds).expect("positive") * 2 / 5 + 3;
        prop_assert!(log.len() <= count * most, "{} requests in {seconds} s", log.len());
    }
}
