//! What a node needs is away, late, revoked or full: it waits, says so, and goes on.

use super::support::{
    self, BUCKET, READY, await_ready, complaint, expect, failures, master, noted, one_cluster, property, said,
    secret_of, shared_bundle, shared_is_one_cluster, shared_master, shared_worker,
};
use super::{Needs, Scenario};
use crate::Result;
use crate::lab::Lab;
use crate::machine::{Machine, Spec};
use std::time::{Duration, Instant};

/// See the module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "disk-full",
        about: "a disk that fills up in the middle of init: named, nothing lost, and with space again a node",
        needs: Needs::Kubernetes,
        shares: false,
        run: disk_full,
    },
    Scenario {
        name: "imds-late",
        about: "instance metadata answers 30 s late: the worker waits, says so, and joins",
        needs: Needs::Kubernetes,
        shares: true,
        run: imds_late,
    },
    Scenario {
        name: "store-down",
        about: "the store is away for 2 minutes before and during joins and in the middle of an init",
        needs: Needs::Kubernetes,
        shares: true,
        run: store_down,
    },
    Scenario {
        name: "api-down",
        about: "the API server is away for a minute before and during joins",
        needs: Needs::Kubernetes,
        shares: true,
        run: api_down,
    },
];

/// Told after the first token has expired by itself.
pub const AFTER_LATE: &[Scenario] = &[Scenario {
    name: "token-revoked",
    about: "the token is deleted between fetch and join: joined with another one within 3 minutes",
    needs: Needs::Kubernetes,
    shares: true,
    run: token_revoked,
}];

fn imds_late(lab: &mut Lab) -> Result<()> {
    let late = Duration::from_secs(30);
    let master = shared_master(lab)?;
    let worker = shared_worker(lab, "w1")?;
    let began = Instant::now();
    lab.fabric().publish_metadata(late)?;
    worker.power_on()?;
    worker.until("to say that it waits for instance metadata", READY, |worker| {
        property(worker, "StatusText").is_ok_and(|text| text.contains("metadata"))
    })?;
    let heard = began.elapsed();
    expect(heard < late, &format!("it says so while it waits, not after {:.1} s", heard.as_secs_f64()))?;
    lab.say(&format!("w1 says so after {:.1} s: {}", heard.as_secs_f64(), property(&worker, "StatusText")?));
    await_ready(lab, &master, &worker)?;
    let took = began.elapsed();
    expect(took > late, &format!("metadata was late: {:.1} s", took.as_secs_f64()))?;
    let times = property(&worker, "NRestarts")?;
    expect(times == "0", &format!("one agent waited, and was not restarted {times} times"))?;
    lab.say(&format!("Ready {:.1} s after metadata began to answer", (took - late).as_secs_f64()));
    shared_is_one_cluster(lab, &master, &[worker])
}

fn store_down(lab: &mut Lab) -> Result<()> {
    let outage = Duration::from_secs(120);
    let first = shared_master(lab)?;
    let second = lab.machine(&master("m2", "outage", "")?.user_data(own_endpoint("m2", "outage")?))?;
    let early = shared_worker(lab, "w-early")?;
    let middle = shared_worker(lab, "w-middle")?;
    second.power_on()?;
    second.until("to be in the middle of init", READY, |m| m.exists("/etc/kubernetes/pki/ca.crt"))?;
    middle.power_on()?;
    middle.until("to be in the middle of join", READY, |m| m.exists("/etc/kubernetes/bootstrap-kubelet.conf"))?;
    lab.fabric().set_store(false)?;
    let gone = Instant::now();
    expect(noted(&second, "committed") == 0, "the store went before the commit")?;
    expect(noted(&middle, "joined") == 0, "the store went before the join ended")?;
    lab.say("the store is away; m2 initialises, w-middle joins, w-early boots");
    early.power_on()?;
    // A join needs no store once the bundle was read.
    await_ready(lab, &first, &middle)?;
    expect(gone.elapsed() < outage, "w-middle joined without the store")?;
    second.until("to have initialised", READY, |m| noted(m, "initialised") == 1)?;
    let patience = outage.saturating_sub(gone.elapsed()).max(Duration::from_secs(5));
    for machine in [&early, &second] {
        machine.until("to name the store", patience, |machine| {
            std::thread::sleep(Duration::from_millis(500));
            complaint(machine).contains(&format!("s3://{BUCKET}"))
        })?;
        lab.say(&format!("{} says: {}", machine.name(), complaint(machine)));
    }
    std::thread::sleep(outage.saturating_sub(gone.elapsed()));
    expect(noted(&second, "committed") == 0 && noted(&early, "joined") == 0, "nothing was committed")?;
    lab.fabric().set_store(true)?;
    lab.say("the store is back");
    let back = Instant::now();
    await_ready(lab, &second, &second)?;
    await_ready(lab, &first, &early)?;
    lab.say(&format!("both are Ready {:.1} s after the store came back", back.elapsed().as_secs_f64()));
    for machine in [&early, &second] {
        expect(property(machine, "NRestarts")? == "0", &format!("{} waited in one life", machine.name()))?;
    }
    one_cluster(lab, "outage", &second, &[])?;
    shared_is_one_cluster(lab, &first, &[early, middle])
}

