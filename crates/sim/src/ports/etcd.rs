//! etcd's JSON gateway on the members' client ports, as etcd 3.6 answers: 64-bit numbers are strings, what is zero or
//! empty is absent, and an error is a gRPC status with the HTTP code that the gateway gives it.

use super::Desk;
use crate::faults::Fault;
use crate::kubeadm::ca;
use crate::members::{Refusal, TIMED_OUT};
use crate::network::Far;
use async_trait::async_trait;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{ApiAnswer, Etcd, EtcdAccess};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// A request that needs a quorum and finds none is given up after this (etcd's request timeout).
const NO_QUORUM: Duration = Duration::from_secs(7);
const ON_LEARNER: Refusal = Refusal(14, "etcdserver: rpc not supported for learner");
const UNKNOWN_PATH: Refusal = Refusal(5, "Not Found");

#[async_trait(?Send)]
impl Etcd for Desk {
    async fn call(&self, access: &EtcdAccess, path: &'static str, body: Vec<u8>) -> Outcome<ApiAnswer> {
        let universe = &self.universe;
        let failed = |cause, why: &str| Err(Failure::new(cause, format!("POST {}{path}", access.endpoint), why));
        let Some(machine) = self.machine_behind(&access.endpoint) else {
            return failed(Cause::EtcdUnavailable, "no route to host");
        };
        let local = machine == self.machine;
        if local {
            universe.sleep(universe.travel()).await
        } else {
            self.there(Far::Api).await
        }
        if universe.strikes(Fault::EtcdFails) {
            return failed(Cause::EtcdUnavailable, "the connection broke");
        }
        if !local && universe.api_cut(machine) {
            universe.count("request-lost-in-cut");
            std::future::pending::<()>().await;
        }
        let running = universe.data_on(machine).filter(|(number, id)| {
            let etcds = universe.etcds.borrow();
            etcds[*number].member(*id).is_some_and(|member| universe.member_runs(*number, member))
        });
        let Some((number, id)) = running else { return failed(Cause::EtcdUnavailable, "connection refused") };
        if let Err(why) = self.handshake(number, access) {
            return failed(Cause::Tls, &why);
        }
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let answer = self.serve_etcd(number, machine, id, path, &body);
        if answer == Err(TIMED_OUT) {
            universe.sleep(NO_QUORUM).await;
        }
        let changes = !matches!(path, "/v3/cluster/member/list" | "/v3/maintenance/status");
        let lost = changes && universe.strikes(Fault::EtcdAnswerLost);
        if local {
            universe.sleep(universe.travel()).await
        } else {
            self.back(Far::Api).await
        }
        if lost {
            return failed(Cause::EtcdUnavailable, "the connection broke before the answer came");
        }
        let (status, body) = match answer {
            Ok(body) => (200, body),
            Err(Refusal(code, message)) => {
                (http_status(code), json!({ "code": code, "message": message, "details": [] }))
            }
        };
        Ok(ApiAnswer { status, body: body.to_string().into_bytes() })
    }
}

/// What the gateway makes of a gRPC code (grpc-gateway runtime.HTTPStatusFromCode).
fn http_status(code: u8) -> u16 {
    match code {
        5 => 404,
        9 => 400,
        14 => 503,
        _ => 500,
    }
}

impl Desk {
    /// The machine that a client URL names.
    fn machine_behind(&self, endpoint: &str) -> Option<usize> {
        let host = endpoint.strip_prefix("https://")?.strip_suffix(":2379")?;
        if matches!(host, "127.0.0.1" | "localhost" | "[::1]") {
            return Some(self.machine);
        }
        let machine = self.universe.machines.iter().find(|machine| machine.identity.address.to_string() == host);
        machine.map(|machine| machine.index)
    }

    /// TLS both ways: the client trusts etcd's CA alone, and shows a certificate that it signed.
    fn handshake(&self, number: usize, access: &EtcdAccess) -> Result<(), String> {
        let read = |path: &Path| self.universe.machines[self.machine].state.borrow().disk.text(path);
        let file = |path: &Path| read(path).ok_or_else(|| format!("there is no {}", path.display()));
        let (trusted, shown) = (file(&access.ca)?, file(&access.certificate)?);
        if file(&access.key)? != ca::private_key(&shown) {
            return Err("tls: private key does not match public key".to_owned());
        }
        let authority = self.universe.etcds.borrow()[number].etcd_ca.clone();
        if ca::pin(&trusted) != ca::pin(&authority) {
            return Err("the server's certificate is signed by another CA".to_owned());
        }
        ca::read_leaf(&authority, &shown).map(|_| ()).ok_or_else(|| "tls: bad certificate".to_owned())
    }

    fn serve_etcd(&self, number: usize, machine: usize, id: u64, path: &str, body: &Value) -> Result<Value, Refusal> {
        let universe = &self.universe;
        universe.tend_members(number);
        let header = json!({ "cluster_id": (number + 1).to_string(), "member_id": id.to_string(), "raft_term": "2" });
        let known = universe.etcds.borrow()[number].members.clone();
        let Some(own) = known.iter().find(|member| member.id == id) else { return Err(crate::members::NOT_FOUND) };
        if path == "/v3/maintenance/status" {
            let mut status = universe.shown_status(number, own);
            status["header"] = header;
            return Ok(status);
        }
        if own.learner {
            return Err(ON_LEARNER);
        }
        let number_of = |key: &str| -> u64 {
            let value = body.get(key);
            let text = value.and_then(Value::as_str).and_then(|text| text.parse().ok());
            text.or_else(|| value.and_then(Value::as_u64)).unwrap_or_default()
        };
        match path {
            "/v3/cluster/member/list" => {
                let linearizable = body.get("linearizable").and_then(Value::as_bool).unwrap_or(false);
                if linearizable && !universe.has_quorum(number, &universe.etcds.borrow()[number], machine) {
                    return Err(TIMED_OUT);
                }
            }
            "/v3/cluster/member/remove" => {
                let by = matches!(self.writer, crate::store::Writer::Node(_)).then_some(self.machine);
                universe.judge_member_removal(by, number, number_of("ID"));
                universe.remove_member(number, machine, number_of("ID"))?;
            }
            "/v3/cluster/member/promote" => universe.promote(number, machine, number_of("ID"))?,
            "/v3/maintenance/transfer-leadership" => {
                universe.move_leader(number, machine, number_of("targetID"))?;
                return Ok(json!({ "header": header }));
            }
            _ => return Err(UNKNOWN_PATH),
        }
        let members = universe.etcds.borrow()[number].members.clone();
        let shown: Vec<Value> = members.iter().map(|member| universe.shown_member(member)).collect();
        Ok(json!({ "header": header, "members": shown }))
    }
}
