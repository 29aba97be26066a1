//! The ports of one machine: every trait of `kubestrap_core::ports`, over the simulated world.

mod api;
mod cloud;
mod files;
mod jobs;
mod local;
mod objects;

use crate::store::Writer;
use crate::universe::Universe;
use kubestrap_core::world::Ports;
use std::rc::Rc;

/// The adapters of one machine.
#[derive(Clone)]
pub struct Desk {
    universe: Rc<Universe>,
    machine: usize,
    writer: Writer,
}

impl Desk {
    /// The adapters of this machine, used by its agent or by an operator.
    pub fn new(universe: Rc<Universe>, machine: usize, writer: Writer) -> Self {
        Desk { universe, machine, writer }
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
            host: desk.clone(),
            time: desk,
        }
    }
}
