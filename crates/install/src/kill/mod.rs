//! Kills an installation at its n-th change, in the process of the test: the panic passes by everything that would have
//! tidied up after an error, and nothing of the program holds files whose end is tidied up by dropping them.

mod archives;
mod machine;
mod steps;
mod tests;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which change is not made any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The n-th, from 0.
    Before(usize),
    /// The n-th, after a part of it.
    Within(usize),
    Never,
}

/// One change that was come to.
#[derive(Debug, Clone)]
pub(crate) struct Passed {
    pub(crate) what: String,
    pub(crate) is_divisible: bool,
}

struct Plan {
    end: End,
    process: u32,
    passed: Vec<Passed>,
    /// Files (device, inode) with content that is not on disk yet.
    unsafe_yet: BTreeSet<(u64, u64)>,
    /// Whether the cache counts as another file system.
    is_cache_elsewhere: bool,
}

thread_local! {
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

struct Killed;

fn with_plan<T>(act: impl FnOnce(&mut Plan) -> T) -> Option<T> {
    PLAN.with_borrow_mut(|plan| plan.as_mut().map(act))
}

/// Works until the end; `None` when it was killed there. What was passed, with the change that was not made.
pub(crate) fn until<T>(end: End, is_cache_elsewhere: bool, work: impl FnOnce() -> T) -> (Option<T>, Vec<Passed>) {
    static PROCESSES: AtomicU32 = AtomicU32::new(1_000_000);
    let process = PROCESSES.fetch_add(1, Ordering::Relaxed);
    let plan = Plan { end, process, passed: Vec::new(), unsafe_yet: BTreeSet::new(), is_cache_elsewhere };
    PLAN.set(Some(plan));
    let worked = catch_unwind(AssertUnwindSafe(work));
    let passed = PLAN.take().map(|plan| plan.passed).unwrap_or_default();
    match worked {
        Ok(worked) => (Some(worked), passed),
        Err(panic) if panic.is::<Killed>() => (None, passed),
        Err(panic) => resume_unwind(panic),
    }
}

/// A change is about to be made.
pub(crate) fn pass(what: &str, half: Option<Box<dyn FnOnce() + '_>>) {
    let is_divisible = half.is_some();
    let ends = with_plan(|plan| {
        let number = plan.passed.len();
        plan.passed.push(Passed { what: what.to_owned(), is_divisible });
        (plan.end == End::Before(number), plan.end == End::Within(number))
    });
    match (ends, half) {
        (Some((true, _)), _) => resume_unwind(Box::new(Killed)),
        (Some((_, true)), Some(half)) => {
            half();
            resume_unwind(Box::new(Killed))
        }
        _ => {}
    }
}

fn identity(data: &std::fs::Metadata) -> (u64, u64) {
    (data.dev(), data.ino())
}

/// Every installation is another process: it does not find the drafts of an earlier one under its own names.
pub(crate) fn process_id() -> u32 {
    with_plan(|plan| plan.process).unwrap_or_else(std::process::id)
}

/// Of an installation that is killed: a shell of root with an umask of 077, without one for the whole process of the tests.
pub(crate) fn umask() -> u32 {
    with_plan(|_| 0o077).unwrap_or(0)
}

/// The file has content that is not on disk yet.
pub(crate) fn wrote(file: &File) {
    with_plan(|plan| plan.unsafe_yet.insert(identity(&file.metadata().expect("a file"))));
}

/// The file is on disk; whether that is only noted down, which saves the disk the work.
pub(crate) fn synced(file: &File) -> bool {
    with_plan(|plan| plan.unsafe_yet.remove(&identity(&file.metadata().expect("a file")))).is_some()
}

/// Refuses what would be lost with the power, and what another file system refuses.
pub(crate) fn renames(from: &Path, to: &Path) -> Result<()> {
    let data = std::fs::symlink_metadata(from)?;
    let refused = with_plan(|plan| {
        assert!(!plan.unsafe_yet.contains(&identity(&data)), "{} has its name before its content", to.display());
        let is_cached = |path: &Path| path.to_string_lossy().contains("/var/cache/");
        plan.is_cache_elsewhere && is_cached(from) != is_cached(to)
    });
    if refused == Some(true) { Err(Error::from(ErrorKind::CrossesDevices)) } else { Ok(()) }
}
