//! `cargo xtask simulate`: many seeds of the simulator, or the whole story of one.

use clap::Args;
use kubestrap_sim::{Scenario, campaign, run_seed, scenario, tell};
use std::time::Instant;

/// Runs the simulator's scenarios; a broken rule ends it with the story and how to run it again.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Seeds per scenario, from 0
    #[arg(long, default_value_t = 1000)]
    pub seeds: u64,
    /// Only this scenario
    #[arg(long)]
    pub scenario: Option<String>,
    /// Only this seed
    #[arg(long)]
    pub seed: Option<u64>,
    /// Print every line of that seed's story, even when it ends well
    #[arg(long, requires = "seed")]
    pub story: bool,
    /// Threads; one per core when absent
    #[arg(long)]
    pub threads: Option<usize>,
}

/// Runs it. The error is what to print before exit code 1.
pub fn run(args: &SimulateArgs) -> Result<(), String> {
    for scenario in chosen(args.scenario.as_deref())? {
        match args.seed {
            Some(seed) => one(&scenario, seed, args.story)?,
            None => many(&scenario, args)?,
        }
    }
    Ok(())
}

fn chosen(name: Option<&str>) -> Result<Vec<Scenario>, String> {
    match name {
        None => Ok(scenario::all()),
        Some(name) => scenario::by_name(name).map(|scenario| vec![scenario]).ok_or_else(|| {
            let known: Vec<&str> = scenario::all().iter().map(|scenario| scenario.name).collect();
            format!("there is no scenario {name:?}; there are: {}", known.join(", "))
        }),
    }
}

fn one(scenario: &Scenario, seed: u64, story: bool) -> Result<(), String> {
    if story {
        tell(seed, scenario).iter().for_each(|line| println!("{line}"));
    }
    let summary = run_seed(seed, scenario).map_err(|violation| violation.to_string())?;
    println!("{}, seed {seed}: {} events, digest {:016x}", scenario.name, summary.events, summary.digest);
    Ok(())
}

fn many(scenario: &Scenario, args: &SimulateArgs) -> Result<(), String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    let seen = campaign(scenario, 0..args.seeds, args.threads.unwrap_or(cores));
    if let Some(violation) = seen.violation {
        return Err(violation.to_string());
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "{:<10} {:>7} seeds  {:>7.0} h simulated in {took:.1} s  {:?}",
        scenario.name, seen.seeds, seen.hours, seen.counts
    );
    Ok(())
}
