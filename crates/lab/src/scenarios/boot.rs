//! What needs no Kubernetes: the real systemd and cloud-init with the stand-ins of kubeadm and the kubelet.

use super::support::{BUCKET, cloud_init, expect, master, noted, property, register, runs_of, said, user_data, worker};
use super::{Needs, Scenario};
use crate::Result;
use crate::lab::Lab;
use crate::machine::Machine;
use serde_json::Value;
use std::time::{Duration, Instant};

/// See the module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "units",
        about: "the shipped unit: sandbox, readiness, watchdog, restart policy, a kubeadm that outlives its agent",
        needs: Needs::Nothing,
        shares: false,
        run: units,
    },
    Scenario {
        name: "cloud-init",
        about: "the three forms of user-data through the real cloud-init; a boot that waits for nobody; a reboot",
        needs: Needs::Nothing,
        shares: false,
        run: from_user_data,
    },
    Scenario {
        name: "first-boot-late",
        about: "instance metadata answers 20 s late on the first boot, for cloud-init and for kubestrap",
        needs: Needs::Nothing,
        shares: false,
        run: first_boot_late,
    },
];

/// With stand-ins nothing takes long.
const SOON: Duration = Duration::from_secs(60);
/// The stand-in's manners.
const SCRIPT: &str = "/etc/kubestrap-standin.yaml";
/// Nodes need no CNI here.
const PLAIN: &str = "api: { nodes_ready: always }\n";

/// What the stand-in of kubeadm did: one event a line.
fn events(machine: &Machine) -> Vec<Value> {
    let text = machine.read("/var/lib/kubestrap-standin/runs.jsonl").unwrap_or_default();
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// How often a kubeadm command was begun.
fn begun(machine: &Machine, command: &str) -> usize {
    events(machine).iter().filter(|event| event["event"] == "start" && event["command"] == command).count()
}

/// Waits until systemd and `kubestrap status` call the machine a node.
fn await_node(lab: &Lab, machine: &Machine) -> Result<()> {
    let took = machine.until("to be a node", SOON, |machine| noted(machine, "completed") > 0)?;
    machine.until("to be active for systemd", SOON, |machine| is(machine, "ActiveState", "active"))?;
    machine.until("to be ready for `kubestrap status`", SOON, |machine| {
        let status = machine.status().unwrap_or_default();
        let kubernetes = status["kubernetes"].as_str().unwrap_or_default();
        status["complete"] == true && status["agent_running"] == true && kubernetes.starts_with("Ready")
    })?;
    lab.say(&format!("{} is a node after {:.1} s more", machine.name(), took.as_secs_f64()));
    Ok(())
}

fn is(machine: &Machine, name: &str, value: &str) -> bool {
    property(machine, name).is_ok_and(|is| is == value)
}

fn has(machine: &Machine, name: &str, value: &str) -> Result<()> {
    let is = property(machine, name)?;
    expect(is == value, &format!("{} of {} is {value}, not {is}", name, machine.name()))
}

fn units(lab: &mut Lab) -> Result<()> {
    lab.fabric().bucket(BUCKET)?;
    let slow = "faults: [{ command: init, phase: control-plane, action: slow, seconds: 4 }]\n";
    let master = lab.machine(&master("m1", "units", "")?.file(SCRIPT, format!("{PLAIN}{slow}")))?;
    // With its own words: no configuration, and no patience.
    let wrong = lab.machine(&worker("wrong", "Not_A_Name")?.file(SCRIPT, PLAIN))?;
    let hasty = user_data("worker.kubestrap.yaml", "nobody")? + "join: { wait: 10s }\n";
    let hasty = lab.machine(&worker("hasty", "nobody")?.user_data(hasty).file(SCRIPT, PLAIN))?;
    [&master, &wrong, &hasty].iter().try_for_each(|machine| machine.power_on())?;
    outlives_its_agent(lab, &master)?;
    await_node(lab, &master)?;
    expect(begun(&master, "init") == 1, "kubeadm init ran once")?;
    let register = register(lab, "units")?;
    expect(register["state"] == "established", &format!("the register is established: {register}"))?;
    sandbox(lab, &master)?;
    let stopped = Instant::now();
    stop_agent(&master)?;
    lab.say("m1's agent is stopped; the watchdog has a minute");
    restart_policy(lab, &wrong, &hasty)?;
    let restarts = 2;
    let minute = Duration::from_secs(100);
    master.until("to be started anew by the watchdog", minute, |m| is(m, "NRestarts", &restarts.to_string()))?;
    await_node(lab, &master)?;
    lab.say(&format!("the watchdog had it back {:.0} s after it was stopped", stopped.elapsed().as_secs_f64()));
    let words = master.shell("journalctl -b UNIT=kubestrap.service -o cat --no-pager")?;
    expect(words.contains("Watchdog timeout"), &format!("systemd names the watchdog:\n{words}"))?;
    expect(begun(&master, "init") == 1, "kubeadm init ran once")
}

/// The agent is killed in the middle of init; the transient unit goes on, and the next agent awaits it.
fn outlives_its_agent(lab: &Lab, master: &Machine) -> Result<()> {
    let reached = |event: &Value| event["event"] == "phase" && event["phase"] == "control-plane";
    master.until("to be in the middle of init", SOON, |master| events(master).iter().any(reached))?;
    let job = "systemctl show --value -p MainPID kubestrap-job-kubeadm-init.service";
    let before = master.shell(job)?;
    master.kill_agent()?;
    master.until("to have lost its agent", SOON, |master| is(master, "MainPID", "0"))?;
    let after = master.shell(job)?;
    expect(before == after && after.trim() != "0", &format!("kubeadm goes on: {before} {after}"))?;
    lab.say("m1's agent was killed in the middle of init; kubeadm goes on without it");
    master.until("to have its agent again", SOON, |master| is(master, "NRestarts", "1"))?;
    let runs = runs_of(master, "init")?;
    expect(runs == 1, &format!("kubeadm init was started once, not {runs} times"))
}

/// The kernel's own word for what the unit asks for, on the running agent.
fn sandbox(lab: &Lab, machine: &Machine) -> Result<()> {
    let pid = property(machine, "MainPID")?;
    let status = machine.shell(&format!("cat /proc/{pid}/status"))?;
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000002"] {
        expect(status.contains(line), &format!("the agent has {line}:\n{status}"))?;
    }
    let denied = format!("! nsenter -t {pid} -m -- touch /usr/by-the-agent 2>/dev/null");
    machine.shell(&denied)?;
    machine.shell("test $(stat -c %a /var/lib/kubestrap) = 700")?;
    lab.say("the agent has no privileges to gain, a filter for system calls, one capability, and a read-only /usr");
    has(machine, "NRestarts", "1")
}

