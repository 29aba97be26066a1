//! The Kubernetes API as far as core asks for it, served by the masters whose control plane runs.

use super::Desk;
use crate::cluster::{ENDPOINT, Token};
use crate::faults::Fault;
use crate::kubeadm::{KUBE_VERSION, read_kubeconfig};
use crate::network::Far;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{Access, ApiAnswer, ApiRequest, Cluster};
use serde_json::{Value, json};

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const TOKEN_SECRETS: &str = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-";
const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

#[async_trait(?Send)]
impl Cluster for Desk {
    async fn call(&self, request: ApiRequest) -> Outcome<ApiAnswer> {
        let universe = &self.universe;
        // One's own API server is reached without a network.
        let at = self.machine_at(&request.access);
        let local = at == Some(self.machine) || (at.is_none() && universe.api_on(self.machine).is_some());
        if local {
            universe.sleep(universe.travel()).await;
        } else {
            self.there(Far::Api).await;
        }
        let failed = |cause, why: &str| Err(Failure::new(cause, format!("{} {}", request.method, request.path), why));
        if universe.strikes(Fault::TimeOut) {
            std::future::pending::<()>().await;
        }
        if universe.strikes(Fault::ApiFails) {
            return failed(Cause::ApiUnavailable, "503");
        }
        let (ca, user) = match self.credentials(&request.access) {
            Ok(known) => known,
            Err(why) => return failed(Cause::FileAccess, &why),
        };
        let etcd = match at {
            Some(machine) => universe.api_at(self.machine, machine),
            None => universe.api_behind_endpoint(self.machine),
        };
        let Some(etcd) = etcd else {
            return failed(Cause::ApiUnavailable, "connection refused");
        };
        if ca.is_some_and(|ca| ca != universe.etcds.borrow()[etcd].ca.as_str()) {
            return failed(Cause::Tls, "the server's certificate is signed by another CA");
        }
        let (status, body) = self.serve(etcd, &user, &request);
        let lost = request.method != "GET" && universe.strikes(Fault::ApiAnswerLost);
        if local {
            universe.sleep(universe.travel()).await;
        } else {
            self.back(Far::Api).await;
        }
        if lost {
            return failed(Cause::ApiUnavailable, "the connection broke before the answer came");
        }
        Ok(ApiAnswer { status, body: body.to_string().into_bytes() })
    }
}

impl Desk {
    /// The machine whose API server is meant; `None` when it is the endpoint's.
    fn machine_at(&self, access: &Access) -> Option<usize> {
        let Access::KubeconfigAt(_, endpoint) = access else { return None };
        let (address, _) = endpoint.as_str().rsplit_once(':')?;
        let machine = self.universe.machines.iter().find(|machine| machine.identity.address.to_string() == address);
        machine.map(|machine| machine.index)
    }

    /// The CA that is trusted (`None`: any) and who asks.
    fn credentials(&self, access: &Access) -> Result<(Option<String>, String), String> {
        match access {
            Access::Unverified(endpoint) if endpoint.as_str() == ENDPOINT => Ok((None, "anonymous".to_owned())),
            Access::Unverified(endpoint) => Err(format!("{endpoint}: no such host")),
            Access::Kubeconfig(path) | Access::KubeconfigAt(path, _) => {
                let text = self.universe.machines[self.machine].state.borrow().disk.text(path);
                let known = text.as_deref().and_then(read_kubeconfig);
                known.map(|(ca, user)| (Some(ca), user)).ok_or_else(|| format!("no kubeconfig {}", path.display()))
            }
        }
    }

    fn serve(&self, etcd: usize, user: &str, request: &ApiRequest) -> (u16, Value) {
        let path = request.path.split('?').next().unwrap_or_default();
        let status = |code: u16, message: &str| (code, json!({ "kind": "Status", "message": message }));
        if user != "anonymous"
            && let Some(answer) = self.serve_objects(etcd, user, request)
        {
            return answer;
        }
        match (request.method, path) {
            ("GET", "/readyz" | "/healthz" | "/livez") => (200, json!("ok")),
            ("GET", "/version") => (200, json!({ "gitVersion": KUBE_VERSION })),
            ("GET", CLUSTER_INFO) => (200, self.cluster_info(etcd)),
            _ if user != "admin" => status(403, "forbidden"),
            ("POST", SECRETS) => match request.body.as_ref().and_then(|(_, body)| serde_json::from_slice(body).ok()) {
                Some(secret) => self.create_token(etcd, &secret),
                None => status(400, "not JSON"),
            },
            ("GET", SECRETS) => (200, self.tokens(etcd)),
            ("GET", secret) if secret.starts_with(TOKEN_SECRETS) => {
                let id = &secret[TOKEN_SECRETS.len()..];
                self.universe.token(etcd, id).map_or_else(|| status(404, "not found"), |token| (200, shown(id, &token)))
            }
            ("DELETE", secret) if secret.starts_with(TOKEN_SECRETS) => {
                let id = &secret[TOKEN_SECRETS.len()..];
                match self.universe.etcds.borrow_mut()[etcd].tokens.remove(id) {
                    Some(_) => (200, json!({})),
                    None => status(404, "not found"),
                }
            }
            _ => status(404, "the server could not find the requested resource"),
        }
    }

    fn create_token(&self, etcd: usize, secret: &Value) -> (u16, Value) {
        let text = |key: &str| secret.pointer(&format!("/stringData/{key}")).and_then(Value::as_str).map(str::to_owned);
        let (Some(id), Some(token_secret)) = (text("token-id"), text("token-secret")) else {
            return (422, json!({ "message": "token-id and token-secret are needed" }));
        };
        let expires_at = text("expiration").and_then(|at| at.parse::<Timestamp>().ok());
        self.universe.learn_secret(&token_secret);
        let mut etcds = self.universe.etcds.borrow_mut();
        if etcds[etcd].tokens.contains_key(&id) {
            return (409, json!({ "message": "already exists" }));
        }
        let token = Token {
            secret: token_secret,
            expires_at: expires_at.unwrap_or(Timestamp::MAX),
            made_at: self.universe.timeline.now(),
            description: text("description"),
        };
        etcds[etcd].tokens.insert(id, token);
        (201, json!({}))
    }

    fn tokens(&self, etcd: usize) -> Value {
        let ids: Vec<String> = self.universe.etcds.borrow()[etcd].tokens.keys().cloned().collect();
        let alive = ids.iter().filter_map(|id| Some(shown(id, &self.universe.token(etcd, id)?)));
        json!({ "items": alive.collect::<Vec<_>>() })
    }

    fn cluster_info(&self, etcd: usize) -> Value {
        let ids: Vec<String> = self.universe.etcds.borrow()[etcd].tokens.keys().cloned().collect();
        let signed = ids.into_iter().filter(|id| self.universe.is_signed(etcd, id));
        let mut data: serde_json::Map<String, Value> =
            signed.map(|id| (format!("jws-kubeconfig-{id}"), json!("header..signature"))).collect();
        data.insert("kubeconfig".to_owned(), json!("apiVersion: v1\n"));
        json!({ "data": data })
    }
}

fn shown(id: &str, token: &Token) -> Value {
    let mut data = json!({
        "token-id": STANDARD.encode(id),
        "token-secret": STANDARD.encode(&token.secret),
        "expiration": STANDARD.encode(token.expires_at.to_string()),
    });
    if let Some(description) = &token.description {
        data["description"] = json!(STANDARD.encode(description));
    }
    json!({ "metadata": { "name": format!("bootstrap-token-{id}") }, "type": "bootstrap.kubernetes.io/token", "data": data })
}
