//! Which of several masters leads: the one agent that carries out the duties of which a cluster needs one. A Lease, as
//! client-go's leader election has it, asked of this machine's own API server.
//!
//! Another machine's clock is never read: a holder is late when its Lease has not changed for as long as *this* machine
//! has watched it. Leading only saves work: whatever a leader changes is guarded by its own version, so two that both
//! think to lead do no harm.

use super::{Api, refused};
use crate::model::cause::Outcome;
use crate::model::identity::Role;
use crate::node::{Event, Node};
use crate::rollout::view::api_clock;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::time::Duration;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kubestrap-leader";
/// Who has not renewed for so long is late.
const TERM: Duration = Duration::from_secs(15);
/// A leader stops leading this long before the others may begin.
const MARGIN: Duration = Duration::from_secs(2);
/// How often it is renewed, and looked at by the others.
pub const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How soon a duty that only the leader carries out looks again whether it leads: a leader's death must not make what
/// it looked after expire.
pub const FOLLOWING: Duration = Duration::from_secs(5);
/// Who gave the Lease back lets the others go first for this long.
const COURTESY: Duration = Duration::from_secs(180);
/// And gives it back again at the earliest after this.
const BACK_AGAIN: Duration = Duration::from_secs(60 * 60);

/// One agent's part in the election.
#[derive(Debug, Default)]
pub struct Leading {
    /// The record that was seen last, and since when, by uptime.
    seen: RefCell<Option<(String, Duration)>>,
    /// The Lease as we wrote it last.
    written: RefCell<Option<Value>>,
    /// Until when we lead, by uptime.
    until: Cell<Option<Duration>>,
    /// The API server's clock at the last renewal.
    clock: Cell<Option<Timestamp>>,
    given_back: Cell<Option<Duration>>,
}

/// Whether this agent leads now. A cluster without the setting `pki` has one master, and that one leads without asking;
/// where there may be several this is what the duty `lead` knows.
pub async fn leads(node: &Node) -> Outcome<bool> {
    if node.settings.role != Role::Master {
        return Ok(false);
    }
    if node.settings.pki.is_none() {
        return Ok(true);
    }
    Ok(node.lease.is_good(node.world.time.uptime()))
}

/// Who holds the Lease, as it stands there: a node's name, and the identity of its machine. An agent that was restarted
/// is the same holder, for there is one process per state directory.
fn holder_id(node: &Node) -> String {
    format!("{}_{}", node.identity.node_name, node.identity.key())
}

impl Leading {
    fn is_good(&self, now: Duration) -> bool {
        self.until.get().is_some_and(|until| now < until)
    }

    /// The API server's clock at the last renewal, or earlier; `None` while this agent does not lead.
    pub fn api_clock(&self, node: &Node) -> Option<Timestamp> {
        self.clock.get().filter(|_| self.is_good(node.world.time.uptime()))
    }

    /// One round: renews what is ours, takes what is late, looks at the rest. Whether this agent leads then.
    pub async fn round(&self, node: &Node, api: &Api) -> Outcome<bool> {
        let known = self.written.borrow_mut().take();
        // What was written without an answer that can be read has no version.
        if let Some(lease) = known.filter(|lease| lease.pointer("/metadata/resourceVersion").is_some())
            && self.is_good(node.world.time.uptime())
            && self.write(node, api, Some(lease)).await?
        {
            return Ok(true);
        }
        let found = api.get(LEASE).await?;
        if !self.may_take(node, found.as_ref()) {
            self.until.set(None);
            return Ok(false);
        }
        self.write(node, api, found).await
    }

    /// Whether the Lease is ours, nobody's, or its holder is late.
    fn may_take(&self, node: &Node, found: Option<&Value>) -> bool {
        let text = |pointer: &str| found.and_then(|lease| lease.pointer(pointer)).and_then(Value::as_str);
        let holder = text("/spec/holderIdentity").unwrap_or_default();
        let version = text("/metadata/resourceVersion").unwrap_or_default();
        let record = format!("{holder} {} {version}", text("/spec/renewTime").unwrap_or_default());
        let now = node.world.time.uptime();
        let mut seen = self.seen.borrow_mut();
        let since = seen.as_ref().filter(|(known, _)| *known == record).map_or(now, |(_, since)| *since);
        *seen = Some((record, since));
        let courteous = self.given_back.get().is_some_and(|at| now.saturating_sub(at) < COURTESY);
        match holder {
            "" => !courteous,
            holder if holder == holder_id(node) => true,
            _ => now.saturating_sub(since) >= TERM && !courteous,
        }
    }

