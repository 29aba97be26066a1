//! What people read: help, plan, doctor, the schema, the exit codes.

use crate::process::{KUBESTRAP, finish};
use crate::world::{Machine, World};
use serde_json::Value;
use std::process::Command;

/// Help, at the width of no terminal.
fn help(arguments: &[&str]) -> String {
    finish(Command::new(KUBESTRAP).args(arguments).arg("--help").env("COLUMNS", "100")).expect(0).stdout
}

#[test]
fn help_of_every_verb() {
    let verbs: &[&[&str]] = &[
        &[],
        &["run"],
        &["plan"],
        &["plan", "install"],
        &["install"],
        &["status"],
        &["analyze"],
        &["analyze", "plot"],
        &["doctor"],
        &["config"],
        &["config", "check"],
        &["config", "show"],
        &["config", "schema"],
        &["unlock"],
        &["unlock", "init"],
        &["reset"],
        &["member"],
        &["member", "list"],
        &["member", "remove"],
        &["leave"],
        &["token"],
        &["token", "rotate"],
        &["pki"],
        &["pki", "status"],
        &["pki", "rewrap"],
        &["cluster"],
        &["cluster", "retire"],
        &["drift"],
        &["rollout"],
        &["rollout", "status"],
        &["rollout", "pause"],
        &["rollout", "resume"],
        &["rollout", "release"],
        &["ecr"],
        &["ecr", "token"],
        &["ecr-credential-provider"],
        &["completions"],
        &["exit-codes"],
    ];
    let pages =
        verbs.iter().map(|verb| format!("$ kubestrap {}\n{}", [verb, &["--help"][..]].concat().join(" "), help(verb)));
    insta::assert_snapshot!("help", pages.collect::<Vec<_>>().join("\n"));
    // Nothing that is listed is left out above.
    for line in help(&[]).lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty()) {
        // Further lines of a description are indented more.
        if line.starts_with("   ") {
            continue;
        }
        let verb = line.split_whitespace().next().expect("a verb");
        assert!(verbs.iter().any(|known| known.first() == Some(&verb)) || verb == "help", "{verb} is not in the list");
    }
}

/// The text without what differs from run to run.
fn steady(text: &str, world: &World, machine: &Machine) -> String {
    let mut text = text.replace(&machine.root().display().to_string(), "<root>");
    text = text.replace(&world.path("store").display().to_string(), "<store>");
    text = text.replace(&format!(":{}", world.port), ":<port>").replace(&format!(": {}", world.port), ": <port>");
    for (before, shown) in [("sha256:", "<ca>"), ("cluster ", "<uid>")] {
        let mut out = String::new();
        for (index, part) in text.split(before).enumerate() {
            let hex = |c: char| c.is_ascii_hexdigit() || c == '-';
            let word = part.find(|c| !hex(c)).unwrap_or(part.len());
            let long = index > 0 && word >= 36;
            out.push_str(if index > 0 { before } else { "" });
            out.push_str(if long { shown } else { "" });
            out.push_str(if long { &part[word..] } else { part });
        }
        text = out;
    }
    text
}

