//! The publisher: keeps a usable join bundle in the store, for ever.
//!
//! A token lives an hour by default and is replaced at half of that; the old one is left to expire, for workers may be
//! using it. Each minute the cluster is asked whether the token is still there. A bundle is published only once
//! cluster-info carries the signature for its token: a join then takes 1 s instead of 11 (facts: kubeadm.md, measured).

use crate::journal::Journal;
use crate::kube::{Api, tokens};
use crate::kubeadm::machine::Machine;
use crate::model::bundle::JoinBundle;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::names::{BootstrapToken, CaHash, Endpoint};
use crate::model::register::SCHEMA;
use crate::model::version::KubeVersion;
use crate::node::{Event, Node};
use crate::ports::{ETag, Fetched};
use crate::store::Store;
use crate::store::bundle::Published;
use jiff::Timestamp;
use std::cell::RefCell;
use std::time::Duration;
use uuid::Uuid;

/// When the signature is looked for first, how far apart at most (doubling in between), and how long. The signer needs
/// some 7 s after init and tens of milliseconds later on; a controller-manager that has not signed after two minutes is
/// in trouble.
const SIGNATURE_FIRST: Duration = Duration::from_millis(50);
const SIGNATURE_EVERY: Duration = Duration::from_millis(600);
const SIGNATURE_PATIENCE: Duration = Duration::from_secs(120);
/// How often the store is asked whether the bundle is still ours; a deleted bundle is back after this at the latest.
const STORE_EVERY: Duration = Duration::from_secs(5 * 60);
/// How often the server's version is asked for: an upgraded API server must not turn workers away for long.
const VERSION_EVERY: Duration = Duration::from_secs(30 * 60);

/// What the bundle must say, whatever token it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    uid: Uuid,
    ca: CaHash,
    endpoint: Endpoint,
    version: KubeVersion,
}

/// Whether something is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Not yet; this bundle is in the store and works.
    Later(Box<JoinBundle>),
    /// Now, and why.
    Now(String),
}

/// What the publisher remembers between two looks: everything can be read again.
#[derive(Debug, Clone, Default)]
struct Memory {
    /// The version in the store.
    etag: Option<ETag>,
    /// What it says; none when it cannot be read: then it is replaced, whoever wrote it.
    bundle: Option<JoinBundle>,
    store_read: Option<Duration>,
    version: Option<(KubeVersion, Duration)>,
}

/// Keeps the bundle fresh; cheap to make, for it reads what it does not remember.
#[derive(Default)]
pub struct Publisher {
    memory: RefCell<Memory>,
}

impl Publisher {
    /// Whether something is to be published; changes nothing.
    pub async fn due(&self, node: &Node) -> Outcome<Due> {
        let facts = self.facts(node).await?;
        self.read_store(node).await?;
        let current = self.memory.borrow().bundle.clone();
        let Some(bundle) = current else { return Ok(Due::Now("there is no readable bundle in the store".into())) };
        if let Some(why) = outdated(&bundle, &facts, node.world.time.now(), node.settings.join.token_ttl) {
            return Ok(Due::Now(why));
        }
        if !Api::admin(&node.world.cluster).token_exists(&bundle.token).await? {
            // The store is read again before the next publication: another publisher may have been faster.
            self.memory.borrow_mut().store_read = None;
            return Ok(Due::Now("its token is gone from the cluster".into()));
        }
        node.update(|status| status.bundle_expires_at = Some(bundle.expires_at));
        Ok(Due::Later(Box::new(bundle)))
    }

    /// Publishes when something is due; the bundle that is now in the store.
    pub async fn refresh(&self, node: &Node) -> Outcome<JoinBundle> {
        match self.due(node).await? {
            Due::Later(bundle) => Ok(*bundle),
            Due::Now(_) => self.publish(node).await,
        }
    }

