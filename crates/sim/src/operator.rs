//! A person with kubestrap's own tools: on bare metal nobody else can say that a machine is gone.

use crate::ports::Desk;
use crate::scenario::Ground;
use crate::store::Writer;
use crate::universe::Universe;
use kubestrap_core::gate::Open;
use kubestrap_core::model::names::ClusterName;
use kubestrap_core::model::register::RegisterState;
use kubestrap_core::node::Silent;
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

/// Unlocks a register whose holder is really lost, again and again, for as long as the world exists.
pub async fn work(universe: Rc<Universe>) {
    let ports = Desk::new(universe.clone(), 0, Writer::Operator).ports();
    let world = World::new(ports, Rc::new(Open), Rc::new(Silent));
    let Ok(cluster) = ClusterName::parse(crate::invariants::CLUSTER) else { return };
    let store = Store::new(world.objects.clone(), world.time.clone(), cluster);
    let mut rash = if universe.scenario.rash_operator { RASH_LOOKS } else { 0 };
    if universe.scenario.ground != Ground::Host {
        return;
    }
    loop {
        rash = rash.saturating_sub(1);
        let hasty = rash > 0;
        universe.sleep(if hasty { universe.rng.between(Duration::from_secs(3), HASTE) } else { LOOKS }).await;
        let Ok(Some(seen)) = store.register().await else { continue };
        let RegisterState::Initialising { holder: Some(holder), .. } = &seen.register.state else { continue };
        if hasty || universe.machine_of(&holder.identity).is_some_and(crate::machine::Machine::is_dead) {
            universe.note_world(format_args!("the operator unlocks the register of {}", holder.node_name));
            let _ = store.unlock_init(&seen).await;
        }
    }
}
