//! A machine with firmware and a kernel of its own: QEMU, with the processor's virtualisation where a guest really
//! starts, emulated elsewhere. It is an ordinary machine of the lab that is never powered on itself: number, address,
//! instance metadata and the files of its disk are the same; only what runs them is not.
//!
//! | module | what |
//! |---|---|
//! | [`image`] | the lab's root tree with a kernel, without what namespaces need; kept in the cache |
//! | [`disk`] | that, a machine's own files, programs and container images, as an ext4 disk |
//! | [`qemu`] | the virtual hardware: its firmware says "Amazon EC2" |
//! | [`guest`] | commands in it, through QEMU's guest agent: no network, no keys |

pub mod disk;
pub mod guest;
pub mod image;
pub mod qemu;

use crate::command::{Finished, tail};
use crate::lab::Lab;
use crate::machine::{Machine, Spec};
use crate::{Result, attempted, fail, interrupt, network, tree};
use guest::Guest;
use image::Image;
use qemu::{Accelerator, Hardware};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Programs, and the Debian packages that have them.
pub const PROGRAMS: &[(&str, &str)] =
    &[("qemu-system-x86_64", "qemu-system-x86"), ("dnsmasq", "dnsmasq-base"), ("mkfs.ext4", "e2fsprogs")];
/// A command on an emulated processor: kubectl alone takes some seconds.
const COMMAND: Duration = Duration::from_secs(120);
/// From power on to the guest agent's first answer.
const BOOT: Duration = Duration::from_secs(400);
/// Looking costs the guest processor time that it needs for itself.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How many lines of the console an error repeats.
const CONSOLE_TAIL: usize = 12;

/// A virtual machine.
pub struct Vm {
    machine: Machine,
    image: Image,
    accelerator: Accelerator,
    serial: String,
}

impl Vm {
    /// A new one with its disk, powered off. The image is built when it is not in the cache.
    ///
    /// # Errors
    /// When the image or the disk cannot be made, or the name is taken.
    pub fn create(lab: &mut Lab, spec: &Spec) -> Result<Vm> {
        let image = Image::get(lab.folder(), &|line| lab.say(line))?;
        let machine = lab.machine(spec)?;
        let accelerator = Accelerator::choose(&image, &machine.folder())?;
        let began = Instant::now();
        disk::create(&machine, &image, accelerator)?;
        lab.say(&format!(
            "{}: a disk of its own after {:.1} s; processor: {accelerator}",
            machine.name(),
            began.elapsed().as_secs_f64()
        ));
        // As EC2 has it: serial number and UUID are the same, and begin so.
        let serial = format!("ec2{}", &crate::machine::random_uuid()[3..]);
        Ok(Vm { machine, image, accelerator, serial })
    }

    /// The machine of the lab it is.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What firmware gives as serial number and UUID.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// What its processor is.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// Starts it with the disk it has; nothing when it runs.
    ///
    /// # Errors
    /// When QEMU or the DHCP server does not start.
    pub fn power_on(&self, lab: &Lab) -> Result<()> {
        if self.is_on() {
            return Ok(());
        }
        let machine = &self.machine;
        network::plug(machine.name(), machine.number())?;
        lab.fabric().serve("dhcp", &dhcp(machine))?;
        let hardware = Hardware {
            accelerator: self.accelerator,
            image: &self.image,
            disk: disk::path(machine),
            serial: &self.serial,
            tap: network::cable(machine.name()),
            mac: network::hardware_address(machine.number()),
            console: console(machine),
            agent: agent(machine),
        };
        lab.fabric().serve(&server(machine.name()), &hardware.command())
    }

    /// Whether QEMU runs.
    pub fn is_on(&self) -> bool {
        runs(&self.machine)
    }

    /// Cuts its power: QEMU is killed. What the guest's kernel had not written to its disk yet is lost.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub fn power_cut(&self) -> Result<()> {
        cut(&self.machine)
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When the guest agent does not answer; a command that fails is none.
    pub fn exec(&self, arguments: &[&str]) -> Result<Finished> {
        Guest::at(agent(&self.machine)).exec(arguments, COMMAND)
    }

    /// Runs a script that must end well; what it printed.
    ///
    /// # Errors
    /// When it fails, with its last words.
    pub fn shell(&self, script: &str) -> Result<String> {
        self.exec(&["sh", "-c", script])?.success(format!("run `{script}` on {}", self.machine.name()))
    }

    /// Reads a file; `None` when it is not there.
    pub fn read(&self, path: &str) -> Option<String> {
        let done = self.exec(&["cat", path]).ok()?;
        (done.code == Some(0)).then_some(done.stdout)
    }

