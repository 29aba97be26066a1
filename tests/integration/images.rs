//! Images that are pulled while the machine becomes a node, through the real program and a `ctr` that notes what it is
//! asked.

use crate::process::PATIENCE;
use crate::world::{Machine, World};
use serde_json::Value;
use std::os::unix::net::UnixListener;

const SANDBOX: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/k8s/pause:3.10";
const AGENT: &str = "registry.example.com/team/agent:1.4";
const PROXY: &str = "registry.k8s.io/kube-proxy:v1.36.1";

fn configured(machine: &Machine) {
    machine.configure(&format!("images: {{ sandbox: '{SANDBOX}', pull: ['{AGENT}'] }}\n"));
}

/// The labels of the images that are there, by reference.
fn images(machine: &Machine) -> Value {
    let text = std::fs::read_to_string(machine.path("/var/lib/kubestrap-standin/images.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn all_there(machine: &Machine) -> bool {
    let images = images(machine);
    let pinned = images[SANDBOX].as_str().is_some_and(|labels| labels.contains("io.cri-containerd.pinned=pinned"));
    pinned && images[AGENT].is_string()
}

#[test]
fn a_worker_pulls_what_it_will_need_while_it_waits_and_pins_the_sandbox_image() {
    let world = World::new();
    let worker = world.worker("w1");
    configured(&worker);
    let mut agent = worker.start(&["run"]);
    agent.until("the images are there", || all_there(&worker) && images(&worker)[PROXY].is_string());
    assert_eq!(worker.begun("join"), 0, "there is no cluster yet");
    let master = world.master("m1");
    master.run(&["run", "--once"]).expect(0);
    agent.until_logged("phase: ready");
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    let pulls = worker.begun("ctr pull");
    assert_eq!((pulls, worker.begun("ctr label")), (3, 1));
    for event in worker.events().iter().filter(|event| event["command"] == "ctr pull" && event["event"] == "start") {
        let argv = event["argv"].to_string();
        let hosts = worker.path("/etc/containerd/certs.d").display().to_string();
        assert!(argv.contains(&format!("\"--hosts-dir\",\"{hosts}\"")), "{argv}");
    }
    // Another life of the agent: what is there is not pulled again, and a pin that was lost is put back.
    let mut rows = images(&worker);
    rows[SANDBOX] = "io.cri-containerd.image=managed".into();
    worker.write("/var/lib/kubestrap-standin/images.json", &rows.to_string());
    let mut agent = worker.start(&["run"]);
    agent.until("the sandbox image is pinned again", || all_there(&worker));
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    assert_eq!((worker.begun("ctr pull"), worker.begun("ctr label")), (pulls, 2));
    // On a master kubeadm itself pulls kube-proxy.
    assert_eq!(master.begun("ctr pull"), 0);
}

#[test]
fn an_image_that_cannot_be_pulled_is_told_and_tried_again_and_stops_nothing() {
    let (world, _master) = World::established();
    let worker = world.worker("w1");
    configured(&worker);
    worker.script("faults: [{command: ctr pull, phase: image, action: fail, times: 1}]");
    let mut agent = worker.start(&["run"]);
    agent.until_logged("pull access denied");
    agent.until_logged("phase: ready");
    // Nobody is left without: it is pulled at the second attempt, and the others were at the first.
    agent.until("the sandbox image is there", || images(&worker)[SANDBOX].is_string());
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    assert_eq!(worker.succeeded("join"), 1);
}

#[test]
fn a_pull_that_hangs_does_not_hold_the_bootstrap() {
    let (world, _master) = World::established();
    let worker = world.worker("w1");
    configured(&worker);
    worker.script("faults: [{command: ctr pull, phase: image, action: hang}]");
    worker.run(&["run", "--once"]).expect(0);
    assert_eq!((worker.begun("ctr pull"), worker.succeeded("ctr pull")), (1, 0));
}

#[test]
fn without_images_and_without_containerd_nothing_is_pulled_and_the_log_says_why() {
    let (_world, master) = World::established();
    let mut agent = master.start(&["run"]);
    agent.until_logged("no images are pulled ahead: `images` is not configured");
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    let socket = "/var/run/crio/crio.sock";
    std::fs::create_dir_all(master.path("/var/run/crio")).expect("mkdir");
    let _crio = UnixListener::bind(master.path(socket)).expect("socket");
    master.configure(&format!("images: {{ sandbox: '{SANDBOX}' }}\nnode: {{ cri_socket: 'unix://{socket}' }}\n"));
    let mut agent = master.start(&["run"]);
    agent.until_logged("only containerd's are, and this machine has /var/run/crio/crio.sock");
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    assert_eq!(master.begun("ctr pull"), 0);
}
