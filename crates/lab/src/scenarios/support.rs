//! What several stories share: machines as a user would make them, and what must hold of every cluster.

use crate::lab::Lab;
use crate::machine::{Boot, Machine, Spec};
use crate::{Result, attempted, fail};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// A node on a machine of two cores that others use too.
pub const READY: Duration = Duration::from_secs(240);
/// The bucket of the files in `cloud-init/`; each cluster has a name of its own.
pub const BUCKET: &str = "acme-clusters";
/// kubectl costs a tenth of a second of processor time, which nodes that start need themselves.
const ASK_EVERY: Duration = Duration::from_millis(300);
/// The master, and the cluster, of stories that leave their cluster as they found it.
const SHARED: &str = "shared";
/// The shared cluster's first join bundle, among the lab's notes.
const FIRST_BUNDLE: &str = "first bundle";

/// Configuration of a master whose pods stay on a full disk: it is the whole machine's, and how full that is is nothing to a
/// story.
pub const STAYS_ON_A_FULL_DISK: &str =
    "kubeadm: { KubeletConfiguration: { evictionHard: { memory.available: 50Mi, nodefs.available: 1% } } }\n";

/// A file of `cloud-init/`, with the names of this lab instead of the examples'.
pub fn user_data(file: &str, cluster: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cloud-init").join(file);
    let text = attempted(std::fs::read_to_string(&path), format!("read cloud-init/{file}"))?;
    let text = text.replace("cluster: prod", &format!("cluster: {cluster}"));
    Ok(text.replace("api.prod.example.com", "api.lab"))
}

/// A machine that gets a file of `cloud-init/` as its user-data, on the image the file is for.
pub fn cloud_init(name: &str, file: &str, cluster: &str) -> Result<Spec> {
    let boot = if file.contains("kubestrap") { Boot::Baked } else { Boot::CloudInit };
    Ok(Spec::new(name).user_data(user_data(file, cluster)?).boot(boot))
}

/// A master with kubestrap in its image; more configuration may follow.
pub fn master(name: &str, cluster: &str, more: &str) -> Result<Spec> {
    Ok(Spec::new(name).user_data(user_data("master.kubestrap.yaml", cluster)? + more))
}

/// A worker with kubestrap in its image.
pub fn worker(name: &str, cluster: &str) -> Result<Spec> {
    Ok(Spec::new(name).user_data(user_data("worker.kubestrap.yaml", cluster)?))
}

/// A cluster of one master that is in place.
pub fn one_master(lab: &mut Lab, name: &str, cluster: &str, more: &str) -> Result<Machine> {
    lab.fabric().bucket(BUCKET)?;
    let master = lab.machine(&master(name, cluster, more)?)?;
    master.power_on()?;
    await_ready(lab, &master, &master)?;
    Ok(master)
}

/// A cluster that stories use one after another: a master whose tokens live as short as they may. It is made when it is
/// not there.
pub fn shared_master(lab: &mut Lab) -> Result<Machine> {
    if let Some(master) = lab.machines().into_iter().find(|machine| machine.name() == SHARED) {
        return Ok(master);
    }
    let master = one_master(lab, SHARED, SHARED, "join: { token_ttl: 10m }\n")?;
    let bundle = bundle(lab, SHARED)?;
    expect(bundle["sequence"] == 1, &format!("the first bundle has number 1, not {}", bundle["sequence"]))?;
    lab.notes.insert(FIRST_BUNDLE.to_owned(), bundle.to_string());
    Ok(master)
}

/// Removes the workers of the shared cluster, and their Nodes.
pub fn only_master(lab: &mut Lab) -> Result<()> {
    for machine in lab.machines().iter().filter(|machine| machine.name() != SHARED) {
        machine.remove()?;
    }
    let master = shared_master(lab)?;
    lab.set_api(&master)?;
    master.shell("kubectl delete nodes -l '!node-role.kubernetes.io/control-plane'").map(drop)
}

/// A worker of the shared cluster, powered off.
pub fn shared_worker(lab: &mut Lab, name: &str) -> Result<Machine> {
    lab.machine(&worker(name, SHARED)?)
}

/// The bundle the shared cluster published first.
pub fn first_bundle(lab: &Lab) -> Result<Value> {
    let text = lab.notes.get(FIRST_BUNDLE).map(String::as_str).unwrap_or_default();
    attempted(serde_json::from_str(text), "read the first bundle")
}

