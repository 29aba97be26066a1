//! `cargo xtask packaging`: what makes images and machines out of nothing, `packer/` and `cloud-init/start.sh`, judged by
//! packer and shellcheck and run for real, without AWS and without a virtual machine.
//!
//! Each judge must also refuse something bad first, as in `cargo xtask units`.

mod image;
mod server;
mod start;
mod tags;
mod templates;

use crate::process::{build, programs, workspace};
use clap::Args;
use kubestrap_lab::command::{Finished, finish, program, run};
use kubestrap_lab::tree::write as put;
use kubestrap_lab::{Result, attempted, fail};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

/// Options of `packaging`.
#[derive(Args)]
pub struct PackagingArgs {
    /// The program that reads bake manifests; built from this checkout when absent.
    #[arg(long)]
    kubestrap: Option<PathBuf>,
}

impl PackagingArgs {
    /// Judges everything.
    pub fn run(self) -> Result<()> {
        let mut missing = Vec::new();
        for (name, argument) in [("packer", "version"), ("shellcheck", "--version"), ("curl", "--version")] {
            if !finish(&mut program(name, &[argument])).is_ok_and(|done| done.code == Some(0)) {
                missing.push(name);
            }
        }
        if !missing.is_empty() {
            return fail(format!("missing: install {}", missing.join(" ")));
        }
        let kubestrap = match self.kubestrap {
            Some(path) => std::path::absolute(path)?,
            None => {
                build()?;
                programs()?.join("kubestrap")
            }
        };
        scripts()?;
        templates::judge()?;
        tags::judge()?;
        image::judge(&kubestrap)?;
        start::judge()
    }
}

/// Every shell script that is shipped.
fn scripts() -> Result<()> {
    let folder = attempted(tempfile::tempdir(), "make a folder")?;
    let bad = folder.path().join("bad.sh");
    put(&bad, "#!/bin/sh\nrm -r $1\n", 0o644)?;
    let refused = finish(Command::new("shellcheck").arg(&bad))?;
    if refused.code == Some(0) {
        return fail("shellcheck accepts `rm -r $1`: it cannot be relied on");
    }
    let mut files = vec![workspace().join("cloud-init/start.sh")];
    for entry in attempted(std::fs::read_dir(workspace().join("packer/scripts")), "read packer/scripts")? {
        files.push(entry?.path());
    }
    run(Command::new("shellcheck").args(&files))?;
    println!("packer/, cloud-init/: shellcheck has no complaints about {} scripts", files.len());
    Ok(())
}

/// A script of the repository as root, or as what looks like root to it.
fn as_root(script: &str) -> Result<Command> {
    let root_user = attempted(std::fs::metadata("/proc/self"), "ask who I am")?.uid() == 0;
    let mut command =
        if root_user { Command::new("sh") } else { program("unshare", &["--user", "--map-root-user", "sh"]) };
    command.arg(workspace().join(script));
    Ok(command)
}

/// That a program ended with this code and said all of these words.
fn expect(done: &Finished, code: i32, words: &[&str], what: &str) -> Result<()> {
    let said = format!("{}{}", done.stdout, done.stderr);
    if done.code != Some(code) {
        return fail(format!("{what}: ended with {:?} instead of {code}:\n{said}", done.code));
    }
    match words.iter().find(|word| !said.contains(*word)) {
        Some(word) => fail(format!("{what}: did not say {word:?}:\n{said}")),
        None => Ok(()),
    }
}
