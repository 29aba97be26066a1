//! The master that initialises dies, at one moment after another: another one finishes as soon as EC2 says that it is
//! gone, with the same uid and the keys that were stored, if they were.

use super::super::support::{BUCKET, READY, await_ready, expect, noted, register};
use super::facts::is_whole;
use super::fleet::{Fleet, terminate};
use crate::lab::Lab;
use crate::machine::Machine;
use crate::{Result, fail};
use serde_json::Value;
use std::time::{Duration, Instant};

/// So long the others wait for a holder that is not known to be gone.
const WAITS: Duration = Duration::from_secs(20);

/// A moment in the life of the master that holds the register.
struct Moment {
    name: &'static str,
    /// When it dies.
    is: fn(&Machine) -> bool,
    /// Whether the keys are in the store by then; `None` when they may be.
    sealed: Option<bool>,
    /// Whether the store is away by then, so that it cannot go on.
    store_is_away: bool,
    /// Whether EC2 terminates it. After the record nobody else has the cluster: its power comes back instead.
    terminated: bool,
}

const MOMENTS: &[Moment] = &[
    Moment {
        name: "unsealed",
        is: |m| noted(m, "began") == 1,
        sealed: Some(false),
        store_is_away: false,
        terminated: true,
    },
    Moment {
        name: "in-init",
        is: |m| m.exists("/etc/kubernetes/manifests/etcd.yaml"),
        sealed: Some(true),
        store_is_away: false,
        terminated: true,
    },
    Moment {
        name: "unrecorded",
        is: |m| noted(m, "initialised") == 1,
        sealed: Some(true),
        store_is_away: true,
        terminated: true,
    },
    Moment {
        name: "unpublished",
        is: |m| noted(m, "committed") == 1,
        sealed: Some(true),
        store_is_away: false,
        terminated: false,
    },
];

/// All moments, each with a cluster of its own.
pub fn init_died(lab: &mut Lab) -> Result<()> {
    for moment in MOMENTS {
        at(lab, moment)?;
        lab.clear()?;
    }
    Ok(())
}

fn object(lab: &Lab, fleet: &Fleet, key: &str) -> Result<Option<Value>> {
    lab.fabric().object(&format!("{BUCKET}/k8s/{}/{key}", fleet.cluster))
}

fn at(lab: &mut Lab, moment: &Moment) -> Result<()> {
    let fleet = Fleet::new(lab, &format!("died-{}", moment.name))?;
    let first = fleet.master(lab, "m1")?;
    first.power_on()?;
    if moment.store_is_away {
        first.until("to be in the middle of init", READY, |m| m.exists("/etc/kubernetes/manifests/etcd.yaml"))?;
        lab.fabric().set_store(false)?;
    }
    let came = first.until(&format!("to come to the moment `{}`", moment.name), READY, moment.is);
    let cut = first.power_cut();
    if moment.store_is_away {
        lab.fabric().set_store(true)?;
    }
    came.and(cut)?;
    let before = register(lab, &fleet.cluster)?;
    let keys = object(lab, &fleet, "pki/bundle")?;
    lab.say(&format!("m1 died at `{}`: register {}, keys {}", moment.name, before["state"], keys.is_some()));
    let in_time = moment.sealed.is_none_or(|sealed| sealed == keys.is_some());
    expect(in_time, &format!("the keys are where they are at `{}`: stored {}", moment.name, keys.is_some()))?;
    let state = if moment.terminated { "initialising" } else { "established" };
    expect(before["state"] == state, &format!("it died in time: the register is {state}: {before}"))?;
    expect(object(lab, &fleet, "join/worker.json")?.is_none(), "there is no join bundle yet")?;
    let others = [fleet.master(lab, "m2")?, fleet.master(lab, "m3")?];
    others.iter().try_for_each(Machine::power_on)?;
    nobody_takes_it(lab, &fleet, &others, &before)?;
    let since = Instant::now();
    let masters = if moment.terminated {
        terminate(lab, &first)?;
        others.to_vec()
    } else {
        first.power_on()?;
        lab.say("m1 has its power back");
        vec![first, others[0].clone(), others[1].clone()]
    };
    masters.iter().try_for_each(|master| await_ready(lab, master, master).map(drop))?;
    lab.say(&format!("`{}`: all Ready {:.1} s later", moment.name, since.elapsed().as_secs_f64()));
    let after = register(lab, &fleet.cluster)?;
    expect(after["uid"] == before["uid"], &format!("it is the cluster that was begun: {after} {before}"))?;
    if let Some(keys) = keys {
        let now = object(lab, &fleet, "pki/bundle")?.unwrap_or_default();
        expect(now["ca_sha256"] == keys["ca_sha256"], "the keys that were stored are the cluster's")?;
        expect(after["ca_sha256"] == keys["ca_sha256"], "and so is the register's CA")?;
    }
    is_whole(lab, &fleet, &masters, &[])
}

/// A machine that has lost its power is not gone: nobody begins an init.
fn nobody_takes_it(lab: &Lab, fleet: &Fleet, others: &[Machine], before: &Value) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < WAITS {
        crate::interrupt::check()?;
        for other in others {
            if noted(other, "began") > 0 && other.journal().iter().any(|line| line["kind"] == "init") {
                return fail(format!("{} began an init though m1 is not known to be gone", other.name()));
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let now = register(lab, &fleet.cluster)?;
    expect(now["attempt"] == before["attempt"], &format!("the register is still m1's: {now}"))
}
