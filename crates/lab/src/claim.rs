//! Who has the lab of this machine. Namespaces, control groups and settings of the kernel are named once for the whole
//! machine, so the right to them is too, whatever folder a lab has: without this, a second lab in another folder would
//! take the first one's network away. Kept outside of the lab's folder, to be found when that is gone.

use crate::folder::Folder;
use crate::state::State;
use crate::{Result, attempted, fail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Gone after a reboot, as is everything it tells of.
const PLACE: &str = "/run/kubestrap-lab";

/// What a lab took from the machine, written down before it is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The lab's folder.
    pub folder: PathBuf,
    /// Settings of the kernel as they were.
    pub sysctls: BTreeMap<String, String>,
}

impl Claim {
    /// The claim there is; none when nobody has a lab, and none when it was cut short: then nothing was taken yet.
    pub fn load() -> Option<Claim> {
        Claim::load_from(Path::new(PLACE))
    }

    fn load_from(place: &Path) -> Option<Claim> {
        serde_json::from_slice(&std::fs::read(place.join("claim.json")).ok()?).ok()
    }

    /// Writes it down.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self) -> Result<()> {
        self.save_to(Path::new(PLACE))
    }

    fn save_to(&self, place: &Path) -> Result<()> {
        let (path, fresh) = (place.join("claim.json"), place.join("claim.json.new"));
        crate::tree::write(&fresh, serde_json::to_vec_pretty(self)?, 0o644)?;
        attempted(std::fs::rename(&fresh, &path), format!("write {}", path.display()))
    }

    /// Gives everything back; nothing when there is no claim.
    pub fn forget() {
        let _ = std::fs::remove_file(Path::new(PLACE).join("claim.json"));
    }
}

/// One lab at a time; let go when it is dropped, and when its process dies.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held")] Flock<File>);

impl Lock {
    /// Takes the lock for the lab of a folder.
    ///
    /// # Errors
    /// When another process works on a lab, or a lab of another folder was left up; each with what to do.
    pub fn take(folder: &Folder) -> Result<Lock> {
        Lock::take_in(Path::new(PLACE), folder)
    }

    fn take_in(place: &Path, folder: &Folder) -> Result<Lock> {
        let path = place.join("lock");
        attempted(std::fs::create_dir_all(place), format!("make {}", place.display()))?;
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = attempted(file, format!("open {}", path.display()))?;
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            return fail(format!("{} has the lab of this machine; wait for it, or end it", holder.trim()));
        };
        if let Some(other) = Claim::load_from(place).filter(|claim| claim.folder != folder.path()) {
            let other = Folder::at(other.folder);
            if State::load(&other).is_kept() {
                let place = other.path().display();
                return fail(format!(
                    "the lab of {place} is up, and a machine has one; KUBESTRAP_LAB_DIR={place} cargo xtask lab down"
                ));
            }
        }
        let words = format!("process {} (folder {})\n", std::process::id(), folder.path().display());
        attempted(std::fs::write(&path, words), format!("write {}", path.display()))?;
        Ok(Lock(lock))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Process, Saved};

    #[test]
    fn there_is_one_lab_at_a_time_whatever_its_folder() {
        let place = tempfile::tempdir().expect("folder");
        let (one, two) = (Folder::at(place.path().join("one")), Folder::at(place.path().join("two")));
        let first = Lock::take_in(place.path(), &one).expect("first");
        let error = Lock::take_in(place.path(), &two).expect_err("second").to_string();
        assert!(error.contains(&std::process::id().to_string()) && error.contains("one"), "{error}");
        drop(first);
        Lock::take_in(place.path(), &two).expect("third");
    }

    #[test]
    fn a_lab_that_was_left_up_is_not_swept_away_from_another_folder() {
        let place = tempfile::tempdir().expect("folder");
        let (one, two) = (Folder::at(place.path().join("one")), Folder::at(place.path().join("two")));
        let claim = Claim { folder: one.path().to_owned(), sysctls: BTreeMap::from([("a".into(), "1".into())]) };
        claim.save_to(place.path()).expect("save");
        assert_eq!(Claim::load_from(place.path()), Some(claim));
        let mut state = State { kept: true, ..State::default() };
        let init = Process::of(std::process::id().cast_signed());
        state.machines.insert("m1".into(), Saved { number: 11, init });
        state.save(&one).expect("save");
        let error = Lock::take_in(place.path(), &two).expect_err("left up").to_string();
        assert!(error.contains("lab down") && error.contains("one"), "{error}");
        Lock::take_in(place.path(), &one).expect("its own folder");
        // It crashed: what it left may be removed by anybody.
        state.machines.insert("m1".into(), Saved { number: 11, init: None });
        state.save(&one).expect("save");
        Lock::take_in(place.path(), &two).expect("nobody there");
    }
}
