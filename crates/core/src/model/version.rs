//! Kubernetes versions and the skew that is allowed between them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A Kubernetes version `vMAJOR.MINOR.PATCH[-PRE][+BUILD]`; ordered by its numbers, the text is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeVersion {
    /// Always 1 so far.
    pub major: u32,
    /// Minor version: what skew is counted in.
    pub minor: u32,
    /// Patch.
    pub patch: u32,
    text: String,
}

impl KubeVersion {
    /// Parses with or without the leading `v`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a Kubernetes version such as v1.36.1");
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let end = numbers.find(['-', '+']).unwrap_or(numbers.len());
        let (core, suffix) = numbers.split_at(end);
        if !suffix.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '_')) {
            return Err(wrong());
        }
        let parts: Vec<u32> = core
            .split('.')
            .map(|part| if part.len() <= 5 { part.parse().map_err(|_| wrong()) } else { Err(wrong()) })
            .collect::<Result<_, _>>()?;
        match parts.as_slice() {
            [major, minor, patch] => {
                Ok(KubeVersion { major: *major, minor: *minor, patch: *patch, text: format!("v{numbers}") })
            }
            _ => Err(wrong()),
        }
    }

    /// Finds the version in what `kubelet --version` ("Kubernetes v1.36.1") or `kubeadm version -o short` print.
    pub fn find(output: &str) -> Option<Self> {
        output.split_whitespace().find_map(|word| KubeVersion::parse(word).ok())
    }
}

impl fmt::Display for KubeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for KubeVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for KubeVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        KubeVersion::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The first minor whose kubeadm reads v1beta4 documents.
pub const OLDEST_KUBEADM_MINOR: u32 = 31;

/// How many minors a kubelet may be older than its API server (Kubernetes version skew policy, since 1.28).
pub const KUBELET_MAX_OLDER_MINORS: u32 = 3;

/// Why a kubelet of version `kubelet` may not join an API server of version `server`; `None` when it may.
///
/// Only minors count: a kubelet with a newer patch is allowed by the policy.
pub fn kubelet_skew(kubelet: &KubeVersion, server: &KubeVersion) -> Option<String> {
    if kubelet.major != server.major || kubelet.minor > server.minor {
        return Some(format!("the kubelet ({kubelet}) is newer than the API server ({server})"));
    }
    if server.minor - kubelet.minor > KUBELET_MAX_OLDER_MINORS {
        return Some(format!(
            "the kubelet ({kubelet}) is more than {KUBELET_MAX_OLDER_MINORS} minor versions older than the API server ({server})"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> KubeVersion {
        KubeVersion::parse(text).expect(text)
    }

    #[test]
    fn versions_are_read_with_and_without_v() {
        assert_eq!(v("1.36.1").to_string(), "v1.36.1");
        assert_eq!(v("v1.36.0-rc.1+abc").minor, 36);
        assert_eq!(KubeVersion::find("Kubernetes v1.36.1\n").map(|v| v.patch), Some(1));
        for bad in ["", "v1", "v1.36", "v1.36.1.2", "v1.x.1", "v1.36.1;reboot", "v1.36.99999999999", "v1.36.1 "] {
            assert!(KubeVersion::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn skew_follows_the_policy() {
        let server = v("v1.36.1");
        for allowed in ["v1.36.9", "v1.35.0", "v1.33.0"] {
            assert_eq!(kubelet_skew(&v(allowed), &server), None, "{allowed}");
        }
        assert!(kubelet_skew(&v("v1.37.0"), &server).is_some_and(|why| why.contains("newer")));
        assert!(kubelet_skew(&v("v1.32.9"), &server).is_some_and(|why| why.contains("older")));
    }
}
