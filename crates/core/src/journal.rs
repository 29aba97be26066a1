//! The journal: what was done on this machine and when. It is the proof needed before anything is destroyed, so the
//! attempt is durable here before the first write to the store, and every line carries it.
//!
//! One JSON document a line, appended and fsynced. A torn last line (power loss) is ignored, and healed by the next
//! append, which begins with a line feed; a damaged line before it is an error, for a proof with a hole proves nothing.

use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::names::CaHash;
use crate::ports::{Files, Time};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::rc::Rc;
use uuid::Uuid;

/// Where the agent keeps its state; mode 0700.
pub const STATE_FOLDER: &str = "/var/lib/kubestrap";
/// The journal's path.
pub const JOURNAL: &str = "/var/lib/kubestrap/journal.jsonl";
/// No journal of ours gets there: long before, it is thinned out.
const MAX_JOURNAL: u64 = 4 * 1024 * 1024;
/// A line is some 300 bytes and a bootstrap writes some twenty; a step that fails again and again for days, with a
/// program's last words in every line, gets here.
const THIN_OUT_AT: usize = 1024 * 1024;
/// What is kept of the lines about steps then, in bytes: the newest.
const STEPS_KEPT: usize = 256 * 1024;

/// What an attempt is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptKind {
    /// To initialise a cluster.
    Init,
    /// To join one as a worker.
    Join,
    /// To join one as a further control plane.
    ControlPlane,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    /// An attempt begins. Nothing outside this machine has been changed yet.
    Began {
        /// Init or join.
        kind: AttemptKind,
        /// The cluster's uid: chosen here by an initialiser, taken from the bundle by a joiner.
        uid: Uuid,
        /// Whether the machine carried no Kubernetes state when it began. Only then may this attempt's traces ever
        /// be reset.
        machine_was_clean: bool,
    },
    /// `kubeadm init` succeeded and the machine carries this CA.
    Initialised {
        /// The CA it made.
        ca: CaHash,
    },
    /// The commit of the register is about to be sent. From here on nothing of this attempt is ever reset.
    CommitAttempted,
    /// The register says that this attempt made the cluster.
    Committed {
        /// The CA in the register.
        ca: CaHash,
    },
    /// `kubeadm join` succeeded.
    Joined {
        /// The CA of the cluster it joined.
        ca: CaHash,
    },
    /// This master is about to leave its cluster: its member is removed, and nothing is joined or reset by itself again.
    Left,
    /// What this attempt left on the machine is about to be reset.
    ResetBegan,
    /// The machine is clean again.
    ResetDone,
    /// An operator reset the machine: the attempt is over, and so is what it proved.
    Abandoned,
    /// The addons with this digest were applied.
    AddonsApplied {
        /// SHA-256 of the manifests, hex.
        digest: String,
    },
    /// The launch hook of the Auto Scaling group was told that this machine is a node.
    LaunchSignalled {
        /// The hook.
        hook: String,
        /// Where the group took the instance then: in a warm pool there are two launches.
        target: String,
    },
    /// A step's *apply* began.
    StepBegan {
        /// The step.
        step: String,
        /// Why it was wanted.
        why: String,
    },
    /// A step's *apply* ended.
    StepEnded {
        /// The step.
        step: String,
        /// How long it took.
        took_ms: u64,
        /// The failure's label and text, when it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<(String, String)>,
    },
    /// The machine is a node.
    Completed,
    /// The operators' hook that replaces this machine is about to be started.
    HookStarted {
        /// The grant it is started for.
        grant: Uuid,
    },
    /// The certificates of this control plane are about to be renewed; whether one of them had ended by then.
    RenewalBegan {
        /// Nobody could be asked, and nobody was served.
        expired: bool,
    },
    /// They are renewed; the static pods do not use them yet.
    CertificatesRenewed {
        /// Whether none was left that was due.
        all: bool,
    },
    /// Every static pod uses them and is healthy.
    RenewalEnded,
    /// A line of a newer version; kept, not understood.
    #[serde(other)]
    Unknown,
}

impl Entry {
    /// Whether it only tells what was done when: nothing follows from it.
    fn is_about_a_step(&self) -> bool {
        matches!(self, Entry::StepBegan { .. } | Entry::StepEnded { .. })
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Major version of the form.
    pub schema: u32,
    /// When, by the local clock.
    pub at: Timestamp,
    /// The attempt it belongs to; nil before the first.
    pub attempt: Uuid,
    /// What happened.
    #[serde(flatten)]
    pub entry: Entry,
}

/// The last attempt, as the lines tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its uuid.
    pub id: Uuid,
    /// Init or join.
    pub kind: AttemptKind,
    /// The cluster's uid.
    pub uid: Uuid,
    /// Whether the machine was clean when it began.
    pub machine_was_clean: bool,
    /// The CA that init made.
    pub initialised: Option<CaHash>,
    /// Whether a commit may have been sent.
    pub commit_attempted: bool,
    /// The CA in the register.
    pub committed: Option<CaHash>,
    /// The CA of the joined cluster.
    pub joined: Option<CaHash>,
    /// Whether a reset began and did not end.
    pub resetting: bool,
    /// Whether this machine left the cluster, or began to.
    pub left: bool,
    /// Whether the machine became a node.
    pub completed: bool,
    /// The digest of the addons that were applied.
    pub addons: Option<String>,
}

