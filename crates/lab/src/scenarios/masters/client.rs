//! Somebody who writes to the API all the time, through the load balancer, from a machine that is no node.

use super::super::support::expect;
use crate::lab::Lab;
use crate::machine::{Boot, Machine, Spec};
use crate::{Result, attempted, fail};
use base64::Engine;
use std::time::Duration;

/// Where the client writes down what it was answered: seconds and status.
const ANSWERS: &str = "/root/answers";
/// What it writes to.
const OBJECT: &str = "https://api.lab:6443/api/v1/namespaces/default/configmaps/proof";
/// A new connection and a new value each time; no answer in two seconds is no answer, whose status curl calls 000.
const WRITER: &str = r#"#!/bin/sh
n=0
while :; do
    n=$((n + 1))
    code=$(curl -s -o /dev/null -w '%{http_code}' --max-time 2 --cacert /root/ca --cert /root/cert --key /root/key \
        -X PATCH -H 'content-type: application/merge-patch+json' -d "{\"data\":{\"n\":\"$n\"}}" "$1")
    echo "$(date +%s.%3N) $code" >>/root/answers
    sleep 0.1
done
"#;

/// The client.
pub struct Client {
    machine: Machine,
    seen: usize,
}

impl Client {
    /// Starts it, with the rights of the cluster's administrator; returns when its writes are answered.
    pub fn start(lab: &mut Lab, master: &Machine) -> Result<Client> {
        master.shell("kubectl create configmap proof --from-literal=n=0")?;
        let machine = lab.machine(&Spec::new("client").boot(Boot::Plain))?;
        machine.power_on()?;
        machine.wait_booted()?;
        let admin = master.read("/etc/kubernetes/admin.conf").unwrap_or_default();
        for (field, file) in [
            ("certificate-authority-data", "/root/ca"),
            ("client-certificate-data", "/root/cert"),
            ("client-key-data", "/root/key"),
        ] {
            machine.write(file, &decoded(&admin, field)?, 0o600)?;
        }
        machine.write("/root/writer", WRITER, 0o755)?;
        machine.shell(&format!("systemd-run --quiet --unit=lab-writer /root/writer {OBJECT}"))?;
        let mut client = Client { machine, seen: 0 };
        client.machine.until("to write to the API", Duration::from_secs(30), |machine| {
            machine.read(ANSWERS).is_some_and(|text| text.contains(" 200"))
        })?;
        // What was before the first answer is nobody's gap.
        client.seen = client.answers().iter().position(|(_, ok)| *ok).unwrap_or_default();
        Ok(client)
    }

    fn answers(&self) -> Vec<(f64, bool)> {
        read_answers(&self.machine.read(ANSWERS).unwrap_or_default())
    }

    /// The longest time between two writes that succeeded since the last look, in seconds, and how many failed.
    pub fn longest_gap(&mut self) -> Result<(f64, usize)> {
        let all = self.answers();
        let new = all.get(self.seen..).unwrap_or_default();
        let found = longest(new);
        expect(new.len() > 1, "the client wrote meanwhile")?;
        expect(new.last().is_some_and(|(_, ok)| *ok), "its last write succeeded")?;
        self.seen = all.len() - 1;
        Ok(found)
    }
}

/// A field of a kubeconfig, decoded.
fn decoded(kubeconfig: &str, field: &str) -> Result<String> {
    let value = kubeconfig.lines().find_map(|line| line.trim().strip_prefix(field)?.strip_prefix(':'));
    let Some(value) = value else { return fail(format!("there is no {field} in admin.conf")) };
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.trim());
    attempted(attempted(bytes, format!("decode {field}")).map(String::from_utf8)?, format!("read {field}"))
}

/// Whole lines only: seconds, and whether the write succeeded.
fn read_answers(text: &str) -> Vec<(f64, bool)> {
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines
        .filter_map(|line| {
            let (at, code) = line.trim().split_once(' ')?;
            Some((at.parse().ok()?, code == "200"))
        })
        .collect()
}

fn longest(answers: &[(f64, bool)]) -> (f64, usize) {
    let good: Vec<f64> = answers.iter().filter(|(_, ok)| *ok).map(|(at, _)| *at).collect();
    let gap = good.windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max);
    (gap, answers.len() - good.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_lasts_from_one_success_to_the_next() {
        let answers = read_answers("1.0 200\n1.5 200\n3.5 000\n4.0 500\n4.25 200\n4.5 200\n4.9 2");
        assert_eq!(answers.len(), 6, "a line that is cut short is none");
        let (gap, failed) = longest(&answers);
        assert!((gap - 2.75).abs() < 1e-9 && failed == 2, "{gap} {failed}");
        assert_eq!(longest(&[]), (0.0, 0));
    }

    #[test]
    fn fields_of_a_kubeconfig_are_decoded() {
        let text = "users:\n- user:\n    client-key-data: aGVsbG8=\n";
        assert_eq!(decoded(text, "client-key-data").expect("there"), "hello");
        assert!(decoded(text, "client-certificate-data").is_err());
    }
}
