//! What a failed kubeadm's output says about the cause. The words are kubeadm's own (1.31 to 1.36); an output that is
//! not recognised is `ToolFailed` with its tail.

use crate::model::cause::{Cause, Failure};
use crate::model::secret::redact;
use crate::ports::JobEnd;

/// How many lines of a failed kubeadm go into the error and the report.
const TAIL_LINES: usize = 12;

/// Phrases of kubeadm's output, the cause they speak of; the first that is found decides.
const PHRASES: &[(&str, Cause)] = &[
    // preflight: state of an earlier run; the engine resets it when it is ours.
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
    ("container runtime is not running", Cause::RuntimeNotReady),
    ("no space left on device", Cause::DiskFull),
];

/// The last lines of an output, without secrets.
pub fn tail(output: &str) -> Vec<String> {
    let clean = redact(output);
    let lines: Vec<&str> = clean.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| (*line).to_owned()).collect()
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
    fn how_it_ended_is_said() {
        assert_eq!(failure("init", &JobEnd::TimedOut, "").cause, Cause::ToolHung);
        assert_eq!(failure("init", &JobEnd::NotStarted("no".into()), "").cause, Cause::ToolMissing);
        assert!(failure("init", &JobEnd::Killed(9), "").to_string().contains("signal 9"));
    }
}
