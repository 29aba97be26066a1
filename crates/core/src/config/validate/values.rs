//! What single values must look like. Every function is pure; an error says what is wrong and quotes the value.

use crate::config::settings::StoreLocation;
use crate::config::tree::shorten;
use crate::model::names::is_dns_name;
use crate::model::version::{KubeVersion, OLDEST_KUBEADM_MINOR};
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// S3's limit for a key is 1024 bytes; ours need at most 400 behind the prefix (an instance ARN and names).
const MAX_PREFIX: usize = 512;
/// Said of a URL with an `@`, whatever else is wrong with it, and without quoting it: it may contain a password.
const USER_IN_URL: &str = "the URL contains a user; credentials come from the instance profile or ~/.aws";

/// `s3://bucket/prefix` or `file:///folder`.
pub fn store(text: &str) -> Result<StoreLocation, String> {
    if let Some(rest) = text.strip_prefix("s3://") {
        if rest.contains('@') {
            return Err(USER_IN_URL.to_owned());
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        bucket_name(bucket)?;
        key_prefix(prefix)?;
        return Ok(StoreLocation::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
    }
    if let Some(path) = text.strip_prefix("file://") {
        return Ok(StoreLocation::Folder(absolute(path)?));
    }
    Err(format!("{:?} is not a store: s3://bucket/prefix or file:///folder", shorten(text)))
}

/// General purpose buckets (S3 user guide, "Bucket naming rules").
fn bucket_name(name: &str) -> Result<(), String> {
    let characters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let edges = edge(name.chars().next()) && edge(name.chars().next_back());
    if (3..=63).contains(&name.len()) && name.chars().all(characters) && edges && !name.contains("..") {
        Ok(())
    } else {
        Err(format!("{:?} is not a bucket name: 3 to 63 lower-case letters, digits, - and .", shorten(name)))
    }
}

fn key_prefix(prefix: &str) -> Result<(), String> {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    let segments = prefix.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if prefix.is_empty() || (prefix.len() <= MAX_PREFIX && prefix.chars().all(safe) && segments) {
        Ok(())
    } else {
        Err(format!("{:?} is not a prefix: letters, digits, -, _ and . between single slashes", shorten(prefix)))
    }
}

/// An absolute path without `..` and control characters.
pub fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if path.is_absolute() && !climbs && !text.chars().any(char::is_control) {
        Ok(path.to_owned())
    } else {
        Err(format!("{:?} is not an absolute path without ..", shorten(text)))
    }
}

/// A manifest, or all of a folder: `/dir/*.yaml`.
pub fn addon(text: &str) -> Result<PathBuf, String> {
    let path = absolute(text)?;
    if path.parent().is_some_and(|folder| folder.to_string_lossy().contains('*')) {
        return Err(format!("{text:?} has a * outside of the file name"));
    }
    let extension = path.extension().and_then(|ext| ext.to_str());
    if !matches!(extension, Some("yaml" | "yml" | "json")) {
        return Err(format!("{text:?} is not a manifest: its name must end in .yaml, .yml or .json"));
    }
    Ok(path)
}

/// A file for node_exporter's textfile collector, which reads `*.prom` only.
pub fn textfile(text: &str) -> Result<PathBuf, String> {
    let path = absolute(text)?;
    if path.extension().is_some_and(|ext| ext == "prom") {
        Ok(path)
    } else {
        Err(format!("{text:?} must end in .prom, or node_exporter does not read it"))
    }
}

/// `http(s)://host[:port]` without user, path or query.
pub fn base_url(text: &str) -> Result<String, String> {
    if text.contains('@') {
        return Err(USER_IN_URL.to_owned());
    }
    let wrong = |why: &str| Err(format!("{:?} is not a base URL such as https://s3.example.com: {why}", shorten(text)));
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return wrong("it must begin with https:// or http://");
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => match port.parse::<u16>() {
            Ok(number) if number > 0 => host,
            _ => return wrong("the port is not a number from 1 to 65535"),
        },
        _ => authority,
    };
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = literal.map_or(is_dns_name(host), |literal| literal.parse::<std::net::Ipv6Addr>().is_ok());
    if is_host {
        Ok(text.strip_suffix('/').unwrap_or(text).to_owned())
    } else {
        wrong("the host is not a name or address, or something follows it")
    }
}

/// A Kubernetes version our kubeadm documents fit.
pub fn version(text: &str) -> Result<KubeVersion, String> {
    let version = KubeVersion::parse(text)?;
    if version.major != 1 || version.minor < OLDEST_KUBEADM_MINOR {
        return Err(format!(
            "{version} is not supported: kubeadm's v1beta4 documents need v1.{OLDEST_KUBEADM_MINOR} or newer"
        ));
    }
    Ok(version)
}

/// A network: address and prefix length.
pub type Network = (IpAddr, u8);