impl Attempt {
    /// The CA of the cluster that this machine is a master of: committed by the one that made it, joined by the others.
    /// `None` for workers, and for masters that are not there yet.
    pub fn master_of(&self) -> Option<&CaHash> {
        match self.kind {
            AttemptKind::Init => self.committed.as_ref(),
            AttemptKind::ControlPlane => self.joined.as_ref(),
            AttemptKind::Join => None,
        }
    }

    /// An attempt that has done nothing yet.
    pub(crate) fn begun(id: Uuid, kind: AttemptKind, uid: Uuid, machine_was_clean: bool) -> Self {
        Attempt {
            id,
            kind,
            uid,
            machine_was_clean,
            initialised: None,
            commit_attempted: false,
            committed: None,
            joined: None,
            resetting: false,
            left: false,
            completed: false,
            addons: None,
        }
    }
}

/// A proof that an attempt is on this machine's disk: made only by [`Journal`], demanded by every claim of the register.
#[derive(Debug)]
pub struct AttemptRecorded {
    attempt: Uuid,
    uid: Uuid,
}

impl AttemptRecorded {
    /// The attempt.
    pub fn attempt(&self) -> Uuid {
        self.attempt
    }

    /// The uid the cluster will have if this attempt makes it.
    pub fn uid(&self) -> Uuid {
        self.uid
    }
}

/// Reads and writes the journal of this machine.
pub struct Journal {
    files: Rc<dyn Files>,
    time: Rc<dyn Time>,
}

impl Journal {
    /// The journal behind these ports.
    pub fn new(files: Rc<dyn Files>, time: Rc<dyn Time>) -> Self {
        Journal { files, time }
    }

    /// Every line; empty when there is no journal.
    pub fn lines(&self) -> Outcome<Vec<Line>> {
        match self.files.read(Path::new(JOURNAL), MAX_JOURNAL)? {
            None => Ok(Vec::new()),
            Some(body) => parse(&body),
        }
    }

    /// The last attempt; `None` when none began.
    pub fn attempt(&self) -> Outcome<Option<Attempt>> {
        Ok(last_attempt(&self.lines()?))
    }

    /// Begins an attempt, durably, and gives the proof of it.
    pub fn begin(&self, id: Uuid, kind: AttemptKind, uid: Uuid, machine_was_clean: bool) -> Outcome<AttemptRecorded> {
        self.append(id, Entry::Began { kind, uid, machine_was_clean })?;
        Ok(AttemptRecorded { attempt: id, uid })
    }

    /// The proof of an attempt that an earlier life of the agent recorded: `None` unless it is the last one.
    pub fn recorded(&self, id: Uuid) -> Outcome<Option<AttemptRecorded>> {
        let attempt = self.attempt()?.filter(|attempt| attempt.id == id);
        Ok(attempt.map(|attempt| AttemptRecorded { attempt: attempt.id, uid: attempt.uid }))
    }

    /// Appends a line about the last attempt; about none when there is none yet. A journal that has grown large is
    /// thinned out first, in one atomic write.
    pub fn note(&self, entry: Entry) -> Outcome<()> {
        let body = self.files.read(Path::new(JOURNAL), MAX_JOURNAL)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&body);
        let lines = parse_lines(&text)?;
        if body.len() > THIN_OUT_AT {
            // On a full disk the line below may still have room.
            let _ = self.files.write(Path::new(JOURNAL), thinned_out(&lines).as_bytes(), 0o600);
        }
        let attempt = last_of(lines.iter().map(|(line, _)| line)).map_or(Uuid::nil(), |attempt| attempt.id);
        self.append(attempt, entry)
    }

    fn append(&self, attempt: Uuid, entry: Entry) -> Outcome<()> {
        let line = Line { schema: crate::model::register::SCHEMA, at: self.time.now(), attempt, entry };
        let text = serde_json::to_string(&line)
            .map_err(|error| Failure::new(Cause::Internal, format!("write {JOURNAL}"), error.to_string()))?;
        // The leading line feed closes a line that a power loss tore.
        self.files.append(Path::new(JOURNAL), format!("\n{text}\n").as_bytes(), 0o600)
    }
}

fn parse(body: &[u8]) -> Outcome<Vec<Line>> {
    let lines = parse_lines(&String::from_utf8_lossy(body))?.into_iter().map(|(line, _)| line).collect();
    Ok(lines)
}

