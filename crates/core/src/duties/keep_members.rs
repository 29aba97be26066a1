//! `keep-members`: etcd's members are those of machines that exist. The master that leads sees to it.

use crate::engine::Duty;
use crate::etcd::{Credentials, tidy};
use crate::kube::Api;
use crate::kube::lease::{FOLLOWING, leads};
use crate::model::cause::Outcome;
use crate::node::{Event, Node};
use crate::store::MachineWatch;
use async_trait::async_trait;
use std::cell::RefCell;
use std::time::Duration;

/// How often members are looked at. A replacement of a dead master tidies before it joins, and need not wait for this.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A single member cannot be removed; what a failed join left beside it can wait.
const ALONE: Duration = Duration::from_secs(5 * 60);

#[derive(Default)]
pub(super) struct MembersDuty {
    watch: MachineWatch,
    /// What was told last of what stands in the way.
    told: RefCell<Option<String>>,
}

#[async_trait(?Send)]
impl Duty for MembersDuty {
    fn name(&self) -> &'static str {
        "keep-members"
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(3 * 60)
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        if !leads(node).await? {
            return Ok(FOLLOWING);
        }
        let api = Api::local(node)?;
        let tidied = tidy(node, &self.watch, &api, &Credentials::of_master(), None).await?;
        if let Some(why) = &tidied.waits
            && self.told.borrow().as_ref() != Some(why)
        {
            node.tell(&Event::Note(&format!("etcd's members: {why}")));
        }
        let alone = tidied.members.len() == 1 && tidied.removed.is_empty();
        *self.told.borrow_mut() = tidied.waits;
        Ok(if alone { ALONE } else { LOOK_EVERY })
    }
}
