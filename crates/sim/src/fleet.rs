//! Workers in an Auto Scaling group whose image changes, and what the arbiter may do to them.

use crate::account::{Group, IMAGE, NEXT_IMAGE};
use crate::machine::{Machine, SPARE};
use crate::scenario::Scenario;
use crate::universe::Universe;
use kubestrap_core::config::settings::{Action, DriftSettings, ImageSource, RolloutSettings};
use kubestrap_core::model::identity::Role;
use kubestrap_core::ports::{ImageInfo, Launch, TemplateInfo, TemplateRef, TemplateVersion};
use kubestrap_core::rollout::ledger::{Ledger, Phase};
use kubestrap_core::rollout::wire::{CORDONED_BY, GRANT};
use serde_json::Value;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

const PARAMETER: &str = "/sim/node-image";
const GROUP: &str = "workers";
const TEMPLATE: &str = "lt-0123456789abcdef0";

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// What the machines of such a scenario are told.
pub fn drift() -> DriftSettings {
    DriftSettings {
        image: Some(ImageSource::SsmParameter(PARAMETER.to_owned())),
        action: Action::Replace,
        rollout: RolloutSettings {
            min_age: minutes(10),
            ready_for: minutes(1),
            successor_within: minutes(30),
            ..RolloutSettings::default()
        },
        ..DriftSettings::default()
    }
}

impl Scenario {
    /// Workers that are started later: by the group, in the place of others, or after a master was lost.
    pub fn spares(&self) -> u64 {
        if self.rolls { self.workers } else { self.spare_workers }
    }
}

/// The group as it is, and the new image, which the parameter names and the template starts at different times.
pub fn schedule(universe: &Rc<Universe>) {
    if !universe.scenario.rolls {
        return;
    }
    let account = &universe.account;
    let template = TemplateRef::Id(TEMPLATE.to_owned());
    let version = |version, image: &str| TemplateInfo { version, image: Some(image.to_owned()) };
    let launch = TemplateVersion { template: template.clone(), version: "$Latest".to_owned() };
    let group = Group {
        name: GROUP.to_owned(),
        launch: Launch::Template(launch),
        overrides: Vec::new(),
        waiting: BTreeSet::new(),
    };
    account.group.replace(Some(group));
    account.parameters.borrow_mut().insert(PARAMETER.to_owned(), IMAGE.to_owned());
    account.templates.borrow_mut().insert(template.clone(), vec![version(1, IMAGE)]);
    let image = account.images.borrow().get(IMAGE).cloned();
    let next = image.map(|image| ImageInfo {
        id: NEXT_IMAGE.to_owned(),
        name: "node-2".to_owned(),
        created_at: "2026-11-20T00:00:00Z".parse().ok(),
        ..image
    });
    account.images.borrow_mut().extend(next.map(|next| (next.id.clone(), next)));
    let soon = || universe.rng.between(minutes(15), minutes(30));
    let (world, named_at, started_at) = (universe.clone(), soon(), soon());
    universe.timeline.after(named_at, move || {
        world.note_world(format_args!("{PARAMETER} names the new image"));
        world.account.parameters.borrow_mut().insert(PARAMETER.to_owned(), NEXT_IMAGE.to_owned());
    });
    let world = universe.clone();
    universe.timeline.after(started_at, move || {
        world.note_world(format_args!("the group starts the new image"));
        let mut templates = world.account.templates.borrow_mut();
        templates.entry(template).or_default().push(version(2, NEXT_IMAGE));
    });
}

impl Universe {
    fn starts(&self) -> Option<String> {
        self.account.template(&TemplateRef::Id(TEMPLATE.to_owned()), "$Latest")?.image
    }

    /// A machine of a group is lost: another one is started, as long as there are spares.
    pub fn replace_soon(self: &Rc<Self>, machine: usize) {
        let role = self.machines[machine].role;
        if role == Role::Worker && !self.scenario.rolls {
            return;
        }
        let universe = self.clone();
        self.timeline.after(self.rng.between(Duration::from_secs(20), Duration::from_secs(120)), move || {
            let spare = universe
                .machines
                .iter()
                .find(|machine| !machine.is_launched() && machine.role == role)
                .map(|machine| machine.index);
            spare.into_iter().for_each(|spare| universe.launch(spare));
        });
    }

