//! Masters that go for good and are alive when they do: an operator says `kubestrap leave`, or EC2 takes an instance back.
//! What cuts the leaving short is followed by another try; what is refused is asked for again later. And a reboot that was
//! announced, which is no leaving.

use crate::agent::{self, Life};
use crate::machine::Agent;
use crate::scenario::Calamity;
use crate::universe::Universe;
use jiff::SignedDuration;
use kubestrap_core::end::events::{MAINTENANCE, SPOT};
use kubestrap_core::etcd::leave::{Farewell, intent, leave};
use kubestrap_core::model::cause::{Cause, Outcome};
use kubestrap_core::model::identity::Role;
use serde_json::json;
use std::rc::Rc;
use std::time::Duration;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// How often it is looked for a master that may go.
const LOOKS: Duration = seconds(10);
/// After a refusal, or a reboot in the middle, an operator comes back to it within this time.
const SOON: Duration = seconds(2 * 60);
const LATE: Duration = seconds(8 * 60);
/// How long `kubestrap leave` takes, or longer: the time in which it is cut short.
const TAKES: Duration = Duration::from_millis(2500);
/// A spot instance is taken back this long after its notice.
const SPOT_NOTICE: Duration = seconds(120);
/// A scheduled reboot comes this long after it is announced: the shortest time in which an agent can prepare for it.
const REBOOT_NOTICE: Duration = seconds(240);

/// Whether a machine is on its way out of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// Nobody wants that.
    No,
    /// An operator does, and comes back to it: until then the agent is what is started on it.
    Wanted,
    /// An operator has stopped the agent and runs `kubestrap leave`, again when it is killed.
    Now,
    /// EC2 has said that the instance ends: its agent leaves by itself.
    Noticed,
    /// It was told that it has left.
    Left,
}

/// The masters that are ready, and on their way nowhere.
fn settled_masters(universe: &Universe) -> Vec<usize> {
    let stays = |machine: &&crate::machine::Machine| {
        let quiet = machine.leaving.get() == Leaving::No && machine.notice.borrow().is_none();
        machine.role == Role::Master && machine.ready.get() && quiet
    };
    universe.machines.iter().filter(stays).map(|machine| machine.index).collect()
}

/// Looks again later, as long as faults last.
fn later(universe: &Rc<Universe>, look: fn(&Rc<Universe>)) {
    if universe.faulty() {
        let world = universe.clone();
        universe.timeline.after(LOOKS, move || look(&world));
    }
}

/// An operator takes a master out of the cluster: any that is ready, also the only one; one after another.
pub fn ask(universe: &Rc<Universe>) {
    let busy = universe.survivors().any(|machine| machine.leaving.get() != Leaving::No);
    let masters = settled_masters(universe);
    if busy || masters.is_empty() {
        return later(universe, ask);
    }
    universe.count(Calamity::MasterLeaves.name());
    let leaver = *universe.rng.pick(&masters);
    begin(universe, leaver);
    // Of three, another one is away: the quorum needs the one that is to leave.
    let other = masters.into_iter().find(|other| *other != leaver).filter(|_| universe.rng.below(3) == 0);
    if let Some(other) = other {
        let (world, after) = (universe.clone(), universe.rng.between(Duration::ZERO, seconds(8)));
        universe.count("leave-beside-a-reboot");
        universe.timeline.after(after, move || world.reboot(other));
    }
}

/// `systemctl stop kubestrap && kubestrap leave`.
fn begin(universe: &Rc<Universe>, machine: usize) {
    let about = &universe.machines[machine];
    if about.is_dead() {
        return;
    }
    if !about.is_on() {
        return universe.come_back_to(machine);
    }
    about.leaving.set(Leaving::Now);
    universe.note(machine, format_args!("is to leave: an operator stops the agent"));
    let agent = about.state.borrow().agent.clone();
    match agent {
        Agent::Up => universe.kill_agent(machine, "by the operator, who runs `kubestrap leave`"),
        Agent::Refused(_) => universe.restart_refused(machine),
        // What is started next is the verb.
        Agent::Down | Agent::Due => {}
    }
}

impl Universe {
    fn come_back_to(self: &Rc<Self>, machine: usize) {
        self.machines[machine].leaving.set(Leaving::Wanted);
        let (world, after) = (self.clone(), self.rng.between(SOON, LATE));
        self.timeline.after(after, move || begin(&world, machine));
    }

    /// An operator's shell ends with the machine's power; the agent is what starts at the next boot.
    pub fn end_shell(self: &Rc<Self>, machine: usize) {
        if self.machines[machine].leaving.get() == Leaving::Now {
            self.come_back_to(machine);
        }
    }
}

