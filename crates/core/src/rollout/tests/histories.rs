//! Random histories: rivals, deaths, lost answers, sleepers, ill and stubborn nodes, images that do not work, operators.
//! What must never happen is checked at each change ([`super::world`]); what must happen once it is quiet, at the end.

use super::world::{Arbiter, Fault, LEDGER, World, minutes, pace};
use crate::rollout::wire::Action;
use crate::store::fake::{interleave, run};
use serde_json::json;
use std::rc::Rc;
use std::time::Duration;

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn one_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }
}

const GROUPS: &[&str] = &["web", "db"];

fn trouble(world: &World, dice: &mut Dice) {
    let nodes: Vec<_> = world.nodes().into_iter().filter(|node| !node.master).collect();
    let Some(node) = nodes.get(dice.below(nodes.len().max(1) as u64) as usize) else { return };
    let group = GROUPS[dice.below(GROUPS.len() as u64) as usize];
    let toggle = |set: &mut std::collections::BTreeSet<String>, name: &str| {
        if !set.remove(name) {
            set.insert(name.to_owned());
        }
    };
    match dice.below(12) {
        0 => toggle(&mut world.state.borrow_mut().down, &node.name),
        1 => toggle(&mut world.state.borrow_mut().stubborn, &node.name),
        2 => toggle(&mut world.state.borrow_mut().silent, &node.name),
        // Spot.
        3 => {
            if let Some(id) = &node.instance {
                world.set_instance(id, "shutting-down");
            }
        }
        4 => {
            world.start(group);
        }
        5 => world.roll(group, &format!("ami-{}", 2 + dice.below(4))),
        6 => {
            // The wish is ahead of the template, or the other way round.
            let image = format!("ami-{}", 2 + dice.below(4));
            world.state.borrow_mut().desired.insert(group.to_owned(), image);
        }
        7 => {
            let mut state = world.state.borrow_mut();
            state.ec2_is_away = !state.ec2_is_away;
        }
        8 => {
            let image = format!("ami-{}", 2 + dice.below(3));
            toggle(&mut world.state.borrow_mut().broken, &image);
        }
        9 if !world.state.borrow().objects.contains_key(LEDGER) => {}
        9 => {
            let pause = dice.one_in(2).then_some("freeze");
            world.edit(LEDGER, &json!({"data": {"pause": pause}}));
        }
        10 if world.state.borrow().objects.contains_key(LEDGER) => resume(world),
        11 => world.edit(&format!("/api/v1/nodes/{}", node.name), &json!({"spec": {"unschedulable": dice.one_in(2)}})),
        _ => {}
    }
}

fn resume(world: &World) {
    let mut ledger = world.ledger();
    let names: Vec<String> = ledger.grants.iter().map(|entry| entry.node.clone()).collect();
    ledger.resume(None);
    for name in names {
        if !world.nodes().iter().any(|node| node.name == name) {
            ledger.release(&name);
        }
    }
    world.edit(LEDGER, &json!({"data": {"ledger.json": ledger.write().expect("text")}}));
}

fn act(world: &World, dice: &mut Dice, arbiters: &mut Vec<Arbiter>) {
    const FAULTS: [Fault; 4] = [Fault::DieBefore, Fault::DieAfter, Fault::LostBefore, Fault::LostAfter];
    if dice.one_in(3) {
        world.fail(dice.below(20) as usize, FAULTS[dice.below(4) as usize]);
    }
    if dice.one_in(8) {
        // The Lease is lost: both are arbiters.
        world.state.borrow_mut().objects.retain(|path, _| !path.contains("/leases/"));
    }
    let (one, two) = (&arbiters[0], &arbiters[1]);
    let dead = match dice.below(3) {
        0 => [run(one.tick()).is_none(), false],
        1 => [false, run(two.tick()).is_none()],
        _ => {
            let (a, b) = interleave(dice.below(1 << 32) as u32, one.tick(), two.tick());
            [a.is_none(), b.is_none()]
        }
    };
    let reborn = |(n, arbiter): (usize, Arbiter)| if dead[n] { arbiter.reborn() } else { arbiter };
    *arbiters = std::mem::take(arbiters).into_iter().enumerate().map(reborn).collect();
    world.heal();
}

fn history(seed: u64) -> Rc<World> {
    let mut dice = Dice(seed);
    let at_once = 1 + dice.below(3) as usize;
    let world = World::new(at_once);
    for group in GROUPS {
        world.group(group, 1 + dice.below(4) as usize, "ami-1");
    }
    let skew = |dice: &mut Dice| 300 - dice.below(600) as i64;
    let mut arbiters: Vec<Arbiter> =
        ["m1", "m2"].map(|name| Arbiter::new(&world, name, pace(at_once), skew(&mut dice))).into();
    for _ in 0..200 {
        if dice.one_in(6) {
            trouble(&world, &mut dice);
        }
        act(&world, &mut dice, &mut arbiters);
        world.live();
        world.pass(Duration::from_secs(10 + dice.below(80)));
    }
    world.assert_right(&format!("seed {seed}"));
    quiet(&world, &arbiters, seed);
    world
}

/// Faults stop, an operator looks once, and an image that works is desired: everything comes to it.
fn quiet(world: &Rc<World>, arbiters: &[Arbiter], seed: u64) {
    {
        let mut state = world.state.borrow_mut();
        (state.ec2_is_away, state.action) = (false, Some(Action::Replace));
        state.down.clear();
        state.stubborn.clear();
        state.silent.clear();
        state.broken.clear();
    }
    for node in world.nodes() {
        world.edit(&format!("/api/v1/nodes/{}", node.name), &json!({"spec": {"unschedulable": false}}));
    }
    for group in GROUPS {
        world.roll(group, "ami-good");
    }
    if world.state.borrow().objects.contains_key(LEDGER) {
        world.edit(LEDGER, &json!({"data": {"pause": null}}));
    }
    for n in 0..900 {
        if world.is_done("ami-good") {
            break;
        }
        if n == 100 && world.state.borrow().objects.contains_key(LEDGER) {
            resume(world);
        }
        for arbiter in arbiters {
            run(arbiter.tick()).expect("it lives").ok();
        }
        world.live();
        world.pass(minutes(1));
    }
    world.assert_right(&format!("seed {seed}, quiet"));
    assert!(world.is_done("ami-good"), "seed {seed}: {:#?} {:#?}", world.ledger(), world.nodes());
}

#[test]
fn whatever_happens_the_budget_holds_and_the_fleet_gets_there() {
    let mut ended = 0;
    for seed in 0..12 {
        ended += history(seed).state.borrow().terminated.len();
    }
    assert!(ended > 60, "the histories must do something: {ended}");
}
