//! A new image whose machines boot and never join: one worker is lost, and the rollout stands until somebody acts.

use super::watch::{self, Moment, Watch, ledger};
use super::web::Web;
use super::{Fleet, ONE_MAY_GO, REPLACE, ROLL, WORKERS, nobody_noticed, node, pace};
use crate::Result;
use crate::lab::Lab;
use crate::machine::Machine;
use crate::scenarios::support::{await_ready, expect};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long the arbiter waits for a replacement, and how long it is then watched.
const WITHIN: Duration = Duration::from_secs(60);

/// The group gets a third image, which works.
pub fn then_another(lab: &mut Lab) -> Result<()> {
    let (mut fleet, mut watch, web) = one_is_lost(lab, "roll-broken")?;
    let Some((instance, _)) = fleet.ec2.alive().next().cloned() else { return crate::fail("no worker is left") };
    fleet.next = lab.fabric().image("roll-broken-3", &instance)?;
    lab.fabric().next_version(fleet.name, &fleet.next)?;
    lab.say(&format!("the group launches {} from now on, which works", fleet.next));
    the_others_go(lab, &mut fleet, &mut watch, &web)
}

/// What broke the image was not in it: it is mended, and an operator says so.
pub fn then_resumed(lab: &mut Lab) -> Result<()> {
    let (mut fleet, mut watch, web) = one_is_lost(lab, "roll-resumed")?;
    fleet.ec2.is_mended();
    let said = fleet.master.exec(&["kubestrap", "rollout", "resume", "--group", fleet.name])?.stdout;
    let resumed = said.contains(&fleet.next) && said.contains("no replacement");
    expect(resumed, &format!("`kubestrap rollout resume` says what it resumed: {said}"))?;
    lab.say(said.trim());
    the_others_go(lab, &mut fleet, &mut watch, &web)
}

/// Until the rollout has stood for a while, with the other workers as they were.
fn one_is_lost(lab: &mut Lab, name: &'static str) -> Result<(Fleet, Watch, Web)> {
    let mut fleet = Fleet::new(lab, name, REPLACE, &pace(&format!("{}s", WITHIN.as_secs())))?;
    fleet.all_are_current(lab)?;
    let web = Web::start(lab, &fleet.master, ONE_MAY_GO)?;
    fleet.ec2.breaks(&fleet.next);
    let mut watch = fleet.change(lab)?;
    let pauses = |watch: &Watch, fleet: &Fleet| watch.count(Moment::Closed) > 0 || !pause(&fleet.master).is_null();
    fleet.until(lab, &mut watch, ("the rollout to pause", ROLL), pauses)?;
    let (after, why) = (watch.seconds(), pause(&fleet.master)["why"].clone());
    expect(why.is_string(), &format!("the rollout pauses before a worker is replaced:\n{}", watch.table()))?;
    lab.say(&format!("paused {after:.1} s after the change; the ledger says: {why}"));
    // As long again as a replacement may take, and nobody else goes.
    let since = Instant::now();
    let is_over = |_: &Watch, _: &Fleet| since.elapsed() > WITHIN;
    fleet.until(lab, &mut watch, ("a minute to pass", ROLL), is_over)?;
    let granted = watch.count(Moment::Granted);
    expect(granted == 1, &format!("one worker was granted, not {granted}:\n{}", watch.table()))?;
    let closed = watch.count(Moment::Closed);
    expect(closed == 0, &format!("its grant is open, for it is still away:\n{}", watch.table()))?;
    let old = old_ones(&fleet);
    expect(old.len() == WORKERS - 1, &format!("two workers are left, not {}", old.len()))?;
    for machine in old {
        let node = node(&fleet.master, machine).unwrap_or_default();
        let serves = watch::is_ready(&node) && node["spec"]["unschedulable"] != true;
        expect(serves, &format!("{} still serves: {}", machine.name(), node["spec"]))?;
    }
    let status = status(&fleet.master)?;
    let names = status.contains("paused") && status.contains("no replacement") && status.contains(&fleet.next);
    expect(names, &format!("`kubestrap rollout status` says what stands, and why:\n{status}"))?;
    println!("\n{status}\n{}\n", watch.table());
    web.never_failed()?;
    Ok((fleet, watch, web))
}

/// The workers that are left are replaced one at a time, while nobody does anything about the machine that joined nothing:
/// the group believes in it.
fn the_others_go(lab: &mut Lab, fleet: &mut Fleet, watch: &mut Watch, web: &Web) -> Result<()> {
    watch.may_be_away = 2;
    fleet.until(lab, watch, ("the other workers to be replaced", ROLL), |watch, _| {
        watch.count(Moment::Closed) == WORKERS
    })?;
    for moment in [Moment::Granted, Moment::Cordoned, Moment::Drained, Moment::Terminated] {
        expect(watch.count(moment) == WORKERS, &format!("every worker was {moment:?}:\n{}", watch.table()))?;
    }
    let replaced = watch.count(Moment::Replaced);
    expect(replaced == WORKERS - 1, &format!("all but the first were replaced:\n{}", watch.table()))?;
    for machine in fleet.ec2.alive().filter(|(instance, _)| watch.succeeded(&instance.id)).map(|(_, machine)| machine) {
        await_ready(lab, &fleet.master, machine)?;
    }
    let status = status(&fleet.master)?;
    let goes_on = !status.contains("paused") && status.contains(&fleet.next) && status.contains("2 replaced");
    expect(goes_on, &format!("nothing stands any more:\n{status}"))?;
    println!("\n{status}");
    nobody_noticed(lab, watch, web)
}

fn old_ones(fleet: &Fleet) -> Vec<&Machine> {
    fleet.ec2.alive().filter(|(instance, _)| instance.image != fleet.next).map(|(_, machine)| machine).collect()
}

fn status(master: &Machine) -> Result<String> {
    let done = master.exec(&["kubestrap", "rollout", "status"])?;
    expect(done.code == Some(0), &format!("`kubestrap rollout status` ends with 0: {}{}", done.stdout, done.stderr))?;
    Ok(done.stdout)
}

/// Why the first rollout that stands does; null when none does.
fn pause(master: &Machine) -> Value {
    let ledger = ledger(master).unwrap_or_default();
    let rollouts = ledger["rollouts"].as_array().cloned().unwrap_or_default();
    rollouts.into_iter().map(|rollout| rollout["paused"].clone()).find(Value::is_object).unwrap_or_default()
}