fn stop_agent(machine: &Machine) -> Result<()> {
    machine.shell("systemctl kill --kill-whom=main --signal=STOP kubestrap.service").map(drop)
}

/// 10 (configuration) is not started again, 12 (gave up waiting) is.
fn restart_policy(lab: &Lab, wrong: &Machine, hasty: &Machine) -> Result<()> {
    wrong.until("to be refused", SOON, |wrong| is(wrong, "ActiveState", "failed"))?;
    has(wrong, "ExecMainStatus", "10")?;
    hasty.until("to be started anew", SOON, |hasty| is(hasty, "NRestarts", "1"))?;
    let words = hasty.shell("journalctl -b UNIT=kubestrap.service -o cat --no-pager")?;
    expect(words.contains("status=12"), &format!("it had ended with 12:\n{words}"))?;
    has(wrong, "NRestarts", "0")?;
    lab.say("exit code 10 stays down, 12 is started again");
    Ok(())
}

fn from_user_data(lab: &mut Lab) -> Result<()> {
    lab.fabric().bucket(BUCKET)?;
    let workers = ["worker.cloud-config.yaml", "worker.mime", "worker.kubestrap.yaml"];
    let mut machines = Vec::new();
    let master = lab.machine(&cloud_init("m1", "master.cloud-config.yaml", "forms")?.file(SCRIPT, PLAIN))?;
    for (number, file) in workers.iter().enumerate() {
        machines.push(lab.machine(&cloud_init(&format!("w{number}"), file, "forms")?.file(SCRIPT, PLAIN))?);
    }
    machines.iter().try_for_each(Machine::power_on)?;
    for machine in &machines {
        boots_alone(lab, machine)?;
    }
    master.power_on()?;
    for machine in std::iter::once(&master).chain(&machines) {
        await_node(lab, machine)?;
    }
    has_its_configuration(&master)?;
    has_its_configuration(&machines[0])?;
    for machine in [&master, &machines[0], &machines[1]] {
        reboots(lab, machine)?;
    }
    expect(begun(&master, "init") == 1, "kubeadm init ran once")
}

