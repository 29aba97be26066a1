use super::*;
use crate::scenario;
use crate::store::Writer;
use crate::trace::Keep;
use crate::universe::Universe;
use kubestrap_core::ports::{Launch, TemplateRef};
use std::collections::BTreeSet;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

const DAY: Duration = Duration::from_secs(86_400);

/// A calm world, a worker's desk in it, and the worker's instance.
fn world() -> (Rc<Universe>, Desk, String) {
    let calm = scenario::Scenario { workers: 1, faults_last: Duration::ZERO, ..scenario::calm() };
    let universe = Universe::new(1, &calm, Keep::Nothing);
    let desk = Desk::new(universe.clone(), 1, Writer::Node(1));
    let instance = universe.machines[1].identity.ec2().expect("an instance").instance_id.clone();
    run(&universe, universe.sleep(universe.machines[1].known_from.get()));
    (universe, desk, instance)
}

fn run<T>(universe: &Universe, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => return value,
            Poll::Pending => assert!(universe.timeline.step(DAY), "it waits for nothing"),
        }
    }
}

fn grouped(universe: &Universe, waiting: BTreeSet<(String, Hook)>) {
    let of = TemplateVersion { template: TemplateRef::Id("lt-1".to_owned()), version: "$Latest".to_owned() };
    let group = Group { name: "web".to_owned(), launch: Launch::Template(of), overrides: Vec::new(), waiting };
    universe.account.group.replace(Some(group));
}

fn state(universe: &Universe, desk: &Desk, instance: &str) -> Option<String> {
    run(universe, desk.group_of(REGION, instance)).expect("an answer").map(|group| group.lifecycle_state)
}

#[test]
fn a_machine_that_is_terminated_in_its_group_is_lost_and_forgotten() {
    let (universe, desk, instance) = world();
    let failure = run(&universe, desk.terminate_in_group(REGION, &instance)).expect_err("it is in no group");
    assert_eq!((failure.cause, state(&universe, &desk, &instance)), (Cause::Configuration, None));
    assert!(!universe.machines[1].is_dead());
    grouped(&universe, BTreeSet::new());
    assert_eq!(state(&universe, &desk, &instance).as_deref(), Some("InService"));
    assert_eq!(state(&universe, &desk, "i-of-somebody"), None);
    run(&universe, desk.terminate_in_group(REGION, &instance)).expect("done");
    assert!(universe.machines[1].is_dead());
    run(&universe, universe.sleep(Duration::from_secs(1000)));
    assert_eq!(state(&universe, &desk, &instance), None);
}

#[test]
fn a_wait_ends_once_and_takes_the_machine_along_when_it_was_on_its_way_out_or_has_failed() {
    let (launching, terminating) = (Hook::Launching("in".to_owned()), Hook::Terminating("out".to_owned()));
    let table = [
        (launching.clone(), LifecycleResult::Continue, false),
        (launching, LifecycleResult::Abandon, true),
        (terminating.clone(), LifecycleResult::Continue, true),
        (terminating, LifecycleResult::Abandon, true),
    ];
    for (at, result, is_lost) in table {
        let (universe, desk, instance) = world();
        grouped(&universe, BTreeSet::from([(instance.clone(), at.clone())]));
        assert_eq!(state(&universe, &desk, &instance).as_deref(), Some(at.state()));
        let hook = |name: &str| LifecycleHook {
            group: "web".to_owned(),
            name: name.to_owned(),
            instance_id: instance.clone(),
        };
        let beat = |name| run(&universe, desk.heartbeat(REGION, &hook(name))).expect("an answer");
        assert_eq!((beat(at.name()), beat("other")), (LifecycleAnswer::Taken, LifecycleAnswer::NotWaiting));
        let complete = || run(&universe, desk.complete_lifecycle(REGION, &hook(at.name()), result)).expect("an answer");
        assert_eq!(
            (complete(), universe.machines[1].is_dead()),
            (LifecycleAnswer::Taken, is_lost),
            "{at:?} {result:?}"
        );
        assert_eq!(complete(), LifecycleAnswer::NotWaiting);
        assert_eq!(beat(at.name()), LifecycleAnswer::NotWaiting);
    }
}

#[test]
fn parameters_templates_and_images_are_what_the_account_has() {
    let (universe, desk, _) = world();
    let account = &universe.account;
    account.parameters.borrow_mut().insert("/image".to_owned(), "ami-1".to_owned());
    let versions = [(1, "ami-1"), (2, "resolve:ssm:/image")];
    let versions = versions.map(|(version, image)| TemplateInfo { version, image: Some(image.to_owned()) });
    account.templates.borrow_mut().insert(TemplateRef::Id("lt-1".to_owned()), versions.to_vec());
    assert_eq!(run(&universe, desk.parameter(REGION, "/image")), Ok(Some("ami-1".to_owned())));
    assert_eq!(run(&universe, desk.parameter(REGION, "/other")), Ok(None));
    let template = |id: &str, version: &str| {
        let of = TemplateVersion { template: TemplateRef::Id(id.to_owned()), version: version.to_owned() };
        run(&universe, desk.launch_template(REGION, &of)).expect("an answer").map(|found| found.version)
    };
    assert_eq!((template("lt-1", "$Latest"), template("lt-1", "1"), template("lt-1", "3")), (Some(2), Some(1), None));
    assert_eq!(template("lt-2", "1"), None);
    let images = run(&universe, desk.images(REGION, &ImageQuery::Ids(vec![crate::account::IMAGE.to_owned()])));
    assert_eq!(images.expect("an answer").len(), 1);
}
