//! From "the bundle is in the store" to "kubeadm is executed", on a machine that waits for it.

use super::awscli::Loop;
use super::stats::{Series, spread};
use super::tap::{Exchange, Moment, now};
use super::world::{Agent, BUNDLE, SCRIPT, World, wait_for_tap};
use serde::Serialize;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Over any interval between two looks of an eager worker (650 ms and half of it), so that a bundle comes at any moment
/// of it.
const WORKER_SPREAD: Duration = Duration::from_secs(1);

/// What the shell loop fetches. A person would write exactly this line.
const JOIN_SCRIPT: &str = "kubeadm join 127.0.0.1:6443 --token abcdef.0123456789abcdef \
                           --discovery-token-ca-cert-hash sha256:0000\n";

/// How long it took.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// From just before the write to the execution of kubeadm.
    pub whole: Series,
    /// From the store's answer that held the bundle to the execution of kubeadm.
    pub after_answer: Series,
    /// The same, without the time in which the store was asked for something else (the cluster register).
    pub own_work: Series,
}

#[derive(Default)]
struct Rounds {
    whole: Vec<Duration>,
    after_answer: Vec<Duration>,
    own_work: Vec<Duration>,
}

impl Rounds {
    /// Takes a round: when the object was written, when kubeadm ran, and what the store was asked in between.
    fn take(&mut self, path: &str, put: Moment, ran: Moment, seen: &[Exchange]) -> io::Result<()> {
        let fetched = |seen: &&Exchange| seen.path == path && seen.method == "GET" && seen.status == 200;
        let answered = seen.iter().find(fetched).map(|exchange| exchange.answered);
        let answered = answered.ok_or_else(|| io::Error::other(format!("kubeadm ran, but nobody fetched {path}")))?;
        let after_answer = ran.saturating_sub(answered);
        let later = seen.iter().filter(|exchange| exchange.came >= answered && exchange.answered <= ran);
        // A report may be under way beside the join; it delays nothing.
        let store: Duration = later.filter(|exchange| exchange.method == "GET").map(Exchange::took).sum();
        self.whole.push(ran.saturating_sub(put));
        self.after_answer.push(after_answer);
        self.own_work.push(after_answer.saturating_sub(store));
        Ok(())
    }

    fn finish(self) -> io::Result<Latency> {
        let none = || io::Error::other("there was no time for a single round");
        let series = |samples: &[Duration]| Series::of(samples).ok_or_else(none);
        Ok(Latency {
            whole: series(&self.whole)?,
            after_answer: series(&self.after_answer)?,
            own_work: series(&self.own_work)?,
        })
    }
}

/// Makes the cluster: the real master with the stand-in; the bundle that it published. The master is stopped, so that
/// it does not put the bundle back; its API server goes on.
pub fn make_cluster(world: &World) -> io::Result<Vec<u8>> {
    let mut master = world.agent("master", &world.tap.url, None)?;
    master.wait_until_ready()?;
    master.stop()?;
    world.get(BUNDLE)
}

/// Rounds of new workers that wait, until there were so many or the time is over.
pub fn kubestrap(world: &World, bundle: &[u8], rounds: usize, at_most: Duration) -> io::Result<Latency> {
    let began = Instant::now();
    let mut taken = Rounds::default();
    for round in 0..rounds {
        if began.elapsed() > at_most {
            break;
        }
        world.delete(BUNDLE)?;
        world.tap.clear();
        let mut worker = world.agent(&format!("worker-{round}"), &world.tap.url, None)?;
        let (put, ran) = one_worker(world, &mut worker, bundle, WORKER_SPREAD.mul_f64(spread(round)))?;
        taken.take(BUNDLE, put, ran, &world.tap.seen())?;
        // The stand-in checks token and CA: a round with a bundle that does not work is not a round.
        worker.wait_until_joined()?;
    }
    taken.finish()
}

fn one_worker(world: &World, worker: &mut Agent, bundle: &[u8], after: Duration) -> io::Result<(Moment, Moment)> {
    let looked =
        |seen: &[Exchange]| (seen.iter().filter(|exchange| exchange.path == BUNDLE).count() >= 2).then_some(());
    wait_for_tap(&world.tap, "the worker's second look for a bundle", looked)?;
    std::thread::sleep(after);
    let put = now();
    world.put(BUNDLE, bundle)?;
    Ok((put, worker.wait_for_kubeadm_join()?))
}

/// Rounds of shell loops with this sleep between two tries, until there were so many or the time is over.
pub fn shell_loop(world: &World, aws: &Path, sleep: u32, rounds: usize, at_most: Duration) -> io::Result<Latency> {
    let began = Instant::now();
    let mut taken = Rounds::default();
    // One interval: the sleep, and a run of the CLI.
    let interval = Duration::from_secs(u64::from(sleep)) + Duration::from_millis(700);
    for round in 0..rounds {
        if began.elapsed() > at_most {
            break;
        }
        // There is nothing to delete in the first round.
        let _ = world.delete(SCRIPT);
        world.tap.clear();
        let waiting = Loop::start(world, aws, &format!("loop-{sleep}-{round}"), &world.tap.url, sleep, None)?;
        let looked = |seen: &[Exchange]| seen.iter().any(|exchange| exchange.path == SCRIPT).then_some(());
        wait_for_tap(&world.tap, "the loop's first look for its script", looked)?;
        std::thread::sleep(interval.mul_f64(spread(round)));
        let put = now();
        world.put(SCRIPT, JOIN_SCRIPT.as_bytes())?;
        let ran = wait_for_tap(&world.tap, "the loop runs kubeadm", |_| waiting.kubeadm_ran_at())?;
        taken.take(SCRIPT, put, ran, &world.tap.seen())?;
    }
    taken.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(method: &str, path: &str, status: u16, came_ms: u64, answered_ms: u64) -> Exchange {
        let (came, answered) = (Duration::from_millis(came_ms), Duration::from_millis(answered_ms));
        Exchange { method: method.to_owned(), path: path.to_owned(), status, came, answered }
    }

    #[test]
    fn own_work_is_what_is_left_when_the_store_was_not_asked() {
        let seen = [
            exchange("GET", BUNDLE, 404, 0, 5),
            exchange("GET", BUNDLE, 200, 700, 710),
            exchange("GET", "/bench/k8s/bench/cluster.json", 200, 712, 722),
            exchange("PUT", "/bench/k8s/bench/nodes/x/report.json", 200, 715, 730),
        ];
        let ms = Duration::from_millis;
        let mut rounds = Rounds::default();
        rounds.take(BUNDLE, ms(300), ms(740), &seen).expect("fetched");
        assert_eq!((rounds.whole[0], rounds.after_answer[0], rounds.own_work[0]), (ms(440), ms(30), ms(20)));
        assert!(rounds.take(SCRIPT, ms(300), ms(740), &seen).is_err(), "nobody fetched it");
    }
}
