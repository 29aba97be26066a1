//! Requests of idle nodes: an hour of the real core in the simulator.

use kubestrap_sim::idle_hour;
use serde::Serialize;
use std::collections::BTreeMap;

/// Seeds: the jitter of reports and the life of tokens differ.
const SEEDS: u64 = 20;

/// Requests in an hour, of one role.
#[derive(Debug, Serialize)]
pub struct Hour {
    /// The median of the seeds.
    pub median: u64,
    /// The busiest of the seeds.
    pub most: u64,
    /// What the busiest asked, by name of the call.
    pub calls: BTreeMap<&'static str, u64>,
}

/// Both roles.
#[derive(Debug, Serialize)]
pub struct Requests {
    /// An idle worker's hour.
    pub worker: Hour,
    /// An idle master's hour.
    pub master: Hour,
    /// How many hours were simulated.
    pub hours: u64,
}

/// Simulates the hours. The error tells which rule was broken, which should not happen when nothing goes wrong.
pub fn measure() -> Result<Requests, String> {
    let mut hours = Vec::new();
    for seed in 0..SEEDS {
        hours.push(idle_hour(seed).map_err(|violation| violation.to_string())?);
    }
    let worker = hour(hours.iter().map(|hour| &hour.worker).collect());
    Ok(Requests { worker, master: hour(hours.iter().map(|hour| &hour.master).collect()), hours: SEEDS })
}

fn hour(mut hours: Vec<&BTreeMap<&'static str, u64>>) -> Hour {
    let total = |calls: &&BTreeMap<&'static str, u64>| calls.values().sum::<u64>();
    hours.sort_by_key(total);
    let busiest = hours.last().map(|calls| (*calls).clone()).unwrap_or_default();
    let median = hours.get(hours.len() / 2).map_or(0, total);
    Hour { median, most: busiest.values().sum(), calls: busiest }
}
