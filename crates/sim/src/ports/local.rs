//! Time, chance and facts of the host.

use super::Desk;
use crate::machine::Power;
use async_trait::async_trait;
use jiff::Timestamp;
use kubestrap_core::model::cause::Outcome;
use kubestrap_core::ports::{Host, Time};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

#[async_trait(?Send)]
impl Time for Desk {
    fn now(&self) -> Timestamp {
        self.universe.wall_of(self.machine)
    }

    fn uptime(&self) -> Duration {
        match self.universe.machines[self.machine].state.borrow().power {
            Power::On(since) => self.universe.timeline.now().saturating_sub(since) + Duration::from_secs(10),
            Power::Booting | Power::Stopped | Power::Unlaunched | Power::Dead(..) => Duration::ZERO,
        }
    }

    async fn sleep(&self, duration: Duration) {
        self.universe.sleep(duration).await;
    }

    fn random(&self, buffer: &mut [u8]) {
        self.universe.rng.fill(buffer);
    }
}

impl Host for Desk {
    fn hostname(&self) -> Outcome<String> {
        Ok(self.universe.machines[self.machine].identity.node_name.clone())
    }

    fn default_address(&self) -> Outcome<Option<IpAddr>> {
        Ok(Some(self.universe.machines[self.machine].identity.address))
    }

    fn program(&self) -> Outcome<PathBuf> {
        Ok(PathBuf::from("/usr/bin/kubestrap"))
    }
}
