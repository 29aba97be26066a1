//! kill -9 between any two system calls of the adapters, enumerated on the real program: every story is told once and
//! the points it crosses are noted; then it is told again and again, each time killed at another crossing, and the
//! command is repeated. The end is always the same. The tables in `snapshots/` say for each point what is so at the
//! death, and what the repeated command does.

#[path = "../../src/adapters/killpoint/points.rs"]
mod points;
mod stage;
mod stories;

use self::points::Point;
use self::stage::{Crossing, Dead};
use self::stories::{MASTER, RESET, RETIRE, Story, WORKER};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Most of a life is spent waiting for kubeadm.
const SCENES_A_CORE: usize = 3;
/// One story has all of them.
static STAGE: Mutex<()> = Mutex::new(());

/// How a death went.
struct Told {
    /// The register's state at the death.
    register: String,
    /// The step at which the repeated command went on.
    step: String,
    /// What of kubeadm was run, in all.
    kubeadm: String,
}

/// Dies at every crossing; returns the table of it.
fn die_everywhere(story: &Story) -> String {
    let crossings = (story.scene)(&mut None).enumerate();
    assert!(crossings.len() > 20, "the program is not watched: {crossings:?}");
    let deaths: Vec<(&Crossing, Dead)> = crossings
        .iter()
        .flat_map(|at| {
            let who = if at.of_wrapper { &[Dead::Wrapper, Dead::Both][..] } else { &[Dead::Agent] };
            who.iter().map(move |who| (at, *who))
        })
        .collect();
    let _alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let (next, told) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let failures = Mutex::new(Vec::new());
    let play = || {
        let mut shared = None;
        while let Some((at, who)) = deaths.get(next.fetch_add(1, Ordering::Relaxed)) {
            let scene = (story.scene)(&mut shared);
            let played = catch_unwind(AssertUnwindSafe(|| {
                let death = scene.die(at, *who);
                scene.repeat();
                let (step, kubeadm) = (scene.went_on_at(*who, &death), scene.kubeadm());
                (story.verify)(&scene);
                Told { register: death.register, step, kubeadm }
            }));
            match played {
                Ok(how) => drop(told.lock().unwrap_or_else(PoisonError::into_inner).insert((*at, *who), how)),
                Err(panic) => {
                    let failure = format!("{who:?} at {at:?}: {}", words(&*panic));
                    failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..SCENES_A_CORE * std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(play);
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failures.is_empty(), "{} of {} deaths:\n{}", failures.len(), deaths.len(), failures.join("\n\n"));
    let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    table(&deaths, &told)
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// The table for people: a row tells all crossings of a point about a path, values in the order of the crossings.
fn table(deaths: &[(&Crossing, Dead)], told: &BTreeMap<(&Crossing, Dead), Told>) -> String {
    let mut rows = Vec::new();
    for (first, who) in deaths {
        let key = |at: &Crossing| (at.point, at.path.clone());
        let same = deaths.iter().filter(|(at, other)| key(at) == key(first) && other == who);
        if same.clone().next().is_none_or(|(at, _)| at != first) {
            continue;
        }
        let all: Vec<&Told> = same.filter_map(|death| told.get(death)).collect();
        let distinct = |of: fn(&Told) -> &str| {
            let mut seen: Vec<&str> = Vec::new();
            for value in all.iter().map(|told| of(told)) {
                if !seen.contains(&value) {
                    seen.push(value);
                }
            }
            if first.is_timed() { "whatever".to_owned() } else { seen.join(", ") }
        };
        let dead = match who {
            Dead::Agent => "agent",
            Dead::Wrapper => "wrapper",
            Dead::Both => "both",
        };
        // Not in the order of time: what the report does beside the steps is now here and now there.
        let order = (first.path.clone(), first.point, *who);
        let row = [
            first.path.clone(),
            first.point.name().to_owned(),
            dead.to_owned(),
            first.point.then().to_owned(),
            distinct(|told| &told.register),
            distinct(|told| &told.step),
            distinct(|told| &told.kubeadm),
        ];
        rows.push((order, row));
    }
    rows.sort_by_key(|(key, _)| key.clone());
    render(&rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>())
}

/// Paths as headings, cells in columns.
fn render(rows: &[[String; 7]]) -> String {
    let heads =
        ["", "point", "who dies", "what is so then", "register", "goes on at", "kubeadm in all"].map(str::to_owned);
    let width = |column: usize| rows.iter().chain([&heads]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let line = |row: &[String; 7]| {
        let cells: Vec<String> = (1..7).map(|column| format!("{:w$}", row[column], w = width(column))).collect();
        format!("  {}\n", cells.join("  ").trim_end())
    };
    let mut out = line(&heads);
    for (index, row) in rows.iter().enumerate() {
        if index == 0 || rows[index - 1][0] != row[0] {
            out.push_str(&format!("{}\n", row[0]));
        }
        out.push_str(&line(row));
    }
    out
}

#[test]
fn a_master_dies_between_any_two_system_calls() {
    insta::assert_snapshot!("kill_points_of_a_master", die_everywhere(&MASTER));
}

#[test]
fn a_worker_dies_between_any_two_system_calls() {
    insta::assert_snapshot!("kill_points_of_a_worker", die_everywhere(&WORKER));
}

#[test]
fn a_reset_dies_between_any_two_system_calls() {
    insta::assert_snapshot!("kill_points_of_a_reset", die_everywhere(&RESET));
}

#[test]
fn a_retirement_dies_between_any_two_system_calls() {
    insta::assert_snapshot!("kill_points_of_a_retirement", die_everywhere(&RETIRE));
}

/// Every point is in the committed table of a story, which that story has shown to be true.
#[test]
fn every_kill_point_is_crossed_by_a_story() {
    let tables = [
        include_str!("snapshots/integration__kill_points__kill_points_of_a_master.snap"),
        include_str!("snapshots/integration__kill_points__kill_points_of_a_worker.snap"),
        include_str!("snapshots/integration__kill_points__kill_points_of_a_reset.snap"),
        include_str!("snapshots/integration__kill_points__kill_points_of_a_retirement.snap"),
    ];
    let told: BTreeSet<&str> =
        tables.iter().flat_map(|table| table.lines()).filter_map(|line| line.split_whitespace().next()).collect();
    let untold: Vec<&str> = Point::ALL.iter().map(|point| point.name()).filter(|name| !told.contains(name)).collect();
    assert!(untold.is_empty(), "nobody dies at {untold:?}");
}
