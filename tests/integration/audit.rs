//! What the secrets audit works with: the secrets that are looked for, and a record of what is executed.

use crate::process::programs;
use crate::world::Machine;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Secrets to look for, as they are and as base64, each with its kind.
#[derive(Default)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// One more secret; the same one again is fine.
    pub fn add(&mut self, kind: &str, text: &str) {
        assert!(text.len() >= 12, "{kind}: {text:?} is found by accident");
        self.0.entry(text.to_owned()).or_insert(kind.to_owned());
        self.0.entry(base64(text)).or_insert(format!("{kind} (base64)"));
    }

    /// All of them.
    pub fn texts(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }

    /// How many secrets of a kind are known.
    pub fn count(&self, kind: &str) -> usize {
        self.0.values().filter(|known| *known == kind).count()
    }

    /// The kind of the secret that these bytes contain.
    pub fn found_in(&self, bytes: &[u8]) -> Option<&str> {
        let text = String::from_utf8_lossy(bytes);
        self.0.iter().find(|(secret, _)| text.contains(secret.as_str())).map(|(_, kind)| kind.as_str())
    }

    /// Asserts that none is there. The text around it is shown, for that says which code wrote it.
    #[track_caller]
    pub fn absent(&self, place: &str, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        if let Some(kind) = self.found_in(bytes) {
            panic!("{place} contains a secret: {kind}\n{}", String::from_utf8_lossy(bytes).replace('\0', " "));
        }
    }
}

/// Base64 (RFC 4648) without padding, so that it is found in front of more.
fn base64(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.as_bytes().chunks_exact(3).flat_map(|three| {
        let bits = (u32::from(three[0]) << 16) | (u32::from(three[1]) << 8) | u32::from(three[2]);
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[((bits >> shift) & 63) as usize]))
    });
    digits.collect()
}

/// Puts a recorder in front of every program that the agent starts on a machine. Unlike a look at `/proc` now and then
/// it misses nothing, however short the program runs.
pub struct Execs {
    folder: PathBuf,
}

/// A program that was executed.
pub struct Exec {
    /// Its name and arguments.
    pub line: String,
    /// Its environment.
    pub environment: String,
    /// The command line of whoever started it: the agent, or the wrapper of a job.
    pub parent: String,
    /// The wrapper's environment; empty when the agent itself started it.
    pub wrapper_environment: String,
    /// Its `/proc/self/limits`.
    pub limits: String,
    /// Its `/proc/self/coredump_filter`.
    pub dumped: String,
    /// kubeadm's documents as they were, with their modes.
    pub documents: Vec<(String, u32)>,
}

impl Execs {
    /// Records into a folder, which must be outside of the machine.
    pub fn of(machine: &Machine, folder: PathBuf) -> Execs {
        std::fs::create_dir(&folder).expect("mkdir");
        let documents = machine.path("/var/lib/kubestrap/kubeadm").display().to_string();
        for name in ["kubeadm", "kubelet"] {
            let program = programs().join(name);
            // Named at the end, so that half a record is never read.
            let script = format!(
                "mine=$(mktemp -d {folder}/{name}.XXXXXXXX) || exit 99\n\
                 cd $mine || exit 99\n\
                 tr '\\0' ' ' < /proc/$$/cmdline > line; cat /proc/$$/environ > environment\n\
                 tr '\\0' ' ' < /proc/$PPID/cmdline > parent\n\
                 grep -q ' job --dir' parent && cat /proc/$PPID/environ > wrapper\n\
                 cat /proc/$$/limits > limits; cat /proc/$$/coredump_filter > dumped\n\
                 [ -d {documents} ] && cp -a {documents} documents 2> /dev/null\n\
                 cd / && mv $mine $mine.whole || exit 99\n\
                 exec {program} \"$@\"",
                folder = folder.display(),
                program = program.display(),
            );
            machine.tool(name, &script);
        }
        Execs { folder }
    }