/// The life of `kubestrap leave`, begun again until it succeeds or is refused.
pub fn verb(universe: &Rc<Universe>, machine: usize) -> Life {
    let universe = universe.clone();
    cut_short(&universe, machine);
    Box::pin(async move {
        loop {
            match farewell(&universe, machine).await {
                Ok(farewell) => {
                    has_left(&universe, machine, &farewell);
                    break;
                }
                Err(failure) if matches!(failure.cause, Cause::LastVoter | Cause::QuorumNeeded) => {
                    universe.count("leave-refused");
                    universe.note(machine, format_args!("may not leave: {failure}"));
                    universe.come_back_to(machine);
                    universe.kill_agent(machine, "by the operator, who starts the agent again");
                    break;
                }
                Err(failure) => {
                    universe.note(machine, format_args!("the operator is told: {failure}"));
                    universe.sleep(universe.rng.between(seconds(5), seconds(60))).await;
                }
            }
        }
        std::future::pending().await
    })
}

/// What the verb does: it shows what is about to happen, and does it.
async fn farewell(universe: &Rc<Universe>, machine: usize) -> Outcome<Farewell> {
    let node = agent::node_of(universe, machine).await?;
    intent(&node).await?;
    leave(&node).await
}

/// Perhaps somebody kills it, or the power goes, in the middle.
fn cut_short(universe: &Rc<Universe>, machine: usize) {
    if !universe.faulty() || universe.rng.below(2) == 0 {
        return;
    }
    let (world, after) = (universe.clone(), universe.rng.between(Duration::ZERO, TAKES));
    universe.timeline.after(after, move || {
        if world.machines[machine].leaving.get() != Leaving::Now || !world.has_live_agent(machine) {
            return;
        }
        if world.rng.below(2) == 0 {
            world.count("leave-killed");
            world.kill_agent(machine, "in the middle of leaving");
        } else {
            world.count("leave-cut-by-reboot");
            world.reboot(machine);
        }
    });
}

/// The operator is told so, and terminates the machine; some start it once more before.
fn has_left(universe: &Rc<Universe>, machine: usize, farewell: &Farewell) {
    universe.judge_farewell(machine);
    universe.count(if farewell.node_left.is_some() { "left-without-its-node" } else { "left" });
    universe.machines[machine].leaving.set(Leaving::Left);
    universe.note(machine, format_args!("has left"));
    if universe.rng.below(2) == 0 {
        let world = universe.clone();
        universe.timeline.after(seconds(10), move || world.reboot(machine));
    }
    let (world, after) = (universe.clone(), universe.rng.between(seconds(120), seconds(400)));
    universe.timeline.after(after, move || world.die(machine));
}

/// EC2 takes a master's instance back, as it does with spot instances.
pub fn take_back(universe: &Rc<Universe>) {
    let spared = settled_masters(universe).into_iter().filter(|machine| universe.can_miss(*machine));
    let Some(machine) = spared.min_by_key(|_| universe.rng.next()) else { return later(universe, take_back) };
    universe.count(Calamity::SpotNotice.name());
    universe.note(machine, format_args!("is taken back in {} s, EC2 says", SPOT_NOTICE.as_secs()));
    let about = &universe.machines[machine];
    let at = universe.wall_at(universe.timeline.now() + SPOT_NOTICE);
    about.notice.replace(Some((SPOT, json!({ "action": "terminate", "time": at }).to_string())));
    about.leaving.set(Leaving::Noticed);
    let (world, before) = (universe.clone(), universe.disturbances(machine));
    universe.timeline.after(SPOT_NOTICE, move || {
        world.judge_taken_back(machine, before);
        world.die(machine);
    });
}

/// EC2 reboots a master's instance, and says so before: its machine comes back, and so does its member.
pub fn announce_reboot(universe: &Rc<Universe>) {
    let masters = settled_masters(universe);
    if masters.is_empty() {
        return later(universe, announce_reboot);
    }
    let machine = *universe.rng.pick(&masters);
    universe.count(Calamity::RebootNotice.name());
    universe.note(machine, format_args!("is rebooted in {} s, EC2 says", REBOOT_NOTICE.as_secs()));
    let at = universe.wall() + SignedDuration::try_from(REBOOT_NOTICE).unwrap_or_default();
    let event = json!([{ "NotBefore": at.strftime("%d %b %Y %H:%M:%S GMT").to_string(), "Code": "system-reboot",
        "Description": "scheduled reboot", "EventId": "instance-event-1", "State": "active" }]);
    universe.machines[machine].notice.replace(Some((MAINTENANCE, event.to_string())));
    let world = universe.clone();
    universe.timeline.after(REBOOT_NOTICE, move || {
        world.machines[machine].notice.replace(None);
        world.reboot(machine);
    });
}
