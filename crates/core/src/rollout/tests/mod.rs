//! The arbiter as a whole, against a small Kubernetes and EC2: stories, deaths at every call, stale and rival arbiters.

mod decisions;
mod histories;
mod world;

use super::ledger::Phase;
use super::operator;
use super::wire::{self, Action};
use crate::model::cause::Cause;
use crate::store::fake::{interleave, run};
use serde_json::{Value, json};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use world::{Arbiter, Fault, LEDGER, World, minutes, pace};

const ROUND: std::time::Duration = std::time::Duration::from_secs(60);

fn others(world: &World) {
    world.live();
    world.pass(ROUND);
}

fn round(world: &World, arbiter: &Arbiter) {
    run(arbiter.tick()).expect("it lives").expect("a round");
    others(world);
}

/// Rounds until all nodes run the image; how many.
fn finish(world: &Rc<World>, arbiter: &Arbiter, image: &str, what: &str) -> usize {
    for n in 0..600 {
        if world.is_done(image) {
            world.assert_right(what);
            return n;
        }
        // What failed before may fail a few times yet.
        run(arbiter.tick()).expect("it lives").ok();
        others(world);
    }
    panic!("{what}: {:#?} {:#?}", world.ledger(), world.nodes());
}

#[test]
fn a_group_is_rolled_one_by_one_and_then_nothing_is_written() {
    let world = World::new(1);
    world.group("web", 4, "ami-1");
    let arbiter = Arbiter::new(&world, "m1", pace(1), 0);
    world.live();
    for _ in 0..5 {
        round(&world, &arbiter);
    }
    assert_eq!(world.state.borrow().writes, 0, "nobody asks for anything");
    world.roll("web", "ami-2");
    finish(&world, &arbiter, "ami-2", "roll");
    assert_eq!(world.state.borrow().terminated.len(), 4);
    let ledger = world.ledger();
    assert_eq!(ledger.rollouts.len(), 1);
    assert_eq!((ledger.rollouts[0].replaced, ledger.rollouts[0].proven), (4, true));
    let writes = world.state.borrow().writes;
    for _ in 0..20 {
        round(&world, &arbiter);
    }
    assert_eq!(world.state.borrow().writes, writes, "it is over");
    world.roll("web", "ami-3");
    finish(&world, &arbiter, "ami-3", "the next one");
    assert_eq!(world.ledger().rollouts.len(), 1, "the old one is forgotten");
}

#[test]
fn marked_nodes_are_tainted_and_nothing_else_is_done_to_them() {
    let world = World::new(1);
    world.state.borrow_mut().action = Some(Action::Mark);
    world.group("web", 3, "ami-1");
    let arbiter = Arbiter::new(&world, "m1", pace(1), 0);
    world.roll("web", "ami-2");
    for _ in 0..30 {
        round(&world, &arbiter);
    }
    let tainted = || world.nodes().iter().filter(|node| node.is_tainted()).count();
    assert_eq!((tainted(), world.ledger().grants.len()), (3, 0));
    // While it is not known what a node should run nothing changes.
    let names: Vec<String> = world.nodes().iter().map(|node| node.name.clone()).collect();
    world.state.borrow_mut().silent.extend(names);
    let name = world.nodes().iter().find(|node| node.is_tainted()).expect("one").name.clone();
    let mut request = world.node(&name).request.expect("a request");
    request.verdict = wire::Verdict::Unknown;
    world.annotate(&name, wire::REQUEST, Some(wire::Annotation::write(&request).expect("text")));
    round(&world, &arbiter);
    assert_eq!(tainted(), 3);
    world.state.borrow_mut().silent.clear();
    world.edit(
        &format!("/api/v1/nodes/{name}"),
        &json!({"spec": {"taints": [{"key": "other", "effect": "NoSchedule"},
        {"key": wire::DRIFTED_TAINT, "effect": wire::TAINT_EFFECT}]}}),
    );
    world.roll("web", "ami-1");
    for _ in 0..5 {
        round(&world, &arbiter);
    }
    assert_eq!(tainted(), 0);
    assert_eq!(world.node(&name).taints, [json!({"key": "other", "effect": "NoSchedule"})], "others' taints stay");
}

