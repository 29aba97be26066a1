//! `cargo xtask bench`: kubestrap beside the shell loop it replaces, in one run on one machine. What counts are the
//! ratios; it is not a test, and a missed target does not fail it.

mod awscli;
mod ecr;
mod latency;
mod memory;
mod requests;
mod startup;
mod stats;
mod table;
mod tap;
mod world;

use crate::process::{build, programs, workspace};
use clap::Args;
use latency::Latency;
use memory::{Memory, Resident};
use requests::Requests;
use serde::Serialize;
use stats::Series;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use table::{Row, Target};
use world::World;

/// Rounds of a start-up.
const STARTS: usize = 10;
/// So much time the rounds of workers may take; those of each shell loop likewise. Fewer rounds are told.
const WORKERS_AT_MOST: Duration = Duration::from_secs(75);
const LOOPS_AT_MOST: Duration = Duration::from_secs(45);

/// Options of `bench`.
#[derive(Args)]
pub struct Bench {
    /// The program to measure, instead of target/release/kubestrap, or the dev build when there is none.
    #[arg(long, value_name = "FILE")]
    kubestrap: Option<PathBuf>,
    /// Workers that wait for a bundle, one after the other.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Shell loops that wait for their script, for each of the two intervals.
    #[arg(long, default_value_t = 6)]
    loop_rounds: usize,
    /// Measure the kubelet's plugin for ECR instead, beside docker-credential-ecr-login and the AWS CLI.
    #[arg(long)]
    ecr: bool,
    /// The docker-credential-ecr-login to measure, when it is not in PATH.
    #[arg(long, value_name = "FILE", requires = "ecr")]
    ecr_login: Option<PathBuf>,
}

/// Everything that was seen; `target/bench.json`.
#[derive(Serialize)]
struct Seen {
    build: String,
    cores: usize,
    /// Processes that wanted to run, on average over the last minute: before the run, and after it.
    load: [f64; 2],
    took_s: f64,
    rows: Vec<Row>,
    worker: Latency,
    loop_5s: Latency,
    loop_1s: Latency,
    start_kubestrap: Series,
    start_aws: Series,
    memory: Memory,
    requests: Requests,
}

impl Bench {
    /// Measures, prints the table, writes `target/bench.json`.
    pub fn run(self) -> io::Result<()> {
        build()?;
        let (kubestrap, build) = self.program()?;
        if self.ecr {
            return ecr::run(kubestrap, &build, self.ecr_login.as_deref());
        }
        let target = workspace().join("target");
        let aws = awscli::install(&target.join("awscli"))?;
        let (began, load_before) = (Instant::now(), load());
        let world = World::new(kubestrap, programs()?, &target.join("moto"))?;
        println!("measuring the {build}, beside `aws s3 cp` in a shell loop; about three minutes ...");
        let bundle = latency::make_cluster(&world)?;
        say(began, "workers that wait for a bundle");
        let worker = latency::kubestrap(&world, &bundle, self.rounds, WORKERS_AT_MOST)?;
        say(began, "shell loops with `sleep 5`");
        let loop_5s = latency::shell_loop(&world, &aws, 5, self.loop_rounds, LOOPS_AT_MOST)?;
        say(began, "shell loops with `sleep 1`");
        let loop_1s = latency::shell_loop(&world, &aws, 1, self.loop_rounds, LOOPS_AT_MOST)?;
        say(began, "start-up");
        let start_kubestrap = startup::kubestrap(&world, STARTS)?;
        let start_aws = startup::aws(&world, &aws, STARTS)?;
        say(began, "memory");
        let memory = memory::measure(&world, &aws, &bundle)?;
        say(began, "an hour of idle nodes, simulated");
        let requests = requests::measure().map_err(io::Error::other)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let took_s = began.elapsed().as_secs_f64();
        let mut seen = Seen {
            build,
            cores,
            load: [load_before, load()],
            took_s,
            rows: Vec::new(),
            worker,
            loop_5s,
            loop_1s,
            start_kubestrap,
            start_aws,
            memory,
            requests,
        };
        seen.rows = seen.table();
        seen.print();
        let file = target.join("bench.json");
        std::fs::write(&file, serde_json::to_string_pretty(&seen)? + "\n")?;
        println!("\nEvery sample is in target/bench.json. It took {took_s:.0} s.");
        Ok(())
    }

    /// The program to measure, and what it is.
    fn program(&self) -> io::Result<(PathBuf, String)> {
        if let Some(given) = &self.kubestrap {
            return Ok((std::path::absolute(given)?, format!("program {}", given.display())));
        }
        let dev = programs()?.join("kubestrap");
        let release = dev.parent().and_then(Path::parent).map(|target| target.join("release/kubestrap"));
        Ok(match release.filter(|path| path.exists()) {
            Some(release) => (release, "release build".to_owned()),
            None => (dev, "dev build (for fair figures: cargo build --release --bin kubestrap)".to_owned()),
        })
    }
}

