//! The configuration is refused before anything is done, with every problem at once.

use crate::world::{Machine, World};

const GOOD: &str = "cluster: prod\nrole: worker\nstore: file:///nowhere\nidentity: host\n";

/// Refused by `run` and by `config check`, and nothing was made of the machine.
fn refused(configuration: &str, texts: &[&str]) -> Machine {
    let world = World::new();
    let machine = world.bare_machine("w1", configuration);
    machine.run(&["run", "--once"]).expect(10).says(texts);
    machine.run(&["config", "check"]).expect(10).says(texts);
    assert!(machine.events().is_empty() && !machine.has("/var/lib/kubestrap/journal.jsonl"));
    machine
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_valid_one() {
    refused(
        &format!("{GOOD}control_plane_enpoint: api:6443\nnode:\n  lables: {{ a: b }}\n"),
        &[
            "/etc/kubestrap/config.yaml:5:1",
            "control_plane_enpoint",
            "control_plane_endpoint",
            "config.yaml:7:3",
            "labels",
        ],
    );
}

#[test]
fn a_duplicate_key_is_named_with_both_places() {
    refused(&format!("{GOOD}role: master\n"), &["config.yaml:5:1", "duplicate key", "config.yaml:2:1"]);
}

#[test]
fn all_problems_are_told_at_once() {
    refused(
        "cluster: Prod!\nrole: king\nstore: nfs://x\nnode: { labels: { 'node-role.kubernetes.io/master': '' } }\n\
         join: { wait: soon, token_ttl: 1m }\nwhat: ever\n",
        &["Prod!", "king", "nfs://x", "node-role.kubernetes.io/master", "soon", "token_ttl", "what"],
    );
}

#[test]
fn what_is_missing_is_named() {
    refused("", &["cluster", "role", "store"]);
    refused("cluster: prod\nrole: master\nstore: file:///nowhere\n", &["control_plane_endpoint"]);
}

#[test]
fn yaml_that_is_none_is_refused_with_its_place() {
    refused(&format!("{GOOD}node: [unclosed\n"), &["config.yaml:", "not valid YAML"]);
}

#[test]
fn a_store_folder_that_is_not_there_is_not_an_empty_store() {
    let world = World::new();
    let machine = world.bare_machine("w1", &format!("{GOOD}node: {{ address: 192.0.2.10 }}\n"));
    machine.run(&["run", "--once"]).expect(10).says(&["bucket-missing", "/nowhere"]);
    assert!(!std::path::Path::new("/nowhere").exists());
}

#[test]
fn files_that_others_can_write_are_refused() {
    let world = World::new();
    let machine = world.bare_machine("w1", GOOD);
    for (path, mode) in
        [("/etc/kubestrap/config.yaml", 0o646), ("/etc/kubestrap", 0o777), ("/etc/kubestrap/config.d", 0o772)]
    {
        let before = machine.mode(path);
        machine.set_mode(path, mode);
        machine.run(&["run", "--once"]).expect(11).says(&["unsafe-file", path, "writable by others", "chmod go-w"]);
        machine.set_mode(path, before);
    }
    machine.run(&["config", "check"]).expect(0);
}

#[test]
fn a_link_is_refused() {
    let world = World::new();
    let machine = world.bare_machine("w1", GOOD);
    std::os::unix::fs::symlink("/etc/hostname", machine.path("/etc/kubestrap/config.d/90-link.yaml")).expect("link");
    machine.run(&["run", "--once"]).expect(11).says(&["unsafe-file", "90-link.yaml", "symbolic link"]);
}

#[test]
fn what_is_not_a_file_or_not_text_or_too_large_is_refused() {
    let world = World::new();
    let machine = world.bare_machine("w1", GOOD);
    let path = "/etc/kubestrap/config.d/90-odd.yaml";
    std::fs::create_dir(machine.path(path)).expect("mkdir");
    machine.run(&["run", "--once"]).expect(11).says(&["90-odd.yaml", "not a regular file"]);
    std::fs::remove_dir(machine.path(path)).expect("rmdir");
    std::fs::write(machine.path(path), [b'#'; 1_100_000]).expect("write");
    machine.run(&["run", "--once"]).expect(10).says(&["90-odd.yaml", "1048576"]);
    std::fs::write(machine.path(path), [0xff, 0xfe]).expect("write");
    machine.run(&["run", "--once"]).expect(10).says(&["90-odd.yaml", "not UTF-8"]);
}

#[test]
fn an_unreadable_file_is_named() {
    let world = World::new();
    let machine = world.bare_machine("w1", GOOD);
    machine.set_mode("/etc/kubestrap/config.yaml", 0o000);
    if std::fs::read(machine.path("/etc/kubestrap/config.yaml")).is_ok() {
        eprintln!("skipped: root reads every file");
        return;
    }
    machine.run(&["run", "--once"]).expect(14).says(&["file-access", "/etc/kubestrap/config.yaml"]);
}

#[test]
fn layers_win_in_order_and_show_says_which() {
    let world = World::new();
    let machine = world.bare_machine("w1", &format!("{GOOD}join: {{ wait: 20m }}\n"));
    machine.write("/usr/lib/kubestrap/config.d/10-baked.yaml", "join: { wait: 10m, api_wait: 11m }\n");
    machine.configure("node: { labels: { team: web } }\n");
    let mut command = machine.command(&["config", "show"]);
    command.env("KUBESTRAP_JOIN__API_WAIT", "12m").env("KUBESTRAP_NODE__LABELS", "team=api,tier=2");
    let shown = crate::process::finish(&mut command).expect(0).stdout;
    let line = |key: &str| {
        let mut found = shown.lines().filter(|line| line.split_whitespace().next() == Some(key));
        found.next().unwrap_or_else(|| panic!("{key} is not shown:\n{shown}")).to_owned()
    };
    for (key, value, origin) in [
        ("cluster", "prod", "/etc/kubestrap/config.yaml:1"),
        ("join.wait", "20m", "/etc/kubestrap/config.yaml:5"),
        ("join.api_wait", "12m", "KUBESTRAP_JOIN__API_WAIT"),
        ("node.labels.team", "api", "KUBESTRAP_NODE__LABELS"),
        ("join.token_ttl", "1h", "built-in defaults"),
    ] {
        assert!(line(key).contains(value) && line(key).contains(origin), "{}", line(key));
    }
    let mut command = machine.command(&["config", "check"]);
    crate::process::finish(command.env("KUBESTRAP_JION__WAIT", "1h")).expect(10).says(&["KUBESTRAP_JION__WAIT"]);
}

/// A machine without any configuration, and `config check` with this as a file of user-data.
fn checked(user_data: &str) -> crate::process::Finished {
    let world = World::new();
    let machine = world.bare_machine("laptop", "");
    std::fs::remove_file(machine.path("/etc/kubestrap/config.yaml")).expect("it was there");
    let file = world.path("user-data");
    std::fs::write(&file, user_data).expect("write");
    machine.run(&["config", "check", "--user-data", &file.to_string_lossy()])
}

#[test]
fn user_data_is_checked_before_an_instance_has_it() {
    checked(&format!("#kubestrap\n{GOOD}")).expect(0).says(&["is good", "worker of cluster prod"]);
    let mime = |configuration: &str| {
        format!(
            "Content-Type: multipart/mixed; boundary=\"x\"\nMIME-Version: 1.0\n\n--x\n\
             Content-Type: text/cloud-config\n\n#cloud-config\nruncmd: [[\"true\"]]\n\n--x\n\
             Content-Type: application/x-kubestrap+yaml\n\n{configuration}\n--x--\n"
        )
    };
    checked(&mime(GOOD)).expect(0).says(&["is good"]);
    checked(&mime(&format!("{GOOD}rol: worker\n"))).expect(10).says(&["user-data", "rol", "role"]);
}

#[test]
fn user_data_that_is_not_ours_or_too_large_is_no_good_configuration() {
    checked("#cloud-config\nruncmd: []\n").expect(10).says(&["#cloud-config", "--config FILE"]);
    checked("\n").expect(10).says(&["empty"]);
    let long = "# more than fits\n".repeat(1024);
    checked(&format!("#kubestrap\n{GOOD}{long}")).expect(10).says(&["16384", "gzip"]);
    let nothing = World::new().bare_machine("laptop", GOOD);
    nothing.run(&["config", "check", "--user-data", "/nowhere/at-all"]).expect(14).says(&["/nowhere/at-all"]);
}
