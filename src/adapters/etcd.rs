//! etcd's v3 API over its JSON gateway, with a client certificate. Only the CA that core names is trusted, and the server
//! must have a certificate for the address that was asked.

#[cfg(test)]
mod tests;

use super::cluster::{Http, MAX_FILE, Stamp, ask, http, stamp, verified};
use crate::adapters::files::Disk;
use crate::adapters::net::{self, Names};
use ::http::Request;
use ::http::header::{CONTENT_TYPE, USER_AGENT};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{ApiAnswer, Etcd, EtcdAccess, Files};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The credentials of a master, and those of a machine that joins.
const CLIENTS: usize = 2;

/// The files that a client is made of: CA, certificate, key.
type Made = [PathBuf; 3];

/// A client, and the stamps of the files it was made from.
type Stamped = ([Stamp; 3], Rc<Http>);

/// etcd's JSON gateway.
pub struct Gateway {
    names: Names,
    root: PathBuf,
    files: Disk,
    clients: RefCell<BTreeMap<Made, Stamped>>,
}

impl Gateway {
    /// etcd as the files below `root` let us reach it.
    pub fn new(names: Names, root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Gateway { names, files: Disk::new(root.clone()), root, clients: RefCell::default() }
    }

    /// The client for these credentials; made anew when one of the files changed.
    fn client(&self, access: &EtcdAccess) -> Outcome<Rc<Http>> {
        let made: Made = [access.ca.clone(), access.certificate.clone(), access.key.clone()];
        let stamps = [&access.ca, &access.certificate, &access.key].map(|path| stamp(&self.root, path));
        if let Some((known, client)) = self.clients.borrow().get(&made)
            && *known == stamps
        {
            return Ok(client.clone());
        }
        let ca = self.read(&access.ca)?;
        let identity = (self.read(&access.certificate)?, self.read(&access.key)?);
        let tls = verified(&ca, Some(&identity)).map_err(|why| {
            let why = why.strip_prefix("its ").unwrap_or(&why).to_owned();
            Failure::new(Cause::EtcdUnavailable, credentials(&access.certificate), why)
        })?;
        let client = Rc::new(http(&self.names, tls));
        let mut clients = self.clients.borrow_mut();
        if clients.len() >= CLIENTS {
            clients.clear();
        }
        clients.insert(made, (stamps, client.clone()));
        Ok(client)
    }

    fn read(&self, path: &Path) -> Outcome<Vec<u8>> {
        let missing = || {
            Failure::new(Cause::EtcdUnavailable, credentials(path), "there is no such file")
                .advise("kubeadm makes it on every master; run this on one")
        };
        self.files.read(path, MAX_FILE)?.ok_or_else(missing)
    }
}

fn credentials(path: &Path) -> String {
    format!("use the credentials for etcd in {}", path.display())
}

#[async_trait(?Send)]
impl Etcd for Gateway {
    async fn call(&self, access: &EtcdAccess, path: &'static str, body: Vec<u8>) -> Outcome<ApiAnswer> {
        let client = self.client(access)?;
        let url = format!("{}{path}", access.endpoint);
        let attempted = format!("ask etcd at {url}");
        let request = Request::builder().method("POST").uri(&url).header(USER_AGENT, "kubestrap");
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| Failure::new(Cause::Internal, &attempted, error.to_string()))?;
        ask(&client, request).await.map_err(|error| unanswered(&attempted, &*error))
    }
}

/// Translates an error of hyper: a certificate that is not trusted has a cause of its own, all else means that this member
/// is not there, or not for us.
fn unanswered(attempted: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    let answer = net::explain(error);
    let cause = if answer.cause == Some(Cause::Tls) { Cause::Tls } else { Cause::EtcdUnavailable };
    let failure = Failure::new(cause, attempted, answer.detail);
    if cause == Cause::Tls {
        failure.advise("etcd's certificates must be signed by its CA and name the address")
    } else {
        failure
    }
}
