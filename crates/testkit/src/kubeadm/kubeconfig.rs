//! kubeconfig files, written and read.

use crate::client::Credentials;
use crate::files;
use crate::pki::Pair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io;
use std::path::Path;

/// What a user shows.
#[derive(Clone)]
pub enum User {
    /// A certificate in the file.
    Embedded(Pair),
    /// Certificate and key in one other file (the kubelet's).
    File(String),
    /// A bearer token.
    Token(String),
    /// Nothing (cluster-info).
    Nobody,
}

/// A kubeconfig with one cluster, one user, one context.
#[derive(Clone)]
pub struct Kubeconfig {
    /// `https://host:port`.
    pub server: String,
    /// PEM of the cluster's CA.
    pub ca: String,
    /// The cluster's name.
    pub cluster: String,
    /// The user's name.
    pub name: String,
    /// The user.
    pub user: User,
}

impl Kubeconfig {
    /// The file's text.
    ///
    /// # Errors
    /// When it can not be written as YAML, which does not happen.
    pub fn to_yaml(&self) -> io::Result<String> {
        let user = match &self.user {
            User::Embedded(pair) => json!({
                "client-certificate-data": STANDARD.encode(&pair.certificate),
                "client-key-data": STANDARD.encode(&pair.key),
            }),
            User::File(path) => json!({"client-certificate": path, "client-key": path}),
            User::Token(token) => json!({"token": token}),
            User::Nobody => Value::Null,
        };
        let cluster = json!({"certificate-authority-data": STANDARD.encode(&self.ca), "server": self.server});
        let context = format!("{}@{}", self.name, self.cluster);
        let document = if user.is_null() {
            // The one in cluster-info: the cluster alone, without a name (kubeadm `CreateBootstrapConfigMapIfNotExists`).
            json!({
                "apiVersion": "v1", "kind": "Config", "clusters": [{"cluster": cluster, "name": ""}], "contexts": null,
                "current-context": "", "preferences": {}, "users": null,
            })
        } else {
            json!({
                "apiVersion": "v1", "kind": "Config", "clusters": [{"cluster": cluster, "name": self.cluster}],
                "contexts": [{"context": {"cluster": self.cluster, "user": self.name}, "name": context}],
                "current-context": context, "preferences": {}, "users": [{"name": self.name, "user": user}],
            })
        };
        files::yaml(&document)
    }

    /// Writes the file with mode 0600.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        files::write(path, self.to_yaml()?.as_bytes(), 0o600)
    }

    /// Parses a kubeconfig's text.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(text: &str) -> io::Result<Self> {
        let document: Value = serde_saphyr::from_str(text).map_err(io::Error::other)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pem = |value: &Value| {
            let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).map_err(io::Error::other)?;
            String::from_utf8(bytes).map_err(io::Error::other)
        };
        let (cluster, user) = (&document["clusters"][0], &document["users"][0]["user"]);
        let parsed = if let Some(token) = user["token"].as_str() {
            User::Token(token.to_owned())
        } else if let Some(path) = user["client-certificate"].as_str() {
            User::File(path.to_owned())
        } else if user["client-certificate-data"].is_string() {
            User::Embedded(Pair {
                certificate: pem(&user["client-certificate-data"])?,
                key: pem(&user["client-key-data"])?,
            })
        } else {
            User::Nobody
        };
        let server = text(&cluster["cluster"]["server"]);
        if !server.starts_with("https://") {
            return Err(io::Error::other("not a kubeconfig: there is no https server in it"));
        }
        let (ca, name) = (pem(&cluster["cluster"]["certificate-authority-data"])?, text(&document["users"][0]["name"]));
        Ok(Kubeconfig { server, ca, cluster: text(&cluster["name"]), name, user: parsed })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it can not be read or is not a kubeconfig.
    pub fn read(path: &Path) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        Self::parse(&files::read_text(path)?).map_err(named)
    }

    /// `host:port` of the server.
    pub fn endpoint(&self) -> &str {
        self.server.trim_start_matches("https://")
    }

    /// The node whose kubelet's kubeconfig this is, from its certificate.
    ///
    /// # Errors
    /// When there is no certificate, or it is not a kubelet's.
    pub fn node_name(&self, root: &Path) -> io::Result<String> {
        let pair = self.credentials(root)?.identity.ok_or_else(|| io::Error::other("no client certificate"))?;
        let (name, _) = crate::pki::pem_subject(&pair.certificate)?;
        let node = name.strip_prefix("system:node:").map(ToOwned::to_owned);
        node.ok_or_else(|| io::Error::other(format!("{name} is no node")))
    }

    /// What a client shows with it; files it refers to are below `root`, as for a kubelet that runs in it.
    ///
    /// # Errors
    /// When a file it refers to can not be read.
    pub fn credentials(&self, root: &Path) -> io::Result<Credentials> {
        let (mut identity, mut token) = (None, None);
        match &self.user {
            User::Embedded(pair) => identity = Some(pair.clone()),
            User::File(path) => {
                let both = files::read_text(&files::under(root, path))?;
                identity = Some(Pair { certificate: both.clone(), key: both });
            }
            User::Token(text) => token = Some(text.clone()),
            User::Nobody => {}
        }
        Ok(Credentials { ca: Some(self.ca.clone()), identity, token })
    }
}
