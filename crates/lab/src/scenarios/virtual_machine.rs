//! What namespaces cannot show: firmware, a kernel of one's own, a first boot with nothing told, a page cache that is
//! lost with the power, a reboot. One master; a second virtual machine would starve it where processors are emulated.

use super::support::{BUCKET, expect, user_data};
use super::{Needs, Scenario};
use crate::Result;
use crate::lab::Lab;
use crate::machine::{Boot, Spec};
use crate::vm::Vm;
use crate::vm::qemu::Accelerator;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "virtual-machine",
    about: "a master with its own firmware and kernel: first boot as EC2's, power cut in mid-init, orderly reboot",
    needs: Needs::VirtualMachine,
    shares: false,
    run,
}];

const CLUSTER: &str = "virtual";
/// A power cut at the worst moment costs a second init: four minutes on an emulated processor, more beside a compiler.
const READY: Duration = Duration::from_secs(1200);
/// With stand-ins an init would be over before it can be looked at.
const SLOW_STAND_IN: &str = "init_seconds: 20\n";
/// etcd's manifest is the last file before kubeadm waits for the control plane.
const MID_INIT: &str = "test -e /etc/kubernetes/manifests/etcd.yaml";

fn run(lab: &mut Lab) -> Result<()> {
    lab.fabric().bucket(BUCKET)?;
    let mut spec = Spec::new("m1").user_data(user_data("master.cloud-config.yaml", CLUSTER)?).boot(Boot::CloudInit);
    if lab.kubernetes().is_none() {
        spec = spec.file("/etc/kubestrap-standin.yaml", SLOW_STAND_IN);
    }
    let vm = Vm::create(lab, &spec)?;
    vm.power_on(lab)?;
    let took = vm.wait_up(None)?;
    lab.say(&format!("first boot: commands run after {:.1} s", took.as_secs_f64()));
    first_boot(lab, &vm)?;
    power_cut(lab, &vm)?;
    healthy(lab, &vm)?;
    reboot(lab, &vm)
}

/// cloud-init knew the place from firmware alone, spoke IMDSv2, and started the agent without waiting for it.
fn first_boot(lab: &Lab, vm: &Vm) -> Result<()> {
    // It ends when the user's own commands have run; kubestrap is at its beginning then.
    let done = vm.exec(&["cloud-init", "status", "--wait", "--long"])?;
    expect(done.code == Some(0), &format!("cloud-init is done: {}{}", done.stdout, done.stderr))?;
    let uptime = vm.shell("cut -d' ' -f1 /proc/uptime")?;
    lab.say(&format!("first boot: cloud-init is done at {} s", uptime.trim()));
    let firmware = vm.shell("cd /sys/class/dmi/id && cat sys_vendor bios_vendor product_serial product_uuid")?;
    let serial = vm.serial();
    let wanted = format!("Amazon EC2\nAmazon EC2\n{serial}\n{serial}");
    expect(firmware.trim().eq_ignore_ascii_case(&wanted), &format!("firmware says {wanted:?}: {firmware:?}"))?;
    let settings = vm.exec(&["grep", "-rsE", "strict_id|datasource_list", "/etc/cloud", "/proc/cmdline"])?;
    let told = settings.stdout.lines().any(|line| !line.contains("90_dpkg.cfg") && !line.contains(":#"));
    expect(!told, &format!("nothing tells cloud-init where it is: {}", settings.stdout))?;
    let identified = vm.read("/run/cloud-init/ds-identify.log").unwrap_or_default();
    expect(identified.contains("ec2 platform is 'AWS'"), &format!("ds-identify recognised AWS: {identified}"))?;
    let result = vm.read("/run/cloud-init/result.json").unwrap_or_default();
    expect(result.contains("DataSourceEc2Local"), &format!("the datasource is Ec2's, before the network: {result}"))?;
    asked_for_an_address(lab, vm)?;
    spoke_imds_v2(lab, vm)?;
    let groups = vm.shell("stat -f -c %T /sys/fs/cgroup")?;
    expect(groups.trim() == "cgroup2fs", &format!("control groups are v2 alone: {groups}"))?;
    let (name, full) = (vm.shell("hostname")?, vm.machine().dns_name());
    let given = full.split('.').next() == Some(name.trim());
    expect(given, &format!("the host has the name that IMDS gave it, of {full}: {name}"))?;
    sandboxed(vm)?;
    lab.say("first boot: EC2 known from firmware, DHCP, IMDSv2, cgroup v2, the agent in its sandbox");
    Ok(())
}

