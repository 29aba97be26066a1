//! A person with kubestrap's own tools: on bare metal nobody else can say that a machine is gone.

use crate::machine::Machine;
use crate::ports::Desk;
use crate::scenario::Ground;
use crate::store::Writer;
use crate::universe::Universe;
use kubestrap_core::etcd;
use kubestrap_core::gate::Open;
use kubestrap_core::kube::Api;
use kubestrap_core::model::cause::Cause;
use kubestrap_core::model::lock::JoinLock;
use kubestrap_core::model::names::ClusterName;
use kubestrap_core::model::register::RegisterState;
use kubestrap_core::node::{Node, Silent};
use kubestrap_core::rollout::operator;
use kubestrap_core::store::Store;
use kubestrap_core::world::World;
use std::rc::Rc;
use std::time::Duration;

/// How often the operator looks.
const LOOKS: Duration = Duration::from_secs(600);
/// A rash one looks in the middle of an init, a few times, and then goes home.
const RASH_LOOKS: u32 = 4;
/// The longest it waits.
const HASTE: Duration = Duration::from_secs(60);
/// A join takes some ten seconds: whoever unlocks it looks this often, and reads the warning this long, at most.
const HURRY: Duration = Duration::from_secs(10);

/// What passes between two actions of a person: longer than the interval of reports.
const SLOW: Duration = Duration::from_secs(6 * 60);
const SLOWEST: Duration = Duration::from_secs(15 * 60);

/// Unlocks a register whose holder is really lost, retires a cluster that was torn down, again and again, for as long
/// as the world exists.
pub async fn work(universe: Rc<Universe>) {
    let ports = Desk::new(universe.clone(), 0, Writer::Operator).ports();
    let world = World::new(ports, Rc::new(Open), Rc::new(Silent));
    let Ok(cluster) = ClusterName::parse(crate::invariants::CLUSTER) else { return };
    let store = Store::new(world.objects.clone(), world.time.clone(), cluster);
    if universe.scenario.rebuilt {
        retire(&universe, &store).await;
    } else if universe.scenario.rash_operator && universe.scenario.pki {
        rush(&universe, &store).await;
    } else if universe.scenario.ground == Ground::Host {
        unlock(&universe, &store).await;
    } else if universe.scenario.rolls {
        resume(&universe, &Api::admin(&world.cluster)).await;
    }
}

/// Looks at the rollout now and then, and lets it go on when it stands: here no image is ever broken.
async fn resume(universe: &Rc<Universe>, api: &Api) {
    loop {
        universe.sleep(LOOKS).await;
        let Ok(standing) = operator::standing(api).await else { continue };
        if standing.ledger.rollouts.iter().any(|rollout| rollout.paused.is_some())
            && let Ok(resumed) = operator::resume(api, None).await
        {
            universe.count("rollout-resumed");
            universe.note_world(format_args!("the operator resumes {}", resumed.join(", ")));
        }
    }
}

async fn unlock(universe: &Rc<Universe>, store: &Store) {
    let mut rash = if universe.scenario.rash_operator { RASH_LOOKS } else { 0 };
    loop {
        if universe.scenario.pki {
            bury(universe, store).await;
        }
        rash = rash.saturating_sub(1);
        let hasty = rash > 0;
        universe.sleep(if hasty { universe.rng.between(Duration::from_secs(3), HASTE) } else { LOOKS }).await;
        let Ok(Some(seen)) = store.register().await else { continue };
        let RegisterState::Initialising { holder: Some(holder), .. } = &seen.register.state else { continue };
        if hasty || universe.machine_of(&holder.identity).is_some_and(Machine::is_dead) {
            universe.note_world(format_args!("the operator unlocks the register of {}", holder.node_name));
            let _ = store.unlock_init(&seen).await;
        }
    }
}

