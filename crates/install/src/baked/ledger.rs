//! What kubestrap placed on this machine: the bake manifest of the last installation, and what one that was interrupted
//! had begun to place.

use super::{Baked, MANIFEST, Origin};
use crate::catalog::{Artifact, Component};
use crate::host::Host;
use kubestrap_core::drift::manifest::Manifest;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// Written before a file is placed, removed when the manifest has them all.
const BEGUN: &str = "/usr/lib/kubestrap/installing.json";

type Begun = BTreeSet<(String, String)>;

/// What kubestrap placed.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    baked: Option<Baked>,
    begun: Begun,
    now: BTreeMap<Component, (Origin, Vec<(String, String)>)>,
}

impl Ledger {
    /// Reads what is known of the machine; an empty one where nothing was installed. A manifest that drift could not
    /// read is an error.
    pub fn read(host: &Host) -> Outcome<Ledger> {
        let baked = match host.read(MANIFEST)? {
            None => None,
            Some(text) => {
                Manifest::parse(text.as_bytes())?;
                Some(Baked::parse(&text)?)
            }
        };
        let begun = match host.read(BEGUN)? {
            None => Begun::new(),
            Some(text) => serde_json::from_str(&text).map_err(|error| {
                let failure = Failure::new(Cause::FileAccess, format!("read {BEGUN}"), error.to_string());
                failure.advise("remove it: files of the interrupted installation then count as somebody else's")
            })?,
        };
        Ok(Ledger { baked, begun, now: BTreeMap::new() })
    }

    /// The manifest that is there.
    pub fn baked(&self) -> Option<&Baked> {
        self.baked.as_ref()
    }

    /// Whether a file with this content was placed by kubestrap at this path.
    pub fn is_ours(&self, path: &str, sha256: &str) -> bool {
        let is = |placed: Option<bool>, at: &str, digest: &str| placed == Some(true) && at == path && digest == sha256;
        self.begun.contains(&(path.to_owned(), sha256.to_owned()))
            || self.baked.as_ref().is_some_and(|baked| {
                baked.components.iter().any(|one| is(one.placed, &one.path, &one.sha256))
                    || baked.files.iter().any(|one| is(one.placed, &one.path, &one.sha256))
            })
    }

    /// Every file that comes out of this released file, with its SHA-256: of this run, or of the manifest. Empty when it
    /// was never unpacked here.
    pub fn files_of(&self, artifact: &Artifact) -> Vec<(String, String)> {
        if let Some((_, files)) = self.now.get(&artifact.component) {
            return files.clone();
        }
        let Some(baked) = self.baked.as_ref().filter(|_| self.origin(artifact).is_some()) else { return Vec::new() };
        let name = artifact.component.label();
        let placed = baked.components.iter().filter(|one| one.name == name && one.placed == Some(true));
        let kept = baked.kept.iter().filter(|kept| kept.component == name);
        let placed = placed.map(|one| (one.path.clone(), one.sha256.clone()));
        placed.chain(kept.map(|one| (one.path.clone(), one.instead_of.clone()))).collect()
    }

    /// From where this released file came, when it was placed by this run or an earlier one.
    pub fn origin(&self, artifact: &Artifact) -> Option<Origin> {
        if let Some((origin, _)) = self.now.get(&artifact.component) {
            return Some(origin.clone());
        }
        let programs = self.baked.iter().flat_map(|baked| baked.components.iter());
        let origins = programs.filter(|one| one.name == artifact.component.label()).filter_map(|one| one.from.as_ref());
        origins.into_iter().find(|origin| origin.sha256 == artifact.sha256).cloned()
    }

    /// What was unpacked in this run.
    pub fn record(&mut self, artifact: &Artifact, source: String, files: Vec<(String, String)>) {
        self.now.insert(artifact.component, (Origin::of(artifact, source), files));
    }

    /// Writes down what is about to be placed: a run that is killed knows its own files again.
    pub fn announce(&mut self, host: &Host, files: &[(String, String)]) -> Outcome<()> {
        let before = self.begun.len();
        self.begun.extend(files.iter().cloned());
        if self.begun.len() == before {
            return Ok(());
        }
        let text = serde_json::to_string(&self.begun)
            .map_err(|error| Failure::new(Cause::Internal, format!("write {BEGUN}"), error.to_string()))?;
        host.write(BEGUN, &text, 0o644)
    }

    /// The manifest was written: what was begun is done.
    pub fn settle(&mut self, host: &Host, baked: Baked) -> Outcome<()> {
        self.baked = Some(baked);
        self.begun.clear();
        host.remove(BEGUN)
    }

    /// Whether an installation was interrupted.
    pub fn is_begun(&self) -> bool {
        !self.begun.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn what_was_begun_and_what_was_baked_is_ours_and_nothing_else() {
        let folder = tempfile::tempdir().expect("folder");
        let host = Host::new(folder.path());
        let mut ledger = Ledger::read(&host).expect("nothing is there");
        assert!(!ledger.is_ours("/a", DIGEST) && !ledger.is_begun());
        ledger.announce(&host, &[("/a".into(), DIGEST.into())]).expect("announce");
        let again = Ledger::read(&host).expect("interrupted");
        assert!(again.is_ours("/a", DIGEST) && again.is_begun() && !again.is_ours("/b", DIGEST));
        let text = format!(
            r#"{{"schema":1,"components":[
                {{"name":"kubelet","version":"1","path":"/ours","sha256":"{DIGEST}","placed":true}},
                {{"name":"runc","version":"1","path":"/kept","sha256":"{DIGEST}","placed":false}},
                {{"name":"agent","version":"1","path":"/theirs","sha256":"{DIGEST}","by":"somebody"}}]}}"#
        );
        host.write(MANIFEST, &text, 0o644).expect("write");
        let ledger = Ledger::read(&host).expect("baked");
        assert!(ledger.is_ours("/ours", DIGEST) && !ledger.is_ours("/ours", &DIGEST.replace('e', "f")));
        assert!(!ledger.is_ours("/kept", DIGEST) && !ledger.is_ours("/theirs", DIGEST));
    }

    #[test]
    fn a_manifest_that_drift_would_refuse_is_not_built_upon() {
        let folder = tempfile::tempdir().expect("folder");
        let host = Host::new(folder.path());
        host.write(MANIFEST, r#"{"schema":2}"#, 0o644).expect("write");
        assert!(Ledger::read(&host).expect_err("newer").to_string().contains("its schema is 2"));
    }
}
