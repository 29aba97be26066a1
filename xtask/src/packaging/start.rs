//! `cloud-init/start.sh` against a web server: an archive that is right is unpacked, installed and started; whatever else
//! comes, nothing of it is used.

use super::server::{Answer, Server};
use super::{expect, put};
use crate::process::workspace;
use kubestrap_lab::command::{Finished, finish, program, run};
use kubestrap_lab::{Result, attempted, fail};
use std::path::Path;
use std::process::Command;

/// What is in the archive as the program: it writes down what it is asked for.
const PROGRAM: &str = "#!/bin/sh\necho \"kubestrap $*\" >>\"$CALLS\"\necho 'kubestrap 9.9.9'\n";
/// In the place of systemctl and systemd-tmpfiles.
const SYSTEMD: &str = "#!/bin/sh\necho \"${0##*/} $*\" >>\"$CALLS\"\n";
const DONE: &str = "systemctl daemon-reload\nsystemd-tmpfiles --create kubestrap.conf\nkubestrap install\n\
    systemctl enable --now --no-block kubestrap.service\nkubestrap --version\n";

pub(super) fn judge() -> Result<()> {
    let folder = attempted(tempfile::tempdir(), "make a folder")?;
    let place = folder.path();
    for name in ["systemctl", "systemd-tmpfiles"] {
        put(&place.join("bin").join(name), SYSTEMD, 0o755)?;
    }
    put(&place.join("kubestrap-9.9.9-linux/usr/bin/kubestrap"), PROGRAM, 0o755)?;
    run(program("tar", &["-czf", "archive.tar.gz", "kubestrap-9.9.9-linux/usr/bin/kubestrap"]).current_dir(place))?;
    let archive = attempted(std::fs::read(place.join("archive.tar.gz")), "read the archive")?;
    let sum = run(program("sha256sum", &["archive.tar.gz"]).current_dir(place))?;
    let sum = sum.split_whitespace().next().unwrap_or_default();
    let told = Told { place, sum };

    told.starts(vec![Answer::Whole(archive.clone())], 1)?;
    told.starts(vec![Answer::Status(503), Answer::Status(429), Answer::Whole(archive.clone())], 3)?;
    told.starts(vec![Answer::Half(archive.clone()), Answer::Whole(archive.clone())], 2)?;

    let mut changed = archive.clone();
    if let Some(byte) = changed.last_mut() {
        *byte ^= 1;
    }
    told.refuses(vec![Answer::Whole(changed)], "nothing of it was used", 1)?;
    told.refuses(vec![Answer::Whole(archive[..100].to_vec())], "nothing of it was used", 1)?;
    told.refuses(vec![Answer::Half(archive.clone())], "in 60 attempts", 60)?;
    told.refuses(vec![Answer::Status(503)], "in 60 attempts", 60)?;
    told.refuses(vec![Answer::Status(404)], "404", 1)?;
    told.refuses(vec![Answer::Again], "redirects", 6)?;
    told.pins()?;
    println!("cloud-init/: start.sh installs what has the right checksum, and nothing else");
    Ok(())
}

struct Told<'a> {
    place: &'a Path,
    sum: &'a str,
}

impl Told<'_> {
    fn run(&self, root: &Path, url: &str, pins: &[&str]) -> Result<Finished> {
        let path = format!("{}:/usr/bin:/bin", self.place.join("bin").display());
        let mut command = Command::new("sh");
        command.arg(workspace().join("cloud-init/start.sh")).arg(url).args(pins);
        command.env("PATH", path).env("CALLS", root.join("calls")).env("TMPDIR", root.join("tmp"));
        command.env("KUBESTRAP_START_ROOT", root).env("KUBESTRAP_START_PAUSE", "0");
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "ALL_PROXY", "HTTPS_PROXY"] {
            command.env_remove(proxy);
        }
        finish(&mut command)
    }

    /// A fresh root, one run, and how often the server was asked.
    fn attempt(&self, answers: Vec<Answer>) -> Result<(tempfile::TempDir, Finished, Vec<String>)> {
        let server = Server::start(answers)?;
        let root = attempted(tempfile::tempdir(), "make a folder")?;
        std::fs::create_dir(root.path().join("tmp"))?;
        let url = format!("http://{}/kubestrap-@ARCH@.tar.gz", server.address);
        let (amd64, arm64) = (format!("amd64={}", self.sum), format!("arm64={}", self.sum));
        let done = self.run(root.path(), &url, &[&amd64, &arm64])?;
        if std::fs::read_dir(root.path().join("tmp"))?.next().is_some() {
            return fail("start.sh leaves its download behind");
        }
        Ok((root, done, server.asked()))
    }

    fn starts(&self, answers: Vec<Answer>, times: usize) -> Result<()> {
        let (root, done, asked) = self.attempt(answers)?;
        expect(&done, 0, &["kubestrap 9.9.9 is installed and started"], "start.sh")?;
        let calls = std::fs::read_to_string(root.path().join("calls"))?;
        if calls != DONE {
            return fail(format!("start.sh ran\n{calls}instead of\n{DONE}"));
        }
        let name = if cfg!(target_arch = "x86_64") { "/kubestrap-amd64.tar.gz" } else { "/kubestrap-arm64.tar.gz" };
        if asked != vec![name; times] {
            return fail(format!("start.sh asked for {asked:?} instead of {times} times for {name}"));
        }
        Ok(())
    }

    fn refuses(&self, answers: Vec<Answer>, complaint: &str, times: usize) -> Result<()> {
        let (root, done, asked) = self.attempt(answers)?;
        expect(&done, 1, &[complaint], "start.sh")?;
        nothing_in(root.path())?;
        if asked.len() != times {
            return fail(format!("start.sh asked {} times instead of {times}: {}", asked.len(), done.stderr));
        }
        Ok(())
    }

    /// What stands in the place of a checksum.
    fn pins(&self) -> Result<()> {
        let upper = self.sum.to_uppercase();
        for (pin, complaint) in [
            ("sparc=00".to_owned(), "no checksum for"),
            ("amd64= arm64=".to_owned(), "no checksum for"),
            ("amd64=REPLACE-BY-ITS-SHA256 arm64=REPLACE-BY-ITS-SHA256".to_owned(), "not in hexadecimal digits"),
            (format!("amd64={upper} arm64={upper}"), "not in hexadecimal digits"),
            ("amd64=abc arm64=abc".to_owned(), "3 digits instead of 64"),
        ] {
            let server = Server::start(vec![Answer::Status(500)])?;
            let root = attempted(tempfile::tempdir(), "make a folder")?;
            let pins: Vec<&str> = pin.split(' ').collect();
            let done = self.run(root.path(), &format!("http://{}/a", server.address), &pins)?;
            expect(&done, 1, &[complaint], &format!("start.sh with {pin}"))?;
            if !server.asked().is_empty() {
                return fail(format!("start.sh with {pin} fetched something"));
            }
            nothing_in(root.path())?;
        }
        Ok(())
    }
}

fn nothing_in(root: &Path) -> Result<()> {
    let used = ["calls", "usr"].into_iter().find(|name| root.join(name).exists());
    used.map_or(Ok(()), |name| fail(format!("start.sh used what it refused: there is {name}")))
}
