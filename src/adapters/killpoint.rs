//! Kill points: places between two system calls where a test kills the process.
//!
//! Like the fail points of gofail (etcd) and fail-rs (zincati), but with one action: SIGKILL, which nothing can catch
//! and which runs no destructor. A process reads two variables once:
//!
//! - `KUBESTRAP_TEST_KILL_LOG`: a file to which every crossing is appended, so that a test can enumerate them;
//! - `KUBESTRAP_TEST_KILL_AT`: `POINT:N:PATH`, the crossing to die at: the Nth of this point about this path. One
//!   process dies for each log; a job's wrapper that is started again lives.
//!
//! - `KUBESTRAP_TEST_KILL_PARENT`: when it is set, the process that started this one dies first.
//!
//! Release builds contain nothing of this: [`cross`] is empty there, and CI looks for the variables' names in them.

mod points;

pub use points::Point;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Crosses a point; `subject` is the path it is about, as the adapter knows it.
#[cfg(not(debug_assertions))]
pub fn cross(_point: Point, _subject: &Path) {}

#[cfg(debug_assertions)]
pub use armed::{cross, pass_on};

/// Writes a body. A process that is watched writes it in two halves, with the point between them.
pub fn write_all(file: &mut File, body: &[u8], half: Point, subject: &Path) -> io::Result<()> {
    #[cfg(debug_assertions)]
    if armed::is_watched() {
        let (first, rest) = body.split_at(body.len() / 2);
        file.write_all(first)?;
        cross(half, subject);
        return file.write_all(rest);
    }
    let _ = (half, subject);
    file.write_all(body)
}

#[cfg(debug_assertions)]
mod armed {
    use super::Point;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::collections::BTreeMap;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::{Mutex, OnceLock, PoisonError};

    const AT: &str = "KUBESTRAP_TEST_KILL_AT";
    const LOG: &str = "KUBESTRAP_TEST_KILL_LOG";
    const PARENT: &str = "KUBESTRAP_TEST_KILL_PARENT";

    /// What the environment asks for.
    struct Watch {
        at: Option<(String, u32, PathBuf)>,
        log: Option<PathBuf>,
        crossed: Mutex<BTreeMap<(Point, PathBuf), u32>>,
    }

    fn watch() -> Option<&'static Watch> {
        static WATCH: OnceLock<Option<Watch>> = OnceLock::new();
        let watch = WATCH.get_or_init(|| {
            let (at, log) = (std::env::var(AT).ok(), std::env::var_os(LOG).map(PathBuf::from));
            let at = at.as_deref().map(|text| parse(text).unwrap_or_else(|| panic!("{AT}={text}: not POINT:N:PATH")));
            (at.is_some() || log.is_some()).then(|| Watch { at, log, crossed: Mutex::default() })
        });
        watch.as_ref()
    }

    pub(super) fn parse(text: &str) -> Option<(String, u32, PathBuf)> {
        let mut parts = text.splitn(3, ':');
        Some((parts.next()?.to_owned(), parts.next()?.parse().ok()?, parts.next()?.into()))
    }

    /// Whether crossings are logged, or one of them is deadly.
    pub(super) fn is_watched() -> bool {
        watch().is_some()
    }

    /// Crosses a point; `subject` is the path it is about, as the adapter knows it.
    pub fn cross(point: Point, subject: &Path) {
        let Some(watch) = watch() else { return };
        let count = {
            let mut crossed = watch.crossed.lock().unwrap_or_else(PoisonError::into_inner);
            let count = crossed.entry((point, subject.to_owned())).or_default();
            *count += 1;
            *count
        };
        let dies = watch
            .at
            .as_ref()
            .is_some_and(|(name, n, path)| (name.as_str(), *n, path.as_path()) == (point.name(), count, subject));
        let dies = dies && !watch.log.as_deref().is_some_and(has_a_death);
        if let Some(log) = &watch.log {
            let what = if dies { "died" } else { "crossed" };
            let line = format!("{what}\t{}\t{}\t{count}\t{}\n", std::process::id(), point.name(), subject.display());
            let file = OpenOptions::new().create(true).append(true).open(log);
            // A watched process whose log cannot be written would make a test pass that saw nothing.
            file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap_or_else(|error| panic!("{LOG}: {error}"));
        }
        if dies && std::env::var_os(PARENT).is_some() {
            let _ = kill(Pid::parent(), Signal::SIGKILL);
        }
        if dies {
            let _ = kill(Pid::this(), Signal::SIGKILL);
            // SIGKILL cannot be caught; this is for the instant in which it is on its way.
            loop {
                std::thread::park();
            }
        }
    }

    fn has_a_death(log: &Path) -> bool {
        std::fs::read_to_string(log).is_ok_and(|text| text.lines().any(|line| line.starts_with("died\t")))
    }

    /// Hands the variables to a process that gets no others of our environment.
    pub fn pass_on(command: &mut Command) {
        let variables = [AT, LOG, PARENT].map(|name| (name, std::env::var_os(name)));
        command.envs(variables.into_iter().filter_map(|(name, value)| Some((name, value?))));
    }
}

/// Hands the variables to a process that gets no others of our environment.
#[cfg(not(debug_assertions))]
pub fn pass_on(_command: &mut std::process::Command) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_a_name_of_its_own_and_says_what_is_so() {
        let mut names: Vec<&str> = Point::ALL.iter().map(|point| point.name()).collect();
        let plain = |c: char| c.is_ascii_lowercase() || c == '-' || c == '.';
        assert!(names.iter().all(|name| name.contains('.') && name.chars().all(plain)), "{names:?}");
        assert!(Point::ALL.iter().all(|point| !point.then().is_empty()));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Point::ALL.len());
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_path_may_contain_what_separates() {
        let parsed = armed::parse("draft.synced:2:/store/arn:aws:ec2/report.json");
        assert_eq!(parsed, Some(("draft.synced".to_owned(), 2, "/store/arn:aws:ec2/report.json".into())));
        assert_eq!(armed::parse("draft.synced:x:/a"), None);
    }
}
