//! What everyone writes instead: a shell loop around the AWS CLI.

use super::tap::Moment;
use super::world::{SCRIPT, World, executed_at};
use crate::process::check;
use kubestrap_testkit::files;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Version 1, the one in PyPI. Version 2 is not there; it carries its own Python and starts no faster.
const REQUIREMENT: &str = "awscli==1.*";

/// Installs the AWS CLI into a virtual environment of its own (moto's must stay as the tests pin it); its program.
pub fn install(environment: &Path) -> io::Result<PathBuf> {
    let (program, stamp) = (environment.join("bin/aws"), environment.join("installed"));
    // The stamp is written last: a half-finished installation is done again.
    if program.exists() && files::read_text(&stamp).is_ok_and(|text| text == REQUIREMENT) {
        return Ok(program);
    }
    eprintln!("installing {REQUIREMENT} from PyPI into {} ...", environment.display());
    check(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment))?;
    let pip = environment.join("bin/pip");
    check(Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check", REQUIREMENT]))?;
    files::write(&stamp, REQUIREMENT.as_bytes(), 0o644)?;
    Ok(program)
}

/// A running loop, with everything it started in one process group; killed when it is dropped.
pub struct Loop {
    child: Child,
    ran: PathBuf,
}

impl Loop {
    /// Starts the loop: `sleep` seconds between two tries. Its kubeadm is a script that notes when it was executed.
    pub fn start(
        world: &World,
        aws: &Path,
        name: &str,
        endpoint: &str,
        sleep: u32,
        roots: Option<&Path>,
    ) -> io::Result<Self> {
        let folder = world.path(name);
        files::make_folder(&folder, 0o755)?;
        let (aws, key) = (aws.display(), SCRIPT.trim_start_matches('/'));
        let script = format!(
            "while ! {aws} s3 cp --endpoint-url {endpoint} s3://{key} join.sh; do sleep {sleep}; done; bash join.sh"
        );
        let mut command = world.command(Path::new("bash"));
        command.env("PATH", world.recorder(name, "exit 0")?).current_dir(&folder);
        if let Some(roots) = roots {
            command.env("AWS_CA_BUNDLE", roots);
        }
        command.args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Loop { child: command.process_group(0).spawn()?, ran: world.recorded(name) })
    }

    /// The process group: bash, and whatever it runs.
    pub fn group(&self) -> u32 {
        self.child.id()
    }

    /// When kubeadm was executed; `None` while it was not.
    pub fn kubeadm_ran_at(&self) -> Option<Moment> {
        executed_at(&self.ran)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The group is ours alone; errors mean that it is gone already.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}
