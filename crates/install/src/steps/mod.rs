//! The story of an installation: ordered steps, each with a check that changes nothing and an apply that converges
//! wherever it is killed. A second run finds nothing to do.

mod containerd;
mod files;
mod images;
mod imports;
mod kernel;
mod manifest;
mod memory;
mod owner;
mod programs;
mod services;
mod units;

pub use files::Text;
pub use imports::refuse_without_runtime;

use crate::baked::Ledger;
use crate::catalog::{Arch, Artifact, Component, Versions};
use crate::host::Host;
use crate::image_archive::Archived;
use async_trait::async_trait;
use kubestrap_core::config::settings::InstallSettings;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// Where downloads and unpacked files are until they are placed.
pub const CACHE: &str = "/var/cache/kubestrap/install";

/// What a check found of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is as it should be.
    Done,
    /// It will be changed.
    Wanted,
    /// It differs, is not ours, and stays.
    Kept,
    /// It cannot be so here, and that is said.
    Note,
}

/// One thing that a check looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// A path, a program with its version, a setting.
    pub what: String,
    /// How it is.
    pub state: State,
    /// Why.
    pub why: String,
}

impl Item {
    fn new(what: impl Into<String>, state: State, why: impl Into<String>) -> Item {
        Item { what: what.into(), state, why: why.into() }
    }

    fn done(what: impl Into<String>, why: impl Into<String>) -> Item {
        Item::new(what, State::Done, why)
    }

    fn wanted(what: impl Into<String>, why: impl Into<String>) -> Item {
        Item::new(what, State::Wanted, why)
    }

    fn kept(what: impl Into<String>, why: impl Into<String>) -> Item {
        Item::new(what, State::Kept, why)
    }

    fn note(what: impl Into<String>, why: impl Into<String>) -> Item {
        Item::new(what, State::Note, why)
    }
}

/// A verified file that waits for its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Whose it is.
    pub component: Component,
    /// Where it waits.
    pub from: PathBuf,
    /// Its path on the machine.
    pub to: String,
    /// Permission bits.
    pub mode: u32,
    /// Its SHA-256.
    pub sha256: String,
}

/// Where files come from.
#[async_trait(?Send)]
pub trait Supply {
    /// Refuses what can be known before anything is fetched: a bundle for other versions or machines.
    fn check(&self, artifacts: &[Artifact]) -> Outcome<()>;
    /// Fetches, verifies and unpacks these artifacts below the cache folder.
    async fn stage(&self, artifacts: &[Artifact], cache: &Path) -> Outcome<Vec<Staged>>;
    /// Copies these image archives of the bundle into the folder; returns them when all of them were verified.
    fn stage_archives(&self, files: &[&str], folder: &Path) -> Outcome<Vec<PathBuf>>;
    /// Where an artifact comes from, for the bake manifest.
    fn origin(&self, artifact: &Artifact) -> String;
}

/// Whose container runtime the machine gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runtime {
    /// Ours, of the wanted version.
    Ours,
    /// The one at this path; its version when it could be asked.
    Kept {
        /// Its program.
        path: String,
        /// Without `v`.
        version: Option<String>,
    },
}

/// One installation.
pub struct Job<'a> {
    /// The machine.
    pub host: Host,
    /// What is wanted.
    pub settings: InstallSettings,
    /// Its versions.
    pub versions: Versions,
    /// Its architecture.
    pub arch: Arch,
    /// The released files of the components that are installed.
    pub artifacts: Vec<Artifact>,
    /// The image archives of the bundle.
    pub images: Vec<Archived>,
    /// Whose containerd.
    pub runtime: Runtime,
    /// Whether files that are not ours are overwritten.
    pub replace: bool,
    /// What was placed earlier, and is now.
    pub ledger: RefCell<Ledger>,
    /// Where files come from.
    pub supply: &'a dyn Supply,
    /// This program's version, and the time as RFC 3339.
    pub by: (String, String),
}