#[test]
fn a_plan_shows_steps_and_documents_without_secrets_and_changes_nothing() {
    let world = World::new();
    let master = world.master("m1");
    let before = master.picture("/");
    let plan = master.run(&["plan"]).expect(0).stdout;
    insta::assert_snapshot!("plan_of_a_first_master", steady(&plan, &world, &master));
    assert!(master.picture("/") == before && world.object("cluster.json").is_none(), "plan changed something");
    master.run(&["run", "--once"]).expect(0);

    let worker = world.worker("w1");
    let before = worker.picture("/");
    let plan = worker.run(&["plan"]).expect(0).stdout;
    insta::assert_snapshot!("plan_of_a_worker", steady(&plan, &world, &worker));
    let json = worker.run(&["plan", "-o", "json"]).expect(0).stdout;
    let parsed: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(parsed["steps"][2]["wish"], "wanted");
    assert!(worker.picture("/") == before && worker.events().is_empty(), "plan changed something");
    let bundle = world.bundle();
    let secret = bundle["token"].as_str().and_then(|token| token.split_once('.')).expect("a token").1;
    assert!(!plan.contains(secret) && !json.contains(secret), "the token is shown");
    assert!(plan.contains("<secret>"));
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let (world, master) = World::established();
    let judge = |machine: &Machine| -> (i32, Value) {
        let ended = machine.run(&["doctor", "-o", "json"]);
        (ended.code.expect("a code"), serde_json::from_str(&ended.stdout).expect("JSON"))
    };
    let result = |judged: &Value| -> Vec<(String, String)> {
        let checks = judged["checks"].as_array().expect("checks").iter();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        checks.map(|check| (text(&check["check"]), text(&check["result"]))).collect()
    };
    let (code, judged) = judge(&master);
    assert!(code == 0 && result(&judged).iter().all(|(_, result)| result != "failed"), "{judged:#}");
    insta::assert_debug_snapshot!("doctor_on_a_good_master", result(&judged));
    let before = master.picture("/etc");
    let worker = world.worker("w1");
    std::fs::remove_file(worker.path("/run/containerd/containerd.sock")).expect("remove");
    worker.configure("ca_pin: sha256:0000000000000000000000000000000000000000000000000000000000000000\n");
    let ended = worker.run(&["doctor"]).expect(21);
    ended.says(&["failed", "runtime-not-ready", "fix:", "foreign-cluster"]);
    assert!(master.picture("/etc") == before && !worker.has("/var/lib/kubestrap/journal.jsonl"));
    worker.configure("nonsense: 1\n");
    worker.run(&["doctor"]).expect(21).says(&["nonsense", "fix:"]);
}

#[test]
fn the_schema_is_the_committed_one() {
    let printed = finish(Command::new(KUBESTRAP).args(["config", "schema"])).expect(0).stdout;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.schema.json");
    let committed = std::fs::read_to_string(path).expect(path);
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(parse(&printed), parse(&committed), "the program was built with another one");
}

#[test]
fn the_readme_lists_the_exit_codes_the_program_lists() {
    let printed = finish(Command::new(KUBESTRAP).args(["exit-codes", "-o", "json"])).expect(0).stdout;
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let is_row =
        |line: &&str| line.starts_with("| ") && line.split('|').nth(1).is_some_and(|c| c.trim().parse::<u8>().is_ok());
    let rows: Vec<(u64, String)> = readme
        .lines()
        .filter(is_row)
        .filter_map(|line| {
            let mut cells = line.split('|').skip(1).map(str::trim);
            Some((cells.next()?.parse().ok()?, cells.next()?.to_owned()))
        })
        .collect();
    let known: Vec<Value> = serde_json::from_str(&printed).expect("JSON");
    let known: Vec<(u64, String)> = known
        .iter()
        .map(|row| (row["code"].as_u64().expect("a code"), row["meaning"].as_str().expect("a meaning").to_owned()))
        .collect();
    assert_eq!(rows, known);
    finish(Command::new(KUBESTRAP).arg("exit-codes")).expect(0).says(&["already-established", "tool-missing"]);
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for arguments in
        [&["rnu"][..], &["run", "--onec"], &["run", "--skip", "kubeadm-init"], &["status", "--store", "s3://x"]]
    {
        let world = World::new();
        let machine = world.worker("w1");
        machine.run(arguments).expect(2);
        assert!(machine.events().is_empty());
    }
}

#[test]
fn analyze_tells_where_the_time_went() {
    let (_world, master) = World::established();
    master.run(&["analyze"]).expect(0).says(&["kubeadm-init", "claim-register"]);
    let svg = master.run(&["analyze", "plot"]).expect(0).stdout;
    assert!(svg.starts_with("<svg") || svg.starts_with("<?xml"), "{}", &svg[..svg.len().min(200)]);
    assert!(svg.trim_end().ends_with("</svg>") && svg.contains("kubeadm-init"));
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let made = finish(Command::new(KUBESTRAP).args(["completions", shell])).expect(0);
        made.says(&["kubestrap", "status"]);
    }
}