    /// `kubectl ... -o json`, with the rights of the cluster's administrator.
    ///
    /// # Errors
    /// When kubectl fails, or its answer is not JSON.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Value> {
        let all = [&["kubectl", "--request-timeout=30s"], arguments, &["-o", "json"]].concat();
        let what = format!("run `kubectl {}` on {}", arguments.join(" "), self.machine.name());
        let text = self.exec(&all)?.success(&what)?;
        attempted(serde_json::from_str(&text), what)
    }

    /// `kubestrap status --output json`.
    ///
    /// # Errors
    /// When its answer is not JSON.
    pub fn status(&self) -> Result<Value> {
        let done = self.exec(&["kubestrap", "status", "--output", "json"])?;
        let what = format!("read `kubestrap status` of {}: {}", self.machine.name(), done.stderr);
        attempted(serde_json::from_str(&done.stdout), what)
    }

    /// The whole lines of kubestrap's journal.
    pub fn journal(&self) -> Vec<Value> {
        let text = self.read("/var/lib/kubestrap/journal.jsonl").unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The kernel's name for this boot; `None` while nobody answers.
    pub fn boot_id(&self) -> Option<String> {
        self.read("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
    }

    /// Waits until commands can be run, in another boot than this one if it is given; how long it took.
    ///
    /// # Errors
    /// When it takes too long, or QEMU ended.
    pub fn wait_up(&self, before: Option<&str>) -> Result<Duration> {
        let fresh = |id: String| before != Some(id.as_str());
        self.until("to boot", BOOT, |vm| vm.boot_id().is_some_and(fresh))
    }

    /// Waits for something; how long it took.
    ///
    /// # Errors
    /// When it does not happen in time, or QEMU ended, with the last words.
    pub fn until(&self, what: &str, deadline: Duration, mut condition: impl FnMut(&Vm) -> bool) -> Result<Duration> {
        let began = Instant::now();
        loop {
            if condition(self) {
                return Ok(began.elapsed());
            }
            interrupt::check()?;
            let name = self.machine.name();
            if !self.is_on() {
                return fail(format!("waited for {name} {what}, and its QEMU ended: {}", self.console()));
            }
            if began.elapsed() > deadline {
                let words = self.shell("journalctl -u kubestrap -n 12 --no-pager -o cat");
                let words = words.unwrap_or_else(|error| format!("{error}\n{}", self.console()));
                let waited = deadline.as_secs();
                return fail(format!("waited {waited} s in vain for {name} {what}; its last words:\n{words}"));
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    fn console(&self) -> String {
        let text = std::fs::read(console(&self.machine)).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text), CONSOLE_TAIL)
    }
}

/// What this machine lacks for virtual machines.
///
/// # Errors
/// When something is missing, with the command that mends it.
pub fn check() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    match crate::needs::missing(PROGRAMS, &places) {
        Some(problem) => fail(problem),
        None => Ok(()),
    }
}

/// A command in the virtual machine that this machine of the lab is; `None` when it is none, or is off.
pub(crate) fn exec(machine: &Machine, arguments: &[&str]) -> Option<Result<Finished>> {
    runs(machine).then(|| Guest::at(agent(machine)).exec(arguments, COMMAND))
}

/// Kills QEMU; nothing when there is none.
pub(crate) fn cut(machine: &Machine) -> Result<()> {
    machine.shared.stop(&server(machine.name()))
}

fn runs(machine: &Machine) -> bool {
    let servers = &machine.shared.state.borrow().servers;
    servers.get(&server(machine.name())).is_some_and(|process| process.alive())
}

/// Under this name QEMU is written down.
fn server(machine: &str) -> String {
    format!("vm-{machine}")
}

fn console(machine: &Machine) -> PathBuf {
    machine.folder().join("console.log")
}

fn agent(machine: &Machine) -> PathBuf {
    machine.folder().join("agent.sock")
}

/// DHCP alone, for one machine: an address for ever and a way out, as in a VPC.
fn dhcp(machine: &Machine) -> Command {
    let mac = network::hardware_address(machine.number());
    let mut command = Command::new("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--bind-interfaces", "--leasefile-ro"]);
    command.args(["--interface=br0", "--user=root", "--log-facility=-", "--log-dhcp", "--pid-file="]);
    command.arg(format!("--dhcp-range={},static,255.255.255.0", network::address(0)));
    command.arg(format!("--dhcp-host={mac},{},infinite", machine.address()));
    command.arg(format!("--dhcp-option=option:router,{}", network::GATEWAY));
    command
}

/// A file of a machine that is off, as its disk will have it.
fn put(machine: &Machine, path: &str, text: &str, mode: u32) -> Result<()> {
    tree::write(&crate::machine::disk::upper(machine).join(path.trim_start_matches('/')), text, mode)
}
