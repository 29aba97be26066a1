//! The `ctr` stand-in.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ExitCode::from(kubestrap_testkit::ctr::main(&arguments))
}