/// One step.
#[async_trait(?Send)]
pub trait Step {
    /// Its name, kebab-case.
    fn name(&self) -> &'static str;
    /// What it is for.
    fn describe(&self) -> &'static str;
    /// Looks, and changes nothing.
    async fn check(&self, job: &Job<'_>) -> Outcome<Vec<Item>>;
    /// Makes everything that the check wants so.
    async fn apply(&self, job: &Job<'_>) -> Outcome<()>;
}

/// The steps in their order.
pub fn all() -> Vec<Box<dyn Step>> {
    vec![
        Box::new(memory::ControlGroups),
        Box::new(memory::Swap),
        Box::new(kernel::Modules),
        Box::new(kernel::Sysctls),
        Box::new(programs::Programs),
        Box::new(containerd::Configuration),
        Box::new(units::Units),
        Box::new(services::Services),
        Box::new(images::Images),
        Box::new(manifest::Written),
    ]
}

/// What became of a step, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The step.
    pub step: &'static str,
    /// What it is for.
    pub describe: &'static str,
    /// What its check found before anything was changed, or why it could not look.
    pub found: Outcome<Vec<Item>>,
}

impl Row {
    /// Whether something is to be changed.
    pub fn is_wanted(&self) -> bool {
        self.found.as_ref().is_ok_and(|items| items.iter().any(|item| item.state == State::Wanted))
    }
}

/// What an installation would do: the checks alone.
pub async fn plan(job: &Job<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for step in all() {
        rows.push(Row { step: step.name(), describe: step.describe(), found: step.check(job).await });
    }
    rows
}

/// Carries the steps out, in their order, and tells each when it is done. A check that fails, or still wants something
/// after its step was applied, ends the installation.
pub async fn carry_out(job: &Job<'_>, tell: &mut dyn FnMut(&Row)) -> Outcome<Vec<Row>> {
    tidy_up(job)?;
    let mut rows = Vec::new();
    for step in all() {
        let mut items = step.check(job).await?;
        if items.iter().any(|item| item.state == State::Wanted) {
            step.apply(job).await?;
            // What of an archive is somebody else's is known only when it was unpacked.
            let kept = settled(&*step, job).await?.into_iter().filter(|item| item.state == State::Kept);
            let new: Vec<Item> = kept.filter(|item| !items.contains(item)).collect();
            items.extend(new);
        }
        let row = Row { step: step.name(), describe: step.describe(), found: Ok(items) };
        tell(&row);
        rows.push(row);
    }
    Ok(rows)
}

/// Removes what a killed installation left half written beside files that this one may have no reason to write.
fn tidy_up(job: &Job<'_>) -> Outcome<()> {
    use crate::catalog::{Member, placements};
    let texts = [containerd::texts(job), units::texts(job), vec![kernel::modules_text(job), kernel::sysctls_text(job)]];
    let mut paths: Vec<String> = texts.concat().into_iter().map(|text| text.path).collect();
    paths.extend([crate::baked::MANIFEST, memory::FSTAB, services::STARTED_WITH].map(str::to_owned));
    for placement in Component::ALL.into_iter().flat_map(placements) {
        let inside = if placement.member == Member::TopLevel { "/x" } else { "" };
        paths.push(format!("{}{inside}", placement.to));
    }
    paths.extend([format!("{CACHE}/x"), format!("{}/x", units::WANTS)]);
    job.host.sweep_beside(&paths)
}

/// What the check says after the step was applied: nothing is wanted any more.
async fn settled(step: &dyn Step, job: &Job<'_>) -> Outcome<Vec<Item>> {
    let items = step.check(job).await?;
    match items.iter().find(|item| item.state == State::Wanted) {
        None => Ok(items),
        Some(item) => {
            let why = format!("it was applied, and still: {}: {}", item.what, item.why);
            Err(Failure::new(Cause::ToolFailed, format!("carry out the step {}", step.name()), why))
        }
    }
}

/// Whose containerd the machine gets. One that somebody else installed is kept unless the configuration says
/// otherwise.
pub async fn runtime(host: &Host, settings: &InstallSettings) -> Outcome<Runtime> {
    use kubestrap_core::config::settings::WhoseContainerd;
    let other = if settings.containerd == Some(WhoseContainerd::Install) { None } else { theirs(host, "containerd")? };
    let Some(path) = other else {
        if settings.containerd == Some(WhoseContainerd::Keep) {
            let why = format!("there is none in {}", ELSEWHERE.join(", "));
            let failure = Failure::new(Cause::Configuration, "keep the machine's containerd", why);
            return Err(failure.advise("install one, or remove `install.containerd: keep`"));
        }
        return Ok(Runtime::Ours);
    };
    let version = if host.is_live() {
        let said = host.run(&[&path, "--version"], containerd::QUICK).await?.well("ask containerd for its version")?;
        containerd::version_in(&said)
    } else {
        None
    };
    Ok(Runtime::Kept { path, version })
}

/// Where packages put programs; ours are below /usr/local.
const ELSEWHERE: &[&str] = &["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// A program of this name that is not ours.
pub(crate) fn theirs(host: &Host, name: &str) -> Outcome<Option<String>> {
    for folder in ELSEWHERE {
        let path = format!("{folder}/{name}");
        if host.followed(&path)?.is_file() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The components that are installed: of a machine with a containerd of its own neither that nor the runc it came with.
pub fn components(host: &Host, runtime: &Runtime) -> Outcome<Vec<Component>> {
    let kept = matches!(runtime, Runtime::Kept { .. });
    let keep_runc = kept && theirs(host, "runc")?.is_some();
    let is_kept = |component: &Component| match component {
        Component::Containerd => kept,
        Component::Runc => keep_runc,
        _ => false,
    };
    Ok(Component::ALL.into_iter().filter(|component| !is_kept(component)).collect())
}
