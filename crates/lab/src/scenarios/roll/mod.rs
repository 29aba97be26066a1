//! Workers of an Auto Scaling group whose image changes, under a service that has a budget and is asked all the time.

mod broken;
mod ec2;
mod watch;
mod web;

use super::support::{
    self, BUCKET, READY, STAYS_ON_A_FULL_DISK, await_ready, expect, master, node_name, property, said,
};
use super::{Needs, Scenario};
use crate::lab::Lab;
use crate::machine::Machine;
use crate::{Result, fail};
use ec2::Ec2;
use serde_json::Value;
use std::time::{Duration, Instant};
use watch::{Moment, Watch, annotation};
use web::Web;

/// See the module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "roll-by-hand-k8s",
        about: "three workers replaced by kubectl drain, without kubestrap: what its own rollout is measured against",
        needs: Needs::Kubernetes,
        shares: false,
        run: by_hand,
    },
    Scenario {
        name: "roll-k8s",
        about: "a new image: three workers drain and are replaced one at a time, and a service with a budget never fails",
        needs: Needs::Kubernetes,
        shares: false,
        run: roll,
    },
    Scenario {
        name: "roll-broken-k8s",
        about: "a new image that joins nothing stops the rollout after one worker; an image that works goes on by itself",
        needs: Needs::Kubernetes,
        shares: false,
        run: broken::then_another,
    },
    Scenario {
        name: "roll-resumed-k8s",
        about: "the same, but what broke it is mended: `kubestrap rollout resume` goes on with the same image",
        needs: Needs::Kubernetes,
        shares: false,
        run: broken::then_resumed,
    },
    Scenario {
        name: "drain-blocked-k8s",
        about: "a budget blocks a drain, which names it and outlives its agent; the budget yields, the worker is replaced",
        needs: Needs::Kubernetes,
        shares: false,
        run: blocked,
    },
];

/// How many workers there are.
const WORKERS: usize = 3;
/// Pods of the service that are always wanted: one may go.
const ONE_MAY_GO: u64 = 2;
/// None may go.
const NONE_MAY_GO: u64 = 3;
/// A worker's part of it.
const REPLACE: &str = "drift: { image: { auto_scaling_group: true }, action: replace, every: 10s }\n";
/// An arbiter with nothing to do looks every three minutes; then each worker takes about a minute and a half.
const ROLL: Duration = Duration::from_secs(15 * 60);

/// The master's part: it expects a rollout, young Nodes go too, and a replacement must be Ready for so long as nobody waits
/// for.
fn pace(successor_within: &str) -> String {
    let rollout = format!("min_age: 0s, ready_for: 5s, successor_within: {successor_within}");
    format!("drift: {{ action: replace, rollout: {{ {rollout} }} }}\n")
}

/// A master, and a group of workers on the first of two images.
struct Fleet {
    name: &'static str,
    master: Machine,
    ec2: Ec2,
    /// What the template launches next.
    next: String,
}

impl Fleet {
    /// Makes it; `name` is the cluster's, the group's and the template's. The configuration of workers and of the master
    /// may go on.
    fn new(lab: &mut Lab, name: &'static str, worker: &str, more: &str) -> Result<Fleet> {
        lab.fabric().bucket(BUCKET)?;
        // The master's: EC2 is believed about others only when it knows the asker.
        let own = lab.fabric().stock_instance()?;
        let image = |version: u8| lab.fabric().image(&format!("{name}-{version}"), &own);
        let (old, next) = (image(1)?, image(2)?);
        lab.fabric().launch_template(name, &old)?;
        let master = master("m1", name, &format!("{STAYS_ON_A_FULL_DISK}{more}"))?.instance(own);
        let master = lab.machine(&master)?;
        master.power_on()?;
        await_ready(lab, &master, &master)?;
        lab.fabric().group(name, name, WORKERS)?;
        let mut ec2 = Ec2::new(name, support::user_data("worker.kubestrap.yaml", name)? + worker);
        ec2.settle(lab)?;
        for (instance, machine) in ec2.alive() {
            await_ready(lab, &master, machine)?;
            lab.say(&format!("{} is {} on {}", machine.name(), instance.id, instance.image));
        }
        Ok(Fleet { name, master, ec2, next })
    }

