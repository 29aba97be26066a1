//! What lies on the machine: torn by a power cut, edited by a person, printed by kubeadm.

use super::{is_readable, text};
use crate::world::world;
use kubestrap_core::journal::Journal;
use kubestrap_core::kubeadm::{machine, output};
use kubestrap_core::model::names::BootstrapToken;
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
        assert_eq!(of(&torn).0, Ok(lines), "a torn line changes the others");
    }
}

/// Whether a text has the form of a bootstrap token anywhere, with no word character on either side.
fn has_token(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.split(|c| !is_word(c)).any(|word| BootstrapToken::parse(word).is_ok())
}

pub(super) fn kubeadm_output(bytes: &[u8]) {
    let text = text(bytes);
    let clean = redact(&text);
    assert!(!has_token(&clean), "a token is left: {clean:?}");
    assert_eq!(redact(&clean), clean, "redacting twice is another thing");
    let tail = output::tail(&text);
    assert!(tail.iter().all(|line| !has_token(line)), "a token is in the log's tail: {tail:?}");
    let failure = output::failure("init", &JobEnd::Exited(1), &text);
    is_readable(&failure);
    assert!(!has_token(&failure.to_string()), "a token is in the error: {failure}");
    let escapes = failure.to_string().chars().any(|c| c == '\u{1b}');
    assert!(!escapes, "a terminal escape is in the error: {failure:?}");
}
