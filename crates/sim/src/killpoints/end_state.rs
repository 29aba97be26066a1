//! What is left when a story has ended, without what differs from run to run: names of things, and not their content.

use crate::invariants::CLUSTER;
use crate::universe::Universe;
use kubestrap_core::model::register::{Register, RegisterState};
use std::collections::BTreeSet;

/// The folders whose files are compared.
const FOLDERS: &[&str] = &["/var/lib/kubestrap", "/etc/kubernetes", "/etc/containerd", "/run/kubestrap"];
/// What a write that was cut leaves behind. The adapter sweeps it; its mode is judged when it is written.
const TORN: &str = "tmp-killed";

/// The end of a story, as sorted facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndState(BTreeSet<String>);

impl EndState {
    pub(super) fn of(universe: &Universe) -> EndState {
        let mut facts = BTreeSet::new();
        // The report of an instance that was replaced is archived when the master comes to it, and stays until then.
        let dead: Vec<String> = universe
            .machines
            .iter()
            .filter(|machine| machine.is_dead())
            .map(|machine| machine.identity.key())
            .collect();
        let is_left = |key: &str| !dead.iter().any(|identity| key.ends_with(&format!("nodes/{identity}/report.json")));
        for (key, object) in universe.store.borrow().objects.iter().filter(|(key, _)| is_left(key)) {
            facts.insert(format!("store: {key}"));
            if *key == format!("{CLUSTER}/cluster.json")
                && let Ok(register) = serde_json::from_slice::<Register>(&object.body)
            {
                let state = if matches!(register.state, RegisterState::Established { .. }) {
                    "established"
                } else {
                    "initialising"
                };
                facts.insert(format!("register: {state}"));
            }
        }
        for machine in universe.machines.iter().filter(|machine| !machine.is_dead()) {
            let name = &machine.name;
            let state = machine.state.borrow();
            for (path, item) in state.disk.items() {
                let ours = FOLDERS.iter().any(|folder| path.starts_with(folder));
                if ours && path.extension().is_none_or(|extension| extension != TORN) {
                    facts.insert(format!("{name}: {} {:o}", path.display(), item.mode));
                }
            }
            let journal = state.disk.text("/var/lib/kubestrap/journal.jsonl").unwrap_or_default();
            facts.insert(format!("{name}: completed {}", journal.contains("\"completed\"")));
            facts.insert(format!("{name}: ready {}", machine.ready.get()));
            facts.extend(crate::images::facts(&state.disk).map(|image| format!("{name}: {image}")));
            // A kubelet whose Node is there when its agent comes back needs no restart.
            let lasting = state.jobs.iter().filter(|(job, _)| *job != "restart-kubelet");
            facts.extend(lasting.map(|(job, record)| format!("{name}: job {job}, ended {}", record.end.is_some())));
        }
        facts.extend(clusters(universe));
        EndState(facts)
    }

    /// What only one of them has, line by line.
    pub fn difference(&self, other: &EndState) -> String {
        let missing = self.0.difference(&other.0).map(|fact| format!("  missing: {fact}"));
        let more = other.0.difference(&self.0).map(|fact| format!("  more:    {fact}"));
        missing.chain(more).collect::<Vec<_>>().join("\n")
    }
}

/// The control planes on disks that live, and the nodes they know.
fn clusters(universe: &Universe) -> Vec<String> {
    let mut facts = Vec::new();
    for machine in universe.machines.iter().filter(|machine| !machine.is_dead()) {
        let number = universe.data_on(machine.index).map(|(number, _)| number);
        let etcds = universe.etcds.borrow();
        if let Some(etcd) = number.and_then(|number| etcds.get(number)) {
            // The Node of an instance that was replaced goes when EC2 says so soon enough, and stays otherwise.
            let is_left = |name: &&str| {
                let of = universe.machines.iter().find(|machine| machine.identity.node_name == **name);
                !universe.scenario.rolls || of.is_some_and(|machine| !machine.is_dead())
            };
            let nodes: Vec<&str> = etcd.nodes.keys().map(String::as_str).filter(is_left).collect();
            facts.push(format!("{}: a control plane with the nodes {}", machine.name, nodes.join(", ")));
            facts.push(format!("{}: has tokens {}", machine.name, !etcd.tokens.is_empty()));
        }
    }
    facts
}
