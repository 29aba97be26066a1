//! What lies on the machine: torn by a power cut, edited by a person, printed by kubeadm.

use super::{is_readable, text};
use crate::world::world;
use kubestrap_core::journal::{Entry, Journal, Line};
use kubestrap_core::kubeadm::{machine, output};
use kubestrap_core::model::cause::Outcome;
use kubestrap_core::model::secret::redact;
use kubestrap_core::ports::JobEnd;

pub(super) fn certificate(bytes: &[u8]) {
    if let Err(why) = machine::ca_hash(bytes) {
        assert!(!why.is_empty(), "no word why");
    }
    let _ = machine::expiry(bytes);
}

/// A journal is read whole or refused. A last line that is torn is as good as none.
pub(super) fn journal(bytes: &[u8]) {
    let of = |bytes: &[u8]| {
        let world = world(bytes, 200);
        let journal = Journal::new(world.files.clone(), world.time.clone());
        (journal.lines(), journal.attempt())
    };
    let (lines, attempt) = of(bytes);
    if let Err(failure) = &lines {
        is_readable(failure);
    }
    if let Err(failure) = &attempt {
        is_readable(failure);
    }
    if let Ok(lines) = lines
        && (bytes.is_empty() || bytes.ends_with(b"\n"))
    {
        let torn = [bytes, b"{\"at\":\"20".as_slice()].concat();
        assert_eq!(of(&torn).0.as_ref(), Ok(&lines), "a torn line changes the others");
        if lines.len() == bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count() {
            is_healed(bytes, &lines, |bytes| of(bytes).0);
        }
    }
}

/// A journal of whole lines that was cut anywhere, and continued behind a line feed, tells the lines before the cut and
/// the new one.
fn is_healed(bytes: &[u8], lines: &[Line], read: impl Fn(&[u8]) -> Outcome<Vec<Line>>) {
    const NEXT: &str = r#"{"schema":1,"at":"2026-11-21T00:00:00Z","attempt":"00000000-0000-0000-0000-000000000001","entry":"completed"}"#;
    for cut in bytes.len().saturating_sub(200)..bytes.len() {
        let healed = [&bytes[..cut], b"\n", NEXT.as_bytes(), b"\n"].concat();
        let found = read(&healed).unwrap_or_else(|failure| panic!("cut at {cut}: {failure}"));
        let (last, before) = found.split_last().expect("a line at least");
        assert!(lines.starts_with(before) && last.entry == Entry::Completed, "cut at {cut}: {found:?}");
    }
}

/// Whether a text has a bootstrap token anywhere, or a key of 64 hex digits that is no pin.
fn has_secret(text: &str) -> bool {
    let lower = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_token = |w: &[u8]| w[6] == b'.' && w[..6].iter().all(lower) && w[7..].iter().all(lower);
    let bytes = text.as_bytes();
    let mut at = 0;
    let is_key = |part: &[u8]| {
        let pin = part.len() == 64 && bytes[..at].ends_with(b"sha256:");
        at += part.len() + 1;
        part.len() >= 64 && !pin
    };
    bytes.windows(23).any(is_token) || bytes.split(|byte| !byte.is_ascii_hexdigit()).any(is_key)
}

pub(super) fn kubeadm_output(bytes: &[u8]) {
    let text = text(bytes);
    let clean = redact(&text);
    assert!(!has_secret(&clean), "a secret is left: {clean:?}");
    assert_eq!(redact(&clean), clean, "redacting twice is another thing");
    let tail = output::tail(&text);
    assert!(tail.iter().all(|line| !has_secret(line)), "a secret is in the log's tail: {tail:?}");
    let failure = output::failure("init", &JobEnd::Exited(1), &text);
    is_readable(&failure);
    assert!(!has_secret(&failure.to_string()), "a secret is in the error: {failure}");
    assert!(!tail.iter().any(|line| line.contains(char::is_control)), "control characters in a line: {tail:?}");
}
