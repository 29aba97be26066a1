//! Every gate crossing of every story is a death once, in every way, and the story ends as it would have ended.
//! Longer: `KUBESTRAP_KILL_PAIRS=100000 cargo test -p kubestrap-sim --test kill_points`.

use kubestrap_core::gate::Method;
use kubestrap_sim::killpoints::{Row, clean, enumerate, pairs, stories, table};
use std::collections::BTreeSet;

/// Methods that no story crosses, each with who does, and what shows what a death there does.
const ELSEWHERE: &[(Method, &str)] = &[
    (
        Method::JobsStop,
        "a master that lost the register while it ran init: scenario `unlock`, where it is killed by chance",
    ),
    (
        Method::VaultStretch,
        "masters with a passphrase instead of KMS: tests of core's `pki`, and `sealed` of the integration tests",
    ),
    (Method::ObjectsExpiryRules, "`doctor` alone, which changes nothing"),
    (Method::CloudCredentials, "`doctor` alone, which changes nothing"),
    (Method::CloudCompleteLifecycle, NO_HOOKS),
    (Method::CloudHeartbeat, NO_HOOKS),
];

/// The instances of these stories have no hooks.
const NO_HOOKS: &str =
    "`watch-end`, which its own tests kill at every call, and `signal-launch`, whose one call is asked for again";

/// Kills the victim of a story at every crossing. What each death led to is in the snapshot.
fn every_crossing(story: &str) {
    let story = stories().into_iter().find(|known| known.name == story).expect(story);
    let mut rows = BTreeSet::<Row>::new();
    let runs = enumerate(&story, |row| {
        rows.insert(row);
    });
    let runs = runs.unwrap_or_else(|why| panic!("\n{why}\n"));
    println!("{}: {runs} deaths", story.name);
    assert!(runs > 60, "{}: {runs} deaths", story.name);
    insta::assert_snapshot!(story.name.replace(' ', "_"), table(&rows));
}

#[test]
fn a_first_master_killed_at_every_crossing_ends_as_it_would_have_ended() {
    every_crossing("first master");
}

#[test]
fn a_worker_killed_at_every_crossing_ends_as_it_would_have_ended() {
    every_crossing("worker");
}

#[test]
fn an_early_worker_killed_at_every_crossing_ends_as_it_would_have_ended() {
    every_crossing("early worker");
}

#[test]
fn a_takeover_killed_at_every_crossing_ends_as_it_would_have_ended() {
    every_crossing("takeover");
}

#[test]
fn a_failed_init_killed_at_every_crossing_ends_as_it_would_have_ended() {
    every_crossing("failed init");
}

#[test]
fn a_failed_join_killed_at_every_crossing_ends_as_it_would_have_ended() {
    every_crossing("failed join");
}

#[test]
fn a_master_that_seals_its_keys_killed_at_every_crossing_ends_as_it_would_have_ended() {
    every_crossing("sealed master");
}

#[test]
fn a_further_master_killed_at_every_crossing_ends_as_it_would_have_ended() {
    every_crossing("further master");
}

#[test]
fn a_failed_control_plane_killed_at_every_crossing_ends_as_it_would_have_ended() {
    every_crossing("failed control plane");
}

#[test]
fn a_worker_that_pulls_images_killed_at_every_crossing_ends_as_it_would_have_ended() {
    every_crossing("images");
}

#[test]
fn duties_killed_at_every_crossing_ends_as_it_would_have_ended() {
    every_crossing("duties");
}

#[test]
fn an_arbiter_killed_at_every_crossing_ends_as_it_would_have_ended() {
    every_crossing("arbiter");
}

#[test]
fn a_rolled_worker_killed_at_every_crossing_ends_as_it_would_have_ended() {
    every_crossing("rolled worker");
}

#[test]
fn killed_twice_every_bootstrap_ends_as_it_would_have_ended() {
    let wanted = std::env::var("KUBESTRAP_KILL_PAIRS").ok().map(|text| text.parse().expect("a number"));
    // An agent that dies once more as a node leaves what it had not yet pulled ahead to the kubelet: another end, rightly.
    let once = ["duties", "images", "arbiter", "rolled worker"];
    for story in stories().into_iter().filter(|story| !once.contains(&story.name)) {
        let runs = pairs(&story, wanted.unwrap_or(100)).unwrap_or_else(|why| panic!("\n{why}\n"));
        println!("{}: {runs} pairs", story.name);
        assert!(runs > 60, "{}: {runs} pairs", story.name);
    }
}

#[test]
fn every_method_of_every_port_is_crossed_or_excused() {
    let told: Vec<_> = stories().iter().map(|story| clean(story).unwrap_or_else(|why| panic!("\n{why}\n"))).collect();
    told.iter().zip(stories()).for_each(|(told, story)| println!("{}: {} crossings", story.name, told.crossings.len()));
    let crossed: BTreeSet<&str> = told.iter().flat_map(|told| &told.crossings).map(|crossing| crossing.name).collect();
    for method in Method::ALL {
        let excused = ELSEWHERE.iter().any(|(excused, _)| excused == method);
        let name = method.name();
        assert_ne!(crossed.contains(name), excused, "{name}: crossed {}, excused {excused}", crossed.contains(name));
    }
}
