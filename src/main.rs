//! kubestrap: turns a bare machine into a Kubernetes node, and keeps it a good one.
//!
//! `cli` holds the composition roots, `adapters` the only code that touches the world, `observe` what people see.
//! All logic is in `kubestrap-core`.

mod adapters;
mod cli;
mod observe;

use std::process::ExitCode;

fn main() -> ExitCode {
    adapters::memory::never_dump();
    // A panic is a defect of ours and ends the process: one line, exit 1, and systemd starts it again.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("kubestrap: internal error: {}", panic.to_string().replace('\n', " "));
        std::process::exit(1);
    }));
    ExitCode::from(cli::main() as u8)
}
