//! The part of a kubeconfig that kubeadm writes: server, CA, and a client certificate or token.
//!
//! Exec plugins, proxies and passwords are not read: kubeadm writes none, and running a program that a file names is
//! not for an agent of root. Source: client-go `tools/clientcmd/api/v1/types.go`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: ClusterEntry,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: ContextEntry,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: UserEntry,
}

#[derive(Deserialize)]
struct ContextEntry {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UserEntry {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
}

/// A piece of a kubeconfig: in it, or in a file it names.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// Its content.
    Data(Vec<u8>),
    /// Where it is on the node.
    File(PathBuf),
}

/// What is needed to speak to the server of the current context.
pub struct Kubeconfig {
    /// `https://host:port`
    pub server: String,
    /// PEM.
    pub ca: Piece,
    /// PEM certificates and PEM key.
    pub certificate: Option<(Piece, Piece)>,
    /// A bearer token.
    pub token: Option<Piece>,
}

impl Kubeconfig {
    /// Parses the text of the file at `path`. Errors never repeat the text: it contains a key.
    pub fn parse(text: &str, path: &Path) -> Result<Self, String> {
        // The libraries' messages may quote the line. By way of a value: a second kind of target is a second reader of
        // YAML in the program.
        let value: Value = serde_saphyr::from_str(text).map_err(|_| "it is not YAML")?;
        // A list would be taken for the fields in their order.
        let document = Some(value).filter(Value::is_object).and_then(|value| serde_json::from_value(value).ok());
        let document: Document = document.ok_or("it is not a kubeconfig")?;
        let wanted = &document.current_context;
        let context = document.contexts.into_iter().find(|entry| entry.name == *wanted);
        let context = context.ok_or_else(|| format!("there is no context {wanted:?}"))?.context;
        let cluster = document.clusters.into_iter().find(|entry| entry.name == context.cluster);
        let cluster = cluster.ok_or_else(|| format!("there is no cluster {:?}", context.cluster))?.cluster;
        let user = document.users.into_iter().find(|entry| entry.name == context.user);
        let user = user.ok_or_else(|| format!("there is no user {:?}", context.user))?.user;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let piece = |what, data, file| piece(what, data, file, folder);
        let ca = piece("CA", cluster.certificate_authority_data, cluster.certificate_authority)?;
        let certificate = piece("client certificate", user.client_certificate_data, user.client_certificate)?;
        let key = piece("client key", user.client_key_data, user.client_key)?;
        let token = user.token.filter(|token| !token.is_empty()).map(|token| Piece::Data(token.into_bytes()));
        Ok(Kubeconfig {
            server: cluster.server,
            ca: ca.ok_or("the cluster has no certificate-authority")?,
            certificate: certificate.zip(key),
            token: token.or(user.token_file.map(|file| Piece::File(folder.join(file)))),
        })
    }

    /// The files it names: when one changes, the client is made anew.
    pub fn files(&self) -> Vec<PathBuf> {
        let (certificate, key) = self.certificate.as_ref().map(|(c, k)| (c, k)).unzip();
        let pieces = [Some(&self.ca), certificate, key, self.token.as_ref()];
        let file = |piece: &Piece| if let Piece::File(path) = piece { Some(path.clone()) } else { None };
        pieces.into_iter().flatten().filter_map(file).collect()
    }
}

fn piece(what: &str, data: Option<String>, file: Option<String>, folder: &Path) -> Result<Option<Piece>, String> {
    if let Some(text) = data.filter(|text| !text.is_empty()) {
        let bytes = BASE64_STANDARD.decode(text.trim()).map_err(|_| format!("the {what} is not base64"))?;
        return Ok(Some(Piece::Data(bytes)));
    }
    // Relative paths count from the kubeconfig's folder; joining an absolute one gives that.
    Ok(file.filter(|file| !file.is_empty()).map(|file| Piece::File(folder.join(file))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBELET: &str = r#"
apiVersion: v1
kind: Config
clusters:
- name: default-cluster
  cluster: { server: "https://api:6443", certificate-authority-data: Q0E= }
contexts:
- name: default-context
  context: { cluster: default-cluster, namespace: default, user: default-auth }
current-context: default-context
preferences: {}
users:
- name: default-auth
  user:
    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem
    client-key: pki/key.pem
"#;

    #[test]
    fn what_the_kubelet_uses_is_read() {
        let parsed = Kubeconfig::parse(KUBELET, Path::new("/etc/kubernetes/kubelet.conf"));
        let config = parsed.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.server, "https://api:6443");
        assert!(config.ca == Piece::Data(b"CA".to_vec()));
        let files = ["/var/lib/kubelet/pki/kubelet-client-current.pem", "/etc/kubernetes/pki/key.pem"];
        assert_eq!(config.files(), files.map(PathBuf::from));
    }

    #[test]
    fn errors_name_what_is_missing_and_quote_nothing() {
        let path = Path::new("/k");
        let error = |text: &str| Kubeconfig::parse(text, path).err().expect("an error");
        assert_eq!(error("- hunter2"), "it is not a kubeconfig");
        assert_eq!(error("{}"), "there is no context \"\"");
        assert!(error(&KUBELET.replace("Q0E=", "hunter2!")).ends_with("CA is not base64"));
        assert!(error(&KUBELET.replace(", certificate-authority-data: Q0E=", "")).contains("no certificate-authority"));
    }
}
