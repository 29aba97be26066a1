//! The smallest form of a scenario that still breaks the same rule.

use crate::run::run_seed;
use crate::scenario::Scenario;
use crate::story::Violation;

/// Leaving something out changes everything after it, so other seeds are tried too, this many.
const SEEDS: u64 = 60;

/// Leaves out one part after the other for as long as the rule is still broken, by whatever seed. `None` when nothing
/// can be left out. Minutes for a rule that is rarely broken.
pub fn minimise(found: &Violation, scenario: &Scenario) -> Option<Violation> {
    let breaks_too = |simpler: &Scenario, seed: u64| {
        let mut seeds = std::iter::once(seed).chain(0..SEEDS);
        seeds.find_map(|seed| run_seed(seed, simpler).err().filter(|new| new.rule == found.rule))
    };
    let mut smallest: Option<Violation> = None;
    let mut current = scenario.clone();
    let mut shrinks = true;
    while shrinks {
        shrinks = false;
        for part in current.parts() {
            let Some(simpler) = current.without(part) else { continue };
            let seed = smallest.as_ref().map_or(found.seed, |smallest| smallest.seed);
            if let Some(still) = breaks_too(&simpler, seed) {
                smallest = Some(Violation { only: Some(simpler.parts_in_one_word()), ..*still });
                current = simpler;
                shrinks = true;
            }
        }
    }
    smallest
}