/// Every line with its text.
fn parse_lines(text: &str) -> Outcome<Vec<(Line, &str)>> {
    let damaged = |number: usize, why: String| {
        Failure::new(Cause::ForeignState, format!("read {JOURNAL}"), format!("line {number} is damaged: {why}"))
            .advise("restore the file, or wipe this machine: without it nothing here can be proven to be ours")
    };
    let total = text.split('\n').count();
    let mut lines = Vec::new();
    for (index, raw) in text.split('\n').enumerate() {
        if raw.trim().is_empty() {
            continue;
        }
        match parse_line(raw) {
            Ok(line) if line.schema > crate::model::register::SCHEMA => {
                return Err(damaged(
                    index + 1,
                    format!("it was written by a newer kubestrap (schema {})", line.schema),
                ));
            }
            Ok(line) => lines.push((line, raw)),
            // Torn by a power loss: either still the last line, or closed by the next append. A torn line was never
            // acknowledged, so nothing was done on its strength. It is a proper prefix of a line: it ends too early, or
            // (with what the disk held before) without the brace that ends every whole one.
            Err(error) if index + 1 == total || error.is_eof() || !raw.trim_end().ends_with('}') => {}
            Err(error) => return Err(damaged(index + 1, error.to_string())),
        }
    }
    Ok(lines)
}

/// A line about a step, without the general form's detour: whoever reads a flattened enum keeps all of it in between.
#[derive(Deserialize)]
struct StepLine {
    schema: u32,
    at: Timestamp,
    attempt: Uuid,
    entry: String,
    step: String,
    why: Option<String>,
    took_ms: Option<u64>,
    failure: Option<(String, String)>,
}

/// Most lines are about steps, and the journal is read at every look at the machine. What is not plainly one of those is
/// read in the general form, which also says what is wrong with it.
fn parse_line(raw: &str) -> serde_json::Result<Line> {
    let step = raw.contains("\"entry\":\"step-").then(|| serde_json::from_str::<StepLine>(raw));
    let Some(Ok(StepLine { schema, at, attempt, entry, step, why, took_ms, failure })) = step else {
        return serde_json::from_str(raw);
    };
    let entry = match (entry.as_str(), why, took_ms) {
        ("step-began", Some(why), _) => Entry::StepBegan { step, why },
        ("step-ended", _, Some(took_ms)) => Entry::StepEnded { step, took_ms, failure },
        _ => return serde_json::from_str(raw),
    };
    Ok(Line { schema, at, attempt, entry })
}

/// What is worth keeping, as it was written: the newest lines about steps, and what the last attempt follows from,
/// which is the last line of each kind since it began. [`last_attempt`] says the same of it.
fn thinned_out(lines: &[(Line, &str)]) -> String {
    let last_edge = lines.iter().rposition(|(line, _)| matches!(line.entry, Entry::Began { .. } | Entry::Abandoned));
    let since = last_edge.unwrap_or_default();
    let mut facts: Vec<(Uuid, &Entry)> = Vec::new();
    let (mut kept, mut room) = (Vec::new(), STEPS_KEPT);
    for (index, (line, raw)) in lines.iter().enumerate().rev() {
        let keep = match &line.entry {
            entry if entry.is_about_a_step() => {
                // Nothing older is kept once one did not fit: no holes.
                room = room.saturating_sub(raw.len());
                room > 0
            }
            // What a later release wrote cannot be judged here.
            Entry::Unknown => index >= since,
            entry => index >= since && !facts.contains(&(line.attempt, entry)),
        };
        if keep {
            kept.push(*raw);
            if !line.entry.is_about_a_step() {
                facts.push((line.attempt, &line.entry));
            }
        }
    }
    kept.iter().rev().map(|raw| format!("{raw}\n")).collect()
}

/// What the lines say about the last attempt.
pub fn last_attempt(lines: &[Line]) -> Option<Attempt> {
    last_of(lines.iter())
}

fn last_of<'a>(lines: impl Iterator<Item = &'a Line>) -> Option<Attempt> {
    let mut current: Option<Attempt> = None;
    for line in lines {
        if let Entry::Began { kind, uid, machine_was_clean } = line.entry {
            current = Some(Attempt::begun(line.attempt, kind, uid, machine_was_clean));
        } else if line.entry == Entry::Abandoned {
            current = None;
        } else if let Some(attempt) = current.as_mut().filter(|attempt| attempt.id == line.attempt) {
            apply(attempt, &line.entry);
        }
    }
    current
}

fn apply(attempt: &mut Attempt, entry: &Entry) {
    match entry {
        Entry::Initialised { ca } => attempt.initialised = Some(ca.clone()),
        Entry::CommitAttempted => attempt.commit_attempted = true,
        Entry::Committed { ca } => attempt.committed = Some(ca.clone()),
        Entry::Joined { ca } => attempt.joined = Some(ca.clone()),
        Entry::Left => attempt.left = true,
        Entry::ResetBegan => attempt.resetting = true,
        Entry::ResetDone => {
            attempt.resetting = false;
            attempt.initialised = None;
            attempt.joined = None;
            attempt.completed = false;
        }
        Entry::AddonsApplied { digest } => attempt.addons = Some(digest.clone()),
        Entry::Completed => attempt.completed = true,
        Entry::Abandoned
        | Entry::Began { .. }
        | Entry::StepBegan { .. }
        | Entry::StepEnded { .. }
        | Entry::HookStarted { .. }
        | Entry::LaunchSignalled { .. }
        | Entry::RenewalBegan { .. }
        | Entry::CertificatesRenewed { .. }
        | Entry::RenewalEnded
        | Entry::Unknown => {}
    }
}

#[cfg(test)]
mod tests;
