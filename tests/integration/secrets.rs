//! Secrets audit: a whole bootstrap, watched from outside. No secret is in an argument, an environment, a log, a
//! metric, a report, or a file that others may read.

use crate::process::{Agent, PATIENCE};
use crate::world::{Machine, World, free_port};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Looks at every process below a folder, as often as it can: arguments and environment.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<BTreeSet<(String, Vec<u8>)>>,
}

impl Sampler {
    fn start(folder: String) -> Sampler {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !told.load(Ordering::Relaxed) {
                for (pid, line) in crate::process::processes_of(&folder) {
                    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                    seen.insert((line, environment));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            seen
        });
        Sampler { stop, thread }
    }

    fn finish(self) -> BTreeSet<(String, Vec<u8>)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("sampler")
    }
}

/// The secret halves of all tokens that ever were, as far as store and API show them, and the private keys.
fn secrets(world: &World, master: &Machine) -> BTreeSet<String> {
    let mut secrets = BTreeSet::new();
    if let Some(token) = world.object("join/worker.json").and_then(|bundle| Some(bundle["token"].as_str()?.to_owned()))
    {
        secrets.insert(token.split_once('.').expect("a token").1.to_owned());
    }
    if let Ok(text) = std::fs::read_to_string(master.path("/var/lib/etcd/standin.json")) {
        let state: Value = serde_json::from_str(&text).unwrap_or_default();
        for (path, object) in state["objects"].as_object().into_iter().flatten() {
            let secret = object["stringData"]["token-secret"].as_str().or(object["data"]["token-secret"].as_str());
            if let Some(secret) = secret.filter(|_| path.contains("bootstrap-token-")) {
                secrets.insert(secret.to_owned());
            }
        }
    }
    if let Ok(key) = std::fs::read_to_string(master.path("/etc/kubernetes/pki/ca.key")) {
        secrets.insert(key.lines().nth(1).expect("a key").to_owned());
    }
    secrets
}

/// The token in a kubeadm document while it is there.
fn document_secret(machine: &Machine, command: &str) -> Option<String> {
    let path = format!("/var/lib/kubestrap/kubeadm/{command}.yaml");
    // One handle for both: the file may be removed at any moment.
    let mut file = std::fs::File::open(machine.path(&path)).ok()?;
    assert_eq!(file.metadata().expect("stat").mode() & 0o777, 0o600, "{path}");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("a document");
    assert_eq!(machine.mode("/var/lib/kubestrap/kubeadm") & 0o077, 0, "the folder of {path}");
    let is_secret = |word: &&str| word.len() == 23 && word.as_bytes()[6] == b'.';
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.'));
    let found = words.filter(|word| !word.is_empty()).find(is_secret)?;
    Some(found.split_once('.').expect("a dot").1.to_owned())
}

fn has_none(text: &str, secrets: &BTreeSet<String>, place: &str) {
    for secret in secrets {
        assert!(!text.contains(secret.as_str()), "{place} contains the secret {secret}");
    }
}

/// Every file below the folders that contains a secret is for root alone, in a folder for root alone.
fn only_root_reads(machine: &Machine, secrets: &BTreeSet<String>) -> usize {
    let mut found = 0;
    for (path, (mode, _, body)) in machine.picture("/") {
        let text = String::from_utf8_lossy(&body);
        if !secrets.iter().any(|secret| text.contains(secret.as_str())) {
            continue;
        }
        found += 1;
        assert_eq!(mode & 0o777, 0o600, "{} contains a secret", path.display());
        if path.starts_with(machine.path("/var/lib/kubestrap")) {
            let folder = std::fs::metadata(path.parent().expect("folder")).expect("stat");
            assert_eq!(folder.mode() & 0o777, 0o700, "{} contains secrets", path.parent().expect("folder").display());
        }
    }
    found
}