fn asked_for_an_address(lab: &Lab, vm: &Vm) -> Result<()> {
    let log = std::fs::read_to_string(lab.folder().run().join("dhcp.log")).unwrap_or_default();
    let given = format!("DHCPACK(br0) {}", vm.machine().address());
    expect(log.contains(&given), &format!("the DHCP server says {given}: {log}"))
}

/// The stand-in answers nobody without a token; so an answer shows that one was asked for first.
fn spoke_imds_v2(lab: &Lab, vm: &Vm) -> Result<()> {
    let log = lab.fabric().metadata_requests();
    let requests = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let peer = vm.machine().address().to_string();
    let own: Vec<Value> =
        requests.filter(|one| one["peer"].as_str().is_some_and(|from| from.contains(&peer))).collect();
    let first = own.first().cloned().unwrap_or_default();
    let token = first["method"] == "PUT" && first["path"] == "/latest/api/token" && first["status"] == 200;
    expect(token, &format!("the first request to IMDS fetched a token: {first}"))?;
    let refused: Vec<&Value> = own.iter().filter(|one| one["status"] == 401).collect();
    expect(refused.is_empty(), &format!("no request came without a token: {refused:?}"))?;
    let document = own.iter().any(|one| one["path"].as_str().is_some_and(|path| path.ends_with("/user-data")));
    expect(document, &format!("user-data were read: {own:?}"))
}

/// The unit as it is shipped, with its sandbox on this kernel.
fn sandboxed(vm: &Vm) -> Result<()> {
    let unit = vm.shell("systemctl show kubestrap.service -p FragmentPath -p DropInPaths -p ActiveState")?;
    let shipped = unit.contains("FragmentPath=/lib/systemd/system/kubestrap.service")
        || unit.contains("FragmentPath=/usr/lib/systemd/system/kubestrap.service");
    expect(shipped && unit.contains("DropInPaths=\n"), &format!("the unit is the shipped one: {unit}"))?;
    let process = vm.shell("cat /proc/$(systemctl show --value -p MainPID kubestrap.service)/status")?;
    let has = |name: &str, value: &str| process.lines().any(|line| line == format!("{name}:\t{value}"));
    // CAP_DAC_OVERRIDE alone, and a filter of system calls.
    let confined = has("Seccomp", "2") && has("NoNewPrivs", "1") && has("CapBnd", "0000000000000002");
    expect(confined, &format!("the agent runs in its sandbox: {process}"))
}

/// Power goes while kubeadm is at work; what was in the guest's page cache alone is gone too.
fn power_cut(lab: &Lab, vm: &Vm) -> Result<()> {
    let took = vm.until("to be in the middle of init", READY, |vm| vm.shell(MID_INIT).is_ok())?;
    let late = entries(vm).contains_key("initialised");
    vm.power_cut()?;
    expect(!late, "the power was cut before init was over")?;
    lab.say(&format!("power cut in the middle of init, {:.1} s later", took.as_secs_f64()));
    vm.power_on(lab)?;
    let took = vm.wait_up(None)?;
    lab.say(&format!("after the power cut: commands run after {:.1} s", took.as_secs_f64()));
    let took = await_ready(lab, vm)?;
    lab.say(&format!("after the power cut: a Ready master {:.1} s later", took.as_secs_f64()));
    Ok(())
}

/// Waits until the journal, `kubestrap status` and, where it is real, kubectl say that this is a node of this boot.
fn await_ready(lab: &Lab, vm: &Vm) -> Result<Duration> {
    let real = lab.kubernetes().is_some();
    let node = vm.machine().dns_name();
    vm.until("to be a node that is Ready", READY, |vm| {
        let status = vm.status().unwrap_or_default();
        let ready = status["kubernetes"].as_str().is_some_and(|text| text.starts_with("Ready"));
        status["complete"] == true && status["agent_running"] == true && ready && (!real || is_ready(vm, &node))
    })
}

/// Ready, by the kubelet of this boot: what was Ready before a power cut looks so for a while.
fn is_ready(vm: &Vm, node: &str) -> bool {
    let (Ok(node), Some(boot)) = (vm.kubectl(&["get", "node", node]), vm.boot_id()) else { return false };
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    ready && node["status"]["nodeInfo"]["bootID"] == boot.as_str()
}

