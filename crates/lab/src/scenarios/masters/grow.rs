//! From nothing to several masters: from one start, at the same instant, and beside kubeadm by hand.

use super::super::support::{READY, await_ready, complaint, expect, noted, property, ready_node};
use super::super::timing::{baked_document, init_documents};
use super::facts::is_whole;
use super::fleet::Fleet;
use crate::lab::Lab;
use crate::machine::{Boot, Machine};
use crate::{Result, attempted, fail};
use serde_json::json;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How often `masters-raced-k8s` races.
const RACES: &str = "KUBESTRAP_LAB_RACES";
/// kubectl costs processor time.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// What a further control plane needs of the first one's keys, when they are carried by hand.
const CARRIED: &[&str] =
    &["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.pub", "sa.key", "etcd/ca.crt", "etcd/ca.key"];

/// Three masters and two workers, powered on together, by cloud-init.
pub fn three_masters(lab: &mut Lab) -> Result<()> {
    let fleet = Fleet::new(lab, "three-masters")?.boot(Boot::CloudInit);
    from_one_start(lab, &fleet, 2)
}

/// The same without workers, sealed by KMS, with kubestrap in the image.
pub fn by_kms(lab: &mut Lab) -> Result<()> {
    let fleet = Fleet::new(lab, "masters-kms")?.kms(lab)?;
    from_one_start(lab, &fleet, 0)
}

fn from_one_start(lab: &mut Lab, fleet: &Fleet, workers: usize) -> Result<()> {
    let masters = fleet.masters(lab, 3)?;
    let workers = (1..=workers).map(|n| fleet.worker(lab, &format!("w{n}"))).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    masters.iter().chain(&workers).try_for_each(Machine::power_on)?;
    lab.say("all machines are on");
    let took = all_ready(lab, &masters, began)?;
    lab.say(&format!("three Ready masters {:.1} s after power on", took.as_secs_f64()));
    masters.iter().try_for_each(|master| await_ready(lab, master, master).map(drop))?;
    workers.iter().try_for_each(|worker| await_ready(lab, &masters[0], worker).map(drop))?;
    lab.say(&format!("all {} nodes after {:.1} s", masters.len() + workers.len(), began.elapsed().as_secs_f64()));
    for master in &masters {
        println!("{}:\n{}", master.name(), master.shell("kubestrap analyze").unwrap_or_default());
    }
    println!("{}", masters[0].shell("kubestrap status --cluster").unwrap_or_default());
    println!("{}", masters[0].shell("kubestrap member list").unwrap_or_default());
    is_whole(lab, fleet, &masters, &workers)
}

/// Waits until each is a Ready node; says when each has become one.
fn all_ready(lab: &Lab, masters: &[Machine], began: Instant) -> Result<Duration> {
    let Some(first) = masters.first() else { return fail("there are no masters") };
    let mut waiting: Vec<&Machine> = masters.iter().collect();
    let deadline = Duration::from_secs(420);
    let mut failed = None;
    first.until("and the others to be Ready masters", deadline, |_| {
        // Refused: nobody need wait for it.
        failed = masters.iter().find(|one| property(one, "ActiveState").is_ok_and(|state| state == "failed"));
        waiting.retain(|master| {
            // Nobody is asked before there can be an answer.
            let ready = master.exists("/etc/kubernetes/admin.conf") && ready_node(master, master).is_some();
            if ready {
                lab.say(&format!("{} is Ready {:.1} s after the start", master.name(), began.elapsed().as_secs_f64()));
            }
            !ready
        });
        if !waiting.is_empty() {
            std::thread::sleep(ASK_EVERY);
        }
        waiting.is_empty() || failed.is_some()
    })?;
    match failed {
        Some(machine) => fail(format!("{} gave up: {}", machine.name(), complaint(machine))),
        None => Ok(began.elapsed()),
    }
}

/// Three masters started at the same instant, again and again.
pub fn raced(lab: &mut Lab) -> Result<()> {
    let races: usize = std::env::var(RACES).ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let mut seconds = Vec::new();
    for race in 1..=races {
        let fleet = Fleet::new(lab, &format!("race-{race}"))?.boot(Boot::Plain);
        let masters = idle(lab, &fleet, 3)?;
        let began = Instant::now();
        start(&masters)?;
        let took = all_ready(lab, &masters, began)?;
        masters.iter().try_for_each(|master| await_ready(lab, master, master).map(drop))?;
        is_whole(lab, &fleet, &masters, &[])?;
        let first = masters.iter().find(|master| noted(master, "committed") == 1).map_or("nobody", Machine::name);
        lab.say(&format!("race {race}: won by {first}, three Ready masters {:.1} s later", took.as_secs_f64()));
        seconds.push(took);
        // The last one stays, for looking at it.
        if race < races {
            lab.clear()?;
        }
    }
    lab.say(&format!("{races} races: one CA and three members in each; {seconds:.1?}"));
    Ok(())
}

