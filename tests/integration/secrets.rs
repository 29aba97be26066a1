//! Secrets audit: a whole bootstrap with known secrets. None is in an argument, an environment, a log, a metric, a
//! journal, an object of the store but the bundle's token, an answer of a verb, or a file that others may read.
//! `secrets_cloud` does the same for credentials of AWS and of a proxy, `secrets_masters` for several masters and what
//! they hand to each other, `secrets_memory` for core dumps.

use crate::audit::{Exec, Execs, Secrets, below, open_to_others, token_in};
use crate::process::{Agent, PATIENCE};
use crate::world::{Machine, World, free_port};
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Every verb that shows something and changes nothing.
pub const VERBS: &[&[&str]] = &[
    &["plan"],
    &["plan", "-o", "json"],
    &["status"],
    &["status", "-o", "json"],
    &["status", "--cluster"],
    &["status", "--cluster", "-o", "json"],
    &["analyze"],
    &["analyze", "-o", "json"],
    &["config", "show"],
    &["config", "show", "-o", "json"],
    &["config", "check"],
    &["doctor"],
    &["doctor", "-o", "json"],
    &["drift"],
    &["drift", "-o", "json"],
    &["rollout", "status"],
    &["rollout", "status", "-o", "json"],
    &["pki", "status"],
    &["pki", "status", "-o", "json"],
    &["member", "list"],
    &["member", "list", "-o", "json"],
];

