//! Where a story of deaths is played: the scene of each death, and how one dies in it.

use super::points::Point;
use crate::process::{Agent, PATIENCE};
use crate::world::{Machine, World};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

/// What the program is told with; see `src/adapters/killpoint.rs`.
const AT: &str = "KUBESTRAP_TEST_KILL_AT";
const LOG: &str = "KUBESTRAP_TEST_KILL_LOG";
const PARENT: &str = "KUBESTRAP_TEST_KILL_PARENT";
/// Files that are written by the clock, too: when they are written for the second time differs from run to run.
const TIMED: &[&str] = &["/agent.json", "/bootstrap-trace.json"];

/// A point that was crossed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crossing {
    /// Which.
    pub point: Point,
    /// The how-manieth of this point about this path, in one process.
    pub n: u32,
    /// The path it was about, without what differs from scene to scene.
    pub path: String,
    /// Whether the wrapper of a job crosses it, and not the agent.
    pub of_wrapper: bool,
}

impl Crossing {
    /// Whether it depends on the clock where in the story it is.
    pub fn is_timed(&self) -> bool {
        TIMED.iter().any(|path| self.path.ends_with(path))
    }
}

/// Who dies at a crossing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dead {
    /// The agent.
    Agent,
    /// The wrapper of a job; the agent goes on.
    Wrapper,
    /// The wrapper of a job, and the agent with it.
    Both,
}

/// The place of one death: a world, a machine, and what is run there.
pub struct Scene {
    /// The store and its neighbours.
    pub world: Rc<World>,
    /// The master of the cluster, when it is not the machine itself.
    pub master: Option<Rc<Machine>>,
    /// Where it happens.
    pub machine: Machine,
    /// The arguments of the command that dies and is then repeated.
    pub arguments: Vec<String>,
    /// Whether it is no agent that tries again: when kubeadm's end is not known it says so (exit 13), and a person
    /// gives the command once more.
    pub gives_up: bool,
}

/// What was so when the process had died, before the command was repeated.
pub struct Death {
    /// The register's state.
    pub register: String,
    /// How many lines the journal had.
    pub journal: usize,
}

impl Scene {
    /// Paths with placeholders for what is another one in every scene, longest first.
    fn placeholders(&self) -> Vec<(String, &'static str)> {
        let mut list = vec![
            (self.world.store_path("").display().to_string(), "<store>/"),
            (self.machine.root().display().to_string(), "<root>"),
            (self.machine.machine_id.clone(), "<machine-id>"),
        ];
        if let Some(uid) = self.world.object("cluster.json").and_then(|register| Some(register["uid"].as_str()?.into()))
        {
            list.push((uid, "<uid>"));
        }
        list
    }

    fn general(&self, path: &str, placeholders: &[(String, &str)]) -> String {
        placeholders.iter().fold(path.to_owned(), |path, (own, general)| path.replace(own.as_str(), general))
    }

    fn own(&self, path: &str) -> String {
        self.placeholders().iter().fold(path.to_owned(), |path, (own, general)| path.replace(general, own))
    }

    fn command(&self, log: &Path) -> Command {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut command = self.machine.command(&arguments);
        command.env(LOG, log);
        command
    }

    fn log(&self, name: &str) -> PathBuf {
        self.world.path(&format!("{}-{name}.log", self.machine.name))
    }

    /// Runs the command to its end and tells what was crossed: by the agent, then by the wrappers of its jobs.
    pub fn enumerate(&self) -> Vec<Crossing> {
        let (log, placeholders) = (self.log("clean"), self.placeholders());
        let agent = Agent::start(&mut self.command(&log));
        let pid = agent.pid();
        agent.finished(PATIENCE).expect(0);
        let crossing = |line: Line| {
            let path = self.general(&line.path, &placeholders);
            Crossing { point: line.point, n: line.n, path, of_wrapper: line.pid != pid }
        };
        let mut crossings: Vec<Crossing> = lines(&log).into_iter().map(crossing).collect();
        crossings.retain(|crossing| crossing.n == 1 || !crossing.is_timed());
        crossings.sort_by_key(|crossing| crossing.of_wrapper);
        crossings
    }