    /// Somebody asks the group to end this machine and to start another.
    pub fn judge_termination(&self, machine: usize) {
        let ended = &self.machines[machine];
        if ended.is_dead() {
            // Whoever did not hear the answer asks again.
            return;
        }
        self.count("instance-replaced");
        let wrong = |why: &str| self.violate(5, format!("{} is ended {why}", ended.name));
        let image = ended.identity.ec2().map(|ec2| ec2.image_id.clone());
        if image.is_none() || image == self.starts() {
            wrong("although its group would start the same image");
        }
        let workers = || self.machines.iter().filter(|machine| machine.role == Role::Worker);
        let lost = workers().filter(|machine| machine.is_dead()).count();
        let replaced = workers().filter(|machine| machine.generation == SPARE && machine.has_joined.get()).count();
        if lost > replaced {
            wrong("before the one before it was replaced");
        }
        let Some(etcd) = self.etcd_of_cluster() else { return wrong("in a cluster that was never made") };
        if self.pods_on(etcd, machine) > 0 {
            wrong("with pods on it");
        }
        let instance = ended.identity.ec2().map(|ec2| ec2.instance_id.clone());
        let granted = self.ledger(etcd).is_some_and(|ledger| {
            ledger.grants.iter().any(|grant| grant.phase == Phase::Replacing && grant.instance == instance)
        });
        if !granted {
            wrong("without a grant");
        }
    }

    /// The arbiter writes its ledger.
    pub fn judge_ledger(&self, etcd: usize, object: &Value) {
        let text = object.pointer("/data/ledger.json").and_then(Value::as_str);
        let Some(next) = text.map_or_else(|| Some(Ledger::default()), |text| Ledger::parse(text).ok()) else {
            return self.violate(8, "a ledger that nobody can read is written");
        };
        let before = self.ledger(etcd).unwrap_or_default();
        if next.grants.len() > drift().rollout.at_once as usize {
            self.violate(5, format!("{} nodes are granted at once", next.grants.len()));
        }
        let is_new = next.grants.iter().filter(|grant| !before.grants.iter().any(|known| known.id == grant.id)).count();
        (0..is_new).for_each(|_| self.count("grant"));
        if next.rollouts.iter().any(|rollout| rollout.refused.is_some()) {
            self.count("old-image-refused");
        }
    }

    /// The control plane of the cluster that was committed.
    pub fn etcd_of_cluster(&self) -> Option<usize> {
        let creator = self.monitor.borrow().committed.as_ref().map(|(.., machine)| *machine)?;
        self.etcds.borrow().iter().rposition(|etcd| etcd.creator == creator)
    }

    /// Why the workers are not all on the new image, with nothing left of the way there.
    pub fn unrolled(&self) -> Option<String> {
        if !self.scenario.rolls {
            return None;
        }
        let etcd = self.etcd_of_cluster()?;
        let old = |machine: &&Machine| {
            machine.role == Role::Worker && machine.identity.ec2().is_some_and(|ec2| ec2.image_id == IMAGE)
        };
        if let Some(old) = self.survivors().find(old) {
            return Some(format!("{} still runs the old image", old.name));
        }
        if self.ledger(etcd).is_some_and(|ledger| !ledger.grants.is_empty()) {
            return Some("a grant is left over".to_owned());
        }
        self.survivors().find_map(|machine| {
            let node = self.node_object(etcd, &machine.identity.node_name)?;
            let annotation = |key: &str| node.pointer("/metadata/annotations")?.get(key).cloned();
            let cordoned = node.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true);
            let left = [GRANT, CORDONED_BY].iter().any(|key| annotation(key).is_some());
            (cordoned || left).then(|| format!("{} is still cordoned or carries a grant", machine.name))
        })
    }
}