/// Masters that have booted and do nothing.
fn idle(lab: &mut Lab, fleet: &Fleet, count: usize) -> Result<Vec<Machine>> {
    let masters = fleet.masters(lab, count)?;
    masters.iter().try_for_each(Machine::power_on)?;
    masters.iter().try_for_each(Machine::wait_booted)?;
    std::thread::sleep(Duration::from_secs(3));
    Ok(masters)
}

/// Starts all agents at the same instant.
fn start(masters: &[Machine]) -> Result<()> {
    let spawn = |master: &Machine| -> Result<Child> {
        let mut command = master.command(&["systemctl", "start", "--no-block", "kubestrap.service"])?;
        attempted(command.stdin(Stdio::null()).spawn(), format!("start kubestrap on {}", master.name()))
    };
    let children = masters.iter().map(spawn).collect::<Result<Vec<_>>>()?;
    for mut child in children {
        expect(child.wait()?.success(), "systemctl started the agent")?;
    }
    Ok(())
}

/// Both, one after the other, on machines that have booted and are idle.
pub fn by_hand(lab: &mut Lab) -> Result<()> {
    let hand = kubeadm(lab)?;
    lab.clear()?;
    let fleet = Fleet::new(lab, "beside-hand")?.boot(Boot::Plain);
    let masters = idle(lab, &fleet, 3)?;
    let began = Instant::now();
    start(&masters)?;
    let ours = all_ready(lab, &masters, began)?;
    let (hand, ours) = (hand.as_secs_f64(), ours.as_secs_f64());
    lab.say(&format!(
        "three Ready masters: kubeadm by hand {hand:.1} s, kubestrap {ours:.1} s, ratio {:.2}",
        ours / hand
    ));
    for master in &masters {
        println!("{}:\n{}", master.name(), master.shell("kubestrap analyze").unwrap_or_default());
    }
    is_whole(lab, &fleet, &masters, &[])?;
    expect(ours <= hand, &format!("kubestrap ({ours:.1} s) is not slower than kubeadm by hand ({hand:.1} s)"))
}

/// As people do it: init, the keys carried to the next machine, join, and again.
fn kubeadm(lab: &mut Lab) -> Result<Duration> {
    let fleet = Fleet::new(lab, "by-hand")?.boot(Boot::Plain);
    let masters = idle(lab, &fleet, 3)?;
    let Some((first, others)) = masters.split_first() else { return fail("there are no masters") };
    first.write("/root/init.yaml", &init_documents(first)?, 0o600)?;
    let began = Instant::now();
    first.shell("kubeadm init --config /root/init.yaml")?;
    lab.say(&format!("by hand: init returned after {:.1} s", began.elapsed().as_secs_f64()));
    let command = first.shell("kubeadm token create --print-join-command")?;
    for other in others {
        for file in CARRIED {
            let path = format!("/etc/kubernetes/pki/{file}");
            let text = first.read(&path).unwrap_or_default();
            other.write(&path, &text, if file.ends_with(".key") { 0o600 } else { 0o644 })?;
        }
        other.write("/root/join.yaml", &join_document(other, &command)?, 0o600)?;
        other.shell("kubeadm join --config /root/join.yaml")?;
        let after = began.elapsed().as_secs_f64();
        lab.say(&format!("by hand: the join of {} returned after {after:.1} s", other.name()));
    }
    for master in &masters {
        master.until("to be Ready", READY, |master| ready_node(master, master).is_some())?;
    }
    Ok(began.elapsed())
}

/// The document of a join by hand, with what `kubeadm token create --print-join-command` said.
fn join_document(machine: &Machine, command: &str) -> Result<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let after = |flag: &str| {
        let at = words.iter().position(|word| *word == flag);
        let found = at.and_then(|at| words.get(at + 1)).copied();
        found.map_or_else(|| fail(format!("there is no {flag} in {command}")), Ok)
    };
    let mut document = baked_document(machine, "JoinConfiguration")?;
    document["discovery"] = json!({ "bootstrapToken": {
        "token": after("--token")?, "apiServerEndpoint": after("join")?,
        "caCertHashes": [after("--discovery-token-ca-cert-hash")?],
    } });
    document["controlPlane"] = json!({ "localAPIEndpoint": { "advertiseAddress": machine.address() } });
    Ok(document.to_string())
}
