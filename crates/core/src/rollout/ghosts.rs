//! Which instances are *gone*: as for the register ([`crate::store::gone`]), EC2 must say so in an answer that also shows
//! the asker. An instance that EC2 does not know counts only after several looks, for a living one can be unknown for a
//! while.

use super::view::InstanceFacts;
use crate::model::cause::Outcome;
use crate::node::Node;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An instance that was never seen counts as gone after this many looks ...
const LOOKS: usize = 5;
/// ... so far apart: together more than an hour, for all that this process knows of it is its id.
const SPACING: Duration = Duration::from_secs(16 * 60);

/// The looks so far in which an instance was unknown, by uptime. One per process.
#[derive(Debug, Default)]
pub struct Ghosts {
    unknown: RefCell<BTreeMap<String, Vec<Duration>>>,
}

impl Ghosts {
    /// What EC2 says of these instances. Empty when this machine is not on EC2, or the answer does not show it.
    pub async fn look(&self, node: &Node, ids: &BTreeSet<String>) -> Outcome<BTreeMap<String, InstanceFacts>> {
        let mut facts = BTreeMap::new();
        self.unknown.borrow_mut().retain(|id, _| ids.contains(id));
        let Some(own) = node.identity.ec2().filter(|_| !ids.is_empty()) else { return Ok(facts) };
        let asked: Vec<String> = ids.iter().cloned().chain([own.instance_id.clone()]).collect();
        let answer = node.world.cloud.instances(&own.region, &asked).await?;
        let is_ours = |id: &str| answer.iter().find(|found| found.instance_id == id && found.account == own.account);
        if is_ours(&own.instance_id).is_none() {
            return Ok(facts);
        }
        for id in ids {
            if let Some(found) = is_ours(id) {
                self.unknown.borrow_mut().remove(id);
                facts.insert(id.clone(), InstanceFacts { state: found.state.clone(), image: found.image_id.clone() });
            } else if !answer.iter().any(|found| found.instance_id == *id)
                && self.is_forgotten(id, node.world.time.uptime())
            {
                facts.insert(id.clone(), InstanceFacts { state: String::new(), image: None });
            }
        }
        Ok(facts)
    }

    fn is_forgotten(&self, id: &str, now: Duration) -> bool {
        let mut unknown = self.unknown.borrow_mut();
        let looks = unknown.entry(id.to_owned()).or_default();
        if looks.len() < LOOKS && looks.last().is_none_or(|last| now.saturating_sub(*last) >= SPACING) {
            looks.push(now);
        }
        looks.len() >= LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_instance_is_forgotten_after_an_hour_of_looks() {
        let ghosts = Ghosts::default();
        let minutes = |m: u64| Duration::from_secs(m * 60);
        let first = (0..24 * 60).find(|m| ghosts.is_forgotten("i-1", minutes(*m)));
        assert_eq!(first, Some(64));
        assert!(!ghosts.is_forgotten("i-2", minutes(2000)), "a burst is one look");
        assert!(!ghosts.is_forgotten("i-2", minutes(2001)));
    }
}
