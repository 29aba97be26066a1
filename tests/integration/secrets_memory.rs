//! Core dumps: there are tokens in the agent's memory and cloud credentials in its environment, and neither it nor
//! kubeadm leaves a dump, whatever the limits of who started it.

use crate::audit::Execs;
use crate::process::{eventually, signal};
use crate::world::{Machine, World};
use nix::sys::signal::Signal;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

fn limit_of(limits: &str) -> Vec<&str> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("a limit");
    line.split_whitespace().take(2).collect()
}

/// A process that ends when the test does.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Killed {
    fn start(command: &mut Command) -> Killed {
        Killed(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start"))
    }

    /// Waits until what set it up has executed it: only then it has the limits and rights that were asked for.
    fn has_become(&self, name: &str) {
        let comm = format!("/proc/{}/comm", self.0.id());
        eventually("it runs", || std::fs::read_to_string(&comm).is_ok_and(|now| now.trim() == name));
    }

    /// SIGABRT ends it as a crash would.
    fn crash(mut self) -> ExitStatus {
        signal(self.0.id(), Signal::SIGABRT);
        let mut status = None;
        eventually("it is dead", || {
            status = self.0.try_wait().expect("wait");
            status.is_some()
        });
        status.expect("a status")
    }
}

/// Runs with core dumps of any size, in a folder.
fn with_dumps(folder: &Path, program: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited; exec \"$@\"", "sh"]).args(program).current_dir(folder);
    command
}

/// The agent of a master that takes its time, with dumps allowed by whoever started it, which is `starter`.
fn agent(master: &Machine, folder: &Path, starter: &[&str]) -> Killed {
    master.script("faults: [{command: init, phase: kubelet-start, action: slow, seconds: 60}]");
    let run = master.command(&["run"]);
    let mut command = with_dumps(folder, starter);
    command.arg(crate::process::KUBESTRAP).args(run.get_args());
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let agent = Killed::start(&mut command);
    eventually("kubeadm runs", || master.reached("init", "kubelet-start"));
    agent
}

#[test]
fn neither_the_agent_nor_kubeadm_may_dump_core() {
    let world = World::new();
    let master = world.master("m1");
    let execs = Execs::of(&master, world.path("execs"));
    let agent = agent(&master, &world.path(""), &[]);
    let proc = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", agent.0.id())).expect("proc");
    assert_eq!(limit_of(&proc("limits")), ["0", "0"]);
    if Path::new("/proc/self/coredump_filter").exists() {
        assert_eq!(proc("coredump_filter").trim(), "00000000");
    }
    let all = execs.all();
    assert!(all.iter().any(|exec| exec.line.contains("kubeadm init")), "init was not recorded");
    for exec in &all {
        assert_eq!(limit_of(&exec.limits), ["0", "0"], "{}", exec.line);
        assert!(["", "00000000"].contains(&exec.dumped.trim()), "{}: {}", exec.line, exec.dumped);
    }
}

/// Where another program does leave a dump.
#[test]
fn a_crash_leaves_no_core_dump() {
    let world = World::new();
    let folder = world.path("cores");
    std::fs::create_dir(&folder).expect("mkdir");
    let sleep = Killed::start(with_dumps(&folder, &["sleep"]).arg("60"));
    sleep.has_become("sleep");
    if !sleep.crash().core_dumped() {
        eprintln!("this machine makes no core dumps: only the settings are looked at");
        return;
    }
    let dumps = || std::fs::read_dir(&folder).expect("folder").count();
    let before = dumps();
    let status = agent(&world.master("m1"), &folder, &[]).crash();
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32));
    assert!(!status.core_dumped(), "the agent left a core dump");
    assert_eq!(dumps(), before, "files beside the dump of the other program");
}

/// An agent of root is not dumpable, which is what keeps its environment from systemd-coredump. Seen from outside: a
/// process with its user and capabilities, and without the right to trace everything, cannot open its memory. (Not its
/// environment: a kernel of 2025 shows that to everybody with `CAP_PERFMON`.)
#[test]
fn the_agent_of_root_is_not_dumpable() {
    const AS_EQUAL: [&str; 3] = ["setpriv", "--inh-caps=-sys_ptrace", "--bounding-set=-sys_ptrace"];
    let world = World::new();
    let opens = |process: &Killed| {
        let open = format!(": </proc/{}/mem", process.0.id());
        let opened = Command::new(AS_EQUAL[0]).args(&AS_EQUAL[1..]).args(["sh", "-c", &open]).output();
        opened.is_ok_and(|output| output.status.success())
    };
    let sleep = Killed::start(with_dumps(&world.path(""), &AS_EQUAL).args(["sleep", "60"]));
    sleep.has_become("sleep");
    let root = std::fs::metadata("/proc/self").is_ok_and(|data| data.uid() == 0);
    if !root || !opens(&sleep) {
        eprintln!("this needs root and setpriv");
        return;
    }
    let master = world.master("m1");
    let mut agent = agent(&master, &world.path(""), &AS_EQUAL);
    assert!(!opens(&agent), "the agent is dumpable");
    assert_eq!(agent.0.try_wait().expect("wait"), None, "there was no agent to look at");
}
