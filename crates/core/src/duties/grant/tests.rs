use super::*;
use crate::config::settings::{DriftSettings, Settings};
use crate::model::cause::{Cause, Failure};
use crate::ports::{Files, JobEnd, JobSpec, JobState, Jobs, Time, ToolOutput};
use crate::rollout::wire::{CORDONED_BY, GRANT, Grant, PROGRESS, Step};
use crate::store::fake::{Lab, OneFile, run};
use crate::testing::api::{NODE, NODE_UID, Server, Side, pod};
use crate::testing::settings;
use jiff::SignedDuration;
use std::rc::Rc;

const ID: Uuid = Uuid::from_u128(7);

/// Jobs that end when they are told to; a restart of the machine forgets them.
#[derive(Default)]
struct Machine {
    started: RefCell<Vec<JobSpec>>,
    job: RefCell<Option<(String, Option<JobEnd>)>>,
}

#[async_trait(?Send)]
impl Jobs for Machine {
    async fn start(&self, job: &JobSpec) -> Outcome<()> {
        if !matches!(*self.job.borrow(), Some((_, None))) {
            *self.job.borrow_mut() = Some((job.run.clone(), None));
            self.started.borrow_mut().push(job.clone());
        }
        Ok(())
    }
    async fn observe(&self, _: &str) -> Outcome<JobState> {
        Ok(match self.job.borrow().clone() {
            None => JobState::Absent,
            Some((run, None)) => JobState::Running { run },
            Some((run, Some(end))) => JobState::Ended { run, end },
        })
    }
    async fn output(&self, _: &str, _: usize) -> Outcome<String> {
        Ok("writing the image\nno space left, token abcdef.0123456789abcdef\n".to_owned())
    }
    async fn forget(&self, _: &str) -> Outcome<()> {
        *self.job.borrow_mut() = None;
        Ok(())
    }
    async fn stop(&self, _: &str) -> Outcome<()> {
        Err(Failure::new(Cause::Internal, "stop a job", "nobody stops a hook"))
    }
    async fn run(&self, _: &[String], _: Duration) -> Outcome<ToolOutput> {
        Err(Failure::new(Cause::Internal, "run a program", "nobody runs one"))
    }
}

/// A node, its API server and its machine.
struct Story {
    server: Rc<Server>,
    machine: Rc<Machine>,
    files: Rc<dyn Files>,
    settings: Settings,
    duty: GrantDuty,
}

impl Story {
    fn new(action: Action) -> Self {
        let hook = Some(vec!["reimage".to_owned(), "--now".to_owned()]);
        let drift = DriftSettings { action, hook, ..DriftSettings::default() };
        Story {
            server: Server::new(&Lab::new().time),
            machine: Rc::default(),
            files: Rc::new(OneFile::default()),
            settings: Settings { drift, ..settings("role: worker") },
            duty: GrantDuty::default(),
        }
    }

    fn grant(&self, step: Step, minutes: i64) {
        let deadline = self.server.time.now() + SignedDuration::from_mins(minutes);
        let grant = Grant { schema: 1, id: ID, node_uid: NODE_UID.into(), step, deadline };
        self.server.annotate(GRANT, Some(&grant.write().expect("JSON")));
    }

    /// One tick; after a death the agent lives again.
    fn tick(&mut self) -> Option<Outcome<Duration>> {
        let node = crate::testing::node(self.settings.clone(), &self.server, &(self.machine.clone() as _), &self.files);
        let result = run(self.duty.tick(&node));
        if self.server.is_dead() {
            self.server.revive();
            self.duty = GrantDuty::default();
            return None;
        }
        result
    }

    /// Ticks for so long.
    fn live(&mut self, minutes: i64) {
        let until = self.server.time.now() + SignedDuration::from_mins(minutes);
        while self.server.time.now() < until {
            let after = self.tick().and_then(Result::ok).unwrap_or(Duration::from_secs(5));
            self.server.time.pass(after);
        }
    }

    fn progress(&self) -> Option<Progress> {
        self.server.annotation(PROGRESS).map(|text| Progress::parse(NODE, &text).expect("a progress"))
    }

