//! The JSON gateway of a member's client port (`embed/serve.go`, grpc-gateway v2): `POST` with the messages of
//! `rpc.proto` as JSON, 64-bit numbers as texts, nothing that is zero or empty, refusals as `{"code", "message"}`.

use super::cluster::{Change, Patience, Refusal, TIMED_OUT};
use super::{Cluster, Member, Place, Server};
use crate::http::{Answer, Handler, Request, pause, respond};
use crate::script::seconds;
use serde_json::{Map, Value, json};
use std::time::Duration;

const NOT_FOR_LEARNERS: Refusal = (9, "etcdserver: rpc not supported for learner");
const BAD_URLS: Refusal = (3, "etcdserver: given member URLs are invalid");

/// What comes of a request: an answer, or a refusal; and whether it is one that waited in vain.
type Outcome = Result<Value, Refusal>;

impl Handler for Server {
    async fn handle(&self, request: Request) -> Answer {
        if let Some((status, delay)) = self.fault(&request) {
            pause(seconds(delay)).await;
            match status {
                // The answer is lost, and not the effect.
                0 => {
                    let _ = self.outcome(&request);
                    return Answer::Close;
                }
                200 => {}
                status => return json_answer(status, &json!({"code": 13, "message": "the stand-in was told to fail"})),
            }
        }
        if request.path == "/health" && request.method == "GET" {
            return self.health().await;
        }
        let Ok(cluster) = self.place().cluster() else { return Answer::Close };
        if cluster.member(self.id).is_none() {
            // A member that was removed ends itself.
            return Answer::Close;
        }
        if request.method != "POST" {
            return json_answer(501, &json!({"code": 12, "message": "Method Not Allowed"}));
        }
        match self.outcome(&request) {
            Ok(body) => json_answer(200, &body),
            Err((code, message)) => {
                if (code, message) == TIMED_OUT {
                    pause(seconds(self.script.etcd.timeout_seconds)).await;
                }
                json_answer(http_status(code), &json!({"code": code, "message": message}))
            }
        }
    }
}

/// `runtime.HTTPStatusFromCode`.
fn http_status(code: u32) -> u16 {
    match code {
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        _ => 500,
    }
}

fn json_answer(status: u16, body: &Value) -> Answer {
    Answer::Response(Box::new(respond(status, "application/json", body.to_string())))
}

impl Server {
    fn fault(&self, request: &Request) -> Option<(u16, f64)> {
        let mut used = self.faults_used.lock().ok()?;
        for (fault, used) in self.script.etcd.faults.iter().zip(used.iter_mut()) {
            if request.path.contains(&fault.path) && fault.times.is_none_or(|times| *used < times) {
                *used += 1;
                return Some((fault.status, fault.seconds));
            }
        }
        None
    }

    fn patience(&self) -> Patience {
        Patience { health: self.script.etcd.health_seconds, sync: self.script.etcd.sync_seconds }
    }

    async fn health(&self) -> Answer {
        if self.is_usable() {
            return json_answer(200, &json!({"health": "true", "reason": ""}));
        }
        pause(Duration::from_millis(10)).await;
        json_answer(503, &json!({"health": "false", "reason": "RAFT NO LEADER"}))
    }

    fn outcome(&self, request: &Request) -> Outcome {
        let body: Value = match &request.body[..] {
            [] => json!({}),
            bytes => serde_json::from_slice(bytes).map_err(|_| (3, "invalid JSON in the request"))?,
        };
        let place = self.place();
        let cluster = place.change(Cluster::settle).and_then(|_| place.cluster());
        let cluster = cluster.map_err(|_| (13, "the stand-in's file of members can not be read"))?;
        let is_status = request.path == "/v3/maintenance/status";
        let is_serializable = request.path == "/v3/kv/range" && body["serializable"] == true;
        if cluster.member(self.id).is_some_and(|own| own.learner) && !is_status && !is_serializable {
            return Err(NOT_FOR_LEARNERS);
        }
        match request.path.as_str() {
            "/v3/cluster/member/list" => {
                if body["linearizable"] == true && !cluster.has_quorum() {
                    return Err(TIMED_OUT);
                }
                Ok(self.answer(&cluster, [("members", members(&cluster))]))
            }
            "/v3/cluster/member/add" => self.add(&place, &body),
            "/v3/cluster/member/remove" => self.change(&place, &Change::Remove(number(&body["ID"])?)),
            "/v3/cluster/member/promote" => self.change(&place, &Change::Promote(number(&body["ID"])?)),
            "/v3/maintenance/status" => Ok(self.status(&cluster)),
            "/v3/maintenance/transfer-leadership" => {
                let target = number(&body["targetID"])?;
                written(place.change(|cluster| cluster.hand_over(self.id, target)))?;
                Ok(json!({}))
            }
            "/v3/kv/range" if body["key"].as_str().is_none_or(str::is_empty) => {
                Err((3, "etcdserver: key is not provided"))
            }
            "/v3/kv/range" if !is_serializable && !cluster.has_quorum() => Err(TIMED_OUT),
            // Nobody asks for what is in it: a read that is answered is a sign of health.
            "/v3/kv/range" => Ok(self.answer(&cluster, [])),
            // kubeadm's stand-in alone asks for it: where the files are that replication would bring.
            "/standin/share" => match Place::share(&self.root) {
                Ok(place) => Ok(json!({"folder": place.folder()})),
                Err(_) => Err((13, "the stand-in can not share its files")),
            },
            _ => Err((5, "Not Found")),
        }
    }

