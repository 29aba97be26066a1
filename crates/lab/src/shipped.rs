//! What the repository ships beside the program: `systemd/` and `cloud-init/`. `cargo xtask units` judges it with the
//! tools of the machine it runs on, the scenario `shipped-files` with those of a lab machine.

use crate::{Result, attempted, fail};
use std::path::{Path, PathBuf};

/// Takes user-data apart as cloud-init does: `take_apart.py FILE` leaves `FILE.cloud-config` and `FILE.ours`.
pub const TAKE_APART: &str = include_str!("take_apart.py");
/// What EC2 takes as user-data, in bytes, before base64.
pub const USER_DATA_LIMIT: usize = 16 * 1024;
/// Fetches kubestrap on a machine that has nothing; `*.bare.*` of `cloud-init/` bring it along.
pub const START_SCRIPT: &str = "start.sh";
/// Begins the line of `systemd/README.md` with the number.
const EXPOSURE: &str = "Exposure level: ";

/// The repository's folder of this name.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// What `systemd-analyze security` may say of the unit at most, in tenths, as `systemd/README.md` has it.
///
/// # Errors
/// When it is not there.
pub fn exposure() -> Result<u32> {
    let path = folder("systemd").join("README.md");
    exposure_in(&attempted(std::fs::read_to_string(&path), format!("read {}", path.display()))?)
}

fn exposure_in(text: &str) -> Result<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix(EXPOSURE)).unwrap_or_default();
    let number = line.split_whitespace().next().and_then(tenths);
    number.map_or_else(|| fail(format!("systemd/README.md has no line `{EXPOSURE}N.N`")), Ok)
}

/// A number with one digit after the point, in tenths: floats are not compared.
pub fn tenths(text: &str) -> Option<u32> {
    let (whole, tenth) = text.split_once('.')?;
    let digit = tenth.len() == 1;
    Some(whole.parse::<u32>().ok()? * 10 + tenth.parse::<u32>().ok().filter(|_| digit)?)
}

/// The files with user-data: their names and what is in them, in the order of their names.
///
/// # Errors
/// When one cannot be read, or there is none.
pub fn user_data() -> Result<Vec<(String, String)>> {
    let folder = folder("cloud-init");
    let mut files = Vec::new();
    for entry in attempted(std::fs::read_dir(&folder), format!("read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name != "README.md" && name != START_SCRIPT {
            files.push((name.clone(), attempted(std::fs::read_to_string(&path), format!("read cloud-init/{name}"))?));
        }
    }
    files.sort();
    if files.is_empty() { fail("there are no files in cloud-init/") } else { Ok(files) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_read_from_its_line_alone() {
        assert_eq!(exposure_in("# x\n\nExposure level: 2.1 (systemd 252)\n").expect("a number"), 21);
        for text in ["", "the Exposure level: 2.1", "Exposure level: two", "Exposure level: 2.15", "Exposure level: 2"]
        {
            assert!(exposure_in(text).is_err(), "{text}");
        }
    }

    #[test]
    fn both_roles_have_every_form_of_user_data() {
        let names: Vec<String> = user_data().expect("files").into_iter().map(|(name, _)| name).collect();
        for role in ["master", "worker"] {
            for form in ["cloud-config.yaml", "kubestrap.yaml", "mime", "bare.cloud-config.yaml", "bare.mime"] {
                assert!(names.contains(&format!("{role}.{form}")), "{role}.{form}: {names:?}");
            }
        }
    }
}