    /// The group launches the next image from now on.
    fn change(&self, lab: &Lab) -> Result<Watch> {
        lab.fabric().next_version(self.name, &self.next)?;
        lab.say(&format!("the group launches {} from now on", self.next));
        Ok(Watch::begin(&self.master, &self.ec2))
    }

    /// Looks until it is so; fails with the table and the last words of the arbiter.
    fn until(
        &mut self,
        lab: &mut Lab,
        watch: &mut Watch,
        (what, within): (&str, Duration),
        mut is: impl FnMut(&Watch, &Fleet) -> bool,
    ) -> Result<()> {
        let began = Instant::now();
        while !is(watch, self) {
            if began.elapsed() > within {
                let (waited, words) = (within.as_secs(), crate::command::tail(&said(&self.master), 12));
                return fail(format!("waited {waited} s in vain for {what}:\n{}\n{words}", watch.table()));
            }
            watch.look(lab, &mut self.ec2)?;
        }
        Ok(())
    }

    /// Every worker says that it runs what its group launches.
    fn all_are_current(&self, lab: &Lab) -> Result<()> {
        for (instance, machine) in self.ec2.alive() {
            self.master.until("to see every worker current", READY, |master| {
                let drift = node(master, machine).map(|node| annotation(&node, "drift")).unwrap_or_default();
                drift["verdict"] == "current" && drift["running"] == instance.image.as_str()
            })?;
        }
        lab.say("every worker says that it runs what its group launches");
        Ok(())
    }

    /// All workers run the next image, and are Ready.
    fn is_renewed(&self, lab: &Lab) -> Result<()> {
        let alive: Vec<_> = self.ec2.alive().collect();
        expect(alive.len() == WORKERS, &format!("there are {WORKERS} workers, not {}", alive.len()))?;
        for (instance, machine) in alive {
            let image = &instance.image;
            expect(*image == self.next, &format!("{} is on {}, not {image}", machine.name(), self.next))?;
            await_ready(lab, &self.master, machine)?;
        }
        Ok(())
    }
}

fn node(master: &Machine, machine: &Machine) -> Option<Value> {
    master.kubectl(&["get", "node", &node_name(machine)]).ok()
}

/// What was seen, and that nobody noticed.
fn nobody_noticed(lab: &Lab, watch: &Watch, web: &Web) -> Result<()> {
    println!("\n{}\n", watch.table());
    let asked = web.never_failed()?;
    let away = watch.away;
    lab.say(&format!("the service was asked {asked} times and always answered; most workers away at once: {away}"));
    Ok(())
}

fn by_hand(lab: &mut Lab) -> Result<()> {
    let mut fleet = Fleet::new(lab, "by-hand", "", "")?;
    let web = Web::start(lab, &fleet.master, ONE_MAY_GO)?;
    let mut watch = fleet.change(lab)?;
    let old: Vec<_> = fleet.ec2.alive().cloned().collect();
    for (instance, machine) in &old {
        let name = node_name(machine);
        fleet.master.shell(&format!("kubectl cordon {name}"))?;
        watch.note(lab, &instance.id, Moment::Cordoned);
        let drain = format!("kubectl drain {name} --ignore-daemonsets --delete-emptydir-data --timeout=180s");
        fleet.master.shell(&drain)?;
        watch.note(lab, &instance.id, Moment::Drained);
        lab.fabric().terminate_in_group(&instance.id)?;
        let done = watch.count(Moment::Replaced);
        let wanted = ("the machine in its place to become a node", READY);
        fleet.until(lab, &mut watch, wanted, |watch, _| watch.count(Moment::Replaced) > done)?;
        fleet.master.shell(&format!("kubectl delete node {name}"))?;
        watch.note(lab, &instance.id, Moment::Closed);
        web.is_whole()?;
    }
    fleet.is_renewed(lab)?;
    nobody_noticed(lab, &watch, &web)
}

