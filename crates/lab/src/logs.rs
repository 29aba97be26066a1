//! What is left of a scenario that failed.

use crate::command::Finished;
use crate::machine::Machine;
use crate::{Result, attempted};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file's name, and the command that fills it. None of them shows a secret: kubeadm's own output stays where it is.
const SOURCES: &[(&str, &str)] = &[
    ("kubestrap.log", "journalctl -u kubestrap -u 'kubestrap-job-*' --no-pager -o short-precise"),
    ("kubelet.log", "journalctl -u kubelet --no-pager -o short-precise -n 2000"),
    ("containerd.log", "journalctl -u containerd --no-pager -o short-precise -n 500"),
    ("boot.log", "journalctl -b --no-pager -o short-precise -n 3000"),
    ("cloud-init.log", "cat /var/log/cloud-init.log /var/log/cloud-init-output.log; cloud-init status --long"),
    ("status.json", "kubestrap status --output json"),
    ("units.txt", "systemctl --no-pager --failed; systemctl --no-pager status kubestrap kubelet containerd"),
    ("cluster.txt", "kubectl get nodes,pods -A -o wide --request-timeout=5s"),
];

/// Collects the logs of machines into a new folder; where it is.
///
/// # Errors
/// When the folder cannot be made. A machine that is off gives what lies on its disk.
pub fn collect(machines: &[Machine], logs: &Path, scenario: &str) -> Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default();
    let place = logs.join(format!("{scenario}-{now}"));
    for machine in machines {
        let folder = place.join(machine.name());
        attempted(std::fs::create_dir_all(&folder), format!("make {}", folder.display()))?;
        for (file, script) in SOURCES {
            if let Some(done) = words(machine, &["sh", "-c", &format!("({script}) 2>&1")]) {
                let text = done.map_or_else(|error| error.to_string(), |done| done.stdout);
                let _ = std::fs::write(folder.join(file), text);
            }
        }
        let journal = machine.read("/var/lib/kubestrap/journal.jsonl").unwrap_or_default();
        let _ = std::fs::write(folder.join("journal.jsonl"), journal);
        let _ = std::fs::copy(machine.folder().join("console.log"), folder.join("console.log"));
    }
    Ok(place)
}

/// A command in a machine that is on, of either kind.
fn words(machine: &Machine, arguments: &[&str]) -> Option<Result<Finished>> {
    if machine.is_on() { Some(machine.exec(arguments)) } else { crate::vm::exec(machine, arguments) }
}
