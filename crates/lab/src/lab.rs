//! All of it together: a lab that is opened, given machines, and closed.

use crate::claim::{Claim, Lock};
use crate::fabric::{Fabric, instance};
use crate::folder::Folder;
use crate::machine::{Machine, Shared, Spec};
use crate::state::{Process, State};
use crate::tree::images;
use crate::{Result, attempted, cgroups, fail, interrupt, mounts, needs, network, programs, registry, sysctls, tree};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How a lab is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything lies.
    pub folder: Folder,
    /// The program under test.
    pub kubestrap: PathBuf,
    /// The folder of the stand-ins: `imds-standin`, and `kubeadm` and `kubelet` for a lab without Kubernetes.
    pub programs: PathBuf,
    /// The folder of the real ones.
    pub kubernetes: Option<PathBuf>,
    /// Leave it up at the end.
    pub keep: bool,
}

/// A lab that is up. It goes down when it is dropped, unless it is to be kept.
pub struct Lab {
    shared: Rc<Shared>,
    fabric: Fabric,
    keep: bool,
    began: Instant,
    api: Option<Machine>,
    balanced: bool,
    /// What one scenario leaves for the next.
    pub notes: BTreeMap<String, String>,
    _lock: Lock,
}

impl Lab {
    /// Checks what is needed, removes what a crashed lab left, builds what is not in the cache, and starts the network
    /// and the servers.
    ///
    /// # Errors
    /// When something is missing, another lab is up, or something cannot be started.
    pub fn open(options: Options) -> Result<Lab> {
        needs::check(&options.folder)?;
        let lock = Lock::take(&options.folder)?;
        if State::load(&options.folder).is_kept() {
            return fail("a lab is up; `cargo xtask lab status` shows it, `cargo xtask lab down` removes it");
        }
        clean_up(&options.folder)?;
        let began = Instant::now();
        let say = |line: &str| println!("[{:6.1} s] {line}", began.elapsed().as_secs_f64());
        tree::build(&options.folder, &say)?;
        let programs = programs::of(&options);
        programs::check(&programs, &options.folder.tree())?;
        interrupt::check()?;
        let state = State::default();
        state.save(&options.folder)?;
        Claim { folder: options.folder.path().to_owned(), sysctls: sysctls::now() }.save()?;
        sysctls::raise();
        network::up()?;
        let shared = Rc::new(Shared {
            programs,
            hierarchies: cgroups::hierarchies()?,
            kubernetes: options.kubernetes,
            images: RefCell::default(),
            state: RefCell::new(state),
            children: RefCell::default(),
            folder: options.folder,
        });
        let fabric = Fabric::new(shared.clone(), &options.programs);
        let mut lab = Lab {
            shared,
            fabric,
            keep: options.keep,
            began,
            api: None,
            balanced: false,
            notes: BTreeMap::new(),
            _lock: lock,
        };
        let template = images::template(&mut lab)?;
        *lab.shared.images.borrow_mut() = template;
        lab.fabric.start_aws()?;
        Ok(lab)
    }

    /// A lab that was left up, for looking at it.
    ///
    /// # Errors
    /// When there is none.
    pub fn machines_of(folder: &Folder) -> Result<Vec<Machine>> {
        let state = State::load(folder);
        if state.machines.is_empty() {
            return fail("there is no lab; `cargo xtask lab up` makes one");
        }
        let shared = Rc::new(Shared {
            folder: folder.clone(),
            hierarchies: cgroups::hierarchies()?,
            programs: Vec::new(),
            kubernetes: None,
            images: RefCell::default(),
            state: RefCell::new(state),
            children: RefCell::default(),
        });
        let names: Vec<String> = shared.state.borrow().machines.keys().cloned().collect();
        Ok(names.iter().filter_map(|name| Machine::find(&shared, name)).collect())
    }

    /// Where everything lies.
    pub fn folder(&self) -> &Folder {
        &self.shared.folder
    }

    /// The Kubernetes folder; without, machines have stand-ins.
    pub fn kubernetes(&self) -> Option<PathBuf> {
        self.shared.kubernetes.clone()
    }

    /// IMDS, S3 and EC2.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// Tells the person at the terminal.
    pub fn say(&self, line: &str) {
        println!("[{:6.1} s] {line}", self.began.elapsed().as_secs_f64());
    }

    /// A new machine, powered off. The first one is `api.lab`, until [`Lab::set_api`] says otherwise.
    ///
    /// # Errors
    /// When its disk cannot be made.
    pub fn machine(&mut self, spec: &Spec) -> Result<Machine> {
        let machine = Machine::create(&self.shared, spec)?;
        if spec.metadata {
            let text = serde_json::to_vec_pretty(&instance(&machine, spec))?;
            tree::write(&machine.folder().join("instance.json"), text, 0o600)?;
            self.fabric.publish_metadata(Duration::ZERO)?;
        }
        self.publish_hosts()?;
        Ok(machine)
    }

