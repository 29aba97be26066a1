//! Whoever can write to the folder that is the store (`file://`): things in it that are no files, and links that lead out
//! of it. Every agent reads and writes there as root.

use super::{Attacker, Case, Ends, Scene, Waits};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Against a worker; masters read and write with the same code.
pub const ATTACKER: Attacker =
    Attacker { who: "who can write to the folder that is the store", scene: Scene::worker, cases: CASES };

const BUNDLE: &str = "join/worker.json";
const FIX: &str = "remove what does not belong there";

/// An object is replaced by a link to a good copy of itself, elsewhere.
fn linked(scene: &Scene, key: &str) {
    let text = std::fs::read_to_string(scene.object(key)).expect("the object");
    scene.link(scene.object(key), scene.bystander("copy.json", &text));
}

/// A folder of the store becomes a link to its good copy elsewhere.
fn folder_linked(scene: &Scene, folder: &str) {
    let elsewhere = scene.bystander("copy/x", "").parent().expect("folder").join("moved");
    let folder = scene.world.store_path(folder);
    std::fs::rename(&folder, &elsewhere).expect("move");
    scene.link(folder, elsewhere);
}

fn fifo(at: &Path) {
    std::fs::remove_file(at).expect("remove");
    let made = std::process::Command::new("mkfifo").arg(at).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
}

const CASES: &[Case] = &[
    Case {
        name: "the bundle is a link to one elsewhere",
        prepare: |scene| linked(scene, BUNDLE),
        answer: Waits,
        cause: "object-rejected",
        says: &["/prod/join/worker.json", "symbolic link", FIX],
    },
    Case {
        name: "the register is a link to one elsewhere",
        prepare: |scene| linked(scene, "cluster.json"),
        answer: Waits,
        cause: "object-rejected",
        says: &["/prod/cluster.json", "symbolic link", FIX],
    },
    Case {
        name: "the bundle is a link to a secret of root",
        prepare: |scene| scene.link(scene.object(BUNDLE), scene.bystander("shadow", "root:$6$secret")),
        answer: Waits,
        cause: "object-rejected",
        says: &["/prod/join/worker.json", "symbolic link"],
    },
    Case {
        name: "a folder of the store is a link to one elsewhere",
        prepare: |scene| folder_linked(scene, "prod/join"),
        answer: Waits,
        cause: "object-rejected",
        says: &["/prod/join is a symbolic link", FIX],
    },
    Case {
        name: "the cluster's folder is a link to one elsewhere",
        prepare: |scene| folder_linked(scene, "prod"),
        answer: Waits,
        cause: "object-rejected",
        says: &["/prod is a symbolic link", FIX],
    },
    Case {
        name: "the bundle is a named pipe that nobody writes to",
        prepare: |scene| fifo(&scene.object(BUNDLE)),
        answer: Waits,
        cause: "object-rejected",
        says: &["/prod/join/worker.json", "not a regular file", FIX],
    },
    Case {
        name: "the bundle is a socket",
        prepare: |scene| {
            std::fs::remove_file(scene.object(BUNDLE)).expect("remove");
            // Its file outlives the listener.
            drop(UnixListener::bind(scene.object(BUNDLE)).expect("socket"));
        },
        answer: Waits,
        cause: "object-rejected",
        says: &["/prod/join/worker.json", "not a regular file", FIX],
    },
    Case {
        name: "the bundle is a folder",
        prepare: |scene| {
            std::fs::remove_file(scene.object(BUNDLE)).expect("remove");
            std::fs::create_dir(scene.object(BUNDLE)).expect("mkdir");
        },
        answer: Waits,
        cause: "object-rejected",
        says: &["/prod/join/worker.json", "not a regular file", FIX],
    },
    Case {
        name: "the bundle is a device",
        prepare: |scene| scene.link(scene.object(BUNDLE), "/dev/zero"),
        answer: Waits,
        cause: "object-rejected",
        says: &["/prod/join/worker.json"],
    },
    Case {
        name: "the bundle is larger than the disk (sparse)",
        prepare: |scene| {
            let file = std::fs::File::create(scene.object(BUNDLE)).expect("create");
            // Pictures read it whole: larger than any object is what counts.
            file.set_len(32 * 1024 * 1024).expect("length");
        },
        answer: Waits,
        cause: "object-rejected",
        says: &["/prod/join/worker.json", "larger than 65536 bytes"],
    },
    Case {
        name: "the store is writable by every user",
        prepare: |scene| {
            std::fs::set_permissions(scene.world.path("store"), PermissionsExt::from_mode(0o777)).expect("chmod");
        },
        answer: Ends(11),
        cause: "unsafe-file",
        says: &["open the store", "/store", "every user can write to it (mode 0777)", "chmod o-w"],
    },
    Case {
        name: "the store is gone",
        prepare: |scene| std::fs::remove_dir_all(scene.world.path("store")).expect("remove"),
        answer: Ends(10),
        cause: "bucket-missing",
        says: &["/store", "there is no such folder", "mount or create"],
    },
];

#[test]
fn a_worker_withstands_it() {
    super::withstands(&ATTACKER);
}

/// A report is not written where a link leads, and a link in the place of the lock is not opened.
#[test]
fn nothing_is_written_where_a_link_leads() {
    let mut scene = Scene::master();
    let victim = scene.bystander("etc/passwd", "root:x:0:0\n");
    let elsewhere = victim.parent().expect("folder").to_owned();
    scene.link(scene.object("nodes"), &elsewhere);
    scene.link(scene.world.store_path(".kubestrap.lock"), &victim);
    scene.runs(&["run"]);
    let mut agent = crate::process::Agent::start(&mut scene.command());
    agent.until_logged("object-rejected");
    agent.until_logged("symbolic link");
    std::thread::sleep(std::time::Duration::from_millis(500));
    agent.terminate();
    agent.finished(crate::process::PATIENCE).expect(0);
    let left: Vec<_> = std::fs::read_dir(&elsewhere).expect("list").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["passwd"]);
    assert_eq!(std::fs::read_to_string(&victim).expect("read"), "root:x:0:0\n");
    assert_eq!(scene.victim.begun("init"), 0, "it made a cluster without its register");
}
