//! A text that cannot be printed by accident.

use std::fmt;
use std::ops::Range;
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

/// `text` without anything that has the form of a bootstrap token, a certificate key (64 hex digits), a JWT, a PEM
/// private key, or user and password of a URL, wherever it stands: `\n` and `\t` that a program printed as two characters
/// run into what follows them. kubeadm prints all of the former, and the latter where it warns of a proxy
/// (`HTTPProxyCheck`); its output is copied only through here.
///
/// CA hashes (`sha256:` and 64 hex digits) are public and stay.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        let [begin, end] =
            ["-----BEGIN", "-----END"].map(|word| line.rfind(word).filter(|_| line.contains("PRIVATE KEY")));
        if begin.is_some() {
            in_key = true;
            out.push_str(MASK);
            out.push('\n');
        }
        if !in_key {
            redact_line(line, &mut out);
        }
        // One line can end a key and begin another.
        if end.is_some() && end >= begin {
            in_key = false;
        }
    }
    out
}

fn redact_line(line: &str, out: &mut String) {
    // All are looked for in the original: masking one could hide half of another.
    let mut secrets: Vec<Range<usize>> = [tokens(line), hex_keys(line), jwts(line), users(line)].concat();
    secrets.sort_by_key(|secret| secret.start);
    let mut shown = 0;
    for secret in secrets {
        if secret.start >= shown {
            out.push_str(&line[shown..secret.start]);
            out.push_str(MASK);
        }
        shown = shown.max(secret.end);
    }
    out.push_str(&line[shown..]);
}

/// How many of the bytes from `start` on are of a kind.
fn run(line: &str, start: usize, kind: impl Fn(u8) -> bool) -> usize {
    line.as_bytes()[start..].iter().take_while(|byte| kind(**byte)).count()
}

/// Every `[a-z0-9]{6}.[a-z0-9]{16}`; what runs on behind it goes too.
fn tokens(line: &str) -> Vec<Range<usize>> {
    let is_lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let token = |(dot, _): (usize, &str)| {
        let start = dot.checked_sub(6)?;
        let secret = run(line, dot + 1, is_lower);
        (line.as_bytes()[start..dot].iter().all(|byte| is_lower(*byte)) && secret >= 16)
            .then_some(start..dot + 1 + secret)
    };
    line.match_indices('.').filter_map(token).collect()
}

/// Every run of 64 hex digits or more that is no pin.
fn hex_keys(line: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < line.len() {
        let digits = run(line, at, |byte| byte.is_ascii_hexdigit());
        if digits > 64 || (digits == 64 && !line.as_bytes()[..at].ends_with(b"sha256:")) {
            found.push(at..at + digits);
        }
        at += digits + 1;
    }
    found
}

/// Every JWT: base64 of `{"`, and more than any word has.
fn jwts(line: &str) -> Vec<Range<usize>> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let mut found: Vec<Range<usize>> = Vec::new();
    for (start, _) in line.match_indices("eyJ") {
        if found.last().is_some_and(|last| start < last.end) {
            continue;
        }
        let length = run(line, start, is_word);
        // A short one is kept so that its word is not measured again from every place in it.
        found.push(start..start + length);
    }
    found.retain(|jwt| jwt.len() > 40);
    found
}

/// What stands before the `@` of every URL's host.
fn users(line: &str) -> Vec<Range<usize>> {
    let ends = |c: char| c == '/' || c == '"' || c == '\'' || c.is_whitespace();
    let user = |(at, separator): (usize, &str)| {
        let start = at + separator.len();
        let authority = &line[start..];
        let authority = &authority[..authority.find(ends).unwrap_or(authority.len())];
        let length = authority.rfind('@').filter(|length| *length > 0)?;
        Some(start..start + length)
    };
    line.match_indices("://").filter_map(user).collect()
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
        assert_eq!(redact("bad token abcdef.0123456789abcdef."), "bad token <secret>.");
        assert_eq!(redact("v1.36.1 on 10.0.0.1:6443"), "v1.36.1 on 10.0.0.1:6443");
    }

    #[test]
    fn a_url_loses_its_user_and_password_and_nothing_else() {
        let warning = |user: &str| {
            format!(
                "[WARNING HTTPProxy]: Connection to \"https://10.0.0.1\" uses proxy \"http://{user}proxy:3128\". If that is not \
                 intended, adjust your proxy settings"
            )
        };
        for user in ["user:hunter2@", "hunter2@", "user:p%40hunter2@", "user:p@hunter2@", ":hunter2@"] {
            assert_eq!(redact(&warning(user)), warning("<secret>@"), "{user}");
        }
        for plain in [
            "https://10.0.0.1:6443/api?x=a@b and admin@example.com",
            "registry.k8s.io/pause:3.10@sha256:0011",
            "s3://bucket/a@b",
            "://@x",
        ] {
            assert_eq!(redact(plain), plain);
        }
    }

    #[test]
    fn private_keys_lose_every_line() {
        let text = "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----\nb\n";
        assert_eq!(redact(text), "a\n<secret>\nb\n");
    }

    #[test]
    fn a_secret_that_runs_into_other_text_is_found() {
        let key = "0123456789abcdef".repeat(4);
        let jwt = format!("eyJ{}", "a".repeat(40));
        for (text, shown) in [
            // A log line in JSON, a Go struct, an ANSI colour: the letter before it is not part of it.
            (r#""msg":"join with\nabcdef.0123456789abcdef\n""#.to_owned(), r#""msg":"join with\n<secret>\n""#),
            ("\u{1b}[31mabcdef.0123456789abcdef".to_owned(), "\u{1b}[31m<secret>"),
            ("bootstrap-token-abcdef.0123456789abcdef.x".to_owned(), "bootstrap-token-<secret>.x"),
            (format!("key=\\t{key}"), "key=\\t<secret>"),
            (format!("\\n{jwt}"), "\\n<secret>"),
            // Two that overlap: masking the first must not show the second.
            ("abcdef.0123456789uvwxyz.0123456789abcdef".to_owned(), "<secret>"),
        ] {
            assert_eq!(redact(&text), shown, "{text}");
            assert_eq!(redact(shown), shown);
        }
    }

    #[test]
    fn a_line_that_ends_one_key_and_begins_another_hides_both() {
        let text =
            "-----END RSA PRIVATE KEY----------BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----\nb\n";
        assert_eq!(redact(text), "<secret>\nb\n");
    }

    #[test]
    fn long_texts_take_time_in_proportion() {
        // Quadratic, these would take hours.
        for piece in ["eyJ", "abcdef.", "0123456789abcdef", "a.", "eyJ "] {
            let text = piece.repeat(1_000_000 / piece.len());
            assert!(redact(&text).len() <= text.len(), "{piece}");
        }
    }
}