#[test]
fn a_broken_image_costs_one_node_and_the_next_image_mends_it() {
    let world = World::new(2);
    world.group("web", 5, "ami-1");
    let arbiter = Arbiter::new(&world, "m1", pace(2), 0);
    world.state.borrow_mut().broken.insert("ami-2".into());
    world.roll("web", "ami-2");
    for _ in 0..100 {
        round(&world, &arbiter);
    }
    assert_eq!(world.state.borrow().terminated.len(), 1, "the canary alone");
    let ledger = world.ledger();
    let pause = ledger.rollouts[0].paused.as_ref().expect("a pause");
    assert!(pause.why.contains("had no replacement that was Ready within 15 min"), "{pause:?}");
    assert_eq!(ledger.grants[0].phase, Phase::Replacing, "it is still away, and counts");
    world.roll("web", "ami-3");
    finish(&world, &arbiter, "ami-3", "the image that works");
}

#[test]
fn an_operator_resumes_with_a_new_canary() {
    let world = World::new(1);
    world.group("web", 3, "ami-1");
    let arbiter = Arbiter::new(&world, "m1", pace(1), 0);
    world.state.borrow_mut().broken.insert("ami-2".into());
    world.roll("web", "ami-2");
    for _ in 0..60 {
        round(&world, &arbiter);
    }
    assert!(world.ledger().rollouts[0].paused.is_some());
    world.state.borrow_mut().broken.clear();
    let mut ledger = world.ledger();
    assert_eq!(ledger.resume(Some("web")).len(), 1);
    world.edit(LEDGER, &json!({"data": {"ledger.json": ledger.write().expect("text")}}));
    finish(&world, &arbiter, "ami-2", "resumed");
}

#[test]
fn a_group_that_would_start_the_old_image_again_is_left_alone() {
    let world = World::new(1);
    world.group("web", 2, "ami-1");
    let arbiter = Arbiter::new(&world, "m1", pace(1), 0);
    world.state.borrow_mut().desired.insert("web".into(), "ami-2".into());
    for _ in 0..20 {
        round(&world, &arbiter);
    }
    assert!(world.ledger().grants.is_empty());
    let refused = world.ledger().rollouts[0].refused.clone().expect("a reason");
    assert!(refused.contains("start the old image ami-1 again"), "{refused}");
    assert_eq!(arbiter.node.status().rollout.map(|rollout| rollout.refused), Some(1));
    world.state.borrow_mut().templates.insert("web".into(), "ami-2".into());
    finish(&world, &arbiter, "ami-2", "mended");
    // It changes its mind between the grant and the end.
    world.roll("web", "ami-3");
    while world.ledger().grants.is_empty() {
        round(&world, &arbiter);
    }
    world.state.borrow_mut().templates.insert("web".into(), "ami-2".into());
    let ended = world.state.borrow().terminated.len();
    for _ in 0..20 {
        round(&world, &arbiter);
    }
    assert_eq!(world.state.borrow().terminated.len(), ended);
    let pause = world.ledger().rollouts.iter().find_map(|rollout| rollout.paused.clone()).expect("a pause");
    assert!(pause.why.contains("the group would start ami-2, and not ami-3"), "{pause:?}");
    world.assert_right("left alone");
}

#[test]
fn a_group_that_did_start_the_old_image_again_pauses_at_once() {
    let world = World::new(1);
    world.group("web", 3, "ami-1");
    let arbiter = Arbiter::new(&world, "m1", pace(1), 0);
    world.roll("web", "ami-2");
    for _ in 0..100 {
        round(&world, &arbiter);
        if !world.state.borrow().terminated.is_empty() {
            world.state.borrow_mut().templates.insert("web".into(), "ami-1".into());
        }
    }
    assert_eq!(world.state.borrow().terminated.len(), 1);
    let pause = world.ledger().rollouts[0].paused.clone().expect("a pause");
    assert!(pause.why.contains("the group started the old image again"), "{pause:?}");
}

#[test]
fn a_drain_that_gives_up_frees_the_budget_and_another_node_goes() {
    let world = World::new(1);
    world.group("web", 2, "ami-1");
    let arbiter = Arbiter::new(&world, "m1", pace(1), 0);
    let first = world.nodes().iter().find(|node| !node.master).expect("one").name.clone();
    world.state.borrow_mut().stubborn.insert(first.clone());
    world.roll("web", "ami-2");
    for _ in 0..40 {
        round(&world, &arbiter);
    }
    let ledger = world.ledger();
    assert_eq!(world.state.borrow().terminated.len(), 1);
    assert!(ledger.rollouts[0].failures.iter().any(|failure| failure.node == first && failure.count >= 1));
    assert!(!world.node(&first).unschedulable);
    world.state.borrow_mut().stubborn.clear();
    finish(&world, &arbiter, "ami-2", "tried again");
}

