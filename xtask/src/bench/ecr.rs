//! The kubelet's plugin for ECR beside `docker-credential-ecr-login` and `aws ecr get-login-password`: whole processes,
//! one endpoint, one run.

use super::stats::Series;
use super::{awscli, mib};
use crate::process::workspace;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use kubestrap_testkit::files;
use kubestrap_testkit::http::{Answer, Background, Handler, Request, respond};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const ROUNDS: usize = 100;
/// The AWS CLI takes half a second each time.
const CLI_ROUNDS: usize = 8;
const HERD: usize = 100;
const HELPER: &str = "docker-credential-ecr-login";

/// ECR, with tokens that live for twelve hours: moto's died in 2015, and nobody keeps those.
#[derive(Default)]
struct Ecr {
    calls: AtomicU64,
}

impl Handler for Ecr {
    async fn handle(&self, _: Request) -> Answer {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // As long as real ones.
        let token = STANDARD.encode(format!("AWS:{}", "x".repeat(1900)));
        let expires_at = (Timestamp::now() + SignedDuration::from_hours(12)).as_second();
        let data = serde_json::json!({ "authorizationToken": token, "expiresAt": expires_at,
            "proxyEndpoint": format!("https://{HOST}") });
        let body = serde_json::json!({ "authorizationData": [data] }).to_string();
        Answer::Response(Box::new(respond(200, "application/x-amz-json-1.1", body)))
    }
}

/// One of the three.
struct Contender {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    input: String,
    rounds: usize,
}

/// Surroundings of the measurement.
struct Bench {
    folder: TempDir,
    endpoint: String,
    ecr: Arc<Ecr>,
}

/// Measures and prints. `helper` is the program to compare with, when it is not in PATH.
pub fn run(kubestrap: PathBuf, build: &str, helper: Option<&Path>) -> io::Result<()> {
    let helper = find(helper)?;
    let aws = awscli::install(&workspace().join("target/awscli"))?;
    let ecr = Arc::<Ecr>::default();
    let server = Background::start(SocketAddr::from(([127, 0, 0, 1], 0)), ecr.clone())?;
    // In memory, as /run is on a node: the disk's fsync would be most of what is measured.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("kubestrap-bench-ecr-").tempdir_in(place)?;
    let bench = Bench { folder, endpoint: server.url(), ecr };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let request = format!(
        r#"{{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderRequest","image":"{HOST}/app"}}"#
    );
    let cache = bench.folder.path().join("home/run");
    let ours = words(&["ecr-credential-provider", "--cache-dir", &cache.to_string_lossy()]);
    let cli = words(&["ecr", "get-login-password", "--region", "eu-west-1"]);
    let ours = Contender { name: "kubestrap", program: kubestrap, arguments: ours, input: request, rounds: ROUNDS };
    let theirs =
        Contender { name: HELPER, program: helper, arguments: words(&["get"]), input: HOST.to_owned(), rounds: ROUNDS };
    let cli = Contender { name: "aws ecr", program: aws, arguments: cli, input: String::new(), rounds: CLI_ROUNDS };
    println!("measuring the {build}; wall time of the whole process (median, p90), and its peak of resident memory");
    let [ours_cold, theirs_cold] = bench.side_by_side([&ours, &theirs], true)?;
    let [cli_cold] = bench.side_by_side([&cli], true)?;
    let [ours_cached, theirs_cached] = bench.side_by_side([&ours, &theirs], false)?;
    let verdict = |what: &str, ratio: f64, least: f64| {
        let met = if ratio >= least { "yes" } else { "NO" };
        println!("{what:<58} {ratio:6.1}x   target {least:4.1}x   {met}");
    };
    println!();
    verdict("cached, beside docker-credential-ecr-login", theirs_cached.time / ours_cached.time, 3.0);
    verdict("cold, beside docker-credential-ecr-login", theirs_cold.time / ours_cold.time, 3.0);
    verdict("cold, beside the AWS CLI", cli_cold.time / ours_cold.time, 20.0);
    verdict("memory cold, beside docker-credential-ecr-login", theirs_cold.memory / ours_cold.memory, 2.0);
    verdict("memory cached, beside docker-credential-ecr-login", theirs_cached.memory / ours_cached.memory, 2.0);
    let (calls, took) = bench.herd(&ours)?;
    println!("{HERD} invocations at once: {calls} call(s) to ECR, {:.0} ms for all", took.as_secs_f64() * 1000.0);
    Ok(())
}

