//! A machine: its disk, its power, its clock, the agent on it and the jobs that outlive the agent.

use crate::account::{IMAGE, NEXT_IMAGE};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::kubeadm::Job;
use crate::leaving::Leaving;
use crate::network::Cut;
use crate::rng::Rng;
use crate::scenario::{Ground, Scenario};
use crate::universe::Universe;
use jiff::SignedDuration;
use kubestrap_core::model::cause::Failure;
use kubestrap_core::model::identity::{Ec2, Identity, Origin, Role};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

/// The account of every simulated instance.
pub const ACCOUNT: &str = "111122223333";
/// Their region.
pub const REGION: &str = "eu-west-1";
/// How late EC2 knows an instance, where it is late.
const LATEST: Duration = Duration::from_secs(240);
/// How long EC2 shows a terminated instance.
const TERMINATED_IS_SHOWN: Duration = Duration::from_secs(3600);

/// The generation of machines that a group starts in the place of others.
pub const SPARE: u8 = 2;

/// What became of the agent.
#[derive(Debug, Clone)]
pub enum Agent {
    /// It does not run; a start is due.
    Down,
    /// It is to be started at the next opportunity.
    Due,
    /// It runs.
    Up,
    /// It ended with a failure after which systemd does not start it again.
    Refused(Failure),
}

/// The power of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It runs, since this time.
    On(Duration),
    /// It boots.
    Booting,
    /// Somebody stopped the instance.
    Stopped,
    /// Its group has not started it yet.
    Unlaunched,
    /// It died at this time, for ever; EC2 calls it terminated from the second time on.
    Dead(Duration, Duration),
}

/// What changes about a machine.
pub struct State {
    /// Its disk.
    pub disk: Disk,
    /// Its power.
    pub power: Power,
    /// How often it booted.
    pub boots: u64,
    /// Its jobs by name.
    pub jobs: BTreeMap<String, Job>,
    /// Its agent.
    pub agent: Agent,
}

/// A machine.
pub struct Machine {
    /// Its place in [`Universe::machines`].
    pub index: usize,
    /// `m0`, `w3`.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Who it is.
    pub identity: Identity,
    /// Its clock.
    pub clock: Clock,
    /// From when on EC2 knows it.
    pub known_from: Cell<Duration>,
    /// Whether it carries somebody else's control plane.
    pub foreign: bool,
    /// Life of the tokens it publishes.
    pub token_ttl: Duration,
    /// When the machine is started for the first time.
    pub starts_at: Cell<Duration>,
    /// The agent dies when it next yields: the gate said so.
    pub dying: Cell<bool>,
    /// The gate decided that the file operation that comes now is cut in the middle.
    pub torn: Cell<bool>,
    /// Until when the agent is not scheduled.
    pub stalled_until: Cell<Duration>,
    /// From what it is cut off.
    pub cuts: RefCell<Vec<Cut>>,
    /// Until when its disk is full.
    pub full_until: Cell<Duration>,
    /// From when on its metadata service answers.
    pub imds_from: Cell<Duration>,
    /// In how many answers in a row EC2 hid it although it was known long since.
    pub hidden: Cell<u32>,
    /// Whether its disk was copied from another machine that had state on it.
    pub cloned: Cell<bool>,
    /// 1 for machines of an environment that was rebuilt, [`SPARE`] for those that a group starts.
    pub generation: u8,
    /// Whether any life's bootstrap ended well: from then on it is a node.
    pub has_joined: Cell<bool>,
    /// Whether this life's bootstrap has ended well.
    pub ready: Cell<bool>,
    /// How often something was started on it: its agent, or an operator's `kubestrap leave`.
    pub starts: Cell<u32>,
    /// Whether it is on its way out of the cluster.
    pub leaving: Cell<Leaving>,
    /// What its metadata service says of its end: a path and its text.
    pub notice: RefCell<Option<(&'static str, String)>>,
    /// The rest.
    pub state: RefCell<State>,
}

impl Machine {
    /// Whether it is made from another machine's disk: the last workers of a scenario with clones are.
    pub fn is_clone(&self, scenario: &Scenario) -> bool {
        self.index as u64 >= scenario.masters + scenario.workers - scenario.clones && self.generation == 0
    }

