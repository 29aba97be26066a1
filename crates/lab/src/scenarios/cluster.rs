//! Clusters as they come up: from user-data, by many at once, by two masters, without a cloud, and late.

use super::support::{
    self, BUCKET, READY, await_ready, expect, first_bundle, from_user_data, master, noted, one_cluster, property,
    ready_node, register, shared_bundle, shared_is_one_cluster, shared_master, shared_worker, user_data,
};
use super::{Needs, Scenario};
use crate::Result;
use crate::fabric::OtherS3;
use crate::lab::Lab;
use crate::machine::{Machine, Spec};
use serde_json::Value;
use std::time::{Duration, Instant};

/// See the module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "three-nodes",
        about: "a master and two workers, started together from the user-data of cloud-init/, become a cluster",
        needs: Needs::Kubernetes,
        shares: false,
        run: three_nodes,
    },
    Scenario {
        name: "two-masters",
        about: "two masters started together make one cluster; the other one refuses and says why",
        needs: Needs::Kubernetes,
        shares: false,
        run: two_masters,
    },
    Scenario {
        name: "bare-metal",
        about: "a master and a worker without a cloud, with keys in a file, meet in an S3 server that is not moto",
        needs: Needs::Kubernetes,
        shares: false,
        run: bare_metal,
    },
    Scenario {
        name: "ten-workers",
        about: "ten workers started at the same moment all become nodes",
        needs: Needs::Kubernetes,
        shares: true,
        run: ten_workers,
    },
];

/// Told after the other stories of the shared cluster, in whose time the first token expires.
pub const LATE: &[Scenario] = &[Scenario {
    name: "late-worker",
    about: "a worker that starts after the first token has expired joins at once",
    needs: Needs::Kubernetes,
    shares: true,
    run: late_worker,
}];

fn three_nodes(lab: &mut Lab) -> Result<()> {
    let began = Instant::now();
    let machines = from_user_data(lab, "three", 2)?;
    let (master, workers) = (&machines[0], &machines[1..]);
    for machine in &machines {
        await_ready(lab, master, machine)?;
    }
    lab.say(&format!("three Ready nodes {:.1} s after the first power on", began.elapsed().as_secs_f64()));
    one_cluster(lab, "three", master, workers)?;
    for (machine, zone) in machines.iter().zip(["us-east-1a", "us-east-1b", "us-east-1c"]) {
        has_its_facts(master, machine, zone)?;
    }
    runs_pods(lab, master, workers)
}

/// Labels, providerID and version of the Node, which `kubestrap status` knows by the same name.
fn has_its_facts(master: &Machine, machine: &Machine, zone: &str) -> Result<()> {
    let Some(node) = ready_node(master, machine) else {
        return crate::fail(format!("{} is no longer Ready", machine.name()));
    };
    let instance: Value =
        serde_json::from_slice(&std::fs::read(machine.folder().join("instance.json"))?).unwrap_or_default();
    let id = format!("aws:///{zone}/{}", instance["instance_id"].as_str().unwrap_or_default());
    expect(node["spec"]["providerID"] == id, &format!("{} has the providerID {id}: {}", machine.name(), node["spec"]))?;
    let labels = &node["metadata"]["labels"];
    for (label, value) in [("topology.kubernetes.io/zone", zone), ("node.kubernetes.io/instance-type", "m7i.large")] {
        expect(labels[label] == value, &format!("{} has {label}={value}: {labels}", machine.name()))?;
    }
    if machine.name() != master.name() {
        expect(labels["team"] == "web", &format!("{} has the label of its user-data: {labels}", machine.name()))?;
    }
    let version = machine.shell("kubelet --version")?;
    let version = version.split_whitespace().last().unwrap_or_default();
    let status = machine.status()?;
    expect(status["kubernetes"] == format!("Ready ({version})"), &format!("its status has {version}: {status}"))?;
    expect(node["status"]["nodeInfo"]["kubeletVersion"] == version, &format!("its Node has {version}"))?;
    expect(status["node"] == support::node_name(machine), &format!("its status has the Node's name: {status}"))
}

