//! `cargo xtask fuzz`: replays the corpora of crates/fuzz and mutates them, in process, on the stable toolchain.

use clap::Args;
use kubestrap_fuzz::{Finding, Session, TARGETS, Target};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Replays and mutates; a finding ends it, is made small, and is written below target/fuzz.
#[derive(Debug, Args)]
pub struct Fuzz {
    /// How long to mutate, in seconds, over all targets
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// Only this target
    #[arg(long)]
    pub target: Option<String>,
    /// The mutations: the same seed brings the same ones
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Only this input, once: a finding is told again
    #[arg(long, requires = "target", value_name = "FILE")]
    pub input: Option<PathBuf>,
}

impl Fuzz {
    /// Runs it.
    pub fn run(&self) -> io::Result<()> {
        let targets: Vec<&'static Target> =
            TARGETS.iter().filter(|target| self.target.as_deref().is_none_or(|name| name == target.name)).collect();
        if targets.is_empty() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            return Err(io::Error::other(format!("there is no such target; there are: {}", names.join(", "))));
        }
        if let Some(input) = &self.input {
            let bytes = std::fs::read(input)?;
            targets.iter().for_each(|target| (target.run)(&bytes));
            println!("{}: nothing is broken", input.display());
            return Ok(());
        }
        // Its text is in the finding; the traces of a thousand shrunk inputs are not for anybody.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let result = self.all(&targets);
        std::panic::set_hook(hook);
        result
    }

    fn all(&self, targets: &[&'static Target]) -> io::Result<()> {
        let share = Duration::from_secs(self.seconds) / u32::try_from(targets.len()).unwrap_or(1);
        let mut executions = 0;
        for target in targets {
            let mut session = Session::new(target, self.seed)?;
            session.replay().and_then(|()| session.mutate_for(share)).or_else(|finding| Err(told(&finding)?))?;
            println!("{:<16} {:>9} executions  {}", target.name, session.executions, target.about);
            executions += session.executions;
        }
        println!("{executions} executions, seed {}, nothing is broken", self.seed);
        Ok(())
    }
}

/// Writes the input down and says how to run it again.
fn told(finding: &Finding) -> io::Result<io::Error> {
    let folder = crate::process::workspace().join("target/fuzz");
    std::fs::create_dir_all(&folder)?;
    let file: PathBuf = folder.join(format!("{}.finding", finding.target));
    std::fs::write(&file, &finding.input)?;
    let file: &Path = &file;
    Ok(io::Error::other(format!(
        "{} is broken: {}\n{} bytes: {:?}\nagain: cargo xtask fuzz --target {} --input {}",
        finding.target,
        finding.why,
        finding.input.len(),
        String::from_utf8_lossy(&finding.input),
        finding.target,
        file.display()
    )))
}