    /// Publishes a bundle with a new token, whatever is in the store.
    pub async fn publish(&self, node: &Node) -> Outcome<JoinBundle> {
        let facts = self.facts(node).await?;
        self.read_store(node).await?;
        let token = signed_token(node).await?;
        let (previous, etag) = (self.memory.borrow().bundle.clone(), self.memory.borrow().etag.clone());
        let bundle = bundle(node, facts, token, previous.as_ref());
        match Store::of(node).publish_bundle(&bundle, etag.as_ref()).await? {
            Published::Stored(etag) => {
                let now = node.world.time.uptime();
                let mut memory = self.memory.borrow_mut();
                (memory.bundle, memory.etag, memory.store_read) = (Some(bundle.clone()), Some(etag), Some(now));
                node.update(|status| status.bundle_expires_at = Some(bundle.expires_at));
                node.tell(&Event::BundlePublished { expires_at: bundle.expires_at, sequence: bundle.sequence });
                Ok(bundle)
            }
            Published::Overtaken => {
                *self.memory.borrow_mut() = Memory::default();
                let why = "another publisher was faster";
                Err(Failure::new(Cause::HeldByOther, "publish the join bundle", why).advise("it is looked at again"))
            }
        }
    }

    async fn facts(&self, node: &Node) -> Outcome<Facts> {
        let journal = Journal::new(node.world.files.clone(), node.world.time.clone());
        let refuse = |why: &str| Failure::new(Cause::ForeignCluster, "publish the join bundle", why);
        let Some(attempt) = journal.attempt()? else { return Err(refuse("this machine made no cluster")) };
        let Some(ca) = attempt.master_of().cloned() else {
            return Err(refuse("this machine is no master of a cluster yet"));
        };
        let local = Machine::look(&*node.world.files)?.ca;
        if local.as_ref() != Some(&ca) {
            let has = local.map_or_else(|| "none".to_owned(), |ca| ca.to_string());
            return Err(refuse(&format!("the cluster's CA is {ca}, but this machine carries {has}")));
        }
        let Some(endpoint) = node.settings.control_plane_endpoint.clone() else {
            let why = "`control_plane_endpoint` is not set";
            return Err(Failure::new(Cause::Configuration, "publish the join bundle", why));
        };
        Ok(Facts { uid: attempt.uid, ca, endpoint, version: self.version(node).await? })
    }

    async fn version(&self, node: &Node) -> Outcome<KubeVersion> {
        let now = node.world.time.uptime();
        let known = self.memory.borrow().version.clone();
        if let Some((version, _)) = known.filter(|(_, at)| now.saturating_sub(*at) < VERSION_EVERY) {
            return Ok(version);
        }
        let version = Api::admin(&node.world.cluster).version().await?;
        self.memory.borrow_mut().version = Some((version.clone(), now));
        Ok(version)
    }

    async fn read_store(&self, node: &Node) -> Outcome<()> {
        let now = node.world.time.uptime();
        if self.memory.borrow().store_read.is_some_and(|at| now.saturating_sub(at) < STORE_EVERY) {
            return Ok(());
        }
        let known = self.memory.borrow().etag.clone();
        let reading = Store::of(node).bundle(known.as_ref()).await?;
        let mut memory = self.memory.borrow_mut();
        match reading.fetched {
            Fetched::Unchanged => {}
            Fetched::Absent => (memory.bundle, memory.etag) = (None, None),
            Fetched::Found(object) => {
                (memory.bundle, memory.etag) = (serde_json::from_slice(&object.body).ok(), Some(object.etag));
            }
        }
        memory.store_read = Some(now);
        Ok(())
    }
}

/// Why a bundle is to be replaced; `None` while it is good.
fn outdated(bundle: &JoinBundle, facts: &Facts, now: Timestamp, ttl: Duration) -> Option<String> {
    if bundle.schema != SCHEMA || bundle.uid != facts.uid || bundle.ca_sha256 != facts.ca {
        return Some("the bundle in the store is not one of this cluster".into());
    }
    if bundle.issued_at > now {
        return Some(format!(
            "the bundle in the store was issued in the future ({}), which no worker accepts",
            bundle.issued_at
        ));
    }
    if bundle.endpoint != facts.endpoint {
        return Some(format!("the endpoint has changed to {}", facts.endpoint));
    }
    if bundle.server_version != facts.version {
        return Some(format!("the API server has become {}", facts.version));
    }
    let left = bundle.expires_at.duration_since(now).as_secs();
    let half = i64::try_from(ttl.as_secs() / 2).unwrap_or(i64::MAX);
    (left < half).then(|| format!("its token lives only {} s more", left.max(0)))
}

