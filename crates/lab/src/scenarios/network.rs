//! A network as it is on a bad day: packets are lost everywhere, and names are not resolved for a while.

use super::support::{BUCKET, READY, await_ready, complaint, expect, master, noted, one_cluster, property, worker};
use super::{Needs, Scenario};
use crate::Result;
use crate::command::{program, run};
use crate::lab::Lab;
use crate::machine::{Machine, Spec};
use crate::needs;
use crate::network::{AWS, namespace};
use std::time::{Duration, Instant};

/// See the module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "bad-network",
        about: "5 % of all packets are lost, both ways, and names are not resolved for half a minute (stand-ins)",
        needs: Needs::Nothing,
        shares: false,
        run: with_stand_ins,
    },
    Scenario {
        name: "bad-network-k8s",
        about: "1 % of all packets are lost, both ways, and names are not resolved for half a minute: three Ready nodes",
        needs: Needs::Kubernetes,
        shares: false,
        run: with_kubernetes,
    },
];

/// A name that only the hosts file knows, once it is there.
const STORE: &str = "objects";
/// How long names are not resolved.
const NAMELESS: Duration = Duration::from_secs(30);
/// A name server that is not there: nobody answers, and nobody refuses.
const SILENT: &str = "nameserver 10.77.0.250\noptions timeout:1 attempts:1\n";

/// Loses every so many-th packet at random, in both directions.
///
/// # Errors
/// When `nft` is missing, or the kernel cannot do it.
fn lose(machine: &Machine, one_of: u32) -> Result<()> {
    let rules = format!(
        "table inet loss {{\n chain in {{ type filter hook input priority 0; iif != \"lo\" numgen random mod {one_of} 0 counter drop; }}\n \
         chain out {{ type filter hook output priority 0; oif != \"lo\" numgen random mod {one_of} 0 counter drop; }}\n}}\n"
    );
    let file = machine.folder().join("loss.nft");
    std::fs::write(&file, rules)?;
    let place = namespace(machine.name());
    let file = file.to_string_lossy();
    run(&mut program("ip", &["netns", "exec", &place, "nft", "-f", &file])).map(drop)
}

/// How many packets were lost so far.
fn lost(machine: &Machine) -> Result<u64> {
    let place = namespace(machine.name());
    let text = run(&mut program("ip", &["netns", "exec", &place, "nft", "list", "table", "inet", "loss"]))?;
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(words.windows(2).filter(|pair| pair[0] == "packets").filter_map(|pair| pair[1].parse::<u64>().ok()).sum())
}

/// The store is named, and the name is known to nobody.
fn nameless(spec: Spec) -> Spec {
    spec.file("/etc/default/kubestrap", format!("KUBESTRAP_S3__ENDPOINT=http://{STORE}:5000\n"))
        .file("/etc/resolv.conf", SILENT)
}

fn with_stand_ins(lab: &mut Lab) -> Result<()> {
    const SCRIPT: &str = "api: { nodes_ready: always }\n";
    tell(lab, "lossy", 20, |spec| spec.file("/etc/kubestrap-standin.yaml", SCRIPT), |_, _, _| Ok(()))
}

fn with_kubernetes(lab: &mut Lab) -> Result<()> {
    tell(lab, "lossy-k8s", 100, |spec| spec, |lab, master, node| await_ready(lab, master, node).map(drop))
}

fn tell(
    lab: &mut Lab,
    cluster: &str,
    one_of: u32,
    furnish: impl Fn(Spec) -> Spec,
    ready: impl Fn(&Lab, &Machine, &Machine) -> Result<()>,
) -> Result<()> {
    needs::program("nft", "nftables")?;
    lab.fabric().bucket(BUCKET)?;
    let spec = |spec: Spec| nameless(furnish(spec));
    let mut machines = vec![lab.machine(&spec(master("m1", cluster, "")?))?];
    for name in ["w1", "w2"] {
        machines.push(lab.machine(&spec(worker(name, cluster)?))?);
    }
    for machine in &machines {
        machine.power_on()?;
        lose(machine, one_of)?;
    }
    let on = Instant::now();
    for machine in &machines {
        machine.until("to say that it cannot resolve the store's name", NAMELESS, |machine| {
            complaint(machine).contains(STORE)
        })?;
    }
    lab.say(&format!("m1 says: {}", complaint(&machines[0])));
    std::thread::sleep(NAMELESS.saturating_sub(on.elapsed()));
    expect(machines.iter().all(|machine| noted(machine, "began") == 0), "nobody began anything without the store")?;
    let known = Instant::now();
    for machine in &machines {
        let hosts = machine.read("/etc/hosts").unwrap_or_default();
        machine.write("/etc/hosts", &format!("{hosts}{AWS} {STORE}\n"), 0o644)?;
    }
    for machine in &machines {
        machine.until("to be a node", READY, |machine| noted(machine, "completed") > 0)?;
        ready(lab, &machines[0], machine)?;
    }
    lab.say(&format!("all three are nodes {:.1} s after the name was known", known.elapsed().as_secs_f64()));
    for machine in &machines {
        let (lost, restarts) = (lost(machine)?, property(machine, "NRestarts")?);
        expect(lost > 0, &format!("{} lost packets", machine.name()))?;
        expect(restarts == "0", &format!("{} did it in one life, not with {restarts} restarts", machine.name()))?;
        lab.say(&format!("{} lost {lost} packets", machine.name()));
    }
    one_cluster(lab, cluster, &machines[0], &machines[1..])
}