/// A master's user-data whose endpoint is its own name.
fn own_endpoint(name: &str, cluster: &str) -> Result<String> {
    Ok(support::user_data("master.kubestrap.yaml", cluster)?.replace("api.lab", name))
}

fn api_down(lab: &mut Lab) -> Result<()> {
    let master = shared_master(lab)?;
    let early = shared_worker(lab, "w-early")?;
    let middle = shared_worker(lab, "w-middle")?;
    middle.power_on()?;
    middle.until("to be about to join", READY, |m| m.exists("/var/lib/kubestrap/kubeadm/join.yaml"))?;
    // The manifest first: the kubelet would start it again.
    master.shell("mv /etc/kubernetes/manifests/kube-apiserver.yaml /root/ && pkill -9 -x kube-apiserver")?;
    let gone = Instant::now();
    let in_time = noted(&middle, "joined") == 0;
    lab.say("the API server is away");
    expect(in_time, "the API server went before the join ended")?;
    early.power_on()?;
    early.until("to have begun its join", READY, |m| noted(m, "began") == 1)?;
    std::thread::sleep(Duration::from_secs(60).saturating_sub(gone.elapsed()));
    let down = master.exec(&["curl", "-sk", "--max-time", "2", "https://127.0.0.1:6443/livez"])?;
    expect(down.stdout != "ok", "the API server is away")?;
    expect(noted(&early, "joined") == 0, "nobody joins without an API server")?;
    let words = complaint(&early);
    expect(words.contains("kubeadm join"), &format!("w-early says what it waits for: {words}"))?;
    lab.say(&format!("w-early says: {words}"));
    master.shell("mv /root/kube-apiserver.yaml /etc/kubernetes/manifests/")?;
    let back = Instant::now();
    lab.say("the API server may come back");
    for worker in [&middle, &early] {
        await_ready(lab, &master, worker)?;
        expect(property(worker, "NRestarts")? == "0", &format!("{} waited in one life", worker.name()))?;
    }
    lab.say(&format!("both are Ready {:.1} s after it", back.elapsed().as_secs_f64()));
    shared_is_one_cluster(lab, &master, &[early, middle])
}

fn token_revoked(lab: &mut Lab) -> Result<()> {
    let master = shared_master(lab)?;
    let worker = shared_worker(lab, "w1")?;
    let before = shared_bundle(lab)?;
    // In front of the real one: it holds the first join, which has its token by then, until the token is gone.
    worker.write("/usr/local/bin/kubeadm", HELD, 0o755)?;
    worker.power_on()?;
    worker.until("to hold a token", READY, |worker| worker.exists("/run/held"))?;
    let secret = secret_of(&before);
    let used = worker.read("/var/lib/kubestrap/kubeadm/join.yaml").unwrap_or_default();
    let token = before["token"].as_str().unwrap_or_default();
    expect(!token.is_empty() && used.contains(token), "it holds the token that is about to be deleted")?;
    master.shell(&format!("kubectl -n kube-system delete secret {secret}"))?;
    let began = Instant::now();
    // The controller takes the signature away, as it does with every token that ends.
    master.until("to have revoked the token", READY, |master| {
        std::thread::sleep(Duration::from_millis(300));
        let info = master.shell("kubectl -n kube-public get configmap cluster-info -o yaml").unwrap_or_default();
        !info.contains(&secret.replace("bootstrap-token-", "jws-kubeconfig-"))
    })?;
    worker.write("/run/go", "", 0o644)?;
    lab.say("the token was deleted while kubeadm join held it");
    await_ready(lab, &master, &worker)?;
    let took = began.elapsed();
    let after = shared_bundle(lab)?;
    expect(after["token"] != before["token"], "the master published another token")?;
    let tried = failures(&worker, "join-cluster");
    lab.say(&format!("joined {:.1} s after the token was gone; on the way: {tried:?}", took.as_secs_f64()));
    expect(took < Duration::from_secs(180), &format!("within 3 minutes, not {:.1} s", took.as_secs_f64()))?;
    shared_is_one_cluster(lab, &master, &[worker])
}

