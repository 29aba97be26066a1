//! `cargo xtask mutants`: breaks each safety rule on purpose, one edit at a time, and expects a test to notice.
//!
//! It works on a copy of core and sim in `target/mutants`, with a cut-down workspace so that no AWS crate is compiled
//! there; its own target folder is kept between runs. Which edits: `tests/mutants/mutants.yaml`.

use clap::Args;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

/// The packages that are copied: all that the safety rules live in.
const PACKAGES: &[&str] = &["crates/core", "crates/sim"];

/// Plants the bugs of tests/mutants/mutants.yaml and fails when a test does not notice one.
#[derive(Debug, Args)]
pub struct MutantsArgs {
    /// Only the mutant of this name
    #[arg(long)]
    pub only: Option<String>,
}

/// A planted bug.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// The safety rule of the design that it breaks.
    rule: u8,
    name: String,
    file: PathBuf,
    /// Must occur exactly once in the file.
    find: String,
    replace: String,
    /// What would happen with it.
    why: String,
    package: String,
    /// Arguments of `cargo test`: target and filter.
    test: String,
}

/// What became of a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Caught,
    Survived,
    DoesNotApply,
    DoesNotCompile,
}

impl Fate {
    fn text(self) -> &'static str {
        match self {
            Fate::Caught => "caught",
            Fate::Survived => "SURVIVED",
            Fate::DoesNotApply => "DOES NOT APPLY",
            Fate::DoesNotCompile => "DOES NOT COMPILE",
        }
    }
}

/// Runs it from the workspace root. The error is what to print before exit code 1.
pub fn run(args: &MutantsArgs) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no workspace root")?;
    let mutants = load(root)?;
    let chosen: Vec<&Mutant> =
        mutants.iter().filter(|mutant| args.only.as_ref().is_none_or(|name| *name == mutant.name)).collect();
    if chosen.is_empty() {
        return Err(format!("there is no mutant {:?}", args.only.as_deref().unwrap_or_default()));
    }
    let bench = Bench::prepare(root)?;
    bench.healthy(&chosen)?;
    let mut bad = 0;
    for mutant in chosen {
        let began = Instant::now();
        let fate = bench.plant(mutant)?;
        bad += usize::from(fate != Fate::Caught);
        let took = began.elapsed().as_secs();
        println!("rule {}  {:<32} {:<16} {took:>4} s  {}", mutant.rule, mutant.name, fate.text(), mutant.test);
        if fate != Fate::Caught {
            println!("        {}", mutant.why.trim());
        }
    }
    if bad == 0 { Ok(()) } else { Err(format!("{bad} mutants were not caught")) }
}

fn load(root: &Path) -> Result<Vec<Mutant>, String> {
    let path = root.join("tests/mutants/mutants.yaml");
    let text = read(&path)?;
    let mutants: Vec<Mutant> = serde_saphyr::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    match (1..=9).find(|rule| !mutants.iter().any(|mutant| mutant.rule == *rule)) {
        Some(rule) => Err(format!("{}: no mutant breaks safety rule {rule}", path.display())),
        None => Ok(mutants),
    }
}

/// The copy in which bugs are planted.
struct Bench {
    folder: PathBuf,
}

impl Bench {
    fn prepare(root: &Path) -> Result<Bench, String> {
        let folder = root.join("target/mutants/workspace");
        for package in PACKAGES {
            mirror(&root.join(package), &folder.join(package))?;
        }
        // Core's tests read them.
        for folder_of_data in ["examples", "docs"] {
            mirror(&root.join(folder_of_data), &folder.join(folder_of_data))?;
        }
        for file in ["Cargo.lock", "rust-toolchain.toml", "clippy.toml"] {
            put(&folder.join(file), &read(&root.join(file))?)?;
        }
        put(&folder.join("Cargo.toml"), &cut_down(&read(&root.join("Cargo.toml"))?))?;
        Ok(Bench { folder })
    }

