//! Many seeds of a scenario, on every core; and whether they showed anything.

use crate::run::{Summary, run_seed};
use crate::scenario::Scenario;
use crate::story::Violation;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A campaign of so many seeds must have seen everything that its scenario is about; a shorter one may miss the rarest.
pub const TELLING: u64 = 180;

/// What many seeds of one scenario were.
#[derive(Debug, Clone, Default)]
pub struct Campaign {
    /// How many ran to their end.
    pub seeds: u64,
    /// Events of all of them.
    pub events: u64,
    /// Virtual hours of all of them.
    pub hours: f64,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// The violation of the lowest seed that had one.
    pub violation: Option<Violation>,
}

impl Campaign {
    fn add(&mut self, result: Result<Summary, Box<Violation>>) {
        match result {
            Ok(summary) => {
                self.seeds += 1;
                self.events += summary.events;
                self.hours += summary.lasted.as_secs_f64() / 3600.0;
                summary.counts.into_iter().for_each(|(what, n)| *self.counts.entry(what).or_default() += n);
            }
            Err(new) => {
                if self.violation.as_ref().is_none_or(|known| new.seed < known.seed) {
                    self.violation = Some(*new);
                }
            }
        }
    }

    /// What the scenario is about and never happened: a fault kind, a calamity, an event that it must have seen. Empty
    /// for a campaign that is shorter than [`TELLING`].
    pub fn never_happened(&self, scenario: &Scenario) -> Vec<&'static str> {
        let seen = |what: &&'static str| self.counts.get(what).copied().unwrap_or_default() > 0;
        let expected = scenario.expected().into_iter();
        if self.seeds < TELLING { Vec::new() } else { expected.filter(|what| !seen(what)).collect() }
    }
}

/// Runs seeds on `threads` threads; after a violation no further seed is begun. `progress` is told after each seed how
/// many have ended.
pub fn campaign(scenario: &Scenario, seeds: Range<u64>, threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Campaign {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Campaign::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let result = run_seed(seed, scenario);
            if result.is_err() {
                next.store(seeds.end, Ordering::Relaxed);
            }
            if let Ok(mut total) = total.lock() {
                total.add(result);
                progress(total.seeds);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    total.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn a_campaign_in_which_a_fault_never_struck_shows_nothing() {
        let kills = scenario::by_name("kills").expect("kills");
        let counts = kills.expected().into_iter().map(|what| (what, 1)).collect();
        let mut seen = Campaign { seeds: TELLING, counts, ..Campaign::default() };
        assert_eq!(seen.never_happened(&kills), Vec::<&str>::new());
        seen.counts.insert("reboot", 0);
        seen.counts.remove("killed-within");
        assert_eq!(seen.never_happened(&kills), ["killed-within", "reboot"]);
        seen.seeds = TELLING - 1;
        assert_eq!(seen.never_happened(&kills), Vec::<&str>::new());
    }
}