fn find(given: Option<&Path>) -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(HELPER)).find(|file| file.is_file());
    given.map(Path::to_owned).or(found).ok_or_else(|| {
        io::Error::other(format!(
            "{HELPER} is not in PATH: install Debian's amazon-ecr-credential-helper, 0.8 or newer (bookworm's 0.6 does \
             not know AWS_ENDPOINT_URL), or name the program with --ecr-login FILE"
        ))
    })
}

/// What was seen of one contender; milliseconds and MiB.
struct Seen {
    time: f64,
    memory: f64,
}

impl Bench {
    /// Rounds in turns, so that what else the machine does meets all of them alike; first for the time, then again for the
    /// memory, for looking at it takes time.
    fn side_by_side<const N: usize>(&self, contenders: [&Contender; N], cold: bool) -> io::Result<[Seen; N]> {
        self.forget()?;
        // The first fills the page cache, and their own caches when those are what is measured.
        for contender in contenders {
            self.round(contender, false, false)?;
        }
        let mut samples = [(); N].map(|()| (Vec::new(), 0));
        let rounds = contenders.iter().map(|contender| contender.rounds).min().unwrap_or_default();
        for weigh in [false, true] {
            for _ in 0..rounds {
                for (contender, (times, most)) in contenders.iter().zip(&mut samples) {
                    let (took, peak) = self.round(contender, cold, weigh)?;
                    if weigh {
                        *most = peak.max(*most);
                    } else {
                        times.push(took);
                    }
                }
            }
        }
        let kind = if cold { "cold" } else { "cached" };
        for (contender, (times, most)) in contenders.iter().zip(&samples) {
            let Some(series) = Series::of(times) else { continue };
            let (name, median, p90) = (contender.name, series.median_ms, series.p90_ms);
            println!("{name:<28} {kind:<7} {median:7.1} ms {p90:7.1} ms {:7.1} MiB", mib(*most));
        }
        let seen = |(times, most): &(Vec<Duration>, u64)| Seen {
            time: Series::of(times).map_or(f64::NAN, |series| series.median_ms),
            memory: mib(*most),
        };
        Ok(std::array::from_fn(|index| seen(&samples[index])))
    }

    /// One run: how long it took, and its peak of memory in KiB when that is looked at.
    fn round(&self, contender: &Contender, cold: bool, weigh: bool) -> io::Result<(Duration, u64)> {
        if cold {
            self.forget()?;
        }
        let began = Instant::now();
        let mut child = self.once(contender)?;
        let peak = if weigh { peak(child.id()) } else { 0 };
        if !child.wait()?.success() {
            return Err(io::Error::other(format!("{} failed", contender.name)));
        }
        Ok((began.elapsed(), peak))
    }

    /// Takes away what either of them keeps.
    fn forget(&self) -> io::Result<()> {
        let home = self.folder.path().join("home");
        if home.exists() {
            std::fs::remove_dir_all(&home)?;
        }
        files::make_folder(&home, 0o700)
    }

    fn once(&self, contender: &Contender) -> io::Result<Child> {
        let mut command = Command::new(&contender.program);
        command.args(&contender.arguments).env_clear().env("HOME", self.folder.path().join("home"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("AWS_ENDPOINT_URL", &self.endpoint).env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_ACCESS_KEY_ID", "AKIABENCH").env("AWS_SECRET_ACCESS_KEY", "bench");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(contender.input.as_bytes())?;
        }
        Ok(child)
    }

    /// Many at once, with nothing in the cache: how often ECR was asked, and how long it took.
    fn herd(&self, contender: &Contender) -> io::Result<(u64, Duration)> {
        self.forget()?;
        let (before, began) = (self.ecr.calls.load(Ordering::Relaxed), Instant::now());
        let children: Vec<Child> = (0..HERD).map(|_| self.once(contender)).collect::<io::Result<_>>()?;
        for mut child in children {
            if !child.wait()?.success() {
                return Err(io::Error::other("an invocation of the herd failed"));
            }
        }
        Ok((self.ecr.calls.load(Ordering::Relaxed) - before, began.elapsed()))
    }
}

/// The peak of a process's resident memory in KiB, looked at until it ends: what wait4(2) tells begins with the memory of
/// the process that started it.
fn peak(pid: u32) -> u64 {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let mut most = 0;
    loop {
        let text = files::read_text(&path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let Some(now) = line.and_then(|line| line.split_whitespace().next()?.parse().ok()) else { return most };
        most = most.max(now);
    }
}
