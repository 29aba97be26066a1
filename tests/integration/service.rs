//! The agent as a service: it stops when it is told to, and systemd is told how it fares.

use crate::process::{Agent, PATIENCE, eventually};
use crate::world::{Machine, World, free_port};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

fn stops(machine: &Machine, world: &World, mut agent: Agent, signal: nix::sys::signal::Signal) {
    assert!(agent.runs());
    let asked = Instant::now();
    crate::process::signal(agent.pid(), signal);
    agent.finished(PATIENCE).expect(0).says(&[&format!("{signal}: stopping")]);
    assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
    assert_eq!(machine.report(world).expect("a report")["phase"], "stopped");
}

#[test]
fn a_waiting_agent_stops_when_told_and_its_last_report_says_so() {
    let world = World::new();
    let worker = world.worker("w1");
    let mut agent = worker.start(&["run"]);
    agent.until_logged("no master has published one yet");
    stops(&worker, &world, agent, nix::sys::signal::Signal::SIGTERM);
}

#[test]
fn an_agent_with_its_duties_stops_when_told_and_its_last_report_says_so() {
    let (world, master) = World::established();
    let mut agent = master.start(&["run"]);
    agent.until_logged("phase: ready");
    eventually("the report says ready", || master.report(&world).is_some_and(|report| report["phase"] == "ready"));
    stops(&master, &world, agent, nix::sys::signal::Signal::SIGINT);
}

#[test]
fn an_agent_whose_store_hangs_up_stops_all_the_same() {
    let world = World::new();
    let worker = world.worker("w1");
    let mut agent = worker.start(&["run"]);
    agent.until_logged("no master has published one yet");
    std::fs::rename(world.path("store"), world.path("unmounted")).expect("rename");
    let asked = Instant::now();
    agent.terminate();
    agent.finished(PATIENCE);
    assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
}

#[test]
fn systemd_is_told_status_ready_and_stopping() {
    let (world, _master) = World::established();
    let worker = world.worker("w1");
    let path = world.path("notify");
    let socket = UnixDatagram::bind(&path).expect("socket");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("timeout");
    let mut command = worker.command(&["run"]);
    let mut agent = Agent::start(command.env("NOTIFY_SOCKET", &path));
    let mut heard: Vec<String> = Vec::new();
    let hear = |heard: &mut Vec<String>| {
        let mut buffer = [0; 4096];
        while let Ok(count) = socket.recv(&mut buffer) {
            heard.extend(String::from_utf8_lossy(&buffer[..count]).lines().map(str::to_owned));
        }
    };
    agent.until("READY=1 is sent", || {
        hear(&mut heard);
        heard.iter().any(|line| line == "READY=1")
    });
    let place = |heard: &[String], text: &str| heard.iter().position(|line| line.contains(text));
    let ready = place(&heard, "READY=1");
    for early in ["STATUS=join-cluster", "EXTEND_TIMEOUT_USEC=", "WATCHDOG=1"] {
        assert!(place(&heard, early).is_some_and(|at| Some(at) < ready), "{early} before READY=1: {heard:#?}");
    }
    assert!(heard.iter().filter(|line| *line == "READY=1").count() == 1, "{heard:#?}");
    assert!(!heard.iter().any(|line| line.contains(world.bundle()["token"].as_str().expect("a token"))));
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    hear(&mut heard);
    assert!(heard.iter().any(|line| line == "STOPPING=1"), "{heard:#?}");
}

/// The names of an exposition, as Prometheus stores them.
fn names(text: &str) -> Vec<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let stored = |(name, kind): (&str, &str)| format!("{name}{}", if kind == "counter" { "_total" } else { "" });
    types.map(stored).collect()
}

#[test]
fn metrics_are_a_textfile_and_a_page() {
    let world = World::new();
    let master = world.master("m1");
    let port = free_port();
    let textfile = "/var/lib/node_exporter/kubestrap.prom";
    std::fs::create_dir_all(master.path("/var/lib/node_exporter")).expect("mkdir");
    // ECR refuses once, so that there is an error and a login.
    let refused = std::sync::atomic::AtomicBool::new(false);
    let ecr = crate::peer::Peer::start(move |_| match refused.swap(true, std::sync::atomic::Ordering::Relaxed) {
        false => crate::ecr_agent::refusal("ThrottlingException"),
        true => crate::ecr_agent::login("pw"),
    });
    master.configure(&format!(
        "metrics: {{ textfile: {textfile}, listen: '127.0.0.1:{port}' }}\naws: {{ ecr_endpoint: '{}' }}\n\
         ecr: {{ registries: [123456789012.dkr.ecr.eu-west-1.amazonaws.com] }}\n",
        ecr.url()
    ));
    // Something to compare the machine with.
    master.write("/usr/lib/kubestrap/manifest.json", r#"{"schema":1}"#);
    // A step that fails once, and a report that the store refuses once, so that failures are counted too.
    master.script("faults: [{command: init, phase: kubeconfig, action: fail, times: 1}]");
    let reports = world.store_path("prod/nodes");
    std::fs::create_dir_all(reports.parent().expect("prod")).expect("mkdir");
    std::fs::write(&reports, "").expect("a file where a folder must be");
    let mut agent = Agent::start(&mut crate::ecr_agent::command(&master, &["run"]));
    agent.until_logged("report: failed to");
    std::fs::remove_file(&reports).expect("remove");
    agent.until_logged("phase: ready");
    let address = format!("127.0.0.1:{port}");
    let page = || crate::http::request(&address, "GET /metrics");
    for last in [
        "kubestrap_last_report_timestamp_seconds ",
        "kubestrap_drift{",
        "kubestrap_registry_login_expiry_timestamp_seconds ",
    ] {
        eventually(&format!("the page speaks of {last}"), || page().1.contains(last));
    }
    let (status, text) = page();
    assert_eq!(status, 200);
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let table = readme.lines().filter_map(|line| line.strip_prefix("| `kubestrap_")?.split_once('`'));
    let table: Vec<String> = table.map(|(name, _)| format!("kubestrap_{name}")).collect();
    assert_eq!(names(&text), table, "the README's table of metrics");
    insta::assert_snapshot!("metric_names", names(&text).join("\n"));
    assert!(text.contains("kubestrap_bootstrap_phase{phase=\"ready\"} 1"), "{text}");
    assert!(text.contains("kubestrap_step_failures_total{step=\"kubeadm-init\",cause=\"tool-failed\"} 1"), "{text}");
    assert_eq!(crate::http::request(&address, "GET /").0, 404);
    assert_eq!(crate::http::request(&address, "POST /metrics").0, 405);
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    let file = master.read(textfile);
    assert_eq!(names(&file), names(&text));
    assert!(file.contains("kubestrap_bootstrap_phase{phase=\"stopped\"} 1"), "{file}");
    assert_eq!(master.mode(textfile), 0o644);
}

#[test]
fn a_metrics_port_that_is_taken_is_named() {
    let (_world, master) = World::established();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    master.configure(&format!("metrics: {{ listen: '{address}' }}\n"));
    master.run(&["run", "--once"]).expect(10).says(&[&address, "metrics.listen"]);
}
