//! Resident memory of idle agents that speak HTTPS and trust the system's roots.

use super::awscli::Loop;
use super::tap::Tap;
use super::world::{Agent, BUNDLE, SCRIPT, World};
use kubestrap_testkit::{files, pki};
use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the agents are left alone: their first reports are sent by then, and nothing else comes.
const IDLE: Duration = Duration::from_secs(20);
/// How long the shell loop is watched: some runs of the CLI with a second between them.
const WATCHED: Duration = Duration::from_secs(6);
/// Where distributions keep the roots (Debian, Fedora, SUSE; the list of rustls-native-certs begins so).
const SYSTEM_ROOTS: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// Resident memory, in KiB, as `/proc/PID/status` tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Resident {
    /// All of it.
    pub rss_kib: u64,
    /// Of it anonymous: what the machine can not get back.
    pub anonymous_kib: u64,
    /// Of it pages of files: the program itself, dropped under pressure and read again.
    pub file_kib: u64,
}

impl Resident {
    fn parse(status: &str) -> Option<Resident> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
        };
        let anonymous_kib: Option<u64> = field("RssAnon");
        Some(Resident { rss_kib: field("VmRSS")?, anonymous_kib: anonymous_kib?, file_kib: field("RssFile")? })
    }

    fn of(pid: u32) -> Option<Resident> {
        Resident::parse(&files::read_text(Path::new(&format!("/proc/{pid}/status"))).ok()?)
    }

    fn plus(self, other: Resident) -> Resident {
        Resident {
            rss_kib: self.rss_kib + other.rss_kib,
            anonymous_kib: self.anonymous_kib + other.anonymous_kib,
            file_kib: self.file_kib + other.file_kib,
        }
    }
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// An idle worker, in the process that joined.
    pub worker: Resident,
    /// An idle master, started again on a finished node.
    pub master: Resident,
    /// bash and the AWS CLI together, at most.
    pub loop_running: Resident,
    /// bash and sleep, between two runs.
    pub loop_sleeping: Resident,
    /// How many root certificates the system's file had.
    pub system_roots: usize,
    /// Requests both agents sent while they were left alone.
    pub requests_while_idle: usize,
}

/// Starts a new worker and the finished master over HTTPS, leaves them alone, and weighs them; then the shell loop.
pub fn measure(world: &World, aws: &Path, bundle: &[u8]) -> io::Result<Memory> {
    let ca = pki::make_ca("kubestrap bench CA", pki::CA_LIFE)?;
    let tap = Tap::secure(world.upstream(), &ca)?;
    let (roots, system_roots) = trust(world, &ca.certificate)?;
    world.put(BUNDLE, bundle)?;
    let mut master = world.agent("master", &tap.url, Some(&roots))?;
    let mut worker = world.agent("worker-https", &tap.url, Some(&roots))?;
    master.wait_until_ready()?;
    worker.wait_until_ready()?;
    std::thread::sleep(IDLE / 2);
    tap.clear();
    std::thread::sleep(IDLE / 2);
    let gone = |agent: &Agent| io::Error::other(format!("the agent {} is gone", agent.pid()));
    let weigh = |agent: &Agent| Resident::of(agent.pid()).ok_or_else(|| gone(agent));
    let (worker, master) = (weigh(&worker)?, weigh(&master)?);
    let requests_while_idle = tap.seen().len();
    let (loop_running, loop_sleeping) = weigh_loop(world, aws, &tap.url, &roots)?;
    Ok(Memory { worker, master, loop_running, loop_sleeping, system_roots, requests_while_idle })
}

/// The system's roots and one more, in a file of our own.
fn trust(world: &World, ca: &str) -> io::Result<(PathBuf, usize)> {
    let none = || io::Error::other(format!("there is none of {}: install ca-certificates", SYSTEM_ROOTS.join(", ")));
    let system = SYSTEM_ROOTS.iter().find(|path| Path::new(path).exists()).ok_or_else(none)?;
    let text = files::read_text(Path::new(system))?;
    let path = world.path("roots.pem");
    files::write(&path, format!("{text}\n{ca}").as_bytes(), 0o644)?;
    Ok((path, text.matches("BEGIN CERTIFICATE").count()))
}

fn weigh_loop(world: &World, aws: &Path, endpoint: &str, roots: &Path) -> io::Result<(Resident, Resident)> {
    // What it looks for is not there: it goes on looking.
    let _ = world.delete(SCRIPT);
    let waiting = Loop::start(world, aws, "loop-memory", endpoint, 1, Some(roots))?;
    let (began, mut most, mut least) = (Instant::now(), Resident::default(), None::<Resident>);
    while began.elapsed() < WATCHED {
        let members = group(waiting.group())?;
        let whole = members.iter().filter_map(|pid| Resident::of(*pid)).fold(Resident::default(), Resident::plus);
        if whole.rss_kib > most.rss_kib {
            most = whole;
        }
        // Between two runs there is bash, and sleep.
        let sleeps = members.len() == 2 && members.iter().any(|pid| program(*pid).as_deref() == Some("sleep"));
        if sleeps && least.is_none_or(|least| whole.rss_kib > least.rss_kib) {
            least = Some(whole);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok((most, least.unwrap_or_default()))
}

fn program(pid: u32) -> Option<String> {
    Some(files::read_text(Path::new(&format!("/proc/{pid}/comm"))).ok()?.trim().to_owned())
}

/// The processes of a group.
fn group(group: u32) -> io::Result<Vec<u32>> {
    let mut members = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // The second field is the program's name in parentheses and may hold anything; the fifth is the group.
        let stat = files::read_text(Path::new(&format!("/proc/{pid}/stat"))).unwrap_or_default();
        let of = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(2)?.parse::<u32>().ok());
        if of == Some(group) {
            members.push(pid);
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_of_a_process_and_members_of_its_group() {
        let status = "Name:\tx\nVmRSS:\t   12288 kB\nRssAnon:\t    4096 kB\nRssFile:\t    8192 kB\nRssShmem:\t 0 kB\n";
        let expected = Resident { rss_kib: 12288, anonymous_kib: 4096, file_kib: 8192 };
        assert_eq!(Resident::parse(status), Some(expected));
        assert_eq!(Resident::parse("Name:\tkthreadd\n"), None, "kernel threads have none");
        let own = Resident::of(std::process::id()).expect("this process");
        assert!(own.rss_kib >= own.anonymous_kib && own.anonymous_kib > 0, "{own:?}");
    }
}
