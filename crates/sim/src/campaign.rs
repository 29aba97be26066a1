//! Many seeds of many scenarios, on every core.

use crate::run::{Summary, Violation, run_seed};
use crate::scenario::Scenario;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

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
    fn add(&mut self, result: Result<Summary, Violation>) {
        match result {
            Ok(summary) => {
                self.seeds += 1;
                self.events += summary.events;
                self.hours += summary.lasted.as_secs_f64() / 3600.0;
                summary.counts.into_iter().for_each(|(what, n)| *self.counts.entry(what).or_default() += n);
            }
            Err(new) => {
                if self.violation.as_ref().is_none_or(|known| new.seed < known.seed) {
                    self.violation = Some(new);
                }
            }
        }
    }
}

/// Runs seeds on `threads` threads; after a violation no further seed is begun.
pub fn campaign(scenario: &Scenario, seeds: Range<u64>, threads: usize) -> Campaign {
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
