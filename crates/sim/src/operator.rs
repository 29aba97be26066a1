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

/// Unlocks a register whose holder is really lost, again and again, for as long as the world exists.
pub async fn work(universe: Rc<Universe>) {
    let ports = Desk::new(universe.clone(), 0, Writer::Operator).ports();
    let world = World::new(ports, Rc::new(Open), Rc::new(Silent));
    let Ok(cluster) = ClusterName::parse(crate::invariants::CLUSTER) else { return };
    let store = Store::new(world.objects.clone(), world.time.clone(), cluster);
    while universe.scenario.ground == Ground::Host {
        universe.sleep(LOOKS).await;
        let Ok(Some(seen)) = store.register().await else { continue };
        let RegisterState::Initialising { holder: Some(holder), .. } = &seen.register.state else { continue };
        if universe.machine_of(&holder.identity).is_some_and(crate::machine::Machine::is_dead) {
            universe.note_world(format_args!("the operator unlocks the register of {}", holder.node_name));
            let _ = store.unlock_init(&seen).await;
        }
    }
}
