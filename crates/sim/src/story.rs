//! A broken rule, told so that a person sees who did what, when, and why the rule is broken.

use crate::trace::{Clock, Line};
use crate::universe::Universe;
use kubestrap_core::model::identity::Origin;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// How many lines a failure shows.
const SHOWN: usize = 70;

/// The safety rules of the design, in short.
const RULES: &[&str] = &[
    "init runs only while the register is `initialising` with our attempt: one cluster, one CA",
    "the register is taken over only from a holder that is gone, never because of a clock",
    "a missing register while other objects name a cluster means restore or retire, never init",
    "nothing from the store is used before it is checked: cluster, CA, token, expiry",
    "only what our own attempt made on a clean machine is destroyed",
    "secrets stay in 0600 files and in the one object that must carry them",
    "every call ends at its deadline",
    "whatever happens, it converges; one kubeadm at a time; a copied disk is refused",
    "a machine whose clock is wrong waits, refuses, and does not judge an expiry",
];

/// A broken invariant, with what led to it.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// The scenario's name.
    pub scenario: &'static str,
    /// What was left of the scenario ([`crate::Scenario::only`]), when it was not all of it.
    pub only: Option<String>,
    /// The safety rule of the design.
    pub rule: u8,
    /// When, since the beginning.
    pub at: Duration,
    /// What happened.
    pub what: String,
    /// The machines, for people.
    pub machines: Vec<String>,
    /// How often what happened until then.
    pub counts: BTreeMap<&'static str, u64>,
    /// What those did and suffered whom it is about.
    pub story: Vec<Line>,
}

impl Violation {
    /// What was broken, by whom, where and when, and how to see it again; without the story.
    pub fn summary(&self) -> String {
        let rule = RULES.get(usize::from(self.rule).saturating_sub(1)).copied().unwrap_or_default();
        let counts: Vec<String> = self.counts.iter().map(|(what, n)| format!("{what} {n}")).collect();
        let only = self.only.as_ref().map_or_else(String::new, |only| format!(" --only {only:?}"));
        format!(
            "rule {} was broken in scenario {}, seed {}, after {}:\n    {}\nthe rule says: {rule}\nagain: cargo xtask \
             simulate --scenario {} --seed {}{only}   (--story: everything that everybody did)\nmachines: {}\nuntil \
             then: {}",
            self.rule,
            self.scenario,
            self.seed,
            Clock(self.at),
            self.what,
            self.scenario,
            self.seed,
            self.machines.join(", "),
            counts.join(", ")
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary())?;
        write!(f, "what led to it:")?;
        self.story.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl Universe {
    /// The machines as they are introduced.
    pub fn introduced(&self) -> Vec<String> {
        let told = |machine: &crate::machine::Machine| {
            let ahead = machine.clock.skew().as_secs();
            let what = [
                (machine.is_dead(), "lost".to_owned()),
                (machine.foreign, "with a foreign control plane".to_owned()),
                (machine.cloned.get(), "with a copied disk".to_owned()),
                (ahead.abs() > 2, format!("clock {ahead:+} s")),
                (machine.ready.get(), "ready".to_owned()),
            ];
            let what: Vec<String> = what.into_iter().filter(|(is, _)| *is).map(|(_, text)| text).collect();
            if what.is_empty() { machine.name.clone() } else { format!("{} ({})", machine.name, what.join(", ")) }
        };
        self.machines.iter().map(told).collect()
    }

    /// The last lines about those whom `what` names, and about whoever holds or made the cluster; texts made short.
    pub fn story_of(&self, what: &str) -> Vec<Line> {
        let named = |name: &str| what.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == name);
        let creator = self.monitor.borrow().committed.as_ref().map(|(.., machine)| *machine);
        let concerned: BTreeSet<&str> = self
            .machines
            .iter()
            .filter(|machine| named(&machine.name) || creator == Some(machine.index))
            .map(|machine| machine.name.as_str())
            .collect();
        let all = self.trace.lines();
        let is_told = |line: &&Line| {
            concerned.len() < 2 || line.who == "world" || concerned.contains(line.who.as_str()) || is_shared(line)
        };
        let lines: Vec<Line> = all
            .iter()
            .filter(is_told)
            .map(|line| Line { what: self.short(&line.what).replace('\n', " | "), ..line.clone() })
            .collect();
        let mut lines = gathered(lines);
        lines.drain(..lines.len().saturating_sub(SHOWN));
        lines
    }

    /// Identities and node names become the machine's name, uuids and versions their beginning.
    pub fn short(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for machine in &self.machines {
            text = text.replace(&machine.identity.key(), &machine.name);
            text = text.replace(&machine.identity.node_name, &machine.name);
            if let Origin::Ec2(ec2) = &machine.identity.origin {
                text = text.replace(&ec2.instance_id, &machine.name);
            }
        }
        let mut short = String::with_capacity(text.len());
        for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
            let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            let hex = bare.chars().filter(char::is_ascii_hexdigit).count();
            let is_uuid = bare.len() == 36 && hex == 32;
            let is_version = bare.len() == 16 && hex == 16;
            let kept = if is_uuid {
                8
            } else if is_version {
                4
            } else {
                bare.len()
            };
            short.push_str(&bare[..kept]);
            short.push_str(&word[bare.len()..]);
        }
        short
    }
}

/// A change of what all machines share concerns everybody.
fn is_shared(line: &Line) -> bool {
    line.what.contains("/cluster.json ") || line.what.contains("/join/worker.json ")
}

/// A line that says what the last one of the same machine said is told once.
fn gathered(lines: Vec<Line>) -> Vec<Line> {
    let mut told: Vec<(Line, u32)> = Vec::new();
    for line in lines {
        let digits = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
        let last = told.iter_mut().rev().find(|(last, _)| last.who == line.who);
        match last {
            Some((last, times)) if digits(&last.what) == digits(&line.what) => *times += 1,
            _ => told.push((line, 1)),
        }
    }
    let more = |times| if times > 1 { format!("  ({times} times)") } else { String::new() };
    told.into_iter().map(|(line, times)| Line { what: line.what.clone() + &more(times), ..line }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;
    use crate::trace::Keep;

    #[test]
    fn names_are_short_and_repetitions_are_told_once() {
        let universe = Universe::new(1, &scenario::calm(), Keep::Story);
        let arn = universe.machines[1].identity.key();
        let text = format!(
            "put sim/nodes/{arn}/report.json over \"0eba45497b0a5e5a\" by 92e08cd7-4a9c-4b05-9008-4e9c4a1a9ebb"
        );
        assert_eq!(universe.short(&text), "put sim/nodes/w0/report.json over \"0eba\" by 92e08cd7");
        let line = |who: &str, what: &str| Line { at: Duration::ZERO, who: who.to_owned(), what: what.to_owned() };
        let told =
            gathered(vec![line("m0", "again in 5 ms"), line("w0", "x"), line("m0", "again in 7 ms"), line("w0", "y")]);
        assert_eq!(told, [line("m0", "again in 5 ms  (2 times)"), line("w0", "x"), line("w0", "y")]);
    }
}
