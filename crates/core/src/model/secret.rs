//! A text that cannot be printed by accident.

use std::fmt;
use zeroize::Zeroizing;

/// A secret text: no `Display`, a `Debug` that hides it, wiped from memory when dropped.
///
/// It has no `Serialize`, so that a report or a log line cannot contain one; the few documents that must carry it
/// call [`Secret::expose`], which is easy to find in review.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(Zeroizing::new(text.into()))
    }

    /// The secret itself; only for the document or request that must carry it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Shown instead of a secret in `plan`, `config show` and copied output.
pub const MASK: &str = "<secret>";

/// `text` without anything that has the form of a bootstrap token, a certificate key (64 hex digits), a JWT or a PEM
/// private key. kubeadm prints all of the former; its output is copied only through here.
///
/// CA hashes (`sha256:` and 64 hex digits) are public and stay.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
            in_key = true;
            out.push_str(MASK);
            out.push('\n');
        }
        if !in_key {
            redact_line(line, &mut out);
        }
        if line.contains("-----END") && line.contains("PRIVATE KEY") {
            in_key = false;
        }
    }
    out
}

fn redact_line(line: &str, out: &mut String) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut rest = line;
    let mut before = String::new();
    while !rest.is_empty() {
        let word_len = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(word_len);
        out.push_str(if looks_secret(word, &before) { MASK } else { word });
        let gap_len = tail.find(is_word).unwrap_or(tail.len());
        let (gap, next) = tail.split_at(gap_len);
        out.push_str(gap);
        before = format!("{word}{gap}");
        rest = next;
    }
}

fn looks_secret(word: &str, before: &str) -> bool {
    let lower = |s: &str| s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    // A sentence may end right behind a token, so trailing dots do not count.
    let bare = word.trim_end_matches('.');
    let token =
        bare.split_once('.').is_some_and(|(id, key)| id.len() == 6 && key.len() == 16 && lower(id) && lower(key));
    let hex_key = bare.len() == 64 && bare.chars().all(|c| c.is_ascii_hexdigit()) && !before.ends_with("sha256:");
    let jwt = bare.starts_with("eyJ") && bare.len() > 40;
    token || hex_key || jwt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "<secret>");
    }

    #[test]
    fn what_kubeadm_prints_is_redacted_and_the_public_hash_stays() {
        let hash = "a".repeat(64);
        let key = "0123456789abcdef".repeat(4);
        let text = format!(
            "kubeadm join api:6443 --token abcdef.0123456789abcdef \\\n  --discovery-token-ca-cert-hash sha256:{hash} --certificate-key {key}\n"
        );
        let shown = redact(&text);
        assert!(!shown.contains("0123456789abcdef"), "{shown}");
        assert!(shown.contains(&format!("sha256:{hash}")), "{shown}");
        assert!(shown.contains("--token <secret> \\\n"), "{shown}");
    }

    #[test]
    fn a_token_is_found_in_quotes_and_at_the_end_of_a_sentence() {
        assert_eq!(redact("token \"abcdef.0123456789abcdef\" not found"), "token \"<secret>\" not found");
        assert_eq!(redact("bad token abcdef.0123456789abcdef."), "bad token <secret>");
        assert_eq!(redact("v1.36.1 on 10.0.0.1:6443"), "v1.36.1 on 10.0.0.1:6443");
    }

    #[test]
    fn private_keys_lose_every_line() {
        let text = "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----\nb\n";
        assert_eq!(redact(text), "a\n<secret>\nb\n");
    }
}
