//! A kubeadm that is not what it should be: another program of that name, or one that misbehaves. It runs as root in any
//! case; what is defended is what it says, and the agent's own life. More: `tools.rs`.

use super::{Attacker, Case, Ends, Scene, Waits};
use crate::process::{Agent, PATIENCE, programs};
use crate::world::World;

/// Against a worker: the program is asked for its version before anything is done.
pub const ATTACKER: Attacker =
    Attacker { who: "who put another kubeadm into PATH", scene: Scene::worker, cases: CASES };

const PROBE: &str = "kubeadm version -o short";

/// PATH has the victim's own folder and the system's, and the kubelet.
fn alone(scene: &mut Scene) {
    let own = scene.victim.path("/opt/bin");
    std::fs::create_dir_all(&own).expect("mkdir");
    scene.link(own.join("kubelet"), programs().join("kubelet"));
    scene.environment("PATH", format!("{}:/usr/bin:/bin", own.display()));
}

const CASES: &[Case] = &[
    Case {
        name: "a file that cannot be executed",
        prepare: |scene| {
            alone(scene);
            scene.victim.tool("kubeadm", "true");
            scene.victim.set_mode("/opt/bin/kubeadm", 0o644);
        },
        answer: Waits,
        cause: "tool-failed",
        says: &[PROBE, "Permission denied"],
    },
    Case {
        name: "a folder",
        prepare: |scene| {
            alone(scene);
            std::fs::create_dir(scene.victim.path("/opt/bin/kubeadm")).expect("mkdir");
        },
        answer: Waits,
        cause: "tool-failed",
        says: &[PROBE, "Permission denied"],
    },
    Case {
        name: "no program at all",
        prepare: |scene| {
            alone(scene);
            scene.victim.write("/opt/bin/kubeadm", "\u{7f}ELF, or not");
            scene.victim.set_mode("/opt/bin/kubeadm", 0o755);
        },
        answer: Waits,
        cause: "tool-failed",
        says: &[PROBE],
    },
    Case {
        name: "a version that is no version",
        prepare: |scene| scene.victim.tool("kubeadm", "echo latest"),
        answer: Waits,
        cause: "tool-failed",
        says: &[PROBE, "is not a version"],
    },
    Case {
        name: "a version that writes to the terminal",
        prepare: |scene| scene.victim.tool("kubeadm", "printf '\\033[2J\\033]0;x\\007 x'"),
        answer: Waits,
        cause: "tool-failed",
        says: &[PROBE, "is not a version"],
    },
    Case {
        name: "a version of 100 MB",
        prepare: |scene| scene.victim.tool("kubeadm", "head -c 100000000 /dev/zero | tr '\\0' x"),
        answer: Waits,
        cause: "tool-failed",
        says: &[PROBE, "is not a version"],
    },
    Case {
        name: "a program that fails with a secret and the terminal in its words",
        prepare: |scene| scene.victim.tool("kubeadm", "printf 'no abcdef.0123456789abcdef \\033[2J' >&2; exit 7"),
        answer: Waits,
        cause: "tool-failed",
        says: &[PROBE, "<secret>"],
    },
    Case {
        name: "a version that is too old",
        prepare: |scene| scene.victim.tool("kubeadm", "echo v1.19.0"),
        answer: Ends(11),
        cause: "version-skew",
        says: &["v1.19.0", "install a newer kubeadm"],
    },
];

#[test]
fn a_worker_withstands_it() {
    super::withstands(&ATTACKER);
}

/// A join that prints a lot, a token, and what commands a terminal, and fails.
#[test]
fn the_output_of_a_join_is_kept_small_plain_and_without_secrets() {
    let (world, _master) = World::established();
    let worker = world.worker("w1");
    let said = "yes abcdef.0123456789abcdef | head -c 150000000; \
                printf 'the end \\033[31mabcdef.0123456789abcdef\\033]0;pwned\\007 \\033[2J\\r\\b\\n'; exit 3";
    worker.tool("kubeadm", &format!("case $1 in version) echo v1.36.1;; join) {said};; esac"));
    let mut agent = Agent::start(&mut worker.command_logging("human", &["run"]));
    agent.until_logged("the end");
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("status");
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
    assert!(line.is_some_and(|kib| kib < 100 * 1024), "{line:?} KiB");
    agent.terminate();
    let log = agent.finished(PATIENCE).expect(0).said();
    let report = worker.report(&world).expect("a report").to_string();
    let status = worker.run(&["status", "--cluster"]).expect(0).stdout;
    for text in [&log, &report, &status, &worker.read("/var/lib/kubestrap/agent.json")] {
        assert!(!text.contains("0123456789abcdef"), "a token is in {text:.3000}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "it commands a terminal: {text:.3000?}");
        assert!(!text.contains("\\u001b"), "it would command a terminal: {text:.3000}");
    }
    assert!(status.contains("the end"), "{status}");
}
