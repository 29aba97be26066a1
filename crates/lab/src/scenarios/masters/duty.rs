//! What one master does for all of them goes on when it dies; and certificates are renewed before they end.

use super::super::support::{await_ready, expect, noted, property, secret_of};
use super::facts::{SOON, await_leader, bundle, is_whole, leader, members, nodes};
use super::fleet::{Fleet, terminate};
use crate::Result;
use crate::lab::Lab;
use crate::machine::Machine;
use serde_json::Value;
use std::time::{Duration, Instant};

/// The leader is killed when the bundle has so long to live: nobody could renew it before.
const LEFT: i64 = 120;
/// The longest that is waited for the moment: the shortest life of a token.
const LIFE: Duration = Duration::from_secs(11 * 60);
/// How long certificates live in this story; they are renewed when two thirds of that are over. A master whose four static
/// pods start anew one after another takes some three minutes, and three masters take turns.
const CERTIFICATES: &str = "kubeadm: { ClusterConfiguration: { certificateValidityPeriod: 40m } }\n";
const CERTIFICATE_LIFE: Duration = Duration::from_secs(40 * 60);
/// By then those of all masters were renewed: they are about to end otherwise.
const RENEWED: Duration = CERTIFICATE_LIFE;

/// Seconds until the bundle expires, by this machine's clock.
fn left(on: &Machine, bundle: &Value) -> Result<i64> {
    let expires = bundle["expires_at"].as_str().unwrap_or_default();
    let text = on.shell(&format!("echo $(( $(date -d '{expires}' +%s) - $(date +%s) ))"))?;
    crate::attempted(text.trim().parse(), format!("read when the bundle expires: {expires}"))
}

/// The store is away until the bundle has two minutes to live; then the leader dies.
pub fn leader_killed(lab: &mut Lab) -> Result<()> {
    let fleet = Fleet::new(lab, "leader-killed")?.more("join: { token_ttl: 10m }\n");
    let mut masters = fleet.in_place(lab, 3)?;
    let before = bundle(lab, &fleet);
    lab.say(&format!("bundle {} expires in {} s", before["sequence"], left(&masters[0], &before)?));
    // At half of its life it would be replaced.
    masters[0].until("to be shortly before the bundle's renewal", LIFE, |master| {
        std::thread::sleep(Duration::from_secs(1));
        left(master, &before).is_ok_and(|left| left < 330)
    })?;
    lab.fabric().set_store(false)?;
    lab.say("the store is away, so that the bundle is not renewed");
    let waited = masters[0].until("to be shortly before the bundle's end", LIFE, |master| {
        std::thread::sleep(Duration::from_secs(1));
        left(master, &before).is_ok_and(|left| left < LEFT)
    });
    let leads = waited.and_then(|_| await_leader(&masters[0], &masters).cloned());
    let cut = leads.as_ref().map_or(Ok(()), Machine::power_cut);
    // Whatever happened: other stories need it.
    lab.fabric().set_store(true)?;
    cut?;
    let killed = leads?;
    masters.retain(|master| master.name() != killed.name());
    let gone = Instant::now();
    lab.say(&format!("{}, which led, has lost its power; the store is back", killed.name()));
    expect(bundle(lab, &fleet)["sequence"] == before["sequence"], "nobody had renewed the bundle")?;
    let mut least = i64::MAX;
    let mut other = None;
    masters[0].until("and the others to publish another bundle", Duration::from_secs(180), |master| {
        other =
            other.take().or_else(|| leader(master, &masters).map(|leader| (leader.name().to_owned(), gone.elapsed())));
        let now = bundle(lab, &fleet);
        if now["sequence"] == before["sequence"] {
            least = least.min(left(master, &before).unwrap_or(i64::MIN));
        }
        std::thread::sleep(Duration::from_millis(500));
        now["token"].is_string() && now["sequence"] != before["sequence"]
    })?;
    let (after, now) = (gone.elapsed().as_secs_f64(), bundle(lab, &fleet));
    if let Some((name, after)) = &other {
        lab.say(&format!("{name} leads {:.1} s after the power cut", after.as_secs_f64()));
    }
    lab.say(&format!("bundle {} after {after:.1} s; the old one had {least} s left at least", now["sequence"]));
    expect(least > 0, &format!("the bundle in the store never expired: {least} s"))?;
    expect(secret_of(&now) != secret_of(&before), "it has another token")?;
    let worker = fleet.worker(lab, "w1")?;
    worker.power_on()?;
    await_ready(lab, &masters[0], &worker)?;
    terminate(lab, &killed)?;
    super::facts::is_forgotten(&masters[0], &killed)?;
    is_whole(lab, &fleet, &masters, std::slice::from_ref(&worker))
}

