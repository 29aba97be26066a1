//! The table of decisions, rule by rule.

use crate::config::settings::{RolloutSettings, Window};
use crate::rollout::Rules;
use crate::rollout::copies::{Act, acts};
use crate::rollout::decide::{Plan, decide, should_hand_over};
use crate::rollout::ledger::{Ledger, Phase};
use crate::rollout::view::{InstanceFacts, Launches, NodeFacts, View};
use crate::rollout::wire::{Action, COMPARISON, Request, Verdict};
use jiff::Timestamp;
use jiff::civil::time;
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

const MINUTE: Duration = Duration::from_secs(60);

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().expect("time")
}

fn node(name: &str) -> NodeFacts {
    let mut facts = NodeFacts::read(&json!({
        "metadata": {"name": name, "uid": format!("{name:0>8}-uid"), "creationTimestamp": "2026-11-01T00:00:00Z"},
        "spec": {"providerID": format!("aws:///z/i-{name}")},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "t"}]}}))
    .expect("a node");
    facts.ready_for = MINUTE * 600;
    facts.request = Some(Request {
        schema: 1,
        comparison: COMPARISON,
        verdict: Verdict::Drifted,
        reason: "old".into(),
        running: Some("ami-1".into()),
        desired: Some("ami-2".into()),
        group: Some("web".into()),
        action: Action::Replace,
        instance: Some(format!("i-{name}")),
        since: now(),
    });
    facts
}

fn with(name: &str, change: impl FnOnce(&mut NodeFacts)) -> NodeFacts {
    let mut facts = node(name);
    change(&mut facts);
    facts
}

fn asking(name: &str, change: impl FnOnce(&mut Request)) -> NodeFacts {
    with(name, |facts| change(facts.request.as_mut().expect("a request")))
}

fn view(nodes: Vec<NodeFacts>) -> View {
    let mut view = View { me: "m0".into(), api_clock: Some(now()), voters: 3, ..View::default() };
    for node in &nodes {
        if let Some(id) = &node.instance {
            let image = node.request.as_ref().and_then(|request| request.running.clone());
            view.instances.insert(id.clone(), InstanceFacts { state: "running".into(), image });
            view.launches.insert(id.clone(), Launches::Image("ami-2".into()));
        }
    }
    view.nodes = nodes;
    view
}

fn plan(view: &View, ledger: &Ledger, rules: &RolloutSettings) -> Plan {
    let id = Uuid::from_u128(ledger.grants.len() as u128 + 1);
    decide(view, ledger, &Rules { rollout: rules, drain_within: MINUTE * 15 }, now(), id)
}

/// Rounds until nothing changes; the granted nodes.
fn granted(view: &View, rules: &RolloutSettings) -> Vec<String> {
    let mut ledger = Ledger::default();
    for _ in 0..20 {
        ledger = plan(view, &ledger, rules).ledger;
    }
    ledger.grants.iter().map(|entry| entry.node.clone()).collect()
}

fn proven() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.rollout_mut("web", "ami-2").proven = true;
    ledger
}

fn at_once(count: u32) -> RolloutSettings {
    RolloutSettings { at_once: count, ..RolloutSettings::default() }
}

/// The reason why the only node, changed so, is not granted.
fn held(facts: NodeFacts, change: impl FnOnce(&mut View)) -> String {
    let mut view = view(vec![facts]);
    change(&mut view);
    let plan = plan(&view, &Ledger::default(), &at_once(1));
    assert!(plan.ledger.grants.is_empty(), "{:?}", plan.ledger);
    plan.holds.first().cloned().unwrap_or_default()
}

