//! The kubeadm stand-in: the same commands, documents, checks, files, texts and exit codes as kubeadm 1.36, without
//! containers. `--rootfs` is a prefix here and not a chroot, so that it works without root.

mod certs;
mod component;
mod component_fields;
mod config;
pub mod documents;
mod etcd_client;
mod flags;
mod init;
mod init_api;
mod join;
mod join_control_plane;
mod kubeconfig;
mod kubelet;
mod manifests;
mod preflight;
mod renew;
mod reset;
mod run;
mod token;
mod validation;
mod version;

pub use kubeconfig::Kubeconfig;
pub use kubelet::main as kubelet_main;
pub use run::Run;

use crate::apiserver;
use crate::script::Script;
use std::io;
use std::path::PathBuf;

/// Why kubeadm failed and with which exit code.
#[derive(Debug)]
pub struct Failure {
    /// What is printed after `error: `.
    pub message: String,
    /// Exit code.
    pub code: u8,
}

impl Failure {
    /// A failure with exit code 1, which is what kubeadm 1.36 uses for everything (`util/errors`).
    pub fn new(message: impl Into<String>) -> Self {
        Failure { message: message.into(), code: 1 }
    }

    /// The same failure, said to be of a phase, as the workflow runner does.
    #[must_use]
    pub fn in_phase(self, phase: &str) -> Self {
        Failure { message: format!("error execution phase {phase}: {}", self.message), code: self.code }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::new(error.to_string())
    }
}

/// Runs kubeadm with these arguments (without the program's name); the exit code.
pub fn main(arguments: &[String]) -> u8 {
    match dispatch(arguments) {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!(
                "error: {}\nTo see the stack trace of this error execute with --v=5 or higher",
                failure.message.trim_end()
            );
            failure.code
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<(), Failure> {
    let command = flags::command(arguments)?;
    let parsed = flags::parse(&command, arguments)?;
    let root = parsed.text("rootfs").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let script = Script::load(&root)?;
    match command.as_str() {
        "version" => version::print(&script, parsed.text("output")),
        "config images list" => version::images(&script, &parsed, &root),
        "standin-apiserver" => Ok(apiserver::main(&root, parsed.is_set("detach"))?),
        "init" => logged(Run::new("init", root, script, &parsed)?, arguments, |run| init::main(run, &parsed)),
        "join" => logged(Run::new("join", root, script, &parsed)?, arguments, |run| join::main(run, &parsed)),
        "certs renew all" => logged(Run::new("certs", root, script, &parsed)?, arguments, renew::main),
        "reset" => logged(Run::new("reset", root, script, &parsed)?, arguments, |run| reset::main(run, &parsed)),
        other => Err(Failure::new(format!("unknown command {other:?} for \"kubeadm\""))),
    }
}

fn logged(run: Run, arguments: &[String], work: impl FnOnce(&Run) -> Result<(), Failure>) -> Result<(), Failure> {
    run.log(&serde_json::json!({"event": "start", "argv": arguments}))?;
    let result = work(&run);
    let code = result.as_ref().err().map_or(0, |failure| failure.code);
    run.log(&serde_json::json!({"event": "end", "code": code}))?;
    result
}
