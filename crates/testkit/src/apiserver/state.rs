//! Objects by path, kept in one file as etcd's data folder is. The masters of a cluster share it: whoever begins a
//! request looks whether another one has written.

use crate::etcd::Place;
use crate::files;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Everything that is stored.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Grows with every write.
    pub revision: u64,
    /// Objects by their canonical path.
    pub objects: BTreeMap<String, Value>,
    /// Who applied what: path, then field manager, then the leaves it owns (as JSON pointers).
    pub managers: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    #[serde(skip)]
    root: PathBuf,
    /// Which file was read or written last: its inode and when it changed.
    #[serde(skip)]
    seen: Option<(u64, i64, i64)>,
}

impl State {
    /// Reads the state of a root; an empty one with the usual namespaces when there is none.
    pub fn load(root: &Path) -> io::Result<Self> {
        let mut state = State { root: root.to_owned(), ..State::default() };
        state.refresh()?;
        if state.objects.is_empty() {
            for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
                let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "status": {"phase": "Active"}});
                state.put(&format!("/api/v1/namespaces/{name}"), namespace)?;
            }
        }
        Ok(state)
    }

    /// Reads what another one has written since; nothing happens when nobody has.
    pub fn refresh(&mut self) -> io::Result<()> {
        let path = Place::of(&self.root).objects();
        let Some(seen) = stamp(&path) else { return Ok(()) };
        if self.seen == Some(seen) {
            return Ok(());
        }
        let now: State = serde_json::from_str(&files::read_text(&path)?).map_err(io::Error::other)?;
        *self = State { root: std::mem::take(&mut self.root), seen: Some(seen), ..now };
        Ok(())
    }

    /// Stores an object with a new resourceVersion; uid and creationTimestamp are kept or made. What was stored.
    pub fn put(&mut self, path: &str, mut object: Value) -> io::Result<Value> {
        self.revision += 1;
        let before = self.objects.get(path).map(|old| old["metadata"].clone()).unwrap_or_default();
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.revision.to_string());
        metadata["uid"] = match before["uid"].as_str() {
            Some(uid) => json!(uid),
            None => json!(uid()?),
        };
        metadata["creationTimestamp"] = match before["creationTimestamp"].as_str() {
            Some(at) => json!(at),
            None => json!(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        };
        self.objects.insert(path.to_owned(), object.clone());
        self.save()?;
        Ok(object)
    }

    /// Removes an object; what it was.
    pub fn remove(&mut self, path: &str) -> io::Result<Option<Value>> {
        let removed = self.objects.remove(path);
        self.managers.remove(path);
        if removed.is_some() {
            self.revision += 1;
            self.save()?;
        }
        Ok(removed)
    }

    /// Writes the file atomically, mode 0600: it holds Secrets.
    pub fn save(&mut self) -> io::Result<()> {
        let path = Place::of(&self.root).objects();
        files::write(&path, serde_json::to_string(self)?.as_bytes(), 0o600)?;
        self.seen = stamp(&path);
        Ok(())
    }
}

fn stamp(path: &Path) -> Option<(u64, i64, i64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

fn uid() -> io::Result<String> {
    let hex = files::hex(&files::random_bytes::<16>()?);
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}
