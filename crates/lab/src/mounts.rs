//! What is mounted on this machine.

use nix::mount::{MntFlags, umount2};
use std::path::{Path, PathBuf};

/// Mount points at or below a path, the deepest last. Nothing when the kernel does not tell.
pub fn below(path: &Path) -> Vec<PathBuf> {
    parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), path)
}

/// Whether something is mounted right there.
pub fn is_mounted(path: &Path) -> bool {
    below(path).iter().any(|mount| mount == path)
}

/// Unmounts everything at or below a path; nothing when there is nothing. What is busy goes when its last user does.
pub fn unmount_below(path: &Path) {
    for mount in below(path).iter().rev() {
        let _ = umount2(mount, MntFlags::MNT_DETACH);
    }
}

/// `proc(5)`: the fifth field is the mount point, with blanks and backslashes in octal.
fn parse(mountinfo: &str, path: &Path) -> Vec<PathBuf> {
    let mounts = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut found: Vec<PathBuf> = mounts.filter(|mount| mount.starts_with(path)).collect();
    found.sort();
    found
}

fn unescape(text: &str) -> PathBuf {
    let mut plain = text.to_owned();
    // The backslash last: what it yields is not looked at again.
    for (escaped, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(escaped, character);
    }
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_folder_are_found_whatever_their_names() {
        let text = "1 2 0:1 / /lab/run/nodes/m1/disk rw - tmpfs tmpfs rw\n\
                    2 2 0:1 / /lab/run-other rw - tmpfs tmpfs rw\n\
                    3 2 0:1 / /lab/run/a\\040b rw - tmpfs tmpfs rw\n\
                    4 2 0:1 / /lab/run/nodes/m1/disk/deep rw shared:1 - tmpfs tmpfs rw\n";
        let found = parse(text, Path::new("/lab/run"));
        let expected = ["/lab/run/a b", "/lab/run/nodes/m1/disk", "/lab/run/nodes/m1/disk/deep"];
        assert_eq!(found, expected.map(PathBuf::from));
        assert!(parse(text, Path::new("/elsewhere")).is_empty());
    }

    #[test]
    fn the_kernel_is_asked() {
        assert!(is_mounted(Path::new("/proc")));
        assert!(!is_mounted(Path::new("/proc/self")));
    }
}