/// One cluster, whose master is the instance IMDS tells of.
fn healthy(lab: &Lab, vm: &Vm) -> Result<()> {
    let noted = entries(vm);
    let times = |entry: &str| noted.get(entry).copied().unwrap_or_default();
    let once = times("initialised") == 1 && times("committed") == 1 && times("completed") == 1;
    expect(once, &format!("one init was made, committed and completed: {noted:?}"))?;
    let register = lab.fabric().object(&format!("{BUCKET}/k8s/{CLUSTER}/cluster.json"))?.unwrap_or_default();
    let public = "openssl x509 -in /etc/kubernetes/pki/ca.crt -noout -pubkey | openssl pkey -pubin -outform DER";
    let ca = vm.shell(&format!("{public} | sha256sum | cut -d' ' -f1"))?;
    let same = register["state"] == "established" && register["ca_sha256"] == format!("sha256:{}", ca.trim());
    expect(same, &format!("the register is established, with the CA {}: {register}", ca.trim()))?;
    let instance = std::fs::read(vm.machine().folder().join("instance.json")).unwrap_or_default();
    let instance: Value = serde_json::from_slice(&instance)?;
    let id = instance["instance_id"].as_str().unwrap_or_default();
    let status = vm.status()?;
    // `identity` is written nowhere: firmware decided.
    let known = status["identity"].as_str().is_some_and(|identity| identity.ends_with(id));
    expect(known, &format!("`identity: auto` made it the instance {id}: {status}"))?;
    if lab.kubernetes().is_none() {
        return Ok(());
    }
    let node = vm.kubectl(&["get", "node", &vm.machine().dns_name()])?;
    let zone = &node["metadata"]["labels"]["topology.kubernetes.io/zone"];
    let provider = node["spec"]["providerID"].as_str().is_some_and(|text| text.ends_with(id));
    expect(zone == "us-east-1a" && provider, &format!("the Node has its zone and instance: {node}"))?;
    let driver = vm.shell("grep cgroupDriver /var/lib/kubelet/config.yaml; ls -d /sys/fs/cgroup/kubepods.slice")?;
    expect(driver.contains("systemd"), &format!("the kubelet uses systemd's control groups: {driver}"))
}

/// How often the journal has each entry.
fn entries(vm: &Vm) -> BTreeMap<String, usize> {
    count(&vm.journal(), |line| line["entry"].as_str())
}

fn count<'a>(lines: &'a [Value], what: impl Fn(&'a Value) -> Option<&'a str>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for one in lines.iter().filter_map(what) {
        *found.entry(one.to_owned()).or_default() += 1;
    }
    found
}

/// Steps of a master that must find their work done after a reboot. (A join bundle may be due again.)
const DONE: &[&str] = &["claim-register", "kubeadm-init", "commit-register", "confirm-node", "complete"];

/// An orderly reboot of a node changes nothing.
fn reboot(lab: &Lab, vm: &Vm) -> Result<()> {
    let before = vm.boot_id().unwrap_or_default();
    let steps = |vm: &Vm| count(&vm.journal(), |line| line["step"].as_str());
    let (noted, done) = (entries(vm), steps(vm));
    // The answer to this command may be lost with the machine.
    let _ = vm.exec(&["systemctl", "reboot"]);
    let took = vm.wait_up(Some(&before))?;
    lab.say(&format!("reboot: down, and commands run again after {:.1} s", took.as_secs_f64()));
    let took = await_ready(lab, vm)?;
    lab.say(&format!("reboot: a Ready master again {:.1} s later", took.as_secs_f64()));
    let said = vm.shell("journalctl -b -u kubestrap -o cat --no-pager")?;
    for step in DONE {
        let nothing = said.contains(&format!("{step}: nothing to do"));
        expect(nothing, &format!("{step} had nothing to do after a reboot: {said}"))?;
    }
    for entry in ["began", "initialised", "committed", "completed", "reset-began"] {
        let (now, then) = (entries(vm).get(entry).copied(), noted.get(entry).copied());
        expect(now == then, &format!("{entry} is {then:?} times in the journal as before the reboot: {now:?}"))?;
    }
    let again: Vec<_> = steps(vm).into_iter().filter(|(step, times)| done.get(step) != Some(times)).collect();
    let bundle_alone = again.iter().all(|(step, _)| step == "publish-join-bundle");
    expect(bundle_alone, &format!("no step but that of the bundle was carried out again: {again:?}"))?;
    let jobs = vm.shell("journalctl -b -o cat --no-pager -u 'kubestrap-job-*'")?;
    expect(jobs.trim().is_empty() || jobs.contains("No entries"), &format!("kubeadm was not run: {jobs}"))?;
    if vm.accelerator() == Accelerator::Emulated {
        lab.say("(times are those of an emulated processor)");
    }
    Ok(())
}
