//! Many seeds of the simulator, or the whole story of one. `cargo xtask simulate` builds it optimised and starts it.

use clap::Parser;
use kubestrap_sim::{Campaign, Scenario, TELLING, Violation, campaign, minimise, run_seed, scenario, tell};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a long campaign says how far it is.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Simulates whole clusters under faults, with the safety rules as invariants. A broken rule ends it: what happened, the
/// smallest scenario in which it still happens, and how to run it again.
#[derive(Debug, Parser)]
#[command(
    name = "simulate",
    after_help = "Examples:
  cargo xtask simulate                                ten thousand seeds over every scenario, as CI does
  cargo xtask simulate --seeds 1000000 --first 10000  a long campaign, with seeds that CI does not run
  cargo xtask simulate --scenario storm --counts      one scenario, and how often what happened
  cargo xtask simulate --scenario storm --seed 17 --story"
)]
struct Options {
    /// Seeds in all, shared by the scenarios; one whose seeds take long gets half as many
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed of each scenario
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Only these scenarios
    #[arg(long)]
    scenario: Vec<String>,
    /// Leave these out of them: faults, calamities, machines
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    without: Vec<String>,
    /// Of the faults, calamities and further machines, only these; what is named twice is there twice
    #[arg(long, value_name = "PARTS", conflicts_with = "without")]
    only: Option<String>,
    /// Only this seed
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Print every line of that seed's story, even when it ends well
    #[arg(long, requires = "seed")]
    story: bool,
    /// Print how often what happened
    #[arg(long)]
    counts: bool,
    /// Go on with the next scenario after a broken rule
    #[arg(long)]
    keep_going: bool,
    /// Threads; one per core when absent
    #[arg(long)]
    threads: Option<usize>,
}

/// Sums over the scenarios.
#[derive(Default)]
struct Total {
    seeds: u64,
    hours: f64,
    events: u64,
    counts: BTreeMap<&'static str, u64>,
    bad: u32,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match options.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("simulate: {why}");
            ExitCode::from(2)
        }
    }
}

impl Options {
    /// Whether all was well; the error is one of usage.
    fn run(&self) -> Result<bool, String> {
        let scenarios = self.chosen()?;
        let began = Instant::now();
        let shares: u64 = scenarios.iter().map(Scenario::share).sum();
        let mut total = Total::default();
        for scenario in &scenarios {
            let good = match self.seed {
                Some(seed) => self.one(scenario, seed),
                None => self.many(scenario, (self.seeds * scenario.share()).div_ceil(shares), &mut total),
            };
            total.bad += u32::from(!good);
            if !good && !self.keep_going {
                return Ok(false);
            }
        }
        if self.seed.is_none() {
            total.say(scenarios.len(), began.elapsed());
        }
        Ok(total.bad == 0)
    }

    fn chosen(&self) -> Result<Vec<Scenario>, String> {
        let known = || scenario::all().iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
        let by_name = |name: &String| {
            scenario::by_name(name).ok_or_else(|| format!("there is no scenario {name:?}; there are: {}", known()))
        };
        let named: Vec<Scenario> = self.scenario.iter().map(by_name).collect::<Result<_, _>>()?;
        let all = if named.is_empty() { scenario::all() } else { named };
        all.iter().map(|scenario| self.reduced(scenario)).collect()
    }

    /// The scenario without what was left out on the command line.
    fn reduced(&self, scenario: &Scenario) -> Result<Scenario, String> {
        let unknown = |part: &str| {
            let parts = scenario.parts().join(", ");
            format!("scenario {} has no part {part:?}; it has: {parts}", scenario.name)
        };
        if let Some(only) = &self.only {
            let kept: Vec<&str> = only.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
            return scenario.only(&kept).map_err(|part| unknown(&part));
        }
        let leave_out = |simpler: Scenario, part: &String| simpler.without(part).ok_or_else(|| unknown(part));
        self.without.iter().try_fold(scenario.clone(), leave_out)
    }

