//! Detached JWS with HS256, as `k8s.io/cluster-bootstrap/token/jws` signs cluster-info with a bootstrap token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The detached signature (`header..signature`) of `content` with the token's secret; `kid` is the token's id.
pub fn sign(content: &str, token_id: &str, token_secret: &str) -> Option<String> {
    let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"HS256\",\"kid\":\"{token_id}\"}}"));
    let payload = URL_SAFE_NO_PAD.encode(content);
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(token_secret.as_bytes()).ok()?;
    mac.update(format!("{header}.{payload}").as_bytes());
    Some(format!("{header}..{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())))
}

/// Whether a detached signature is the one this token makes of this content.
pub fn is_valid(detached: &str, content: &str, token_id: &str, token_secret: &str) -> bool {
    sign(content, token_id, token_secret).is_some_and(|ours| ours == detached)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of `jws_test.go` in k8s.io/cluster-bootstrap.
    #[test]
    fn the_vector_of_cluster_bootstrap() {
        let expected = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8";
        let signed = sign(
            "Hello from the other side. I must have called a thousand times.",
            "joshua",
            "my voice is my passcode",
        );
        assert_eq!(signed.as_deref(), Some(expected));
        assert!(!is_valid(expected, "changed", "joshua", "my voice is my passcode"));
    }
}
