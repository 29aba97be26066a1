//! `cargo xtask units`: what the repository ships beside the program, judged by the programs that will read it, on any
//! Debian machine and without becoming root: systemd-analyze, cloud-init's schema, Python's email package, kubestrap.
//!
//! Each judge must also refuse something bad first. One that refuses nothing (a cloud-init without its schema library
//! says nothing and succeeds) would make this a check that cannot fail.

use crate::process::{build, programs, workspace};
use clap::Args;
use kubestrap_lab::command::{Finished, finish, program, run};
use kubestrap_lab::shipped::{self, START_SCRIPT, TAKE_APART, USER_DATA_LIMIT};
use kubestrap_lab::tree::write as put;
use kubestrap_lab::{Result, attempted, fail};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The one whose number is recorded; other versions weigh more and other directives.
const SYSTEMD: &str = "252";
/// Where distributions have the units that ours are ordered by.
const UNITS: &str = "usr/lib/systemd/system";
/// The interpreter that Debian's Python packages are for; there may be others in PATH.
const PYTHON: &str = "/usr/bin/python3";
/// As kubeadm's packages have it, for our drop-in to have something to change.
const KUBELET: &str = "[Unit]\nDescription=kubelet\n[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\n";
/// Prints the top-level keys that any module of cloud-init knows: its own checker lets unknown ones pass.
const KNOWN_KEYS: &str = "import json, os, cloudinit.config as c\n\
    schema = json.load(open(os.path.join(os.path.dirname(c.__file__), 'schemas', 'schema-cloud-config-v1.json')))\n\
    print(*sorted({key for one in schema['$defs'].values() for key in one.get('properties', {})}), sep='\\n')";
/// Prints the top-level keys of a cloud-config.
const KEYS: &str = "import sys, yaml; print(*yaml.safe_load(open(sys.argv[1])), sep='\\n')";

/// Options of `units`.
#[derive(Args)]
pub struct UnitsArgs {
    /// The program that judges configurations; built from this checkout when absent.
    #[arg(long)]
    kubestrap: Option<PathBuf>,
    /// Debian's package cloud-init, unpacked with the Python packages it needs, for machines where it is not installed.
    #[arg(long, value_name = "FOLDER", default_value = "target/cloud-init")]
    cloud_init: PathBuf,
}

impl UnitsArgs {
    /// Judges everything.
    pub fn run(self) -> Result<()> {
        let judges = Judges::find(&workspace().join(&self.cloud_init))?;
        let kubestrap = match self.kubestrap {
            Some(path) => std::path::absolute(path)?,
            None => {
                build()?;
                programs()?.join("kubestrap")
            }
        };
        let root = attempted(tempfile::tempdir(), "make a folder for a machine's root")?;
        units(root.path())?;
        exposure(root.path())?;
        folders(root.path())?;
        judges.can_refuse(root.path())?;
        let files = shipped::user_data()?;
        for (name, text) in &files {
            attempted(judges.user_data(&kubestrap, name, text), format!("accept cloud-init/{name}"))?;
        }
        println!("cloud-init/: {} files are what they should be", files.len());
        Ok(())
    }
}

fn shipped_text(name: &str) -> Result<String> {
    let path = shipped::folder("systemd").join(name);
    attempted(std::fs::read_to_string(&path), format!("read {}", path.display()))
}

/// A root with this machine's units and ours is verified, and a broken unit of ours is not.
fn units(root: &Path) -> Result<()> {
    let place = root.join(UNITS);
    std::fs::create_dir_all(&place)?;
    run(Command::new("cp").arg("-r").arg(Path::new("/").join(UNITS).join(".")).arg(&place))?;
    for name in ["kubestrap", "kubelet"] {
        put(&root.join("usr/bin").join(name), "#!/bin/sh\n", 0o755)?;
    }
    put(&place.join("kubelet.service"), KUBELET, 0o644)?;
    let drop_in = "kubelet.service.d/20-kubestrap.conf";
    put(&place.join(drop_in), &shipped_text(drop_in)?, 0o644)?;
    let unit = shipped_text("kubestrap.service")?;
    for (broken, complaint) in
        [(unit.replace("WatchdogSec=", "WatchdogSek="), "WatchdogSek"), (unit.replace("/usr/bin/", "/no/"), "/no/")]
    {
        put(&place.join("kubestrap.service"), &broken, 0o644)?;
        if !complaints(root)?.contains(complaint) {
            return fail(format!(
                "systemd-analyze verify says nothing about {complaint} in a unit: it cannot be relied on"
            ));
        }
    }
    put(&place.join("kubestrap.service"), &unit, 0o644)?;
    let words = complaints(root)?;
    if !words.is_empty() {
        return fail(format!("systemd-analyze verify complains about the units in systemd/:\n{words}"));
    }
    println!("systemd/: systemd-analyze verify has no complaints");
    Ok(())
}

