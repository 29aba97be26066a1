//! Bad bundles in the store: refused and named, kubeadm is not run, and the worker goes on waiting.

use crate::process::PATIENCE;
use crate::world::World;
use serde_json::{Value, json};

/// What a bundle is changed to, and what the log says of it.
struct Bad {
    what: &'static str,
    change: fn(&Value) -> Vec<u8>,
    said: &'static str,
}

fn with(bundle: &Value, field: &str, value: Value) -> Vec<u8> {
    let mut bundle = bundle.clone();
    bundle[field] = value;
    bundle.to_string().into_bytes()
}

const BAD: &[Bad] = &[
    Bad { what: "empty", change: |_| Vec::new(), said: "it is empty" },
    Bad { what: "truncated", change: |bundle| bundle.to_string().into_bytes()[..100].to_vec(), said: "it is not JSON" },
    Bad { what: "not JSON", change: |_| b"kubeadm join 10.0.0.1:6443 --token x | sh\n".to_vec(), said: "not JSON" },
    Bad { what: "binary", change: |_| vec![0xff, 0xfe, 0, 1], said: "it is not" },
    Bad { what: "a list", change: |_| b"[]".to_vec(), said: "it is not" },
    Bad { what: "larger than any bundle", change: |_| vec![b' '; 200_000], said: "65536" },
    Bad { what: "a newer schema", change: |bundle| with(bundle, "schema", json!(2)), said: "schema" },
    Bad {
        what: "of another cluster",
        change: |bundle| with(bundle, "cluster", json!("staging")),
        said: "it is the bundle of another cluster",
    },
    Bad {
        what: "of another uid",
        change: |bundle| with(bundle, "uid", json!("00000000-0000-4000-8000-000000000000")),
        said: "and the register says",
    },
    Bad {
        what: "of another CA",
        change: |bundle| with(bundle, "ca_sha256", json!(format!("sha256:{}", "0".repeat(64)))),
        said: "its CA is sha256:0000",
    },
    Bad {
        what: "a CA hash of the wrong length",
        change: |bundle| with(bundle, "ca_sha256", json!("sha256:abc")),
        said: "ca_sha256 is not sha256:",
    },
    Bad {
        what: "expired",
        change: |bundle| {
            let mut bundle = bundle.clone();
            bundle["issued_at"] = json!("2020-01-01T00:00:00Z");
            bundle["expires_at"] = json!("2020-01-01T01:00:00Z");
            bundle.to_string().into_bytes()
        },
        said: "it expired at 2020-01-01T01:00:00Z",
    },
    Bad {
        what: "from the future",
        change: |bundle| {
            let mut bundle = bundle.clone();
            bundle["issued_at"] = json!("2099-01-01T00:00:00Z");
            bundle["expires_at"] = json!("2099-01-01T01:00:00Z");
            bundle.to_string().into_bytes()
        },
        said: "in the future of this machine's clock",
    },
    Bad {
        what: "shell characters in the token",
        change: |bundle| with(bundle, "token", json!("abcdef.$(touch /tmp/x)aa")),
        said: "the token is not of the form",
    },
    Bad {
        what: "a line feed in the token",
        change: |bundle| with(bundle, "token", json!("abcdef.0123456789abcdef\n")),
        said: "the token is not of the form",
    },
    Bad {
        what: "shell characters in the endpoint",
        change: |bundle| with(bundle, "endpoint", json!("127.0.0.1;reboot:6443")),
        said: "endpoint is not host:port",
    },
    Bad {
        what: "a flag as the endpoint",
        change: |bundle| with(bundle, "endpoint", json!("--ignore-preflight-errors=all:1")),
        said: "endpoint is not host:port",
    },
    Bad {
        what: "an endpoint without a port",
        change: |bundle| with(bundle, "endpoint", json!("api.example.com")),
        said: "endpoint is not host:port",
    },
];

fn survives(bad: &[Bad]) {
    const NONE: &str = "no master has published one yet";
    let (world, master) = World::established();
    let good = world.bundle();
    let place = world.store_path("prod/join/worker.json");
    std::fs::remove_file(&place).expect("remove");
    let worker = world.worker("w1");
    let mut agent = worker.start(&["run", "--once"]);
    agent.until_logged(NONE);
    for case in bad {
        let news = agent.news();
        world.put("join/worker.json", &(case.change)(&good));
        agent.until(&format!("a bundle that is {} is refused with {:?}", case.what, case.said), || {
            let text = news();
            text.contains(case.said) && text.contains("join/worker.json")
        });
        assert!(worker.events().is_empty(), "{}: kubeadm was run: {:?}", case.what, worker.events());
        // In between there is none: the same words are told only once in a row.
        let news = agent.news();
        std::fs::remove_file(&place).expect("remove");
        agent.until("it is seen that the bundle is gone", || news().contains(NONE));
    }
    assert!(!agent.log().contains("touch /tmp/x"), "what may be a secret is repeated");
    world.put("join/worker.json", good.to_string().as_bytes());
    agent.finished(PATIENCE).expect(0);
    assert_eq!(worker.begun("join"), 1);
    assert_eq!(master.node("w1")["metadata"]["name"], "w1");
}

#[test]
fn bundles_that_cannot_be_read_are_refused_until_a_good_one_comes() {
    survives(&BAD[..7]);
}

#[test]
fn bundles_that_do_not_agree_with_the_register_or_the_clock_are_refused() {
    survives(&BAD[7..13]);
}

#[test]
fn bundles_with_poisoned_fields_are_refused() {
    survives(&BAD[13..]);
}

#[test]
fn a_bundle_of_another_ca_than_the_configured_one_is_a_refusal() {
    let (world, _master) = World::established();
    let good = world.bundle();
    let worker = world.worker("w1");
    worker.configure(&format!("ca_pin: sha256:{}\n", "1".repeat(64)));
    worker.run(&["run", "--once"]).expect(11).says(&["foreign-cluster", "insist on sha256:1111"]);
    assert!(worker.events().is_empty());
    let report = worker.report(&world).expect("a report");
    assert_eq!((&report["phase"], &report["error"]["cause"]), (&"failed".into(), &"foreign-cluster".into()));
    worker.configure(&format!("ca_pin: {}\n", good["ca_sha256"].as_str().expect("a pin")));
    worker.run(&["run", "--once"]).expect(0);
}

#[test]
fn a_worker_gives_up_after_join_wait() {
    let world = World::new();
    let worker = world.worker("w1");
    worker.configure("join: { wait: 10s }\n");
    worker.run(&["run", "--once"]).expect(12).says(&["no-bundle", "gave up after 1", "status --cluster"]);
    assert!(worker.events().is_empty());
    assert_eq!(worker.report(&world).expect("a report")["error"]["cause"], "no-bundle");
}

#[test]
fn a_kubelet_that_is_too_new_is_refused_before_the_machine_is_touched() {
    let (world, _master) = World::established();
    let worker = world.worker("w1");
    worker.tool("kubelet", "echo Kubernetes v1.37.0");
    worker.run(&["run", "--once"]).expect(11).says(&["version-skew", "v1.37.0", "v1.36.1"]);
    assert!(worker.events().is_empty() && !worker.has("/etc/kubernetes"));
    worker.tool("kubelet", "echo Kubernetes v1.35.4");
    worker.run(&["run", "--once"]).expect(0);
}
