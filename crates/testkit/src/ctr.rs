//! The `ctr` stand-in: the commands on images that kubestrap uses, with the texts and exit codes of ctr 2.1. What is not
//! known here is refused, and credentials among the arguments above all.
//!
//! The machine is known by its socket, `<root>/run/containerd/containerd.sock`; images are rows in a file of the root.
//! `images pull` and `images label` obey the faults of the [`crate::script`] as commands `ctr pull` and `ctr label` with
//! the phase `image`, and are noted in the log of runs.

use crate::files;
use crate::script::{Action, MEMORY, Moment, Script, seconds};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the socket is below the root.
const SOCKET: &str = "/run/containerd/containerd.sock";
/// What a pull gives an image (containerd, `internal/cri/labels`).
const MANAGED: &str = "io.cri-containerd.image=managed";

/// Runs it with these arguments (without the program's name); the exit code.
pub fn main(arguments: &[String]) -> u8 {
    match dispatch(arguments) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("ctr: {error}");
            1
        }
    }
}

fn refuse<T>(why: impl Into<String>) -> io::Result<T> {
    Err(io::Error::other(why.into()))
}

fn dispatch(arguments: &[String]) -> io::Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ["--address", socket, "--namespace", "k8s.io", "images", command @ ..] = words.as_slice() else {
        return refuse(format!("these arguments are not known to the stand-in: {words:?}"));
    };
    let Some(root) = socket.strip_suffix(SOCKET) else { return refuse(format!("{socket} is no socket of a machine")) };
    if !Path::new(socket).exists() {
        return refuse(format!("cannot access socket {socket}: stat {socket}: no such file or directory"));
    }
    let machine = Machine { root: PathBuf::from(format!("{root}/")) };
    match command {
        ["list", filter] => machine.list(filter),
        ["pull", "--hosts-dir", hosts, reference] => {
            if !hosts.starts_with(&format!("{root}/")) {
                return refuse(format!("{hosts} is no folder of this machine"));
            }
            machine.logged("ctr pull", arguments, || machine.label(reference, |_| Some(MANAGED.to_owned())))
        }
        ["label", reference, label] if label.contains('=') => machine
            .logged("ctr label", arguments, || machine.label(reference, |labels| Some(format!("{},{label}", labels?)))),
        other => refuse(format!("these arguments are not known to the stand-in: {other:?}")),
    }
}

struct Machine {
    root: PathBuf,
}

impl Machine {
    fn place(&self) -> PathBuf {
        files::under(&self.root, MEMORY).join("images.json")
    }

    /// The images with their labels.
    fn images(&self) -> BTreeMap<String, String> {
        files::read_text(&self.place()).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    fn list(&self, filter: &str) -> io::Result<()> {
        let Some(wanted) = filter.strip_prefix("name==") else { return refuse(format!("unknown filter {filter}")) };
        println!("REF TYPE DIGEST SIZE PLATFORMS LABELS ");
        for (reference, labels) in self.images().iter().filter(|(reference, _)| *reference == wanted) {
            println!("{reference} application/vnd.oci.image.index.v1+json sha256:0 680.8 KiB linux/amd64 {labels} ");
        }
        Ok(())
    }

    /// Gives an image these labels; none: there is no such image.
    fn label(&self, reference: &str, labels: impl FnOnce(Option<&String>) -> Option<String>) -> io::Result<()> {
        let mut images = self.images();
        let Some(labels) = labels(images.get(reference)) else {
            return refuse(format!("image {reference:?}: not found"));
        };
        println!("{labels}");
        images.insert(reference.to_owned(), labels);
        files::write(&self.place(), serde_json::to_string(&images)?.as_bytes(), 0o600)
    }

    /// Does it with the faults of the script, and notes it in the log of runs.
    fn logged(&self, command: &str, arguments: &[String], work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.log(&json!({"command": command, "event": "start", "argv": arguments}))?;
        let result = self.hindered(command).and_then(|()| work());
        self.log(&json!({"command": command, "event": "end", "code": u8::from(result.is_err())}))?;
        result
    }

    fn hindered(&self, command: &str) -> io::Result<()> {
        let script = Script::load(&self.root)?;
        let Some(fault) = script.take_fault(&self.root, command, "image", Moment::Before)? else { return Ok(()) };
        match fault.action {
            Action::Fail => refuse(
                "failed to resolve image: pull access denied, repository does not exist or may require authorization",
            ),
            Action::Slow => {
                std::thread::sleep(seconds(fault.seconds));
                Ok(())
            }
            Action::Hang => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            Action::Die => refuse("the stand-in for ctr does not know how to die"),
        }
    }

    fn log(&self, event: &serde_json::Value) -> io::Result<()> {
        let path = files::under(&self.root, MEMORY).join("runs.jsonl");
        std::fs::create_dir_all(files::under(&self.root, MEMORY))?;
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(format!("{event}\n").as_bytes())
    }
}
