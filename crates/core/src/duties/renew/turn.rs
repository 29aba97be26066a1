//! Whose turn it is to renew certificates: a Lease that one master holds from the begin until its control plane is healthy
//! again. It keeps quorum: two masters never restart their etcd at the same time.
//!
//! The holder is named by its node, so that a new life of its agent goes on. Another machine's clock is never read: a holder
//! is late when its Lease has not changed for as long as *this* machine has watched it.

use crate::kube::{Api, refused};
use crate::model::cause::Outcome;
use crate::node::Node;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::time::Duration;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kubestrap-renewal";
/// A holder writes this often.
const RENEW_EVERY: Duration = Duration::from_secs(15);
/// It writes through its own API server, which restarts in between and may stand still for minutes on a busy machine.
pub(super) const TERM: Duration = Duration::from_secs(10 * 60);

/// One process's part.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// The record that was seen last, and since when, by uptime.
    seen: RefCell<Option<(String, Duration)>>,
    renewed: Cell<Option<Duration>>,
}

impl Turn {
    /// Takes the turn, or keeps it; the holder when it is another's.
    pub async fn take(&self, node: &Node, api: &Api) -> Outcome<Option<String>> {
        let found = api.get(LEASE).await?;
        let (own, now) = (node.identity.node_name.as_str(), node.world.time.uptime());
        let holder = holder(found.as_ref()).to_owned();
        let is_ours = holder == own;
        if is_ours && self.renewed.get().is_some_and(|at| now.saturating_sub(at) < RENEW_EVERY) {
            return Ok(None);
        }
        if !is_ours && !holder.is_empty() && self.unchanged_for(found.as_ref(), now) < TERM {
            return Ok(Some(holder));
        }
        let mut lease = found.clone().unwrap_or_else(|| {
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "kubestrap-renewal", "namespace": "kube-system"}})
        });
        let time = format!("{:.6}", node.world.time.now());
        let before = lease.get("spec").cloned().unwrap_or_default();
        let acquired = before.get("acquireTime").filter(|_| is_ours).cloned().unwrap_or_else(|| time.clone().into());
        lease["spec"] = json!({"holderIdentity": own, "leaseDurationSeconds": TERM.as_secs(),
            "acquireTime": acquired, "renewTime": time});
        let (method, path) = if found.is_some() { ("PUT", LEASE) } else { ("POST", LEASES) };
        if !put(api, method, path, &lease).await? {
            return Ok(Some("another master".to_owned()));
        }
        self.renewed.set(Some(now));
        Ok(None)
    }

    /// Gives it back; nothing happens when it is not ours.
    pub async fn give_back(&self, node: &Node, api: &Api) -> Outcome<()> {
        self.renewed.set(None);
        let Some(mut lease) = api.get(LEASE).await? else { return Ok(()) };
        if holder(Some(&lease)) == node.identity.node_name {
            lease["spec"]["holderIdentity"] = "".into();
            put(api, "PUT", LEASE, &lease).await?;
        }
        Ok(())
    }

    fn unchanged_for(&self, lease: Option<&Value>, now: Duration) -> Duration {
        let text = |pointer: &str| lease.and_then(|it| it.pointer(pointer)).and_then(Value::as_str).unwrap_or_default();
        let record = format!("{} {}", text("/metadata/resourceVersion"), text("/spec/renewTime"));
        let mut seen = self.seen.borrow_mut();
        let since = seen.as_ref().filter(|(known, _)| *known == record).map_or(now, |(_, since)| *since);
        *seen = Some((record, since));
        now.saturating_sub(since)
    }
}

fn holder(lease: Option<&Value>) -> &str {
    lease.and_then(|lease| lease.pointer("/spec/holderIdentity")).and_then(Value::as_str).unwrap_or_default()
}

/// Whether it was written; `false` when somebody else was first.
async fn put(api: &Api, method: &'static str, path: &str, lease: &Value) -> Outcome<bool> {
    let answer = api.call(method, path, Some(("application/json", lease))).await?;
    match answer.status {
        200 | 201 => Ok(true),
        409 | 404 => Ok(false),
        _ => Err(refused("write", path, &answer)),
    }
}