/// A pod of a DaemonSet really runs on each worker, with an address of that worker's pods.
fn runs_pods(lab: &Lab, master: &Machine, workers: &[Machine]) -> Result<()> {
    let image = master.shell("ctr -n k8s.io images ls -q | grep -m1 '/pause:'")?;
    let manifest = format!(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{ name: proof }}\nspec:\n  selector: {{ matchLabels: {{ app: proof }} }}\n  \
         template:\n    metadata: {{ labels: {{ app: proof }} }}\n    spec: {{ containers: [{{ name: pause, image: '{}' }}] }}\n",
        image.trim()
    );
    master.write("/root/proof.yaml", &manifest, 0o644)?;
    master.shell("kubectl apply -f /root/proof.yaml && kubectl rollout status ds/proof --timeout=120s")?;
    let pods = master.kubectl(&["get", "pods", "-l", "app=proof"])?;
    for worker in workers {
        let on = |pod: &&Value| pod["spec"]["nodeName"] == worker.dns_name().as_str();
        let pod = pods["items"].as_array().and_then(|pods| pods.iter().find(on)).cloned().unwrap_or_default();
        let address = pod["status"]["podIP"].as_str().unwrap_or_default().to_owned();
        let own = address.starts_with(&format!("10.244.{}.", worker.number()));
        expect(pod["status"]["phase"] == "Running" && own, &format!("a pod runs on {}: {pod}", worker.name()))?;
        lab.say(&format!("{} runs a pod with address {address}", worker.name()));
    }
    Ok(())
}

fn two_masters(lab: &mut Lab) -> Result<()> {
    lab.fabric().bucket(BUCKET)?;
    let machines = [lab.machine(&master("m1", "rivals", "")?)?, lab.machine(&master("m2", "rivals", "")?)?];
    machines.iter().try_for_each(Machine::power_on)?;
    machines[0].until("to see the register held", READY, |_| {
        register(lab, "rivals").is_ok_and(|register| register["holder"].is_object())
    })?;
    let holder = register(lab, "rivals")?;
    let won = |machine: &&Machine| holder["holder"]["node_name"] == machine.dns_name().as_str();
    let winner = usize::from(!won(&&machines[0]));
    let (winner, loser) = (&machines[winner], &machines[1 - winner]);
    // As a load balancer would: the name leads to the API server that answers.
    lab.set_api(winner)?;
    lab.say(&format!("{} holds the register", winner.name()));
    await_ready(lab, winner, winner)?;
    loser.until("to be refused", READY, |loser| property(loser, "ActiveState").is_ok_and(|state| state == "failed"))?;
    let code = property(loser, "ExecMainStatus")?;
    expect(code == "11", &format!("{} ended with exit code 11, not {code}", loser.name()))?;
    let status = loser.status()?;
    let why = status["error"]["message"].as_str().unwrap_or_default();
    let says = status["error"]["cause"] == "already-established" && why.contains(&winner.dns_name());
    expect(says, &format!("the status of {} names who made the cluster: {status}", loser.name()))?;
    expect(status["complete"] == false, &format!("{} is no node: {status}", loser.name()))?;
    lab.say(&format!("{} says: {why}", loser.name()));
    std::thread::sleep(Duration::from_secs(12));
    expect(property(loser, "NRestarts")? == "0", "systemd does not start it again")?;
    for trace in ["/etc/kubernetes/pki", "/etc/kubernetes/admin.conf", "/var/lib/etcd/member"] {
        expect(!loser.exists(trace), &format!("{} has no {trace}", loser.name()))?;
    }
    let nodes = winner.kubectl(&["get", "nodes"])?;
    let count = nodes["items"].as_array().map_or(0, Vec::len);
    expect(count == 1, &format!("the cluster has one node, not {count}"))?;
    one_cluster(lab, "rivals", winner, &[])
}

