//! What the controller manager does for a join: signs cluster-info, cleans tokens, signs requests, judges nodes.

use super::auth::{field, is_expired};
use super::state::State;
use super::{Shared, mirror, resources};
use crate::script::{NodesReady, seconds};
use crate::{jws, pki};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::io;
use std::time::Duration;

const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
const TOKENS: &str = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-";
const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests/";
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/";
const NODES: &str = "/api/v1/nodes/";
/// Client certificates of kubelets (`--cluster-signing-duration`).
const KUBELET_LIFE: Duration = pki::LEAF_LIFE;

/// One round of all controllers.
pub(super) fn tick(shared: &Shared) -> io::Result<()> {
    let mut entered = shared.enter()?;
    let state = &mut *entered.state;
    establish(state, seconds(shared.script.api.crd_delay))?;
    if shared.started.elapsed() < seconds(shared.script.api.controllers_after) {
        return Ok(());
    }
    clean_tokens(state)?;
    super::eviction::end_pods(state)?;
    sign_cluster_info(state, seconds(shared.script.api.signer_delay))?;
    sign_requests(state, &shared.ca)?;
    judge_nodes(state, shared)
}

fn with_prefix(state: &State, prefix: &str) -> Vec<(String, Value)> {
    let all = state.objects.range(prefix.to_owned()..);
    all.take_while(|(path, _)| path.starts_with(prefix)).map(|(path, object)| (path.clone(), object.clone())).collect()
}

/// How long an object exists, by the stamp it was stored with.
fn age(object: &Value) -> Duration {
    let stamp = object["metadata"]["annotations"][super::handler::CREATED_AT].as_str();
    let at = stamp.and_then(|text| text.parse::<Timestamp>().ok());
    at.map_or(Duration::MAX, |at| Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default())
}

fn clean_tokens(state: &mut State) -> io::Result<()> {
    for (path, secret) in with_prefix(state, TOKENS) {
        if is_expired(&secret) {
            state.remove(&path)?;
        }
    }
    Ok(())
}

fn sign_cluster_info(state: &mut State, delay: Duration) -> io::Result<()> {
    let Some(mut info) = state.objects.get(CLUSTER_INFO).cloned() else { return Ok(()) };
    let Some(content) = info["data"]["kubeconfig"].as_str().map(ToOwned::to_owned) else { return Ok(()) };
    let mut data: Map<String, Value> = info["data"].as_object().cloned().unwrap_or_default();
    data.retain(|key, _| !key.starts_with("jws-kubeconfig-"));
    for (_, secret) in with_prefix(state, TOKENS) {
        let signs = field(&secret, "usage-bootstrap-signing").as_deref() == Some("true");
        let (id, key) = (field(&secret, "token-id"), field(&secret, "token-secret"));
        if let (true, Some(id), Some(key)) = (signs && !is_expired(&secret), id, key) {
            let name = format!("jws-kubeconfig-{id}");
            // A signature that is there stays; a new one takes its time.
            if (age(&secret) >= delay || info["data"][&name].is_string())
                && let Some(signature) = jws::sign(&content, &id, &key)
            {
                data.insert(name, json!(signature));
            }
        }
    }
    let data = Value::Object(data);
    if info["data"] != data {
        info["data"] = data;
        state.put(CLUSTER_INFO, info)?;
    }
    Ok(())
}

fn sign_requests(state: &mut State, ca: &pki::Pair) -> io::Result<()> {
    for (path, mut csr) in with_prefix(state, CSRS) {
        if csr["status"]["certificate"].is_string() || !csr["status"]["conditions"].is_null() {
            continue;
        }
        let pem = STANDARD.decode(csr["spec"]["request"].as_str().unwrap_or_default()).ok();
        let pem = pem.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        // The in-tree approver: a kubelet client certificate, whatever node the name is of.
        let kubelet = csr["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client-kubelet";
        let subject = pki::request_subject(&pem);
        let approved = kubelet
            && subject.is_ok_and(|(name, groups)| name.starts_with("system:node:") && groups == ["system:nodes"]);
        if !approved {
            // Requests of other signers wait for a person, for ever.
            continue;
        }
        let certificate = pki::sign_request(ca, &pem, KUBELET_LIFE)?;
        csr["status"] = json!({
            "conditions": [{"type": "Approved", "status": "True", "reason": "AutoApproved"}],
            "certificate": STANDARD.encode(certificate),
        });
        state.put(&path, csr)?;
    }
    Ok(())
}

fn establish(state: &mut State, delay: Duration) -> io::Result<()> {
    for (path, mut crd) in with_prefix(state, CRDS) {
        if !resources::established(&crd) && age(&crd) >= delay {
            crd["status"] = json!({"conditions": [
                {"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"},
            ]});
            state.put(&path, crd)?;
        }
    }
    Ok(())
}

fn judge_nodes(state: &mut State, shared: &Shared) -> io::Result<()> {
    let is_cni = |path: &str| path.contains("/daemonsets/") && !path.ends_with("/kube-proxy");
    let network = match shared.script.api.nodes_ready {
        NodesReady::Always => true,
        NodesReady::Never => false,
        NodesReady::Cni => state.objects.keys().any(|path| is_cni(path)),
    };
    for (path, mut node) in with_prefix(state, NODES) {
        let root = node["metadata"]["annotations"]["standin.kubestrap.dev/rootfs"].as_str();
        let root = root.map(std::path::Path::new);
        let alive = root.is_none_or(mirror::kubelet_lives);
        if let (true, Some(root)) = (alive, root) {
            mirror::keep(state, &node, root)?;
        }
        let now = Timestamp::now();
        let seen = node["status"]["standinSeen"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let silent = seen.is_some_and(|at| now.duration_since(at).as_secs_f64() > shared.script.api.node_grace);
        let (ready, reason) = match (alive, silent, network) {
            (false, true, _) => ("Unknown", "NodeStatusUnknown"),
            // Nobody has noticed yet: it stays what it was.
            (false, false, _) => continue,
            (true, _, true) => ("True", "KubeletReady"),
            (true, _, false) => ("False", "KubeletNotReady"),
        };
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let same = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == ready);
        let stale =
            alive && seen.is_none_or(|at| now.duration_since(at).as_secs_f64() > shared.script.api.node_grace / 2.0);
        if same && !stale {
            continue;
        }
        if alive {
            node["status"]["standinSeen"] = json!(now.to_string());
        }
        let mut others: Vec<Value> = conditions.into_iter().filter(|c| c["type"] != "Ready").collect();
        others.push(json!({"type": "Ready", "status": ready, "reason": reason, "lastHeartbeatTime": now.to_string()}));
        node["status"]["conditions"] = json!(others);
        state.put(&path, node)?;
    }
    Ok(())
}
