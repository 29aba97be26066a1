//! Starting a machine. This program starts itself twice: as the starter, which enters the machine's control groups and
//! network and becomes `unshare`, and as the first process in the new namespaces ([`super::init`]), which becomes systemd.

use super::{Machine, disk};
use crate::cgroups::{self, Hierarchy};
use crate::folder::Folder;
use crate::state::Process;
use crate::{Result, attempted, fail, network};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The hidden command of the starter, and that of the first process.
pub const STARTER: &str = "machine-start";
/// See [`STARTER`].
pub const FIRST_PROCESS: &str = "machine-init";
/// How long two programs may take to start.
const DEADLINE: Duration = Duration::from_secs(20);

/// What the starter and the first process are told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The machine's name.
    pub name: String,
    /// Its network namespace.
    pub network: String,
    /// The root tree.
    pub tree: PathBuf,
    /// The machine's folder.
    pub home: PathBuf,
    /// A UUID, when it is to look like an EC2 instance.
    pub instance: Option<String>,
    /// Folders and programs bound over paths of the machine: here, there.
    pub binds: Vec<(PathBuf, String)>,
    /// Control groups: mount point, type, options.
    pub hierarchies: Vec<(PathBuf, String, String)>,
}

impl Plan {
    fn of(machine: &Machine) -> Plan {
        let home = machine.folder();
        let folders = disk::BOUND.iter().map(|(here, there)| (home.join(here), (*there).to_owned()));
        let programs = machine.shared.programs.iter().map(|(there, here)| (here.clone(), there.clone()));
        let hierarchies = machine.shared.hierarchies.iter();
        Plan {
            name: machine.name().to_owned(),
            network: network::namespace(machine.name()),
            tree: machine.shared.folder.tree(),
            instance: machine.has_metadata().then(super::random_uuid),
            binds: folders.chain(programs).collect(),
            hierarchies: hierarchies.map(|h| (h.mount.clone(), h.kind.clone(), h.options.clone())).collect(),
            home,
        }
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(path: &Path) -> Result<Plan> {
        let text = attempted(std::fs::read(path), format!("read {}", path.display()))?;
        attempted(serde_json::from_slice(&text), format!("read {}", path.display()))
    }

    /// As the control groups are known elsewhere.
    pub fn hierarchies(&self) -> Vec<Hierarchy> {
        let known = |(mount, kind, options): &(PathBuf, String, String)| Hierarchy {
            mount: mount.clone(),
            kind: kind.clone(),
            options: options.clone(),
        };
        self.hierarchies.iter().map(known).collect()
    }
}

/// Starts the machine; the process that holds it, and its PID 1.
pub fn start(machine: &Machine) -> Result<(Child, Process)> {
    let home = machine.folder();
    let plan = home.join("plan.json");
    crate::tree::write(&plan, serde_json::to_vec(&Plan::of(machine))?, 0o600)?;
    let console = home.join("console.log");
    let log = File::options().create(true).append(true).open(&console);
    let log = attempted(log, format!("open {}", console.display()))?;
    let own = own_program(&machine.shared.folder)?;
    let mut child = Command::new(own)
        .args(["lab", STARTER])
        .arg(&plan)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let began = Instant::now();
    loop {
        if let Some(init) = only_child(child.id()).filter(|init| is_systemd(init.pid)) {
            return Ok((child, init));
        }
        if child.try_wait()?.is_some() || began.elapsed() > DEADLINE {
            let words = std::fs::read_to_string(&console).unwrap_or_default();
            let _ = child.kill();
            let _ = child.wait();
            return fail(format!("failed to start {}: {}", machine.name(), crate::command::tail(&words, 5)));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A copy of this program that stays where it is: cargo replaces the file it was started from when it builds again, and
/// does so even for `cargo xtask lab` itself.
fn own_program(folder: &Folder) -> Result<PathBuf> {
    let (copy, fresh) = (folder.run().join("starter"), folder.run().join("starter.new"));
    if !copy.exists() {
        attempted(std::fs::create_dir_all(folder.run()), "make the lab's folder")?;
        // Also when its file is gone.
        attempted(std::fs::copy("/proc/self/exe", &fresh), format!("copy this program to {}", fresh.display()))?;
        attempted(std::fs::rename(&fresh, &copy), format!("rename {}", fresh.display()))?;
    }
    Ok(copy)
}

fn only_child(pid: u32) -> Option<Process> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Process::of(children.split_whitespace().next()?.parse().ok()?)
}

fn is_systemd(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "systemd")
}

/// The starter: never returns when all goes well.
///
/// # Errors
/// When a control group or the network cannot be entered, or `unshare` not be started.
pub fn starter(plan_path: &Path) -> Result<()> {
    let plan = Plan::read(plan_path)?;
    attempted(nix::unistd::setsid(), "leave the terminal")?;
    cgroups::enter(&plan.hierarchies(), &plan.name)?;
    let place = format!("/run/netns/{}", plan.network);
    let network = attempted(File::open(&place), format!("open {place}"))?;
    attempted(nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET), format!("enter {place}"))?;
    let own = attempted(std::env::current_exe(), "find this program")?;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork", "--propagation", "private"]);
    unshare.arg(own).args(["lab", FIRST_PROCESS]).arg(plan_path);
    unshare.env("PATH", super::exec::PATH);
    attempted(Err(unshare.exec()), "start unshare")
}
