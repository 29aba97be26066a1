//! The worker's wait for a bundle that it may use.

use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use crate::ports::{ETag, Fetched};
use crate::store::Store;
use crate::store::bundle::{Expectation, Newest, VerifiedBundle, clock_skew, verify};
use jiff::Timestamp;
use std::cell::RefCell;
use std::time::Duration;
use uuid::Uuid;

/// For the first ten minutes the store is asked at most 1 s apart, then at most 5 s (jitter goes half-way up and down).
const EAGER_FOR: Duration = Duration::from_secs(10 * 60);
const EAGER: Duration = Duration::from_millis(650);
const CALM: Duration = Duration::from_millis(3300);
/// How long time synchronisation may take after boot before a wrong clock is a refusal (safety rule 9).
const CLOCK_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// A token must live this much longer when a join begins: discovery, TLS bootstrap and a slow kubelet.
const MIN_REMAINING: Duration = Duration::from_secs(2 * 60);

/// What was read so far.
#[derive(Default)]
struct Latest {
    body: Vec<u8>,
    etag: Option<ETag>,
}

/// What a worker remembers of bundles from one attempt to the next, for as long as its process lives.
#[derive(Debug, Default)]
pub struct Memory {
    /// The id of a token that was found dead: its bundle is not used again.
    burnt: Option<String>,
    /// The cluster uid and the marks of the newest bundle that was good.
    newest: Option<(Uuid, Newest)>,
}

impl Memory {
    /// The cluster no longer knows this bundle's token.
    pub fn burn(&mut self, bundle: &VerifiedBundle) {
        self.burnt = Some(bundle.bundle().token.id().to_owned());
    }

    fn newest_of(&self, uid: Uuid) -> Option<Newest> {
        self.newest.filter(|(of, _)| *of == uid).map(|(_, newest)| newest)
    }
}

/// Waits until the store holds a bundle that is of this cluster, alive, and not older than one seen before.
///
/// Fails with what was wrong last when `join.wait` is over, or at once when waiting cannot mend it.
pub async fn usable_bundle(node: &Node, memory: &RefCell<Memory>) -> Outcome<VerifiedBundle> {
    let began = node.world.time.uptime();
    let mut latest = Latest::default();
    let mut skewed_since = None;
    loop {
        let failure = match look(node, &mut latest, memory).await {
            Ok(bundle) => {
                node.update(|status| status.error = None);
                return Ok(bundle);
            }
            Err(failure) => failure,
        };
        let now = node.world.time.uptime();
        if failure.cause != Cause::ClockSkew {
            skewed_since = None;
        }
        let (since, patience) = match failure.cause {
            Cause::ClockSkew => (*skewed_since.get_or_insert(now), CLOCK_PATIENCE),
            _ => (began, node.settings.join.wait),
        };
        if !failure.is_transient() {
            return Err(failure);
        }
        if now.saturating_sub(since) >= patience {
            return Err(failure.exhausted(now.saturating_sub(since)));
        }
        // The whole failure: the object's key, and what to do.
        node.wait_for(format!("a usable join bundle: {failure}"));
        node.complain(&failure);
        let calm = now.saturating_sub(began) >= EAGER_FOR;
        node.world.time.sleep(node.jitter(if calm { CALM } else { EAGER })).await;
    }
}

async fn look(node: &Node, latest: &mut Latest, memory: &RefCell<Memory>) -> Outcome<VerifiedBundle> {
    let attempted = format!("find a join bundle of cluster {}", node.settings.cluster);
    let reading = Store::of(node).bundle(latest.etag.as_ref()).await?;
    match reading.fetched {
        Fetched::Absent => {
            *latest = Latest::default();
            // The cluster whose bundle was here may have been retired. A report that goes on to name it would keep the
            // next master from claiming the register (safety rule 3); this machine is in no cluster yet.
            node.update(|status| status.uid = None);
            return Err(Failure::new(Cause::NoBundle, attempted, "no master has published one yet"));
        }
        Fetched::Unchanged => {}
        Fetched::Found(object) => (latest.body, latest.etag) = (object.body, Some(object.etag)),
    }
    check_clock(node.world.time.now(), reading.served_at)?;
    // Read anew for each candidate: a worker must never join what the register does not name.
    let register = Store::of(node).register().await?.map(|seen| seen.register);
    // A bundle is published after the commit alone, so one before it is not an honest one.
    let established = register.filter(|register| register.ca().is_some());
    let Some(register) = established else {
        let why = "there is a bundle, but no cluster.json of an established cluster that it could belong to";
        return Err(Failure::new(Cause::ObjectRejected, attempted, why)
            .advise("the master that made the cluster puts cluster.json back; see `kubestrap status --cluster`"));
    };
    let expectation = Expectation {
        cluster: node.settings.cluster.clone(),
        uid: Some(register.uid),
        ca: register.ca().cloned(),
        ca_pin: node.settings.ca_pin.clone(),
        now: node.world.time.now(),
        min_life: MIN_REMAINING,
        newest: memory.borrow().newest_of(register.uid),
    };
    let bundle = verify(&latest.body, &expectation)?;
    let marks = Newest { sequence: bundle.bundle().sequence, issued_at: bundle.bundle().issued_at };
    memory.borrow_mut().newest = Some((register.uid, marks));
    if memory.borrow().burnt.as_deref() == Some(bundle.bundle().token.id()) {
        return Err(Failure::new(Cause::TokenGone, attempted, "the cluster no longer knows the bundle's token"));
    }
    Ok(bundle)
}

fn check_clock(now: Timestamp, served_at: Option<Timestamp>) -> Outcome<()> {
    match clock_skew(now, served_at) {
        None => Ok(()),
        Some(skew) => {
            let direction = if skew.is_negative() { "behind" } else { "ahead of" };
            let why = format!("this machine's clock is {} s {direction} the store's", skew.abs().as_secs());
            Err(Failure::new(Cause::ClockSkew, "judge the join bundle's expiry", why))
        }
    }
}