#[test]
fn what_stands_against_a_grant() {
    assert_eq!(granted(&view(vec![node("a")]), &at_once(1)), ["a"]);
    let nothing = |_: &mut View| {};
    // No drift by the arbiter's rules: not even a reason.
    for calm in [
        asking("a", |r| r.comparison = COMPARISON + 1),
        asking("a", |r| r.comparison = 0),
        asking("a", |r| r.verdict = Verdict::Unknown),
        asking("a", |r| r.verdict = Verdict::Current),
        asking("a", |r| r.action = Action::Mark),
        asking("a", |r| r.action = Action::Report),
        with("a", |f| f.request = None),
    ] {
        assert_eq!(held(calm, nothing), "");
    }
    for (facts, why) in [
        (asking("a", |r| r.group = None), "names no group"),
        (asking("a", |r| r.instance = Some("i-other".into())), "not that of the instance"),
        (asking("a", |r| r.instance = None), "not that of the instance"),
        (with("a", |f| f.instance = None), "not that of the instance"),
        (with("a", |f| f.ready = false), "at most 1 may be away, and these are: a (not Ready)"),
        (with("a", |f| f.unschedulable = true), "a (cordoned)"),
        (with("a", |f| f.created_at = "2026-11-21T11:01:00Z".parse().ok()), "younger than 60 min"),
        (with("a", |f| f.created_at = None), "younger than 60 min"),
        (with("m0", |_| {}), "arbiter's own node"),
    ] {
        let told = held(facts, nothing);
        assert!(told.contains(why), "{told}: {why}");
    }
    let with_launches = |launches: Launches| {
        held(node("a"), |view| {
            view.launches.insert("i-a".into(), launches);
        })
    };
    assert!(with_launches(Launches::Image("ami-1".into())).contains("start the old image ami-1 again"));
    assert!(with_launches(Launches::Image("ami-9".into())).contains("would start ami-9, and not ami-2"));
    assert!(with_launches(Launches::Nothing("in no group".into())).contains("in no group"));
    assert!(held(node("a"), |view| view.paused = Some("freeze".into())).contains("freeze"));
    assert!(held(node("a"), |view| view.api_clock = "2026-11-21T12:11:00Z".parse().ok()).contains("clock"));
    assert!(held(node("a"), |view| view.api_clock = None).contains("clock"));
}

#[test]
fn what_is_not_known_is_asked_and_nothing_is_granted_before() {
    let mut view = view(vec![node("a")]);
    view.launches.clear();
    let asked = plan(&view, &Ledger::default(), &at_once(1));
    assert_eq!((asked.questions, asked.ledger.grants.len()), (vec!["i-a".to_owned()], 0));
    // A drain alone starts nothing.
    view.nodes[0] = asking("a", |r| r.action = Action::Drain);
    assert_eq!(granted(&view, &at_once(1)), ["a"]);
}

#[test]
fn windows_hold_and_tell_when_the_next_one_opens() {
    let rules = |from| RolloutSettings {
        windows: vec![Window { days: Vec::new(), from: time(from, 0, 0, 0), to: time(from + 1, 0, 0, 0) }],
        ..RolloutSettings::default()
    };
    let view = view(vec![node("a")]);
    assert_eq!(granted(&view, &rules(12)), ["a"]);
    let closed = plan(&view, &Ledger::default(), &rules(11));
    assert!(closed.ledger.grants.is_empty());
    assert_eq!(closed.holds, ["outside of the windows; the next one opens at 2026-11-22T11:00:00Z"]);
}

#[test]
fn whatever_is_away_counts_once() {
    let nodes = || vec![node("a"), node("b"), node("c"), node("d")];
    let mut rich = view(nodes());
    let ledger = proven();
    let count = |view: &View, ledger: &Ledger| {
        let mut ledger = ledger.clone();
        for _ in 0..9 {
            ledger = plan(view, &ledger, &at_once(2)).ledger;
        }
        ledger.grants.len()
    };
    assert_eq!(count(&rich, &ledger), 2);
    assert_eq!(granted(&rich, &at_once(2)).len(), 1, "the canary alone");
    rich.nodes[3].ready = false;
    assert_eq!(count(&rich, &ledger), 1);
    rich.instances.get_mut("i-d").expect("d").state = "terminated".into();
    assert_eq!(count(&rich, &ledger), 2, "nothing runs there any more");
    rich.nodes[3].ready = true;
    rich.instances.get_mut("i-d").expect("d").state = "running".into();
    rich.nodes[3].unschedulable = true;
    rich.nodes[2].ready = false;
    assert_eq!(count(&rich, &ledger), 0);
    // A granted node that is cordoned and not Ready is still one.
    let one = plan(&view(nodes()), &ledger, &at_once(2)).ledger;
    let mut busy = view(nodes());
    let at = busy.nodes.iter().position(|node| node.name == one.grants[0].node).expect("it");
    (busy.nodes[at].ready, busy.nodes[at].unschedulable) = (false, true);
    assert_eq!(plan(&busy, &one, &at_once(2)).ledger.grants.len(), 2);
}

