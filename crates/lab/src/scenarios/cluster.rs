//! A cluster that grows: workers of every kind join a master that is there.

use super::support::{
    self, BUCKET, SHARED, await_ready, entries, expect, is_ready, log, node_name, shared, shared_worker,
};
use super::{Needs, Scenario};
use crate::lab::Lab;
use crate::machine::Machine;
use crate::tree::images;
use crate::{Result, fail, network};
use serde_json::Value;
use std::time::{Duration, Instant, SystemTime};

/// See the module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "three-nodes",
        about: "a master and two workers, each from another form of user-data; labels, providerID, a pod on each worker",
        needs: Needs::Kubernetes,
        shares: false,
        run: three_nodes,
    },
    Scenario {
        name: "imds-late",
        about: "instance metadata answers 30 s after the boot; the worker waits and joins",
        needs: Needs::Kubernetes,
        shares: true,
        run: imds_late,
    },
    Scenario {
        name: "token-revoked",
        about: "the token is deleted between fetch and join; the worker joins with the next one within 3 minutes",
        needs: Needs::Kubernetes,
        shares: true,
        run: token_revoked,
    },
    Scenario {
        name: "api-down",
        about: "the API server is away for a minute when a worker joins",
        needs: Needs::Kubernetes,
        shares: true,
        run: api_down,
    },
    Scenario {
        name: "store-down",
        about: "the store is away for two minutes: before a worker has the bundle, and after another one has",
        needs: Needs::Kubernetes,
        shares: true,
        run: store_down,
    },
    Scenario {
        name: "ten-workers",
        about: "ten workers are started at the same moment",
        needs: Needs::Kubernetes,
        shares: true,
        run: ten_workers,
    },
    Scenario {
        name: "late-worker",
        about: "a worker starts after the first token has expired",
        needs: Needs::Kubernetes,
        shares: true,
        run: late_worker,
    },
];

fn three_nodes(lab: &mut Lab) -> Result<()> {
    support::cluster_of(lab, 2)?;
    let machines = lab.machines();
    let [master, workers @ ..] = &machines[..] else { return fail("there are no machines") };
    support::one_cluster(lab, "lab", master)?;
    for machine in &machines {
        let node = master.kubectl(&["get", "node", &node_name(machine)])?;
        let instance: Value = serde_json::from_slice(&std::fs::read(machine.folder().join("instance.json"))?)?;
        let text = |key: &str| instance[key].as_str().unwrap_or_default().to_owned();
        let labels = &node["metadata"]["labels"];
        for (label, key) in [
            ("topology.kubernetes.io/zone", "availability_zone"),
            ("topology.kubernetes.io/region", "region"),
            ("node.kubernetes.io/instance-type", "instance_type"),
        ] {
            expect(labels[label] == instance[key], &format!("{label} of {} is {}", machine.name(), text(key)))?;
        }
        let provider = format!("aws:///{}/{}", text("availability_zone"), text("instance_id"));
        expect(node["spec"]["providerID"] == provider.as_str(), &format!("providerID is {provider}"))?;
        expect(support::says_complete(machine), &format!("{} says it is complete", machine.name()))?;
    }
    let image = images::sandbox(lab.kubernetes().as_deref());
    let pods = daemon_set(&image);
    master.write("/root/pods.json", &pods.to_string(), 0o644)?;
    master.shell("kubectl apply -f /root/pods.json")?;
    for worker in workers {
        let node = node_name(worker);
        let field = format!("spec.nodeName={node},status.phase=Running");
        let running = ["get", "pods", "-l", "app=probe", "--field-selector", &field];
        worker.until("to run a pod", support::READY, |_| {
            master.kubectl(&running).is_ok_and(|list| list["items"].as_array().is_some_and(|items| items.len() == 1))
        })?;
        expect(master.kubectl(&["get", "node", &node])?["metadata"]["labels"]["team"] == "web", "the label team=web")?;
    }
    lab.say("a pod runs on each worker");
    Ok(())
}

fn daemon_set(image: &str) -> Value {
    serde_json::json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": { "name": "probe", "namespace": "default" },
        "spec": {
            "selector": { "matchLabels": { "app": "probe" } },
            "template": {
                "metadata": { "labels": { "app": "probe" } },
                "spec": { "containers": [{ "name": "probe", "image": image, "imagePullPolicy": "IfNotPresent" }] },
            },
        },
    })
}

fn imds_late(lab: &mut Lab) -> Result<()> {
    let master = shared(lab)?;
    let worker = shared_worker(lab, "w-imds")?;
    lab.fabric().publish_metadata(Duration::from_secs(30))?;
    let began = Instant::now();
    worker.power_on()?;
    await_ready(lab, &master, &worker)?;
    let took = began.elapsed().as_secs();
    expect(took >= 30, &format!("it took {took} s, more than metadata did"))?;
    let log = log(&worker);
    expect(log.contains("169.254.169.254") || log.contains("metadata"), &format!("it said what it waited for: {log}"))
}

fn token_revoked(lab: &mut Lab) -> Result<()> {
    let master = shared(lab)?;
    let worker = shared_worker(lab, "w-revoked")?;
    // Its kubeadm waits before it joins, with the token it was given.
    let gate = "#!/bin/sh\n\
                if [ \"$1\" = join ]; then touch /run/joining; until [ -e /run/go ]; do sleep 0.1; done; fi\n\
                exec /usr/bin/kubeadm \"$@\"\n";
    worker.write("/usr/local/bin/kubeadm", gate, 0o755)?;
    worker.power_on()?;
    worker.until("to begin its join", support::READY, |worker| worker.exists("/run/joining"))?;
    let bundle = bundle(lab)?;
    let id = token_id(&bundle);
    master.shell(&format!("kubectl -n kube-system delete secret bootstrap-token-{id}"))?;
    worker.write("/run/go", "", 0o644)?;
    let began = Instant::now();
    await_ready(lab, &master, &worker)?;
    let took = began.elapsed();
    expect(took < Duration::from_secs(180), &format!("it took {} s, less than 3 minutes", took.as_secs()))?;
    expect(bundle_sequence(lab)? > bundle["sequence"].as_u64().unwrap_or(u64::MAX), "a newer bundle was published")
}

