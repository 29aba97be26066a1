//! Everything in a world's folder, before and after.

use super::scene::Scene;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Mode, owner, and content or the target of a link.
type Look = (u32, u32, Vec<u8>);
/// What there is, by path.
pub type Picture = BTreeMap<PathBuf, Look>;

/// What an agent keeps about itself in its state folder, mode 0600.
const OWN: &[&str] = &["lock", "identity.json", "agent.json", "journal.jsonl", "bootstrap-trace.json"];

/// The machine, the store, and whoever stands by.
pub fn take(scene: &Scene) -> Picture {
    let mut picture = Picture::new();
    look(&scene.world.path(""), &mut picture);
    picture
}

fn look(folder: &Path, picture: &mut Picture) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, data) = (entry.path(), entry.metadata().expect("stat"));
        let body = match data.file_type() {
            kind if kind.is_file() => std::fs::read(&path).expect("read"),
            kind if kind.is_symlink() => std::fs::read_link(&path).expect("link").into_os_string().into_encoded_bytes(),
            _ => Vec::new(),
        };
        if data.is_dir() {
            look(&path, picture);
        }
        picture.insert(path, (data.mode(), data.uid(), body));
    }
}

/// Nothing that was there is gone or different, and what is new is what an agent says of itself.
pub fn is_unchanged(scene: &Scene, before: &Picture) {
    let after = take(scene);
    for (path, look) in before {
        let now = after.get(path).unwrap_or_else(|| panic!("{} is gone", path.display()));
        let text = |look: &Look| (look.0, look.1, String::from_utf8_lossy(&look.2).into_owned());
        assert!(now == look, "{} was changed: {:?}\nto {:?}", path.display(), text(look), text(now));
    }
    for (path, (mode, ..)) in after.iter().filter(|(path, _)| !before.contains_key(*path)) {
        assert!(is_own(scene, path), "{} was made", path.display());
        assert_eq!(mode & 0o077, 0, "{} can be read by others", path.display());
    }
}

/// The agent's own records, its report, and the master's self-test of the store.
fn is_own(scene: &Scene, path: &Path) -> bool {
    let (state, store) = (scene.victim.path("/var/lib/kubestrap"), scene.world.store_path("prod"));
    let report = store.join(format!("nodes/machine-{}/report.json", scene.victim.machine_id));
    let lock = scene.world.store_path(".kubestrap.lock");
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let records = path.parent() == Some(&state) && OWN.contains(&name);
    records
        || state.starts_with(path)
        || report.starts_with(path)
        || path.starts_with(store.join("selftest"))
        || path == lock
}