/// There is no master: the boot ends all the same, while kubestrap waits.
fn boots_alone(lab: &Lab, machine: &Machine) -> Result<()> {
    machine.until("to wait for a bundle", SOON, |machine| {
        property(machine, "StatusText").is_ok_and(|text| text.contains("join bundle"))
    })?;
    machine.until("to have booted", SOON, |machine| {
        // systemd itself says "starting" for as long as any job is queued, kubestrap's too.
        machine.exec(&["systemctl", "is-active", "multi-user.target"]).is_ok_and(|done| done.code == Some(0))
    })?;
    has(machine, "ActiveState", "activating")?;
    no_errors_of_cloud_init(machine)?;
    lab.say(&format!("{} has booted, while kubestrap waits for a master", machine.name()));
    Ok(())
}

/// cloud-init's own result, on machines that have it on.
fn no_errors_of_cloud_init(machine: &Machine) -> Result<()> {
    if machine.exists("/etc/cloud/cloud-init.disabled") {
        return Ok(());
    }
    machine.until("to have finished cloud-init", SOON, |machine| machine.exists("/run/cloud-init/result.json"))?;
    let result = machine.read("/run/cloud-init/result.json").unwrap_or_default();
    let result: Value = serde_json::from_str(&result).unwrap_or_default();
    let errors = &result["v1"]["errors"];
    expect(errors.as_array().is_some_and(Vec::is_empty), &format!("{} has no errors: {result}", machine.name()))?;
    let source = result["v1"]["datasource"].as_str().unwrap_or_default();
    expect(source.contains("Ec2"), &format!("{} read its user-data from IMDS: {result}", machine.name()))
}

fn has_its_configuration(machine: &Machine) -> Result<()> {
    machine.shell("test \"$(stat -c '%a %U' /etc/kubestrap/config.yaml)\" = '600 root'")?;
    machine.shell("kubestrap config check").map(drop)
}

/// After a reboot nothing is done again, and the node is a node.
fn reboots(lab: &Lab, machine: &Machine) -> Result<()> {
    let joins = |machine: &Machine| (begun(machine, "init"), begun(machine, "join"), noted(machine, "began"));
    let before = joins(machine);
    machine.power_cycle()?;
    machine.until("to have its agent", SOON, |machine| is(machine, "ActiveState", "active"))?;
    no_errors_of_cloud_init(machine)?;
    await_node(lab, machine)?;
    expect(joins(machine) == before, &format!("{} does nothing again: {before:?}", machine.name()))?;
    lab.say(&format!("{} rebooted and did nothing again", machine.name()));
    Ok(())
}

fn first_boot_late(lab: &mut Lab) -> Result<()> {
    lab.fabric().bucket(BUCKET)?;
    let late = Duration::from_secs(20);
    let master = lab.machine(&master("m1", "late", "")?.file(SCRIPT, PLAIN))?;
    let worker = lab.machine(&cloud_init("w1", "worker.cloud-config.yaml", "late")?.file(SCRIPT, PLAIN))?;
    let began = Instant::now();
    lab.fabric().publish_metadata(late)?;
    [&master, &worker].iter().try_for_each(|machine| machine.power_on())?;
    for machine in [&master, &worker] {
        await_node(lab, machine)?;
        has(machine, "NRestarts", "0")?;
    }
    expect(began.elapsed() > late, "metadata was late")?;
    no_errors_of_cloud_init(&worker)?;
    lab.say(&format!("both are nodes {:.1} s after metadata began to answer", (began.elapsed() - late).as_secs_f64()));
    let words = said(&master);
    expect(words.contains("metadata"), &format!("m1 says what it waited for:\n{words}"))
}