#[test]
fn a_ghost_is_freed_when_its_instance_is_gone_and_not_before() {
    let world = World::new(1);
    world.group("web", 2, "ami-1");
    let arbiter = Arbiter::new(&world, "m1", pace(1), 0);
    world.roll("web", "ami-2");
    while world.ledger().grants.is_empty() {
        round(&world, &arbiter);
    }
    let ghost = world.ledger().grants[0].clone();
    let id = ghost.instance.clone().expect("an instance");
    // It stops answering, and somebody deletes its Node; the instance still runs.
    world.state.borrow_mut().silent.insert(ghost.node.clone());
    world.state.borrow_mut().objects.remove(&format!("/api/v1/nodes/{}", ghost.node));
    for _ in 0..60 {
        round(&world, &arbiter);
    }
    assert_eq!(world.ledger().grants, std::slice::from_ref(&ghost), "a living instance keeps its grant");
    for state in ["stopping", "stopped"] {
        world.set_instance(&id, state);
        round(&world, &arbiter);
        assert_eq!(world.ledger().grants.len(), 1, "{state}");
    }
    world.set_instance(&id, "terminated");
    world.state.borrow_mut().ec2_is_away = true;
    round(&world, &arbiter);
    assert_eq!(world.ledger().grants.len(), 1, "an answer without the asker proves nothing");
    world.state.borrow_mut().ec2_is_away = false;
    round(&world, &arbiter);
    round(&world, &arbiter);
    assert!(!world.ledger().grants.contains(&ghost), "it is gone");
    finish(&world, &arbiter, "ami-2", "the other one");
}

#[test]
fn outside_of_ec2_only_an_operator_frees_a_ghost() {
    let world = World::new(1);
    let arbiter = Arbiter::new(&world, "m1", pace(1), 0);
    for name in ["iron-1", "iron-2"] {
        world.join(name, None, false);
    }
    world.pass(minutes(200));
    world.live();
    for name in ["iron-1", "iron-2"] {
        world.request(name, "iron", "a", "b", Action::Replace);
    }
    while world.ledger().grants.is_empty() {
        round(&world, &arbiter);
    }
    let ghost = world.ledger().grants[0].node.clone();
    world.state.borrow_mut().objects.remove(&format!("/api/v1/nodes/{ghost}"));
    for _ in 0..100 {
        round(&world, &arbiter);
    }
    assert_eq!(world.ledger().grants.len(), 1);
    let mut ledger = world.ledger();
    assert!(ledger.release(&ghost));
    world.edit(LEDGER, &json!({"data": {"ledger.json": ledger.write().expect("text")}}));
    for _ in 0..4 {
        round(&world, &arbiter);
    }
    assert!(world.ledger().grants.iter().all(|entry| entry.node != ghost), "{:?}", world.ledger());
    world.assert_right("bare metal");
}

#[test]
fn outside_of_ec2_the_same_machine_comes_back_current() {
    let world = World::new(1);
    let arbiter = Arbiter::new(&world, "m1", pace(1), 0);
    world.join("iron-1", None, false);
    world.pass(minutes(200));
    world.live();
    world.request("iron-1", "iron", "a", "b", Action::Replace);
    while world.ledger().grants.first().is_none_or(|entry| entry.phase != Phase::Replacing) {
        round(&world, &arbiter);
    }
    world.state.borrow_mut().down.insert("iron-1".into());
    others(&world);
    world.request("iron-1", "iron", "b", "b", Action::Replace);
    round(&world, &arbiter);
    assert_eq!(world.ledger().grants.len(), 1, "it is not Ready");
    world.state.borrow_mut().down.clear();
    for _ in 0..8 {
        round(&world, &arbiter);
    }
    assert!(world.ledger().grants.is_empty() && world.ledger().rollouts[0].proven, "{:?}", world.ledger());
    assert!(!world.node("iron-1").unschedulable);
}