fn say(began: Instant, what: &str) {
    println!("{:5.0} s  {what}", began.elapsed().as_secs_f64());
}

/// The load of the last minute; not a number where the kernel does not tell.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

impl Seen {
    fn table(&self) -> Vec<Row> {
        let mut rows = self.latency_rows();
        let (start, other) = (self.start_kubestrap.median_ms, self.start_aws.median_ms);
        rows.push(Row::new("start of a process to its first request, median", start, Some(other), "ms", Target::None));
        rows.extend(self.memory_rows());
        let (worker, master) = (&self.requests.worker, &self.requests.master);
        rows.push(Row::new("requests of an idle worker", worker.most as f64, None, "requests/h", Target::AtMost(20.0)));
        rows.push(Row::new(
            "requests of an idle master",
            master.most as f64,
            None,
            "requests/h",
            Target::AtMost(120.0),
        ));
        rows
    }

    fn latency_rows(&self) -> Vec<Row> {
        let (ours, slow, quick) = (&self.worker, &self.loop_5s, &self.loop_1s);
        let ms = |what: &str, ours: f64, other: f64, target| Row::new(what, ours, Some(other), "ms", target);
        vec![
            ms(
                "bundle in the store to kubeadm, median (sleep 5)",
                ours.whole.median_ms,
                slow.whole.median_ms,
                Target::Under(1000.0),
            ),
            ms("bundle in the store to kubeadm, p90 (sleep 5)", ours.whole.p90_ms, slow.whole.p90_ms, Target::None),
            ms(
                "bundle in the store to kubeadm, median (sleep 1)",
                ours.whole.median_ms,
                quick.whole.median_ms,
                Target::Under(1000.0),
            ),
            ms("bundle in the store to kubeadm, p90 (sleep 1)", ours.whole.p90_ms, quick.whole.p90_ms, Target::None),
            ms(
                "  of it after the store's answer, median",
                ours.after_answer.median_ms,
                quick.after_answer.median_ms,
                Target::None,
            ),
            ms("  of it our own work, median", ours.own_work.median_ms, quick.own_work.median_ms, Target::Under(50.0)),
            ms("  of it our own work, p90", ours.own_work.p90_ms, quick.own_work.p90_ms, Target::None),
        ]
    }

    fn memory_rows(&self) -> Vec<Row> {
        let memory = &self.memory;
        let row =
            |what: &str, ours: u64, other: u64, target| Row::new(what, mib(ours), Some(mib(other)), "MiB", target);
        let limit = Target::AtMost(12.0);
        let of = |who: &str, ours: &Resident, other: &Resident, target| {
            [
                row(&format!("memory of {who}, resident"), ours.rss_kib, other.rss_kib, target),
                row("  of it anonymous", ours.anonymous_kib, other.anonymous_kib, Target::None),
                row("  of it pages of files", ours.file_kib, other.file_kib, Target::None),
            ]
        };
        let mut rows = Vec::from(of("an idle worker (loop: aws runs)", &memory.worker, &memory.loop_running, limit));
        rows.extend(of("an idle master (loop: aws runs)", &memory.master, &memory.loop_running, limit));
        let sleeping = memory.loop_sleeping.rss_kib;
        rows.push(row("memory of an idle worker (loop: sleeps)", memory.worker.rss_kib, sleeping, Target::None));
        rows
    }

    fn print(&self) {
        let [before, after] = self.load;
        println!("\n{} on {} cores, load {before} before and {after} after", self.build, self.cores);
        if before > self.cores as f64 {
            println!("Others were using this machine: the times are too long, on both sides.");
        }
        println!("\n{}", table::render(&self.rows));
        let rounds = |latency: &Latency| latency.whole.samples_ms.len();
        println!(
            "Rounds: {} workers, {} loops with `sleep 5`, {} with `sleep 1`. Own work: what is left of the time after the \
             store's answer when the time in which the store was asked for the cluster register is taken off.",
            rounds(&self.worker),
            rounds(&self.loop_5s),
            rounds(&self.loop_1s)
        );
        println!(
            "Requests: the busiest of {} simulated hours (worker {:?}, master {:?}; medians {} and {}). \
             By arithmetic, a shell loop that waits asks 3600 / 5 = 720 or 3600 / 1 = 3600 times an hour, less the time \
             `aws` runs; a kubestrap worker that waits asks 600 s / 0.65 s + 3000 s / 3.3 s = 1832 times in its first hour. \
             After the join the loop has ended: it asks nothing, and nobody hears of that node again.",
            self.requests.hours,
            self.requests.worker.calls,
            self.requests.master.calls,
            self.requests.worker.median,
            self.requests.master.median
        );
        println!(
            "Memory: over HTTPS, with {} system roots; both agents together sent {} requests in the last 10 s before they \
             were weighed.",
            self.memory.system_roots, self.memory.requests_while_idle
        );
    }
}
