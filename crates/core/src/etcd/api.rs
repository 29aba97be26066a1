//! What is asked of etcd: its v3 API over the JSON gateway (`/v3/...`), where 64 bit numbers are decimal strings and
//! fields with a zero value are absent.

use super::decide::Removable;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::secret::redact;
use crate::node::Node;
use crate::ports::{ApiAnswer, Etcd, EtcdAccess};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;

/// This machine's own member.
pub const LOCAL: &str = "https://127.0.0.1:2379";
const LIST: &str = "/v3/cluster/member/list";
const REMOVE: &str = "/v3/cluster/member/remove";
const STATUS: &str = "/v3/maintenance/status";
const TRANSFER: &str = "/v3/maintenance/transfer-leadership";
/// What etcd says when it has no quorum (etcd's `rpctypes`).
const NO_QUORUM: &[&str] = &["no leader", "request timed out", "leader changed", "context deadline exceeded"];

/// Files with which etcd lets us in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// etcd's CA.
    pub ca: PathBuf,
    /// A client certificate that it signed.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Credentials {
    /// What kubeadm leaves on every master.
    pub fn of_master() -> Self {
        let file = |name: &str| PathBuf::from(format!("/etc/kubernetes/pki/etcd/{name}"));
        Credentials { ca: file("ca.crt"), certificate: file("server.crt"), key: file("server.key") }
    }

    fn at(&self, endpoint: &str) -> EtcdAccess {
        EtcdAccess {
            endpoint: endpoint.to_owned(),
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        }
    }
}

/// A member, as the members' list has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// The node's name, by kubeadm; empty for one that never started.
    pub name: String,
    /// `https://10.0.0.1:2380`
    pub peers: Vec<String>,
    /// `https://10.0.0.1:2379`; empty for one that never started.
    pub clients: Vec<String>,
    /// Whether it has no vote.
    pub learner: bool,
}

impl Member {
    /// Whether it has started ever.
    pub fn is_started(&self) -> bool {
        !self.name.is_empty()
    }

    /// Whether it counts for the quorum.
    pub fn is_voter(&self) -> bool {
        !self.learner
    }

    /// Its id as etcdctl shows it.
    pub fn hex(&self) -> String {
        format!("{:x}", self.id)
    }

    /// Its name, or its peer address when it has none.
    pub fn title(&self) -> String {
        if self.is_started() {
            return self.name.clone();
        }
        self.peers.first().map_or_else(|| self.hex(), |peer| format!("the unstarted member at {peer}"))
    }

    /// Whether it listens for its peers there.
    pub fn is_at(&self, address: IpAddr) -> bool {
        self.peers.iter().any(|peer| address_of(peer) == Some(address))
    }

    fn read(member: &Value) -> Option<Member> {
        let texts = |key: &str| {
            let list = member.get(key).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Some(Member {
            id: number(member.get("ID"))?,
            name: member.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
            peers: texts("peerURLs"),
            clients: texts("clientURLs"),
            learner: member.get("isLearner").and_then(Value::as_bool).unwrap_or_default(),
        })
    }
}

/// The address in a URL such as `https://10.0.0.1:2380` or `https://[fd00::1]:2380`.
pub fn address_of(url: &str) -> Option<IpAddr> {
    let host = url.split_once("://")?.1;
    let host = host.split('/').next()?.rsplit_once(':')?.0;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Who answers.
    pub member: u64,
    /// Who it follows; zero when there is no leader.
    pub leader: u64,
    /// What it has applied of the log.
    pub applied: u64,
    /// What is wrong with it, in its own words.
    pub errors: Vec<String>,
}

/// Speaks to members of one etcd.
#[derive(Clone)]
pub struct Client {
    port: Rc<dyn Etcd>,
    with: Credentials,
}

impl Client {
    /// With these credentials.
    pub fn new(node: &Node, with: &Credentials) -> Self {
        Client { port: node.world.etcd.clone(), with: with.clone() }
    }

    /// Every member. `linearizable`: as a quorum has it; otherwise as the one that is asked remembers it.
    pub async fn members(&self, endpoint: &str, linearizable: bool) -> Outcome<Vec<Member>> {
        let value = self.call(endpoint, LIST, &json!({ "linearizable": linearizable }), "list the members").await?;
        let list = value.get("members").and_then(Value::as_array);
        let members = list.into_iter().flatten().map(Member::read).collect::<Option<Vec<_>>>();
        members.filter(|members| !members.is_empty()).ok_or_else(|| {
            let why = "the answer is no list of members";
            Failure::new(Cause::EtcdRefused, format!("list the members of etcd at {endpoint}"), why)
        })
    }

    /// How the member at this endpoint is.
    pub async fn status(&self, endpoint: &str) -> Outcome<MemberStatus> {
        let value = self.call(endpoint, STATUS, &json!({}), "ask for the status").await?;
        let errors = value.get("errors").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        Ok(MemberStatus {
            member: number(value.pointer("/header/member_id")).unwrap_or_default(),
            leader: number(value.get("leader")).unwrap_or_default(),
            applied: number(value.get("raftAppliedIndex")).unwrap_or_default(),
            errors: errors.map(redact).collect(),
        })
    }

