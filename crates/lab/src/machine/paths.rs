//! Paths of a machine as paths of this one. Links are followed as the machine follows them: an absolute link there
//! (`/var/run`) would lead into this machine's own files here.

use crate::{Result, fail};
use std::collections::VecDeque;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows (`path_resolution(7)`).
const LINKS: usize = 40;

/// The same path without links; relative to the machine's root. `link` says where a link at such a path leads. The last
/// name is followed only when that is wanted: a file is replaced, and not what it leads to.
///
/// # Errors
/// When the path is not absolute, or its links lead in circles.
pub fn follow(path: &str, last: bool, link: impl Fn(&Path) -> Option<PathBuf>) -> Result<PathBuf> {
    if !path.starts_with('/') {
        return fail(format!("{path} is not absolute"));
    }
    let mut rest: VecDeque<PathBuf> =
        Path::new(path).components().map(|part| PathBuf::from(part.as_os_str())).collect();
    let (mut at, mut links) = (PathBuf::new(), 0);
    while let Some(part) = rest.pop_front() {
        match part.components().next() {
            Some(Component::RootDir) => at = PathBuf::new(),
            // The root's parent is the root: nothing leads out of the machine.
            Some(Component::ParentDir) => drop(at.pop()),
            Some(Component::Normal(name)) => at.push(name),
            _ => continue,
        }
        if (!rest.is_empty() || last)
            && let Some(target) = link(&at)
        {
            links += 1;
            if links > LINKS {
                return fail(format!("{path} has links that lead in circles"));
            }
            at.pop();
            for part in target.components().rev() {
                rest.push_front(PathBuf::from(part.as_os_str()));
            }
        }
    }
    Ok(at)
}

/// Whether overlayfs notes there that a file of the lower tree was removed: a character device 0/0.
pub fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|data| data.file_type().is_char_device() && data.rdev() == 0)
}

/// Whether a path, or a folder on the way to it, was removed in this upper tree.
pub fn is_removed(upper: &Path, inside: &Path) -> bool {
    inside.ancestors().filter(|part| !part.as_os_str().is_empty()).any(|part| is_whiteout(&upper.join(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(path: &Path) -> Option<PathBuf> {
        let target = match path.to_str()? {
            "var/run" => "/run",
            "lib" => "usr/lib",
            "run/out" => "../../../../etc/passwd",
            "a" => "/b",
            "b" => "/a",
            _ => return None,
        };
        Some(target.into())
    }

    #[test]
    fn links_stay_in_the_machine() {
        let at = |path, last| follow(path, last, links).expect("path").display().to_string();
        assert_eq!(at("/var/run/kubestrap/x", true), "run/kubestrap/x");
        assert_eq!(at("/lib/systemd/../modules", true), "usr/lib/modules");
        assert_eq!(at("/var/run/out", true), "etc/passwd");
        assert_eq!((at("/var/run", true), at("/var/run", false)), ("run".to_owned(), "var/run".to_owned()));
        assert_eq!(at("/../../x", true), "x");
        assert!(follow("/a/x", true, links).expect_err("circle").to_string().contains("circles"));
        assert!(follow("etc", true, links).is_err());
    }

    #[test]
    fn only_a_device_of_its_own_kind_is_a_whiteout() {
        let place = tempfile::tempdir().expect("folder");
        std::fs::write(place.path().join("file"), "").expect("write");
        assert!(!is_whiteout(&place.path().join("file")) && !is_whiteout(Path::new("/dev/null")));
        assert!(!is_removed(place.path(), Path::new("file/below")));
    }
}
