//! The registry's host in an image reference, as the kubelet passes it (`host[:port]/path[:tag][@digest]`).

/// The longest reference that is looked at: 255 bytes of name (distribution/reference), a tag of 128 and a digest.
const MAX_REFERENCE: usize = 1024;

/// Host and port of the registry an image is pulled from, without a scheme; `port` is what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryHost<'a> {
    /// The host name.
    pub name: &'a str,
    /// The port, when one was written.
    pub port: Option<&'a str>,
    /// Both, as they were written.
    pub whole: &'a str,
}

/// The registry of an image, or what is wrong with the reference.
///
/// Only lower case ASCII is taken: a host has one spelling here, so that what is compared is what is contacted.
pub fn registry_of(image: &str) -> Result<RegistryHost<'_>, String> {
    if image.is_empty() {
        return Err("it is empty".to_owned());
    }
    if image.len() > MAX_REFERENCE {
        return Err(format!("it has {} bytes, and a reference has at most {MAX_REFERENCE}", image.len()));
    }
    if image.contains("://") {
        return Err("it has a scheme: a reference begins with the registry's host".to_owned());
    }
    let Some((whole, path)) = image.split_once('/') else {
        return Err("it names no registry, so it is Docker Hub's".to_owned());
    };
    if path.is_empty() {
        return Err("it ends behind the registry's host".to_owned());
    }
    let (name, port) = whole.split_once(':').map_or((whole, None), |(name, port)| (name, Some(port)));
    if !(name.contains('.') || port.is_some() || name == "localhost") {
        return Err("it names no registry, so it is Docker Hub's".to_owned());
    }
    if !is_host(name) {
        return Err("its host is not of lower case letters, digits, hyphens and dots".to_owned());
    }
    if port.is_some_and(|port| port.is_empty() || port.len() > 5 || !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("its port is not a number".to_owned());
    }
    Ok(RegistryHost { name, port, whole })
}

fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_stands_before_the_path() {
        let ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        let table = [
            (format!("{ecr}/team/app:v1"), (ecr, None)),
            (format!("{ecr}/app@sha256:{}", "0".repeat(64)), (ecr, None)),
            (format!("{ecr}:443/app"), (ecr, Some("443"))),
            ("localhost/app".to_owned(), ("localhost", None)),
        ];
        for (image, expected) in &table {
            assert_eq!(registry_of(image).map(|host| (host.name, host.port)).as_ref(), Ok(expected));
        }
        assert_eq!(registry_of("mirror.corp:5000/a/b:c").map(|host| host.whole), Ok("mirror.corp:5000"));
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_reason() {
        let table = [
            ("", "it is empty"),
            ("nginx", "Docker Hub"),
            ("library/nginx", "Docker Hub"),
            ("https://public.ecr.aws/a", "scheme"),
            ("public.ecr.aws/", "ends behind"),
            ("Public.ecr.aws/a", "lower case"),
            ("public.ecr.aws./a", "lower case"),
            ("user@public.ecr.aws/a", "lower case"),
            ("public.ecr.aws\n/a", "lower case"),
            ("publ\u{456}c.ecr.aws/a", "lower case"),
            ("public%2eecr.aws/a", "lower case"),
            ("public.ecr.aws:x/a", "number"),
            ("public.ecr.aws:/a", "number"),
            ("public.ecr.aws:443:443/a", "number"),
            ("/a", "Docker Hub"),
        ];
        for (image, why) in table {
            let said = registry_of(image).expect_err(image);
            assert!(said.contains(why), "{image:?}: {said}");
        }
        assert!(registry_of(&format!("a.b/{}", "c".repeat(MAX_REFERENCE))).is_err());
    }
}
