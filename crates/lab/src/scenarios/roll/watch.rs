//! What is seen of a rollout from outside: Nodes with their annotations, the ledger, and EC2; and when.

use super::super::support::{expect, node_name};
use super::ec2::{Change, Ec2};
use crate::Result;
use crate::lab::Lab;
use crate::machine::Machine;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// kubectl costs a tenth of a second of processor time.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A moment in the life of a worker that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// It says that it runs another image than it should.
    Drifted,
    /// The arbiter lets it go.
    Granted,
    /// No new pods.
    Cordoned,
    /// No pods but those that stay.
    Drained,
    /// EC2 took its machine.
    Terminated,
    /// The machine in its place is a Ready node.
    Replaced,
    /// The arbiter has its grant no more.
    Closed,
}

const MOMENTS: [Moment; 7] = [
    Moment::Drifted,
    Moment::Granted,
    Moment::Cordoned,
    Moment::Drained,
    Moment::Terminated,
    Moment::Replaced,
    Moment::Closed,
];

/// One worker.
#[derive(Debug, Default)]
struct Story {
    moments: BTreeMap<Moment, f64>,
    grant: Option<String>,
    successor: Option<String>,
}

/// All of it, since a moment.
pub struct Watch {
    master: Machine,
    began: Instant,
    stories: Vec<(String, Story)>,
    looked: Option<Instant>,
    /// The most workers that were away at the same time.
    pub away: usize,
    /// As many may be.
    pub may_be_away: usize,
    size: usize,
}

impl Watch {
    /// From now on, of the workers that are there.
    pub fn begin(master: &Machine, ec2: &Ec2) -> Watch {
        let stories: Vec<_> = ec2.alive().map(|(instance, _)| (instance.id.clone(), Story::default())).collect();
        let (master, began, size) = (master.clone(), Instant::now(), stories.len());
        Watch { master, began, size, stories, looked: None, away: 0, may_be_away: 1 }
    }

    /// Notes a moment, the first time.
    pub fn note(&mut self, lab: &Lab, instance: &str, moment: Moment) {
        let after = self.began.elapsed().as_secs_f64();
        let Some((_, story)) = self.stories.iter_mut().find(|(id, _)| id == instance) else { return };
        if let std::collections::btree_map::Entry::Vacant(first) = story.moments.entry(moment) {
            first.insert(after);
            lab.say(&format!("{instance}: {moment:?} {after:.1} s after the change"));
        }
    }

    /// How many have come so far.
    pub fn count(&self, moment: Moment) -> usize {
        self.stories.iter().filter(|(_, story)| story.moments.contains_key(&moment)).count()
    }

    /// When it came for an instance, in seconds since the beginning.
    pub fn moment(&self, instance: &str, moment: Moment) -> Option<f64> {
        let story = self.stories.iter().find(|(id, _)| id == instance).map(|(_, story)| story)?;
        story.moments.get(&moment).copied()
    }

    /// How long ago it began.
    pub fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Whether this instance came in place of another one, as a Ready node.
    pub fn succeeded(&self, instance: &str) -> bool {
        let is_it = |story: &Story| {
            story.successor.as_deref() == Some(instance) && story.moments.contains_key(&Moment::Replaced)
        };
        self.stories.iter().any(|(_, story)| is_it(story))
    }

    /// The one that has a grant that is not closed.
    pub fn current(&self) -> Option<&str> {
        let open = |story: &Story| story.grant.is_some() && !story.moments.contains_key(&Moment::Closed);
        self.stories.iter().find(|(_, story)| open(story)).map(|(id, _)| id.as_str())
    }

