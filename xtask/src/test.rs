//! `cargo xtask test`: everything CI needs.

use crate::process::{SIMULATOR, build, cargo, workspace};
use clap::Args;
use kubestrap_testkit::moto::Moto;
use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};

/// The integration tests wait for processes most of their time.
const TESTS_A_CORE: usize = 2;

/// Options of `test`.
#[derive(Args)]
pub struct Test {
    /// Do not start moto: the tests that need an S3 say that they were left out.
    #[arg(long)]
    no_moto: bool,
    /// Passed to `cargo test`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Default)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Test {
    /// Builds every program, starts moto, runs every test. The last line has the totals.
    pub fn run(self) -> io::Result<()> {
        // The integration tests start the stand-ins they find next to the program.
        build()?;
        let moto = match self.no_moto {
            true => None,
            false => Some(Moto::start(&workspace().join("target/moto"))?),
        };
        let mut totals = Totals::default();
        let mut ended = Vec::new();
        for mut command in self.commands() {
            if let Some(moto) = &moto {
                command.env("KUBESTRAP_TEST_S3", moto.url());
            }
            let mut child = command.stdout(Stdio::piped()).spawn()?;
            if let Some(output) = child.stdout.take() {
                for line in BufReader::new(output).lines() {
                    let line = line?;
                    totals.add(&line);
                    println!("{line}");
                }
            }
            ended.push(child.wait()?);
        }
        println!("{} passed, {} failed, {} skipped", totals.passed, totals.failed, totals.ignored);
        match ended.iter().find(|status| !status.success()) {
            Some(status) => Err(io::Error::other(format!("`cargo test` ended with {status}"))),
            None if totals.failed > 0 => Err(io::Error::other("a test failed")),
            None => Ok(()),
        }
    }

    /// The simulator's tests are minutes of computing, a quarter of it when they are optimised. Whoever asks for some
    /// tests alone gets all of them as they are built without it.
    fn commands(&self) -> Vec<Command> {
        if !self.arguments.is_empty() {
            let mut all = cargo(&["test", "--workspace", "--no-fail-fast"]);
            all.args(&self.arguments);
            return vec![all];
        }
        let mut others = cargo(&["test", "--workspace", "--no-fail-fast"]);
        if std::env::var_os("RUST_TEST_THREADS").is_none() {
            let cores = std::thread::available_parallelism().map_or(2, usize::from);
            others.env("RUST_TEST_THREADS", (TESTS_A_CORE * cores).to_string());
        }
        others.args(SIMULATOR.iter().flat_map(|package| ["--exclude", package]));
        let mut simulator = cargo(&["test", "--profile", "sim", "--no-fail-fast"]);
        simulator.args(SIMULATOR.iter().flat_map(|package| ["--package", package]));
        vec![others, simulator]
    }
}

impl Totals {
    /// Adds a line such as `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; ...`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let words: Vec<&str> = result.split_whitespace().collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<u64>() else { continue };
            match pair[1].trim_end_matches(';') {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_are_added() {
        let mut totals = Totals::default();
        totals.add("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s");
        totals.add("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        totals.add("test something 9 failed");
        assert_eq!((totals.passed, totals.failed, totals.ignored), (15, 2, 1));
    }
}