    fn answer<const N: usize>(&self, cluster: &Cluster, fields: [(&str, Value); N]) -> Value {
        let mut answer = json!({"header": {
            "cluster_id": cluster.cluster_id.to_string(), "member_id": self.id.to_string(),
        }});
        if cluster.term > 0 {
            answer["header"]["raft_term"] = json!(cluster.term.to_string());
        }
        for (name, value) in fields {
            answer[name] = value;
        }
        answer
    }

    fn add(&self, place: &Place, body: &Value) -> Outcome {
        let texts = body["peerURLs"].as_array().cloned().unwrap_or_default();
        let peer_urls: Vec<String> = texts.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect();
        let is_url = |url: &String| {
            let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            rest.is_some_and(|rest| rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()))
        };
        if peer_urls.is_empty() || !peer_urls.iter().all(is_url) {
            return Err(BAD_URLS);
        }
        let change = Change::Add { peer_urls, learner: body["isLearner"] == true };
        let id = written(place.change(|cluster| cluster.ask(self.id, &change, self.patience())))?;
        let cluster = place.cluster().unwrap_or_default();
        let added = cluster.member(id).map(member).unwrap_or_default();
        Ok(self.answer(&cluster, [("member", added), ("members", members(&cluster))]))
    }

    fn change(&self, place: &Place, change: &Change) -> Outcome {
        written(place.change(|cluster| cluster.ask(self.id, change, self.patience())))?;
        let cluster = place.cluster().unwrap_or_default();
        Ok(self.answer(&cluster, [("members", members(&cluster))]))
    }

    fn status(&self, cluster: &Cluster) -> Value {
        let mut errors: Vec<String> = self.script.etcd.alarms.clone();
        if cluster.leader == 0 {
            errors.insert(0, "etcdserver: no leader".to_owned());
        }
        let size = std::fs::metadata(self.place().objects()).map_or(0, |metadata| metadata.len()).max(20_480);
        let mut fields: Map<String, Value> = Map::new();
        for (name, value) in [
            ("version", json!("3.6.6")),
            ("storageVersion", json!("3.6.0")),
            ("dbSize", json!(size.to_string())),
            ("dbSizeInUse", json!(size.to_string())),
            ("dbSizeQuota", json!("2147483648")),
            ("leader", json!(cluster.leader.to_string())),
            ("raftTerm", json!(cluster.term.to_string())),
            ("raftIndex", json!("1000")),
            ("raftAppliedIndex", json!("1000")),
            ("isLearner", json!(cluster.member(self.id).is_some_and(|own| own.learner))),
            ("errors", json!(errors)),
            ("downgradeInfo", json!({})),
        ] {
            let is_zero = value == json!("0") || value == json!(false) || value == json!([]);
            if !is_zero {
                fields.insert(name.to_owned(), value);
            }
        }
        let mut answer = self.answer(cluster, []);
        for (name, value) in fields {
            answer[name] = value;
        }
        answer
    }
}

fn written<T>(done: std::io::Result<Result<T, Refusal>>) -> Result<T, Refusal> {
    done.unwrap_or(Err((13, "the stand-in's file of members can not be written")))
}

/// A 64-bit number: a text in JSON, and a number is understood too.
fn number(value: &Value) -> Result<u64, Refusal> {
    let parsed = match value {
        Value::Null => Some(0),
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    parsed.ok_or((3, "proto: invalid value for uint64 field"))
}

fn members(cluster: &Cluster) -> Value {
    cluster.members.iter().map(member).collect()
}

fn member(member: &Member) -> Value {
    let mut json = json!({"ID": member.id.to_string(), "peerURLs": member.peer_urls});
    if member.is_started() {
        json["name"] = json!(member.name);
        json["clientURLs"] = json!(member.client_urls);
    }
    if member.learner {
        json["isLearner"] = json!(true);
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_zero_is_absent_and_ids_are_texts() {
        let learner =
            Member { id: u64::MAX, peer_urls: vec!["https://a:2380".to_owned()], learner: true, ..Member::default() };
        assert_eq!(
            member(&learner),
            json!({"ID": "18446744073709551615", "peerURLs": ["https://a:2380"], "isLearner": true})
        );
        let voter = Member { id: 5, name: "m1".to_owned(), client_urls: vec!["https://a:2379".to_owned()], ..learner };
        let voter = member(&Member { learner: false, ..voter });
        assert_eq!((&voter["name"], &voter["isLearner"]), (&json!("m1"), &Value::Null));
        assert_eq!((number(&json!("7")), number(&json!(7)), number(&Value::Null)), (Ok(7), Ok(7), Ok(0)));
        assert!(number(&json!("x")).is_err() && number(&json!(-1)).is_err());
    }
}
