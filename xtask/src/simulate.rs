//! `cargo xtask simulate`: builds the simulator optimised, with all that debug builds check, and starts it.

use crate::process::{cargo, check};
use clap::Args;
use std::io;

/// Many seeds of a simulated world, or the whole story of one; `cargo xtask simulate --help` has the options.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Simulate {
    /// Passed on.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Simulate {
    /// Builds and runs it.
    pub fn run(self) -> io::Result<()> {
        let mut command = cargo(&["run", "--quiet", "--profile", "sim", "--package", "kubestrap-simulate", "--"]);
        check(command.args(&self.arguments))
    }
}