    fn state(&self) -> Option<State> {
        self.progress().map(|progress| progress.state)
    }

    /// Which states were said, in order.
    fn said(&self) -> Vec<State> {
        let state = self.server.state();
        let texts = state.log.iter().filter_map(|l| l.body.pointer("/metadata/annotations")?.get(PROGRESS)?.as_str());
        let mut states: Vec<State> = texts.map(|text| Progress::parse(NODE, text).expect("a progress").state).collect();
        states.dedup();
        states
    }
}

#[test]
fn nothing_is_asked_where_no_drain_is_configured() {
    for action in [Action::Report, Action::Mark] {
        let mut story = Story::new(action);
        story.grant(Step::Drain, 60);
        assert_eq!(story.tick(), Some(Ok(NEVER)));
        assert_eq!(story.server.gated(), 0);
    }
    let mut story = Story::new(Action::Drain);
    story.live(10);
    let looks = story.server.gated();
    assert!((20..=60).contains(&looks), "a look every 20 s with jitter: {looks}");
    assert!(story.server.state().log.iter().all(|l| l.method == "GET"));
}

#[test]
fn a_granted_node_is_drained_and_stays_cordoned_until_the_grant_is_gone() {
    let mut story = Story::new(Action::Drain);
    story.server.add(pod("web-1", 7));
    let mut alone = pod("alone", 7);
    alone["metadata"]["ownerReferences"] = json!([]);
    story.server.add(alone);
    story.grant(Step::Drain, 60);
    story.live(5);
    assert_eq!(story.said(), [State::Draining, State::Drained]);
    assert_eq!(story.progress().expect("said").why, "shop/alone: no controller brings it back");
    assert!(story.server.is_cordoned() && story.server.names().is_empty());
    assert_eq!(story.server.annotation(CORDONED_BY).as_deref(), Some(ID.to_string().as_str()));
    let asked = story.server.asked().len();
    story.live(30);
    assert_eq!((asked, story.state()), (2, Some(State::Drained)));
    story.server.annotate(GRANT, None);
    story.live(1);
    assert!(!story.server.is_cordoned() && story.server.annotation(CORDONED_BY).is_none());
}

#[test]
fn what_blocks_is_named_and_at_the_deadline_the_node_is_given_back() {
    for persons in [false, true] {
        let mut story = Story::new(Action::Drain);
        story.server.state().node["spec"]["unschedulable"] = json!(persons);
        story.server.guard(pod("web-1", 7), &["web"]);
        story.grant(Step::Drain, 60);
        story.live(2);
        let progress = story.progress().expect("said");
        let told = "blocked: shop/web-1 by the PodDisruptionBudget web (The disruption budget web needs 1";
        assert!(progress.state == State::Draining && progress.why.starts_with(told), "{progress:?}");
        story.live(18);
        let progress = story.progress().expect("said");
        assert_eq!(progress.state, State::GaveUp);
        assert!(progress.why.contains("shop/web-1; the last word: blocked: shop/web-1"), "{}", progress.why);
        assert_eq!(story.server.is_cordoned(), persons);
        let given_up = story.server.asked().last().expect("asked").at;
        let begun = story.server.asked()[0].at;
        assert!(given_up.duration_since(begun) < SignedDuration::from_mins(15), "`drain_within` is the nearer end");
        let words = story.server.state().log.iter().filter(|l| l.body.to_string().contains(PROGRESS)).count();
        assert_eq!(words, 3, "begun, blocked, given up: the same is not said again");
    }
}

#[test]
fn a_budget_that_yields_lets_the_drain_end() {
    let mut story = Story::new(Action::Drain);
    story.server.guard(pod("web-1", 7), &["web"]);
    story.grant(Step::Drain, 60);
    story.live(2);
    story.server.state().budgets.insert("web".into(), 1);
    story.live(2);
    assert_eq!(story.state(), Some(State::Drained));
}

