use super::*;
use crate::end::events::LIFECYCLE;
use crate::end::testing::Story;
use crate::journal::{AttemptKind, Entry, Journal};
use crate::model::cause::{CAUSES, Cause, Failure};
use crate::store::fake::run;
use serde_json::json;
use uuid::Uuid;

fn story() -> Story {
    let mut story = Story::new();
    story.end.launch_hook = Some("join".to_owned());
    story.aws.waiting.replace(Some("join".to_owned()));
    story
}

fn ready(story: &Story, is: bool) {
    let status = if is { "True" } else { "False" };
    story.api.state().node["status"] = json!({"conditions": [{"type": "Ready", "status": status}]});
}

fn duty() -> LaunchDuty {
    LaunchDuty::default()
}

#[test]
fn the_hook_hears_of_us_until_the_node_is_ready_and_then_once_that_it_is() {
    let story = story();
    let (node, own) = (story.node(), duty());
    node.enter(Phase::Bootstrapping);
    assert!(story.live(&node, &own, 600));
    let beats = story.aws.count("heartbeat join: Taken");
    assert!((600 / 25..=31).contains(&beats), "{beats}");
    node.enter(Phase::Ready);
    ready(&story, false);
    assert!(story.live(&node, &own, 60));
    assert_eq!(story.aws.count("CONTINUE"), 0, "a node without a network is no success");
    ready(&story, true);
    assert!(story.live(&node, &own, 600));
    assert_eq!(story.aws.words().last().map(String::as_str), Some("CONTINUE join: Taken"));
    // Nor does another life say it again.
    let node = story.node();
    node.enter(Phase::Ready);
    assert!(story.live(&node, &duty(), 600));
    assert_eq!(story.aws.count("CONTINUE"), 1);
    assert_eq!(story.told("was told to continue"), 1);
}

#[test]
fn an_instance_of_a_warm_pool_is_launched_twice() {
    let story = story();
    ready(&story, true);
    for (target, launches) in [("Warmed:Stopped", 1), ("Warmed:Stopped", 1), ("InService", 2), ("InService", 2)] {
        story.aws.say(LIFECYCLE, target);
        story.aws.waiting.replace(Some("join".to_owned()));
        let node = story.node();
        node.enter(Phase::Ready);
        assert!(story.live(&node, &duty(), 60));
        assert_eq!(story.aws.count("CONTINUE join: Taken"), launches, "{target}");
    }
    // An instance on its way out is launched no more.
    story.aws.say(LIFECYCLE, "Terminated");
    story.aws.waiting.replace(Some("join".to_owned()));
    let node = story.node();
    node.enter(Phase::Ready);
    assert!(story.live(&node, &duty(), 60));
    assert_eq!(story.aws.count("CONTINUE"), 2);
}

#[test]
fn a_lost_answer_and_a_hook_that_never_waited_are_the_end_of_it() {
    let story = story();
    ready(&story, true);
    story.aws.waiting.replace(None);
    let node = story.node();
    node.enter(Phase::Ready);
    assert!(story.live(&node, &duty(), 600));
    let asked = story.aws.count("CONTINUE join: NotWaiting");
    assert!((2..=6).contains(&asked), "{asked}");
    assert!(story.live(&story.node(), &duty(), 600));
    assert_eq!(story.aws.count("CONTINUE"), asked);
}

#[test]
fn without_a_hook_or_elsewhere_nobody_is_told_anything() {
    for (on_ec2, hook) in [(true, None), (false, Some("join".to_owned()))] {
        let mut story = story();
        (story.on_ec2, story.end.launch_hook) = (on_ec2, hook);
        ready(&story, true);
        let node = story.node();
        node.enter(Phase::Ready);
        assert!(story.live(&node, &duty(), 600));
        let failure = Failure::new(Cause::ForeignState, "use this machine", "it is not ours");
        assert_eq!(run(launch::last_word(&node, &failure, true)), Some(Ok(false)));
        assert!(story.aws.words().is_empty() && story.aws.looks.get() == 0 && story.api.state().log.is_empty());
    }
}

#[test]
fn a_failure_is_abandoned_only_when_it_is_the_machines_own_and_was_reported() {
    for row in CAUSES {
        for reported in [false, true] {
            let story = story();
            let failure = Failure::new(row.cause, "become a node", "it failed").exhausted(Duration::from_secs(9));
            let own = launch::launch_signal(&failure) == launch::LaunchSignal::Abandon;
            // One that is throttled is tried again: there is no later.
            story.aws.throttled.set(if own && reported { 2 } else { 0 });
            let word = run(launch::last_word(&story.node(), &failure, reported));
            assert_eq!(word, Some(Ok(own && reported)), "{} {reported}", row.label);
            let expected = if own && reported { "ABANDON join: Taken" } else { "heartbeat join: Taken" };
            assert_eq!(story.aws.words(), [expected], "{} {reported}", row.label);
        }
    }
}

#[test]
fn a_machine_that_was_a_node_is_never_abandoned() {
    let story = story();
    let node = story.node();
    let journal = Journal::new(node.world.files.clone(), node.world.time.clone());
    journal.begin(Uuid::from_u128(1), AttemptKind::Join, Uuid::from_u128(2), true).expect("begun");
    journal.note(Entry::Completed).expect("noted");
    let failure = Failure::new(Cause::ForeignState, "use this machine", "it is not ours");
    assert_eq!(run(launch::last_word(&node, &failure, true)), Some(Ok(false)));
    assert!(story.aws.words().is_empty());
}
