//! A control group for each machine, in every hierarchy this kernel has: cgroup v1, v2, and both at once (hybrid).

use crate::{Result, attempted};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The group all machines are in.
const GROUP: &str = "kubestrap-lab";
/// How long processes of a killed machine may take to leave their groups.
const EMPTY: Duration = Duration::from_secs(10);

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where.
    pub mount: PathBuf,
    /// `cgroup` or `cgroup2`.
    pub kind: String,
    /// Mount options that choose the controllers; empty with v2.
    pub options: String,
}

/// The hierarchies this process sees.
///
/// # Errors
/// When `/proc/self/mountinfo` cannot be read.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = attempted(std::fs::read_to_string("/proc/self/mountinfo"), "read /proc/self/mountinfo")?;
    Ok(parse(&text))
}

/// Whether only v2 is there, as on current distributions.
pub fn pure_v2(hierarchies: &[Hierarchy]) -> bool {
    hierarchies.len() == 1 && hierarchies[0].kind == "cgroup2"
}

fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    mountinfo.lines().filter_map(parse_line).collect()
}

/// `proc(5)`: `36 35 98:0 /root /mount options optional - type source super-options`.
fn parse_line(line: &str) -> Option<Hierarchy> {
    let (before, after) = line.split_once(" - ")?;
    let mount = PathBuf::from(before.split(' ').nth(4)?);
    let mut fields = after.split(' ');
    let (kind, _, options) = (fields.next()?, fields.next()?, fields.next()?);
    let options = match kind {
        "cgroup2" => String::new(),
        "cgroup" => options.split(',').filter(|option| !["rw", "ro"].contains(option)).collect::<Vec<_>>().join(","),
        _ => return None,
    };
    Some(Hierarchy { mount, kind: kind.to_owned(), options })
}

/// Makes the machine's groups.
///
/// # Errors
/// When one cannot be made.
pub fn make(hierarchies: &[Hierarchy], machine: &str) -> Result<()> {
    for hierarchy in hierarchies {
        let mut place = hierarchy.mount.clone();
        for name in [GROUP, machine] {
            if hierarchy.kind == "cgroup2" {
                delegate(&place);
            }
            let parent = place.clone();
            place.push(name);
            attempted(std::fs::create_dir_all(&place), format!("make the control group {}", place.display()))?;
            if hierarchy.options.contains("cpuset") {
                inherit_cpuset(&parent, &place)?;
            }
        }
    }
    Ok(())
}

/// Lets the children of a v2 group have its controllers. One that cannot be handed out is not: the machine does without.
fn delegate(group: &Path) {
    let controllers = std::fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = std::fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// A new v1 cpuset is empty, and takes no process until it has CPUs and memory.
fn inherit_cpuset(parent: &Path, group: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = std::fs::read_to_string(group.join(file)).unwrap_or_default();
        if own.trim().is_empty() {
            let value = attempted(std::fs::read_to_string(parent.join(file)), format!("read {file}"))?;
            attempted(std::fs::write(group.join(file), value), format!("write {file} of {}", group.display()))?;
        }
    }
    Ok(())
}

/// Moves this process into the machine's groups.
///
/// # Errors
/// When one does not take it.
pub fn enter(hierarchies: &[Hierarchy], machine: &str) -> Result<()> {
    for hierarchy in hierarchies {
        let file = hierarchy.mount.join(GROUP).join(machine).join("cgroup.procs");
        attempted(std::fs::write(&file, std::process::id().to_string()), format!("enter {}", file.display()))?;
    }
    Ok(())
}

/// Processes in groups of any machine.
pub fn inhabitants(hierarchies: &[Hierarchy]) -> Vec<i32> {
    let mut found = Vec::new();
    for hierarchy in hierarchies {
        inhabitants_of(&hierarchy.mount.join(GROUP), &mut found);
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn inhabitants_of(group: &Path, found: &mut Vec<i32>) {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    // A process of another namespace is shown as 0.
    found.extend(text.lines().filter_map(|pid| pid.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for child in children(group) {
        inhabitants_of(&child, found);
    }
}

fn children(group: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Removes the machine's groups, or those of all machines, once nobody is in them; nothing when there are none.
pub fn remove(hierarchies: &[Hierarchy], machine: Option<&str>) {
    for hierarchy in hierarchies {
        let top = hierarchy.mount.join(GROUP);
        let top = machine.map_or(top.clone(), |machine| top.join(machine));
        let began = Instant::now();
        while top.is_dir() && !remove_tree(&top) && began.elapsed() < EMPTY {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A group is removed with rmdir, its children first; its files are not files.
fn remove_tree(group: &Path) -> bool {
    for child in children(group) {
        remove_tree(&child);
    }
    std::fs::remove_dir(group).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_in_mountinfo() {
        let text = "\
            25 30 0:23 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
            26 25 0:24 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n\
            27 25 0:25 / /sys/fs/cgroup/systemd rw,nosuid shared:9 - cgroup cgroup rw,xattr,name=systemd\n\
            28 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let found = parse(text);
        let short: Vec<_> = found.iter().map(|h| (h.mount.to_str().unwrap_or(""), &*h.kind, &*h.options)).collect();
        assert_eq!(
            short,
            [
                ("/sys/fs/cgroup/unified", "cgroup2", ""),
                ("/sys/fs/cgroup/systemd", "cgroup", "xattr,name=systemd"),
                ("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "cpu,cpuacct"),
            ]
        );
        assert!(!pure_v2(&found));
        assert!(pure_v2(&parse("1 2 0:3 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n")));
    }
}