    /// Runs the command and dies at a crossing; fails when it is not reached.
    pub fn die(&self, at: &Crossing, who: Dead) -> Death {
        let log = self.log("death");
        let mut command = self.command(&log);
        command.env(AT, format!("{}:{}:{}", at.point.name(), at.n, self.own(&at.path)));
        if who == Dead::Both {
            command.env(PARENT, "yes");
        }
        let agent = Agent::start(&mut command);
        let pid = agent.pid();
        let ended = agent.finished(PATIENCE);
        let dead: Vec<Line> = lines(&log).into_iter().filter(|line| line.died).collect();
        let [dead] = dead.as_slice() else {
            panic!("{} processes died at {at:?}; the command said:\n{}", dead.len(), ended.said())
        };
        assert_eq!(dead.pid == pid, who == Dead::Agent, "another process died");
        match who {
            Dead::Wrapper if self.gives_up && ended.code == Some(13) => {}
            Dead::Wrapper => drop(ended.expect(0)),
            Dead::Agent | Dead::Both => assert_eq!(ended.code, None, "it was to die; it said:\n{}", ended.said()),
        }
        Death { register: self.register(), journal: self.journal().len() }
    }

    /// Runs the command again, to its good end.
    pub fn repeat(&self) {
        let again = || crate::process::finish(&mut self.command(&self.log("again")));
        let ended = again();
        let ended = if self.gives_up && ended.code == Some(13) { again() } else { ended };
        ended.expect(0);
    }

    fn register(&self) -> String {
        let register = self.world.object("cluster.json");
        register.map_or_else(|| "absent".to_owned(), |register| register["state"].as_str().expect("a state").to_owned())
    }

    /// The journal's whole lines.
    pub fn journal(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.machine.path("/var/lib/kubestrap/journal.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The first step that the repeated command carried out.
    pub fn went_on_at(&self, who: Dead, death: &Death) -> String {
        if who == Dead::Wrapper {
            return if self.gives_up { "-".to_owned() } else { "(the agent lives)".to_owned() };
        }
        let mut steps = self.journal().into_iter().skip(death.journal).filter(|line| line["entry"] == "step-began");
        steps.next().map_or_else(|| "-".to_owned(), |line| line["step"].as_str().expect("a step").to_owned())
    }

    /// What of kubeadm was run, in both lives.
    pub fn kubeadm(&self) -> String {
        let runs = ["init", "join", "reset"].map(|command| (command, self.machine.begun(command)));
        let runs = runs.iter().filter(|(_, count)| *count > 0).map(|(command, count)| match self.gives_up {
            // A reset that was found running is waited for, one that has ended is repeated: a matter of milliseconds.
            true => (*command).to_owned(),
            false => format!("{command} x{count}"),
        });
        runs.collect::<Vec<_>>().join(", ")
    }
}

struct Line {
    died: bool,
    pid: u32,
    point: Point,
    path: String,
    n: u32,
}

fn lines(log: &Path) -> Vec<Line> {
    let names: BTreeMap<&str, Point> = Point::ALL.iter().map(|point| (point.name(), *point)).collect();
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [what, pid, point, n, path] = fields[..] else { panic!("{line}") };
        Line {
            died: what == "died",
            pid: pid.parse().expect("a pid"),
            point: *names.get(point).unwrap_or_else(|| panic!("{point} is not in the list")),
            path: path.to_owned(),
            n: n.parse().expect("a count"),
        }
    };
    text.lines().map(parse).collect()
}

/// Temporary files of ours below a folder.
pub fn temporaries(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else if name.starts_with(".kubestrap-") {
                found.push(entry.path());
            }
        }
    }
    found
}
