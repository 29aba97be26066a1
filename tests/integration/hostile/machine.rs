//! Somebody on the machine who is not root: what they can prepare before kubestrap is installed, or change because
//! something was left open.

use super::{Attacker, Case, Ends, Scene};
use crate::world::Machine;

/// Against a worker; the state folder and the configuration are a master's too. More: `configuration.rs`, `foreign.rs`.
pub const ATTACKER: Attacker =
    Attacker { who: "who has an account on the machine", scene: Scene::worker, cases: CASES };

const STATE: &str = "/var/lib/kubestrap";
const LOOK: &str = "look at what is in it";
/// Of nobody's account here.
const STRANGER: u32 = 54_321;

fn folder(machine: &Machine, path: &str, mode: u32) {
    std::fs::create_dir_all(machine.path(path)).expect("mkdir");
    machine.set_mode(STATE, 0o700);
    machine.set_mode(path, mode);
}

fn state(machine: &Machine, name: &str, text: &str, mode: u32) {
    machine.write(&format!("{STATE}/{name}"), text);
    machine.set_mode(STATE, 0o700);
    machine.set_mode(&format!("{STATE}/{name}"), mode);
}

fn hostname(scene: &Scene, name: &str) {
    let store = scene.world.path("store").display().to_string();
    let text = format!(
        "cluster: prod\nrole: worker\nstore: file://{store}\nidentity: host\nnode: {{ address: 192.0.2.10 }}\n"
    );
    scene.victim.write("/etc/kubestrap/config.yaml", &text);
    scene.victim.write("/etc/hostname", name);
}

macro_rules! unsafe_file {
    ($what:literal, $prepare:expr, $($says:expr),+) => {
        Case { name: $what, prepare: $prepare, answer: Ends(11), cause: "unsafe-file", says: &[$($says),+] }
    };
}
macro_rules! wrong_name {
    ($what:literal, $prepare:expr, $($says:expr),+) => {
        Case { name: $what, prepare: $prepare, answer: Ends(10), cause: "configuration", says: &[$($says),+] }
    };
}