    /// The tests must pass without a bug, or their failure proves nothing. A test uses one core.
    fn healthy(&self, chosen: &[&Mutant]) -> Result<(), String> {
        let runs: BTreeSet<(&str, &str)> = chosen.iter().map(|m| (m.package.as_str(), m.test.as_str())).collect();
        let runs = Mutex::new(runs.into_iter());
        let worker = || {
            loop {
                // Not held while the test runs.
                let next = runs.lock().map_err(|error| error.to_string())?.next();
                let Some((package, test)) = next else { return Ok(()) };
                self.passes(package, test)?;
            }
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().try_for_each(|one| one.join().map_err(|_| "a worker panicked".to_owned())?)
        })
    }

    fn passes(&self, package: &str, test: &str) -> Result<(), String> {
        let (passed, output) = self.cargo(package, test, &[])?;
        if !passed {
            return Err(format!("`cargo test -p {package} {test}` fails without any mutant:\n{}", tail(&output)));
        }
        if !output.lines().any(|line| line.starts_with("test ") && line.ends_with("... ok")) {
            return Err(format!("`cargo test -p {package} {test}` runs no test"));
        }
        Ok(())
    }

    fn plant(&self, mutant: &Mutant) -> Result<Fate, String> {
        let path = self.folder.join(&mutant.file);
        let healthy = read(&path)?;
        if healthy.matches(&mutant.find).count() != 1 {
            return Ok(Fate::DoesNotApply);
        }
        put(&path, &healthy.replacen(&mutant.find, &mutant.replace, 1))?;
        let fate = self.judge(mutant);
        put(&path, &healthy)?;
        fate
    }

    fn judge(&self, mutant: &Mutant) -> Result<Fate, String> {
        let (builds, output) = self.cargo(&mutant.package, &mutant.test, &["--no-run"])?;
        if !builds {
            println!("{}", tail(&output));
            return Ok(Fate::DoesNotCompile);
        }
        let (passed, _) = self.cargo(&mutant.package, &mutant.test, &[])?;
        Ok(if passed { Fate::Survived } else { Fate::Caught })
    }

    fn cargo(&self, package: &str, test: &str, more: &[&str]) -> Result<(bool, String), String> {
        // Not env!("CARGO"): rustup's proxy must pin the toolchain, for some dependencies bring a rust-toolchain file.
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let output = Command::new(cargo)
            .current_dir(&self.folder)
            .args(["test", "--offline", "--package", package])
            .args(more)
            .args(test.split_whitespace())
            .env("CARGO_TARGET_DIR", self.folder.with_file_name("target"))
            .env("INSTA_UPDATE", "no")
            // One line differs from build to build: CI, which builds the rest once, says otherwise for that.
            .env("CARGO_INCREMENTAL", "1")
            .env_remove("RUST_BACKTRACE")
            .output()
            .map_err(|error| format!("cannot run cargo: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.success(), text))
    }
}

/// What is compiled anew for each mutant is not optimised, whatever the workspace says: that takes four times as long, and
/// the few seeds of a mutant's test do not bring it back.
const PLANTED: &[&str] = &["kubestrap-core", "kubestrap-sim"];

/// Dependencies in which thousands of seeds spend their time. Not all: an optimised proc macro takes longer to build
/// than it saves.
const HOT: &[&str] = &["base64ct", "der", "jiff", "serde", "serde_core", "serde_json", "sha2", "uuid", "x509-cert"];

/// The workspace's tables without the root package: versions, lints and profiles stay the same, but hot dependencies are
/// optimised and the packages with the bugs are not.
fn cut_down(manifest: &str) -> String {
    let mut text = format!("[workspace]\nresolver = \"3\"\nmembers = {PACKAGES:?}\n\n");
    let mut keep = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            keep = line.starts_with("[workspace.") || line.starts_with("[profile.dev");
            keep &= !PLANTED.iter().any(|name| line == format!("[profile.dev.package.{name}]"));
        }
        if keep {
            text.push_str(line);
            text.push('\n');
        }
    }
    for name in PLANTED {
        text.push_str(&format!("[profile.dev.package.{name}]\nopt-level = 0\n"));
    }
    for name in HOT {
        text.push_str(&format!("[profile.dev.package.{name}]\nopt-level = 2\ndebug = false\n"));
    }
    text
}

/// Copies what has changed, so that cargo rebuilds no more than it must; removes what is gone.
fn mirror(from: &Path, to: &Path) -> Result<(), String> {
    fs::create_dir_all(to).map_err(|error| format!("{}: {error}", to.display()))?;
    let names = |folder: &Path| -> Result<Vec<PathBuf>, String> {
        let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
    };
    for old in names(to)? {
        let source = from.join(old.file_name().unwrap_or_default());
        if !source.exists() {
            let gone = if old.is_dir() { fs::remove_dir_all(&old) } else { fs::remove_file(&old) };
            gone.map_err(|error| format!("{}: {error}", old.display()))?;
        }
    }
    for path in names(from)? {
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            mirror(&path, &target)?;
        } else {
            let body = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            put_bytes(&target, &body)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn put(path: &Path, text: &str) -> Result<(), String> {
    put_bytes(path, text.as_bytes())
}

/// Leaves the file and its time alone when nothing changes.
fn put_bytes(path: &Path, body: &[u8]) -> Result<(), String> {
    if fs::read(path).is_ok_and(|known| known == body) {
        return Ok(());
    }
    fs::write(path, body).map_err(|error| format!("{}: {error}", path.display()))
}

fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_still_applies_and_every_rule_has_one() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("root");
        for mutant in load(root).expect("mutants") {
            let text = read(&root.join(&mutant.file)).expect("file");
            assert_eq!(text.matches(&mutant.find).count(), 1, "{}: `find` must occur exactly once", mutant.name);
            assert_ne!(mutant.find, mutant.replace, "{}", mutant.name);
        }
    }

    #[test]
    fn the_cut_down_workspace_has_no_root_package() {
        let text = cut_down(
            "[workspace]\nmembers = [\"x\"]\n[workspace.lints.rust]\na = 1\n[package]\nname = \"k\"\n[dependencies]\nb = 2\n[profile.dev.package.\"*\"]\ndebug = false\n[profile.dev.package.kubestrap-core]\nopt-level = 1\n",
        );
        assert!(text.contains("[workspace.lints.rust]\na = 1\n") && text.contains("debug = false"));
        // Two tables of one name are refused by cargo.
        assert_eq!(text.matches("[profile.dev.package.kubestrap-core]\nopt-level = 0\n").count(), 1);
        assert!(!text.contains("opt-level = 1"));
        assert!(!text.contains("[package]") && !text.contains("b = 2") && !text.contains("\"x\""));
    }
}
