//! References of images.

use crate::config::tree::shorten;
use crate::model::names::is_dns_name;

/// What is meant by "its registry" is shown by an example.
const NO_REGISTRY: &str = "name its registry, as in docker.io/library/nginx:1.29";

/// A reference with its registry, and with a tag or a digest. containerd itself knows no short names, and an image of
/// no fixed version would not be the one that a pod names later.
pub fn image(text: &str) -> Result<String, String> {
    check(text).map(|()| text.to_owned()).map_err(|why| format!("{:?} is not an image: {why}", shorten(text)))
}

fn check(text: &str) -> Result<(), &'static str> {
    let (host, rest) = text.split_once('/').ok_or(NO_REGISTRY)?;
    if text.len() > 512 || !is_registry(host) {
        return Err(NO_REGISTRY);
    }
    let (rest, digest) = rest.split_once('@').map_or((rest, None), |(rest, digest)| (rest, Some(digest)));
    let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
    if !path.split('/').all(is_part) {
        return Err("its path is lower-case letters and digits, with . - _ between them");
    }
    if !tag.is_none_or(is_tag) {
        return Err("its tag is letters and digits, with . - _ after the first");
    }
    if !digest.is_none_or(is_digest) {
        return Err("its digest is not sha256: and 64 hex digits");
    }
    if tag.is_none() && digest.is_none() {
        return Err("it has neither a tag nor a digest");
    }
    Ok(())
}

/// A first part without a dot or a port is part of a path on Docker Hub (distribution's reference grammar).
fn is_registry(host: &str) -> bool {
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let is_host = is_dns_name(name) && (name.contains('.') || name == "localhost" || port.is_some());
    is_host && port.is_none_or(|port| port.chars().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

fn is_part(part: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(letter)
        && part.ends_with(letter)
        && part.chars().all(|c| letter(c) || matches!(c, '.' | '-' | '_'))
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_digest(digest: &str) -> bool {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    digest.strip_prefix("sha256:").is_some_and(|text| text.len() == 64 && text.chars().all(hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_reference_with_a_registry_is_taken() {
        let digest = "a".repeat(64);
        for text in [
            "registry.k8s.io/pause:3.10",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app_x/agent-2:v1.4_5-rc.1",
            "localhost/a:1",
            "registry:5000/a/b:Latest",
            &format!("registry.example.com:5000/a@sha256:{digest}"),
            &format!("registry.example.com/a:1@sha256:{digest}"),
        ] {
            assert_eq!(image(text).as_deref(), Ok(text));
        }
        for text in [
            "",
            "/",
            "a",
            "registry.k8s.io/",
            "registry.k8s.io/:1",
            "registry.k8s.io/a:",
            "registry.k8s.io/a:-x",
            "registry.k8s.io:port/a:1",
            "registry.k8s.io:+80/a:1",
            "registry.k8s.io/-a:1",
            "registry.k8s.io/a :1",
            "registry.k8s.io/a:1\n",
            "registry.k8s.io/a:1:2",
            "registry.k8s.io/../a:1",
            "Registry.k8s.io/a:1",
            &format!("registry.k8s.io/a@sha512:{digest}"),
        ] {
            assert!(image(text).is_err(), "{text:?}");
        }
    }
}
