//! The shipped unit in the hands of an operator: restarted, stopped, shut down with its machine, reset; where its sandbox
//! lets it write and where not. kubeadm and the kubelet are stand-ins.

use super::support::{
    BUCKET, expect, failures, master, node_name, noted, one_cluster, property, runs_of, user_data, worker,
};
use super::{Needs, Scenario};
use crate::lab::Lab;
use crate::machine::{Machine, Spec};
use crate::{Result, fail};
use std::time::{Duration, Instant};

/// See the module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "service",
        about: "the service restarted in the middle of init, asked twice, measured, stopped; a worker that is taken apart",
        needs: Needs::Nothing,
        shares: false,
        run: service,
    },
    Scenario {
        name: "shutdown",
        about: "a machine that is shut down in the middle of kubeadm init, and started again",
        needs: Needs::Nothing,
        shares: false,
        run: shutdown,
    },
    Scenario {
        name: "elsewhere",
        about: "a store in a folder that the sandbox does not know: refused with the way out, which then works",
        needs: Needs::Nothing,
        shares: false,
        run: elsewhere,
    },
];

/// With stand-ins nothing takes long.
const SOON: Duration = Duration::from_secs(60);
/// A stop of the agent takes less than five seconds, by its own promise; the rest is systemd's.
const STOP: Duration = Duration::from_secs(8);
/// The stand-in's manners: nodes need no CNI.
const SCRIPT: &str = "/etc/kubestrap-standin.yaml";
const PLAIN: &str = "api: { nodes_ready: always }\n";
/// Long enough for what is done in the middle of it.
const SLOW: &str = "faults: [{ command: init, phase: control-plane, action: slow, seconds: 15 }]\n";
/// node_exporter's usual folder, which the unit knows.
const TEXTFILE: &str = "/var/lib/node_exporter/kubestrap.prom";
/// A folder the unit does not know.
const ELSEWHERE: &str = "/opt/store";

fn is(machine: &Machine, name: &str, value: &str) -> bool {
    property(machine, name).is_ok_and(|is| is == value)
}

fn await_node(machine: &Machine) -> Result<()> {
    machine.until("to be a node", SOON, |machine| noted(machine, "completed") > 0)?;
    machine.until("to be active for systemd", SOON, |machine| is(machine, "ActiveState", "active")).map(drop)
}

fn in_the_middle_of_init(machine: &Machine) -> Result<()> {
    let events = |machine: &Machine| machine.read("/var/lib/kubestrap-standin/runs.jsonl").unwrap_or_default();
    machine.until("to be in the middle of init", SOON, |m| events(m).contains("\"control-plane\"")).map(drop)
}

fn service(lab: &mut Lab) -> Result<()> {
    lab.fabric().bucket(BUCKET)?;
    let textfile = format!("metrics: {{ textfile: {TEXTFILE} }}\n");
    let master = master("m1", "service", &textfile)?.file(SCRIPT, format!("{PLAIN}{SLOW}"));
    // The folder is there when the service starts, as after the installation of node_exporter.
    let master = lab.machine(&master.file("/var/lib/node_exporter/other.prom", ""))?;
    let worker = lab.machine(&worker("w1", "service")?.file(SCRIPT, PLAIN))?;
    master.power_on()?;
    restarted_in_the_middle(lab, &master)?;
    await_node(&master)?;
    worker.power_on()?;
    await_node(&worker)?;
    one_cluster(lab, "service", &master, &[])?;
    let text = property(&master, "StatusText")?;
    expect(text.contains("ready"), &format!("systemctl status says how it is: {text}"))?;
    master.until("to have its metrics in the textfile", SOON, |machine| {
        machine.read(TEXTFILE).is_some_and(|text| text.contains("kubestrap_build_info"))
    })?;
    lab.say("m1 writes its metrics for node_exporter");
    asked_twice(lab, &master)?;
    stopped(lab, &master)?;
    master.shell("systemctl start kubestrap.service")?;
    reset(lab, &worker)
}

/// Another agent, the same kubeadm.
fn restarted_in_the_middle(lab: &Lab, master: &Machine) -> Result<()> {
    in_the_middle_of_init(master)?;
    let text = property(master, "StatusText")?;
    expect(text.contains("init"), &format!("systemctl status says what it does: {text}"))?;
    let (agent, job) = (property(master, "MainPID")?, job_pid(master)?);
    // It is still starting, so a restart that waits would wait for the node.
    master.shell("systemctl restart --no-block kubestrap.service")?;
    master.until("to have another agent", SOON, |machine| {
        property(machine, "MainPID").is_ok_and(|pid| pid != "0" && pid != agent)
    })?;
    expect(job_pid(master)? == job && job != "0", "kubeadm is the same process")?;
    let runs = runs_of(master, "init")?;
    expect(runs == 1, &format!("kubeadm init was started once, not {runs} times"))?;
    lab.say(&format!("m1 was restarted in the middle of init; kubeadm went on (status: {text})"));
    Ok(())
}

