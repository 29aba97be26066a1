//! A model of kubeadm: jobs that go through phases in virtual time and leave the files that the real one leaves, in
//! its order. A job goes on when the agent dies, ends with the machine's power, and may fail or hang at any phase.

pub mod ca;
mod control_plane;
mod init;
mod join;
mod reset;

use crate::disk::Disk;
use crate::faults::Fault;
use crate::images;
use crate::rng::Rng;
use crate::universe::Universe;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kubestrap_core::ports::{JobEnd, JobSpec};
use serde_json::Value;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// The version of every simulated Kubernetes program.
pub const KUBE_VERSION: &str = "v1.36.1";

/// Groups whose members may do everything.
const ADMIN_GROUPS: &[&str] = &["system:masters", "kubeadm:cluster-admins"];

/// A job.
#[derive(Debug, Clone)]
pub struct Job {
    /// [`JobSpec::run`].
    pub run: String,
    /// Tells it from an earlier one of the same name.
    number: u64,
    /// How it ended; `None` while it runs.
    pub end: Option<JobEnd>,
    /// What it printed.
    pub output: String,
}

/// What a phase says.
pub(crate) enum Next {
    /// The next phase follows.
    Phase,
    /// The same phase again after this long.
    Again(Duration),
    /// The job fails with this output.
    Fail(String),
}

/// One running kubeadm.
pub(crate) struct Run {
    pub(crate) machine: usize,
    name: String,
    number: u64,
    documents: Vec<Value>,
    pub(crate) flags: Vec<String>,
    began: Duration,
    phases: &'static [Phase],
}

