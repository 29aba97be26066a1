//! An hour of nodes that have nothing to do: how often they ask anybody for anything.

use crate::run::run_seed;
use crate::scenario;
use crate::story::Violation;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is simulated after everything settled. The end is looked for every five seconds: that much more at most.
const HOUR: Duration = Duration::from_secs(3600);
/// The default life of bootstrap tokens, in minutes.
const TOKEN_MINUTES: &[u64] = &[60];
/// Ports whose calls leave the machine. The rest is files, programs and facts of the machine itself.
const REMOTE: &[&str] = &["objects.", "cluster.", "metadata.", "cloud."];

/// Requests of a settled master and a settled worker in one virtual hour, by name of the call (`objects.put`).
///
/// A call is one request, but for what an SDK does by itself below the port, which is not seen here: credentials that
/// it renews, pages of a long list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleHour {
    /// The master's.
    pub master: BTreeMap<&'static str, u64>,
    /// The worker's.
    pub worker: BTreeMap<&'static str, u64>,
}

/// Simulates one master and one worker with default settings until both are nodes, and an hour more.
pub fn idle_hour(seed: u64) -> Result<IdleHour, Box<Violation>> {
    let calm = scenario::calm();
    let quiet = scenario::Scenario { name: "idle", workers: 1, afterwards: HOUR, token_minutes: TOKEN_MINUTES, ..calm };
    let calls = run_seed(seed, &quiet)?.calls;
    let of = |machine: usize| {
        let own = calls.iter().filter(|((who, name), _)| *who == machine && is_remote(name));
        own.map(|((_, name), count)| (*name, *count)).collect()
    };
    Ok(IdleHour { master: of(0), worker: of(1) })
}

fn is_remote(name: &str) -> bool {
    REMOTE.iter().any(|port| name.starts_with(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_nodes_report_and_the_master_looks_after_its_token() {
        let hour = idle_hour(1).expect("no violation");
        let reports = hour.worker["objects.put"];
        assert!((10..=20).contains(&reports), "a report every 5 min at most, 2.5 min at least: {hour:?}");
        assert!(hour.master["cluster.call"] >= 60, "the token is looked at each minute: {hour:?}");
        assert!(hour.worker.keys().all(|name| is_remote(name)), "{hour:?}");
    }

    /// Counts, not times: the same on every machine. The master lists the Nodes every two minutes, to see that the machine
    /// of one is gone. (Where there may be several masters its agent also renews or looks at a Lease every five seconds, at
    /// its own API server.)
    #[test]
    fn idle_nodes_stay_within_their_hourly_requests() {
        for seed in 0..20 {
            let hour = idle_hour(seed).expect("no violation");
            let (worker, master): (u64, u64) = (hour.worker.values().sum(), hour.master.values().sum());
            assert!(worker <= 20 && master <= 155, "seed {seed}: worker {worker}, master {master}: {hour:?}");
        }
    }
}
