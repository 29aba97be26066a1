//! Full and read-only disks. They need mounts, and so root in the initial namespaces; elsewhere the cases say that
//! they are skipped.

use crate::process::PATIENCE;
use crate::world::{Machine, World};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mount that ends with its case.
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts it; none, and a word, when this user cannot.
    pub fn new(place: &Path, arguments: &[&str], source: &str) -> Option<Mount> {
        let mut command = Command::new("mount");
        command.args(arguments).arg(source).arg(place).stderr(Stdio::null());
        if command.status().is_ok_and(|status| status.success()) {
            return Some(Mount(place.to_owned()));
        }
        eprintln!("skipped: this user cannot mount (run it as root)");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Puts a small file system under the machine's state folder.
fn small_state(machine: &Machine) -> Option<Mount> {
    let place = machine.path("/var/lib/kubestrap");
    std::fs::create_dir_all(&place).expect("mkdir");
    Mount::new(&place, &["-t", "tmpfs", "-o", "size=256k,mode=0700"], "none")
}

fn fill(machine: &Machine) {
    use std::io::Write;
    let mut file = std::fs::File::create(machine.path("/var/lib/kubestrap/filler")).expect("filler");
    while file.write_all(&[b'x'; 4096]).is_ok() {}
}

#[test]
fn a_full_disk_is_named_and_waited_for_and_the_journal_survives() {
    let (_world, master) = World::established();
    let worker = _world.worker("w1");
    let Some(_mount) = small_state(&worker) else { return };
    worker.script("faults: [{command: join, phase: preflight, action: fail, times: 1}]");
    let mut agent = worker.start(&["run"]);
    agent.until_logged("the stand-in was told to fail here");
    agent.kill();
    let before = worker.read("/var/lib/kubestrap/journal.jsonl");
    fill(&worker);
    let mut agent = worker.start(&["run", "--once"]);
    agent.until_logged("disk-full");
    agent.until_logged("/var/lib/kubestrap/");
    let now = worker.read("/var/lib/kubestrap/journal.jsonl");
    assert!(now.starts_with(&before), "the journal lost lines:\n{before}\n---\n{now}");
    std::fs::remove_file(worker.path("/var/lib/kubestrap/filler")).expect("remove");
    agent.finished(PATIENCE).expect(0);
    assert_eq!(master.node("w1")["metadata"]["name"], "w1");
    assert!(worker.journal().iter().any(|line| line["entry"] == "completed"));
}

#[test]
fn a_full_disk_at_the_first_start_of_a_master_initialises_nothing() {
    let world = World::new();
    let master = world.master("m1");
    let Some(_mount) = small_state(&master) else { return };
    fill(&master);
    let ended = {
        let mut agent = master.start(&["run", "--once"]);
        agent.until("it names the full disk or ends", || true);
        std::thread::sleep(std::time::Duration::from_secs(2));
        agent.terminate();
        agent.finished(PATIENCE)
    };
    assert!(ended.said().contains("/var/lib/kubestrap") && ended.said().contains("disk-full"), "{}", ended.said());
    assert!(world.object("cluster.json").is_none(), "it claimed the register without an attempt on its disk");
    assert!(master.events().is_empty());
    std::fs::remove_file(master.path("/var/lib/kubestrap/filler")).expect("remove");
    master.run(&["run", "--once"]).expect(0);
}

#[test]
fn a_read_only_root_is_named_with_the_path() {
    let (world, master) = World::established();
    let register = world.register();
    let folder = master.path("/var/lib/kubestrap");
    let source = folder.display().to_string();
    let Some(_bind) = Mount::new(&folder, &["--bind"], &source) else { return };
    let Some(_mount) = Mount::new(&folder, &["-o", "remount,ro,bind"], &source) else { return };
    let before = master.picture("/var/lib/kubestrap");
    master.run(&["run", "--once"]).expect(14).says(&["file-access", "/var/lib/kubestrap", "read-write"]);
    assert!(master.picture("/var/lib/kubestrap") == before);
    // Looking needs no writing.
    master.run(&["status"]).expect(0).says(&["complete: a node of cluster"]);
    master.run(&["plan"]).expect(0);
    assert_eq!(world.register(), register);
}
