use super::*;
use crate::duties::lead::LeadDuty;
use crate::engine::Duty;
use crate::etcd::testing::Plane;
use crate::store::fake::run;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// One agent with its duty.
struct Agent {
    node: Node,
    duty: LeadDuty,
}

impl Agent {
    fn new(plane: &std::rc::Rc<Plane>, n: u8) -> Self {
        Agent { node: plane.agent(n, true), duty: LeadDuty::default() }
    }

    fn tick(&self) {
        assert_eq!(run(self.duty.tick(&self.node)), Some(Ok(RENEW_EVERY)));
    }

    fn leads(&self) -> bool {
        run(leads(&self.node)).expect("alive").expect("known")
    }
}

#[test]
fn a_cluster_without_the_setting_has_one_master_which_leads_without_asking() {
    let plane = Plane::new(1);
    assert_eq!(run(leads(&plane.agent(1, false))), Some(Ok(true)));
    assert_eq!(run(leads(&plane.agent(1, true))), Some(Ok(false)), "nobody was asked yet");
    let mut worker = plane.agent(1, false);
    worker.settings = std::rc::Rc::new(crate::testing::settings("role: worker"));
    assert_eq!(run(leads(&worker)), Some(Ok(false)));
    assert!(plane.objects.borrow().keys().all(|path| !path.contains("leases")));
}

#[test]
fn the_first_leads_at_once_and_its_successor_after_the_term() {
    let plane = Plane::new(2);
    let (one, two) = (Agent::new(&plane, 1), Agent::new(&plane, 2));
    one.tick();
    assert!(one.leads() && one.node.status().leads);
    for _ in 0..100 {
        two.tick();
        plane.lab.time.pass(RENEW_EVERY);
        assert!(one.leads() && !two.leads());
        one.tick();
    }
    // The first one is dead from here on.
    let mut waited = Duration::ZERO;
    two.tick();
    while !two.leads() {
        assert!(waited <= seconds(20), "nobody leads");
        plane.lab.time.pass(RENEW_EVERY);
        waited += RENEW_EVERY;
        two.tick();
        assert!(!(one.leads() && two.leads()), "two lead after {waited:?}");
    }
    assert!(waited >= TERM, "{waited:?}");
    // Back again, it follows.
    one.tick();
    assert!(!one.leads() && !one.node.status().leads && two.leads());
}

#[test]
fn an_agent_that_is_restarted_is_the_same_holder() {
    let plane = Plane::new(2);
    Agent::new(&plane, 1).tick();
    let reborn = Agent::new(&plane, 1);
    assert!(!reborn.leads());
    reborn.tick();
    assert!(reborn.leads());
}

#[test]
fn an_api_server_that_is_away_ends_the_lead_with_its_time_and_not_before() {
    let plane = Plane::new(2);
    let one = Agent::new(&plane, 1);
    one.tick();
    plane.api_away.set(true);
    plane.lab.time.pass(seconds(5));
    one.tick();
    assert!(one.leads());
    plane.lab.time.pass(seconds(8));
    one.tick();
    assert!(!one.leads() && !one.node.status().leads && one.node.lease.api_clock(&one.node).is_none());
    plane.api_away.set(false);
    one.tick();
    assert!(one.leads());
}

#[test]
fn who_gives_it_back_lets_the_others_go_first() {
    let plane = Plane::new(2);
    let (one, two) = (Agent::new(&plane, 1), Agent::new(&plane, 2));
    one.tick();
    let api = Api::local(&one.node).expect("an endpoint");
    assert_eq!(run(one.node.lease.give_back(&one.node, &api)), Some(Ok(true)));
    one.tick();
    assert!(!one.leads());
    two.tick();
    assert!(two.leads());
    // It is not its own to give back any more; and nobody else's absence makes it wait for ever.
    assert_eq!(run(one.node.lease.resign(&one.node, &api)), Some(Ok(false)));
    let other = Api::local(&two.node).expect("an endpoint");
    assert_eq!(run(two.node.lease.resign(&two.node, &other)), Some(Ok(true)));
    plane.lab.time.pass(COURTESY);
    one.tick();
    assert!(one.leads());
    assert_eq!(run(one.node.lease.give_back(&one.node, &api)), Some(Ok(false)), "not twice within the hour");
}

#[test]
fn a_lease_that_somebody_else_wrote_is_not_ours_whatever_we_believe() {
    let plane = Plane::new(2);
    let one = Agent::new(&plane, 1);
    one.tick();
    let mut lease = plane.objects.borrow()[LEASE].clone();
    lease["spec"]["holderIdentity"] = "cp-2_another".into();
    lease["metadata"]["resourceVersion"] = "999".into();
    plane.objects.borrow_mut().insert(LEASE.to_owned(), lease);
    one.tick();
    assert!(!one.leads());
}
