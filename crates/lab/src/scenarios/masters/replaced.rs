//! All masters are replaced, one after another, and nobody who uses the API notices more than an election.

use super::super::support::{expect, node_name};
use super::client::Client;
use super::facts::{await_leader, is_forgotten, is_whole};
use super::fleet::{Fleet, terminate};
use super::lost::replaced_by;
use crate::Result;
use crate::lab::Lab;
use crate::machine::Machine;
use std::time::Instant;

/// How long Kubernetes lets a Lease of its own leaders last, in seconds.
const ELECTION: f64 = 15.0;

/// Two leave in order, one loses its power; each time another machine comes in its place.
pub fn replaced(lab: &mut Lab) -> Result<()> {
    let fleet = Fleet::new(lab, "replaced")?;
    let mut masters = fleet.in_place(lab, 3)?;
    let mut client = Client::start(lab, &masters[0])?;
    let mut gaps = Vec::new();
    for (number, leaves) in [true, false, true].into_iter().enumerate() {
        let began = Instant::now();
        let old = masters.remove(0);
        let leads =
            await_leader(&masters[0], &[&masters[..], std::slice::from_ref(&old)].concat())?.name() == old.name();
        let way = if leaves { "leaves" } else { "loses its power" };
        lab.say(&format!("{} {way}{}", old.name(), if leads { "; it led" } else { "" }));
        if leaves {
            has_left(lab, &old, &masters)?;
        }
        terminate(lab, &old)?;
        let fresh = fleet.master(lab, &format!("n{}", number + 1))?;
        replaced_by(lab, &fresh)?;
        masters.push(fresh);
        is_forgotten(&masters[0], &old)?;
        old.remove()?;
        lab.balance()?;
        is_whole(lab, &fleet, &masters, &[])?;
        let (gap, failed) = client.longest_gap()?;
        let took = began.elapsed().as_secs_f64();
        lab.say(&format!("{} replaced in {took:.1} s; longest gap {gap:.2} s, {failed} writes failed", old.name()));
        gaps.push(gap);
    }
    lab.say(&format!("all three were replaced; the longest gaps of a client that writes: {gaps:.2?} s"));
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    expect(longest < ELECTION, &format!("no gap is longer than an election: {longest:.1} s"))
}

/// `kubestrap leave`: it is no member any more, and the others are enough.
fn has_left(lab: &Lab, old: &Machine, others: &[Machine]) -> Result<()> {
    let began = Instant::now();
    let name = node_name(old);
    old.shell("systemctl stop kubestrap")?;
    let said = old.exec(&["kubestrap", "leave", "--yes", &name])?.success("leave the cluster")?;
    lab.say(&format!(
        "`kubestrap leave` on {} after {:.1} s: {}",
        old.name(),
        began.elapsed().as_secs_f64(),
        said.trim()
    ));
    let members = super::facts::members(&others[0])?;
    expect(members.len() == others.len(), &format!("{name} is no member any more: {members:?}"))
}