    /// All machines.
    pub fn machines(&self) -> Vec<Machine> {
        let names: Vec<String> = self.shared.state.borrow().machines.keys().cloned().collect();
        names.iter().filter_map(|name| Machine::find(&self.shared, name)).collect()
    }

    /// Lets `api.lab` lead to a load balancer before the API servers of all machines, those that come later too; until
    /// [`Lab::set_api`] or [`Lab::clear`].
    ///
    /// # Errors
    /// When the balancer does not start, or a hosts file cannot be written.
    pub fn balance(&mut self) -> Result<()> {
        if !self.balanced {
            self.fabric.start_balancer()?;
            self.balanced = true;
        }
        self.publish_hosts()
    }

    /// Lets `api.lab` lead to this machine.
    ///
    /// # Errors
    /// When a hosts file cannot be written.
    pub fn set_api(&mut self, machine: &Machine) -> Result<()> {
        self.api = Some(machine.clone());
        self.balanced = false;
        self.publish_hosts()
    }

    fn publish_hosts(&self) -> Result<()> {
        let mut machines = self.machines();
        machines.sort_by_key(Machine::number);
        let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n".to_owned();
        for machine in &machines {
            text += &format!("{} {} {}\n", machine.address(), machine.dns_name(), machine.name());
        }
        if self.balanced {
            self.fabric.publish_targets(&machines)?;
            text += &format!("{} api.lab\n", network::BALANCER);
        } else if let Some(api) =
            self.api.as_ref().filter(|api| machines.iter().any(|machine| machine.name() == api.name()))
        {
            text += &format!("{} api.lab\n", api.address());
        } else if let Some(first) = machines.first() {
            text += &format!("{} api.lab\n", first.address());
        }
        for (name, address) in registry::NAMES {
            text += &format!("{address} {name}\n");
        }
        machines.iter().try_for_each(|machine| machine.write("/etc/hosts", &text, 0o644))
    }

    /// Terminates all machines.
    ///
    /// # Errors
    /// When a disk cannot be removed.
    pub fn clear(&mut self) -> Result<()> {
        self.api = None;
        self.balanced = false;
        self.notes.clear();
        self.machines().iter().try_for_each(Machine::remove)
    }

    /// Leaves it up.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn keep(mut self) -> Result<()> {
        self.keep = true;
        self.shared.update(|state| state.kept = true)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.keep {
            let _ = self.shared.update(|state| state.kept = true);
            return;
        }
        if let Err(error) = clean_up(&self.shared.folder) {
            eprintln!("lab: {error}");
        }
    }
}

/// Removes everything a lab made but the cache: machines, servers, network, mounts, control groups, settings of the
/// kernel. Works from what is written down and from names, so it does the same after a crash, and after a crash of a lab
/// with another folder; nothing when there is nothing.
///
/// # Errors
/// When a folder cannot be removed.
pub fn clean_up(folder: &Folder) -> Result<()> {
    let claim = Claim::load();
    let mut folders = vec![folder.clone()];
    folders.extend(claim.iter().map(|claim| Folder::at(&claim.folder)).filter(|other| other != folder));
    for state in folders.iter().map(State::load) {
        let machines = state.machines.values().filter_map(|machine| machine.init);
        machines.chain(state.servers.values().copied()).for_each(|process| process.kill());
    }
    let hierarchies = cgroups::hierarchies()?;
    // Whatever is not written down lives in one of our network namespaces, or is on its way there from our groups.
    kill_all(|| cgroups::inhabitants(&hierarchies));
    for name in network::namespaces().unwrap_or_default() {
        kill_all(|| network::inhabitants(&name));
    }
    network::down();
    folders.iter().for_each(|folder| mounts::unmount_below(&folder.run()));
    cgroups::remove(&hierarchies, None);
    if let Some(claim) = &claim {
        sysctls::restore(&claim.sysctls);
    }
    folders
        .iter()
        .try_for_each(|folder| attempted(crate::folder::remove(&folder.run()), "remove what the lab left"))?;
    Claim::forget();
    Ok(())
}

/// Kills until nobody is left; a process that hangs in the kernel is given up after a while.
fn kill_all(who: impl Fn() -> Vec<i32>) {
    let began = Instant::now();
    loop {
        let processes: Vec<_> = who().into_iter().filter_map(Process::of).collect();
        if processes.is_empty() || began.elapsed() > Duration::from_secs(20) {
            return;
        }
        processes.iter().for_each(Process::kill);
    }
}
