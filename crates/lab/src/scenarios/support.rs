//! What several stories share.

use crate::lab::Lab;
use crate::machine::{Boot, Machine, Spec};
use crate::{Result, attempted, fail};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// A node on a machine of two cores that others use too.
pub const READY: Duration = Duration::from_secs(240);
/// The bucket of all scenarios; each has a cluster of its own name.
pub const BUCKET: &str = "acme-clusters";

/// The cluster that scenarios share.
pub const SHARED: &str = "shared";

/// A file of `cloud-init/`, with the names of this lab instead of the examples'.
pub fn user_data(file: &str, cluster: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cloud-init").join(file);
    let text = attempted(std::fs::read_to_string(&path), format!("read cloud-init/{file}"))?;
    let text = text.replace("cluster: prod", &format!("cluster: {cluster}"));
    Ok(text.replace("api.prod.example.com", "api.lab"))
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
pub fn one_master(lab: &mut Lab, cluster: &str, more: &str) -> Result<Machine> {
    lab.fabric().bucket(BUCKET)?;
    let master = lab.machine(&master("m1", cluster, more)?)?;
    master.power_on()?;
    await_ready(lab, &master, &master)?;
    Ok(master)
}

/// Whether `kubestrap status` says that this machine is a node and its agent runs.
pub fn says_complete(machine: &Machine) -> bool {
    let status = machine.status().unwrap_or_default();
    let ready = status["kubernetes"].as_str().is_some_and(|text| text.starts_with("Ready"));
    status["complete"] == true && status["agent_running"] == true && ready
}

/// The Ready condition of a machine's Node, as the cluster's administrator sees it.
pub fn is_ready(master: &Machine, node: &str) -> bool {
    let Ok(node) = master.kubectl(&["get", "node", node]) else { return false };
    condition(&node, "Ready") == Some("True")
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    object["status"]["conditions"].as_array()?.iter().find(|one| one["type"] == kind)?["status"].as_str()
}

/// Waits until kubectl calls the machine's Node Ready, and kubestrap itself says so too.
pub fn await_ready(lab: &Lab, master: &Machine, machine: &Machine) -> Result<Duration> {
    let took = machine.until("to be a Ready node", READY, |machine| is_ready(master, &node_name(machine)))?;
    machine.until("to call itself complete", READY, says_complete)?;
    lab.say(&format!("{} is Ready ({:.1} s later)", machine.name(), took.as_secs_f64()));
    Ok(took)
}

/// The name of a machine's Node: its private DNS name on EC2.
pub fn node_name(machine: &Machine) -> String {
    if machine.has_metadata() { machine.dns_name() } else { machine.name().to_owned() }
}

/// What must hold of every cluster, whatever happened: one init that was recorded, one CA, one register.
pub fn one_cluster(lab: &Lab, cluster: &str, master: &Machine) -> Result<()> {
    let Some(register) = lab.fabric().object(&format!("{BUCKET}/k8s/{cluster}/cluster.json"))? else {
        return fail("there is no cluster register");
    };
    expect(register["state"] == "established", &format!("the register is established: {register}"))?;
    let spki =
        "openssl x509 -in /etc/kubernetes/pki/ca.crt -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum";
    let on_disk = master.shell(spki)?;
    let on_disk = format!("sha256:{}", on_disk.split_whitespace().next().unwrap_or_default());
    expect(register["ca_sha256"] == Value::from(on_disk.clone()), &format!("{register} has the CA {on_disk}"))
}

/// How often an entry stands in the machine's journal.
pub fn entries(machine: &Machine, entry: &str) -> usize {
    machine.journal().iter().filter(|line| line["entry"] == entry).count()
}

/// The cluster that scenarios share when they leave it whole: its master, and when its first token ends.
pub fn shared(lab: &mut Lab) -> Result<Machine> {
    if let Some(master) = lab.machines().into_iter().find(|machine| machine.name() == "m1" && machine.is_on()) {
        return Ok(master);
    }
    let master = one_master(lab, SHARED, "join:\n  token_ttl: 10m\n")?;
    let Some(bundle) = lab.fabric().object(&format!("{BUCKET}/k8s/{SHARED}/join/worker.json"))? else {
        return fail("a master that is ready has published no join bundle");
    };
    for key in ["token", "expires_at"] {
        lab.notes.insert(key.to_owned(), bundle[key].as_str().unwrap_or_default().to_owned());
    }
    Ok(master)
}

/// Removes the workers of the shared cluster, and their Nodes.
pub fn only_master(lab: &mut Lab) -> Result<()> {
    for machine in lab.machines() {
        if machine.name() != "m1" {
            machine.remove()?;
        }
    }
    let master = shared(lab)?;
    master.shell("kubectl delete nodes -l '!node-role.kubernetes.io/control-plane'").map(drop)
}

/// A new worker of the shared cluster, powered off.
pub fn shared_worker(lab: &mut Lab, name: &str) -> Result<Machine> {
    let spec = worker(name, SHARED)?;
    lab.machine(&spec)
}

/// What kubestrap said on a machine, since it booted.
pub fn log(machine: &Machine) -> String {
    machine.shell("journalctl -u kubestrap --no-pager -o cat").unwrap_or_default()
}

/// Fails with these words unless it is so.
pub fn expect(so: bool, what: &str) -> Result<()> {
    if so { Ok(()) } else { fail(format!("not so: {what}")) }
}

/// `cargo xtask lab up`: a master and so many workers, from the user-data of the repository.
///
/// # Errors
/// When a machine does not become a node.
pub fn cluster_of(lab: &mut Lab, workers: u8) -> Result<()> {
    let began = Instant::now();
    lab.fabric().bucket(BUCKET)?;
    let forms = ["worker.cloud-config.yaml", "worker.mime", "worker.kubestrap.yaml"];
    let mut machines = vec![lab.machine(&cloud_init("m1", "master.cloud-config.yaml", "lab")?)?];
    for number in 1..=workers {
        let form = forms[usize::from(number - 1) % forms.len()];
        let zone = ["us-east-1b", "us-east-1c", "us-east-1a"][usize::from(number - 1) % 3];
        machines.push(lab.machine(&cloud_init(&format!("w{number}"), form, "lab")?.zone(zone))?);
    }
    machines.iter().try_for_each(Machine::power_on)?;
    lab.say(&format!("{} machines are on; systemd, cloud-init, containerd and kubestrap start", machines.len()));
    for machine in &machines {
        await_ready(lab, &machines[0], machine)?;
    }
    println!("\n{}", machines[0].shell("kubectl get nodes -o wide -L topology.kubernetes.io/zone")?);
    println!("All of it after {:.1} s.", began.elapsed().as_secs_f64());
    Ok(())
}

/// A machine that gets a file of `cloud-init/` as its user-data, on the image the file is for.
pub fn cloud_init(name: &str, file: &str, cluster: &str) -> Result<Spec> {
    let boot = if file.contains("kubestrap") { Boot::Baked } else { Boot::CloudInit };
    Ok(Spec::new(name).user_data(user_data(file, cluster)?).boot(boot))
}
