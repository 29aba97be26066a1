//! Instances that start and end, and the nodes' agents.

use super::{Instance, World, minutes};
use crate::rollout::view::NodeFacts;
use crate::rollout::wire::{self, Action, Annotation, Grant, Progress, State};
use serde_json::json;
use std::time::Duration;

impl World {
    /// A quarter of a minute of everybody but the arbiters.
    pub fn live(&self) {
        let now = self.uptime.get();
        let instances: Vec<(String, Instance)> =
            self.state.borrow().instances.iter().map(|(id, one)| (id.clone(), one.clone())).collect();
        for (id, one) in instances {
            self.live_instance(&id, &one, now);
        }
        for node in self.nodes() {
            self.live_node(&node);
        }
        let disrupted = self.nodes().iter().filter(|node| self.cordon_of(&node.name).is_some()).count();
        if disrupted > self.at_once {
            self.wrong(format!("{disrupted} nodes are cordoned by grants"));
        }
    }

    fn live_instance(&self, id: &str, one: &Instance, now: Duration) {
        let age = now.saturating_sub(one.since);
        match one.state {
            "shutting-down" => {
                if let Some(node) = &one.node {
                    self.ready(node, false);
                }
                if age >= minutes(1) {
                    self.set_instance(id, "terminated");
                    if let Some(group) = &one.group {
                        self.start(group);
                    }
                }
            }
            "running"
                if one.node.is_none() && age >= minutes(2) && !self.state.borrow().broken.contains(&one.image) =>
            {
                self.join(&format!("n-{}", &id[2..]), Some(id), false);
            }
            // EC2 shows it for an hour.
            "terminated" if age > minutes(60) => {
                self.state.borrow_mut().instances.remove(id);
            }
            _ => {}
        }
    }

    pub fn set_instance(&self, id: &str, state: &'static str) {
        let since = self.uptime.get();
        if let Some(one) = self.state.borrow_mut().instances.get_mut(id) {
            (one.state, one.since) = (state, since);
        }
    }

    fn cordon_of(&self, name: &str) -> Option<String> {
        let state = self.state.borrow();
        let by = state.objects.get(&format!("/api/v1/nodes/{name}"))?.pointer("/metadata/annotations")?;
        by.get(wire::CORDONED_BY)?.as_str().map(str::to_owned)
    }

    fn cordon(&self, name: &str, by: Option<&str>) {
        self.edit(
            &format!("/api/v1/nodes/{name}"),
            &json!({"spec": {"unschedulable": by.is_some()}, "metadata": {"annotations": {wire::CORDONED_BY: by}}}),
        );
    }

    /// The node's agent: its request, and what it is granted.
    fn live_node(&self, node: &NodeFacts) {
        let instance = node.instance.as_ref().and_then(|id| self.state.borrow().instances.get(id).cloned());
        let is_down = self.state.borrow().down.contains(&node.name);
        if instance.as_ref().is_some_and(|one| one.state != "running") || is_down {
            self.ready(&node.name, false);
            return;
        }
        self.ready(&node.name, true);
        if self.state.borrow().silent.contains(&node.name) {
            return;
        }
        if let Some(one) = instance
            && let Some(group) = &one.group
        {
            let desired = self.state.borrow().desired[group].clone();
            let action = self.state.borrow().action.unwrap_or(Action::Replace);
            self.request(&node.name, group, &one.image, &desired, action);
        }
        let node = self.node(&node.name);
        match &node.grant {
            None if self.cordon_of(&node.name).is_some() => {
                self.cordon(&node.name, None);
                self.annotate(&node.name, wire::PROGRESS, None);
            }
            Some(Ok(grant)) if grant.node_uid == node.uid => self.carry_out(&node, grant),
            _ => {}
        }
    }

    fn carry_out(&self, node: &NodeFacts, grant: &Grant) {
        let state = match node.progress_of(grant.id).map(|progress| progress.state) {
            None => {
                self.cordon(&node.name, Some(&grant.id.to_string()));
                State::Draining
            }
            Some(State::Draining) if self.state.borrow().stubborn.contains(&node.name) => {
                self.cordon(&node.name, None);
                State::GaveUp
            }
            Some(State::Draining) => State::Drained,
            Some(_) => return,
        };
        let progress = Progress { schema: 1, id: grant.id, state, why: String::new(), at: self.now() };
        self.annotate(&node.name, wire::PROGRESS, Some(progress.write().expect("text")));
    }
}