#[test]
fn a_ledger_that_a_person_broke_stops_everything_and_is_not_written_over() {
    let world = World::new(1);
    world.group("web", 2, "ami-1");
    let arbiter = Arbiter::new(&world, "m1", pace(1), 0);
    world.roll("web", "ami-2");
    round(&world, &arbiter);
    round(&world, &arbiter);
    let good = world.ledger().write().expect("text");
    let broken = good.replacen("\"granted\"", "\"grunted\"", 1);
    assert_ne!(good, broken);
    world.edit(LEDGER, &json!({"data": {"ledger.json": broken}}));
    let writes = world.state.borrow().writes;
    let failure = run(arbiter.tick()).expect("it lives").expect_err("broken");
    assert_eq!(failure.cause, Cause::ObjectRejected);
    assert!(failure.detail.contains("line ") && failure.fix().contains("kubectl"), "{failure}");
    assert_eq!(world.state.borrow().writes, writes);
    world.edit(LEDGER, &json!({"data": {"ledger.json": good}}));
    finish(&world, &arbiter, "ami-2", "mended");
}

#[test]
fn a_paused_cluster_begins_nothing() {
    let world = World::new(1);
    world.group("web", 2, "ami-1");
    let arbiter = Arbiter::new(&world, "m1", pace(1), 0);
    world.edit(
        LEDGER,
        &json!({"metadata": {"name": "kubestrap-rollout", "uid": "c"}, "data": {"pause": "freeze", "x": "y"}}),
    );
    world.roll("web", "ami-2");
    for _ in 0..30 {
        round(&world, &arbiter);
    }
    assert!(world.ledger().grants.is_empty());
    let held = arbiter.node.status().rollout.and_then(|rollout| rollout.held_because).expect("a reason");
    assert!(held.contains("freeze"), "{held}");
    world.edit(LEDGER, &json!({"data": {"pause": Value::Null}}));
    while world.ledger().grants.is_empty() {
        round(&world, &arbiter);
    }
    // Paused again while it drains: the drain ends, and nothing is ended.
    world.edit(LEDGER, &json!({"data": {"pause": "freeze"}}));
    for _ in 0..20 {
        round(&world, &arbiter);
    }
    assert_eq!(world.state.borrow().terminated.len(), 0);
    world.edit(LEDGER, &json!({"data": {"pause": Value::Null}}));
    finish(&world, &arbiter, "ami-2", "resumed");
    let kept = world.state.borrow().objects[LEDGER].pointer("/data/x").cloned();
    assert_eq!(kept, Some(json!("y")), "what others wrote there stays");
}

fn two_nodes() -> (Rc<World>, Arbiter) {
    let world = World::new(1);
    world.group("web", 2, "ami-1");
    let arbiter = Arbiter::new(&world, "m1", pace(1), 0);
    world.roll("web", "ami-2");
    (world, arbiter)
}

#[test]
fn an_arbiter_may_die_or_be_cut_off_at_every_call() {
    let (world, arbiter) = two_nodes();
    let before = world.calls();
    finish(&world, &arbiter, "ami-2", "without a fault");
    let calls = world.calls() - before;
    assert!(calls > 100, "{calls}");
    let faults = [Fault::DieBefore, Fault::DieAfter, Fault::LostBefore, Fault::LostAfter];
    for nth in 0..calls {
        let fault = faults[nth % faults.len()];
        let (world, mut arbiter) = two_nodes();
        world.fail(nth, fault);
        let what = format!("{fault:?} at call {nth}");
        for _ in 0..600 {
            if world.is_done("ami-2") {
                break;
            }
            if run(arbiter.tick()).is_none() {
                world.heal();
                arbiter = arbiter.reborn();
            }
            others(&world);
        }
        assert!(world.is_done("ami-2"), "{what}: {:#?}", world.ledger());
        world.assert_right(&what);
        assert_eq!(world.state.borrow().terminated.len(), 2, "{what}");
    }
}

#[test]
fn an_arbiter_that_sleeps_within_a_round_changes_nothing_when_it_wakes() {
    // It sleeps for so many rounds of the other one, after so many calls.
    for (rounds, step) in [(1, 2), (8, 1), (30, 5)] {
        for calls in (0..28).step_by(step) {
            for begin in [2, 4, 6] {
                let what = format!("it sleeps {rounds} rounds after {calls} calls of round {begin}");
                let (world, sleeper) = two_nodes();
                let other = Arbiter::new(&world, "m2", pace(1), 120);
                for _ in 0..begin {
                    round(&world, &sleeper);
                }
                let mut tick = pin!(sleeper.tick());
                let mut context = Context::from_waker(Waker::noop());
                let mut awake = (0..calls).all(|_| tick.as_mut().poll(&mut context).is_pending());
                for _ in 0..rounds {
                    run(other.tick()).expect("it lives").ok();
                    others(&world);
                }
                while awake {
                    awake = tick.as_mut().poll(&mut context) == Poll::Pending;
                }
                finish(&world, &other, "ami-2", &what);
                assert_eq!(world.state.borrow().terminated.len(), 2, "{what}");
            }
        }
    }
}

