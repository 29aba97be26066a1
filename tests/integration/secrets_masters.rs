//! Secrets audit of several masters: the keys of the authorities travel through the store, a visitor has credentials of
//! its own, members come and go, and the keys are sealed anew. Nothing of it is told, passed on or left lying.

use crate::audit::{Exec, Execs, Secrets, below, open_to_others};
use crate::masters::group::{Group, KEY, Master, QUICK};
use crate::process::{Finished, finish};
use crate::secrets::{VERBS, audit_store, learn, learn_documents};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const KEY_FILE: &str = "/etc/kubestrap/pki.key";
/// What is configured after the keys were sealed anew.
const OTHER_KEY: &str = "b3RoZXItMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk=\n";
/// Where a master may have secrets: what kubeadm and etcd keep (the stand-in for etcd in a folder of its own), and the key
/// that it is configured with.
const ALLOWED: [&str; 4] = ["/etc/kubernetes", "/var/lib/etcd", "/var/lib/kubestrap-standin", KEY_FILE];

/// Runs a verb that logs every call.
fn run(master: &Master, form: &str, arguments: &[&str]) -> Finished {
    finish(master.command_logging(form, arguments).env("KUBESTRAP_LOG", "trace"))
}

/// What only `member remove` and `leave` print, and what `pki rewrap` does with two keys.
fn changes(masters: &[Master], form: &str) -> Vec<Finished> {
    let first = &masters[0];
    let configure = |key| {
        first.write(KEY_FILE, key);
        first.set_mode(KEY_FILE, 0o600);
    };
    configure(OTHER_KEY);
    let said = vec![
        // The stored keys do not open with it: errors are where secrets leak.
        run(first, form, &["pki", "status"]).expect(21).says(&["another key"]),
        run(first, form, &["pki", "rewrap"]),
        run(first, form, &["member", "remove", "m2"]),
        run(&masters[1], form, &["leave", "--yes", "m2"]).expect(0),
    ];
    configure(KEY);
    said
}

fn audit_files(master: &Master, secrets: &Secrets) {
    let allowed = ALLOWED.map(|place| master.path(place));
    for entry in below(master.root()).iter().filter(|entry| secrets.found_in(&entry.body).is_some()) {
        let place = entry.path.display();
        assert!(allowed.iter().any(|place| entry.path.starts_with(place)), "{place} contains a secret");
        assert_eq!(entry.mode, 0o600, "{place} contains a secret");
    }
    assert_eq!(open_to_others(&master.path("/var/lib/kubestrap")), Vec::<String>::new());
}

fn audit(form: &str) {
    let group = Group::new();
    let masters = [1, 2, 3].map(|n| group.master(n));
    // A join that fails first, after the keys were placed.
    masters[1].script(&format!("{QUICK}faults: [{{command: join, phase: kubelet-start, action: fail, times: 1}}]"));
    let execs = masters.each_ref().map(|master| Execs::of(master, group.world.path(&format!("execs-{}", master.name))));
    let mut secrets = Secrets::default();
    for key in [KEY, OTHER_KEY] {
        secrets.add("a key that seals", key.trim());
        let raw = STANDARD.decode(key.trim()).expect("base64");
        secrets.add("a key that seals", &String::from_utf8(raw).expect("ASCII"));
    }
    let mut said = Vec::new();
    for master in &masters {
        said.push(run(master, form, &["run", "--once"]).expect(0));
        learn(&mut secrets, &group.world, master);
    }
    for verb in VERBS {
        let shown = run(&masters[1], form, verb);
        assert!(!shown.said().contains("Usage:"), "{verb:?}: {}", shown.said());
        said.push(shown);
    }
    said.extend(changes(&masters, form));
    let executed: Vec<Exec> = execs.iter().flat_map(Execs::all).collect();
    learn_documents(&mut secrets, &executed);
    // Four keys of authorities; one administrator's key on each master; the tokens of init and of the bundle.
    for (kind, least) in
        [("a private key", 4), ("the administrator's key", 3), ("a bootstrap token", 2), ("a key that seals", 4)]
    {
        assert!(secrets.count(kind) >= least, "{kind}: the audit knows {}", secrets.count(kind));
    }
    for finished in said {
        secrets.absent("what it said", finished.said());
    }
    let joins = executed.iter().filter(|exec| exec.line.contains("kubeadm join")).count();
    assert!(joins >= 3, "two joins, and one that failed: {joins}");
    executed.iter().for_each(|exec| exec.is_clean(&secrets));
    masters.iter().for_each(|master| audit_files(master, &secrets));
    audit_store(&group.world, &secrets);
}

#[test]
fn several_masters_tell_no_secret_json() {
    audit("json");
}

#[test]
fn several_masters_tell_no_secret_human() {
    audit("human");
}