/// What is said of our units; other packages' are not ours to judge.
fn complaints(root: &Path) -> Result<String> {
    let mut command = program("systemd-analyze", &["verify", "--man=no", "--recursive-errors=no", "--root"]);
    let Finished { code, stdout, stderr } = finish(command.arg(root).args(["kubestrap.service", "kubelet.service"]))?;
    let said = format!("{stdout}{stderr}");
    let ours = said.lines().filter(|line| line.contains("kubestrap") || line.contains("kubelet"));
    let ours = ours.collect::<Vec<_>>().join("\n");
    // What it fails for without a word of ours is about the whole.
    if code == Some(0) || !ours.is_empty() { Ok(ours) } else { Ok(format!("it failed: {said}")) }
}

/// The sandbox is exactly as strong as systemd/README.md says: neither weaker, nor stronger and nobody noted it.
fn exposure(root: &Path) -> Result<()> {
    let most = shipped::exposure()?;
    let version = run(&mut program("systemd-analyze", &["--version"]))?;
    if version.split_whitespace().nth(1) != Some(SYSTEMD) {
        let name = version.lines().next().unwrap_or_default();
        println!("systemd/: the exposure is not compared: it is recorded for systemd {SYSTEMD}, this is {name}");
        return Ok(());
    }
    let within = |tenths: u32| {
        let limit = format!("--threshold={tenths}");
        let mut command = program("systemd-analyze", &["security", "--offline=yes", "--no-pager", &limit, "--root"]);
        finish(command.arg(root).arg("kubestrap.service"))
    };
    let number = format!("{}.{}", most / 10, most % 10);
    within(most)?.success(format!("stay within an exposure of {number}, which systemd/README.md promises"))?;
    if within(most.saturating_sub(1))?.code == Some(0) {
        return fail(format!("the exposure of kubestrap.service is below {number}: write that into systemd/README.md"));
    }
    println!("systemd/: the exposure of kubestrap.service is {number}");
    Ok(())
}

/// The folders are made, and closed to others.
fn folders(root: &Path) -> Result<()> {
    put(&root.join("usr/lib/tmpfiles.d/kubestrap.conf"), &shipped_text("kubestrap.tmpfiles.conf")?, 0o644)?;
    let root_user = std::fs::metadata("/proc/self")?.uid() == 0;
    let mut command = if root_user {
        Command::new("systemd-tmpfiles")
    } else {
        program("unshare", &["--user", "--map-root-user", "systemd-tmpfiles"])
    };
    run(command.arg("--root").arg(root).args(["--create", "kubestrap.conf"]))?;
    for (folder, mode) in
        [("var/lib/kubestrap", 0o700), ("etc/kubestrap", 0o755), ("etc/kubernetes", 0o755), ("etc/containerd", 0o755)]
    {
        let path = root.join(folder);
        let is = attempted(std::fs::metadata(&path), format!("find {folder}, which tmpfiles should have made"))?;
        if is.mode() & 0o7777 != mode {
            return fail(format!("tmpfiles made {folder} with mode {:o} instead of {mode:o}", is.mode() & 0o7777));
        }
    }
    println!("systemd/: systemd-tmpfiles makes the folders");
    Ok(())
}

/// The programs that read user-data.
struct Judges {
    cloud_init: PathBuf,
    /// Where its Python packages are, when it is unpacked and not installed.
    packages: Option<PathBuf>,
}

