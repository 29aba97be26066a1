//! The keys of one cluster, relative to the store.

use crate::model::names::ClusterName;
use uuid::Uuid;

/// The keys of one cluster; all of them begin with its name and a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    root: String,
}

impl Keys {
    /// The keys of this cluster.
    pub fn of(cluster: &ClusterName) -> Self {
        Keys { root: format!("{cluster}/") }
    }

    /// The prefix of everything of this cluster: `<cluster>/`.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The cluster register.
    pub fn register(&self) -> String {
        format!("{}cluster.json", self.root)
    }

    /// The sealed PKI.
    pub fn pki_bundle(&self) -> String {
        format!("{}bundle", self.pki())
    }

    /// The prefix of sealed secrets.
    pub fn pki(&self) -> String {
        format!("{}pki/", self.root)
    }

    /// The prefix of snapshots.
    pub fn snapshots(&self) -> String {
        format!("{}snapshots/", self.root)
    }

    /// The prefix of what joining needs.
    pub fn join(&self) -> String {
        format!("{}join/", self.root)
    }

    /// The join bundle of workers.
    pub fn worker_bundle(&self) -> String {
        format!("{}worker.json", self.join())
    }

    /// The lock of a joining master.
    pub fn control_plane_lock(&self) -> String {
        format!("{}control-plane.lock", self.join())
    }

    /// The prefix of the nodes' own folders.
    pub fn nodes(&self) -> String {
        format!("{}nodes/", self.root)
    }

    /// A node's report; `identity` is [`crate::model::identity::Identity::key`].
    pub fn report(&self, identity: &str) -> String {
        format!("{}{identity}{REPORT}", self.nodes())
    }

    /// Whose report this key is; `None` when it is another kind of object.
    pub fn reporter<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.nodes())?.strip_suffix(REPORT).filter(|identity| !identity.is_empty())
    }

    /// The prefix of the self-test of conditions.
    pub fn selftest(&self) -> String {
        format!("{}selftest/", self.root)
    }

    /// The one object of the self-test.
    pub fn selftest_conditions(&self) -> String {
        format!("{}conditions", self.selftest())
    }

    /// The prefix of everything that ended.
    pub fn retired(&self) -> String {
        format!("{}retired/", self.root)
    }

    /// Where an object of a cluster that ended goes; `None` for a key that is not of this cluster.
    pub fn retired_copy(&self, uid: Uuid, key: &str) -> Option<String> {
        let relative = key.strip_prefix(&self.root)?;
        Some(format!("{}{uid}/{relative}", self.retired()))
    }
}

const REPORT: &str = "/report.json";

/// Whether this can be a key of the protocol: a relative path of printable ASCII whose parts do not begin with a dot (the
/// folder store's own files do), of at most 1024 bytes (S3 user guide, "Naming Amazon S3 objects").
pub fn is_plain(key: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.');
    key.len() <= 1024 && key.split('/').all(part) && key.chars().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_plain_relative_path() {
        for good in ["prod/cluster.json", "prod/nodes/arn:aws:ec2:eu-west-1:123456789012:instance/i-1/report.json"] {
            assert!(is_plain(good), "{good}");
        }
        let long = "a".repeat(1025);
        for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a/.hidden", "a b", "a\nb", "a\u{e4}", &long] {
            assert!(!is_plain(bad), "{bad:?}");
        }
    }

    #[test]
    fn keys_are_those_of_the_design_and_reporters_are_read_back() {
        let keys = Keys::of(&ClusterName::parse("prod").expect("name"));
        assert_eq!(keys.register(), "prod/cluster.json");
        assert_eq!(keys.pki_bundle(), "prod/pki/bundle");
        assert_eq!(keys.worker_bundle(), "prod/join/worker.json");
        assert_eq!(keys.control_plane_lock(), "prod/join/control-plane.lock");
        let arn = "arn:aws:ec2:eu-west-1:123456789012:instance/i-1";
        assert_eq!(keys.report(arn), format!("prod/nodes/{arn}/report.json"));
        assert_eq!(keys.reporter(&keys.report(arn)), Some(arn));
        for other in ["prod/nodes/report.json", "prod/nodes//report.json", "dev/nodes/a/report.json", "prod/nodes/a/x"]
        {
            assert_eq!(keys.reporter(other), None, "{other}");
        }
        let copy = keys.retired_copy(Uuid::nil(), "prod/join/worker.json");
        assert_eq!(copy.as_deref(), Some("prod/retired/00000000-0000-0000-0000-000000000000/join/worker.json"));
        assert_eq!(keys.retired_copy(Uuid::nil(), "production/join/worker.json"), None);
    }
}