    /// Everything that was executed so far.
    pub fn all(&self) -> Vec<Exec> {
        let entries = std::fs::read_dir(&self.folder).expect("folder").flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|end| end == "whole")).map(|path| read(&path)).collect()
    }
}

fn read(folder: &Path) -> Exec {
    let text = |name: &str| {
        let bytes = std::fs::read(folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let documents = std::fs::read_dir(folder.join("documents")).into_iter().flatten().flatten().map(|entry| {
        let mode = entry.metadata().expect("stat").mode() & 0o777;
        (std::fs::read_to_string(entry.path()).expect("a document"), mode)
    });
    Exec {
        line: text("line"),
        environment: text("environment"),
        parent: text("parent"),
        wrapper_environment: text("wrapper"),
        limits: text("limits"),
        dumped: text("dumped"),
        documents: documents.collect(),
    }
}

impl Exec {
    /// Asserts that no secret is in an argument or in an environment, its own or its wrapper's.
    #[track_caller]
    pub fn is_clean(&self, secrets: &Secrets) {
        secrets.absent("the arguments of a program", &self.line);
        secrets.absent("the arguments of a wrapper", &self.parent);
        secrets.absent(&format!("the environment of {}", self.line), &self.environment);
        secrets.absent(&format!("the environment of {}", self.parent), &self.wrapper_environment);
    }
}

/// The secret half of a bootstrap token in a text, wherever it stands.
pub fn token_in(text: &str) -> Option<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.'));
    let mut tokens = words.filter(|word| word.len() == 23 && word.as_bytes()[6] == b'.');
    tokens.next().map(|token| token[7..].to_owned())
}

/// A file, folder or link with its permissions.
pub struct Entry {
    /// Where.
    pub path: PathBuf,
    /// Permission bits, with set-uid and the like.
    pub mode: u32,
    /// What a file contains.
    pub body: Vec<u8>,
}

/// Everything below a folder, except symbolic links and sockets.
pub fn below(folder: &Path) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, data) = (entry.path(), entry.metadata().expect("stat"));
            if !data.is_dir() && !data.is_file() {
                continue;
            }
            let body = if data.is_file() { std::fs::read(&path).expect("read") } else { Vec::new() };
            if data.is_dir() {
                folders.push(path.clone());
            }
            found.push(Entry { path, mode: data.mode() & 0o7777, body });
        }
    }
    found
}

/// Whatever below a folder others than its owner may read, write or enter; set-uid bits too.
pub fn open_to_others(folder: &Path) -> Vec<String> {
    let open = below(folder).into_iter().filter(|entry| entry.mode & 0o7077 != 0);
    open.map(|entry| format!("{} {:o}", entry.path.display(), entry.mode)).collect()
}

#[test]
fn the_audit_finds_what_it_looks_for() {
    let mut secrets = Secrets::default();
    secrets.add("token", "0123456789abcdef");
    assert_eq!(secrets.found_in(b"--token abcdef.0123456789abcdef"), Some("token"));
    assert_eq!(secrets.found_in(b"token-secret: MDEyMzQ1Njc4OWFiY2RlZg=="), Some("token (base64)"));
    assert_eq!(secrets.found_in(b"\xff\xfe0123456789abcde"), None);
    assert_eq!(token_in("kubeadm join --token abcdef.0123456789abcdef \\").as_deref(), Some("0123456789abcdef"));
    let world = crate::world::World::new();
    let machine = world.master("m1");
    let execs = Execs::of(&machine, world.path("execs"));
    let mut command = std::process::Command::new(machine.path("/opt/bin/kubelet"));
    command.arg("--version").env("LEAK", "0123456789abcdef");
    crate::process::finish(&mut command).expect(0).says(&["Kubernetes v"]);
    let seen = execs.all();
    assert!(seen.len() == 1 && seen[0].line.contains("kubelet --version"), "{:?}", seen[0].line);
    assert_eq!(secrets.found_in(seen[0].environment.as_bytes()), Some("token"));
}