fn bare_metal(lab: &mut Lab) -> Result<()> {
    let s3 = lab.fabric().other_s3(BUCKET, &|line| lab.say(line))?;
    let master = lab.machine(&without_cloud("m1", "master.kubestrap.yaml", &s3)?)?;
    let worker = lab.machine(&without_cloud("w1", "worker.kubestrap.yaml", &s3)?)?;
    [&master, &worker].iter().try_for_each(|machine| machine.power_on())?;
    for machine in [&master, &worker] {
        await_ready(lab, &master, machine)?;
        let status = machine.status()?;
        let identity = status["identity"].as_str().unwrap_or_default();
        expect(identity.starts_with("machine-"), &format!("{} is its machine-id: {status}", machine.name()))?;
        expect(support::ca(machine)? == support::ca(&master)?, &format!("{} has the one CA", machine.name()))?;
    }
    let node = master.kubectl(&["get", "node", "w1"])?;
    expect(node["spec"]["providerID"].is_null(), &format!("w1 has no providerID: {}", node["spec"]))?;
    let seen = master.shell("kubestrap status --cluster --output json")?;
    let seen: Value = serde_json::from_str(&seen).unwrap_or_default();
    let nodes = seen["nodes"].as_array().map_or(0, Vec::len);
    expect(seen["register"]["state"] == "established" && nodes == 2, &format!("the store tells of both: {seen}"))
}

/// A machine with a configuration file and root's credentials file, as on a rack.
fn without_cloud(name: &str, file: &str, s3: &OtherS3) -> Result<Spec> {
    let OtherS3 { endpoint, access_key, secret_key } = s3;
    let more = format!("s3: {{ endpoint: '{endpoint}', region: us-east-1 }}\n");
    let credentials = format!("[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n");
    let mut spec = Spec::new(name)
        .file_mode("/etc/kubestrap/config.yaml", user_data(file, "metal")? + &more, 0o600)
        .file_mode("/root/.aws/credentials", credentials, 0o600);
    spec.metadata = false;
    Ok(spec)
}

fn ten_workers(lab: &mut Lab) -> Result<()> {
    let master = shared_master(lab)?;
    let workers = (1..=10).map(|n| shared_worker(lab, &format!("w{n}"))).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    workers.iter().try_for_each(Machine::power_on)?;
    let on = began.elapsed();
    let mut waiting: Vec<&Machine> = workers.iter().collect();
    // In the order in which they come, so that a slow one hides nobody.
    master.until("to see ten workers Ready", READY, |master| {
        std::thread::sleep(Duration::from_secs(1));
        waiting.retain(|worker| ready_node(master, worker).is_none());
        waiting.is_empty()
    })?;
    let took = began.elapsed();
    lab.say(&format!(
        "ten machines on after {:.1} s, ten Ready nodes after {:.1} s",
        on.as_secs_f64(),
        took.as_secs_f64()
    ));
    for worker in &workers {
        await_ready(lab, &master, worker)?;
        expect(noted(worker, "joined") == 1, &format!("{} joined once", worker.name()))?;
    }
    shared_is_one_cluster(lab, &master, &workers)
}

fn late_worker(lab: &mut Lab) -> Result<()> {
    let master = shared_master(lab)?;
    let first = first_bundle(lab)?;
    let expires = first["expires_at"].as_str().unwrap_or_default().to_owned();
    lab.say(&format!("the first token expires at {expires}; waiting for it"));
    let secret = support::secret_of(&first);
    let wait = Duration::from_secs(15 * 60);
    master.until("to see the first token expire", wait, |master| {
        std::thread::sleep(Duration::from_secs(2));
        master.shell(&format!("test $(date +%s) -gt $(date -d {expires} +%s)")).is_ok()
    })?;
    master.until("to be rid of the first token", Duration::from_secs(120), |master| {
        std::thread::sleep(Duration::from_secs(2));
        master
            .exec(&["kubectl", "-n", "kube-system", "get", "secret", &secret])
            .is_ok_and(|done| done.stderr.contains("NotFound"))
    })?;
    let bundle = shared_bundle(lab)?;
    lab.say(&format!("it has; the store has bundle number {}", bundle["sequence"]));
    expect(bundle["token"] != first["token"], "the bundle has another token")?;
    let worker = shared_worker(lab, "late")?;
    let began = Instant::now();
    worker.power_on()?;
    await_ready(lab, &master, &worker)?;
    let took = began.elapsed().as_secs_f64();
    expect(took < 30.0, &format!("it joined at once, not after {took:.1} s"))?;
    expect(support::failures(&worker, "join-cluster").is_empty(), "it joined at the first try")?;
    shared_is_one_cluster(lab, &master, &[worker])
}
