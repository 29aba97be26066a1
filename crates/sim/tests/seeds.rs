//! Some seeds of every scenario, for `cargo test` and for the mutants. Thousands: `cargo xtask simulate`.

use kubestrap_sim::{run_seed, scenario};
use std::collections::BTreeSet;

/// Runs the first seeds of a scenario; panics with the story of the first that fails.
fn seeds(name: &str, count: u64) {
    let scenario = scenario::by_name(name).expect(name);
    for seed in 0..count {
        if let Err(violation) = run_seed(seed, &scenario) {
            panic!("\n{violation}\n");
        }
    }
}

macro_rules! scenarios {
    ($($test:ident: $name:literal, $count:literal;)*) => {
        $(
            #[test]
            fn $test() {
                seeds($name, $count);
            }
        )*
        const TESTED: &[&str] = &[$($name),*];
    };
}

scenarios! {
    calm: "calm", 10;
    race: "race", 120;
    kills: "kills", 120;
    death: "death", 120;
    storm: "storm", 120;
    metal: "metal", 60;
    unlock: "unlock", 80;
    commit: "commit", 120;
    clocks: "clocks", 30;
    boot_clock: "boot-clock", 40;
    clock_steps: "clock-steps", 15;
    partitions: "partitions", 60;
    api_away: "api-away", 20;
    disk: "disk", 60;
    logins: "logins", 40;
    cloud: "cloud", 60;
    blind: "blind", 24;
    forgotten: "forgotten", 60;
    lifecycle: "lifecycle", 40;
    foreign: "foreign", 60;
    clone: "clone", 60;
    rebuilt: "rebuilt", 20;
    roll: "roll", 12;
    masters: "masters", 40;
    masters_raced: "masters-raced", 40;
    master_lost: "master-lost", 30;
    masters_founder: "masters-founder", 40;
    masters_bare: "masters-bare", 30;
    masters_leave: "masters-leave", 30;
    masters_noticed: "masters-noticed", 30;
    masters_unlocked: "masters-unlocked", 40;
    masters_bundle: "masters-bundle", 30;
}

/// Seed 1: the clock of a master that had waited for minutes was set, and it stopped for ever, seconds later.
#[test]
fn worst() {
    seeds("worst", 3);
}

#[test]
fn every_scenario_has_a_test() {
    let known: BTreeSet<&str> = scenario::all().iter().map(|scenario| scenario.name).collect();
    assert_eq!(TESTED.iter().copied().collect::<BTreeSet<_>>(), known);
}

#[test]
fn a_seed_is_a_whole_history() {
    for scenario in scenario::all() {
        for seed in 0..2 {
            let runs = [run_seed(seed, &scenario), run_seed(seed, &scenario)];
            let [first, second] = runs.map(|run| run.expect("no violation"));
            assert_eq!(first, second, "{}", scenario.name);
            assert!(first.events > 50, "{}: hardly anything happened", scenario.name);
        }
    }
}