    fn is_reduced(&self) -> bool {
        self.only.is_some() || !self.without.is_empty()
    }

    fn one(&self, scenario: &Scenario, seed: u64) -> bool {
        if self.story {
            tell(seed, scenario).iter().for_each(|line| println!("{line}"));
        }
        match run_seed(seed, scenario) {
            Ok(summary) => {
                println!("{}, seed {seed}: {} events, digest {:016x}", scenario.name, summary.events, summary.digest);
                if self.counts {
                    println!("{}", listed(&summary.counts));
                }
                true
            }
            Err(violation) => self.explain(*violation, scenario),
        }
    }

    fn many(&self, scenario: &Scenario, seeds: u64, total: &mut Total) -> bool {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (began, said) = (Instant::now(), AtomicU64::new(0));
        let progress = |ended: u64| {
            let periods = began.elapsed().as_secs() / SAID_EVERY.as_secs();
            if said.fetch_max(periods, Ordering::Relaxed) < periods {
                let rate = ended as f64 / began.elapsed().as_secs_f64();
                eprintln!("{}: {ended} of {seeds} seeds, {rate:.0} a second", scenario.name);
            }
        };
        let threads = self.threads.unwrap_or(cores);
        let seen = campaign(scenario, self.first..self.first + seeds, threads, &progress);
        let took = began.elapsed().as_secs_f64();
        println!(
            "{:<12} {:>7} seeds  {:>7.0} h simulated in {took:>5.1} s  {}",
            scenario.name, seen.seeds, seen.hours, scenario.about
        );
        if self.counts {
            println!("{}", listed(&seen.counts));
        }
        total.add(&seen);
        if let Some(violation) = seen.violation {
            return self.explain(violation, scenario);
        }
        // What was left out on purpose cannot have happened.
        let never = if self.is_reduced() { Vec::new() } else { seen.never_happened(scenario) };
        if !never.is_empty() {
            println!(
                "scenario {} shows nothing about: {} (never in {} seeds; from {TELLING} on that is an error)",
                scenario.name,
                never.join(", "),
                seen.seeds
            );
        }
        never.is_empty()
    }

    /// Tells what broke, and the story of the smallest scenario that breaks likewise.
    fn explain(&self, mut violation: Violation, scenario: &Scenario) -> bool {
        violation.only = self.is_reduced().then(|| scenario.parts_in_one_word());
        println!("\n{}\n", violation.summary());
        eprintln!("looking for a smaller scenario that breaks rule {} too ...", violation.rule);
        match minimise(&violation, scenario) {
            Some(smallest) => println!("the same with less going wrong:\n{smallest}\n"),
            None => println!("nothing can be left out:\n{violation}\n"),
        }
        false
    }
}

impl Total {
    fn add(&mut self, seen: &Campaign) {
        self.seeds += seen.seeds;
        self.hours += seen.hours;
        self.events += seen.events;
        seen.counts.iter().for_each(|(what, n)| *self.counts.entry(what).or_default() += n);
    }

    fn say(&self, scenarios: usize, took: Duration) {
        let (seconds, kinds) = (took.as_secs_f64(), self.counts.len());
        println!(
            "{} seeds of {scenarios} scenarios, {:.0} virtual hours, {} events of which {kinds} kinds are counted, in \
             {seconds:.0} s ({:.0} seeds a second): {}",
            self.seeds,
            self.hours,
            self.events,
            self.seeds as f64 / seconds.max(0.001),
            if self.bad == 0 { "no rule was broken".to_owned() } else { format!("{} scenarios FAILED", self.bad) }
        );
    }
}

fn listed(counts: &BTreeMap<&'static str, u64>) -> String {
    let counts: Vec<String> = counts.iter().map(|(what, n)| format!("{what} {n}")).collect();
    format!("    {}", counts.join(", "))
}
