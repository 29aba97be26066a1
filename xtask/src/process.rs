//! Running cargo and the programs it built.

use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The folder of the programs of the dev profile: this program's own, so that CARGO_TARGET_DIR is respected.
pub fn programs() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    own.parent().map(PathBuf::from).ok_or_else(|| io::Error::other("this program has no folder"))
}

/// `cargo` with these arguments, in the workspace.
pub fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace());
    command
}

/// What only computes: its tests and its program are built optimised, as they take minutes otherwise.
pub const SIMULATOR: [&str; 2] = ["kubestrap-sim", "kubestrap-simulate"];

/// Builds everything but the simulator: the program, the stand-ins and the tests. Whatever needs one of them builds the
/// same, for another selection of packages or targets has other features, and builds the AWS SDKs again.
pub fn build() -> io::Result<()> {
    let mut command = cargo(&["build", "--workspace", "--all-targets"]);
    check(command.args(SIMULATOR.iter().flat_map(|package| ["--exclude", package])))
}

/// Runs a command to its end; an error names it when it fails.
pub fn check(command: &mut Command) -> io::Result<()> {
    let status: ExitStatus = command.status().map_err(|error| {
        io::Error::new(error.kind(), format!("failed to start {}: {error}", command.get_program().display()))
    })?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?} ended with {status}"))) }
}