    /// Whether it will never run again.
    pub fn is_dead(&self) -> bool {
        matches!(self.state.borrow().power, Power::Dead(..))
    }

    /// Whether it was ever started.
    pub fn is_launched(&self) -> bool {
        self.state.borrow().power != Power::Unlaunched
    }

    /// Whether it runs now.
    pub fn is_on(&self) -> bool {
        matches!(self.state.borrow().power, Power::On(_))
    }

    /// What EC2 says of it; `None` when it does not know it (yet, or any more).
    pub fn ec2_state(&self, now: Duration) -> Option<&'static str> {
        self.identity.ec2()?;
        match self.state.borrow().power {
            Power::Dead(_, at) if now > at + TERMINATED_IS_SHOWN => None,
            Power::Dead(_, at) if now >= at => Some("terminated"),
            Power::Dead(died, _) if now > died + Duration::from_secs(30) => Some("shutting-down"),
            Power::Unlaunched => None,
            _ if now < self.known_from.get() => None,
            Power::Stopped => Some("stopped"),
            _ => Some("running"),
        }
    }
}

/// The machines of a scenario, powered on, with empty disks.
pub fn build(scenario: &Scenario, rng: &Rng) -> Vec<Machine> {
    let generations = if scenario.rebuilt { 2 } else { 1 };
    let of = |generation: u8| {
        let masters = (0..scenario.masters).map(move |number| (Role::Master, number, generation));
        masters.chain((0..scenario.workers).map(move |number| (Role::Worker, number, generation)))
    };
    let all = (0..generations).flat_map(of);
    let spares = (0..scenario.spares()).map(|number| (Role::Worker, number, SPARE));
    let masters = (0..scenario.spare_masters).map(|number| (Role::Master, number, SPARE));
    let all = all.chain(spares).chain(masters).enumerate();
    all.map(|(index, (role, number, generation))| machine(scenario, rng, index, role, number, generation)).collect()
}

fn machine(scenario: &Scenario, rng: &Rng, index: usize, role: Role, number: u64, generation: u8) -> Machine {
    let is_master = role == Role::Master;
    let letter = if is_master { "m" } else { "w" };
    let name = format!("{letter}{number}{}", if generation > 0 { "b" } else { "" });
    let image = if generation == SPARE && !is_master { NEXT_IMAGE } else { IMAGE };
    let identity = identity(scenario.ground, &name, index as u8, image);
    let most = if is_master { scenario.skew } else { scenario.skew.max(scenario.worker_skew) };
    let skew_ms = most.as_millis() as i64;
    let skew = SignedDuration::from_millis(rng.below(2 * skew_ms as u64 + 1) as i64 - skew_ms);
    let foreign = scenario.foreign_master && index == 0;
    let alone = if index == 0 { Duration::ZERO } else { scenario.first_alone };
    let generation_begins = if generation > 0 { scenario.faults_last / 2 } else { Duration::ZERO };
    // A disk is worth copying once something is on it.
    let is_clone = generation == 0 && index as u64 >= scenario.masters + scenario.workers - scenario.clones;
    let alone = if is_clone { alone + rng.between(Duration::from_secs(20), Duration::from_secs(240)) } else { alone };
    let starts_at = generation_begins + alone + rng.between(Duration::ZERO, scenario.stagger);
    let lag = if scenario.ec2_late { rng.between(Duration::ZERO, LATEST) } else { Duration::ZERO };
    let mut disk = Disk::default();
    furnish(&mut disk, &identity);
    if is_master && scenario.pki {
        crate::sealing::furnish(&mut disk, scenario.ground);
    }
    if foreign {
        crate::kubeadm::foreign_control_plane(&mut disk, rng);
    }
    Machine {
        index,
        name,
        role,
        identity,
        clock: Clock::new(skew),
        known_from: Cell::new(starts_at + lag),
        foreign,
        token_ttl: Duration::from_secs(60 * rng.pick(scenario.token_minutes)),
        starts_at: Cell::new(starts_at),
        dying: Cell::new(false),
        torn: Cell::new(false),
        stalled_until: Cell::new(Duration::ZERO),
        cuts: RefCell::default(),
        full_until: Cell::new(Duration::ZERO),
        imds_from: Cell::new(Duration::ZERO),
        hidden: Cell::new(0),
        cloned: Cell::new(false),
        generation,
        has_joined: Cell::new(false),
        ready: Cell::new(false),
        starts: Cell::new(0),
        leaving: Cell::new(Leaving::No),
        notice: RefCell::default(),
        state: RefCell::new(State {
            disk,
            power: if generation == SPARE { Power::Unlaunched } else { Power::On(Duration::ZERO) },
            boots: 0,
            jobs: BTreeMap::new(),
            agent: Agent::Down,
        }),
    }
}