fn masters(count: usize) -> Vec<NodeFacts> {
    (0..count).map(|n| with(&format!("m{n}"), |facts| facts.master = true)).collect()
}

#[test]
fn masters_go_last_one_at_a_time_and_only_with_three_voters() {
    assert_eq!(granted(&view(masters(3)), &at_once(5)), ["m1"], "one, and not the arbiter's own");
    let mut mixed = view([masters(3), vec![node("z")]].concat());
    assert_eq!(granted(&mixed, &at_once(1)), ["z"]);
    mixed.nodes.pop();
    for voters in 0..3 {
        let few = View { voters, ..mixed.clone() };
        let plan = plan(&few, &Ledger::default(), &at_once(5));
        assert!(
            plan.ledger.grants.is_empty() && plan.holds.iter().any(|hold| hold.contains("etcd voters")),
            "{plan:?}"
        );
    }
    let mut one_away = mixed.clone();
    one_away.nodes[2].ready = false;
    assert!(granted(&one_away, &at_once(5)).is_empty());
    assert!(granted(&View { voters: 1, ..view(masters(1)) }, &at_once(5)).is_empty(), "a single master never");
}

#[test]
fn the_arbiter_hands_over_when_only_its_own_node_is_left() {
    let ledger = Ledger::default();
    let current = |name: &str| {
        with(name, |facts| {
            facts.master = true;
            facts.request.as_mut().expect("r").verdict = Verdict::Current;
        })
    };
    let own = with("m0", |facts| facts.master = true);
    let left = view(vec![own.clone(), current("m1"), current("m2")]);
    assert!(should_hand_over(&left, &ledger));
    assert!(!should_hand_over(&View { voters: 2, ..left.clone() }, &ledger));
    assert!(!should_hand_over(&view(vec![own.clone()]), &ledger), "nobody is there to take it");
    assert!(!should_hand_over(&view(vec![own, node("a"), current("m1")]), &ledger), "there is other work");
    assert!(!should_hand_over(&view(vec![current("m0"), current("m1")]), &ledger));
    let busy = plan(&view(vec![node("a")]), &ledger, &at_once(1)).ledger;
    assert!(!should_hand_over(&left, &busy));
}

/// A grant whose node is drained and whose instance was ended.
fn replacing() -> (View, Ledger) {
    let before = view(vec![node("a"), node("b")]);
    let mut ledger = plan(&before, &Ledger::default(), &at_once(1)).ledger;
    assert_eq!(ledger.grants[0].node, "a");
    ledger.grants[0].phase = Phase::Replacing;
    let mut view = before;
    view.instances.get_mut("i-a").expect("a").state = "terminated".into();
    view.nodes.remove(0);
    (view, ledger)
}

fn successor(name: &str) -> NodeFacts {
    let mut facts = asking(name, |request| {
        request.verdict = Verdict::Current;
        request.running = Some("ami-2".into());
    });
    facts.ready_for = MINUTE * 5;
    facts
}

#[test]
fn only_a_ready_replacement_of_the_group_on_the_desired_image_ends_a_grant() {
    let ends = |change: &dyn Fn(&mut View, &mut NodeFacts)| {
        let (mut view, ledger) = replacing();
        let mut new = successor("c");
        view.instances.insert("i-c".into(), InstanceFacts { state: "running".into(), image: Some("ami-2".into()) });
        change(&mut view, &mut new);
        view.nodes.push(new);
        plan(&view, &ledger, &at_once(1)).ledger.grants.first().is_none_or(|entry| entry.phase == Phase::Ending)
    };
    assert!(ends(&|_, _| {}));
    assert!(!ends(&|_, new| new.ready = false));
    assert!(!ends(&|_, new| new.ready_for = MINUTE * 5 - Duration::from_secs(1)));
    assert!(!ends(&|_, new| new.unschedulable = true));
    assert!(!ends(&|_, new| new.request = None));
    assert!(!ends(&|_, new| new.request.as_mut().expect("r").group = Some("db".into())));
    assert!(!ends(&|_, new| new.request.as_mut().expect("r").verdict = Verdict::Unknown));
    assert!(!ends(&|_, new| new.uid = node("b").uid), "it was there before");
    assert!(
        !ends(&|view, _| view.instances.get_mut("i-c").expect("c").image = Some("ami-1".into())),
        "EC2 knows better"
    );
    assert!(!ends(&|view, _| view.instances.clear()), "EC2 does not say");
    assert!(!ends(&|view, _| view.instances.get_mut("i-a").expect("a").state = "running".into()), "it is growth");
}