    /// Removes a member. `false`: there was none of this id. The proof says why it may go.
    pub async fn remove(&self, endpoint: &str, which: &Removable) -> Outcome<bool> {
        let doing = format!("remove the member {:x} ({})", which.id(), which.name());
        match self.call(endpoint, REMOVE, &json!({ "ID": which.id().to_string() }), &doing).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.detail.contains("member not found") => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Hands etcd's leadership from the member at this endpoint, which must have it, to another voter.
    pub async fn move_leader(&self, endpoint: &str, to: u64) -> Outcome<()> {
        let doing = format!("hand the leadership to {to:x}");
        self.call(endpoint, TRANSFER, &json!({ "targetID": to.to_string() }), &doing).await.map(|_| ())
    }

    async fn call(&self, endpoint: &str, path: &'static str, body: &Value, doing: &str) -> Outcome<Value> {
        let attempted = format!("{doing} of etcd at {endpoint}");
        let answer = self.port.call(&self.with.at(endpoint), path, body.to_string().into_bytes()).await?;
        if answer.status != 200 {
            return Err(refused(attempted, &answer));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| Failure::new(Cause::EtcdRefused, attempted, format!("the answer is not JSON: {error}")))
    }
}

/// A number as the gateway writes it; some versions of gateways wrote small ones without quotes.
fn number(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    }
}

/// The failure for an answer that is not what was asked for. etcd's messages hold no secrets.
fn refused(attempted: String, answer: &ApiAnswer) -> Failure {
    let status: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let text = |key: &str| status.as_ref().and_then(|status| status.get(key)).and_then(Value::as_str);
    let message = text("message").or_else(|| text("error")).map_or_else(|| "no explanation".to_owned(), redact);
    let cause = match answer.status {
        _ if NO_QUORUM.iter().any(|known| message.contains(known)) => Cause::NoQuorum,
        401 => Cause::BadCredentials,
        403 => Cause::AccessDenied,
        429 => Cause::Throttled,
        503 if message.contains("unhealthy cluster") => Cause::EtcdRefused,
        500..=599 => Cause::EtcdUnavailable,
        _ => Cause::EtcdRefused,
    };
    Failure::new(cause, attempted, format!("{} {message}", answer.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_with_numbers_as_text_and_absent_fields_as_zero() {
        let member = Member::read(&json!({"ID": "10276657743932975437", "name": "m-1",
            "peerURLs": ["https://10.0.0.1:2380"], "clientURLs": ["https://10.0.0.1:2379"]}));
        let member = member.expect("a member");
        assert_eq!((member.id, member.is_started(), member.is_voter()), (10_276_657_743_932_975_437, true, true));
        assert_eq!(member.hex(), "8e9e05c52164694d");
        assert!(member.is_at("10.0.0.1".parse().expect("address")));
        let learner = Member::read(&json!({"ID": "7", "peerURLs": ["https://[fd00::7]:2380"], "isLearner": true}));
        let learner = learner.expect("a member");
        assert!(!learner.is_started() && !learner.is_voter() && learner.is_at("fd00::7".parse().expect("address")));
        assert!(learner.title().contains("fd00::7"), "{}", learner.title());
        assert_eq!(Member::read(&json!({"name": "m-1"})), None, "a member without an id");
    }

    #[test]
    fn answers_map_to_the_failure_table() {
        for (status, message, cause) in [
            (503, "etcdserver: no leader", Cause::NoQuorum),
            (503, "etcdserver: request timed out", Cause::NoQuorum),
            (503, "etcdserver: unhealthy cluster", Cause::EtcdRefused),
            (400, "etcdserver: re-configuration failed due to not enough started members", Cause::EtcdRefused),
            (404, "etcdserver: member not found", Cause::EtcdRefused),
            (401, "x", Cause::BadCredentials),
            (502, "x", Cause::EtcdUnavailable),
        ] {
            let body = json!({"error": message, "code": 14, "message": message}).to_string().into_bytes();
            let failure = refused("list the members of etcd at x".to_owned(), &ApiAnswer { status, body });
            assert_eq!(failure.cause, cause, "{message}");
            assert!(failure.detail.contains(message), "{failure}");
        }
        let bare = refused("x".to_owned(), &ApiAnswer { status: 500, body: b"<html>".to_vec() });
        assert_eq!((bare.cause, bare.detail.as_str()), (Cause::EtcdUnavailable, "500 no explanation"));
    }

    #[test]
    fn addresses_are_taken_out_of_urls() {
        let known = [("https://10.0.0.1:2380", Some("10.0.0.1")), ("https://[fd00::1]:2379/", Some("fd00::1"))];
        for (url, address) in known {
            assert_eq!(address_of(url).map(|a| a.to_string()).as_deref(), address, "{url}");
        }
        for bad in ["", "10.0.0.1:2380", "https://name:2380", "https://"] {
            assert_eq!(address_of(bad), None, "{bad}");
        }
    }
}