#[test]
fn rivals_that_both_think_to_be_the_arbiter_grant_no_more_than_one() {
    for seed in 0..20_u32 {
        let (world, one) = two_nodes();
        let two = Arbiter::new(&world, "m2", pace(1), -200);
        let mut schedule = seed.wrapping_mul(2_654_435_761) | 1;
        for _ in 0..50 {
            // Nobody holds the Lease for long.
            world
                .state
                .borrow_mut()
                .objects
                .remove("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kubestrap-leader");
            schedule = schedule.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            interleave(schedule, one.tick(), two.tick());
            others(&world);
        }
        finish(&world, &one, "ami-2", &format!("seed {seed}"));
    }
}

#[test]
fn a_new_arbiter_goes_on_in_the_middle() {
    let (world, one) = two_nodes();
    let two = Arbiter::new(&world, "m2", pace(1), 100);
    while world.state.borrow().terminated.is_empty() {
        round(&world, &one);
        round(&world, &two);
    }
    let holder = |world: &World| {
        let state = world.state.borrow();
        let lease = &state.objects["/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kubestrap-leader"];
        lease.pointer("/spec/holderIdentity").and_then(Value::as_str).expect("a holder").to_owned()
    };
    assert!(holder(&world).starts_with("m1_"));
    finish(&world, &two, "ami-2", "the other one");
    assert!(holder(&world).starts_with("m2_"));
}

#[test]
fn operators_see_and_say() {
    let world = World::new(1);
    world.group("web", 3, "ami-1");
    let arbiter = Arbiter::new(&world, "m1", pace(1), 0);
    let api = crate::kube::Api::admin(&arbiter.node.world.cluster);
    let look = || operator::table(&run(operator::standing(&api)).expect("it lives").expect("an answer"));
    assert_eq!(look(), "No rollout, and no node that asks for one.\n");
    let refused = run(operator::pause(&api, " ")).expect("it lives").expect_err("no reason");
    assert_eq!(refused.cause, Cause::Usage);
    run(operator::pause(&api, "freeze")).expect("it lives").expect("paused");
    world.roll("web", "ami-2");
    for _ in 0..5 {
        round(&world, &arbiter);
    }
    assert!(world.ledger().grants.is_empty() && look().starts_with("PAUSED by an operator: freeze\n"), "{}", look());
    assert!(look().contains("(Ready): it runs ami-1"), "{}", look());
    let resumed = run(operator::resume(&api, None)).expect("it lives").expect("resumed");
    assert_eq!(resumed, ["the cluster, which stood because freeze"]);
    world.state.borrow_mut().broken.insert("ami-2".into());
    for _ in 0..60 {
        round(&world, &arbiter);
    }
    let standing = run(operator::standing(&api)).expect("it lives").expect("an answer");
    assert!(serde_json::to_string(&standing).expect("JSON").contains("\"phase\":\"replacing\""));
    let (pause, entry) = (standing.ledger.rollouts[0].paused.as_ref().expect("a pause"), &standing.ledger.grants[0]);
    let stands = format!("group web to ami-2: 0 replaced; paused since {:.0}: {}\n", pause.at, pause.why);
    let lost = format!("  {} (granted {:.0}) is replacing: it is drained\n", entry.node, entry.granted_at);
    assert!(look().contains(&stands) && look().contains(&lost), "{}", look());
    assert!(!stands.contains('.'), "whole seconds: {stands}");
    world.state.borrow_mut().broken.clear();
    assert_eq!(run(operator::resume(&api, Some("other"))).expect("it lives"), Ok(Vec::new()));
    assert_eq!(run(operator::resume(&api, Some("web"))).expect("it lives").map(|all| all.len()), Ok(1));
    assert_eq!(run(operator::release(&api, "nobody")).expect("it lives"), Ok(false));
    finish(&world, &arbiter, "ami-2", "resumed");
}
