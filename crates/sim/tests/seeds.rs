//! A thousand seeds over every scenario. Longer: `cargo xtask simulate --seeds 100000`.

use kubestrap_sim::{Scenario, run_seed, scenario};
use std::collections::BTreeMap;

/// Runs seeds of a scenario; panics with the story of the first that fails; returns how often what happened.
fn seeds(name: &str, count: u64) -> BTreeMap<&'static str, u64> {
    let scenario: Scenario = scenario::by_name(name).expect(name);
    let mut total = BTreeMap::new();
    for seed in 0..count {
        match run_seed(seed, &scenario) {
            Ok(summary) => summary.counts.into_iter().for_each(|(what, n)| *total.entry(what).or_default() += n),
            Err(violation) => panic!("\n{violation}\n"),
        }
    }
    println!("{name}: {total:?}");
    total
}

#[test]
fn calm() {
    seeds("calm", 20);
}

#[test]
fn race() {
    seeds("race", 150);
}

#[test]
fn kills() {
    seeds("kills", 150);
}

#[test]
fn death() {
    seeds("death", 150);
}

#[test]
fn storm() {
    seeds("storm", 150);
}

#[test]
fn metal() {
    seeds("metal", 150);
}

#[test]
fn unlock() {
    let seen = seeds("unlock", 150);
    assert!(seen["unlocks"] > 50, "{seen:?}");
}

#[test]
fn clocks() {
    seeds("clocks", 60);
}

#[test]
fn lifecycle() {
    seeds("lifecycle", 60);
}

#[test]
fn foreign() {
    seeds("foreign", 100);
}

#[test]
fn a_seed_is_a_whole_history() {
    for scenario in scenario::all() {
        for seed in 0..3 {
            let runs = [run_seed(seed, &scenario), run_seed(seed, &scenario)];
            let [first, second] = runs.map(|run| run.expect("no violation"));
            assert_eq!(first, second, "{}", scenario.name);
            assert!(first.events > 50, "{}: hardly anything happened", scenario.name);
        }
    }
}