    /// Lets EC2 do its work, and looks at the cluster.
    pub fn look(&mut self, lab: &mut Lab, ec2: &mut Ec2) -> Result<()> {
        crate::interrupt::check()?;
        for change in ec2.settle(lab)? {
            match change {
                Change::Terminated(instance) => self.note(lab, &instance.id, Moment::Terminated),
                Change::Launched(instance) => self.succeeds(&instance.id),
            }
        }
        if let Some(looked) = self.looked {
            std::thread::sleep(LOOK_EVERY.saturating_sub(looked.elapsed()));
        }
        self.looked = Some(Instant::now());
        // An API server that has no time for once is no news.
        let Ok(nodes) = self.master.kubectl(&["get", "nodes"]) else { return Ok(()) };
        let nodes: Vec<Value> = nodes["items"].as_array().cloned().unwrap_or_default();
        let ledger = ledger(&self.master);
        let grants = ledger.as_ref().and_then(|ledger| ledger["grants"].as_array()).map_or(0, Vec::len);
        expect(grants <= 1, &format!("at most one grant is in the ledger, not {grants}"))?;
        self.count_away(ec2, &nodes)?;
        let ids: Vec<String> = self.stories.iter().map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.look_at(lab, ec2, &id, &nodes, ledger.as_ref());
        }
        Ok(())
    }

    /// The new instance stands for whoever was terminated without a successor, as the group launches it.
    fn succeeds(&mut self, new: &str) {
        let waits = |story: &Story| story.moments.contains_key(&Moment::Terminated) && story.successor.is_none();
        if let Some((_, story)) = self.stories.iter_mut().find(|(_, story)| waits(story)) {
            story.successor = Some(new.to_owned());
        }
    }

    fn count_away(&mut self, ec2: &Ec2, nodes: &[Value]) -> Result<()> {
        let serves = |machine: &Machine| {
            node_of(nodes, machine).is_some_and(|node| is_ready(node) && node["spec"]["unschedulable"] != true)
        };
        let there = ec2.alive().filter(|(_, machine)| serves(machine)).count();
        self.away = self.away.max(self.size.saturating_sub(there));
        let may = self.may_be_away;
        expect(self.away <= may, &format!("at most {may} of the workers are away, not {}", self.away))
    }

    fn look_at(&mut self, lab: &Lab, ec2: &Ec2, id: &str, nodes: &[Value], ledger: Option<&Value>) {
        let node = ec2.machine(id).and_then(|machine| node_of(nodes, machine)).cloned().unwrap_or_default();
        let said = |name: &str| annotation(&node, name);
        if said("drift")["verdict"] == "drifted" {
            self.note(lab, id, Moment::Drifted);
        }
        if let Some(grant) = said("grant")["id"].as_str() {
            self.note(lab, id, Moment::Granted);
            self.remember(id, grant);
        }
        if node["spec"]["unschedulable"] == true {
            self.note(lab, id, Moment::Cordoned);
        }
        if matches!(said("grant-progress")["state"].as_str(), Some("drained" | "replacing")) {
            self.note(lab, id, Moment::Drained);
        }
        let story = self.stories.iter().find(|(known, _)| known == id).map(|(_, story)| story);
        let successor = story.and_then(|story| ec2.machine(story.successor.as_deref()?));
        if successor.and_then(|machine| node_of(nodes, machine)).is_some_and(is_ready) {
            self.note(lab, id, Moment::Replaced);
        }
        let grant = self.stories.iter().find(|(known, _)| known == id).and_then(|(_, story)| story.grant.clone());
        if let (Some(grant), Some(ledger)) = (grant, ledger)
            && !has_open(ledger, &grant)
        {
            self.note(lab, id, Moment::Closed);
        }
    }

    fn remember(&mut self, id: &str, grant: &str) {
        if let Some((_, story)) = self.stories.iter_mut().find(|(known, _)| known == id) {
            story.grant = Some(grant.to_owned());
        }
    }

    /// The table of all moments, seconds since the beginning.
    pub fn table(&self) -> String {
        let mut text = format!("{:<20}", "INSTANCE");
        for moment in MOMENTS {
            text += &format!(" {:>10}", format!("{moment:?}").to_uppercase());
        }
        for (id, story) in &self.stories {
            text += &format!("\n{id:<20}");
            for moment in MOMENTS {
                let at = story.moments.get(&moment).map_or_else(|| "-".to_owned(), |at| format!("{at:.1}"));
                text += &format!(" {at:>10}");
            }
        }
        text
    }
}

/// The arbiter's ledger; `None` when there is none that can be read.
pub fn ledger(master: &Machine) -> Option<Value> {
    let map = master.kubectl(&["-n", "kube-system", "get", "configmap", "kubestrap-rollout"]).ok()?;
    serde_json::from_str(map["data"]["ledger.json"].as_str()?).ok()
}

fn has_open(ledger: &Value, grant: &str) -> bool {
    let is_open = |entry: &Value| entry["id"] == grant && entry["phase"] != "ending";
    ledger["grants"].as_array().is_some_and(|all| all.iter().any(is_open))
}

/// What an annotation of kubestrap's holds; null when there is none.
pub fn annotation(node: &Value, name: &str) -> Value {
    let text = node["metadata"]["annotations"][format!("kubestrap.io/{name}")].as_str().unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

/// The Node of a machine.
pub fn node_of<'a>(nodes: &'a [Value], machine: &Machine) -> Option<&'a Value> {
    nodes.iter().find(|node| node["metadata"]["name"] == node_name(machine).as_str())
}

/// Whether the Node is Ready.
pub fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}
