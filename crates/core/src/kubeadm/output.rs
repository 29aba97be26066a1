//! What a failed kubeadm's output says about the cause. The words are kubeadm's own (1.31 to 1.36); an output that is
//! not recognised is `ToolFailed` with its tail.

use crate::model::cause::{Cause, Failure};
use crate::model::plain::is_plain;
use crate::model::secret::redact;
use crate::ports::JobEnd;

/// How many lines of a failed kubeadm go into the error and the report.
const TAIL_LINES: usize = 12;

/// Phrases of kubeadm's output, the cause they speak of; the first that is found decides.
const PHRASES: &[(&str, Cause)] = &[
    ("container runtime is not running", Cause::RuntimeNotReady),
    ("could not connect to the container runtime", Cause::RuntimeNotReady),
    ("could not find a JWS signature", Cause::TokenGone),
    ("invalid bearer token", Cause::TokenGone),
    ("token id \"", Cause::TokenGone),
    ("Unauthorized", Cause::TokenGone),
    ("cluster CA found in cluster-info ConfigMap is invalid", Cause::ForeignCluster),
    ("none of the public keys", Cause::ForeignCluster),
    ("no such host", Cause::Dns),
    ("connection refused", Cause::ApiUnavailable),
    ("i/o timeout", Cause::ApiUnavailable),
    ("TLS handshake timeout", Cause::ApiUnavailable),
    ("no route to host", Cause::ApiUnavailable),
    ("context deadline exceeded", Cause::ApiUnavailable),
    ("no space left on device", Cause::DiskFull),
];

/// Lines that explain nothing: kubeadm's kernel report and its advice.
const NOISE: &[&str] = &["CGROUPS_", "To see the stack trace", "If you know what you are doing"];

/// The last lines of an output that say something, without secrets and without colours.
pub fn tail(output: &str) -> Vec<String> {
    let clean = redact(&without_controls(&without_colours(output)));
    let says_something = |line: &&str| !line.is_empty() && !NOISE.iter().any(|noise| line.contains(noise));
    let lines: Vec<&str> = clean.lines().map(str::trim).filter(says_something).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| (*line).to_owned()).collect()
}

/// The text without ANSI sequences (`ESC [ ... letter`), which kubeadm prints even into a file.
fn without_colours(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |at| at + 1);
        plain.push_str(&part[end..]);
    }
    plain
}

/// Nothing that a terminal obeys; what was written over (`\r`) is a line of its own.
fn without_controls(text: &str) -> String {
    let plain = |c: char| match c {
        '\n' | '\r' => Some('\n'),
        '\t' => Some(' '),
        c if !is_plain(c) => None,
        c => Some(c),
    };
    text.chars().filter_map(plain).collect()
}

/// The failure for a kubeadm that did not succeed.
pub fn failure(command: &str, end: &JobEnd, output: &str) -> Failure {
    let attempted = format!("run `kubeadm {command}`");
    let shown = tail(output).join("\n  ");
    let how = match end {
        JobEnd::Exited(code) => format!("it ended with exit code {code}"),
        JobEnd::Killed(signal) => format!("signal {signal} ended it"),
        JobEnd::TimedOut => "it did not end in time and was killed".to_owned(),
        JobEnd::NotStarted(why) => format!("it could not be started: {why}"),
    };
    let cause = match end {
        JobEnd::NotStarted(_) => Cause::ToolMissing,
        JobEnd::TimedOut => Cause::ToolHung,
        JobEnd::Killed(_) => Cause::ToolFailed,
        JobEnd::Exited(_) => recognise(output).unwrap_or(Cause::ToolFailed),
    };
    Failure::new(cause, attempted, if shown.is_empty() { how } else { format!("{how}:\n  {shown}\n ") })
}

/// Only the end of the output speaks of the failure: kubeadm prints retries of things that went well afterwards.
fn recognise(output: &str) -> Option<Cause> {
    let end = tail(output).join("\n");
    PHRASES.iter().find(|(phrase, _)| end.contains(phrase)).map(|(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_phrases_decide_and_secrets_do_not_pass() {
        let cases = [
            (
                "error: could not find a JWS signature in the cluster-info ConfigMap for token ID \"abcdef\"",
                Cause::TokenGone,
            ),
            ("Get \"https://api:6443\": dial tcp: lookup api: no such host", Cause::Dns),
            ("dial tcp 10.0.0.1:6443: connect: connection refused", Cause::ApiUnavailable),
            ("something else", Cause::ToolFailed),
        ];
        for (text, cause) in cases {
            let failure = failure("join", &JobEnd::Exited(1), &format!("{text}\nabcdef.0123456789abcdef\n"));
            assert_eq!(failure.cause, cause, "{text}");
            assert!(!failure.to_string().contains("0123456789abcdef"));
        }
    }

    #[test]
    fn what_is_shown_is_what_explains() {
        // Seen from kubeadm 1.36.2 on a machine whose containerd did not answer.
        let output = "\u{1b}[0;37mCGROUPS_PIDS\u{1b}[0m: \u{1b}[0;32menabled\u{1b}[0m\n[preflight] Some fatal errors occurred:\n\t[ERROR CRI]: could not connect to the container runtime: x\n[preflight] If you know what you are doing, you can ...\nTo see the stack trace of this error execute with --v=5 or higher\n";
        assert_eq!(
            tail(output),
            ["[preflight] Some fatal errors occurred:", "[ERROR CRI]: could not connect to the container runtime: x"]
        );
        assert_eq!(failure("join", &JobEnd::Exited(1), output).cause, Cause::RuntimeNotReady);
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left_and_nothing_hides_behind_it() {
        let output = "a\u{9b}31mb\u{7}\n50 %\r100 %\nabcdef.01234567\u{0}89abcdef\n";
        assert_eq!(tail(output), ["a31mb", "50 %", "100 %", "<secret>"]);
    }

    #[test]
    fn how_it_ended_is_said() {
        assert_eq!(failure("init", &JobEnd::TimedOut, "").cause, Cause::ToolHung);
        assert_eq!(failure("init", &JobEnd::NotStarted("no".into()), "").cause, Cause::ToolMissing);
        assert!(failure("init", &JobEnd::Killed(9), "").to_string().contains("signal 9"));
    }
}