impl Judges {
    /// All that is needed, or everything that is missing at once.
    fn find(unpacked: &Path) -> Result<Judges> {
        let installed = Path::new("/usr/bin/cloud-init");
        let judges = if installed.exists() {
            Judges { cloud_init: installed.into(), packages: None }
        } else {
            let packages = unpacked.join("usr/lib/python3/dist-packages");
            Judges { cloud_init: unpacked.join("usr/bin/cloud-init"), packages: Some(packages) }
        };
        let mut missing = Vec::new();
        let mut need = |there: bool, text: String| {
            if !there {
                missing.push(text);
            }
        };
        need(runs(&mut program("systemd-analyze", &["--version"])), "systemd-analyze: install `systemd`".to_owned());
        need(runs(&mut judges.python(&["-c", "import yaml"])), format!("{PYTHON} with PyYAML: install `python3-yaml`"));
        let text = format!(
            "cloud-init: install `cloud-init`, or unpack its package into {} as .ci/run does, which leaves this \
             machine's boot alone",
            unpacked.display()
        );
        need(runs(judges.python(&[]).arg(&judges.cloud_init).arg("--version")), text);
        if missing.is_empty() { Ok(judges) } else { fail(format!("missing:\n  {}", missing.join("\n  "))) }
    }

    fn python(&self, arguments: &[&str]) -> Command {
        let mut command = program(PYTHON, arguments);
        if let Some(packages) = &self.packages {
            command.env("PYTHONPATH", packages);
        }
        command
    }

    fn schema(&self, file: &Path) -> Result<Finished> {
        finish(self.python(&[]).arg(&self.cloud_init).args(["schema", "--config-file"]).arg(file))
    }

    fn can_refuse(&self, folder: &Path) -> Result<()> {
        let file = folder.join("bad.cloud-config");
        put(&file, "#cloud-config\nruncmd: 5\n", 0o600)?;
        if self.schema(&file)?.code == Some(0) {
            return fail("`cloud-init schema` accepts `runcmd: 5`: is python3-jsonschema there?");
        }
        Ok(())
    }

    /// The file is taken apart as cloud-init does; each reader accepts its part, in the form in which it gets it.
    fn user_data(&self, kubestrap: &Path, name: &str, text: &str) -> Result<()> {
        if text.len() > USER_DATA_LIMIT {
            return fail(format!("it has {} bytes, and EC2 takes {USER_DATA_LIMIT}", text.len()));
        }
        let folder = attempted(tempfile::tempdir(), "make a folder")?;
        let file = folder.path().join(name);
        let part = |suffix: &str| folder.path().join(format!("{name}.{suffix}"));
        put(&file, text, 0o600)?;
        run(self.python(&["-c", TAKE_APART]).arg(&file))?;
        if let Ok(brought) = std::fs::read_to_string(part("start"))
            && brought
                != attempted(
                    std::fs::read_to_string(shipped::folder("cloud-init").join(START_SCRIPT)),
                    "read start.sh",
                )?
        {
            return fail("its script is not cloud-init/start.sh: copy that");
        }
        let machine = folder.path().join("machine");
        let mut command = Command::new(kubestrap);
        command.arg("--root").arg(&machine).args(["config", "check"]);
        // What is set here, or for a lab, says nothing about the file.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"KUBESTRAP_")) {
            command.env_remove(name);
        }
        if text.starts_with("#cloud-config") {
            // cloud-init writes it there.
            put(&machine.join("etc/kubestrap/config.yaml"), &std::fs::read_to_string(part("ours"))?, 0o600)?;
        } else {
            command.arg("--user-data").arg(&file);
        }
        run(&mut command)?;
        let cloud_config = part("cloud-config");
        if cloud_config.exists() {
            self.schema(&cloud_config)?.success("pass cloud-init's schema")?;
            self.knows_its_keys(&cloud_config)?;
        }
        Ok(())
    }

    fn knows_its_keys(&self, file: &Path) -> Result<()> {
        let known = run(&mut self.python(&["-c", KNOWN_KEYS]))?;
        let known: BTreeSet<&str> = known.lines().collect();
        let keys = run(self.python(&["-c", KEYS]).arg(file))?;
        match keys.lines().find(|key| !known.contains(key)) {
            Some(key) => fail(format!("cloud-init has no module for the key {key:?}")),
            None => Ok(()),
        }
    }
}

fn runs(command: &mut Command) -> bool {
    finish(command).is_ok_and(|done| done.code == Some(0))
}
