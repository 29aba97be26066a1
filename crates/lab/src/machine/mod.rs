//! One node: a "machine" whose PID 1 is systemd. Power on, power cut, commands in it, and files on its disk.

pub mod disk;
pub mod exec;
pub mod init;
pub mod paths;
pub mod start;

use crate::account::Instance;
use crate::cgroups::{self, Hierarchy};
use crate::folder::Folder;
use crate::state::{Process, Saved, State};
use crate::{Result, fail, interrupt, network};
use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Child;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// systemd on a busy machine of two cores.
const BOOT: Duration = Duration::from_secs(120);

/// What is started by itself at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// cloud-init, as on a stock AMI; kubestrap when the user-data says so.
    CloudInit,
    /// kubestrap, as on an AMI it was baked into; no cloud-init.
    Baked,
    /// Neither.
    Plain,
}

/// A file on a new machine's disk.
#[derive(Debug, Clone)]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// Content.
    pub text: String,
    /// Permissions.
    pub mode: u32,
}

/// A new machine.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name: at most 13 of `a-z0-9-`.
    pub name: String,
    /// What IMDS has for it.
    pub user_data: Option<String>,
    /// Whether there is an IMDS: `false` is bare metal.
    pub metadata: bool,
    /// Availability zone.
    pub zone: String,
    /// The instance of EC2 that it is; one that EC2 does not know when absent.
    pub instance: Option<Instance>,
    /// What starts.
    pub boot: Boot,
    /// More files.
    pub files: Vec<File>,
    /// Size of its disk, which is memory then; without a limit when absent.
    pub disk_mib: Option<u64>,
}

impl Spec {
    /// A machine that boots with kubestrap in its image, in zone `us-east-1a`.
    pub fn new(name: &str) -> Spec {
        Spec {
            name: name.to_owned(),
            user_data: None,
            metadata: true,
            zone: "us-east-1a".to_owned(),
            instance: None,
            boot: Boot::Baked,
            files: Vec::new(),
            disk_mib: None,
        }
    }

    /// With this user-data.
    pub fn user_data(mut self, text: impl Into<String>) -> Spec {
        self.user_data = Some(text.into());
        self
    }

    /// In another zone.
    pub fn zone(mut self, zone: &str) -> Spec {
        self.zone = zone.to_owned();
        self
    }

    /// As this instance of EC2, on its image.
    pub fn instance(mut self, instance: Instance) -> Spec {
        self.instance = Some(instance);
        self
    }

    /// Booting in another way.
    pub fn boot(mut self, boot: Boot) -> Spec {
        self.boot = boot;
        self
    }

    /// With one more file, mode 0644.
    pub fn file(self, path: &str, text: impl Into<String>) -> Spec {
        self.file_mode(path, text, 0o644)
    }

    /// With one more file.
    pub fn file_mode(mut self, path: &str, text: impl Into<String>, mode: u32) -> Spec {
        self.files.push(File { path: path.to_owned(), text: text.into(), mode });
        self
    }
}

/// What all machines share.
pub struct Shared {
    /// Where everything lies.
    pub folder: Folder,
    /// The kernel's control groups.
    pub hierarchies: Vec<Hierarchy>,
    /// Programs bound into every machine: path there, path here.
    pub programs: Vec<(String, PathBuf)>,
    /// The Kubernetes folder; stand-ins without.
    pub kubernetes: Option<PathBuf>,
    /// Its fingerprint, when the images are in the cache.
    pub images: RefCell<Option<PathBuf>>,
    /// What is written down.
    pub state: RefCell<State>,
    /// Processes that hold a machine; reaped when it is cut off.
    pub children: RefCell<Vec<Child>>,
}

impl Shared {
    /// Changes the state and writes it down.
    pub(crate) fn update(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        change(&mut self.state.borrow_mut());
        self.state.borrow().save(&self.folder)
    }

    /// Kills the server with this name; nothing when there is none.
    pub(crate) fn stop(&self, name: &str) -> Result<()> {
        let server = self.state.borrow().servers.get(name).copied();
        let Some(server) = server else { return Ok(()) };
        server.kill();
        self.children.borrow_mut().retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
        self.update(|state| {
            state.servers.remove(name);
        })
    }
}

/// One machine; clones are the same machine.
#[derive(Clone)]
pub struct Machine {
    pub(crate) shared: Rc<Shared>,
    name: String,
    number: u8,
}

impl Machine {
    /// The machine with this name, when there is one.
    pub fn find(shared: &Rc<Shared>, name: &str) -> Option<Machine> {
        let number = shared.state.borrow().machines.get(name)?.number;
        Some(Machine { shared: shared.clone(), name: name.to_owned(), number })
    }

    /// A new machine with an empty disk, powered off.
    ///
    /// # Errors
    /// When the name is taken or not a name, or its disk cannot be made.
    pub fn create(shared: &Rc<Shared>, spec: &Spec) -> Result<Machine> {
        check_name(&spec.name)?;
        if shared.state.borrow().machines.contains_key(&spec.name) {
            return fail(format!("there is a machine {} already", spec.name));
        }
        let Some(number) = shared.state.borrow().free_number() else { return fail("no address is free") };
        shared.update(|state| {
            state.machines.insert(spec.name.clone(), Saved { number, init: None });
        })?;
        let machine = Machine { shared: shared.clone(), name: spec.name.clone(), number };
        disk::create(&machine, spec)?;
        Ok(machine)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last byte of its address.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        network::address(self.number)
    }

