//! Names with a syntax: parsed once, then carried as types, so that nothing unchecked travels from the store to a file.

use crate::model::secret::Secret;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::Ipv6Addr;

macro_rules! text_newtype {
    ($name:ident) => {
        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $name::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

/// `host:port` of the control plane: a DNS name, an IPv4 address or a bracketed IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(String);
text_newtype!(Endpoint);

impl Endpoint {
    /// Parses `host:port`; the error says what is wrong with which part.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{text:?} is not host:port"))?;
        let number: u16 = port.parse().map_err(|_| format!("{port:?} in {text:?} is not a port (1-65535)"))?;
        if number == 0 || port.starts_with(['+', '0']) {
            return Err(format!("{port:?} in {text:?} is not a port (1-65535)"));
        }
        if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            inner.parse::<Ipv6Addr>().map_err(|_| format!("{inner:?} in {text:?} is not an IPv6 address"))?;
        } else if !is_dns_name(host) {
            return Err(format!("{host:?} in {text:?} is not a host name or address"));
        }
        Ok(Endpoint(text.to_owned()))
    }

    /// The host part, without brackets.
    pub fn host(&self) -> &str {
        let host = self.0.rsplit_once(':').map_or(self.0.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
    }
}

/// An AMI's id: `ami-` and 8 or 17 hexadecimal digits in lower case (EC2, "Resource IDs").
pub fn is_ami(text: &str) -> bool {
    let hex = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    text.strip_prefix("ami-").is_some_and(|digits| matches!(digits.len(), 8 | 17) && hex(digits))
}

/// Whether `text` is a DNS-1123 subdomain (or an IPv4 address, which has the same form): lower case letters, digits,
/// `-` and `.`, labels of 1 to 63 characters, 253 in all.
pub fn is_dns_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// Whether `text` is a DNS-1123 label.
pub fn is_dns_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// The pin of a cluster CA: `sha256:` and the lower-case hex SHA-256 of the DER SubjectPublicKeyInfo
/// (kubeadm `pubkeypin`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CaHash(String);
text_newtype!(CaHash);

impl CaHash {
    /// Parses a pin.
    pub fn parse(text: &str) -> Result<Self, String> {
        let hex = text.strip_prefix("sha256:").ok_or_else(|| format!("{text:?} does not begin with sha256:"))?;
        if hex.len() != 64 || !hex.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)) {
            return Err(format!("{text:?} is not sha256: and 64 lower-case hex digits"));
        }
        Ok(CaHash(text.to_owned()))
    }

    /// The pin of a DER SubjectPublicKeyInfo's digest.
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        CaHash(format!("sha256:{hex}"))
    }
}

/// A bootstrap token `id.secret` (`[a-z0-9]{6}\.[a-z0-9]{16}`). The id is public, the rest is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    id: String,
    secret: Secret,
}

impl BootstrapToken {
    /// Parses a token; the error never repeats the text, which may be a secret with a typing error.
    pub fn parse(text: &str) -> Result<Self, String> {
        let ok = |s: &str, n: usize| s.len() == n && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        match text.split_once('.') {
            Some((id, secret)) if ok(id, 6) && ok(secret, 16) => {
                Ok(BootstrapToken { id: id.to_owned(), secret: Secret::new(secret) })
            }
            _ => Err("the token is not of the form [a-z0-9]{6}.[a-z0-9]{16}".to_owned()),
        }
    }

    /// A token from 32 random bytes. Bytes of 252 and above are not evenly spread over 36 characters; with 32 bytes
    /// for 22 characters the few that fall out are skipped, and a draw with too few left gives `None`: draw again.
    pub fn from_random(bytes: &[u8; 32]) -> Option<Self> {
        const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut characters =
            bytes.iter().filter(|byte| **byte < 252).map(|byte| char::from(ALPHABET[usize::from(*byte) % 36]));
        let id: String = characters.by_ref().take(6).collect();
        let secret: String = characters.take(16).collect();
        (id.len() == 6 && secret.len() == 16).then(|| BootstrapToken { id, secret: Secret::new(secret) })
    }

    /// The public half: names the Secret `bootstrap-token-<id>` in kube-system.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The secret half.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The whole token, for the one document that must carry it.
    pub fn expose(&self) -> Secret {
        Secret::new(format!("{}.{}", self.id, self.secret.expose()))
    }
}

/// A cluster's name: a DNS label, for it is part of object keys and of `clusterName`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName(String);
text_newtype!(ClusterName);

impl ClusterName {
    /// Parses a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        if is_dns_label(text) {
            Ok(ClusterName(text.to_owned()))
        } else {
            Err(format!("{text:?} is not a DNS label (lower-case letters, digits and -, at most 63)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_host_and_port_and_nothing_else() {
        for good in ["api.prod.example.com:6443", "10.0.0.1:443", "[fd00::1]:6443", "localhost:1"] {
            assert_eq!(Endpoint::parse(good).map(|e| e.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "api",
            "api:",
            ":6443",
            "api:0",
            "api:65536",
            "api:+1",
            "api:06443",
            "https://api:6443",
            "api:6443\n",
            "a b:1",
            "$(id):6443",
            "api;reboot:6443",
            "api\n:6443",
            "[::1:6443",
            "fd00::1:6443",
            "API:6443",
            "-a:1",
            "api:6443/path",
            "a..b:1",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(
            Endpoint::parse("[fd00::1]:6443").map(|e| (e.host().to_owned(), e.port())),
            Ok(("fd00::1".to_owned(), 6443))
        );
    }

    #[test]
    fn ca_hashes_have_one_form() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert!(CaHash::parse(&good).is_ok());
        assert_eq!(CaHash::from_digest(&[0x0a; 32]).as_str(), good);
        for bad in ["", "sha256:", &good[..70], &format!("{good}0"), &good.to_uppercase(), &good[7..]] {
            assert!(CaHash::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn tokens_have_one_form_and_errors_do_not_repeat_them() {
        assert!(BootstrapToken::parse("abcdef.0123456789abcdef").is_ok());
        for bad in [
            "",
            "abcdef",
            "abcdef.0123456789abcde",
            "abcdef.0123456789abcdef\n",
            "ABCDEF.0123456789abcdef",
            "abc$ef.0123456789abcdef",
        ] {
            let error = BootstrapToken::parse(bad).expect_err(bad);
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
    }

    #[test]
    fn random_tokens_are_well_formed_and_skip_uneven_bytes() {
        let token = BootstrapToken::from_random(&[7; 32]).expect("enough bytes");
        assert!(BootstrapToken::parse(token.expose().expose()).is_ok());
        assert!(BootstrapToken::from_random(&[255; 32]).is_none());
        assert!(!format!("{token:?}").contains(token.secret().expose()));
    }
}