fn bundle(node: &Node, facts: Facts, token: (BootstrapToken, Timestamp), previous: Option<&JoinBundle>) -> JoinBundle {
    JoinBundle {
        schema: SCHEMA,
        cluster: node.settings.cluster.to_string(),
        uid: facts.uid,
        endpoint: facts.endpoint,
        ca_sha256: facts.ca,
        server_version: facts.version,
        issued_at: node.world.time.now(),
        token: token.0,
        expires_at: token.1,
        sequence: previous.map_or(0, |bundle| bundle.sequence).saturating_add(1),
        publisher: node.identity.key(),
        write_id: node.uuid(),
    }
}

/// A new token that the cluster knows and has signed cluster-info with, and when it expires.
async fn signed_token(node: &Node) -> Outcome<(BootstrapToken, Timestamp)> {
    let api = Api::admin(&node.world.cluster);
    let token = tokens::random_token(&*node.world.time);
    let expires_at = node.world.time.now() + node.settings.join.token_ttl;
    api.create_token(&token, expires_at).await?;
    let (began, mut pause) = (node.world.time.uptime(), SIGNATURE_FIRST);
    node.wait_for("the controller-manager to sign cluster-info for the new token");
    while !api.token_is_signed(&token).await? {
        if node.world.time.uptime().saturating_sub(began) > SIGNATURE_PATIENCE {
            let why = "cluster-info has no signature for the new token";
            return Err(Failure::new(Cause::ApiUnavailable, "publish the join bundle", why)
                .advise("look at the kube-controller-manager's log"));
        }
        node.world.time.sleep(pause).await;
        pause = (pause * 2).min(SIGNATURE_EVERY);
    }
    Ok((token, expires_at))
}

/// `token rotate`: a new bundle at once; with `revoke`, every other token that kubestrap made is deleted after it.
/// Returns how many were deleted.
pub async fn rotate(node: &Node, revoke: bool) -> Outcome<usize> {
    let bundle = Publisher::default().publish(node).await?;
    if !revoke {
        return Ok(0);
    }
    let api = Api::admin(&node.world.cluster);
    let mut revoked = 0;
    for id in api.own_tokens().await?.iter().filter(|id| id.as_str() != bundle.token.id()) {
        api.delete_token(id).await?;
        revoked += 1;
    }
    Ok(revoked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            uid: Uuid::from_u128(1),
            ca: CaHash::from_digest(&[1; 32]),
            endpoint: Endpoint::parse("api:6443").expect("endpoint"),
            version: KubeVersion::parse("v1.36.1").expect("version"),
        }
    }

    fn bundle(expires_s: i64) -> JoinBundle {
        let facts = facts();
        JoinBundle {
            schema: SCHEMA,
            cluster: "test".into(),
            uid: facts.uid,
            endpoint: facts.endpoint,
            ca_sha256: facts.ca,
            server_version: facts.version,
            token: BootstrapToken::parse("abcdef.0123456789abcdef").expect("token"),
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::from_second(expires_s).expect("time"),
            sequence: 1,
            publisher: "x".into(),
            write_id: Uuid::nil(),
        }
    }

    #[test]
    fn a_bundle_is_replaced_at_half_life_and_when_a_fact_changed() {
        let hour = Duration::from_secs(3600);
        let why = |bundle: &JoinBundle, facts: &Facts| outdated(bundle, facts, Timestamp::UNIX_EPOCH, hour);
        assert_eq!(why(&bundle(3600), &facts()), None);
        assert_eq!(why(&bundle(1800), &facts()), None);
        assert!(why(&bundle(1799), &facts()).is_some());
        assert!(why(&bundle(-5), &facts()).is_some_and(|why| why.contains("0 s more")));
        let changed = [
            Facts { uid: Uuid::from_u128(2), ..facts() },
            Facts { ca: CaHash::from_digest(&[2; 32]), ..facts() },
            Facts { endpoint: Endpoint::parse("other:6443").expect("endpoint"), ..facts() },
            Facts { version: KubeVersion::parse("v1.37.0").expect("version"), ..facts() },
        ];
        for facts in changed {
            assert!(why(&bundle(3600), &facts).is_some(), "{facts:?}");
        }
    }
}