fn identity(ground: Ground, name: &str, number: u8, image: &str) -> Identity {
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, number + 10));
    let (origin, node_name, provider_id) = match ground {
        Ground::Ec2 => {
            let instance_id = format!("i-{:017x}", u64::from(number) + 0xa0);
            let ec2 = Ec2 {
                instance_id: instance_id.clone(),
                account: ACCOUNT.to_owned(),
                region: REGION.to_owned(),
                partition: "aws".to_owned(),
                zone: "eu-west-1a".to_owned(),
                instance_type: "m7g.large".to_owned(),
                image_id: image.to_owned(),
            };
            let node_name = format!("ip-10-0-0-{}.eu-west-1.compute.internal", number + 10);
            (Origin::Ec2(ec2), node_name, Some(format!("aws:///eu-west-1a/{instance_id}")))
        }
        Ground::Host => {
            (Origin::Host { machine_id: format!("{:032x}", u64::from(number) + 0xb0) }, name.to_owned(), None)
        }
    };
    Identity { origin, node_name, address, provider_id, labels: BTreeMap::new() }
}

/// What every machine has before kubestrap comes.
pub fn furnish(disk: &mut Disk, identity: &Identity) {
    let machine_id = match &identity.origin {
        Origin::Host { machine_id } => machine_id.clone(),
        Origin::Ec2(ec2) => format!("{:0>32}", ec2.instance_id.trim_start_matches("i-")),
    };
    disk.put("/etc/machine-id", format!("{machine_id}\n"), 0o444);
    disk.put("/etc/hostname", format!("{}\n", identity.node_name), 0o644);
    let vendor = if identity.ec2().is_some() { "Amazon EC2\n" } else { "Acme\n" };
    disk.put("/sys/class/dmi/id/sys_vendor", vendor, 0o444);
    disk.put("/sys/class/dmi/id/product_name", "m7g.large\n", 0o444);
    disk.socket("/run/containerd/containerd.sock");
}

impl Universe {
    /// Starts the agent after a while, as systemd does, unless the machine is off by then.
    pub fn start_agent(self: &Rc<Self>, machine: usize, delay: Duration) {
        let universe = self.clone();
        self.timeline.after(delay, move || {
            let mut state = universe.machines[machine].state.borrow_mut();
            if matches!(state.power, Power::On(_)) && matches!(state.agent, Agent::Down) {
                state.agent = Agent::Due;
            }
        });
    }

    /// What every boot begins with: a clock that may be wrong, a metadata service that may be late.
    pub fn booted(self: &Rc<Self>, machine: usize) {
        self.boot_clock(machine);
        if !self.scenario.imds_late.is_zero() {
            let late = self.rng.between(Duration::ZERO, self.scenario.imds_late);
            self.machines[machine].imds_from.set(self.timeline.now() + late);
        }
    }

    /// Whether an agent runs there.
    pub fn has_live_agent(&self, machine: usize) -> bool {
        matches!(self.machines[machine].state.borrow().agent, Agent::Up)
    }

    /// Whether this kubeadm command runs on the machine.
    pub fn runs_kubeadm(&self, machine: usize, command: &str) -> bool {
        let state = self.machines[machine].state.borrow();
        state.jobs.get(&format!("kubeadm-{command}")).is_some_and(|job| job.end.is_none())
    }

