//! What the lifecycle hooks of this instance's Auto Scaling group are told.

use crate::model::cause::Outcome;
use crate::node::Node;
use crate::ports::{LifecycleAnswer, LifecycleHook, LifecycleResult};
use std::cell::RefCell;
use std::time::Duration;

/// How often a sign of life is given. The shortest time-out that a hook can have is 30 s.
pub const BEAT: Duration = Duration::from_secs(20);
/// The lifecycle state of an instance and what its metadata says of it do not change at the same moment: as often is a
/// hook that does not wait asked again before it counts as over.
const MISSES: u32 = 6;

/// One hook in one life of the agent.
#[derive(Default)]
pub struct Hook {
    state: RefCell<State>,
}

#[derive(Default, Clone)]
struct State {
    /// Found out once: an instance that is on its way does not change its group.
    hook: Option<LifecycleHook>,
    /// When it was last tried to give a sign of life, by the uptime.
    tried: Option<Duration>,
    /// Whether Auto Scaling has taken a word of ours, so that it did wait.
    taken: bool,
    misses: u32,
    over: bool,
}

impl Hook {
    /// Whether it has been told how it ends, or does not wait any more.
    pub fn is_over(&self) -> bool {
        self.state.borrow().over
    }

    /// A sign of life when one is due: the hook's time-out begins anew. Nothing happens on a machine that is no EC2
    /// instance or in no group.
    pub async fn beat(&self, node: &Node, name: &str) -> Outcome<()> {
        let now = node.world.time.uptime();
        let state = self.state.borrow().clone();
        if state.over || state.tried.is_some_and(|at| now.saturating_sub(at) < BEAT) {
            return Ok(());
        }
        self.state.borrow_mut().tried = Some(now);
        let Some((region, hook)) = self.find(node, name).await? else { return Ok(()) };
        let answer = node.world.cloud.heartbeat(&region, &hook).await?;
        self.state.borrow_mut().taken |= answer == LifecycleAnswer::Taken;
        Ok(())
    }

    /// Says how it ends; whether that is over now. A hook that does not wait is asked some times more, unless it has
    /// heard from us before.
    pub async fn complete(&self, node: &Node, name: &str, result: LifecycleResult) -> Outcome<bool> {
        if self.is_over() {
            return Ok(true);
        }
        let answer = match self.find(node, name).await? {
            Some((region, hook)) => node.world.cloud.complete_lifecycle(&region, &hook, result).await?,
            None => LifecycleAnswer::NotWaiting,
        };
        let mut state = self.state.borrow_mut();
        state.misses += u32::from(answer == LifecycleAnswer::NotWaiting);
        state.over = answer == LifecycleAnswer::Taken || state.taken || state.misses >= MISSES;
        Ok(state.over)
    }

    async fn find(&self, node: &Node, name: &str) -> Outcome<Option<(String, LifecycleHook)>> {
        let Some(ec2) = node.identity.ec2() else { return Ok(None) };
        let known = self.state.borrow().hook.clone();
        let hook = match known {
            Some(hook) => hook,
            None => {
                let group = node.world.cloud.group_of(&ec2.region, &ec2.instance_id).await?;
                let Some(group) = group else { return Ok(None) };
                let (name, instance_id) = (name.to_owned(), ec2.instance_id.clone());
                let hook = LifecycleHook { group: group.name, name, instance_id };
                self.state.borrow_mut().hook = Some(hook.clone());
                hook
            }
        };
        Ok(Some((ec2.region.clone(), hook)))
    }
}
