//! Judges a run from its samples alone. Pure, so that a leak can be planted in a test.

use super::sample::{Agent, Sample};
use super::world::{MACHINES, MORTAL};
use std::time::Duration;

/// From this length on memory is judged by its slope: on a shorter run that says nothing.
const LONG: Duration = Duration::from_secs(20 * 60);
/// The quiet end of a long run: longer than a token lives, so that a token of the stormy time is a leak.
const QUIET: Duration = Duration::from_secs(12 * 60);
/// The quiet end of a short run: a master looks once a minute whether its token is still there.
const SHORT_QUIET: Duration = Duration::from_secs(90);
/// Growth of memory that is none, in KiB per hour: an allocator returns pages late. A leak of one request's buffers
/// (some KiB, every half minute) is a multiple of it.
const FLAT_KIB_PER_HOUR: f64 = 512.0;
/// Between the second and the last quarter, in KiB.
const FLAT_KIB: u64 = 384;
/// No answer, however long, may take more memory than this, program and all. (An hour in which a store sent bodies
/// without an end found an agent with 3 GiB.)
const PEAK_KIB: u64 = 96 * 1024;
/// Connections that are kept open for the next request, and the threads of the resolver.
const POOLED: u64 = 4;
/// The journal and the trace are bounded; this is far above what a day leaves.
const STATE_BYTES: u64 = 2 * 1024 * 1024;
/// The current token, the one before it that lives on, and one that is being made.
const TOKENS: u64 = 3;
/// Register, bundle, self-test, and a report of each node.
const OBJECTS: u64 = 3 + MACHINES.len() as u64;
/// A report is due every 30 s; this is two of them and the way.
const REPORT_AGE: i64 = 75;
/// Tokens live ten minutes and are replaced at half of that.
const BUNDLE_LIVES: i64 = 4 * 60;

/// From the beginning of a fault to the beginning of the next one, at most.
pub fn pause(length: Duration) -> Duration {
    Duration::from_secs(if length >= LONG { 45 } else { 9 })
}

/// How much of the end of a run is without faults.
pub fn quiet(length: Duration) -> Duration {
    if length >= LONG { QUIET } else { SHORT_QUIET.min(length * 3 / 5) }
}

/// A run.
pub struct Run {
    /// How long it was to last.
    pub length: Duration,
    /// In the order of time, evenly spaced; the first before any fault.
    pub samples: Vec<Sample>,
    /// How many faults there were.
    pub faults: u64,
    /// The cluster's uid and CA before.
    pub before: (String, String),
    /// And after.
    pub after: (String, String),
}

/// One judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Of what.
    pub what: String,
    /// What was found.
    pub found: String,
    /// Whether it is as it should be.
    pub good: bool,
}

fn verdict(what: impl Into<String>, good: bool, found: impl Into<String>) -> Verdict {
    Verdict { what: what.into(), found: found.into(), good }
}