const CASES: &[Case] = &[
    unsafe_file!(
        "the state folder is a link",
        |scene| scene.link(scene.victim.path(STATE), scene.bystander("state/x", "").parent().expect("folder")),
        STATE,
        "symbolic link",
        "can be mounted",
        LOOK
    ),
    unsafe_file!(
        "the state folder is a link to nothing yet",
        |scene| scene.link(scene.victim.path(STATE), scene.world.path("elsewhere/later")),
        STATE,
        "symbolic link"
    ),
    unsafe_file!(
        "the state folder is writable by every user",
        |scene| folder(&scene.victim, STATE, 0o777),
        STATE,
        "writable by others (mode 0777)",
        "chmod go-w"
    ),
    unsafe_file!(
        "the state folder is writable by a group",
        |scene| folder(&scene.victim, STATE, 0o770),
        STATE,
        "writable by others (mode 0770)",
        "chmod go-w"
    ),
    unsafe_file!(
        "the state folder is a file",
        |scene| {
            scene.victim.write("/var/lib/x", "");
            std::fs::remove_file(scene.victim.path("/var/lib/x")).expect("remove");
            let made = std::process::Command::new("mkfifo").arg(scene.victim.path(STATE)).status();
            assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        },
        STATE,
        "neither a file nor a folder"
    ),
    unsafe_file!(
        "the lock is a link to a file of somebody",
        |scene| {
            folder(&scene.victim, STATE, 0o700);
            scene.link(scene.victim.path(STATE).join("lock"), scene.bystander("precious", "do not truncate"));
        },
        "/var/lib/kubestrap/lock",
        "symbolic link",
        LOOK
    ),
    unsafe_file!(
        "the journal is a link",
        |scene| {
            folder(&scene.victim, STATE, 0o700);
            scene.link(scene.victim.path(STATE).join("journal.jsonl"), scene.bystander("journal", ""));
        },
        "/var/lib/kubestrap/journal.jsonl",
        "symbolic link"
    ),
    unsafe_file!(
        "the journal can be written by every user",
        |scene| state(&scene.victim, "journal.jsonl", "", 0o666),
        "/var/lib/kubestrap/journal.jsonl",
        "writable by others (mode 0666)"
    ),
    unsafe_file!(
        "whose state it is, is a link",
        |scene| {
            folder(&scene.victim, STATE, 0o700);
            scene.link(scene.victim.path(STATE).join("identity.json"), "/etc/hostname");
        },
        "/var/lib/kubestrap/identity.json",
        "symbolic link"
    ),
    unsafe_file!(
        "the folder of kubeadm's documents is open to every user",
        |scene| folder(&scene.victim, "/var/lib/kubestrap/kubeadm", 0o777),
        "/var/lib/kubestrap/kubeadm",
        "writable by others"
    ),
    unsafe_file!(
        "the folder of kubeadm's documents is a link",
        |scene| {
            folder(&scene.victim, STATE, 0o700);
            let elsewhere = scene.bystander("documents/x", "");
            scene.link(scene.victim.path(STATE).join("kubeadm"), elsewhere.parent().expect("folder"));
        },
        "/var/lib/kubestrap/kubeadm",
        "symbolic link"
    ),
    unsafe_file!(
        "a job's record is a link, so that its output goes elsewhere",
        |scene| {
            folder(&scene.victim, "/var/lib/kubestrap/jobs/kubeadm-join", 0o700);
            let output = scene.victim.path("/var/lib/kubestrap/jobs/kubeadm-join/output");
            scene.link(output, scene.bystander("authorized_keys", "ssh-ed25519 AAAA\n"));
        },
        "jobs/kubeadm-join/output",
        "symbolic link"
    ),
    unsafe_file!(
        "a job's record names another program, in a folder open to a group",
        |scene| {
            state(
                &scene.victim,
                "jobs/kubeadm-join/spec.json",
                r#"{"run":"x","argv":["/tmp/evil"],"deadline_s":9}"#,
                0o600,
            );
            scene.victim.set_mode("/var/lib/kubestrap/jobs/kubeadm-join", 0o775);
        },
        "jobs/kubeadm-join",
        "writable by others (mode 0775)"
    ),
    unsafe_file!(
        "the folder of the image's configuration is open to every user",
        |scene| {
            scene.victim.write("/usr/lib/kubestrap/config.d/10-baked.yaml", "join: { wait: 20m }\n");
            scene.victim.set_mode("/usr/lib/kubestrap/config.d", 0o777);
        },
        "/usr/lib/kubestrap/config.d",
        "writable by others"
    ),
    unsafe_file!(
        "a named pipe in the folder of configuration",
        |scene| {
            let made = std::process::Command::new("mkfifo")
                .arg(scene.victim.path("/etc/kubestrap/config.d/90-pipe.yaml"))
                .status();
            assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        },
        "90-pipe.yaml",
        "not a regular file"
    ),
    wrong_name!(
        "a host name that climbs",
        |scene| hostname(scene, "../../etc/passwd"),
        "name this node",
        "not a DNS name",
        "node.name"
    ),
    wrong_name!(
        "a host name of two lines",
        |scene| hostname(scene, "w1\nnode-role=master"),
        "name this node",
        "not a DNS name"
    ),
    wrong_name!(
        "a host name of 300 characters",
        |scene| hostname(scene, &"a".repeat(300)),
        "name this node",
        "not a DNS name"
    ),
    wrong_name!(
        "a host name that every machine has",
        |scene| hostname(scene, "localhost"),
        "every machine has",
        "node.name"
    ),
    wrong_name!(
        "a host name that writes to the terminal",
        |scene| hostname(scene, "w1\u{1b}[2J\u{202e}"),
        "name this node",
        "not a DNS name"
    ),
    wrong_name!(
        "a machine-id that climbs",
        |scene| scene.victim.write("/etc/machine-id", "../../../../../etc/cron.d/evil/x\n"),
        "/etc/machine-id",
        "not 32 hex digits",
        "systemd-machine-id-setup"
    ),
    wrong_name!(
        "a machine-id of another length",
        |scene| scene.victim.write("/etc/machine-id", &"0".repeat(64)),
        "/etc/machine-id",
        "not 32 hex digits"
    ),
];

#[test]
fn a_worker_withstands_it() {
    super::withstands(&ATTACKER);
}

/// Only root can give files away, so these have no rows.
#[test]
fn what_belongs_to_another_user_is_refused() {
    for path in ["/etc/kubestrap/config.yaml", "/etc/kubestrap/config.d", STATE, "/var/lib/kubestrap/journal.jsonl"] {
        let scene = Scene::worker();
        state(&scene.victim, "journal.jsonl", "", 0o600);
        if std::os::unix::fs::chown(scene.victim.path(path), Some(STRANGER), None).is_err() {
            eprintln!("skipped: this user cannot give files away (run it as root)");
            return;
        }
        let said = crate::process::finish(&mut scene.command()).expect(11).says(&["unsafe-file", path]).said();
        assert!(said.contains(&format!("belongs to user {STRANGER}")), "{said}");
        assert!(scene.victim.events().is_empty());
    }
}

/// A name that a draft could have is somebody's link: the draft takes another name, and nothing is written through it.
#[test]
fn drafts_prepared_by_others_are_not_written_to() {
    let (world, _master) = crate::world::World::established();
    let worker = world.worker("w1");
    let precious = world.path("precious");
    std::fs::write(&precious, "x").expect("write");
    for name in [".kubestrap-1-0-0", ".kubestrap-lock"] {
        std::os::unix::fs::symlink(&precious, world.store_path("prod/join").join(name)).expect("link");
        std::os::unix::fs::symlink(&precious, worker.path("/etc/kubestrap").join(name)).expect("link");
    }
    worker.run(&["run", "--once"]).expect(0);
    assert_eq!(std::fs::read_to_string(&precious).expect("read"), "x");
}