    /// Its private DNS name, which is its node's name on EC2.
    pub fn dns_name(&self) -> String {
        format!("{}.ec2.internal", self.address().to_string().replace('.', "-").replacen("10-", "ip-10-", 1))
    }

    /// Its folder here.
    pub fn folder(&self) -> PathBuf {
        self.shared.folder.machine(&self.name)
    }

    /// PID 1, while it runs.
    pub fn init(&self) -> Option<Process> {
        let init = self.shared.state.borrow().machines.get(&self.name)?.init;
        init.filter(Process::alive)
    }

    /// Whether it runs.
    pub fn is_on(&self) -> bool {
        self.init().is_some()
    }

    /// Starts it, with the disk it has; nothing when it runs.
    ///
    /// # Errors
    /// When it does not start; its console says more.
    pub fn power_on(&self) -> Result<()> {
        if self.is_on() {
            return Ok(());
        }
        interrupt::check()?;
        network::connect(&self.name, self.number, self.has_metadata())?;
        cgroups::remove(&self.shared.hierarchies, Some(&self.name));
        cgroups::make(&self.shared.hierarchies, &self.name)?;
        disk::mount(self)?;
        let (child, init) = start::start(self)?;
        self.shared.children.borrow_mut().push(child);
        self.shared.update(|state| {
            if let Some(saved) = state.machines.get_mut(&self.name) {
                saved.init = Some(init);
            }
        })?;
        for (name, other) in &self.shared.state.borrow().machines {
            if *name != self.name {
                network::route_pods(&self.name, other.number);
                network::route_pods(name, self.number);
            }
        }
        Ok(())
    }

    /// Whether it has an IMDS: bare metal has none.
    pub fn has_metadata(&self) -> bool {
        !self.folder().join("bare-metal").exists()
    }

    /// Waits until systemd has started everything it was to start, and containerd answers.
    ///
    /// # Errors
    /// When it died, or is not up in two minutes.
    pub fn wait_booted(&self) -> Result<()> {
        let up = "systemctl is-system-running | grep -qE 'running|degraded' && ctr version >/dev/null 2>&1";
        self.until("to be booted", BOOT, |machine| machine.shell(up).is_ok()).map(drop)
    }

    /// Cuts its power: every process is gone at once, the disk stays. Nothing when it is off.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub fn power_cut(&self) -> Result<()> {
        if let Some(init) = self.init() {
            init.kill();
        }
        crate::vm::cut(self)?;
        self.shared.children.borrow_mut().retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
        network::disconnect(&self.name);
        cgroups::remove(&self.shared.hierarchies, Some(&self.name));
        self.shared.update(|state| {
            if let Some(saved) = state.machines.get_mut(&self.name) {
                saved.init = None;
            }
        })
    }

    /// A power cut, and on again.
    ///
    /// # Errors
    /// When it does not start.
    pub fn power_cycle(&self) -> Result<()> {
        self.power_cut()?;
        self.power_on()
    }

    /// Terminated: the machine and its disk are gone.
    ///
    /// # Errors
    /// When the disk cannot be removed.
    pub fn remove(&self) -> Result<()> {
        self.power_cut()?;
        disk::remove(self)?;
        self.shared.update(|state| {
            state.machines.remove(&self.name);
        })
    }

    /// Waits for something, looking often; how long it took.
    ///
    /// # Errors
    /// When it does not happen in time, or the machine is off, with the last words of kubestrap.
    pub fn until(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut(&Machine) -> bool,
    ) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let looked = Instant::now();
            if condition(self) {
                return Ok(began.elapsed());
            }
            interrupt::check()?;
            if !self.is_on() {
                return fail(format!("{} died; see {}", self.name, self.folder().join("console.log").display()));
            }
            if began.elapsed() > deadline {
                let words = self.shell("journalctl -u kubestrap -n 12 --no-pager -o cat").unwrap_or_default();
                let waited = deadline.as_secs();
                return fail(format!("waited {waited} s in vain for {} {what}; its last words:\n{words}", self.name));
            }
            std::thread::sleep(pause_after(looked.elapsed()));
        }
    }
}

/// A file is looked at every few milliseconds; kubectl, which takes a tenth of a second of a core that the nodes need,
/// gets a quarter of the time at most.
fn pause_after(look: Duration) -> Duration {
    (look * 3).clamp(Duration::from_millis(5), Duration::from_millis(500))
}

/// A random UUID, from the kernel.
pub(crate) fn random_uuid() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    text.trim().to_owned()
}

fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.is_empty() && name.len() <= 13 && name.chars().all(plain) && !name.starts_with('-') {
        return Ok(());
    }
    fail(format!("{name:?} is no name of a machine: at most 13 of a-z, 0-9 and -"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_costly_look_is_repeated_less_often() {
        let pause = |millis| pause_after(Duration::from_millis(millis)).as_millis();
        assert_eq!((pause(0), pause(40), pause(10_000)), (5, 120, 500));
    }

    #[test]
    fn names_fit_into_names_of_interfaces() {
        for good in ["m1", "worker-10", "a234567890123"] {
            check_name(good).expect(good);
        }
        for bad in ["", "-a", "A", "a_b", "a2345678901234", "../x"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
