//! Bootstrap tokens: syntax, and the Secret they are (k8s.io/cluster-bootstrap/token/api).

use super::Failure;
use super::documents::BootstrapToken;
use crate::{files, golang};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Id and secret of a token, when it has the form `[a-z0-9]{6}.[a-z0-9]{16}`.
pub fn parse(token: &str) -> Option<(&str, &str)> {
    let ok = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    token.split_once('.').filter(|(id, secret)| ok(id, 6) && ok(secret, 16))
}

/// A random token.
///
/// # Errors
/// When there is no randomness.
pub fn random() -> Result<String, Failure> {
    let bytes = files::random_bytes::<32>()?;
    let hex = files::hex(&bytes);
    Ok(format!("{}.{}", &hex[..6], &hex[6..22]))
}

/// The Secret of a token in kube-system; its time to live begins now.
///
/// # Errors
/// When the token or its times do not parse.
pub fn secret(token: &BootstrapToken) -> Result<Value, Failure> {
    let (id, secret) = parse(&token.token).ok_or_else(|| Failure::new("the bootstrap token is invalid"))?;
    let mut data = Map::new();
    let mut put = |name: &str, value: &str| data.insert(name.to_owned(), json!(STANDARD.encode(value)));
    put("token-id", id);
    put("token-secret", secret);
    if !token.description.is_empty() {
        put("description", &token.description);
    }
    let expires = match (&token.expires, &token.ttl) {
        (Some(at), _) => Some(at.parse::<Timestamp>().map_err(|e| Failure::new(format!("invalid expires: {e}")))?),
        (None, Some(ttl)) => {
            let ttl = golang::parse_duration(ttl).map_err(Failure::new)?;
            // A time to live of zero is a token that never expires.
            (!ttl.is_zero()).then(|| Timestamp::now() + ttl)
        }
        (None, None) => None,
    };
    if let Some(at) = expires {
        // RFC 3339 in whole seconds, as kubeadm writes it.
        put("expiration", &at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    for usage in token.usages.iter().flatten() {
        put(&format!("usage-bootstrap-{usage}"), "true");
    }
    if let Some(groups) = token.groups.as_ref().filter(|groups| !groups.is_empty()) {
        put("auth-extra-groups", &groups.join(","));
    }
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token", "data": data,
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
    }))
}