fn roll(lab: &mut Lab) -> Result<()> {
    let mut fleet = Fleet::new(lab, "roll", REPLACE, &pace("120s"))?;
    fleet.all_are_current(lab)?;
    let web = Web::start(lab, &fleet.master, ONE_MAY_GO)?;
    let mut watch = fleet.change(lab)?;
    fleet.until(lab, &mut watch, ("all workers to be replaced", ROLL), |watch, _| {
        watch.count(Moment::Closed) == WORKERS
    })?;
    fleet.is_renewed(lab)?;
    for moment in [Moment::Granted, Moment::Cordoned, Moment::Drained, Moment::Terminated, Moment::Replaced] {
        expect(watch.count(moment) == WORKERS, &format!("every worker was {moment:?}:\n{}", watch.table()))?;
    }
    nobody_noticed(lab, &watch, &web)
}

fn blocked(lab: &mut Lab) -> Result<()> {
    let mut fleet = Fleet::new(lab, "drain-blocked", REPLACE, &pace("120s"))?;
    fleet.all_are_current(lab)?;
    let web = Web::start(lab, &fleet.master, NONE_MAY_GO)?;
    let mut watch = fleet.change(lab)?;
    let is_blocked = |watch: &Watch, fleet: &Fleet| !words(watch, fleet).is_empty();
    fleet.until(lab, &mut watch, ("a drain to name what blocks it", ROLL), is_blocked)?;
    let Some(id) = watch.current().map(str::to_owned) else { return fail("nobody has a grant") };
    let Some(machine) = fleet.ec2.machine(&id).cloned() else { return fail(format!("{id} has no machine")) };
    lab.say(&format!("{} says: {}", machine.name(), words(&watch, &fleet)));
    let grant = |fleet: &Fleet| node(&fleet.master, &machine).map(|node| annotation(&node, "grant")["id"].clone());
    let before = grant(&fleet);
    machine.kill_agent()?;
    machine.until("to have its agent again", READY, |machine| {
        property(machine, "NRestarts").is_ok_and(|times| times == "1")
            && property(machine, "ActiveState").is_ok_and(|state| state == "active")
    })?;
    lab.say(&format!("the agent of {} was killed in the middle of its drain, and is back", machine.name()));
    // Longer than the agent's next look at its Node.
    let since = Instant::now();
    let is_over = |_: &Watch, _: &Fleet| since.elapsed() > Duration::from_secs(40);
    fleet.until(lab, &mut watch, ("forty seconds to pass", READY), is_over)?;
    expect(before.is_some() && grant(&fleet) == before, &format!("it still has the grant {before:?}"))?;
    let seen = node(&fleet.master, &machine).unwrap_or_default();
    expect(seen["spec"]["unschedulable"] == true, &format!("it is still cordoned: {}", seen["spec"]))?;
    expect(watch.count(Moment::Drained) == 0, "the budget still blocks it")?;
    web.is_whole()?;
    web.budget(ONE_MAY_GO)?;
    lab.say("the budget yields");
    fleet.until(lab, &mut watch, ("the worker to be replaced", ROLL), |watch, _| watch.count(Moment::Closed) > 0)?;
    expect(watch.moment(&id, Moment::Closed).is_some(), &format!("the same worker was replaced:\n{}", watch.table()))?;
    nobody_noticed(lab, &watch, &web)
}

/// What the granted worker says of its drain, when that names the service's budget.
fn words(watch: &Watch, fleet: &Fleet) -> String {
    let machine = watch.current().and_then(|id| fleet.ec2.machine(id));
    let node = machine.and_then(|machine| node(&fleet.master, machine)).unwrap_or_default();
    let progress = annotation(&node, "grant-progress");
    let why = progress["why"].as_str().unwrap_or_default();
    if progress["state"] == "draining" && why.contains("default/web") { why.to_owned() } else { String::new() }
}
