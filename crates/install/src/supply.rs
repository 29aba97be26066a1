//! Where an installation's files come from: fetched into the cache, verified, unpacked beside it.

use crate::catalog::Artifact;
use crate::disk;
use crate::download::{Http, fetch};
use crate::progress::Progress;
use crate::source::Source;
use crate::steps::{Staged, Supply};
use crate::unpack::unpack;
use async_trait::async_trait;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A source, and the way to it.
pub struct Shop<'a> {
    /// Where released files are.
    pub source: Source<'a>,
    /// The way to servers.
    pub http: &'a dyn Http,
    /// Who is told how far it is.
    pub progress: &'a dyn Progress,
}

#[async_trait(?Send)]
impl Supply for Shop<'_> {
    async fn stage(&self, artifacts: &[Artifact], cache: &Path) -> Outcome<Vec<Staged>> {
        let mut staged = Vec::new();
        for fetched in fetch(artifacts, &self.source, cache, self.http, self.progress).await? {
            let component = fetched.artifact.component;
            let into = cache.join("unpacked").join(component.label());
            // What an interrupted run left of it is not whole.
            match disk::remove_folder(&into) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Failure::new(
                        Cause::FileAccess,
                        format!("remove {}", into.display()),
                        error.to_string(),
                    ));
                }
                _ => {}
            }
            staged.extend(unpack(&fetched, &into)?.into_iter().map(|placed| Staged {
                component,
                from: placed.staged,
                to: placed.to.to_string_lossy().into_owned(),
                mode: placed.mode,
                sha256: placed.sha256,
            }));
        }
        Ok(staged)
    }

    fn stage_archives(&self, files: &[&str], folder: &Path) -> Outcome<Vec<PathBuf>> {
        match &self.source {
            Source::Bundle(bundle) => bundle.images(files, folder),
            _ => Ok(Vec::new()),
        }
    }

    fn check(&self, artifacts: &[Artifact]) -> Outcome<()> {
        self.source.check(artifacts)
    }

    fn origin(&self, artifact: &Artifact) -> String {
        self.source.place(artifact)
    }
}