    /// A person starts an agent again that had stopped for ever.
    pub fn restart_refused(self: &Rc<Self>, machine: usize) {
        self.note(machine, format_args!("is started again by the operator"));
        self.machines[machine].state.borrow_mut().agent = Agent::Down;
        self.start_agent(machine, Duration::from_secs(5));
    }

    /// kill -9 of the agent; systemd starts it again.
    pub fn kill_agent(self: &Rc<Self>, machine: usize, why: &str) {
        if matches!(self.machines[machine].state.borrow().agent, Agent::Up) {
            self.note(machine, format_args!("KILLED {why}"));
            self.machines[machine].dying.set(true);
        }
    }

    /// The machine loses power and boots again after a while.
    pub fn reboot(self: &Rc<Self>, machine: usize) {
        if !self.machines[machine].is_on() || self.timeline.now() < self.machines[machine].starts_at.get() {
            return;
        }
        self.note(machine, format_args!("REBOOTS"));
        self.count("reboot");
        if self.runs_kubeadm(machine, "join") {
            self.count("rebooted-in-join");
        }
        let off = self.rng.between(Duration::from_secs(15), Duration::from_secs(90));
        self.power_cycle(machine, Power::Booting, off);
    }

    /// Somebody stops the instance, and starts it again after an hour or two.
    pub fn stop_for_long(self: &Rc<Self>, machine: usize) {
        if !self.machines[machine].is_on() {
            return;
        }
        let off = self.rng.between(Duration::from_secs(70 * 60), Duration::from_secs(140 * 60));
        self.note(machine, format_args!("IS STOPPED for {} min", off.as_secs() / 60));
        self.count("holder-stopped");
        self.power_cycle(machine, Power::Stopped, off);
    }

    /// Without power for so long, and then it boots.
    fn power_cycle(self: &Rc<Self>, machine: usize, off: Power, lasts: Duration) {
        self.power_off(machine, off);
        self.end_shell(machine);
        let universe = self.clone();
        self.timeline.after(lasts, move || {
            let now = universe.timeline.now();
            {
                let mut state = universe.machines[machine].state.borrow_mut();
                if state.power != off {
                    return;
                }
                state.power = Power::On(now);
                state.boots += 1;
                state.disk.socket("/run/containerd/containerd.sock");
            }
            universe.note(machine, format_args!("is up again"));
            universe.booted(machine);
            universe.start_agent(machine, Duration::from_secs(5));
        });
    }

    /// The machine is lost; EC2 says terminated after a while.
    pub fn die(self: &Rc<Self>, machine: usize) {
        if self.machines[machine].is_dead() || !self.machines[machine].is_launched() {
            return;
        }
        let now = self.timeline.now();
        let noticed = now + self.rng.between(Duration::from_secs(40), Duration::from_secs(900));
        self.note(machine, format_args!("LOST FOR EVER, terminated in {} s", (noticed - now).as_secs()));
        self.power_off(machine, Power::Dead(now, noticed));
        self.replace_soon(machine);
    }

    /// The group starts this machine.
    pub fn launch(self: &Rc<Self>, machine: usize) {
        let now = self.timeline.now();
        let lag = if self.scenario.ec2_late { self.rng.between(Duration::ZERO, LATEST) } else { Duration::ZERO };
        let launched = &self.machines[machine];
        self.note(machine, format_args!("is started by its group"));
        launched.state.borrow_mut().power = Power::On(now);
        launched.starts_at.set(now);
        launched.known_from.set(now + lag);
        self.booted(machine);
        self.start_agent(machine, Duration::from_secs(20));
    }

    fn power_off(&self, machine: usize, power: Power) {
        let machine = &self.machines[machine];
        machine.dying.set(true);
        machine.ready.set(false);
        let mut state = machine.state.borrow_mut();
        state.power = power;
        state.jobs.clear();
        state.disk.wipe("/run");
        if !matches!(state.agent, Agent::Refused(_)) {
            state.agent = Agent::Down;
        }
    }
}
