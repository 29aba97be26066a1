//! Paths as a machine sees them whose root is a folder of this one.

use std::ffi::OsString;
use std::io::{Error, ErrorKind, Result};
use std::path::{Component, Path, PathBuf};

/// What Linux follows at most (`MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;

/// Where `path` (absolute) is below `root`, as after `chroot`: links are followed inside of it, `..` does not lead out.
/// The last name is followed only when that is wanted; it and its folders need not be there.
pub fn resolve(root: &Path, path: &str, last: bool) -> Result<PathBuf> {
    let mut rest: Vec<OsString> = names(Path::new(path)).rev().collect();
    let (mut inside, mut links) = (PathBuf::new(), 0);
    while let Some(name) = rest.pop() {
        if name == ".." {
            inside.pop();
            continue;
        }
        let here = root.join(&inside).join(&name);
        let target = if rest.is_empty() && !last { None } else { std::fs::read_link(&here).ok() };
        let Some(target) = target else {
            inside.push(name);
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("its links lead in circles at {}", here.display()),
            ));
        }
        if target.is_absolute() {
            inside.clear();
        }
        rest.extend(names(&target).rev());
    }
    Ok(root.join(inside))
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + use<> {
    let names: Vec<OsString> = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect();
    names.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside_of_the_root() {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path();
        std::fs::create_dir_all(root.join("usr/bin")).expect("mkdir");
        symlink("usr/bin", root.join("bin")).expect("link");
        symlink("/usr/bin", root.join("absolute")).expect("link");
        symlink("../../../../usr", root.join("usr/up")).expect("link");
        symlink("/circle", root.join("circle")).expect("link");
        symlink("/etc/passwd", root.join("usr/bin/last")).expect("link");
        let at = |path: &str, last| resolve(root, path, last).expect(path);
        for path in ["/bin/x", "/absolute/x", "/usr/up/bin/x", "/../../bin/x", "bin/x"] {
            assert_eq!(at(path, false), root.join("usr/bin/x"), "{path}");
        }
        assert_eq!(at("/bin/last", false), root.join("usr/bin/last"));
        assert_eq!(at("/bin/last", true), root.join("etc/passwd"));
        assert!(resolve(root, "/circle/x", false).is_err());
        assert_eq!(at("/none/deep/x", true), root.join("none/deep/x"));
    }
}
