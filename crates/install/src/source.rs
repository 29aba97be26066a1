//! Where released files are taken from. None of these places is believed: what a file must contain is known before.

use crate::bundle::Bundle;
use crate::catalog::Artifact;
use crate::download::{Body, Http, Trouble, get, shown};
use async_trait::async_trait;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use url::Url;

/// A place with released files.
pub enum Source<'a> {
    /// Each project's own.
    Upstream,
    /// A server with the upstream files below `<base>/<host>/<path>`, for example
    /// `<base>/dl.k8s.io/release/v1.36.4/bin/linux/amd64/kubeadm`: the layout of kubespray's `files_repo`.
    Mirror(Url),
    /// What `install --download-only` made.
    Bundle(&'a Bundle),
    /// Objects of the node's store below `install/`, with the layout of a bundle's folder: one that was copied there.
    Store(&'a dyn StoreFiles),
}

/// Reading of large objects from the node's store.
#[async_trait(?Send)]
pub trait StoreFiles {
    /// Opens the object with this key below `install/`; `None` when there is none.
    async fn open(&self, key: &str) -> Outcome<Option<Opened>>;
    /// The store and its prefix, for messages: `s3://acme/k8s/install/`.
    fn place(&self) -> String;
}

/// A file that is about to be read.
pub struct Opened {
    /// Its length in bytes, when it is known.
    pub length: Option<u64>,
    /// Its content.
    pub body: Box<dyn Body>,
}

/// The key of a file in bundles and in the store.
pub fn key(artifact: &Artifact) -> String {
    let Artifact { component, version, arch, file, .. } = artifact;
    format!("files/{component}/{version}/{arch}/{file}")
}

/// The base URL of a mirror: http or https, with a host and without a query.
pub fn mirror(text: &str) -> Outcome<Url> {
    let wrong = |why: &str| {
        let shown = Url::parse(text).map_or_else(|_| "the mirror".to_owned(), |url| shown(&url));
        Failure::new(Cause::Configuration, format!("use {shown}"), why).advise("correct `install.mirror`")
    };
    let mut url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("a mirror is an http or https URL"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("paths are added to it: it may have no query and no fragment"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("credentials do not belong into a URL that logs and lists of processes show"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

impl Source<'_> {
    /// Refuses before anything is fetched what can be known then: a bundle for other versions or machines.
    pub(crate) fn check(&self, artifacts: &[Artifact]) -> Outcome<()> {
        match self {
            Source::Bundle(bundle) => bundle.check(artifacts),
            _ => Ok(()),
        }
    }

    /// Where the file is, for messages and for the bake manifest.
    pub fn place(&self, artifact: &Artifact) -> String {
        match self {
            Source::Upstream => artifact.url.clone(),
            Source::Mirror(base) => mirrored(base, artifact).map_or_else(|_| shown(base), |url| shown(&url)),
            Source::Bundle(bundle) => format!("{}: {}", bundle.path().display(), key(artifact)),
            Source::Store(store) => format!("{}{}", store.place(), key(artifact)),
        }
    }

    pub(crate) async fn open(&self, artifact: &Artifact, http: &dyn Http) -> Result<Opened, Trouble> {
        let url = match self {
            Source::Upstream => upstream(artifact)?,
            Source::Mirror(base) => mirrored(base, artifact)?,
            Source::Bundle(bundle) => return bundle.open_file(artifact).map_err(Trouble::Final),
            Source::Store(store) => {
                let found = store.open(&key(artifact)).await?;
                return found.ok_or_else(|| Trouble::Final(absent(&self.place(artifact))));
            }
        };
        let answer = get(http, &url).await?;
        Ok(Opened { length: answer.length, body: answer.body })
    }
}

fn absent(place: &str) -> Failure {
    Failure::new(Cause::DownloadMissing, format!("read {place}"), "there is no such object")
        .advise("copy the folder that `kubestrap install --download-only` makes below install/ of the store")
}

fn upstream(artifact: &Artifact) -> Outcome<Url> {
    Url::parse(&artifact.url)
        .map_err(|error| Failure::new(Cause::Internal, format!("use {}", artifact.url), error.to_string()))
}

fn mirrored(base: &Url, artifact: &Artifact) -> Outcome<Url> {
    let upstream = upstream(artifact)?;
    let path = format!("{}{}", upstream.host_str().unwrap_or_default(), upstream.path());
    base.join(&path)
        .map_err(|error| Failure::new(Cause::Internal, format!("use the mirror {}", shown(base)), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Arch, Component};
    use crate::lock::ChecksumFrom;

    fn kubeadm() -> Artifact {
        Artifact::new(Component::Kubeadm, "1.36.4", Arch::Amd64, "0".repeat(64), ChecksumFrom::Lock)
    }

    #[test]
    fn a_mirror_has_the_hosts_as_folders() {
        for base in ["http://mirror.example/files", "http://mirror.example/files/"] {
            let source = Source::Mirror(mirror(base).expect("mirror"));
            let place = "http://mirror.example/files/dl.k8s.io/release/v1.36.4/bin/linux/amd64/kubeadm";
            assert_eq!(source.place(&kubeadm()), place);
        }
        assert_eq!(key(&kubeadm()), "files/kubeadm/1.36.4/amd64/kubeadm");
    }

    #[test]
    fn a_mirror_that_is_none_is_refused() {
        for bad in
            ["", "mirror.example", "file:///srv", "ftp://a/b", "https://a/b?c=d", "https://a/b#c", "https://u:pw@a/b"]
        {
            let why = mirror(bad).expect_err(bad);
            assert_eq!(why.cause, Cause::Configuration);
            assert!(!why.to_string().contains("pw"), "{why}");
        }
    }
}
