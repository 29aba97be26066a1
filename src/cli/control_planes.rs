//! The control planes of a cluster as its masters report them: who leads, etcd's members, and what a person should know.

use crate::observe::text::{ago, expiry, fold, table};
use jiff::Timestamp;
use kubestrap_core::etcd::even_masters;
use kubestrap_core::model::identity::Role;
use kubestrap_core::model::plain::plain;
use kubestrap_core::model::report::{MemberReport, Report};
use serde_json::{Value, json};

/// What is known of the masters. Empty where there is one master that says nothing of others: its row among the nodes
/// says it all.
#[derive(Debug, Default)]
pub struct ControlPlanes<'r> {
    rows: Vec<Row<'r>>,
    /// Whose word on the members of etcd this is, and from when.
    seen_by: Option<(&'r str, Timestamp)>,
    /// In sentences.
    warnings: Vec<String>,
}

/// A master, a member of etcd, or both.
#[derive(Debug)]
struct Row<'r> {
    name: &'r str,
    report: Option<(&'r Report, bool)>,
    member: Option<&'r MemberReport>,
}

impl<'r> ControlPlanes<'r> {
    /// From every readable report, each with whether it is stale.
    pub fn of(reports: impl Iterator<Item = (&'r Report, bool)>) -> ControlPlanes<'r> {
        let masters: Vec<(&Report, bool)> = reports.filter(|(report, _)| report.role == Role::Master).collect();
        // The word of the one that leads counts; without one, the latest word.
        let witness = masters
            .iter()
            .filter(|(report, _)| report.members.is_some())
            .max_by_key(|(report, stale)| (report.leads && !stale, report.reported_at));
        if witness.is_none() && masters.len() < 2 {
            return ControlPlanes::default();
        }
        let members = witness.and_then(|(report, _)| report.members.as_deref()).unwrap_or_default();
        let mut rows: Vec<Row<'r>> = masters
            .iter()
            .map(|(report, stale)| {
                let name = report.identity.node_name.as_str();
                Row { name, report: Some((report, *stale)), member: members.iter().find(|member| member.name == name) }
            })
            .collect();
        let is_known =
            |member: &&MemberReport| masters.iter().any(|(report, _)| report.identity.node_name == member.name);
        rows.extend(members.iter().filter(|member| !is_known(member)).map(|member| Row {
            name: member.name.as_str(),
            report: None,
            member: Some(member),
        }));
        rows.sort_by_key(|row| row.name);
        let warnings = warnings(&rows, members);
        let seen_by = witness.map(|(report, _)| (report.identity.node_name.as_str(), report.reported_at));
        ControlPlanes { rows, seen_by, warnings }
    }

    /// The table and the warnings, each line ended; nothing when there is nothing to show.
    pub fn human(&self, now: Timestamp) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let heading = ["CONTROL PLANE", "LEADS", "ETCD", "HEALTH", "MACHINE", "CERTIFICATES"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(self.rows.iter().map(|row| row.cells(now)));
        let mut out = format!("\n{}", table(&rows));
        if let Some((name, at)) = self.seen_by {
            out.push_str(&format!("(etcd's members as {} saw them {})\n", plain(name), ago(now, at)));
        }
        for row in &self.rows {
            if let Some(todo) = row.member.and_then(|member| member.todo.as_deref()) {
                out.push_str(&format!("\n{}: {}\n", plain(row.shown()), fold(&plain(todo), 100, 2)));
            }
        }
        for warning in &self.warnings {
            out.push_str(&format!("\nWarning: {}\n", fold(&plain(warning), 100, 2)));
        }
        out
    }

    /// The same for programs; null when there is nothing to show.
    pub fn json(&self) -> Value {
        if self.rows.is_empty() {
            return Value::Null;
        }
        let leader = self.rows.iter().find(|row| row.leads()).map(|row| row.name);
        let masters = self.rows.iter().map(|row| {
            json!({
                "node": row.name,
                "leads": row.leads(),
                "stale": row.report.map(|(_, stale)| stale),
                "certificates_expire_at": row.report.and_then(|(report, _)| report.certificates_expire_at),
                "member": row.member,
            })
        });
        json!({
            "leader": leader,
            "members_seen_by": self.seen_by.map(|(name, _)| name),
            "members_seen_at": self.seen_by.map(|(_, at)| at),
            "masters": masters.collect::<Vec<_>>(),
            "warnings": self.warnings,
        })
    }
}

impl Row<'_> {
    /// Of a stale report nobody knows.
    fn leads(&self) -> bool {
        self.report.is_some_and(|(report, stale)| report.leads && !stale)
    }

    fn shown(&self) -> &str {
        if self.name.is_empty() { "(unstarted)" } else { self.name }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let dash = || "-".to_owned();
        let etcd = self.member.map_or_else(
            || "no member".to_owned(),
            |member| format!("{}{}", plain(&member.role), if member.leader { ", leader" } else { "" }),
        );
        let health = self.member.map_or_else(dash, |it| if it.healthy { "healthy" } else { "NO ANSWER" }.to_owned());
        let certificates = self.report.and_then(|(report, _)| report.certificates_expire_at);
        vec![
            plain(self.shown()),
            if self.leads() { "yes".to_owned() } else { dash() },
            etcd,
            health,
            self.member.and_then(|member| member.machine.as_deref()).map_or_else(dash, plain),
            certificates.map_or_else(dash, |at| expiry(now, at)),
        ]
    }
}

fn warnings(rows: &[Row<'_>], members: &[MemberReport]) -> Vec<String> {
    let voters: Vec<&MemberReport> = members.iter().filter(|member| member.role == "voter").collect();
    let healthy = voters.iter().filter(|member| member.healthy).count();
    let mut found = Vec::new();
    if !voters.is_empty() && 2 * healthy <= voters.len() {
        found.push(format!(
            "{healthy} of {} voters of etcd answer: it has no quorum, and nothing can be changed in the cluster. Bring machines back; \
             nothing is removed before (docs/ha.md)",
            voters.len()
        ));
    }
    if !rows.iter().any(Row::leads) {
        found.push("no master says that it leads: see the errors of the masters, and docs/ha.md".to_owned());
    }
    let masters = if voters.is_empty() { rows.len() } else { voters.len() };
    found.extend(even_masters(masters));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    fn member(name: &str, role: &str, healthy: bool) -> MemberReport {
        let (name, role) = (name.to_owned(), role.to_owned());
        MemberReport { id: "1a".to_owned(), leader: name == "m1", name, role, healthy, machine: None, todo: None }
    }

    fn report(name: &str, leads: bool, members: Option<Vec<MemberReport>>) -> Report {
        let text = json!({
            "schema": 1, "cluster": "prod", "role": "master", "phase": "ready", "steps": [], "versions": BTreeMap::<String, String>::new(),
            "identity": {"origin": {"kind": "host", "machine_id": name}, "node_name": name, "address": "10.0.0.1", "labels": {}},
            "certificates_expire_at": at(86_400 * 100), "started_at": at(0), "reported_at": at(0), "next_within_s": 300,
        });
        Report { leads, members, ..serde_json::from_value(text).expect("a report") }
    }

    #[test]
    fn a_single_master_without_others_is_said_by_its_own_row() {
        let one = report("m1", false, None);
        let view = ControlPlanes::of([(&one, false)].into_iter());
        assert_eq!((view.human(at(0)), view.json()), (String::new(), Value::Null));
    }

    #[test]
    fn three_masters_and_a_member_of_nobody() {
        let members = vec![
            member("m1", "voter", true),
            member("m2", "voter", true),
            member("m3", "voter", false),
            MemberReport {
                todo: Some("removed: its machine is terminated".to_owned()),
                machine: Some("terminated".to_owned()),
                ..member("m0", "voter", false)
            },
            member("", "unstarted", false),
        ];
        let all = [report("m1", true, Some(members)), report("m2", false, None), report("m3", false, None)];
        let view = ControlPlanes::of(all.iter().map(|report| (report, false)));
        insta::assert_snapshot!(view.human(at(60)), @r"
        CONTROL PLANE  LEADS  ETCD           HEALTH     MACHINE     CERTIFICATES
        (unstarted)    -      unstarted      NO ANSWER  -           -
        m0             -      voter          NO ANSWER  terminated  -
        m1             yes    voter, leader  healthy    -           in 99 d
        m2             -      voter          healthy    -           in 99 d
        m3             -      voter          NO ANSWER  -           in 99 d
        (etcd's members as m1 saw them 60 s ago)

        m0: removed: its machine is terminated

        Warning: 2 of 4 voters of etcd answer: it has no quorum, and nothing can be changed in the cluster. Bring
          machines back; nothing is removed before (docs/ha.md)

        Warning: 4 masters survive the loss of 1, as 3 do: an odd number is better (docs/ha.md)
        ");
        assert_eq!(view.json()["leader"], "m1");
        assert_eq!(view.json()["masters"][3]["member"]["role"], "voter");
    }

    #[test]
    fn what_a_person_should_know_is_said() {
        let told = |reports: &[Report], stale: bool| {
            let view = ControlPlanes::of(reports.iter().map(|report| (report, stale)));
            view.warnings.join("\n")
        };
        let healthy = |names: &[&str]| Some(names.iter().map(|name| member(name, "voter", true)).collect::<Vec<_>>());
        assert_eq!(told(&[report("m1", true, healthy(&["m1", "m2", "m3"]))], false), "");
        assert!(
            told(&[report("m1", true, healthy(&["m1", "m2"]))], false).starts_with("2 masters survive the loss of 0")
        );
        assert!(told(&[report("m1", true, healthy(&["m1"]))], true).starts_with("no master says that it leads"));
        let lost = vec![member("m1", "voter", true), member("m2", "voter", false), member("m3", "voter", false)];
        assert!(told(&[report("m1", true, Some(lost))], false).starts_with("1 of 3 voters of etcd answer"));
        assert!(told(&[report("m1", false, None), report("m2", false, None)], false).contains("2 masters survive"));
    }
}