/// One CIDR, or an IPv4 and an IPv6 one (dual stack) with a comma between them.
pub fn networks(text: &str) -> Result<Vec<Network>, String> {
    let networks: Vec<Network> = text.split(',').map(network).collect::<Result<_, _>>()?;
    match networks.as_slice() {
        [_] => Ok(networks),
        [(a, _), (b, _)] if a.is_ipv4() != b.is_ipv4() => Ok(networks),
        _ => Err(format!("{:?} must be one network, or one of IPv4 and one of IPv6", shorten(text))),
    }
}

fn network(text: &str) -> Result<Network, String> {
    let wrong = || format!("{:?} is not a network such as 10.244.0.0/16 or fd00:10::/56", shorten(text));
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let plain = !length.is_empty() && length.len() <= 3 && length.chars().all(|c| c.is_ascii_digit());
    let length: u8 = length.parse().ok().filter(|length| plain && *length <= width).ok_or_else(wrong)?;
    let base = masked(address, length);
    if base != address {
        return Err(format!("{text:?} has bits behind its prefix; the network is {base}/{length}"));
    }
    Ok((address, length))
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) & u32::MAX.checked_shl(32 - length).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & u128::MAX.checked_shl(128 - length).unwrap_or(0)).into()),
    }
}

/// Whether two networks share addresses.
pub fn overlap(a: Network, b: Network) -> bool {
    let shorter = a.1.min(b.1);
    a.0.is_ipv4() == b.0.is_ipv4() && masked(a.0, shorter) == masked(b.0, shorter)
}

/// An address a node can have.
pub fn node_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| format!("{:?} is not an IP address", shorten(text)))?;
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return Err(format!("{text:?} cannot be the address of a node"));
    }
    Ok(address)
}

/// `address:port`, local unless `remote`.
pub fn listen(text: &str, remote: bool) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| format!("{:?} is not address:port such as 127.0.0.1:9753", shorten(text)))?;
    if address.port() == 0 {
        return Err(format!("{text:?} has no port"));
    }
    if !remote && !address.ip().is_loopback() {
        return Err(format!("{text:?} can be reached by other machines; metrics have no access control"));
    }
    Ok(address)
}

/// A duration: whole numbers with the units d, h, m, s, larger units first (`1h30m`).
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{:?} is not a duration such as 90s, 10m or 1h30m", shorten(text));
    let mut rest = text;
    let mut seconds: u64 = 0;
    let mut units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)].into_iter();
    if text.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (digits, tail) = rest.split_at(end);
        let (unit, next) = tail.split_at(tail.chars().next().map_or(0, char::len_utf8));
        let (_, factor) = units.find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        seconds = number.checked_mul(factor).and_then(|more| seconds.checked_add(more)).ok_or_else(wrong)?;
        rest = next;
    }
    Ok(Duration::from_secs(seconds))
}

/// A duration within bounds that are named in the error.
pub fn bounded(text: &str, least: &str, most: &str) -> Result<Duration, String> {
    let value = duration(text)?;
    if value < duration(least)? || value > duration(most)? {
        return Err(format!("{text} is not between {least} and {most}"));
    }
    Ok(value)
}

/// A name or address in a certificate; `*.` may begin a name.
pub fn cert_san(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if text.parse::<IpAddr>().is_ok() || is_dns_name(name) {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is neither a DNS name nor an IP address", shorten(text)))
    }
}

/// A DNS-1123 subdomain.
pub fn dns_name(text: &str) -> Result<String, String> {
    if is_dns_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is not a DNS name (lower-case letters, digits, - and .)", shorten(text)))
    }
}

/// Registry, port and path.
pub fn image_repository(text: &str) -> Result<String, String> {
    let safe = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_' | ':' | '/');
    let parts = text.split('/').all(|part| !part.is_empty());
    if !text.is_empty() && text.len() <= 255 && text.chars().all(safe) && parts {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is not a repository such as registry.k8s.io or registry.example.com/k8s", shorten(text)))
    }
}

/// `unix:///path`.
pub fn cri_socket(text: &str) -> Result<String, String> {
    match text.strip_prefix("unix://") {
        Some(path) if absolute(path).is_ok() && !path.contains(char::is_whitespace) => Ok(text.to_owned()),
        _ => Err(format!("{:?} is not a socket such as unix:///run/containerd/containerd.sock", shorten(text))),
    }
}

/// A region: `eu-west-1`, `us-gov-east-1`.
pub fn region(text: &str) -> Result<String, String> {
    let safe = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=64).contains(&text.len()) && text.chars().all(safe) {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is not a region such as eu-west-1", shorten(text)))
    }
}

/// An AWS account.
pub fn account(text: &str) -> Result<String, String> {
    if text.len() == 12 && text.chars().all(|c| c.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is not an account: twelve digits", shorten(text)))
    }
}

/// A KMS key id, ARN or alias.
pub fn kms_key(text: &str) -> Result<String, String> {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '/' | '-' | '_');
    if (1..=2048).contains(&text.len()) && text.chars().all(safe) {
        Ok(text.to_owned())
    } else {
        Err(format!("{:?} is not a KMS key id, ARN or alias", shorten(text)))
    }
}