fn bundle(lab: &Lab) -> Result<Value> {
    let found = lab.fabric().object(&format!("{BUCKET}/k8s/{SHARED}/join/worker.json"))?;
    found.map_or_else(|| fail("there is no join bundle"), Ok)
}

fn bundle_sequence(lab: &Lab) -> Result<u64> {
    Ok(bundle(lab)?["sequence"].as_u64().unwrap_or_default())
}

fn token_id(bundle: &Value) -> String {
    bundle["token"].as_str().unwrap_or_default().split('.').next().unwrap_or_default().to_owned()
}

fn api_down(lab: &mut Lab) -> Result<()> {
    const AWAY: Duration = Duration::from_secs(60);
    let master = shared(lab)?;
    let worker = shared_worker(lab, "w-api")?;
    master.shell("mv /etc/kubernetes/manifests/kube-apiserver.yaml /root/")?;
    master.until("to have no API server", support::READY, |master| master.kubectl(&["get", "nodes"]).is_err())?;
    lab.say("the API server is away");
    worker.power_on()?;
    worker.until("to begin its join", support::READY, |worker| entries(worker, "step-began") > 0)?;
    std::thread::sleep(AWAY);
    expect(worker.status()?["complete"] == false, "it has not joined without an API server")?;
    expect(worker.status()?["agent_running"] == true, "its agent goes on trying")?;
    master.shell("mv /root/kube-apiserver.yaml /etc/kubernetes/manifests/")?;
    lab.say("the API server comes back");
    await_ready(lab, &master, &worker).map(drop)
}

fn store_down(lab: &mut Lab) -> Result<()> {
    const AWAY: Duration = Duration::from_secs(120);
    let master = shared(lab)?;
    let (early, late) = (shared_worker(lab, "w-early")?, shared_worker(lab, "w-late")?);
    // The one that has the bundle needs no store to join.
    early.power_on()?;
    early.until("to begin kubeadm join", support::READY, |machine| machine.exists("/etc/kubernetes/pki/ca.crt"))?;
    let began = Instant::now();
    lab.fabric().set_store(false)?;
    let result = without_store(lab, &master, &early, &late, began, AWAY);
    lab.fabric().set_store(true)?;
    result?;
    lab.say("the store is back");
    await_ready(lab, &master, &late)?;
    await_ready(lab, &master, &early).map(drop)
}

fn without_store(
    lab: &Lab,
    master: &Machine,
    early: &Machine,
    late: &Machine,
    began: Instant,
    away: Duration,
) -> Result<()> {
    lab.say("the store is away");
    late.power_on()?;
    early.until("to be Ready without a store", support::READY, |early| is_ready(master, &node_name(early)))?;
    std::thread::sleep(away.saturating_sub(began.elapsed()));
    expect(late.status()?["complete"] == false, "nobody joins without a bundle")?;
    expect(late.status()?["agent_running"] == true, "its agent goes on trying")?;
    let (log, address) = (log(late), network::AWS.to_string());
    expect(log.contains(&address) || log.contains("store"), &format!("it says what it waits for: {log}"))
}

fn ten_workers(lab: &mut Lab) -> Result<()> {
    let master = shared(lab)?;
    let mut workers = Vec::new();
    for number in 1..=10 {
        workers.push(shared_worker(lab, &format!("w{number}"))?);
    }
    let began = Instant::now();
    workers.iter().try_for_each(Machine::power_on)?;
    for worker in &workers {
        await_ready(lab, &master, worker)?;
        expect(entries(worker, "completed") == 1, &format!("{} completed once", worker.name()))?;
    }
    lab.say(&format!("ten workers are Ready {:.1} s after they were switched on", began.elapsed().as_secs_f64()));
    Ok(())
}

fn late_worker(lab: &mut Lab) -> Result<()> {
    let master = shared(lab)?;
    let (Some(token), Some(expires)) = (lab.notes.get("token").cloned(), lab.notes.get("expires_at").cloned()) else {
        return fail("the first bundle is not known");
    };
    let wait = master.shell(&format!("echo $(( $(date -d '{expires}' +%s) - $(date +%s) ))"))?;
    let wait: i64 = wait.trim().parse().unwrap_or(i64::MAX);
    // The API server's token cleaner comes by when it comes by; some seconds are enough.
    let wait = Duration::from_secs(u64::try_from(wait + 5).unwrap_or_default());
    lab.say(&format!("the first token lives {} s more; waiting", wait.as_secs()));
    let until = SystemTime::now() + wait;
    while SystemTime::now() < until {
        std::thread::sleep(Duration::from_secs(1));
    }
    let id = token.split('.').next().unwrap_or_default().to_owned();
    let gone = master.kubectl(&["-n", "kube-system", "get", "secret", &format!("bootstrap-token-{id}")]);
    expect(gone.is_err(), "the cluster has forgotten the first token")?;
    expect(token_id(&bundle(lab)?) != id, "the bundle has another token")?;
    let worker = shared_worker(lab, "w-day-two")?;
    let began = Instant::now();
    worker.power_on()?;
    await_ready(lab, &master, &worker)?;
    lab.say(&format!("Ready {:.1} s after it was switched on", began.elapsed().as_secs_f64()));
    expect(entries(&worker, "completed") == 1, "it completed once")
}
