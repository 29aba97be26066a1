//! A machine against its bake manifest, by the real program and the real `sha256sum`.

use crate::world::{Machine, World};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "/usr/lib/kubestrap/manifest.json";

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A machine with a kubelet and a file of containerd's, as they were baked.
fn baked(world: &World) -> Machine {
    let machine = world.worker("w1");
    machine.write("/usr/bin/kubelet", "the kubelet");
    machine.write("/etc/containerd/config.toml", "version = 3");
    machine.set_mode("/etc/containerd/config.toml", 0o644);
    let manifest = json!({
        "schema": 1, "baked_at": "2026-11-01T00:00:00Z",
        "components": [
            { "name": "kubelet", "version": "v1.36.1", "path": "/usr/bin/kubelet", "sha256": digest("the kubelet") },
        ],
        "files": [{ "path": "/etc/containerd/config.toml", "sha256": digest("version = 3"), "mode": "0644" }],
    });
    machine.write(MANIFEST, &manifest.to_string());
    machine
}

fn verdict(machine: &Machine, code: i32) -> Value {
    let said = machine.run(&["drift", "--output", "json"]).expect(code);
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {}", said.said()))
}

#[test]
fn what_a_hand_changed_becomes_visible() {
    let world = World::new();
    let machine = baked(&world);
    assert_eq!(verdict(&machine, 0)["verdict"], "current");

    machine.write("/etc/containerd/config.toml", "version = 2");
    machine.write("/usr/bin/kubelet", "another kubelet");
    let found = verdict(&machine, 20);
    assert_eq!(
        (&found["verdict"], &found["action"]),
        (&"drifted".into(), &"report".into()),
        "it goes no further by itself"
    );
    let differences = found["content"]["differences"].as_array().expect("differences");
    assert_eq!(differences.len(), 2, "{found}");
    machine.run(&["drift"]).expect(20).says(&["kubelet", "is not the v1.36.1 that was baked", "was changed by hand"]);

    machine.write("/usr/bin/kubelet", "the kubelet");
    machine.write("/etc/containerd/config.toml", "version = 3");
    machine.set_mode("/etc/containerd/config.toml", 0o600);
    machine.run(&["drift"]).expect(20).says(&["its mode is 0600, and 0644 was baked"]);
    std::fs::remove_file(machine.path("/etc/containerd/config.toml")).expect("remove");
    machine.run(&["drift"]).expect(20).says(&["/etc/containerd/config.toml: it is missing"]);
}

#[test]
fn without_a_manifest_nothing_is_compared_and_a_bad_one_is_an_error_and_no_drift() {
    let world = World::new();
    let machine = baked(&world);
    let good = machine.read(MANIFEST);
    for (text, words) in [
        (good[..good.len() / 2].to_owned(), "it is not JSON"),
        (good.replace("\"schema\":1", "\"schema\":2"), "its schema is 2"),
        (good.replace("/usr/bin/kubelet", "/usr/../etc/shadow"), "is not an absolute path"),
    ] {
        machine.write(MANIFEST, &text);
        let said = machine.run(&["drift"]).says(&["unknown", words, MANIFEST]);
        assert!(!matches!(said.code, Some(0 | 20)), "{}", said.said());
    }
    std::fs::remove_file(machine.path(MANIFEST)).expect("remove");
    machine
        .run(&["drift"])
        .expect(0)
        .says(&["unknown: nothing is compared", "there is no /usr/lib/kubestrap/manifest.json"]);
}

#[test]
fn the_digest_of_what_was_baked_is_printed_without_any_configuration() {
    let world = World::new();
    let machine = baked(&world);
    std::fs::remove_file(machine.path("/etc/kubestrap/config.yaml")).expect("remove");
    let said = machine.run(&["drift", "--baked"]).expect(0);
    let digest = said.stdout.trim().strip_prefix("sha256:").expect("a digest");
    assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
    assert_eq!(said.stdout.lines().count(), 1, "it is for scripts: {}", said.stdout);

    machine.write(MANIFEST, "{ \"schema\": 1, \"components\": [");
    machine.run(&["drift", "--baked"]).expect(14).says(&["manifest.json"]);
    std::fs::remove_file(machine.path(MANIFEST)).expect("remove");
    machine.run(&["drift", "--baked"]).expect(14).says(&["it is not there", "kubestrap install"]);
}