#[test]
fn one_replacement_stands_for_one_node() {
    let (mut view, mut ledger) = replacing();
    let mut second = ledger.grants[0].clone();
    (second.id, second.node, second.node_uid) = (Uuid::from_u128(77), "x".into(), "xxxxxxxx-uid".into());
    second.instance = Some("i-x".into());
    ledger.grants.push(second);
    let gone = InstanceFacts { state: "terminated".into(), image: None };
    view.instances.insert("i-x".into(), gone);
    view.instances.insert("i-c".into(), InstanceFacts { state: "running".into(), image: Some("ami-2".into()) });
    view.nodes.push(successor("c"));
    for _ in 0..3 {
        ledger = plan(&view, &ledger, &at_once(2)).ledger;
    }
    let open: Vec<&str> = ledger.grants.iter().map(|entry| entry.node.as_str()).collect();
    assert!(open.contains(&"x") && !open.contains(&"a"), "{open:?}");
    assert_eq!(ledger.rollouts[0].replaced, 1);
}

#[test]
fn no_replacement_in_time_pauses_and_nothing_else_of_the_group_goes() {
    let (mut view, ledger) = replacing();
    view.waited.insert((ledger.grants[0].id, Phase::Replacing), MINUTE * 30 - Duration::from_secs(1));
    assert!(plan(&view, &ledger, &at_once(3)).ledger.rollouts[0].paused.is_none());
    view.waited.insert((ledger.grants[0].id, Phase::Replacing), MINUTE * 30);
    let late = plan(&view, &ledger, &at_once(3)).ledger;
    assert!(late.rollouts[0].paused.is_some());
    assert_eq!(late.grants.len(), 1, "it still counts");
    let later = plan(&view, &late, &at_once(3));
    assert!(later.holds.iter().any(|hold| hold.contains("b: its group is paused")), "{later:?}");
    // Another group is not concerned.
    view.nodes.push(asking("z", |request| request.group = Some("db".into())));
    view.launches.insert("i-z".into(), Launches::Image("ami-2".into()));
    assert!(plan(&view, &late, &at_once(3)).ledger.grants.iter().any(|entry| entry.node == "z"));
}

#[test]
fn an_instance_is_ended_only_for_its_own_drained_node() {
    let mut view = view(vec![node("a"), node("b")]);
    let mut ledger = plan(&view, &Ledger::default(), &at_once(1)).ledger;
    let ended =
        |view: &View, ledger: &Ledger| acts(view, ledger).iter().any(|act| matches!(act, Act::Terminate { .. }));
    let progress = |id: Uuid, state: &str| {
        let text = json!({"schema": 1, "id": id, "state": state, "why": "", "at": "2026-11-21T12:00:00Z"}).to_string();
        crate::rollout::wire::Annotation::parse("a", &text).ok()
    };
    let id = ledger.grants[0].id;
    view.nodes[0].progress = progress(id, "drained");
    assert!(!ended(&view, &ledger), "the ledger does not say so yet");
    ledger = plan(&view, &ledger, &at_once(1)).ledger;
    assert_eq!(ledger.grants[0].phase, Phase::Replacing);
    assert!(ended(&view, &ledger));
    for spoil in [
        &(|v: &mut View| v.nodes[0].progress = progress(id, "draining")) as &dyn Fn(&mut View),
        &|v| v.nodes[0].progress = progress(Uuid::from_u128(99), "drained"),
        &|v| v.nodes[0].instance = Some("i-b".into()),
        &|v| v.nodes[0].uid = "other".into(),
        &|v| v.launches.clear(),
        &|v| drop(v.launches.insert("i-a".into(), Launches::Image("ami-1".into()))),
        &|v| v.instances.clear(),
        &|v| v.instances.get_mut("i-a").expect("a").state = "shutting-down".into(),
        &|v| v.paused = Some("freeze".into()),
    ] {
        let mut spoilt = view.clone();
        spoil(&mut spoilt);
        assert!(!ended(&spoilt, &ledger));
    }
    ledger.grants[0].step = crate::rollout::wire::Step::Drain;
    assert!(!ended(&view, &ledger));
}
