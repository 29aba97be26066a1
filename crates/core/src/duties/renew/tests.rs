mod agents;
mod world;

use super::*;
use crate::kubeadm::machine::MANIFESTS;
use crate::ports::Time;
use agents::Agents;
use jiff::SignedDuration;
use world::{KEYS, Masters, PODS};

const DAY: SignedDuration = SignedDuration::from_hours(24);
const MANY_DAYS: i64 = 4 * 24 * 60;

/// Every pod of a machine was started anew once, in the order in which they need each other.
fn is_renewed(masters: &Masters, host: usize) {
    let host = &masters.hosts[host];
    assert_eq!(*host.starts.borrow(), PODS, "{}: {:?}", host.name, host.notes.borrow());
    assert_eq!(host.renewals.get(), 1, "{}", host.name);
    assert!(host.ends() > masters.lab.time.now() + DAY * 300);
}

#[test]
fn a_single_master_is_renewed_a_month_before_and_left_alone_before_and_after() {
    let masters = Masters::new(1, DAY * 35);
    let mut agents = Agents::of(&masters);
    agents.live(4 * 24 * 60);
    assert_eq!((masters.requests.get(), masters.hosts[0].renewals.get()), (0, 0), "nothing is due");
    agents.live(2 * 24 * 60);
    is_renewed(&masters, 0);
    assert_eq!(agents.failures, []);
    assert_eq!(masters.holder(), "", "the turn was not given back");
    let host = &masters.hosts[0];
    let manifest = host.text(&format!("{MANIFESTS}/kube-scheduler.yaml"));
    assert!(
        manifest.contains("    kubestrap.io/certificates: \"") && manifest.contains("    component: kube-scheduler\n")
    );
    assert!(!host.notes.borrow().iter().any(|note| note.contains("c2VjcmV0")));
    let requests = masters.requests.get();
    agents.live(MANY_DAYS);
    assert_eq!(masters.requests.get(), requests, "it goes on asking");
}

#[test]
fn certificates_that_live_minutes_are_renewed_again_and_again() {
    let masters = Masters::new(1, SignedDuration::from_mins(20));
    masters.hosts[0].life.set(SignedDuration::from_mins(20));
    let mut agents = Agents::of(&masters);
    agents.live(120);
    let renewals = masters.hosts[0].renewals.get();
    assert!((5..=9).contains(&renewals), "{renewals} in two hours");
    assert!(masters.hosts[0].ends() > masters.lab.time.now());
    assert_eq!(agents.failures, []);
}

/// Killed before and after every call that changes something, a renewal ends as if nothing had happened.
#[test]
fn killed_anywhere_it_converges() {
    let calls = {
        let masters = Masters::new(1, DAY * 29);
        Agents::of(&masters).live(30);
        is_renewed(&masters, 0);
        masters.hosts[0].gated.get()
    };
    assert!(calls > 12, "{calls}");
    for kill in 0..2 * calls {
        let masters = Masters::new(1, DAY * 29);
        masters.hosts[0].kill.set(Some(kill));
        let mut agents = Agents::of(&masters);
        agents.live(30);
        is_renewed(&masters, 0);
        assert_eq!(masters.holder(), "", "killed at {kill}");
    }
}

#[test]
fn of_several_masters_one_at_a_time_restarts() {
    for count in [2, 3, 5] {
        let masters = Masters::new(count, DAY * 30);
        let mut agents = Agents::of(&masters);
        agents.live(6 * 60);
        (0..count).for_each(|host| is_renewed(&masters, host));
        assert_eq!(masters.worst.get(), 1, "{count} masters");
        assert_eq!(masters.holder(), "");
    }
}

#[test]
fn a_holder_whose_agent_is_gone_is_followed_after_ten_minutes() {
    let masters = Masters::new(3, DAY * 29);
    // Somewhere between the first and the last pod.
    let mut agents = Agents::of(&masters);
    while masters.hosts.iter().all(|host| host.starts.borrow().len() < 2) {
        agents.live_for(SignedDuration::from_secs(1));
    }
    let holder = masters.holder();
    let index = masters.hosts.iter().position(|host| host.name == holder).expect("a holder");
    agents.stopped.push(index);
    agents.live(9);
    let renewed = |masters: &Masters| masters.hosts.iter().filter(|host| host.renewals.get() > 0).count();
    assert_eq!(renewed(&masters), 1, "another went on too early");
    agents.live(3 * 60);
    assert_eq!(renewed(&masters), 3);
    // It comes back, and finishes.
    agents.stopped.clear();
    agents.live(60);
    (0..3).for_each(|host| is_renewed(&masters, host));
    assert_eq!(masters.worst.get(), 1);
}

