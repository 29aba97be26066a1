//! The ports of one machine: every trait of `kubestrap_core::ports`, over the simulated world.

mod api;
mod cloud;
mod ecr;
mod etcd;
mod files;
mod jobs;
mod local;
mod objects;
mod vault;

use crate::network::{Far, Way};
use crate::store::Writer;
use crate::universe::Universe;
use kubestrap_core::world::Ports;
use std::rc::Rc;
use std::time::Duration;

/// The adapters of one machine.
#[derive(Clone)]
pub struct Desk {
    pub(crate) universe: Rc<Universe>,
    pub(crate) machine: usize,
    writer: Writer,
}

impl Desk {
    /// The adapters of this machine, used by its agent or by an operator.
    pub fn new(universe: Rc<Universe>, machine: usize, writer: Writer) -> Self {
        Desk { universe, machine, writer }
    }

    /// A request goes there: it never arrives when the machine is cut off.
    async fn there(&self, far: Far) {
        let universe = &self.universe;
        let travel = if far == Far::Cloud { Duration::from_millis(2) } else { universe.travel() };
        universe.sleep(travel).await;
        if self.way(far) == Way::Shut {
            universe.count("request-lost-in-cut");
            std::future::pending::<()>().await;
        }
    }

    /// Its answer comes back, unless the machine is cut off.
    async fn back(&self, far: Far) {
        self.universe.sleep(self.universe.travel()).await;
        if self.way(far) != Way::Open {
            self.universe.count("answer-lost-in-cut");
            std::future::pending::<()>().await;
        }
    }

    /// How a request that leaves now fares. An operator sits somewhere else.
    fn way(&self, far: Far) -> Way {
        match self.writer {
            Writer::Node(_) => self.universe.machines[self.machine].way(far, self.universe.timeline.now()),
            Writer::Operator | Writer::World => Way::Open,
        }
    }

    /// All of them.
    pub fn ports(&self) -> Ports {
        let desk = Rc::new(self.clone());
        Ports {
            objects: desk.clone(),
            files: desk.clone(),
            jobs: desk.clone(),
            metadata: desk.clone(),
            cloud: desk.clone(),
            cluster: desk.clone(),
            vault: desk.clone(),
            etcd: desk.clone(),
            host: desk.clone(),
            time: desk,
        }
    }
}
