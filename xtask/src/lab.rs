//! `cargo xtask lab`: nodes in namespaces. Dispatch only; `crates/lab` does the work.

use crate::process::{build, programs};
use clap::{Args, Subcommand};
use kubestrap_lab::claim::Lock;
use kubestrap_lab::folder::{self, Folder};
use kubestrap_lab::lab::{Lab, Options, clean_up};
use kubestrap_lab::machine::{Machine, init, start};
use kubestrap_lab::scenarios::{self, Selection};
use kubestrap_lab::{Result, fail, interrupt, logs, needs};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

/// Options of `lab`.
#[derive(Args)]
pub struct LabArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a cluster of real nodes: one master and two workers, and leave it up.
    Up(Up),
    /// Show the machines of the lab that is up.
    Status,
    /// A shell on a machine, or a command there: `shell m1 -- kubectl get nodes`.
    Shell(Shell),
    /// Remove the machines and all they had; the cache stays. Also after a crash.
    Down,
    /// Remove the cache too.
    Clean,
    /// Run scenarios; `all` is all of them.
    Run(Run),
    #[command(name = start::STARTER, hide = true)]
    MachineStart { plan: PathBuf },
    #[command(name = start::FIRST_PROCESS, hide = true)]
    MachineInit { plan: PathBuf },
}

#[derive(Args)]
struct Programs {
    /// The program under test; built from this checkout when absent.
    #[arg(long)]
    kubestrap: Option<PathBuf>,
    /// The folder with the stand-ins; built from this checkout when absent.
    #[arg(long)]
    programs: Option<PathBuf>,
}

#[derive(Args)]
struct Up {
    /// How many workers.
    #[arg(long, default_value_t = 2)]
    workers: u8,
    #[command(flatten)]
    programs: Programs,
}

#[derive(Args)]
struct Shell {
    /// The machine's name.
    machine: String,
    /// A command; an interactive shell when absent.
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(Args)]
struct Run {
    /// Names of scenarios, or `all`.
    scenarios: Vec<String>,
    /// Say what there is.
    #[arg(long)]
    list: bool,
    /// What CI runs: nothing that needs Kubernetes, and all that is possible here when it is there.
    #[arg(long)]
    ci: bool,
    /// Leave the machines of the last scenario up.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    programs: Programs,
}

impl LabArgs {
    /// Does what was asked for.
    pub fn run(self) -> Result<()> {
        let folder = Folder::from_environment();
        match self.command {
            Command::Up(up) => up.run(&folder),
            Command::Status => status(&folder),
            Command::Shell(shell) => shell.run(&folder),
            Command::Down => down(&folder),
            Command::Clean => down(&folder).and_then(|()| folder.clean()),
            Command::Run(run) => run.run(&folder),
            Command::MachineStart { plan } => start::starter(&plan),
            Command::MachineInit { plan } => init::run(&plan),
        }
    }
}

impl Programs {
    fn options(self, folder: &Folder, keep: bool) -> Result<Options> {
        let own = programs()?;
        // Before a build of minutes, not after it.
        needs::check(folder)?;
        if self.kubestrap.is_none() || self.programs.is_none() {
            build()?;
        }
        let absolute = |path: PathBuf| std::path::absolute(path);
        Ok(Options {
            kubestrap: self.kubestrap.map_or_else(|| Ok(own.join("kubestrap")), absolute)?,
            programs: self.programs.map_or_else(|| Ok(own.clone()), absolute)?,
            kubernetes: folder::kubernetes(folder),
            folder: folder.clone(),
            keep,
        })
    }
}

impl Up {
    fn run(self, folder: &Folder) -> Result<()> {
        if folder::kubernetes(folder).is_none() {
            return fail(scenarios::no_kubernetes(folder));
        }
        interrupt::listen(folder)?;
        let mut lab = Lab::open(self.programs.options(folder, false)?)?;
        if let Err(error) = scenarios::cluster_of(&mut lab, self.workers) {
            let place = logs::collect(&lab.machines(), &folder.logs(), "up")?;
            return fail(format!("{error}\nlogs of all machines: {}", place.display()));
        }
        lab.keep()?;
        println!("\nIt stays up. Talk to it:");
        println!("  cargo xtask lab shell m1 -- kubectl get nodes -o wide");
        println!("  cargo xtask lab shell m1 -- kubestrap status --cluster");
        println!("  cargo xtask lab shell w1");
        println!("  cargo xtask lab down");
        Ok(())
    }
}

fn status(folder: &Folder) -> Result<()> {
    println!("{:<14} {:<12} {:<8} SYSTEMD", "MACHINE", "ADDRESS", "PID 1");
    for machine in Lab::machines_of(folder)? {
        let pid = machine.init().map_or_else(|| "off".to_owned(), |init| init.pid.to_string());
        let state = machine.exec(&["systemctl", "is-system-running"]).map(|done| done.stdout).unwrap_or_default();
        println!("{:<14} {:<12} {pid:<8} {}", machine.name(), machine.address().to_string(), state.trim());
    }
    Ok(())
}

impl Shell {
    fn run(self, folder: &Folder) -> Result<()> {
        let machines = Lab::machines_of(folder)?;
        let Some(machine) = machines.iter().find(|machine| machine.name() == self.machine) else {
            let names: Vec<&str> = machines.iter().map(Machine::name).collect();
            return fail(format!("there is no machine {}; there are {}", self.machine, names.join(", ")));
        };
        let words: Vec<&str> = self.command.iter().map(String::as_str).collect();
        let words = if words.is_empty() { vec!["bash", "--login"] } else { words };
        let mut command = machine.command(&words)?;
        if let Some(term) = std::env::var_os("TERM") {
            command.env("TERM", term);
        }
        // Its exit code is ours.
        Err(command.exec())
    }
}

fn down(folder: &Folder) -> Result<()> {
    let _lock = Lock::take(folder)?;
    clean_up(folder)
}

impl Run {
    fn run(self, folder: &Folder) -> Result<()> {
        if self.list {
            return scenarios::list();
        }
        let selection = Selection::parse(&self.scenarios, self.ci)?;
        let Some(selection) = selection.possible(folder)? else { return Ok(()) };
        interrupt::listen(folder)?;
        scenarios::run(self.programs.options(folder, self.keep)?, &selection)
    }
}
