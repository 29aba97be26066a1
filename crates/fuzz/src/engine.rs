//! Replays a corpus and mutates it, in process.

use crate::mutate::mutate;
use crate::targets::Target;
use fastrand::Rng;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An input that takes longer is a finding: a node would be held up by whoever wrote it.
const SLOW: Duration = Duration::from_secs(5);
/// So many attempts to make a finding smaller.
const SHRINKS: usize = 2000;

/// An input that breaks something.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The target.
    pub target: &'static str,
    /// The smallest input that still breaks it.
    pub input: Vec<u8>,
    /// What the panic said.
    pub why: String,
}

/// The committed inputs of a target with their file names, in order.
///
/// # Errors
/// When the folder cannot be read.
pub fn corpus(target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    files.sort();
    let read = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, std::fs::read(path)?))
    };
    files.iter().map(read).collect()
}

/// Runs one target.
pub struct Session {
    target: &'static Target,
    corpus: Vec<(String, Vec<u8>)>,
    rng: Rng,
    /// Inputs so far.
    pub executions: u64,
}

impl Session {
    /// With the target's corpus and this seed.
    ///
    /// # Errors
    /// When there is no corpus.
    pub fn new(target: &'static Target, seed: u64) -> io::Result<Session> {
        let corpus = corpus(target)?;
        if corpus.is_empty() {
            return Err(io::Error::other(format!("{} has no corpus", target.name)));
        }
        Ok(Session { target, corpus, rng: Rng::with_seed(seed), executions: 0 })
    }

    /// Every committed input, unchanged.
    ///
    /// # Errors
    /// With the first that breaks something.
    pub fn replay(&mut self) -> Result<(), Finding> {
        let corpus = self.corpus.clone();
        corpus.iter().try_for_each(|(name, input)| {
            self.one(input).map_err(|finding| Finding { why: format!("{name}: {}", finding.why), ..finding })
        })
    }

    /// Mutated inputs, for so long.
    ///
    /// # Errors
    /// With the first that breaks something, made smaller.
    pub fn mutate_for(&mut self, time: Duration) -> Result<(), Finding> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let (_, input) = &self.corpus[self.rng.usize(..self.corpus.len())];
            let (_, other) = &self.corpus[self.rng.usize(..self.corpus.len())];
            let input = mutate(&mut self.rng, input, other);
            self.one(&input)?;
        }
        Ok(())
    }

    fn one(&mut self, input: &[u8]) -> Result<(), Finding> {
        self.executions += 1;
        let Err(why) = attempt(self.target, input) else { return Ok(()) };
        let (input, why) = smaller(self.target, input.to_vec(), why);
        Err(Finding { target: self.target.name, input, why })
    }
}

/// Runs the target once; what it said when it panicked, or that it was slow.
fn attempt(target: &Target, input: &[u8]) -> Result<(), String> {
    let began = Instant::now();
    let run = target.run;
    catch_unwind(AssertUnwindSafe(|| run(input))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })?;
    let took = began.elapsed();
    if took > SLOW { Err(format!("it took {:.1} s", took.as_secs_f64())) } else { Ok(()) }
}

/// Removes pieces as long as it still breaks.
fn smaller(target: &Target, mut input: Vec<u8>, mut why: String) -> (Vec<u8>, String) {
    let mut size = input.len().div_ceil(2);
    let mut left = SHRINKS;
    while size > 0 && left > 0 {
        let mut at = 0;
        while at < input.len() && left > 0 {
            left -= 1;
            let mut less = input.clone();
            less.drain(at..(at + size).min(input.len()));
            match attempt(target, &less) {
                Err(still) => (input, why) = (less, still),
                Ok(()) => at += size,
            }
        }
        size /= 2;
    }
    (input, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::TARGETS;

    fn breaks(input: &[u8]) {
        assert!(!input.windows(2).any(|pair| pair == b"}{"), "two braces");
    }

    static BROKEN: Target = Target { name: "register", about: "breaks", run: breaks };

    #[test]
    fn a_mutation_that_breaks_a_target_is_found_and_made_small() {
        let mut session = Session::new(&BROKEN, 1).expect("corpus");
        let finding = session.mutate_for(Duration::from_secs(60)).expect_err("a finding");
        assert_eq!((finding.input.as_slice(), finding.why.contains("two braces")), (b"}{".as_slice(), true));
    }

    #[test]
    fn every_target_has_a_corpus_and_a_name_of_its_own() {
        let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        assert!(TARGETS.iter().all(|target| corpus(target).is_ok_and(|corpus| corpus.len() >= 2)), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TARGETS.len());
    }
}