/// Unlocks the joins over the heads of those who join, some seconds after it was shown who does, while faults last.
async fn rush(universe: &Rc<Universe>, store: &Store) {
    while universe.faulty() {
        universe.sleep(universe.rng.between(Duration::from_secs(1), HURRY)).await;
        let Ok(Some((etag, Ok(lock)))) = store.lock_to_show().await else { continue };
        universe.monitor.borrow_mut().shown_locks.push(lock.clone());
        universe.sleep(universe.rng.between(Duration::ZERO, HURRY)).await;
        match store.unlock_join(&etag).await {
            Ok(()) => universe.note_world(format_args!("the operator unlocks the join of {}", lock.holder.node_name)),
            Err(failure) => {
                if failure.cause == Cause::HeldByOther {
                    universe.count("unlock-came-too-late");
                }
                universe.note_world(format_args!("the operator is told: {failure}"));
            }
        }
    }
}

/// A person knows of the masters that are lost: `unlock join`, and `member remove` on a master that lives.
async fn bury(universe: &Rc<Universe>, store: &Store) {
    let is_dead = |lock: &JoinLock| universe.machine_of(&lock.holder.identity).is_some_and(Machine::is_dead);
    if let Ok(Some((etag, Ok(lock)))) = store.lock_to_show().await
        && is_dead(&lock)
    {
        universe.note_world(format_args!("the operator unlocks the join of {}", lock.holder.node_name));
        universe.monitor.borrow_mut().shown_locks.push(lock);
        let _ = store.unlock_join(&etag).await;
    }
    let Some(number) = universe.etcd_of_cluster() else { return };
    let lost: Vec<(usize, u64)> = {
        let etcds = universe.etcds.borrow();
        let members = etcds[number].members.iter().map(|member| (member.machine, member.id));
        members.filter(|(machine, _)| universe.machines[*machine].is_dead()).collect()
    };
    let Some(at) = (0..universe.machines.len()).find(|machine| universe.api_on(*machine) == Some(number)) else {
        return;
    };
    let Some(node) = shell_on(universe, at) else { return };
    for (machine, id) in lost {
        let started = universe.etcds.borrow()[number].member(id).is_some_and(|member| member.started);
        let name = &universe.machines[machine].identity.node_name;
        let name = if started { name.clone() } else { format!("{id:x}") };
        let told = match etcd::operator::plan_removal(&node, &name, true).await {
            Ok(removal) => etcd::operator::remove(&node, &removal).await.map(|_| ()),
            Err(failure) => Err(failure),
        };
        match told {
            Ok(()) => universe.note_world(format_args!("the operator removes the member {name}")),
            Err(failure) => universe.note_world(format_args!("the operator is told: {failure}")),
        }
    }
}

/// kubestrap's own tools on this machine.
fn shell_on(universe: &Rc<Universe>, machine: usize) -> Option<Node> {
    let about = &universe.machines[machine];
    let settings = crate::agent::settings(&universe.scenario, about.role, about.token_ttl).ok()?;
    let ports = Desk::new(universe.clone(), machine, Writer::Operator).ports();
    let world = World::new(ports, Rc::new(Open), Rc::new(Silent));
    Some(Node::new(Rc::new(settings), Rc::new(about.identity.clone()), world))
}

/// What the refusal asked for: `cluster retire`, and then the machines that had refused are started again.
async fn retire(universe: &Rc<Universe>, store: &Store) {
    loop {
        universe.sleep(LOOKS / 2).await;
        let asked = |cause| matches!(cause, Cause::AlreadyEstablished | Cause::RegisterMissing);
        let stuck = universe.refused().filter(|(index, cause)| asked(*cause) && !universe.machines[*index].is_dead());
        let stuck: Vec<usize> = stuck.map(|(index, _)| index).collect();
        let creator = universe.monitor.borrow().committed.as_ref().map(|(.., machine)| *machine);
        if stuck.is_empty() || creator.is_some_and(|creator| !universe.machines[creator].is_dead()) {
            continue;
        }
        let Ok(Some(plan)) = store.retirement().await else { continue };
        universe.note_world(format_args!("the operator retires cluster {}", plan.uid));
        match store.retire(&plan).await {
            Ok(_) => {
                // People take their time: machines that still run must not undo meanwhile what they did.
                universe.sleep(universe.rng.between(SLOW, SLOWEST)).await;
                stuck.iter().for_each(|machine| universe.restart_refused(*machine));
            }
            Err(failure) => universe.note_world(format_args!("the operator is told: {failure}")),
        }
    }
}