/// The shared cluster's join bundle as it is now.
pub fn shared_bundle(lab: &Lab) -> Result<Value> {
    bundle(lab, SHARED)
}

/// One cluster, one CA, and nothing of the shared master was done twice.
pub fn shared_is_one_cluster(lab: &Lab, master: &Machine, workers: &[Machine]) -> Result<()> {
    one_cluster(lab, SHARED, master, workers)
}

/// The cluster's join bundle.
pub fn bundle(lab: &Lab, cluster: &str) -> Result<Value> {
    let key = format!("{BUCKET}/k8s/{cluster}/join/worker.json");
    lab.fabric().object(&key)?.map_or_else(|| fail(format!("there is no s3://{key}")), Ok)
}

/// The name of the Secret with a bundle's token.
pub fn secret_of(bundle: &Value) -> String {
    let token = bundle["token"].as_str().unwrap_or_default();
    format!("bootstrap-token-{}", token.split('.').next().unwrap_or_default())
}

/// The cluster's register; null when there is none.
pub fn register(lab: &Lab, cluster: &str) -> Result<Value> {
    Ok(lab.fabric().object(&format!("{BUCKET}/k8s/{cluster}/cluster.json"))?.unwrap_or_default())
}

/// The name of a machine's Node: its private DNS name on EC2.
pub fn node_name(machine: &Machine) -> String {
    if machine.has_metadata() { machine.dns_name() } else { machine.name().to_owned() }
}

/// How often the journal has an entry of this kind.
pub fn noted(machine: &Machine, entry: &str) -> usize {
    machine.journal().iter().filter(|line| line["entry"] == entry).count()
}

/// Whether the step was begun, as the journal tells.
pub fn step_began(machine: &Machine, step: &str) -> bool {
    machine.journal().iter().any(|line| line["entry"] == "step-began" && line["step"] == step)
}

/// The failures of a step, as the journal tells: label and text.
pub fn failures(machine: &Machine, step: &str) -> Vec<String> {
    let ended = |line: &&Value| line["entry"] == "step-ended" && line["step"] == step && line["failure"].is_array();
    machine.journal().iter().filter(ended).map(|line| line["failure"].to_string()).collect()
}

/// What the agent and its jobs said since the machine's boot.
pub fn said(machine: &Machine) -> String {
    machine.shell("journalctl -b -u kubestrap -o cat --no-pager").unwrap_or_default()
}

/// A property of the service.
pub fn property(machine: &Machine, name: &str) -> Result<String> {
    let script = format!("systemctl show --value -p {name} kubestrap.service");
    machine.shell(&script).map(|text| text.trim().to_owned())
}

/// What the machine waits for or complains of, as its `kubestrap status` says; nothing when it is content.
pub fn complaint(machine: &Machine) -> String {
    let status = machine.status().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    [text(&status["waiting_for"]), text(&status["error"]["message"])].join(" ").trim().to_owned()
}

/// The machine's Node when it is Ready, with the kubelet of the machine's present boot: one that lost its power looks
/// Ready for a while.
pub fn ready_node(master: &Machine, machine: &Machine) -> Option<Value> {
    let node = master.kubectl(&["get", "node", &node_name(machine)]).ok()?;
    let boot = machine.read("/proc/sys/kernel/random/boot_id")?;
    let conditions = node["status"]["conditions"].as_array()?;
    let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    (ready && node["status"]["nodeInfo"]["bootID"] == boot.trim()).then_some(node)
}

/// Waits until kubectl calls the machine's Node Ready, and kubestrap says the same.
pub fn await_ready(lab: &Lab, master: &Machine, machine: &Machine) -> Result<Duration> {
    let began = Instant::now();
    // The journal is a file, which costs nothing to look at.
    machine.until("to complete its bootstrap", READY, |machine| noted(machine, "completed") > 0)?;
    machine.until("to be a Ready node for kubectl", READY, |machine| {
        let ready = ready_node(master, machine).is_some();
        if !ready {
            std::thread::sleep(ASK_EVERY);
        }
        ready
    })?;
    machine.until("to be ready for `kubestrap status`", READY, |machine| is_ready(&machine.status()))?;
    let took = began.elapsed();
    lab.say(&format!(
        "{} is Ready, as kubectl and `kubestrap status` say, after {:.1} s more",
        machine.name(),
        took.as_secs_f64()
    ));
    Ok(took)
}

