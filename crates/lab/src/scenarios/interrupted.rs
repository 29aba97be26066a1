//! Agents killed and power cut, before, during and after init and join: every machine becomes a node unaided.
//!
//! A power cut here kills everything on the machine at once. What it had written stays, as in a page cache that survived;
//! what a real disk loses is the subject of the product's own tests of fsync.

use super::support::{
    BUCKET, READY, await_ready, expect, master, noted, one_cluster, property, runs_of, shared_is_one_cluster,
    shared_master, shared_worker, step_began,
};
use super::{Needs, Scenario};
use crate::Result;
use crate::lab::Lab;
use crate::machine::Machine;
use std::time::Duration;

/// See the module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "kill-init",
        about: "the agent of a master killed before, during and after init: one init, one CA, a Ready node",
        needs: Needs::Kubernetes,
        shares: false,
        run: |lab| masters(lab, Blow::KillAgent),
    },
    Scenario {
        name: "power-cut-init",
        about: "power cut before, during and after init: one CA, a Ready node",
        needs: Needs::Kubernetes,
        shares: false,
        run: |lab| masters(lab, Blow::PowerCut),
    },
    Scenario {
        name: "kill-join",
        about: "the agents of workers killed before, during and after join: one join each, Ready nodes",
        needs: Needs::Kubernetes,
        shares: true,
        run: |lab| workers(lab, Blow::KillAgent),
    },
    Scenario {
        name: "power-cut-join",
        about: "power cut before, during and after join: Ready nodes",
        needs: Needs::Kubernetes,
        shares: true,
        run: |lab| workers(lab, Blow::PowerCut),
    },
];

/// What happens to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    KillAgent,
    PowerCut,
}

impl Blow {
    fn strike(self, machine: &Machine) -> Result<()> {
        match self {
            Blow::KillAgent => machine.kill_agent(),
            Blow::PowerCut => machine.power_cut(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Blow::KillAgent => "kill",
            Blow::PowerCut => "cut",
        }
    }
}

/// A moment in the life of a machine.
struct Moment {
    name: &'static str,
    /// What has happened.
    since: fn(&Machine) -> bool,
    /// What has not happened yet, if the blow came in time.
    until: fn(&Machine) -> bool,
}

const INIT: &[Moment] = &[
    Moment { name: "before", since: |m| noted(m, "began") == 1, until: |m| noted(m, "initialised") == 1 },
    Moment {
        name: "certs",
        since: |m| m.exists("/etc/kubernetes/pki/ca.crt"),
        until: |m| noted(m, "initialised") == 1,
    },
    Moment {
        name: "kubelet",
        since: |m| m.exists("/var/lib/kubelet/config.yaml"),
        until: |m| noted(m, "initialised") == 1,
    },
    Moment {
        name: "etcd",
        since: |m| m.exists("/var/lib/etcd/member/snap/db"),
        until: |m| noted(m, "initialised") == 1,
    },
    Moment { name: "api", since: api_answers, until: |m| noted(m, "initialised") == 1 },
    Moment { name: "uncommitted", since: |m| noted(m, "initialised") == 1, until: |m| noted(m, "completed") == 1 },
    Moment { name: "after", since: |m| noted(m, "completed") == 1, until: |_| false },
];

const JOIN: &[Moment] = &[
    Moment { name: "before", since: |m| step_began(m, "join-cluster"), until: |m| noted(m, "joined") == 1 },
    Moment { name: "began", since: |m| noted(m, "began") == 1, until: |m| noted(m, "joined") == 1 },
    Moment {
        name: "token",
        since: |m| m.exists("/etc/kubernetes/bootstrap-kubelet.conf"),
        until: |m| noted(m, "joined") == 1,
    },
    Moment { name: "cert", since: |m| m.exists("/etc/kubernetes/kubelet.conf"), until: |m| noted(m, "completed") == 1 },
    Moment { name: "after", since: |m| noted(m, "completed") == 1, until: |_| false },
];

fn api_answers(machine: &Machine) -> bool {
    let ask = ["curl", "-sk", "--max-time", "1", "https://127.0.0.1:6443/livez"];
    machine.exists("/etc/kubernetes/admin.conf") && machine.exec(&ask).is_ok_and(|done| done.stdout == "ok")
}

/// Starts the machine and strikes it at the moment; says whether the blow was in time.
fn strike(lab: &Lab, machine: &Machine, moment: &Moment, blow: Blow) -> Result<()> {
    machine.power_on()?;
    machine.until(&format!("to come to the moment `{}`", moment.name), READY, moment.since)?;
    blow.strike(machine)?;
    let late = (moment.until)(machine);
    let word = if late { ", too late: it was done by then" } else { "" };
    lab.say(&format!("{}: {} at `{}`{word}", machine.name(), blow.word(), moment.name));
    expect(!late, &format!("the blow at `{}` came in time", moment.name))
}

fn masters(lab: &mut Lab, blow: Blow) -> Result<()> {
    lab.fabric().bucket(BUCKET)?;
    for moment in INIT {
        let cluster = format!("{}-init-{}", blow.word(), moment.name);
        let master = lab.machine(&master("m1", &cluster, "")?)?;
        strike(lab, &master, moment, blow)?;
        master.power_on()?;
        await_ready(lab, &master, &master)?;
        one_cluster(lab, &cluster, &master, &[])?;
        if blow == Blow::KillAgent {
            restarted_once(&master)?;
            let runs = runs_of(&master, "init")?;
            expect(runs == 1, &format!("kubeadm init ran once on {cluster}, not {runs} times"))?;
        }
        master.remove()?;
    }
    Ok(())
}

fn restarted_once(machine: &Machine) -> Result<()> {
    let times = property(machine, "NRestarts")?;
    expect(times == "1", &format!("systemd started the agent of {} once more, not {times} times", machine.name()))
}

fn workers(lab: &mut Lab, blow: Blow) -> Result<()> {
    let master = shared_master(lab)?;
    let mut workers = Vec::new();
    for moment in JOIN {
        let worker = shared_worker(lab, &format!("w-{}", moment.name))?;
        strike(lab, &worker, moment, blow)?;
        workers.push(worker);
    }
    // Off for a while: the cluster notices, or not.
    std::thread::sleep(Duration::from_secs(2));
    workers.iter().try_for_each(Machine::power_on)?;
    for worker in &workers {
        await_ready(lab, &master, worker)?;
        for entry in ["began", "joined", "completed"] {
            let times = noted(worker, entry);
            expect(times == 1, &format!("{} has {entry} once in its journal, not {times} times", worker.name()))?;
        }
        expect(!worker.exists("/etc/kubernetes/bootstrap-kubelet.conf"), &format!("no token on {}", worker.name()))?;
        if blow == Blow::KillAgent {
            restarted_once(worker)?;
            let runs = runs_of(worker, "join")?;
            expect(runs == 1, &format!("kubeadm join ran once on {}, not {runs} times", worker.name()))?;
        }
    }
    shared_is_one_cluster(lab, &master, &workers)
}