    /// Takes or renews it over the version that was read. `false`: somebody else was first.
    async fn write(&self, node: &Node, api: &Api, over: Option<Value>) -> Outcome<bool> {
        let (now, began) = (format!("{:.6}", node.world.time.now()), node.world.time.uptime());
        let id = holder_id(node);
        let exists = over.is_some();
        let mut lease = over.unwrap_or_else(|| {
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "kubestrap-leader", "namespace": "kube-system"}})
        });
        let before = lease.get("spec").cloned().unwrap_or_default();
        let is_ours = before.get("holderIdentity").and_then(Value::as_str) == Some(&id);
        let transitions = before.get("leaseTransitions").and_then(Value::as_u64).unwrap_or(0);
        let acquired = before.get("acquireTime").filter(|_| is_ours).cloned().unwrap_or_else(|| now.clone().into());
        lease["spec"] = json!({"holderIdentity": id, "leaseDurationSeconds": TERM.as_secs(), "acquireTime": acquired,
            "renewTime": now, "leaseTransitions": transitions + u64::from(!is_ours)});
        let Some(written) = put(api, exists, &lease).await? else {
            self.until.set(None);
            return Ok(false);
        };
        // Nobody can have begun to watch this version before it was sent.
        self.until.set(Some((began + TERM).saturating_sub(MARGIN)));
        // Without a time nothing is granted: it is not known whether the clocks agree.
        self.clock.set(Some(api_clock(std::iter::once(&written)).unwrap_or(Timestamp::MIN)));
        *self.written.borrow_mut() = Some(written);
        Ok(true)
    }

    /// Gives it back, so that another master leads; nothing happens when that was done within the hour.
    pub async fn give_back(&self, node: &Node, api: &Api) -> Outcome<bool> {
        let now = node.world.time.uptime();
        if self.given_back.get().is_some_and(|at| now.saturating_sub(at) < BACK_AGAIN) {
            return Ok(false);
        }
        self.resign(node, api).await
    }

    /// Gives it back for good: this master leaves, or its agent is told to. `false`: it was not ours.
    pub async fn resign(&self, node: &Node, api: &Api) -> Outcome<bool> {
        let Some(mut lease) = api.get(LEASE).await? else { return Ok(false) };
        if lease.pointer("/spec/holderIdentity").and_then(Value::as_str) != Some(&holder_id(node)) {
            return Ok(false);
        }
        lease["spec"]["holderIdentity"] = "".into();
        self.until.set(None);
        self.written.borrow_mut().take();
        self.given_back.set(Some(node.world.time.uptime()));
        Ok(put(api, true, &lease).await?.is_some())
    }

    /// Puts it into the status; a change is news.
    pub fn show(&self, node: &Node, leads: bool) {
        if node.status().leads == leads {
            return;
        }
        node.update(|status| {
            status.leads = leads;
            if !leads {
                // Whoever leads now says what these are.
                (status.members, status.bundle_expires_at, status.rollout) = (None, None, None);
            }
        });
        node.tell(&Event::Note(if leads { "this master leads now" } else { "this master does not lead any more" }));
    }
}

async fn put(api: &Api, exists: bool, lease: &Value) -> Outcome<Option<Value>> {
    let (method, path) = if exists { ("PUT", LEASE) } else { ("POST", LEASES) };
    let answer = api.call(method, path, Some(("application/json", lease))).await?;
    match answer.status {
        // An answer that cannot be read is read again in the next round.
        200 | 201 => Ok(Some(serde_json::from_slice(&answer.body).unwrap_or_default())),
        409 | 404 => Ok(None),
        _ => Err(refused("write", path, &answer)),
    }
}

#[cfg(test)]
mod tests;
