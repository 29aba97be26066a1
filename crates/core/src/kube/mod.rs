//! What we ask of the Kubernetes API, over the `Cluster` port: one request, one answer, mapped to the failure table.

pub mod apply;
pub mod lease;
pub mod nodes;
pub mod tokens;

use crate::model::cause::{Cause, Failure, Outcome};
use crate::ports::{Access, ApiAnswer, ApiRequest, Cluster};
use serde_json::Value;
use std::path::PathBuf;
use std::rc::Rc;

/// The administrator's kubeconfig that `kubeadm init` writes; only masters have it.
pub const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";
/// The kubelet's own kubeconfig.
pub const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";

/// An API server and the credentials for it.
#[derive(Clone)]
pub struct Api {
    cluster: Rc<dyn Cluster>,
    access: Access,
}

impl Api {
    /// As the cluster's administrator.
    pub fn admin(cluster: &Rc<dyn Cluster>) -> Self {
        Api { cluster: cluster.clone(), access: Access::Kubeconfig(PathBuf::from(ADMIN_CONF)) }
    }

    /// As the cluster's administrator, at the API server on this machine: what the load balancer does elsewhere does not
    /// concern it.
    pub fn local(node: &crate::node::Node) -> Outcome<Self> {
        let path = PathBuf::from(ADMIN_CONF);
        let access = Access::KubeconfigAt(path, crate::kubeadm::documents::local_endpoint(node)?);
        Ok(Api { cluster: node.world.cluster.clone(), access })
    }

    /// With the credentials of another kubeconfig of this machine.
    pub fn with(cluster: &Rc<dyn Cluster>, kubeconfig: &str) -> Self {
        Api { cluster: cluster.clone(), access: Access::Kubeconfig(PathBuf::from(kubeconfig)) }
    }

    /// As this node's kubelet.
    pub fn kubelet(cluster: &Rc<dyn Cluster>) -> Self {
        Api { cluster: cluster.clone(), access: Access::Kubeconfig(PathBuf::from(KUBELET_CONF)) }
    }

    /// One request; the answer whatever its status.
    pub async fn call(
        &self,
        method: &'static str,
        path: &str,
        body: Option<(&'static str, &Value)>,
    ) -> Outcome<ApiAnswer> {
        let body = match body {
            None => None,
            Some((content_type, value)) => Some((content_type, encode(value)?)),
        };
        self.cluster.call(ApiRequest { access: self.access.clone(), method, path: path.to_owned(), body }).await
    }

    /// The object at `path`; `None` when there is none (404).
    pub async fn get(&self, path: &str) -> Outcome<Option<Value>> {
        let answer = self.call("GET", path, None).await?;
        match answer.status {
            200 => decode("read", path, &answer).map(Some),
            404 => Ok(None),
            _ => Err(refused("read", path, &answer)),
        }
    }

    /// Whether the API server says that it is ready, judged with the credentials and the CA of the kubeconfig.
    pub async fn is_ready(&self) -> Outcome<bool> {
        Ok(self.call("GET", "/readyz", None).await?.status == 200)
    }

    /// The API server's version, as `GET /version` has it.
    pub async fn version(&self) -> Outcome<crate::model::version::KubeVersion> {
        let value = self.get("/version").await?.unwrap_or_default();
        let text = value.get("gitVersion").and_then(Value::as_str).unwrap_or_default();
        crate::model::version::KubeVersion::parse(text)
            .map_err(|why| Failure::new(Cause::ApiRefused, "read /version of the API server", why))
    }
}

fn encode(value: &Value) -> Outcome<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| Failure::new(Cause::Internal, "encode a request to the API server", error.to_string()))
}

fn decode(verb: &str, path: &str, answer: &ApiAnswer) -> Outcome<Value> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        Failure::new(Cause::ApiRefused, format!("{verb} {path} at the API server"), format!("not JSON: {error}"))
    })
}

/// The failure for an answer that is not what was asked for. The message of the `Status` object is the server's own
/// explanation and holds no secret; the body is not repeated.
pub(crate) fn refused(verb: &str, path: &str, answer: &ApiAnswer) -> Failure {
    let path = path.split('?').next().unwrap_or_default();
    let status: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let message = status
        .as_ref()
        .and_then(|status| status.get("message"))
        .and_then(Value::as_str)
        .map_or_else(|| "no explanation".to_owned(), crate::model::secret::redact);
    let cause = match answer.status {
        401 => Cause::BadCredentials,
        403 => Cause::AccessDenied,
        429 => Cause::Throttled,
        500..=599 => Cause::ApiUnavailable,
        _ => Cause::ApiRefused,
    };
    let failure =
        Failure::new(cause, format!("{verb} {path} at the API server"), format!("{} {message}", answer.status));
    match answer.status {
        // The table's fixes speak of the cloud's credentials.
        401 | 403 => failure.advise("an API server that has just started says so for some seconds; otherwise check the RBAC of this kubeconfig's user"),
        _ => failure,
    }
}

/// Percent-encodes one path segment or query value: everything but unreserved characters (RFC 3986).
pub(crate) fn encode_segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_map_to_the_failure_table_without_the_body() {
        let body = br#"{"kind":"Status","message":"token abcdef.0123456789abcdef is bad","data":"hidden"}"#.to_vec();
        for (status, cause) in [
            (401, Cause::BadCredentials),
            (403, Cause::AccessDenied),
            (409, Cause::ApiRefused),
            (429, Cause::Throttled),
            (503, Cause::ApiUnavailable),
        ] {
            let failure = refused("create", "/api/v1/x?fieldManager=y", &ApiAnswer { status, body: body.clone() });
            assert_eq!(failure.cause, cause);
            let text = failure.to_string();
            assert!(
                !text.contains("0123456789abcdef") && !text.contains("hidden") && !text.contains("fieldManager"),
                "{text}"
            );
        }
    }

    #[test]
    fn segments_cannot_leave_their_place() {
        assert_eq!(encode_segment("../a b/c?d"), "..%2Fa%20b%2Fc%3Fd");
    }
}
