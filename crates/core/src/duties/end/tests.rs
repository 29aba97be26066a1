use super::*;
use crate::end::events::{LIFECYCLE, MAINTENANCE, REBALANCE, SPOT};
use crate::end::mark::MARK;
use crate::end::testing::Story;
use crate::rollout::wire::CORDONED_BY;
use crate::testing::api::{Fault, failure, pod};
use jiff::SignedDuration;
use serde_json::{Value, json};

const HOUR: i64 = 3600;

fn duty() -> EndDuty {
    EndDuty::default()
}

/// The mark on the Node.
fn marked(story: &Story) -> Option<Value> {
    story.api.annotation(MARK).map(|text| serde_json::from_str(&text).expect("JSON"))
}

fn maintenance(state: &str, at: Timestamp) -> String {
    let at = at.strftime("%d %b %Y %H:%M:%S GMT");
    format!(r#"[{{"NotBefore": "{at}", "Code": "system-reboot", "EventId": "instance-event-1", "State": "{state}"}}]"#)
}

#[test]
fn without_a_notice_the_node_is_looked_at_once_and_left_alone() {
    let story = Story::new();
    story.aws.say(LIFECYCLE, "InService");
    story.aws.say(MAINTENANCE, "[]");
    story.api.add(pod("web", 30));
    assert!(story.live(&story.node(), &duty(), HOUR));
    assert_eq!(story.api.state().log.len(), 1, "one look for what an earlier life left");
    assert!(!story.api.is_cordoned() && story.told.0.borrow().is_empty());
    // Two paths every 5 s, one every minute, and no recommendations.
    assert!((2 * 719..2 * 721 + 62).contains(&story.aws.looks.get()), "{}", story.aws.looks.get());
}

#[test]
fn elsewhere_and_where_it_is_switched_off_nobody_is_asked() {
    for (on_ec2, watch) in [(false, None), (false, Some(true)), (true, Some(false))] {
        let mut story = Story::new();
        (story.on_ec2, story.end.watch) = (on_ec2, watch);
        story.aws.interrupt_in(120);
        assert!(story.live(&story.node(), &duty(), HOUR));
        assert_eq!((story.aws.looks.get(), story.api.state().log.len()), (0, 0), "{on_ec2} {watch:?}");
    }
}

#[test]
fn a_spot_interruption_empties_the_node_in_time_whatever_a_budget_says() {
    let story = Story::new();
    story.api.add(pod("web", 30));
    story.api.guard(pod("db", 60), &["none"]);
    let (node, duty) = (story.node(), duty());
    assert!(story.live(&node, &duty, 60));
    let at = story.aws.interrupt_in(115);
    assert!(story.live(&node, &duty, 20));
    assert!(story.api.is_cordoned());
    assert_eq!(story.api.annotation(CORDONED_BY).as_deref(), Some("end:spot"));
    let deadline = at - SignedDuration::from_secs(10);
    assert_eq!(marked(&story), Some(json!({"event": "spot", "at": deadline})));
    let report = node.status().end.expect("a report");
    assert_eq!((report.event.as_str(), report.at, report.state.as_str()), ("spot", deadline, "draining"));
    assert!(report.why.is_some_and(|why| why.contains("shop/db") && why.contains("budget none")));
    let left = Duration::try_from(at.duration_since(story.now())).expect("time").as_secs();
    assert!(story.live(&node, &duty, i64::try_from(left).expect("seconds")));
    assert_eq!(story.api.names(), Vec::<String>::new());
    assert_eq!(node.status().end.map(|end| end.state).as_deref(), Some("drained"));
    assert!(story.api.asked().iter().all(|asked| asked.grace() != Some(0) && asked.at < at));
    assert_eq!(story.told("this node ends (spot interruption: terminate"), 1);
    let calls = story.api.state().log.len();
    assert!(story.live(&node, &duty, 60));
    assert_eq!(story.api.state().log.len(), calls, "an empty node is left alone");
}

#[test]
fn killed_at_any_call_the_next_life_keeps_the_deadline_and_empties_the_node() {
    for nth in 0..40 {
        for fault in [Fault::DieBefore, Fault::DieAfter] {
            let mut story = Story::new();
            story.end.terminate_hook = Some("drain".to_owned());
            story.aws.say(LIFECYCLE, "Terminated");
            story.aws.waiting.replace(Some("drain".to_owned()));
            for name in ["a", "b", "c"] {
                story.api.add(pod(name, 10));
            }
            let began = story.now();
            story.api.fail(nth, fault.clone());
            // The gate of the node that dies is the server's own.
            let node = with_gate(&story);
            if !story.live(&node, &duty(), 120) {
                let known = marked(&story);
                let node = story.node();
                assert!(story.live(&node, &duty(), 120), "{nth} {fault:?}");
                if known.is_some() {
                    assert_eq!(marked(&story), known, "{nth} {fault:?}: another deadline");
                }
            }
            assert_eq!(story.api.names(), Vec::<String>::new(), "{nth} {fault:?}");
            assert!(story.aws.waiting.borrow().is_none(), "{nth} {fault:?}: the hook waits");
            assert_eq!(story.aws.count("CONTINUE drain: Taken"), 1, "{nth} {fault:?}");
            assert!(story.now() < began + SignedDuration::from_secs(300));
        }
    }
}

/// The node, killed where the API server says so.
fn with_gate(story: &Story) -> Node {
    let node = story.node();
    let ports = crate::world::Ports {
        objects: node.world.objects.clone(),
        files: node.world.files.clone(),
        jobs: node.world.jobs.clone(),
        metadata: story.aws.clone(),
        cloud: story.aws.clone(),
        cluster: story.api.clone(),
        vault: Rc::new(crate::ports::Nobody),
        etcd: Rc::new(crate::ports::Nobody),
        host: node.world.host.clone(),
        time: node.world.time.clone(),
    };
    let world = crate::world::World::new(ports, story.api.clone(), story.told.clone());
    Node::new(node.settings.clone(), node.identity.clone(), world)
}

#[test]
fn garbage_is_told_once_and_is_no_event_and_what_is_read_beside_it_counts() {
    let story = Story::new();
    story.api.add(pod("web", 30));
    for path in [SPOT, LIFECYCLE, MAINTENANCE] {
        story.aws.say(path, "<html>Terminated</html>");
    }
    let (node, duty) = (story.node(), duty());
    assert!(story.live(&node, &duty, HOUR));
    assert!(!story.api.is_cordoned() && story.api.asked().is_empty());
    for path in [SPOT, LIFECYCLE, MAINTENANCE] {
        assert_eq!(story.told(path), 1, "{path}");
    }
    story.aws.say(LIFECYCLE, "Terminated");
    assert!(story.live(&node, &duty, 60));
    assert_eq!(story.api.annotation(CORDONED_BY).as_deref(), Some("end:termination"));
}

#[test]
fn a_metadata_service_that_goes_away_takes_no_notice_back() {
    let story = Story::new();
    story.api.add(pod("web", 30));
    let (node, duty) = (story.node(), duty());
    story.aws.interrupt_in(120);
    assert!(story.live(&node, &duty, 3));
    for path in [SPOT, LIFECYCLE, MAINTENANCE] {
        story.aws.says.borrow_mut().insert(path, (500, "oops".to_owned()));
    }
    assert!(story.live(&node, &duty, 100));
    assert!(story.api.is_cordoned() && story.api.names().is_empty());
}

#[test]
fn an_end_that_is_called_off_gives_the_node_back_also_in_another_life() {
    for restart in [false, true] {
        let story = Story::new();
        story.api.add(pod("web", 5));
        let (mut node, mut own) = (story.node(), duty());
        let at = story.now() + SignedDuration::from_secs(15 * 60);
        story.aws.say(MAINTENANCE, maintenance("active", at));
        assert!(story.live(&node, &own, 70));
        assert!(story.api.is_cordoned() && story.api.names().is_empty());
        assert_eq!(marked(&story).expect("a mark")["event"], "maintenance");
        story.aws.say(MAINTENANCE, maintenance("completed", at));
        if restart {
            (node, own) = (story.node(), duty());
        }
        assert!(story.live(&node, &own, 120));
        assert!(!story.api.is_cordoned() && marked(&story).is_none(), "restart: {restart}");
        assert_eq!((story.api.annotation(CORDONED_BY), node.status().end), (None, None));
        assert_eq!(story.told("takes pods again"), 1);
    }
}

#[test]
fn what_a_person_or_a_grant_cordoned_stays_cordoned() {
    for owner in [None, Some("0e0e0e0e-0000-4000-8000-000000000001")] {
        let story = Story::new();
        story.api.state().node["spec"]["unschedulable"] = json!(true);
        story.api.annotate(CORDONED_BY, owner);
        assert!(story.live(&story.node(), &duty(), 120));
        assert!(story.api.is_cordoned() && story.api.annotation(CORDONED_BY).as_deref() == owner);
    }
    // And a person's cordon, through a whole end.
    let story = Story::new();
    story.api.state().node["spec"]["unschedulable"] = json!(true);
    let (node, duty) = (story.node(), duty());
    let at = story.now() + SignedDuration::from_secs(15 * 60);
    story.aws.say(MAINTENANCE, maintenance("active", at));
    assert!(story.live(&node, &duty, 70));
    story.aws.say(MAINTENANCE, maintenance("canceled", at));
    assert!(story.live(&node, &duty, 120));
    assert!(story.api.is_cordoned() && marked(&story).is_none());
}

#[test]
fn a_scheduled_event_is_waited_for() {
    let story = Story::new();
    let (node, duty) = (story.node(), duty());
    let at = story.now() + SignedDuration::from_secs(2 * HOUR);
    story.aws.say(MAINTENANCE, maintenance("active", at));
    assert!(story.live(&node, &duty, 2 * HOUR - 21 * 60));
    assert!(!story.api.is_cordoned());
    assert!(story.live(&node, &duty, 120));
    assert!(story.api.is_cordoned());
}

#[test]
fn the_hook_hears_of_us_while_we_drain_and_goes_on_when_the_node_is_empty() {
    let mut story = Story::new();
    story.end.terminate_hook = Some("drain".to_owned());
    story.aws.say(LIFECYCLE, "Terminated");
    story.aws.waiting.replace(Some("drain".to_owned()));
    story.aws.throttled.set(2);
    story.api.state().budgets.insert("web".into(), 1);
    for name in ["a", "b", "c", "d"] {
        story.api.guard(pod(name, 30), &["web"]);
    }
    let (node, duty) = (story.node(), duty());
    assert!(story.live(&node, &duty, 15 * 60));
    assert!(story.api.names().is_empty());
    let heard = story.aws.heard.borrow().clone();
    let (last, beats) = heard.split_last().expect("words");
    assert_eq!(last.1, "CONTINUE drain: Taken");
    assert!(beats.len() > 5 && beats.iter().all(|(_, word)| word == "heartbeat drain: Taken"), "{heard:?}");
    let gaps = heard.windows(2).map(|pair| pair[1].0.duration_since(pair[0].0));
    assert!(gaps.max().expect("gaps") <= SignedDuration::from_secs(28), "{heard:?}");
    assert_eq!(story.told("Rate exceeded"), 1);
    assert_eq!(story.told("was told to continue"), 1);
}

#[test]
fn a_drain_that_cannot_end_is_over_at_its_deadline_and_the_hook_goes_on() {
    // The API server is away all the time; or it never lets go of a pod.
    for away in [true, false] {
        let mut story = Story::new();
        story.end.terminate_hook = Some("drain".to_owned());
        story.aws.say(LIFECYCLE, "Terminated");
        story.aws.waiting.replace(Some("drain".to_owned()));
        story.api.add(pod("web", 30));
        for nth in 0..2000 {
            if away {
                story.api.fail(nth, Fault::LostBefore);
            }
        }
        if !away {
            story.api.state().pods.values_mut().for_each(|pod| {
                pod["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
                pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
            });
            for nth in 4..2000 {
                if nth % 3 == 0 {
                    story.api.fail(nth, Fault::Answer(500, failure(500, "no").1));
                }
            }
        }
        let (node, duty) = (story.node(), duty());
        assert!(story.live(&node, &duty, 14 * 60));
        assert_eq!(story.aws.count("CONTINUE"), 0, "away {away}");
        assert!(story.aws.count("heartbeat") >= 14 * 60 / 25, "away {away}");
        assert!(story.live(&node, &duty, 3 * 60));
        assert_eq!(story.aws.count("CONTINUE drain: Taken"), 1, "away {away}");
    }
}

#[test]
fn a_hook_that_does_not_wait_is_not_asked_for_ever() {
    for in_group in [true, false] {
        let mut story = Story::new();
        story.end.terminate_hook = Some("drain".to_owned());
        story.aws.say(LIFECYCLE, "Terminated");
        story.aws.in_group.set(in_group);
        assert!(story.live(&story.node(), &duty(), HOUR));
        assert!(story.aws.count("CONTINUE drain: NotWaiting") <= 6);
        assert!(story.api.is_cordoned());
    }
}

#[test]
fn a_recommendation_counts_only_when_it_is_wanted_and_never_overrules_a_budget() {
    for wanted in [false, true] {
        let mut story = Story::new();
        story.end.rebalance = wanted;
        story.aws.say(REBALANCE, format!(r#"{{"noticeTime": "{}"}}"#, story.now()));
        story.api.add(pod("web", 5));
        story.api.guard(pod("db", 5), &["none"]);
        let (node, duty) = (story.node(), duty());
        assert!(story.live(&node, &duty, HOUR));
        assert_eq!(story.api.is_cordoned(), wanted);
        assert_eq!(story.api.names().len(), if wanted { 1 } else { 2 });
        assert!(story.api.asked().iter().all(|asked| asked.method == "POST"));
        let state = node.status().end.map(|end| end.state);
        assert_eq!(state.as_deref(), wanted.then_some("gave-up"));
        if wanted {
            // And then it is taken back.
            story.aws.interrupt_in(120);
            assert!(story.live(&node, &duty, 120));
            assert_eq!(story.api.annotation(CORDONED_BY).as_deref(), Some("end:spot"));
            assert!(story.api.names().is_empty());
        }
    }
}

/// A master of a control plane whose end the metadata service tells; gives what became of it.
fn ending(plane: &Rc<crate::etcd::testing::Plane>, path: &'static str, text: &str) -> (Story, Node, EndDuty) {
    let story = Story::new();
    story.aws.say(path, text);
    story.aws.waiting.replace(Some("drain".to_owned()));
    let mut node = plane.agent(1, true);
    (node.world.metadata, node.world.cloud) = (story.aws.clone(), story.aws.clone());
    let mut settings = (*node.settings).clone();
    settings.end.terminate_hook = Some("drain".to_owned());
    node.settings = Rc::new(settings);
    let mut identity = (*node.identity).clone();
    if let crate::model::identity::Origin::Ec2(ec2) = &mut identity.origin {
        ec2.instance_id = crate::end::testing::INSTANCE.to_owned();
    }
    node.identity = Rc::new(identity);
    (story, node, duty())
}

fn ticks(plane: &crate::etcd::testing::Plane, node: &Node, duty: &EndDuty, count: usize) {
    for _ in 0..count {
        let after = crate::store::fake::run(duty.tick(node)).expect("alive").expect("a round");
        plane.lab.time.pass(after);
    }
}

#[test]
fn a_master_that_is_terminated_leaves_before_its_hook_is_told_to_continue() {
    let plane = crate::etcd::testing::Plane::new(3);
    let (story, node, duty) = ending(&plane, LIFECYCLE, "Terminated");
    // Without an answer to the removal the hook waits for the next try.
    plane.lose.set(true);
    ticks(&plane, &node, &duty, 1);
    assert_eq!(plane.names(), ["cp-2", "cp-3"]);
    assert_eq!(story.aws.count("CONTINUE drain: Taken"), 0);
    ticks(&plane, &node, &duty, 3);
    assert_eq!(story.aws.count("CONTINUE drain: Taken"), 1);
    let changes = plane.changes();
    assert_eq!(changes.iter().filter(|change| *change == "remove member 1").count(), 1, "{changes:?}");
    assert!(changes.contains(&"delete cp-1".to_owned()), "{changes:?}");
}

/// Another master restarts, or its answer is slow for once: that is no reason to stay behind as a dead member.
#[test]
fn a_master_that_the_quorum_needs_for_a_moment_leaves_when_that_is_over() {
    let plane = crate::etcd::testing::Plane::new(3);
    let (story, node, duty) = ending(&plane, LIFECYCLE, "Terminated");
    plane.members.borrow_mut()[2].up = false;
    ticks(&plane, &node, &duty, 3);
    assert_eq!((plane.names().len(), story.aws.count("CONTINUE drain: Taken")), (3, 0));
    plane.members.borrow_mut()[2].up = true;
    ticks(&plane, &node, &duty, 2);
    assert_eq!((plane.names(), story.aws.count("CONTINUE drain: Taken")), (vec!["cp-2".into(), "cp-3".into()], 1));
}

#[test]
fn the_last_voter_stays_a_member_and_its_hook_is_not_held_up() {
    let plane = crate::etcd::testing::Plane::new(1);
    let (story, node, duty) = ending(&plane, LIFECYCLE, "Terminated");
    ticks(&plane, &node, &duty, 3);
    assert_eq!((plane.names(), story.aws.count("CONTINUE drain: Taken")), (vec!["cp-1".to_owned()], 1));
}

#[test]
fn a_master_that_is_rebooted_or_may_be_taken_stays_a_member() {
    let plane = crate::etcd::testing::Plane::new(3);
    let now = crate::ports::Time::now(&*plane.lab.time);
    let (_story, node, duty) = ending(&plane, MAINTENANCE, &maintenance("active", now + SignedDuration::from_secs(30)));
    ticks(&plane, &node, &duty, 30);
    assert!(node.status().end.is_some_and(|end| end.event == "maintenance"));
    let (_story, mut node, duty) = ending(&plane, REBALANCE, &format!(r#"{{"noticeTime": "{now}"}}"#));
    let mut settings = (*node.settings).clone();
    settings.end.rebalance = true;
    node.settings = Rc::new(settings);
    ticks(&plane, &node, &duty, 30);
    assert!(node.status().end.is_some_and(|end| end.event == "rebalance"));
    assert_eq!(plane.names().len(), 3);
}
