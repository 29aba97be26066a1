//! Bootstrap tokens, made through the API (never on a command line), and the signature that makes one usable.
//!
//! A token is the Secret `bootstrap-token-<id>` in kube-system (kubernetes.io "Authenticating with Bootstrap Tokens").
//! `kubeadm join` waits until the controller-manager has signed `cluster-info` with it, looking every 5 s, so a bundle
//! is published only when the signature is there.

use super::{Api, refused};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::names::BootstrapToken;
use crate::ports::Time;
use jiff::Timestamp;
use serde_json::{Value, json};

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
/// The group kubeadm's RBAC lets create the first certificate signing request of a kubelet (kubeadm constants.go,
/// `NodeBootstrapTokenAuthGroup`).
const NODE_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
/// Marks our own tokens, so that `token rotate --revoke` finds them all and nobody else's.
const DESCRIPTION: &str = "kubestrap join bundle";

/// A random token.
pub fn random_token(time: &dyn Time) -> BootstrapToken {
    loop {
        let mut bytes = [0; 32];
        time.random(&mut bytes);
        if let Some(token) = BootstrapToken::from_random(&bytes) {
            return token;
        }
    }
}

impl Api {
    /// Creates the token in the cluster. A token that exists already with this id is an error: draw another.
    pub async fn create_token(&self, token: &BootstrapToken, expires_at: Timestamp) -> Outcome<()> {
        let answer = self.call("POST", SECRETS, Some(("application/json", &secret(token, expires_at)))).await?;
        match answer.status {
            200 | 201 => Ok(()),
            _ => Err(refused("create a bootstrap token in", SECRETS, &answer)),
        }
    }

    /// Whether the token is still in the cluster, with the same secret half.
    pub async fn token_exists(&self, token: &BootstrapToken) -> Outcome<bool> {
        let found = self.get(&path(token.id())).await?;
        let stored = found.as_ref().and_then(|s| s.pointer("/data/token-secret")).and_then(Value::as_str);
        Ok(stored == Some(encode(token.secret().expose()).as_str()))
    }

    /// Whether cluster-info carries the signature for this token.
    pub async fn token_is_signed(&self, token: &BootstrapToken) -> Outcome<bool> {
        let info = self.get(CLUSTER_INFO).await?;
        let signature =
            info.as_ref().and_then(|i| i.get("data")).and_then(|d| d.get(format!("jws-kubeconfig-{}", token.id())));
        Ok(signature.and_then(Value::as_str).is_some_and(|text| !text.is_empty()))
    }

    /// The ids of the tokens that kubestrap made.
    pub async fn own_tokens(&self) -> Outcome<Vec<String>> {
        let query = format!("{SECRETS}?fieldSelector=type%3Dbootstrap.kubernetes.io%2Ftoken&limit=500");
        let list = self.get(&query).await?.unwrap_or_default();
        let items = list.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let wanted = encode(DESCRIPTION);
        let ours = items.iter().filter(|s| s.pointer("/data/description").and_then(Value::as_str) == Some(&wanted));
        let name = |s: &Value| s.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
        Ok(ours.filter_map(name).filter_map(|n| n.strip_prefix("bootstrap-token-").map(str::to_owned)).collect())
    }

    /// Deletes a token; nothing happens when it is gone.
    pub async fn delete_token(&self, id: &str) -> Outcome<()> {
        let path = path(id);
        let answer = self.call("DELETE", &path, None).await?;
        match answer.status {
            200 | 202 | 404 => Ok(()),
            _ => Err(refused("delete", &path, &answer)),
        }
    }
}

fn path(id: &str) -> String {
    format!("{SECRETS}/bootstrap-token-{}", super::encode_segment(id))
}

fn encode(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn secret(token: &BootstrapToken, expires_at: Timestamp) -> Value {
    // Whole seconds: the token cleaner and authenticator parse RFC 3339.
    let expiration = Timestamp::from_second(expires_at.as_second()).unwrap_or(expires_at).to_string();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": { "name": format!("bootstrap-token-{}", token.id()), "namespace": "kube-system" },
        "stringData": {
            "token-id": token.id(),
            "token-secret": token.secret().expose(),
            "expiration": expiration,
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true",
            "auth-extra-groups": NODE_GROUP,
            "description": DESCRIPTION,
        },
    })
}

/// A token was drawn whose id exists: practically a repeated request whose answer was lost; the caller draws another.
pub fn is_taken(failure: &Failure) -> bool {
    failure.cause == Cause::ApiRefused && failure.detail.starts_with("409")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_has_the_documented_form() {
        let token = BootstrapToken::parse("abcdef.0123456789abcdef").expect("token");
        let at: Timestamp = "2026-11-21T10:00:00.123Z".parse().expect("time");
        let secret = secret(&token, at);
        assert_eq!(secret.pointer("/metadata/name").and_then(Value::as_str), Some("bootstrap-token-abcdef"));
        assert_eq!(secret.pointer("/stringData/expiration").and_then(Value::as_str), Some("2026-11-21T10:00:00Z"));
        assert_eq!(secret.get("type").and_then(Value::as_str), Some("bootstrap.kubernetes.io/token"));
    }
}
