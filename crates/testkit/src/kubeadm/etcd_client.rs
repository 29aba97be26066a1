//! kubeadm's client of etcd (`util/etcd/etcd.go`): which members there are it learns from the annotations of the etcd
//! pods, and then from etcd itself.

use super::documents::Timeouts;
use super::init_api::API_CALL;
use super::{Failure, Kubeconfig, Run};
use crate::client::{self, Credentials};
use crate::pki;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// kubeadm `EtcdAPICallTimeout`.
const ETCD_CALL: Duration = Duration::from_secs(120);
/// kubeadm `EtcdAPICallRetryInterval` is 500 ms; here ten times faster, as everything is.
const RETRY: Duration = Duration::from_millis(50);
const EXPIRED: &str = "context deadline exceeded";
const PODS: &str = "/api/v1/namespaces/kube-system/pods?labelSelector=component%3Detcd%2Ctier%3Dcontrol-plane";

/// A connection to the members of a cluster.
pub struct Etcd<'a> {
    runtime: &'a Runtime,
    credentials: Credentials,
    /// Client URLs.
    endpoints: Vec<String>,
    timeout: Duration,
}

/// How long kubeadm tries: what the documents say, scaled by the script.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Calls of etcd.
    pub etcd: Duration,
    /// Calls of the API server.
    pub api: Duration,
}

impl Limits {
    /// Of a run with these timeouts.
    pub fn of(run: &Run, timeouts: Option<&Timeouts>) -> Limits {
        let given = |pick: fn(&Timeouts) -> &Option<String>| timeouts.and_then(|t| pick(t).as_deref());
        Limits {
            etcd: run.timeout(given(|t| &t.etcd_api_call), ETCD_CALL),
            api: run.timeout(given(|t| &t.kubernetes_api_call), API_CALL),
        }
    }
}

/// Tries until it succeeds or the time is over; then the last error counts, and Go's words when there is none.
fn until<T>(limit: Duration, mut work: impl FnMut() -> Result<Option<T>, String>) -> Result<T, String> {
    let (began, mut last) = (Instant::now(), None);
    loop {
        match work() {
            Ok(Some(done)) => return Ok(done),
            Ok(None) => {}
            Err(why) => last = Some(why),
        }
        if began.elapsed() + RETRY >= limit {
            return Err(last.unwrap_or_else(|| EXPIRED.to_owned()));
        }
        std::thread::sleep(RETRY);
    }
}

impl<'a> Etcd<'a> {
    /// `NewFromCluster`.
    ///
    /// # Errors
    /// When the API server does not tell the members, or none of them answers.
    pub fn from_cluster(run: &Run, runtime: &'a Runtime, admin: &Kubeconfig, limits: Limits) -> Result<Self, Failure> {
        let shown = admin.credentials(&run.root)?;
        let list = || {
            let answer = runtime.block_on(client::call(admin.endpoint(), &shown, "GET", PODS, None));
            let answer = answer.map_err(|e| format!("Get \"{}{PODS}\": {}", admin.server, go_words(&e)))?;
            if answer.status != 200 {
                return Err(answer.message());
            }
            let pods = answer.body["items"].as_array().cloned().unwrap_or_default();
            let urls = pods
                .iter()
                .filter_map(|pod| pod["metadata"]["annotations"][super::manifests::ETCD_ANNOTATION].as_str());
            let urls: Vec<String> = urls.map(ToOwned::to_owned).collect();
            Ok((!urls.is_empty() && urls.len() == pods.len()).then_some(urls))
        };
        let endpoints = until(limits.api, list)
            .map_err(|why| Failure::new(format!("could not retrieve the list of etcd endpoints: {why}")))?;
        let folder = run.path("/etc/kubernetes/pki/etcd");
        let ca = Some(crate::files::read_text(&folder.join("ca.crt"))?);
        let identity = Some(pki::read_pair(&folder.join("healthcheck-client"))?);
        let credentials = Credentials { ca, identity, token: None };
        let mut etcd = Etcd { runtime, credentials, endpoints, timeout: limits.etcd };
        let synced = until(limits.etcd, || etcd.members().map(Some));
        let members = synced.map_err(|why| Failure::new(format!("error syncing endpoints with etcd: {why}")))?;
        let voters = members.iter().filter(|member| member["name"].is_string() && member["isLearner"] != true);
        etcd.endpoints = voters.filter_map(|m| m["clientURLs"][0].as_str()).map(ToOwned::to_owned).collect();
        Ok(etcd)
    }

