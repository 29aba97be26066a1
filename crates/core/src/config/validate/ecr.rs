//! `ecr`: who is given a login of ECR. A login opens every registry its principal may read, so hosts are exact.

use super::{Check, values};
use crate::config::document::EcrPart;
use crate::config::settings::EcrSettings;
use crate::config::tree::shorten;
use crate::ecr::host::Registry;
use crate::model::names::is_dns_name;
use std::collections::BTreeMap;

/// The longest audience; Kubernetes has no limit, and `sts.amazonaws.com` is what AWS asks for.
const MAX_AUDIENCE: usize = 256;

impl Check<'_> {
    pub(super) fn ecr(&mut self, part: EcrPart) -> EcrSettings {
        let registries = self.list(&["ecr", "registries"], part.registries, registry);
        let mirrors = self.mirrors(part.mirrors.unwrap_or_default());
        let audience = self.parse(&["ecr", "service_account_audience"], part.service_account_audience, audience);
        EcrSettings {
            enabled: part.enabled,
            registries,
            mirrors,
            audience,
            certs_dir: self.parse(&["ecr", "certs_dir"], part.certs_dir, values::absolute),
        }
    }

    fn mirrors(&mut self, mirrors: BTreeMap<String, String>) -> BTreeMap<String, Registry> {
        let mut parsed = BTreeMap::new();
        for (host, of) in mirrors {
            if host.contains('@') {
                // Whatever stands before it may be a password: the key is not repeated.
                self.problem(
                    &["ecr", "mirrors"],
                    "the host of a mirror contains a user; its login is that of its registry",
                );
                continue;
            }
            let path = ["ecr", "mirrors", host.as_str()];
            let host = self.parse(&path, Some(&host), mirror);
            let registry = self.parse(&path, Some(of), registry);
            parsed.extend(host.zip(registry));
        }
        parsed
    }
}

/// A host of ECR.
fn registry(text: &str) -> Result<Registry, String> {
    const FORM: &str = "an ECR host such as 123456789012.dkr.ecr.eu-west-1.amazonaws.com or public.ecr.aws";
    Registry::parse(text).ok_or_else(|| {
        let why = if text.contains("://") {
            "it is the host alone, without https://"
        } else if text.contains('/') {
            "it is the host alone, without a path"
        } else if text.contains(':') {
            "ECR has no other port"
        } else {
            "hosts that only look like one are never given a login; another host goes to `ecr.mirrors`"
        };
        format!("{:?} is not {FORM}: {why}", shorten(text))
    })
}

/// A host that is not ECR's, as it stands in image references: with its port when it has one.
fn mirror(text: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(format!("{:?} is not a host such as registry.example.com:5000: {why}", shorten(text)));
    if text.contains("://") {
        return wrong("it is the host alone, without a scheme");
    }
    if text.contains('/') {
        return wrong("it is the host alone, without a path");
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n > 0);
    if port.is_some_and(|port| !is_port(port)) {
        return wrong("the port is not a number from 1 to 65535");
    }
    // Without a dot, a port or the name localhost it would be a folder of Docker Hub's in every reference.
    if !is_dns_name(name) || !(name.contains('.') || port.is_some() || name == "localhost") {
        return wrong("a name in lower case, or an IPv4 address");
    }
    if Registry::parse(name).is_some() {
        return wrong("it is a registry of ECR itself, which goes to `ecr.registries`");
    }
    if matches!(name, "docker.io" | "index.docker.io" | "registry-1.docker.io") {
        return wrong("it is Docker Hub, which is nobody's mirror");
    }
    Ok(text.to_owned())
}

/// It becomes the `aud` of tokens: a URI or a name.
fn audience(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/');
    if (1..=MAX_AUDIENCE).contains(&text.len()) && text.chars().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is not an audience such as sts.amazonaws.com", shorten(text)))
    }
}
