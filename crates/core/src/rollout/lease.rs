//! Which of several masters is the arbiter: a Lease, as client-go's leader election has it. It only saves work; two that
//! both think to be the arbiter do no harm ([`super`]).
//!
//! Another machine's clock is never read: a holder is late when its Lease has not changed for as long as *this* machine
//! has watched it.

use super::view::api_clock;
use crate::kube::{Api, refused};
use crate::model::cause::Outcome;
use crate::node::Node;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::time::Duration;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kubestrap-arbiter";
/// A holder renews every round, which is far more often.
const TERM: Duration = Duration::from_secs(60);
/// Who gave the Lease back lets the others go first for this long.
const COURTESY: Duration = Duration::from_secs(180);
/// And gives it back again at the earliest after this.
const BACK_AGAIN: Duration = Duration::from_secs(60 * 60);

/// One process's part in the election.
#[derive(Debug, Default)]
pub struct Election {
    id: RefCell<Option<String>>,
    /// The record that was seen last, and since when, by uptime.
    seen: RefCell<Option<(String, Duration)>>,
    given_back: Cell<Option<Duration>>,
}

/// What a look at the Lease came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Somebody else is the arbiter.
    Follows,
    /// We are, or may become it; the Lease as it is.
    May(Option<Value>),
}

impl Election {
    /// Looks; changes nothing.
    pub async fn look(&self, api: &Api, node: &Node) -> Outcome<Standing> {
        let found = api.get(LEASE).await?;
        let text = |pointer: &str| found.as_ref().and_then(|lease| lease.pointer(pointer)).and_then(Value::as_str);
        let holder = text("/spec/holderIdentity").unwrap_or_default();
        let record = format!(
            "{holder} {} {}",
            text("/spec/renewTime").unwrap_or_default(),
            text("/metadata/resourceVersion").unwrap_or_default()
        );
        let now = node.world.time.uptime();
        let mut seen = self.seen.borrow_mut();
        let since = seen.as_ref().filter(|(known, _)| *known == record).map_or(now, |(_, since)| *since);
        *seen = Some((record, since));
        let unchanged = now.saturating_sub(since);
        let courteous = self.given_back.get().is_some_and(|at| now.saturating_sub(at) < COURTESY);
        let follows = match holder {
            "" => courteous,
            holder if holder == self.id(node) => false,
            _ => unchanged < TERM || courteous,
        };
        Ok(if follows { Standing::Follows } else { Standing::May(found.clone()) })
    }

    /// Takes or renews it over the version that was looked at; the API server's clock when that worked, and `None` when
    /// somebody else was first.
    pub async fn lead(&self, api: &Api, node: &Node, over: Option<Value>) -> Outcome<Option<Timestamp>> {
        let now = format!("{:.6}", node.world.time.now());
        let id = self.id(node);
        let mut lease = over.clone().unwrap_or_else(|| {
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "kubestrap-arbiter", "namespace": "kube-system"}})
        });
        let before = lease.get("spec").cloned().unwrap_or_default();
        let is_ours = before.get("holderIdentity").and_then(Value::as_str) == Some(&id);
        let transitions = before.get("leaseTransitions").and_then(Value::as_u64).unwrap_or(0);
        let acquired = before.get("acquireTime").filter(|_| is_ours).cloned().unwrap_or_else(|| now.clone().into());
        lease["spec"] = json!({"holderIdentity": id, "leaseDurationSeconds": TERM.as_secs(), "acquireTime": acquired,
            "renewTime": now, "leaseTransitions": transitions + u64::from(!is_ours)});
        put(api, over.is_some(), &lease).await
    }

    /// Gives it back, so that another master becomes the arbiter; nothing happens when that was done within the hour.
    pub async fn give_back(&self, api: &Api, node: &Node) -> Outcome<bool> {
        let now = node.world.time.uptime();
        if self.given_back.get().is_some_and(|at| now.saturating_sub(at) < BACK_AGAIN) {
            return Ok(false);
        }
        let Some(mut lease) = api.get(LEASE).await? else { return Ok(false) };
        if lease.pointer("/spec/holderIdentity").and_then(Value::as_str) != Some(&self.id(node)) {
            return Ok(false);
        }
        lease["spec"]["holderIdentity"] = "".into();
        let done = put(api, true, &lease).await?.is_some();
        self.given_back.set(Some(now));
        Ok(done)
    }

    fn id(&self, node: &Node) -> String {
        self.id.borrow_mut().get_or_insert_with(|| format!("{}_{}", node.identity.node_name, node.uuid())).clone()
    }
}

async fn put(api: &Api, exists: bool, lease: &Value) -> Outcome<Option<Timestamp>> {
    let (method, path) = if exists { ("PUT", LEASE) } else { ("POST", LEASES) };
    let answer = api.call(method, path, Some(("application/json", lease))).await?;
    match answer.status {
        200 | 201 => {
            let written: Option<Value> = serde_json::from_slice(&answer.body).ok();
            // Without a time nothing is granted: it is not known whether the clocks agree.
            Ok(Some(api_clock(written.iter()).unwrap_or(Timestamp::MIN)))
        }
        409 | 404 => Ok(None),
        _ => Err(refused("write", path, &answer)),
    }
}
