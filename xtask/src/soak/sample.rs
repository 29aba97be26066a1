//! One look at everything that could grow.

use super::world::{MACHINES, World};
use jiff::Timestamp;
use kubestrap_testkit::files;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An agent at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agent {
    /// Its process; 0 while it is down.
    pub pid: u32,
    /// Anonymous memory, in KiB: what the machine cannot get back.
    pub anonymous_kib: u64,
    /// Resident memory, in KiB.
    pub rss_kib: u64,
    /// The most that was ever resident in this process, in KiB.
    pub peak_kib: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors that are sockets.
    pub sockets: u64,
    /// All other open descriptors.
    pub files: u64,
    /// Its children that ended and that it does not wait for.
    pub zombies: u64,
    /// Files below its state folder.
    pub state_files: u64,
    /// Their size in bytes.
    pub state_bytes: u64,
    /// Of them temporary ones.
    pub temporary: u64,
}

/// The whole cluster at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// When, in seconds since 1970.
    pub at: i64,
    /// In the order of [`MACHINES`].
    pub agents: Vec<Agent>,
    /// Bootstrap tokens that the API server has.
    pub tokens: u64,
    /// Of them those that expired more than a minute ago.
    pub dead_tokens: u64,
    /// Whether the bundle's token is one of them.
    pub token_is_known: bool,
    /// Objects in the store.
    pub objects: u64,
    /// Seconds until the bundle expires; none without a bundle that can be read.
    pub bundle_lives: Option<i64>,
    /// Age of each node's last report in seconds; none without a report of a ready node.
    pub report_age: Vec<Option<i64>>,
}

impl Sample {
    /// Takes one.
    ///
    /// # Errors
    /// When the machines' folders cannot be read.
    pub fn take(world: &World) -> io::Result<Sample> {
        let now = Timestamp::now();
        let age = |text: &str| Some(now.duration_since(text.parse::<Timestamp>().ok()?).as_secs());
        let agents = (0..MACHINES.len()).map(|machine| agent(world, machine)).collect::<io::Result<_>>()?;
        let bundle = world.object("join/worker.json");
        let report_age = MACHINES.iter().map(|name| {
            let report = world.report(name).filter(|report| report["phase"] == "ready")?;
            age(report["reported_at"].as_str()?)
        });
        let tokens = tokens(world);
        let id = bundle.as_ref().and_then(|bundle| Some(bundle["token"].as_str()?.split_once('.')?.0.to_owned()));
        Ok(Sample {
            at: now.as_second(),
            agents,
            tokens: tokens.len() as u64,
            dead_tokens: tokens.values().filter(|text| age(text).is_none_or(|age| age > 60)).count() as u64,
            token_is_known: id.is_some_and(|id| tokens.contains_key(&id)),
            objects: world.store.keys().len() as u64,
            bundle_lives: bundle.and_then(|bundle| age(bundle["expires_at"].as_str()?)).map(|age| -age),
            report_age: report_age.collect(),
        })
    }
}

/// When each bootstrap token expires, by its id. The server writes the state whole; while it is replaced there is none.
fn tokens(world: &World) -> BTreeMap<String, String> {
    let state = world.api_state().unwrap_or_default();
    let secrets = state["objects"].as_object().into_iter().flatten();
    let secrets =
        secrets.filter_map(|(path, secret)| Some((path.split_once("/secrets/bootstrap-token-")?.1.to_owned(), secret)));
    let expires = |secret: &serde_json::Value| {
        let plain = secret["stringData"]["expiration"].as_str().map(str::to_owned);
        plain.or_else(|| decoded(secret["data"]["expiration"].as_str()?)).unwrap_or_default()
    };
    secrets.map(|(id, secret)| (id, expires(secret))).collect()
}

/// The stand-in keeps values as they were sent: plain, or in base64.
fn decoded(text: &str) -> Option<String> {
    use base64::Engine;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).ok()?).ok()
}

fn agent(world: &World, machine: usize) -> io::Result<Agent> {
    let mut agent = Agent::default();
    let state = world.root(machine).join("var/lib/kubestrap");
    weigh(&state, &mut agent)?;
    if world.is_up(machine) {
        agent.pid = world.pid(machine);
        process(agent.pid, &mut agent);
    }
    Ok(agent)
}

fn weigh(folder: &Path, agent: &mut Agent) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // A temporary file may be gone by now.
        let Ok(data) = entry.metadata() else { continue };
        if data.is_dir() {
            weigh(&entry.path(), agent)?;
            continue;
        }
        agent.state_files += 1;
        agent.state_bytes += data.len();
        agent.temporary += u64::from(entry.file_name().to_string_lossy().starts_with(".kubestrap-"));
    }
    Ok(())
}

fn process(pid: u32, agent: &mut Agent) {
    let place = PathBuf::from(format!("/proc/{pid}"));
    let status = files::read_text(&place.join("status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    };
    (agent.anonymous_kib, agent.rss_kib, agent.threads) = (field("RssAnon"), field("VmRSS"), field("Threads"));
    agent.peak_kib = field("VmHWM");
    for entry in std::fs::read_dir(place.join("fd")).into_iter().flatten().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        let is_socket = target.to_string_lossy().starts_with("socket:");
        *(if is_socket { &mut agent.sockets } else { &mut agent.files }) += 1;
    }
    let children = files::read_text(&place.join(format!("task/{pid}/children"))).unwrap_or_default();
    agent.zombies = children.split_whitespace().filter(|child| is_zombie(child)).count() as u64;
}

fn is_zombie(pid: &str) -> bool {
    let stat = files::read_text(Path::new(&format!("/proc/{pid}/stat"))).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, agent) in MACHINES.iter().zip(&self.agents) {
            let descriptors = agent.sockets + agent.files;
            write!(f, "{name}: {:>5} KiB {descriptors:>2} fd  ", agent.anonymous_kib)?;
        }
        write!(f, "{} tokens", self.tokens)
    }
}

/// Writes all of them as CSV below `target/soak`; where.
///
/// # Errors
/// When the file cannot be written.
pub fn write(samples: &[Sample]) -> io::Result<PathBuf> {
    let began = samples.first().map_or(0, |sample| sample.at);
    let mut text = "seconds,tokens,objects,bundle_lives".to_owned();
    for name in MACHINES {
        for column in
            ["pid", "anonymous_kib", "rss_kib", "peak_kib", "threads", "sockets", "files", "state_files", "state_bytes"]
        {
            text += &format!(",{name}_{column}");
        }
    }
    text.push('\n');
    for sample in samples {
        let lives = sample.bundle_lives.map(|lives| lives.to_string()).unwrap_or_default();
        text += &format!("{},{},{},{lives}", sample.at - began, sample.tokens, sample.objects);
        for agent in &sample.agents {
            text += &format!(
                ",{},{},{},{},{},{},{},{},{}",
                agent.pid,
                agent.anonymous_kib,
                agent.rss_kib,
                agent.peak_kib,
                agent.threads,
                agent.sockets,
                agent.files,
                agent.state_files,
                agent.state_bytes
            );
        }
        text.push('\n');
    }
    let folder = crate::process::workspace().join("target/soak");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("samples.csv");
    std::fs::write(&path, text)?;
    Ok(path)
}