/// Its name, how long it takes at most (half of it at least), and what it does at its end.
pub(crate) type Phase = (&'static str, Duration, fn(&Rc<Universe>, &Run) -> Next);

/// `systemctl disable --now kubelet`: the static pods live on, the node does not. `systemctl restart kubelet`: they live on,
/// and kubeadm, which waits for the kubelet, sees nothing of it.
const SYSTEMCTL: &[Phase] = &[("systemctl", Duration::from_millis(300), |universe, run| {
    if run.flags.get(1).is_some_and(|verb| verb == "restart") {
        universe.count("kubelets-restarted");
    }
    Next::Phase
})];

impl Run {
    /// Whether `--skip-phases` names this phase.
    fn skips(&self, phase: &str) -> bool {
        let value = self.flags.iter().position(|flag| flag == "--skip-phases").and_then(|at| self.flags.get(at + 1));
        // What is one phase of kubeadm may be several here: `etcd-join/start`.
        let phase = phase.split('/').next().unwrap_or_default();
        value.is_some_and(|list| list.split(',').any(|name| name == phase))
    }

    /// A value of a document of this kind, by JSON pointer.
    fn value(&self, kind: &str, pointer: &str) -> Option<&Value> {
        let of_kind = |document: &&Value| document.get("kind").and_then(Value::as_str) == Some(kind);
        self.documents.iter().find(of_kind)?.pointer(pointer)
    }

    /// Whether it makes files: only removing them needs no space.
    fn writes(&self) -> bool {
        self.flags.get(1).is_some_and(|command| command != "reset")
    }

    /// kubeadm's errors name the token when it runs with a higher verbosity.
    fn tells(&self, universe: &Universe) -> String {
        let token = self.text("JoinConfiguration", "/discovery/bootstrapToken/token")
            + &self.text("InitConfiguration", "/bootstrapTokens/0/token");
        if token.is_empty() || !universe.strikes(Fault::JobTells) { String::new() } else { format!(" (token {token})") }
    }

    fn text(&self, kind: &str, pointer: &str) -> String {
        self.value(kind, pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

/// Starts a job; whoever started it may die.
pub fn launch(universe: &Rc<Universe>, machine: usize, job: &JobSpec) {
    universe.judge_text(6, "the arguments of a job", &job.argv.join(" "));
    universe.note(machine, format_args!("starts {} ({}): {}", job.name, job.run, job.argv.join(" ")));
    let documents = documents(universe, machine, &job.argv);
    let joins_control_plane = documents.iter().any(|document| document.pointer("/controlPlane").is_some());
    let phases = match job.argv.iter().map(String::as_str).take(2).collect::<Vec<_>>().as_slice() {
        ["kubeadm", "init"] => init::PHASES,
        ["kubeadm", "join"] if joins_control_plane => control_plane::PHASES,
        ["kubeadm", "join"] => join::PHASES,
        ["kubeadm", "reset"] => reset::PHASES,
        ["systemctl", ..] => SYSTEMCTL,
        ["ctr", ..] => images::phases(&job.argv),
        _ => &[],
    };
    let number = universe.rng.next();
    let record = Job { run: job.run.clone(), number, end: None, output: String::new() };
    let run = Rc::new(Run {
        machine,
        name: job.name.clone(),
        number,
        documents,
        flags: job.argv.clone(),
        began: universe.timeline.now(),
        phases,
    });
    universe.judge_job(machine, job, &run.documents);
    universe.machines[machine].state.borrow_mut().jobs.insert(job.name.clone(), record);
    universe.judge_running_inits();
    if phases.is_empty() {
        return end(universe, &run, JobEnd::NotStarted(format!("{:?} is not known", job.argv)), "");
    }
    let (killer, killed) = (universe.clone(), run.clone());
    universe.timeline.after(job.deadline, move || end(&killer, &killed, JobEnd::TimedOut, ""));
    proceed(universe, run, 0);
}

fn documents(universe: &Universe, machine: usize, argv: &[String]) -> Vec<Value> {
    let path = argv.iter().position(|flag| flag == "--config").and_then(|at| argv.get(at + 1)).map(PathBuf::from);
    let text = path.and_then(|path| universe.machines[machine].state.borrow().disk.text(path));
    text.and_then(|text| serde_saphyr::from_multiple(&text).ok()).unwrap_or_default()
}

fn proceed(universe: &Rc<Universe>, run: Rc<Run>, index: usize) {
    let Some((_, most, _)) = run.phases.get(index) else {
        let token = run.text("InitConfiguration", "/bootstrapTokens/0/token");
        let shown = !run.flags.iter().any(|flag| flag == "--skip-token-print") && !token.is_empty();
        let output =
            if shown { format!("kubeadm join {} --token {token}\n", crate::cluster::ENDPOINT) } else { String::new() };
        return end(universe, &run, JobEnd::Exited(0), &output);
    };
    let delay = universe.rng.between(*most / 2, *most);
    later(universe, run, index, delay);
}

fn later(universe: &Rc<Universe>, run: Rc<Run>, index: usize, delay: Duration) {
    let world = universe.clone();
    universe.timeline.after(delay, move || {
        if !is_running(&world, &run) {
            return;
        }
        let (phase, _, work) = run.phases[index];
        if run.skips(phase) {
            return proceed(&world, run, index + 1);
        }
        if world.strikes(Fault::JobHangs) {
            return world.note(run.machine, format_args!("{} hangs at {phase}", run.name));
        }
        let half_done = world.rng.below(2) == 0;
        let full = run.writes() && world.timeline.now() < world.machines[run.machine].full_until.get();
        if full {
            world.count("kubeadm-on-full-disk");
        }
        let fails = full || world.strikes(Fault::JobFails) || world.deaths.borrow_mut().fails(&run.name, phase);
        let why = if full { "no space left on device" } else { "bad luck" };
        let why =
            format!("error execution phase {phase}: {why}{}\n", if fails { run.tells(&world) } else { String::new() });
        if fails && !half_done {
            return end(&world, &run, JobEnd::Exited(1), &why);
        }
        match work(&world, &run) {
            _ if fails => end(&world, &run, JobEnd::Exited(1), &why),
            Next::Phase => proceed(&world, run, index + 1),
            Next::Again(delay) => later(&world, run, index, delay),
            Next::Fail(output) => {
                end(&world, &run, JobEnd::Exited(1), &format!("error execution phase {phase}: {output}\n"))
            }
        }
    });
}

fn is_running(universe: &Universe, run: &Run) -> bool {
    let state = universe.machines[run.machine].state.borrow();
    state.jobs.get(&run.name).is_some_and(|job| job.number == run.number && job.end.is_none())
}

fn end(universe: &Rc<Universe>, run: &Run, how: JobEnd, output: &str) {
    if !is_running(universe, run) {
        return;
    }
    universe.note(run.machine, format_args!("{} ends: {how:?} {}", run.name, output.trim_end()));
    let mut state = universe.machines[run.machine].state.borrow_mut();
    if let Some(job) = state.jobs.get_mut(&run.name) {
        job.end = Some(how);
        job.output.push_str(output);
    }
}

/// A kubeconfig as the model writes and reads it: the server is always the endpoint.
fn kubeconfig(ca: &str, user: &str) -> String {
    format!("apiVersion: v1\nkind: Config\nsimulated: {{ ca: \"{ca}\", user: \"{user}\" }}\n")
}

/// The CA pin and the user of a kubeconfig: of the model, or with certificates as core makes them.
pub fn read_kubeconfig(text: &str) -> Option<(String, String)> {
    let part = |key: &str| {
        let rest = text.split(&format!("{key}: \"")).nth(1)?;
        rest.split('"').next().map(str::to_owned)
    };
    let embedded = |key: &str| {
        let rest = text.split(&format!("{key}-data")).nth(1)?;
        let data = rest.trim_start_matches(['"', ':', ' ']);
        let data = data.split(|c: char| !(c.is_ascii_alphanumeric() || "+/=".contains(c))).next()?;
        String::from_utf8(STANDARD.decode(data).ok()?).ok()
    };
    if let (Some(ca), Some(user)) = (part("ca"), part("user")) {
        return Some((ca, user));
    }
    let (authority, client) = (embedded("certificate-authority")?, embedded("client-certificate")?);
    let user = match ca::read_leaf(&authority, &client) {
        Some((group, _)) if ADMIN_GROUPS.contains(&group.as_str()) => "admin",
        Some(_) => "node",
        None => "anonymous",
    };
    Some((ca::pin(&authority)?.to_string(), user.to_owned()))
}

/// The files of a control plane that somebody made by hand.
pub fn foreign_control_plane(disk: &mut Disk, rng: &Rng) {
    let pem = ca::generate(rng);
    let pin = ca::pin(&pem).map(|pin| pin.to_string()).unwrap_or_default();
    disk.put("/etc/kubernetes/pki/ca.crt", pem, 0o644);
    disk.put("/etc/kubernetes/pki/ca.key", "foreign key", 0o600);
    disk.put("/etc/kubernetes/admin.conf", kubeconfig(&pin, "admin"), 0o600);
    disk.put("/etc/kubernetes/kubelet.conf", kubeconfig(&pin, "node"), 0o600);
    disk.put(crate::cluster::API_MANIFEST, "kind: Pod\n", 0o600);
    disk.put(crate::cluster::ETCD_DATA, "foreign", 0o600);
}
