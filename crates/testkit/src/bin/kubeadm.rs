//! The kubeadm stand-in; see `kubestrap_testkit::kubeadm`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ExitCode::from(kubestrap_testkit::kubeadm::main(&arguments))
}