#[test]
fn while_a_master_is_away_nobody_begins_until_it_is_urgent() {
    let masters = Masters::new(3, DAY * 16);
    masters.away.borrow_mut().push("master-3".to_owned());
    let mut agents = Agents::of(&masters);
    agents.stopped.push(2);
    agents.live(20 * 60);
    assert!(masters.hosts.iter().all(|host| host.renewals.get() == 0));
    let told = masters.hosts[0].notes.borrow().clone();
    assert_eq!(told, ["certificates are due; waiting until master-3 is Ready"]);
    agents.live(6 * 60);
    assert_eq!(masters.hosts.iter().filter(|host| host.renewals.get() == 1).count(), 2);
}

#[test]
fn a_wait_for_a_master_that_is_away_ends_when_it_is_urgent() {
    let masters = Masters::new(3, DAY * 15 + SignedDuration::from_mins(3));
    masters.away.borrow_mut().push("master-3".to_owned());
    let mut agents = Agents::of(&masters);
    agents.stopped.push(2);
    agents.live(2);
    assert!(masters.hosts.iter().all(|host| host.renewals.get() == 0));
    agents.live(4);
    assert_eq!(masters.hosts.iter().filter(|host| host.renewals.get() == 1).count(), 2);
}

#[test]
fn a_control_plane_that_slept_through_its_certificates_is_renewed_without_asking_anybody() {
    let masters = Masters::new(1, -DAY);
    let mut agents = Agents::of(&masters);
    agents.live(10);
    is_renewed(&masters, 0);
    assert!(masters.lease.borrow().is_none());
    assert_eq!(agents.failures, []);
}

#[test]
fn with_a_clock_that_is_wrong_nothing_is_renewed() {
    let masters = Masters::new(1, DAY * 300);
    masters.ahead.set(DAY * 400);
    let mut agents = Agents::of(&masters);
    agents.live(30);
    assert_eq!(masters.hosts[0].renewals.get(), 0);
    assert!(agents.failures.iter().all(|failure| failure.cause == Cause::ClockSkew) && !agents.failures.is_empty());
}

#[test]
fn an_authority_that_is_elsewhere_is_named_once_a_day() {
    let masters = Masters::new(1, DAY * 20);
    KEYS.iter().for_each(|key| masters.hosts[0].erase(&format!("/etc/kubernetes/pki/{key}")));
    let mut agents = Agents::of(&masters);
    agents.live(3 * 24 * 60);
    let told: Vec<String> = agents.failures.iter().map(ToString::to_string).collect();
    assert!((3..=4).contains(&told.len()), "{told:?}");
    assert!(told[0].contains("pki/ca.key is not on this machine"), "{}", told[0]);
    assert_eq!(masters.hosts[0].renewals.get(), 0);
}

#[test]
fn a_kubeadm_that_renews_nothing_is_not_asked_for_ever() {
    let masters = Masters::new(1, DAY * 20);
    masters.hosts[0].stubborn.set(true);
    let mut agents = Agents::of(&masters);
    agents.live(3 * 24 * 60);
    assert!((3..=4).contains(&masters.hosts[0].renewals.get()), "{}", masters.hosts[0].renewals.get());
    assert!(agents.failures.iter().all(|failure| failure.detail.contains("still ends")));
    assert_eq!(masters.holder(), "");
}

#[test]
fn a_pod_that_stays_down_is_named_and_no_other_is_touched() {
    let masters = Masters::new(3, DAY * 20);
    masters.hosts.iter().for_each(|host| host.sick.borrow_mut().push("kube-controller-manager".to_owned()));
    let mut agents = Agents::of(&masters);
    agents.live(60);
    let starts: Vec<usize> = masters.hosts.iter().map(|host| host.starts.borrow().len()).collect();
    assert_eq!(starts.iter().sum::<usize>(), 3, "{starts:?}");
    let told = agents.failures.last().expect("a failure").to_string();
    assert!(told.contains("kube-controller-manager") && told.contains("not healthy after"), "{told}");
    masters.hosts.iter().for_each(|host| host.sick.borrow_mut().clear());
    agents.live(3 * 60);
    (0..3).for_each(|host| is_renewed(&masters, host));
}