/// The secret halves of all tokens that there are now, as far as store and API show them, and the CA's key.
pub fn secrets(world: &World, master: &Machine) -> BTreeSet<String> {
    let mut secrets = BTreeSet::new();
    let bundle = world.object("join/worker.json");
    if let Some(token) = bundle.as_ref().and_then(|bundle| bundle["token"].as_str()) {
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
    secrets.extend(private_key(master, "ca.key"));
    secrets
}

fn private_key(master: &Machine, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(master.path("/etc/kubernetes/pki").join(name)).ok()?;
    // Less than a whole line is a file that is being written.
    text.lines().nth(1).filter(|line| line.len() == 64).map(str::to_owned)
}

/// Learns what is secret now.
pub fn learn(known: &mut Secrets, world: &World, master: &Machine) {
    for key in ["ca.key", "sa.key", "etcd/ca.key", "front-proxy-ca.key"] {
        if let Some(line) = private_key(master, key) {
            known.add("a private key", &line);
        }
    }
    for secret in secrets(world, master) {
        known.add(if secret.len() == 16 { "a bootstrap token" } else { "a private key" }, &secret);
    }
    if let Ok(text) = std::fs::read_to_string(master.path("/etc/kubernetes/admin.conf")) {
        let key = text.split("client-key-data:").nth(1).and_then(|rest| rest.split_whitespace().next());
        if let Some(key) = key {
            known.add("the administrator's key", key.trim_matches('"'));
        }
    }
}

/// Learns the tokens in the documents that kubeadm was given; the folder was for its owner alone.
pub fn learn_documents(secrets: &mut Secrets, execs: &[Exec]) {
    for (text, mode) in execs.iter().flat_map(|exec| &exec.documents) {
        assert_eq!(*mode, 0o600, "{text}");
        if let Some(token) = token_in(text) {
            secrets.add("a bootstrap token", &token);
        }
    }
}

/// Slow enough to be looked at; and one failure each, for errors are where secrets leak.
fn slow_and_failing(master: &Machine, worker: &Machine) {
    master.script(
        "faults: [{command: init, phase: kubelet-start, action: slow, seconds: 0.4}, \
                   {command: init, phase: show-join-command, action: fail, times: 1}]",
    );
    worker.script(
        "faults: [{command: join, phase: kubelet-start, at: after, action: slow, seconds: 0.4}, \
                   {command: join, phase: kubelet-wait-bootstrap, action: fail, times: 1}]",
    );
}

/// Objects of the store are for their writer alone, and only the bundle has a secret: its token, once.
pub fn audit_store(world: &World, secrets: &Secrets) {
    let store = world.store_path("");
    assert_eq!(open_to_others(&store), Vec::<String>::new());
    let mut bundles = 0;
    for entry in below(&store) {
        let place = entry.path.display().to_string();
        if !place.ends_with("join/worker.json") {
            secrets.absent(&place, &entry.body);
            continue;
        }
        bundles += 1;
        let mut bundle: Value = serde_json::from_slice(&entry.body).expect("JSON");
        let token = bundle["token"].take();
        assert!(secrets.found_in(token.to_string().as_bytes()).is_some(), "the audit does not know the token in use");
        secrets.absent(&place, bundle.to_string());
    }
    assert_eq!(bundles, 1);
}

/// Every file of a machine that contains a secret is for root alone, in a folder for root alone; how many there are.
pub fn only_root_reads(machine: &Machine, secrets: &BTreeSet<String>) -> usize {
    let mut found = 0;
    for entry in below(machine.root()) {
        let text = String::from_utf8_lossy(&entry.body);
        if !secrets.iter().any(|secret| text.contains(secret.as_str())) {
            continue;
        }
        found += 1;
        assert_eq!(entry.mode, 0o600, "{} contains a secret", entry.path.display());
        if entry.path.starts_with(machine.path("/var/lib/kubestrap")) {
            let folder = entry.path.parent().expect("folder");
            let mode = std::fs::metadata(folder).expect("stat").mode() & 0o777;
            assert_eq!(mode, 0o700, "{} contains secrets", folder.display());
        }
    }
    found
}

/// When a node is complete, secrets are only where they belong; and nothing of ours is anybody else's, secret or not.
fn audit_files(machine: &Machine, secrets: &Secrets) -> usize {
    let allowed = ["/etc/kubernetes", "/var/lib/etcd"].map(|folder| machine.path(folder));
    for entry in below(machine.root()).iter().filter(|entry| secrets.found_in(&entry.body).is_some()) {
        let place = entry.path.display();
        assert!(allowed.iter().any(|folder| entry.path.starts_with(folder)), "{place} contains a secret");
    }
    assert_eq!(open_to_others(&machine.path("/var/lib/kubestrap")), Vec::<String>::new());
    assert_eq!(machine.mode("/var/lib/kubestrap"), 0o700);
    only_root_reads(machine, &secrets.texts())
}

/// What a machine says and keeps.
fn audit_machine(world: &World, machine: &Machine, log: &str, secrets: &Secrets) {
    secrets.absent(&format!("the log of {}", machine.name), log);
    assert!(log.contains("call"), "the log is not one of every call");
    for file in ["journal.jsonl", "bootstrap-trace.json", "agent.json", "identity.json"] {
        secrets.absent(file, machine.read(&format!("/var/lib/kubestrap/{file}")));
    }
    secrets.absent("the textfile", machine.read("/var/lib/kubestrap.prom"));
    secrets.absent("the report", machine.report(world).expect("a report").to_string());
    for verb in VERBS {
        let said = machine.run(verb).said();
        assert!(!said.contains("Usage:"), "{verb:?}: {said}");
        secrets.absent(&verb.join(" "), said);
    }
    // The CAs and the API's state on the master; a worker keeps nothing that is not its own.
    let holds = audit_files(machine, secrets);
    assert_eq!(holds > 0, machine.name == "m1", "{}: {holds} files hold secrets", machine.name);
}

fn audit_execs(all: &[Exec], secrets: &Secrets) {
    for needed in ["kubeadm init", "kubeadm join", "kubeadm version", "kubelet --version"] {
        assert!(all.iter().any(|exec| exec.line.contains(needed)), "{needed} was not recorded");
    }
    let wrapped = all.iter().filter(|exec| !exec.wrapper_environment.is_empty()).count();
    assert!(wrapped >= 4, "two runs of init and two of join have a wrapper: {wrapped}");
    for exec in all {
        exec.is_clean(secrets);
    }
}

fn start(machine: &Machine, form: &str, folder: &Path) -> Agent {
    let mut command = machine.command_logging(form, &["run"]);
    Agent::start(command.env("KUBESTRAP_LOG", "trace").env("TMPDIR", folder).current_dir(folder))
}

fn audit(form: &str) {
    let world = World::new();
    let (master, worker, newcomer) = (world.master("m1"), world.worker("w1"), world.worker("w2"));
    let port = free_port();
    master.configure(&format!("metrics: {{ listen: '127.0.0.1:{port}', textfile: /var/lib/kubestrap.prom }}\n"));
    worker.configure("metrics: { textfile: /var/lib/kubestrap.prom }\n");
    let execs = [("m1", &master), ("w1", &worker)].map(|(name, m)| Execs::of(m, world.path(&format!("execs-{name}"))));
    slow_and_failing(&master, &worker);
    let empty = world.path("tmp");
    std::fs::create_dir(&empty).expect("mkdir");
    let mut secrets = Secrets::default();
    let mut agents = [&master, &worker].map(|machine| start(machine, form, &empty));
    for (agent, machine) in agents.iter_mut().zip([&master, &worker]) {
        agent.until("the node is ready", || {
            learn(&mut secrets, &world, &master);
            machine.journal().iter().any(|line| line["entry"] == "completed")
        });
    }
    learn(&mut secrets, &world, &master);
    let (_, page) = crate::http::request(&format!("127.0.0.1:{port}"), "GET /metrics");
    for rotate in [&["token", "rotate"][..], &["token", "rotate", "--revoke"]] {
        let said = master.run(rotate).expect(0).said();
        learn(&mut secrets, &world, &master);
        secrets.absent("token rotate", said);
    }
    let executed: Vec<Exec> = execs.iter().flat_map(Execs::all).collect();
    learn_documents(&mut secrets, &executed);
    // Tokens: the one of init, the first bundle's, and those of two rotations.
    for (kind, least) in [("a bootstrap token", 4), ("a private key", 4), ("the administrator's key", 1)] {
        assert!(secrets.count(kind) >= least, "{kind}: the audit knows {}", secrets.count(kind));
    }
    // What a worker would do with the bundle, token and all.
    for plan in &VERBS[..2] {
        secrets.absent("plan", newcomer.run(plan).says(&["join"]).said());
    }
    for (agent, machine) in agents.into_iter().zip([&master, &worker]) {
        agent.terminate();
        let log = agent.finished(PATIENCE).expect(0).said();
        audit_machine(&world, machine, &log, &secrets);
    }
    secrets.absent("the metrics page", page);
    audit_store(&world, &secrets);
    audit_execs(&executed, &secrets);
    let left: Vec<_> = below(&empty).into_iter().map(|entry| entry.path).collect();
    assert!(left.is_empty(), "left in the temporary or the working folder: {left:?}");
}

#[test]
fn no_secret_leaves_its_place_json() {
    audit("json");
}

#[test]
fn no_secret_leaves_its_place_human() {
    audit("human");
}

/// Whatever the agent has in its environment: what it starts is told by name what it may know.
#[test]
fn a_child_knows_nothing_of_our_environment() {
    const KNOWN: &[&str] = &["PATH", "HOME", "LANG", "LC_ALL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
    let world = World::new();
    let master = world.master("m1");
    let execs = Execs::of(&master, world.path("execs"));
    let mut command = master.command(&["run", "--once"]);
    command.env("AWS_SECRET_ACCESS_KEY", "very-secret-key").env("AWS_SESSION_TOKEN", "very-secret-token");
    Agent::start(command.env("KUBESTRAP_LOG", "debug")).finished(PATIENCE).expect(0);
    let all = execs.all();
    assert!(all.len() >= 3, "{}", all.len());
    for exec in &all {
        for variable in [&exec.environment, &exec.wrapper_environment].into_iter().flat_map(|text| text.split('\0')) {
            let name = variable.split('=').next().unwrap_or_default();
            // PWD and the like are the recorder's shell's own, and not in what it was given.
            let known = name.is_empty() || KNOWN.contains(&name.to_uppercase().as_str());
            assert!(known, "{variable:?} was passed to {}", exec.line);
        }
    }
}
