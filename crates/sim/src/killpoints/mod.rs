//! Kill points: a story is told once without a fault, and every crossing of the gate is counted; then it is told again
//! for each of them, and the agent dies right there. Whatever the point and whatever the death, the end is the same.
//!
//! Unlike [`crate::scenario`], nothing is left to chance: [`enumerate`] leaves no crossing out.

mod end_state;
mod story;
mod strike;

pub use end_state::EndState;
pub use story::{Story, stories};
pub use strike::{Crossing, How, Strikes};

use crate::run::play;
use crate::trace::Keep;
use crate::universe::Universe;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use strike::{At, Strike};

/// How a story was told to its end.
#[derive(Debug, Clone)]
pub struct Told {
    /// What the world looks like.
    pub end: EndState,
    /// The victim's crossings, in order.
    pub crossings: Vec<Crossing>,
    /// How often what happened: `inits`, `joins`, `resets`, `bundles`.
    pub counts: BTreeMap<&'static str, u64>,
    /// How many of the planned strikes fell.
    pub struck: usize,
}

/// What a death changed in the story, and that its end was the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The story.
    pub story: &'static str,
    /// The call, with everything that differs from run to run taken out.
    pub call: String,
    /// How the agent died there.
    pub how: How,
    /// What it took to come to the same end.
    pub outcome: String,
}

/// Tells the story without a strike.
///
/// # Errors
/// With the broken rule: the story itself is wrong.
pub fn clean(story: &Story) -> Result<Told, String> {
    tell(story, &[])
}

/// Kills the victim at every crossing, in every way that is possible there; `each` sees every row. The number of
/// runs.
///
/// # Errors
/// With the first run whose end differs: how to tell it again, and its last events.
pub fn enumerate(story: &Story, mut each: impl FnMut(Row)) -> Result<usize, String> {
    let before = clean(story)?;
    let mut runs = 0;
    let mut seen = BTreeMap::<String, usize>::new();
    for (number, crossing) in before.crossings.iter().enumerate() {
        let times = seen.entry(crossing.to_string()).or_default();
        *times += 1;
        if *times > story.most_of_a_kind {
            continue;
        }
        for how in How::ALL.iter().filter(|how| how.is_possible(crossing)) {
            let told = strike_and_compare(story, &before, &[(number, *how)])?;
            let outcome = outcome(&before.counts, &told.counts);
            each(Row { story: story.name, call: crossing.to_string(), how: *how, outcome });
            runs += 1;
        }
    }
    Ok(runs)
}

/// Kills the victim twice, at so many pairs of crossings, spread evenly over all pairs; the second is counted from the
/// beginning of the story like the first. The number of runs.
///
/// # Errors
/// As for [`enumerate`].
pub fn pairs(story: &Story, count: usize) -> Result<usize, String> {
    let before = clean(story)?;
    let (length, deaths) = (before.crossings.len(), [How::Before, How::After, How::PowerCut]);
    let all = length * length * deaths.len() * deaths.len();
    let mut runs = 0;
    // A stride that shares no factor with the number of pairs comes to every one of them in the end.
    let stride = (all / count.max(1)).max(1) | 1;
    let mut pair = 0;
    while pair < all {
        let (first, rest) = (pair % length, pair / length);
        let (second, rest) = (rest % length, rest / length);
        let (one, two) = (deaths[rest % deaths.len()], deaths[rest / deaths.len()]);
        pair += stride;
        if !one.is_possible(&before.crossings[first]) {
            continue;
        }
        // After the first death the crossings are others: what is there is struck before, which is always possible.
        let two = if two == How::After { How::Before } else { two };
        strike_and_compare(story, &before, &[(first, one), (first + 1 + second, two)])?;
        runs += 1;
    }
    Ok(runs)
}

fn strike_and_compare(story: &Story, before: &Told, plan: &[(usize, How)]) -> Result<Told, String> {
    let told = tell(story, plan)?;
    // The second one comes too late when the recovery needs fewer crossings.
    if told.struck < story.prologue.len() + 1 {
        return Err(format!("{}: nobody died at {plan:?}: the story is not deterministic", story.name));
    }
    if told.end == before.end {
        return Ok(told);
    }
    Err(format!("{}: the end after {plan:?} is another one:\n{}", story.name, before.end.difference(&told.end)))
}

fn tell(story: &Story, plan: &[(usize, How)]) -> Result<Told, String> {
    let (universe, verdict) = run(story, plan, Keep::Nothing);
    if let Err((rule, what)) = verdict {
        let (again, _) = run(story, plan, Keep::Story);
        let lines: Vec<String> = again.story_of(&what).iter().map(ToString::to_string).collect();
        let lines = lines.join("\n  ");
        return Err(format!("{}, {plan:?}: rule {rule} was broken: {what}\n  {lines}", story.name));
    }
    let strikes = universe.deaths.borrow();
    let counts = universe.monitor.borrow().counts.clone();
    let (crossings, struck) = (strikes.crossings(), strikes.struck());
    Ok(Told { end: EndState::of(&universe), crossings, counts, struck })
}

fn run(story: &Story, plan: &[(usize, How)], keep: Keep) -> (Rc<Universe>, Result<(), (u8, String)>) {
    let universe = Universe::new(story.seed, &story.scenario, keep);
    let deaths =
        plan.iter().map(|(number, how)| Strike { machine: story.victim, at: At::Crossing(*number), how: *how });
    let planned: Vec<Strike> = story.prologue.iter().cloned().chain(deaths).collect();
    *universe.deaths.borrow_mut() = Strikes::new(planned, story.victim, story.from_ready).with_failure(story.failure);
    story.schedule(&universe);
    let verdict = play(&universe);
    (universe, verdict)
}

/// What the run did beyond the clean one, in words.
fn outcome(clean: &BTreeMap<&'static str, u64>, seen: &BTreeMap<&'static str, u64>) -> String {
    let more = |what: &str| {
        let count = |counts: &BTreeMap<&'static str, u64>| counts.get(what).copied().unwrap_or_default();
        count(seen).saturating_sub(count(clean))
    };
    let words = [("resets", "resets"), ("inits", "init again"), ("joins", "join again"), ("bundles", "another bundle")];
    let mut said: Vec<&str> = words.iter().filter(|(what, _)| more(what) > 0).map(|(_, word)| *word).collect();
    if said.is_empty() {
        said.push("goes on");
    }
    said.join(", ")
}

/// Rows as a table for people, one line for each call and death; several outcomes of the same call at different
/// moments stand beside each other.
pub fn table(rows: &BTreeSet<Row>) -> String {
    let mut lines: BTreeMap<(&str, &str, How), Vec<&str>> = BTreeMap::new();
    for row in rows {
        lines.entry((row.story, &row.call, row.how)).or_default().push(&row.outcome);
    }
    let mut text = String::new();
    let mut story = "";
    for ((of, call, how), outcomes) in lines {
        if of != story {
            story = of;
            text += &format!("\n== {story}\n");
        }
        text += &format!("{call:<72} {:<10} {}\n", how.to_string(), outcomes.join(" | "));
    }
    text
}
