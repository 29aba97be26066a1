//! Beside kubeadm by hand, measured in one run, on machines made in the same way, with nothing else running.

use super::support::{BUCKET, READY, await_ready, expect, one_cluster, ready_node, user_data};
use super::{Needs, Scenario};
use crate::lab::Lab;
use crate::machine::{Boot, Machine, Spec};
use crate::{Result, attempted};
use serde_json::Value;
use std::time::{Duration, Instant};

/// See the module.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "side-by-side",
    about: "how long until a master and a worker are Ready: kubeadm by hand with a token, and kubestrap",
    needs: Needs::Kubernetes,
    shares: false,
    run: side_by_side,
}];

/// Rounds of each, alternating.
const ROUNDS: usize = 3;
/// How often kubectl is asked; the same for both, for it costs processor time.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// What every machine of this lab is told.
const BAKED: &str = "/usr/lib/kubestrap/config.d/50-lab.yaml";

fn side_by_side(lab: &mut Lab) -> Result<()> {
    lab.fabric().bucket(BUCKET)?;
    let (mut hand, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        hand.push(by_hand(lab)?);
        ours.push(kubestrap(lab, &format!("side-{round}"))?);
    }
    let (hand, ours) = (median(&hand), median(&ours));
    lab.say(&format!(
        "medians of {ROUNDS}: kubeadm by hand {hand:.1} s, kubestrap {ours:.1} s, ratio {:.2}",
        ours / hand
    ));
    expect(ours < hand, &format!("kubestrap ({ours:.1} s) is sooner than kubeadm by hand ({hand:.1} s)"))
}

fn median(times: &[Duration]) -> f64 {
    let mut seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// A master and a worker that have booted and are idle.
fn idle(lab: &mut Lab, cluster: &str) -> Result<(Machine, Machine)> {
    let spec = |name: &str, file: &str| -> Result<Spec> {
        Ok(Spec::new(name).boot(Boot::Plain).file_mode("/etc/kubestrap/config.yaml", user_data(file, cluster)?, 0o600))
    };
    let master = lab.machine(&spec("m1", "master.kubestrap.yaml")?)?;
    let worker = lab.machine(&spec("w1", "worker.kubestrap.yaml")?)?;
    for machine in [&master, &worker] {
        machine.power_on()?;
        machine.wait_booted()?;
    }
    std::thread::sleep(Duration::from_secs(3));
    Ok((master, worker))
}

/// As people do it: init, the token and the hash carried to the worker as soon as there are any, join.
fn by_hand(lab: &mut Lab) -> Result<Duration> {
    let (master, worker) = idle(lab, "by-hand")?;
    master.write("/root/init.yaml", &init_documents(&master)?, 0o600)?;
    let began = Instant::now();
    master.shell("kubeadm init --config /root/init.yaml")?;
    let init = began.elapsed();
    let command = master.shell("kubeadm token create --print-join-command")?;
    let name = super::support::node_name(&worker);
    worker.shell(&format!("{} --node-name {name} --ignore-preflight-errors=all", command.trim()))?;
    let join = began.elapsed();
    let took = both_ready(&master, &worker, began)?;
    lab.say(&format!(
        "kubeadm by hand: init {:.1} s, join returned at {:.1} s, both Ready at {:.1} s",
        init.as_secs_f64(),
        join.as_secs_f64(),
        took.as_secs_f64()
    ));
    lab.clear()?;
    Ok(took)
}

fn kubestrap(lab: &mut Lab, cluster: &str) -> Result<Duration> {
    let (master, worker) = idle(lab, cluster)?;
    let began = Instant::now();
    for machine in [&master, &worker] {
        machine.shell("systemctl start --no-block kubestrap")?;
    }
    let took = both_ready(&master, &worker, began)?;
    lab.say(&format!("kubestrap: both Ready at {:.1} s", took.as_secs_f64()));
    for machine in [&master, &worker] {
        await_ready(lab, &master, machine)?;
    }
    one_cluster(lab, cluster, &master, std::slice::from_ref(&worker))?;
    if took > Duration::from_secs(15) {
        for machine in [&master, &worker] {
            println!("{}:\n{}", machine.name(), machine.shell("kubestrap analyze").unwrap_or_default());
        }
    }
    lab.clear()?;
    Ok(took)
}

fn both_ready(master: &Machine, worker: &Machine, began: Instant) -> Result<Duration> {
    // Nobody is asked before there can be an answer.
    master.until("to have initialised", READY, |master| master.exists("/etc/kubernetes/admin.conf"))?;
    for machine in [master, worker] {
        machine.until("to be Ready", READY, |machine| {
            let ready = ready_node(master, machine).is_some();
            if !ready {
                std::thread::sleep(ASK_EVERY);
            }
            ready
        })?;
    }
    Ok(began.elapsed())
}

/// A document of kubeadm with what every machine of this lab is told; its name and its socket where it has them.
pub(super) fn baked_document(machine: &Machine, kind: &str) -> Result<Value> {
    let baked = machine.read(BAKED).unwrap_or_default();
    let text: String = baked.lines().filter(|line| !line.starts_with('#')).collect();
    let baked: Value = attempted(serde_json::from_str(&text), format!("read {BAKED}"))?;
    let mut document = baked["kubeadm"][kind].clone();
    let group = match kind {
        "KubeletConfiguration" => "kubelet.config.k8s.io/v1beta1",
        "KubeProxyConfiguration" => "kubeproxy.config.k8s.io/v1alpha1",
        _ => "kubeadm.k8s.io/v1beta4",
    };
    document["apiVersion"] = group.into();
    document["kind"] = kind.into();
    if matches!(kind, "InitConfiguration" | "JoinConfiguration") {
        document["nodeRegistration"]["criSocket"] = baked["node"]["cri_socket"].clone();
        document["nodeRegistration"]["name"] = super::support::node_name(machine).into();
    }
    Ok(document)
}

/// What kubeadm is told by hand: the same cluster, and the same settings for this lab's kernel.
pub(super) fn init_documents(master: &Machine) -> Result<String> {
    let version = master.shell("kubeadm version -o short")?;
    let mut documents = Vec::new();
    for kind in ["InitConfiguration", "ClusterConfiguration", "KubeletConfiguration", "KubeProxyConfiguration"] {
        let mut document = baked_document(master, kind)?;
        if kind == "ClusterConfiguration" {
            document["kubernetesVersion"] = version.trim().into();
            document["controlPlaneEndpoint"] = "api.lab:6443".into();
            document["networking"] = serde_json::json!({ "podSubnet": "10.244.0.0/16" });
        }
        documents.push(document.to_string());
    }
    Ok(documents.join("\n---\n"))
}