    /// One request, to the first endpoint that answers.
    fn call(&self, path: &str, body: &Value) -> Result<Value, String> {
        let mut last = EXPIRED.to_owned();
        for endpoint in &self.endpoints {
            match self.ask(endpoint, path, body) {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(refusal)) => return Err(refusal),
                Err(unreachable) => last = unreachable,
            }
        }
        Err(last)
    }

    fn ask(&self, endpoint: &str, path: &str, body: &Value) -> Result<Result<Value, String>, String> {
        let address = endpoint.trim_start_matches("https://");
        let body = Some(("application/json", body.to_string().into_bytes()));
        let answer = self.runtime.block_on(client::call(address, &self.credentials, "POST", path, body));
        // gRPC tells nothing but that its time is over.
        let answer = answer.map_err(|_| EXPIRED.to_owned())?;
        Ok(if answer.status == 200 { Ok(answer.body) } else { Err(answer.message()) })
    }

    /// The members, as etcd tells them; a read that needs a quorum.
    ///
    /// # Errors
    /// etcd's words.
    pub fn members(&self) -> Result<Vec<Value>, String> {
        let body = self.call("/v3/cluster/member/list", &json!({"linearizable": true}))?;
        Ok(body["members"].as_array().cloned().unwrap_or_default())
    }

    /// `CheckClusterHealth`: a majority of the endpoints answers; each of them is asked until its time is over.
    ///
    /// # Errors
    /// Which members do not.
    pub fn check_health(&self) -> Result<(), String> {
        let mut found = Vec::new();
        for endpoint in &self.endpoints {
            let asked = until(self.timeout, || match self.ask(endpoint, "/v3/maintenance/status", &json!({})) {
                Ok(Ok(status)) => Ok(Some(status)),
                Ok(Err(why)) | Err(why) => Err(why),
            });
            match asked {
                Err(why) => found.push(format!("the status of member {endpoint} is not available: {why}")),
                Ok(status) => {
                    let errors: Vec<&str> =
                        status["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                    if !errors.is_empty() {
                        found.push(format!("member {endpoint} is not healthy: {}", errors.join(",")));
                    }
                }
            }
        }
        let healthy = self.endpoints.len() - found.len();
        if healthy > self.endpoints.len() / 2 {
            return Ok(());
        }
        Err(if found.len() == 1 { found.remove(0) } else { format!("[{}]", found.join(", ")) })
    }

    /// `AddMemberAsLearner`; nothing happens when the peer is there already. The members then.
    ///
    /// # Errors
    /// etcd's last words.
    pub fn add_learner(&self, peer_url: &str) -> Result<Vec<Value>, String> {
        until(self.timeout, || {
            let members = self.members()?;
            if members.iter().any(|member| member["peerURLs"][0] == peer_url) {
                return Ok(Some(members));
            }
            let body = json!({"peerURLs": [peer_url], "isLearner": true});
            let answer = self.call("/v3/cluster/member/add", &body)?;
            Ok(answer["members"].as_array().cloned())
        })
    }

    /// `GetMemberID`; a text, as the gateway has it.
    ///
    /// # Errors
    /// When there is none with this peer URL.
    pub fn member_id(&self, peer_url: &str) -> Result<Option<String>, String> {
        let members = self.members()?;
        let found = members.iter().find(|member| member["peerURLs"][0] == peer_url);
        Ok(found.and_then(|member| member["ID"].as_str()).map(ToOwned::to_owned))
    }

    /// `MemberPromote`: waits until the learner has started, and tries until it has its vote.
    ///
    /// # Errors
    /// etcd's last words.
    pub fn promote(&self, id: &str) -> Result<(), String> {
        let hex = id.parse::<u64>().map(|id| format!("{id:x}")).unwrap_or_default();
        let waited = until(self.timeout, || {
            let members = self.members().map_err(|why| format!("failed to get member {hex} status: {why}"))?;
            let member = members.into_iter().find(|member| member["ID"] == id);
            let member = member.ok_or_else(|| format!("failed to get member {hex} status: member {hex} not found"))?;
            if member["isLearner"] == true && !member["name"].is_string() {
                return Err(format!("the etcd member {hex} is not started"));
            }
            Ok(Some(member["isLearner"] == true))
        })?;
        if !waited {
            return Ok(());
        }
        until(self.timeout, || self.call("/v3/cluster/member/promote", &json!({"ID": id})).map(|_| Some(())))
    }

    /// `RemoveMember`; nothing happens when it is gone already.
    ///
    /// # Errors
    /// etcd's last words.
    pub fn remove(&self, id: &str) -> Result<(), String> {
        until(self.timeout, || {
            if !self.members()?.iter().any(|member| member["ID"] == id) {
                return Ok(Some(()));
            }
            self.call("/v3/cluster/member/remove", &json!({"ID": id})).map(|_| Some(()))
        })
    }

    /// Where the files of the cluster are: what a real member gets from its peers is shared here.
    ///
    /// # Errors
    /// etcd's words.
    pub fn share(&self) -> Result<String, String> {
        let body = self.call("/standin/share", &json!({}))?;
        Ok(body["folder"].as_str().unwrap_or_default().to_owned())
    }
}

/// What Go says of an error of TLS or of a connection.
pub fn go_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    if text.contains("UnknownIssuer") || text.contains("BadSignature") {
        return "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned();
    }
    if text.contains("timed out") { EXPIRED.to_owned() } else { text }
}