fn job_pid(machine: &Machine) -> Result<String> {
    let pid = machine.shell("systemctl show --value -p MainPID kubestrap-job-kubeadm-init.service")?;
    Ok(pid.trim().to_owned())
}

/// By hand, while the service runs.
fn asked_twice(lab: &Lab, machine: &Machine) -> Result<()> {
    let agent = property(machine, "MainPID")?;
    let second = machine.exec(&["kubestrap", "run"])?;
    let said = second.stdout + &second.stderr;
    let named = said.contains(&agent) && said.contains("systemctl status kubestrap");
    expect(second.code == Some(11) && named, &format!("the second is refused and told by whom: {said}"))?;
    lab.say(&format!("a second agent is refused: {}", said.trim()));
    expect(property(machine, "MainPID")? == agent, "the first one is not disturbed")
}

fn stopped(lab: &Lab, machine: &Machine) -> Result<()> {
    let began = Instant::now();
    machine.shell("systemctl stop kubestrap.service")?;
    let took = began.elapsed();
    expect(took < STOP, &format!("stopping took {:.1} s", took.as_secs_f64()))?;
    for (name, value) in [("ActiveState", "inactive"), ("Result", "success"), ("ExecMainStatus", "0")] {
        expect(is(machine, name, value), &format!("{name} of {} is {value}", machine.name()))?;
    }
    lab.say(&format!("{} stopped within {:.1} s", machine.name(), took.as_secs_f64()));
    Ok(())
}

/// A finished worker is taken apart, by a job outside of every sandbox. (It could not join again here: its Node stays in
/// the cluster, and the stand-in's is Ready for ever, which kubeadm refuses.)
fn reset(lab: &Lab, worker: &Machine) -> Result<()> {
    stopped(lab, worker)?;
    worker.shell(&format!("kubestrap reset --force --yes {}", node_name(worker)))?;
    for gone in ["/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/config.yaml"] {
        expect(!worker.exists(gone), &format!("the reset took {gone} away"))?;
    }
    let runs = runs_of(worker, "reset")?;
    expect(runs == 1, &format!("kubeadm reset ran once as a unit of its own, not {runs} times"))?;
    lab.say("w1 was reset");
    Ok(())
}

fn shutdown(lab: &mut Lab) -> Result<()> {
    lab.fabric().bucket(BUCKET)?;
    let master = lab.machine(&master("m1", "shutdown", "")?.file(SCRIPT, format!("{PLAIN}{SLOW}")))?;
    master.power_on()?;
    in_the_middle_of_init(&master)?;
    let began = Instant::now();
    master.shell("systemctl --no-block poweroff")?;
    while master.is_on() {
        if began.elapsed() > SOON {
            return fail("m1 does not shut down");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    lab.say(&format!("m1 was shut down in the middle of init, in {:.1} s", began.elapsed().as_secs_f64()));
    // Its network goes too.
    master.power_cut()?;
    let failed = failures(&master, "kubeadm-init");
    expect(failed.is_empty(), &format!("the agent drew no conclusions from a kubeadm that was killed: {failed:?}"))?;
    expect(noted(&master, "reset-done") == 0, "nothing was reset while it shut down")?;
    master.power_on()?;
    await_node(&master)?;
    one_cluster(lab, "shutdown", &master, &[])?;
    lab.say("m1 became a node at its next boot");
    Ok(())
}

fn elsewhere(lab: &mut Lab) -> Result<()> {
    let text = user_data("master.kubestrap.yaml", "elsewhere")?;
    let text = text.replace("s3://acme-clusters/k8s", &format!("file://{ELSEWHERE}"));
    // Bare metal, for the image of the others says where S3 is.
    let mut spec = Spec::new("m1").file_mode("/etc/kubestrap/config.yaml", text, 0o600).file(SCRIPT, PLAIN);
    spec.metadata = false;
    let master = lab.machine(&spec.file(&format!("{ELSEWHERE}/README"), ""))?;
    master.power_on()?;
    master.until("to be refused", SOON, |machine| {
        machine.shell("journalctl -b -u kubestrap -o cat --no-pager").is_ok_and(|said| said.contains("ReadWritePaths"))
    })?;
    master.until("to have ended", SOON, |machine| is(machine, "ExecMainStatus", "14"))?;
    lab.say("a store outside of the sandbox is refused, with the name of the directive");
    let drop_in = format!("[Service]\nReadWritePaths={ELSEWHERE}\n");
    master.write("/etc/systemd/system/kubestrap.service.d/store.conf", &drop_in, 0o644)?;
    master.shell("systemctl daemon-reload && systemctl restart --no-block kubestrap.service")?;
    await_node(&master)?;
    lab.say("with that directive m1 is a node");
    Ok(())
}