fn is_ready(status: &Result<Value>) -> bool {
    let Ok(status) = status else { return false };
    let kubernetes = status["kubernetes"].as_str().unwrap_or_default();
    status["complete"] == true && status["agent_running"] == true && kubernetes.starts_with("Ready")
}

/// What must hold of every cluster, whatever happened to its machines: an established register, one init that was
/// committed, one CA on every disk.
pub fn one_cluster(lab: &Lab, cluster: &str, master: &Machine, workers: &[Machine]) -> Result<()> {
    let register = register(lab, cluster)?;
    expect(register["state"] == "established", &format!("the register is established: {register}"))?;
    let journal = master.journal();
    let begun: Vec<&Value> = journal.iter().filter(|line| line["entry"] == "began").collect();
    let one = begun.len() == 1 && begun[0]["kind"] == "init" && begun[0]["attempt"] == register["attempt"];
    expect(one, &format!("{} began one init, the register's: {begun:?}", master.name()))?;
    for entry in ["initialised", "committed"] {
        let times = noted(master, entry);
        expect(times == 1, &format!("{} has {entry} once in its journal, not {times} times", master.name()))?;
    }
    let ca = ca(master)?;
    expect(register["ca_sha256"] == ca.as_str(), &format!("the register has the CA of the disk, {ca}: {register}"))?;
    for worker in workers {
        let own = self::ca(worker)?;
        expect(own == ca, &format!("{} has the cluster's CA {ca}, not {own}", worker.name()))?;
    }
    Ok(())
}

/// The hash of the CA on the machine's disk, as kubeadm's discovery has it.
pub fn ca(machine: &Machine) -> Result<String> {
    let hash =
        "openssl x509 -in /etc/kubernetes/pki/ca.crt -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum";
    let text = machine.shell(hash)?;
    Ok(format!("sha256:{}", text.split_whitespace().next().unwrap_or_default()))
}

/// How often `kubeadm init` or `join` was started since boot, as systemd's own journal tells.
pub fn runs_of(machine: &Machine, command: &str) -> Result<usize> {
    let script = format!("journalctl -b UNIT=kubestrap-job-kubeadm-{command}.service -o cat --no-pager");
    Ok(machine.shell(&script)?.lines().filter(|line| line.starts_with("Started ")).count())
}

/// Fails with these words unless it is so.
pub fn expect(so: bool, what: &str) -> Result<()> {
    if so { Ok(()) } else { fail(format!("not so: {what}")) }
}

/// `cargo xtask lab up`: a master and so many workers, from the user-data of the repository, each in another form.
///
/// # Errors
/// When a machine does not become a node.
pub fn cluster_of(lab: &mut Lab, workers: u8) -> Result<()> {
    let began = Instant::now();
    let machines = from_user_data(lab, "lab", workers)?;
    for machine in &machines {
        await_ready(lab, &machines[0], machine)?;
    }
    println!("\n{}", machines[0].shell("kubectl get nodes -o wide -L topology.kubernetes.io/zone")?);
    println!("All of it after {:.1} s.", began.elapsed().as_secs_f64());
    Ok(())
}

/// A master and workers, powered on together, each with another of the repository's forms of user-data.
pub fn from_user_data(lab: &mut Lab, cluster: &str, workers: u8) -> Result<Vec<Machine>> {
    lab.fabric().bucket(BUCKET)?;
    let forms = ["worker.mime", "worker.kubestrap.yaml", "worker.cloud-config.yaml"];
    let zones = ["us-east-1b", "us-east-1c", "us-east-1a"];
    let mut machines = vec![lab.machine(&cloud_init("m1", "master.cloud-config.yaml", cluster)?)?];
    for number in 1..=usize::from(workers) {
        let spec = cloud_init(&format!("w{number}"), forms[(number - 1) % forms.len()], cluster)?;
        machines.push(lab.machine(&spec.zone(zones[(number - 1) % zones.len()]))?);
    }
    machines.iter().try_for_each(Machine::power_on)?;
    lab.say(&format!("{} machines are on; systemd, cloud-init, containerd and kubestrap start", machines.len()));
    Ok(machines)
}