/// One master cannot be reached and reaches nobody; then it can again.
pub fn cut_off(lab: &mut Lab) -> Result<()> {
    let outage = Duration::from_secs(75);
    let fleet = Fleet::new(lab, "cut-off")?;
    let masters = fleet.in_place(lab, 3)?;
    let cut = await_leader(&masters[0], &masters)?.clone();
    let others: Vec<Machine> = masters.iter().filter(|master| master.name() != cut.name()).cloned().collect();
    let before = members(&others[0])?;
    let boot = cut.read("/proc/sys/kernel/random/boot_id");
    crate::network::set_cable(cut.name(), false)?;
    let gone = Instant::now();
    lab.say(&format!("{}, which leads, is cut off", cut.name()));
    let other = await_leader(&others[0], &others)?;
    lab.say(&format!("{} leads {:.1} s later", other.name(), gone.elapsed().as_secs_f64()));
    std::thread::sleep(outage.saturating_sub(gone.elapsed()));
    expect(members(&others[0])? == before, "a member that is only cut off is not removed")?;
    let there = nodes(&others[0])?.0.len();
    expect(there == masters.len(), &format!("nor is its Node: {there} are there"))?;
    crate::network::set_cable(cut.name(), true)?;
    let back = Instant::now();
    lab.say(&format!("{} is back after {:.1} s", cut.name(), gone.elapsed().as_secs_f64()));
    is_whole(lab, &fleet, &masters, &[])?;
    lab.say(&format!("all is well {:.1} s after it came back", back.elapsed().as_secs_f64()));
    expect(members(&cut)? == before, "it is the same member")?;
    let restarts = property(&cut, "NRestarts")?;
    lab.say(&format!("its agent was restarted {restarts} times"));
    expect(cut.read("/proc/sys/kernel/random/boot_id") == boot, "it was not restarted")?;
    for entry in ["began", "completed"] {
        let times = noted(&cut, entry);
        expect(times == 1, &format!("it has {entry} once in its journal, not {times} times"))?;
    }
    cut.until("to say that it is well", SOON, |cut| cut.status().is_ok_and(|status| status["error"].is_null()))?;
    Ok(())
}

/// Seconds that the certificate of a port lives, as the port itself shows it.
fn served_until(on: &Machine, port: u16) -> Result<i64> {
    let show = format!(
        "end=$(openssl s_client -connect 127.0.0.1:{port} </dev/null 2>/dev/null | openssl x509 -noout -enddate | \
         cut -d= -f2) && [ -n \"$end\" ] && echo $(( $(date -d \"$end\" +%s) - $(date +%s) ))"
    );
    crate::attempted(on.shell(&show)?.trim().parse(), format!("read the certificate of port {port} on {}", on.name()))
}

/// Certificates of forty minutes: nobody ever sees one that has ended, and one API server at most is away.
pub fn short_certificates(lab: &mut Lab) -> Result<()> {
    let fleet = Fleet::new(lab, "short-certs")?.more(CERTIFICATES);
    let masters = fleet.in_place(lab, 3)?;
    for master in &masters {
        let left = served_until(master, 6443)?;
        expect(
            left <= CERTIFICATE_LIFE.as_secs().cast_signed(),
            &format!("the API server of {} has a certificate of minutes: {left} s", master.name()),
        )?;
        lab.say(&format!("{}: its API server's certificate has {left} s left", master.name()));
    }
    let began = Instant::now();
    let (mut least, mut away_at_once) = (i64::MAX, 0);
    let mut last = vec![i64::MIN; masters.len()];
    let mut renewed = vec![false; masters.len()];
    while !renewed.iter().all(|renewed| *renewed) {
        expect(began.elapsed() < RENEWED, &format!("all were renewed before they ended: {renewed:?}, left {last:?}"))?;
        crate::interrupt::check()?;
        let mut away = 0;
        for ((master, last), renewed) in masters.iter().zip(&mut last).zip(&mut renewed) {
            // A static pod that restarts serves nothing for a moment.
            let Ok(left) = served_until(master, 6443) else {
                away += 1;
                continue;
            };
            if left > *last + 30 && *last != i64::MIN {
                let after = began.elapsed().as_secs_f64();
                lab.say(&format!("{}: renewed after {after:.0} s, {left} s left", master.name()));
                *renewed = true;
            }
            *last = left;
            least = least.min(left);
        }
        away_at_once = away_at_once.max(away);
        std::thread::sleep(Duration::from_secs(1));
    }
    lab.say(&format!("the oldest certificate served had {least} s left; at most {away_at_once} API servers were away"));
    expect(least > 0, "no certificate that has ended was served")?;
    expect(away_at_once <= 1, "one master at a time")?;
    is_whole(lab, &fleet, &masters, &[])
}
