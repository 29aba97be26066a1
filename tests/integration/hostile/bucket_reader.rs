//! Whoever can read the store. They get a token that dies soon, and nothing else that is worth stealing.

use crate::world::{Machine, World};
use base64::Engine;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Every object, by path.
fn objects(world: &World) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![world.path("store")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("list").flatten() {
            let (path, data) = (entry.path(), entry.metadata().expect("stat"));
            if data.is_dir() {
                folders.push(path);
                continue;
            }
            assert_eq!(data.mode() & 0o077, 0, "{} can be read by every user", path.display());
            let body = std::fs::read(&path).expect("read");
            found.insert(path, String::from_utf8_lossy(&body).into_owned());
        }
    }
    found
}

/// Every private key and token of a machine, as text that can be looked for.
fn secrets(machine: &Machine) -> Vec<(String, String)> {
    let mut secrets = Vec::new();
    for (path, (_, _, body)) in
        machine.picture("/etc/kubernetes").into_iter().chain(machine.picture("/var/lib/kubelet"))
    {
        let text = String::from_utf8_lossy(&body).into_owned();
        let name = path.display().to_string();
        let data = text.lines().filter_map(|line| line.trim().strip_prefix("client-key-data: ").map(str::to_owned));
        let decoded = data.clone().filter_map(|key| base64::prelude::BASE64_STANDARD.decode(key.trim()).ok());
        let decoded = decoded.map(|key| String::from_utf8_lossy(&key).into_owned());
        for key in data.chain(decoded).chain(text.contains("PRIVATE KEY").then_some(text.clone())) {
            let inner = key.lines().filter(|line| !line.contains("-----")).max_by_key(|line| line.len());
            secrets.extend(inner.map(|line| (name.clone(), line.trim().to_owned())));
        }
    }
    secrets
}

#[test]
fn a_reader_gets_a_token_for_an_hour_and_no_key() {
    let (world, master) = World::established();
    let worker = world.worker("w1");
    worker.run(&["run", "--once"]).expect(0);
    let mut secrets = secrets(&master);
    assert!(secrets.iter().any(|(name, _)| name.ends_with("pki/ca.key")), "{:?}", secrets.iter().map(|s| &s.0));
    assert!(secrets.iter().any(|(name, _)| name.ends_with("admin.conf")));
    secrets.extend(self::secrets(&worker));
    let objects = objects(&world);
    assert!(objects.len() >= 4, "{:?}", objects.keys());
    let token = world.bundle()["token"].as_str().expect("a token").to_owned();
    for (path, text) in &objects {
        for (name, secret) in &secrets {
            assert!(secret.len() >= 16 && !text.contains(secret.as_str()), "{} has a key of {name}", path.display());
        }
        for word in ["PRIVATE KEY", "client-key", "kind: Config", "certificate-key"] {
            assert!(!text.contains(word), "{} has {word:?}", path.display());
        }
        assert!(!text.contains(&token) || path.ends_with("join/worker.json"), "{} has the token", path.display());
    }
}

#[test]
fn the_token_lives_as_long_as_configured_in_the_cluster_too() {
    let world = World::new();
    let master = world.master("m1");
    master.configure("join: { token_ttl: 10m }\n");
    master.run(&["run", "--once"]).expect(0);
    let bundle = world.bundle();
    let seconds = |value: &serde_json::Value| {
        let text = value.as_str().expect("a time").to_owned();
        let (_, time) = text.split_once('T').expect("a time");
        let parts: Vec<f64> = time.trim_end_matches('Z').split(':').map(|part| part.parse().expect("number")).collect();
        parts[0] * 3600.0 + parts[1] * 60.0 + parts[2]
    };
    let life = (seconds(&bundle["expires_at"]) - seconds(&bundle["issued_at"])).rem_euclid(86_400.0);
    assert!((1.0..=601.0).contains(&life), "it lives {life} s");
    // The Secret in the cluster dies with it: expiry in the bundle alone would be a promise of the publisher.
    let (id, _) = bundle["token"].as_str().and_then(|token| token.split_once('.')).expect("a token");
    let secret = master.api_objects()[&format!("/api/v1/namespaces/kube-system/secrets/bootstrap-token-{id}")].clone();
    let expiration = secret["data"]["expiration"].as_str().map(|text| {
        let bytes = base64::prelude::BASE64_STANDARD.decode(text).expect("base64");
        String::from_utf8(bytes).expect("text")
    });
    let expiration = serde_json::Value::from(expiration.expect("an expiry"));
    let apart = (seconds(&expiration) - seconds(&bundle["expires_at"])).abs();
    assert!(apart < 2.0, "the cluster forgets it {apart} s off");
}

#[test]
fn what_people_are_shown_has_no_token() {
    let (world, master) = World::established();
    let token = world.bundle()["token"].as_str().expect("a token").to_owned();
    let (_, secret) = token.split_once('.').expect("id.secret");
    for arguments in [
        &["status", "--cluster"][..],
        &["status"],
        &["plan"],
        &["doctor"],
        &["status", "--cluster", "--output", "json"],
    ] {
        let said = crate::process::finish(&mut master.command(arguments)).said();
        assert!(!said.contains(secret), "{arguments:?} shows the token:\n{said}");
    }
}