impl Run {
    /// All of them.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let (Some(first), Some(last)) = (self.samples.first(), self.samples.last()) else {
            return vec![verdict("samples", false, "there are none")];
        };
        let expected = self.length.saturating_sub(quiet(self.length)).as_secs() / 60;
        let mut verdicts = vec![verdict("faults happened", self.faults > expected, format!("{}", self.faults))];
        for (machine, name) in MACHINES.iter().enumerate() {
            verdicts.extend(self.of_agent(name, machine, &first.agents[machine], &last.agents[machine]));
        }
        verdicts.extend(self.of_cluster(last));
        verdicts
    }

    fn of_agent(&self, name: &str, machine: usize, first: &Agent, last: &Agent) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        if machine != MORTAL {
            let same = first.pid == last.pid;
            verdicts.push(verdict(format!("{name}: one process lived through it"), same, format!("{}", last.pid)));
            if self.length >= LONG {
                verdicts.extend(self.memory(name, machine));
            }
        }
        let peak = self.samples.iter().map(|sample| sample.agents[machine].peak_kib).max().unwrap_or_default();
        let found = format!("{} MiB", peak / 1024);
        verdicts.push(verdict(format!("{name}: memory at its peak"), peak > 0 && peak <= PEAK_KIB, found));
        let (before, after) = (first.sockets + first.files, last.sockets + last.files);
        let flat = last.pid != 0 && after <= before + POOLED;
        verdicts.push(verdict(format!("{name}: descriptors"), flat, format!("{before}, then {after}")));
        let flat = last.threads <= first.threads + POOLED;
        verdicts.push(verdict(format!("{name}: threads"), flat, format!("{}, then {}", first.threads, last.threads)));
        verdicts.push(verdict(format!("{name}: zombies"), last.zombies == 0, format!("{}", last.zombies)));
        // What a killed agent left half-written is swept up ten minutes later, by a run that is long enough.
        let allowed = if self.length >= LONG || machine != MORTAL { 0 } else { self.faults };
        let tidy = last.temporary <= allowed && last.state_bytes <= STATE_BYTES;
        let found =
            format!("{} files, {} KiB; {} temporary", last.state_files, last.state_bytes / 1024, last.temporary);
        verdicts.push(verdict(format!("{name}: state folder"), tidy, found));
        verdicts
    }

    fn memory(&self, name: &str, machine: usize) -> Vec<Verdict> {
        let series: Vec<(f64, f64)> = self
            .samples
            .iter()
            .map(|sample| (sample.at as f64 / 3600.0, sample.agents[machine].anonymous_kib as f64))
            .collect();
        let half = &series[series.len() / 2..];
        let slope = theil_sen(half);
        let quarter = |number: usize| {
            let length = series.len() / 4;
            median(series[number * length..(number + 1) * length].iter().map(|(_, kib)| *kib).collect())
        };
        let (second, last) = (quarter(1), quarter(3));
        let grown = last - second;
        vec![
            verdict(
                format!("{name}: slope of memory, second half"),
                slope <= FLAT_KIB_PER_HOUR,
                format!("{slope:+.0} KiB/h"),
            ),
            verdict(
                format!("{name}: memory, second and last quarter"),
                grown <= FLAT_KIB as f64,
                format!("{second:.0}, then {last:.0} KiB"),
            ),
        ]
    }

    fn of_cluster(&self, last: &Sample) -> Vec<Verdict> {
        // Tokens whose creation went unanswered live on until they expire.
        let allowed = if self.length >= LONG { TOKENS } else { TOKENS + self.faults };
        let tokens = last.tokens > 0 && last.tokens <= allowed && last.dead_tokens == 0;
        let found = format!("{} ({} expired)", last.tokens, last.dead_tokens);
        let ages: Vec<String> =
            last.report_age.iter().map(|age| age.map_or("none".to_owned(), |age| format!("{age} s"))).collect();
        let fresh = last.report_age.iter().all(|age| age.is_some_and(|age| age <= REPORT_AGE));
        let lives = last.bundle_lives.unwrap_or_default();
        vec![
            verdict("bootstrap tokens", tokens, found),
            verdict("the bundle's token is the API server's", last.token_is_known, format!("{}", last.token_is_known)),
            verdict("objects in the store", last.objects == OBJECTS, format!("{}", last.objects)),
            verdict("the bundle is good for minutes", lives >= BUNDLE_LIVES, format!("{lives} s")),
            verdict("every node reports", fresh, format!("reports are {} old", ages.join(", "))),
            verdict("one cluster, one CA", self.before == self.after, self.after.1.clone()),
        ]
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The median of the slopes between all pairs: steps and outliers, which an allocator makes, do not move it.
fn theil_sen(points: &[(f64, f64)]) -> f64 {
    let slopes = points.iter().enumerate().flat_map(|(index, (x, y))| {
        points[index + 1..]
            .iter()
            .filter(move |(later, _)| later > x)
            .map(move |(later, value)| (value - y) / (later - x))
    });
    median(slopes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A good run of so many minutes, after somebody tampered with its samples.
    fn run(minutes: u64, tamper: impl Fn(usize, &mut Sample)) -> Vec<Verdict> {
        let agent = Agent {
            anonymous_kib: 6000,
            peak_kib: 30_000,
            threads: 2,
            sockets: 3,
            files: 9,
            state_files: 12,
            ..Agent::default()
        };
        let agents: Vec<Agent> = (1..=3).map(|pid| Agent { pid, ..agent.clone() }).collect();
        let sample = |number: usize| {
            let at = number as i64 * 10;
            // The allocator breathes.
            let mut agents = agents.clone();
            agents.iter_mut().for_each(|agent| agent.anonymous_kib += (number % 7) as u64 * 20);
            let report_age = vec![Some(20); 3];
            let (token_is_known, bundle_lives) = (true, Some(400));
            let mut sample =
                Sample { at, agents, tokens: 2, dead_tokens: 0, token_is_known, objects: 6, bundle_lives, report_age };
            tamper(number, &mut sample);
            sample
        };
        let samples = (0..minutes as usize * 6).map(sample).collect();
        let id = ("uid".to_owned(), "ca".to_owned());
        let length = Duration::from_secs(minutes * 60);
        Run { length, samples, faults: minutes * 3, before: id.clone(), after: id }.verdicts()
    }

    fn bad(verdicts: &[Verdict]) -> Vec<&str> {
        verdicts.iter().filter(|verdict| !verdict.good).map(|verdict| verdict.what.as_str()).collect()
    }

    #[test]
    fn a_run_that_leaves_everything_as_it_was_is_good() {
        assert!(bad(&run(60, |_, _| {})).is_empty());
        assert!(bad(&run(2, |_, _| {})).is_empty());
    }

    #[test]
    fn memory_that_grows_is_noticed_and_a_step_at_the_beginning_is_not() {
        let leak = run(60, |number, sample| sample.agents[0].anonymous_kib += number as u64 * 3);
        assert_eq!(bad(&leak), ["m1: slope of memory, second half", "m1: memory, second and last quarter"]);
        let steps = run(60, |number, sample| sample.agents[1].anonymous_kib += if number > 250 { 600 } else { 0 });
        assert!(bad(&steps).contains(&"w1: memory, second and last quarter"), "{steps:?}");
        let warm = run(60, |number, sample| sample.agents[1].anonymous_kib += if number > 30 { 3000 } else { 0 });
        assert!(bad(&warm).is_empty());
    }

    #[test]
    fn every_kind_of_leftover_is_noticed() {
        let last = |of: usize| of == 6 * 60 - 1;
        let found = |tamper: fn(&mut Sample)| {
            let verdicts = run(60, |number, sample| {
                if last(number) {
                    tamper(sample)
                }
            });
            bad(&verdicts).join(", ")
        };
        assert_eq!(found(|sample| sample.agents[0].sockets += 5), "m1: descriptors");
        assert_eq!(found(|sample| sample.agents[2].pid = 0), "w2: descriptors");
        assert_eq!(found(|sample| sample.agents[1].pid = 77), "w1: one process lived through it");
        assert_eq!(found(|sample| sample.agents[0].threads += 5), "m1: threads");
        assert_eq!(found(|sample| sample.agents[1].peak_kib = 3_000_000), "w1: memory at its peak");
        assert_eq!(found(|sample| sample.agents[0].zombies = 1), "m1: zombies");
        assert_eq!(found(|sample| sample.agents[2].temporary = 1), "w2: state folder");
        assert_eq!(found(|sample| sample.agents[0].state_bytes = STATE_BYTES + 1), "m1: state folder");
        assert_eq!(found(|sample| sample.tokens = 4), "bootstrap tokens");
        assert_eq!(found(|sample| sample.tokens = 0), "bootstrap tokens");
        assert_eq!(found(|sample| sample.dead_tokens = 1), "bootstrap tokens");
        assert_eq!(found(|sample| sample.token_is_known = false), "the bundle's token is the API server's");
        assert_eq!(found(|sample| sample.objects = 7), "objects in the store");
        assert_eq!(found(|sample| sample.bundle_lives = None), "the bundle is good for minutes");
        assert_eq!(found(|sample| sample.report_age[1] = Some(300)), "every node reports");
    }

    #[test]
    fn another_ca_or_no_faults_at_all_are_noticed() {
        let id = ("uid".to_owned(), "ca".to_owned());
        let sample = Sample { agents: vec![Agent { pid: 1, ..Agent::default() }; 3], ..Sample::default() };
        let run = Run {
            length: Duration::from_secs(60),
            samples: vec![sample],
            faults: 0,
            before: id,
            after: Default::default(),
        };
        let verdicts = run.verdicts();
        let bad = bad(&verdicts);
        assert!(bad.contains(&"faults happened") && bad.contains(&"one cluster, one CA"), "{bad:?}");
    }
}
