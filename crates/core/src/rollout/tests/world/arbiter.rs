//! A master's agent, with a clock of its own.

use super::{Instance, REGION, World, minutes};
use crate::config::settings::{DriftSettings, RolloutSettings};
use crate::duties::rollout::RolloutDuty;
use crate::engine::Duty;
use crate::gate::Open;
use crate::model::cause::Outcome;
use crate::model::identity::{Ec2, Identity, Origin};
use crate::node::{Node, Silent};
use crate::ports::Time;
use crate::store::fake::OneFile;
use crate::testing::{identity, settings};
use crate::world::{Ports, World as Way};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// A machine's clock: the world's, and so much more. Nobody sleeps: deadlines of calls never pass.
struct Clock {
    world: Rc<World>,
    ahead: SignedDuration,
    seed: Cell<u64>,
}

#[async_trait(?Send)]
impl Time for Clock {
    fn now(&self) -> Timestamp {
        self.world.now() + self.ahead
    }
    fn uptime(&self) -> Duration {
        self.world.uptime.get()
    }
    async fn sleep(&self, _: Duration) {
        std::future::pending().await
    }
    fn random(&self, buffer: &mut [u8]) {
        for byte in buffer {
            let next = self.seed.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.seed.set(next);
            *byte = (next >> 56) as u8;
        }
    }
}

/// A master's agent.
pub struct Arbiter {
    pub node: Node,
    pub duty: RolloutDuty,
}

impl Arbiter {
    /// On a machine of its own, with a clock that is ahead by so many seconds.
    pub fn new(world: &Rc<World>, name: &str, pace: RolloutSettings, ahead: i64) -> Arbiter {
        let id = format!("i-{name}");
        {
            let mut state = world.state.borrow_mut();
            let image = "ami-master".to_owned();
            let one = Instance { group: None, image, state: "running", since: Duration::ZERO, node: Some(name.into()) };
            state.instances.entry(id.clone()).or_insert(one);
        }
        if !world.nodes().iter().any(|node| node.name == name) {
            world.join(name, Some(&id), true);
        }
        let seed = Cell::new(world.state.borrow().version + 17);
        let time = Rc::new(Clock { world: world.clone(), ahead: SignedDuration::from_secs(ahead), seed });
        let ports = Ports {
            objects: world.clone(),
            files: Rc::new(OneFile::default()),
            jobs: world.clone(),
            metadata: world.clone(),
            cloud: world.clone(),
            cluster: world.clone(),
            vault: Rc::new(crate::ports::Nobody),
            etcd: Rc::new(crate::ports::Nobody),
            host: world.clone(),
            time,
        };
        let ec2 = Ec2 {
            instance_id: id,
            account: "123456789012".into(),
            region: REGION.into(),
            partition: "aws".into(),
            zone: "eu-west-1a".into(),
            instance_type: "m7g.large".into(),
            image_id: "ami-master".into(),
        };
        let host = identity(name);
        let identity = Identity { origin: Origin::Ec2(ec2), ..host };
        let mut settings = settings("role: master");
        settings.drift = DriftSettings { rollout: pace, drain_within: minutes(5), ..DriftSettings::default() };
        let node = Node::new(Rc::new(settings), Rc::new(identity), Way::new(ports, Rc::new(Open), Rc::new(Silent)));
        Arbiter { node, duty: RolloutDuty::default() }
    }

    /// The agent died and was started again.
    pub fn reborn(self) -> Arbiter {
        Arbiter { duty: RolloutDuty::default(), ..self }
    }

    pub fn tick(&self) -> impl Future<Output = Outcome<Duration>> {
        self.duty.tick(&self.node)
    }
}

pub fn pace(at_once: usize) -> RolloutSettings {
    RolloutSettings {
        at_once: u32::try_from(at_once).expect("small"),
        windows: Vec::new(),
        min_age: minutes(1),
        ready_for: minutes(2),
        successor_within: minutes(15),
    }
}
