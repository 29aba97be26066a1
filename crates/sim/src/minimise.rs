//! The smallest form of a scenario that still breaks the same rule.

use crate::run::run_seed;
use crate::scenario::Scenario;
use crate::story::Violation;

/// Leaving something out changes everything after it, so other seeds are tried too, this many.
const SEEDS: u64 = 60;

/// The scenario without these parts, in this order; the name of the first that is not there otherwise.
pub fn left_out(scenario: &Scenario, parts: &[String]) -> Result<Scenario, String> {
    let leave_out = |scenario: Scenario, part: &String| scenario.without(part).ok_or_else(|| part.clone());
    parts.iter().try_fold(scenario.clone(), leave_out)
}

/// Leaves out one part after the other for as long as the rule is still broken, by whatever seed. The violation of the
/// smallest scenario, which may be the one that was given. Minutes for a rule that is rarely broken.
pub fn minimise(found: Violation, scenario: &Scenario) -> Violation {
    let mut smallest = found;
    let Ok(mut current) = left_out(scenario, &smallest.without) else { return smallest };
    let mut done = false;
    while !done {
        done = true;
        for part in current.parts() {
            let Some(simpler) = current.without(part) else { continue };
            let seeds = std::iter::once(smallest.seed).chain(0..SEEDS);
            let still = seeds.filter_map(|seed| run_seed(seed, &simpler).err()).find(|new| new.rule == smallest.rule);
            if let Some(still) = still {
                let mut without = smallest.without.clone();
                without.push(part.to_owned());
                smallest = Violation { without, ..*still };
                current = simpler;
                done = false;
            }
        }
    }
    smallest
}