/// kubeadm, whose first join waits.
const HELD: &str = "#!/bin/sh
if [ \"$1\" = join ] && [ ! -e /run/held ]; then touch /run/held; until [ -e /run/go ]; do sleep 0.1; done; fi
exec /usr/bin/kubeadm \"$@\"
";

fn disk_full(lab: &mut Lab) -> Result<()> {
    lab.fabric().bucket(BUCKET)?;
    let master = lab.machine(&small(master("m1", "small", "")?))?;
    master.power_on()?;
    let before = fills_up(lab, &master, |m| m.exists("/etc/kubernetes/pki/ca.crt"))?;
    goes_on(lab, &master, &master, &before)?;
    one_cluster(lab, "small", &master, &[])?;
    let worker = lab.machine(&small(support::worker("w1", "small")?))?;
    worker.power_on()?;
    let before = fills_up(lab, &worker, |m| noted(m, "began") == 1)?;
    goes_on(lab, &worker, &master, &before)?;
    one_cluster(lab, "small", &master, &[worker])
}

/// A kubelet that could write its certificate and not its key never starts again by itself: kubeadm waits five minutes
/// for it, then kubestrap resets what this attempt made, and joins anew.
const KUBEADM_GIVES_UP: Duration = Duration::from_secs(8 * 60);

/// With a disk of 600 MiB, which a master with its etcd needs.
fn small(mut spec: Spec) -> Spec {
    spec.disk_mib = Some(600);
    spec
}

/// Fills the disk at a moment, and waits until the agent names the path; what the journal held by then.
fn fills_up(lab: &Lab, machine: &Machine, moment: fn(&Machine) -> bool) -> Result<String> {
    machine.until("to come to the moment", READY, moment)?;
    let before = machine.read("/var/lib/kubestrap/journal.jsonl").unwrap_or_default();
    // A second of silence, so that what is written meanwhile cannot be half of the filler's space.
    let filled = machine.exec(&[
        "sh",
        "-c",
        "cat /dev/zero >/filler; cat /dev/zero >>/filler; df --output=avail / | tail -1",
    ])?;
    lab.say(&format!("the disk of {} has {} KiB left", machine.name(), filled.stdout.trim()));
    machine.until("to name the full disk", Duration::from_secs(120), |machine| {
        std::thread::sleep(Duration::from_millis(500));
        let text = said(machine);
        text.contains("disk-full") || text.contains("No space left") || text.contains("no space left")
    })?;
    let line =
        said(machine).lines().rev().find(|line| line.to_lowercase().contains("no space left")).map(str::to_owned);
    lab.say(&format!("{} says: {}", machine.name(), line.unwrap_or_default()));
    let now = machine.read("/var/lib/kubestrap/journal.jsonl").unwrap_or_default();
    expect(now.starts_with(&before), &format!("the journal lost nothing:\n{before}\n---\n{now}"))?;
    Ok(now)
}

fn goes_on(lab: &Lab, machine: &Machine, master: &Machine, before: &str) -> Result<()> {
    machine.shell("rm /filler")?;
    lab.say("there is space again");
    machine.until("to be through its bootstrap", KUBEADM_GIVES_UP, |machine| noted(machine, "completed") == 1)?;
    await_ready(lab, master, machine)?;
    let now = machine.read("/var/lib/kubestrap/journal.jsonl").unwrap_or_default();
    expect(now.starts_with(before), &format!("the journal only grew:\n{before}\n---\n{now}"))
}
