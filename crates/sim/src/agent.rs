//! One life of one agent: the real core on simulated ports, from its start to kill -9, refusal or the end of time.

use crate::gate::SimGate;
use crate::leaving::{self, Leaving};
use crate::ports::Desk;
use crate::scenario::Scenario;
use crate::store::Writer;
use crate::universe::Universe;
use kubestrap_core::config::settings::{EndSettings, JoinSettings, Settings, StoreLocation};
use kubestrap_core::identity::{self, Imds};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::identity::Role;
use kubestrap_core::model::names::{ClusterName, Endpoint};
use kubestrap_core::model::report::Phase;
use kubestrap_core::node::{Event, Node, Observer};
use kubestrap_core::world::World;
use kubestrap_core::{duties, engine, steps};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

/// A life: ends only with a failure.
pub type Life = Pin<Box<dyn Future<Output = Outcome<Infallible>>>>;

/// The agent of this machine, from the start of its process; or what an operator runs in its place.
pub fn begin(universe: &Rc<Universe>, machine: usize) -> Life {
    if universe.machines[machine].leaving.get() == Leaving::Now {
        return leaving::verb(universe, machine);
    }
    let universe = universe.clone();
    Box::pin(async move {
        let node = node_of(&universe, machine).await?;
        let (steps, duties) = (steps::of(&node.settings), duties::of(&node.settings));
        engine::live(&node, &steps, &duties).await
    })
}

/// What every process of kubestrap on this machine begins with.
pub(crate) async fn node_of(universe: &Rc<Universe>, machine: usize) -> Outcome<Node> {
    let desk = Desk::new(universe.clone(), machine, Writer::Node(machine));
    let gate = Rc::new(SimGate::new(universe.clone(), machine));
    let observer = Rc::new(Watcher { universe: universe.clone(), machine });
    let world = World::new(desk.ports(), gate, observer);
    let about = &universe.machines[machine];
    let settings = settings(&universe.scenario, about.role, about.token_ttl)?;
    let imds = Imds::new(world.metadata.clone(), world.time.clone());
    let found = identity::discover(&world, &imds, settings.identity, &settings.node).await?;
    universe.judge_identity(machine, &found);
    identity::bind_state(&*world.files, &found.key())?;
    Ok(Node::new(Rc::new(settings), Rc::new(found), world))
}

/// What a machine of this role is told.
pub(crate) fn settings(scenario: &Scenario, role: Role, token_ttl: Duration) -> Outcome<Settings> {
    let broken = |why: String| Failure::new(Cause::Internal, "make the settings of a simulated node", why);
    let is_master = role == Role::Master;
    let endpoint = Endpoint::parse(crate::cluster::ENDPOINT).map_err(broken)?;
    Ok(Settings {
        cluster: ClusterName::parse(crate::invariants::CLUSTER).map_err(broken)?,
        role,
        store: StoreLocation::S3 { bucket: "sim".to_owned(), prefix: String::new() },
        s3: Default::default(),
        control_plane_endpoint: is_master.then_some(endpoint),
        pki: scenario.pki.then(|| crate::sealing::key(scenario.ground)),
        ca_pin: None,
        identity: Default::default(),
        metadata_endpoint: None,
        ec2_endpoint: None,
        ecr_endpoint: None,
        sts_endpoint: None,
        ssm_endpoint: None,
        kms_endpoint: None,
        autoscaling_endpoint: None,
        ecr: Default::default(),
        kubernetes: Default::default(),
        node: Default::default(),
        kubeadm: Default::default(),
        join: JoinSettings { wait: scenario.join_wait, token_ttl, api_wait: Duration::from_secs(1800) },
        addons: Vec::new(),
        images: scenario.images.then(crate::images::wanted),
        drift: if scenario.rolls { crate::fleet::drift() } else { Default::default() },
        // Thousands of virtual hours of looking every few seconds would be most of what is simulated.
        end: EndSettings { watch: Some(is_master && scenario.announces()), ..EndSettings::default() },
        metrics: Default::default(),
        report_every: Duration::from_secs(300),
    })
}

/// Hears what the agent tells people, notes it, and looks for secrets in it.
struct Watcher {
    universe: Rc<Universe>,
    machine: usize,
}

impl Observer for Watcher {
    fn on(&self, event: &Event<'_>) {
        let universe = &self.universe;
        match event {
            Event::Alive | Event::StepDone { .. } | Event::DutyTicked { result: Ok(()), .. } => return,
            Event::Phase(Phase::Ready) => {
                universe.machines[self.machine].ready.set(true);
                universe.machines[self.machine].has_joined.set(true);
                universe.judge_ready(self.machine);
            }
            _ => {}
        }
        let routine = matches!(
            event,
            Event::Retrying { .. }
                | Event::BundlePublished { .. }
                | Event::Waiting { .. }
                | Event::Phase(Phase::Bootstrapping | Phase::Waiting)
        );
        let told = match event {
            Event::StepEnded { step, result: Err(failure), .. } => format!("step {step} failed: {failure}"),
            Event::StepEnded { step, took, .. } => format!("step {step} done in {} ms", took.as_millis()),
            Event::Retrying { what, failure, after, .. } => {
                format!("{what} again in {} ms: {failure}", after.as_millis())
            }
            Event::DutyTicked { duty, result: Err(failure), .. } => format!("duty {duty} failed: {failure}"),
            Event::Phase(phase) => format!("is {}", phase.as_str()),
            Event::StepStarted { step, why } => format!("step {step} begins: {why}"),
            Event::Note(text) => format!("says: {text}"),
            other => format!("{other:?}"),
        };
        universe.judge_text(6, "an event", &told);
        if routine {
            universe.routine(self.machine, format_args!("{told}"));
        } else {
            universe.note(self.machine, format_args!("{told}"));
        }
    }
}