fn audit(form: &str) {
    let world = World::new();
    let (master, worker) = (world.master("m1"), world.worker("w1"));
    let port = free_port();
    let textfile = "metrics: { textfile: /var/lib/kubestrap.prom }\n";
    master.configure(&format!("metrics: {{ listen: '127.0.0.1:{port}', textfile: /var/lib/kubestrap.prom }}\n"));
    worker.configure(textfile);
    // Slow enough to be seen; and one failure each, for errors are where secrets leak.
    master.script(
        "faults: [{command: init, phase: kubelet-start, action: slow, seconds: 0.4}, \
                   {command: init, phase: show-join-command, action: fail, times: 1}]",
    );
    worker.script(
        "faults: [{command: join, phase: kubelet-start, at: after, action: slow, seconds: 0.4}, \
                   {command: join, phase: kubelet-wait-bootstrap, action: fail, times: 1}]",
    );
    let sampler = Sampler::start(world.path("").display().to_string());
    let mut known = BTreeSet::new();
    let start = |machine: &Machine| {
        let mut command = machine.command_logging(form, &["run"]);
        Agent::start(command.env("KUBESTRAP_LOG", "trace"))
    };
    let mut agents = [start(&master), start(&worker)];
    for (agent, machine, command) in [(0, &master, "init"), (1, &worker, "join")] {
        let agent = &mut agents[agent];
        agent.until("the node is ready", || {
            known.extend(document_secret(machine, command));
            known.extend(secrets(&world, &master));
            machine.journal().iter().any(|line| line["entry"] == "completed")
        });
    }
    known.extend(secrets(&world, &master));
    let (_, page) = crate::http::request(&format!("127.0.0.1:{port}"), "GET /metrics");
    master.run(&["token", "rotate"]).expect(0);
    known.extend(secrets(&world, &master));
    assert!(known.len() >= 3, "tokens and the CA's key: {}", known.len());
    let [first, second] = agents;
    for (agent, machine) in [(first, &master), (second, &worker)] {
        agent.terminate();
        let said = agent.finished(PATIENCE).expect(0).said();
        has_none(&said, &known, &format!("the log of {}", machine.name));
        has_none(&machine.read("/var/lib/kubestrap/journal.jsonl"), &known, "the journal");
        has_none(&machine.read("/var/lib/kubestrap.prom"), &known, "the textfile");
        has_none(&machine.report(&world).expect("a report").to_string(), &known, "the report");
        for verb in
            [&["plan"][..], &["plan", "-o", "json"], &["status"], &["analyze"], &["config", "show"], &["doctor"]]
        {
            has_none(&machine.run(verb).said(), &known, &verb.join(" "));
        }
        // The CA's key and the API's state on the master; a worker keeps nothing.
        let holds = only_root_reads(machine, &known);
        assert_eq!(holds > 0, machine.name == "m1", "{}: {holds} files hold secrets", machine.name);
    }
    has_none(&page, &known, "the metrics page");
    has_none(&world.register().to_string(), &known, "the register");
    let seen = sampler.finish();
    let programs: BTreeSet<&str> = seen.iter().filter_map(|(line, _)| line.split(' ').next()).collect();
    assert!(seen.iter().any(|(line, _)| line.contains("kubeadm init")), "the sampler missed kubeadm: {programs:?}");
    assert!(seen.iter().any(|(line, _)| line.contains("kubeadm join")), "the sampler missed kubeadm: {programs:?}");
    for (line, environment) in &seen {
        has_none(line, &known, "an argument");
        has_none(&String::from_utf8_lossy(environment), &known, "an environment");
    }
}

#[test]
fn no_secret_leaves_its_place_json() {
    audit("json");
}

#[test]
fn no_secret_leaves_its_place_human() {
    audit("human");
}

#[test]
fn a_child_knows_nothing_of_our_environment() {
    let world = World::new();
    let master = world.master("m1");
    master.script("faults: [{command: init, phase: certs, action: slow, seconds: 1}]");
    let sampler = Sampler::start(format!("{}/", master.root().display()));
    let folder = master.root().display().to_string();
    let jobs = Sampler::start(format!("--rootfs {folder}"));
    let mut command = master.command(&["run", "--once"]);
    command.env("AWS_SECRET_ACCESS_KEY", "very-secret-key").env("AWS_SESSION_TOKEN", "very-secret-token");
    Agent::start(&mut command).finished(PATIENCE).expect(0);
    let seen: Vec<_> = sampler.finish().into_iter().chain(jobs.finish()).collect();
    let children: Vec<_> =
        seen.iter().filter(|(line, _)| line.contains("kubeadm init") || line.contains(" job --dir")).collect();
    assert!(children.len() >= 2, "{seen:?}");
    for (line, environment) in children {
        let environment = String::from_utf8_lossy(environment);
        assert!(!environment.contains("very-secret") && !environment.contains("AWS_"), "{line}: {environment}");
    }
}