#[test]
fn a_withdrawn_grant_is_undone_also_by_an_agent_that_was_away() {
    let mut story = Story::new(Action::Drain);
    story.server.guard(pod("web-1", 7), &["web"]);
    story.grant(Step::Drain, 60);
    story.live(1);
    assert!(story.server.is_cordoned());
    story.server.annotate(GRANT, None);
    story.duty = GrantDuty::default();
    story.live(1);
    assert!(!story.server.is_cordoned());
    assert_eq!(story.server.names(), ["shop/web-1"]);
}

#[test]
fn a_grant_that_is_late_broken_or_anothers_begins_nothing() {
    let mut story = Story::new(Action::Drain);
    story.server.add(pod("web-1", 7));
    story.grant(Step::Drain, -1);
    story.live(1);
    assert_eq!(story.state(), Some(State::GaveUp));
    story.server.annotate(PROGRESS, None);
    for text in ["{\"schema\":2}", "drain, please"] {
        story.server.annotate(GRANT, Some(text));
        let result = story.tick();
        assert!(matches!(&result, Some(Err(failure)) if failure.to_string().contains(GRANT)), "{result:?}");
    }
    story.grant(Step::Drain, 60);
    let others = story.server.annotation(GRANT).expect("a grant").replace(NODE_UID, "another");
    story.server.annotate(GRANT, Some(&others));
    story.live(1);
    assert!(!story.server.is_cordoned() && story.server.asked().is_empty() && story.progress().is_none());
}

#[test]
fn the_hook_runs_once_for_a_grant_and_its_end_is_told() {
    let mut story = Story::new(Action::Replace);
    story.grant(Step::Replace, 60);
    story.live(2);
    assert_eq!(story.state(), Some(State::Replacing));
    let started = story.machine.started.borrow().clone();
    assert_eq!(started.len(), 1);
    assert_eq!((started[0].argv.join(" "), started[0].run.clone()), ("reimage --now".to_owned(), ID.to_string()));
    // The machine is restarted: nobody knows the job any more, but the disk and the Node do.
    *story.machine.job.borrow_mut() = None;
    story.duty = GrantDuty::default();
    story.live(2);
    // With a new disk, the Node alone.
    story.files = Rc::new(OneFile::default());
    story.live(2);
    assert_eq!((story.machine.started.borrow().len(), story.state()), (1, Some(State::Replacing)));

    *story.machine.job.borrow_mut() = Some((ID.to_string(), Some(JobEnd::Exited(3))));
    story.live(1);
    let progress = story.progress().expect("said");
    assert_eq!(progress.state, State::Failed);
    assert!(progress.why.contains("exit code 3") && progress.why.contains("no space left"), "{}", progress.why);
    assert!(!progress.why.contains("0123456789abcdef"), "{}", progress.why);
}

#[test]
fn the_hook_is_for_replacing_and_for_machines_outside_of_ec2() {
    for (action, step) in [(Action::Drain, Step::Replace), (Action::Replace, Step::Drain)] {
        let mut story = Story::new(action);
        story.grant(step, 60);
        story.live(3);
        assert_eq!((story.state(), story.machine.started.borrow().len()), (Some(State::Drained), 0));
    }
}

#[test]
fn an_agent_that_is_killed_at_any_call_goes_on() {
    let story = |kill: Option<(usize, Side)>| {
        let mut story = Story::new(Action::Replace);
        story.server.state().budgets.insert("web".into(), 1);
        for name in ["web-1", "web-2"] {
            story.server.guard(pod(name, 7), &["web"]);
        }
        story.server.state().kill = kill;
        story.grant(Step::Replace, 60);
        story.live(3);
        story
    };
    let calls = story(None).server.gated();
    assert!(calls > 20, "{calls}");
    for nth in 1..=calls {
        for side in [Side::Before, Side::After] {
            let story = story(Some((nth, side)));
            let started = story.machine.started.borrow().len();
            assert!(story.server.names().is_empty(), "killed {side:?} call {nth}");
            assert_eq!(story.state(), Some(State::Replacing), "killed {side:?} call {nth}");
            assert!(started <= 1 && story.server.is_cordoned(), "killed {side:?} call {nth}");
            let hidden = story.progress().is_some_and(|progress| progress.why.contains("restarted"));
            assert!(started == 1 || hidden, "killed {side:?} call {nth}: not started, and nobody says so");
        }
    }
}
