//! From configuration and command line to an installation: versions, checksums, sources.

use crate::adapters::download::Downloads;
use crate::adapters::net::Names;
use crate::adapters::{self, Opts};
use crate::cli::{Global, compose};
use clap::Args;
use jiff::Timestamp;
use kubestrap_core::config::settings::{InstallSettings, InstallSource, Settings};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_install::baked::Ledger;
use kubestrap_install::bundle::Bundle;
use kubestrap_install::catalog::{Arch, Artifact, Component, Versions, Wanted, artifacts};
use kubestrap_install::host::Host;
use kubestrap_install::image_archive::{self, Archived};
use kubestrap_install::lock::{Checksums, trust_releases};
use kubestrap_install::progress::{self, Progress};
use kubestrap_install::source::{self, Source, StoreFiles};
use kubestrap_install::steps::{self, Job};
use kubestrap_install::supply::Shop;
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

/// What `install` and `plan install` are both asked.
#[derive(Args)]
pub struct Asked {
    /// Where the files are, instead of what the configuration says: the URL of a mirror, a bundle (.tar or folder),
    /// `upstream`, or `store`.
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,
    /// SHA-256 of the bundle's index, as --download-only printed it: its checksums then count for what is not known otherwise.
    #[arg(long, value_name = "HEX")]
    index_sha256: Option<String>,
    /// Overwrite files that kubestrap did not put there; texts are kept as FILE.before-kubestrap, .2, ...
    #[arg(long)]
    replace: bool,
}

/// Everything that is known before the machine is looked at.
pub struct Prepared {
    settings: InstallSettings,
    bundle: Option<Bundle>,
    versions: Versions,
    /// Of the machine, or asked for.
    pub arch: Arch,
    /// The released files of all components.
    pub artifacts: Vec<Artifact>,
    http: Downloads,
    store: Option<Rc<dyn StoreFiles>>,
    progress: Box<dyn Progress>,
    /// The machine, or the root folder. Nothing of it is read before the job is made.
    pub host: Host,
    replace: bool,
}

impl Prepared {
    /// Reads the configuration, and a bundle's index; with `trust_release_checksums` what projects publish.
    pub async fn of(global: &Global, asked: &Asked, arch: Option<&str>) -> Outcome<Prepared> {
        let loaded = compose::installation(global).await?;
        let mut settings = loaded.install;
        if let Some(from) = &asked.from {
            settings.source = source_of(from)?;
        }
        settings.index_sha256 = asked.index_sha256.clone().or(settings.index_sha256);
        let arch = arch.map_or_else(Arch::of_this_program, Arch::parse)?;
        let bundle = match &settings.source {
            Some(InstallSource::Bundle(path)) => Some(Bundle::open(path, settings.index_sha256.as_deref())?),
            _ => None,
        };
        let mut wanted = wanted(&settings);
        let mut checksums = checksums(&settings)?;
        if let Some(bundle) = &bundle {
            bundle.fill(&mut wanted);
            bundle.add_checksums(&mut checksums)?;
        }
        let versions = Versions::resolve(&wanted)?;
        let http = Downloads::new(&Names::default());
        if settings.trust_release_checksums {
            trust_releases(&versions, arch, &mut checksums, &http).await?;
        }
        let store = store_of(global, &settings, loaded.node)?;
        Ok(Prepared {
            artifacts: artifacts(&versions, arch, &checksums)?,
            host: Host::new(&global.root),
            progress: progress::on_stderr(),
            replace: asked.replace,
            settings,
            store,
            bundle,
            versions,
            arch,
            http,
        })
    }

    /// Where the files come from.
    pub fn shop(&self) -> Outcome<Shop<'_>> {
        let source = match (&self.settings.source, &self.bundle, &self.store) {
            (Some(InstallSource::Mirror(base)), ..) => Source::Mirror(source::mirror(base)?),
            (_, Some(bundle), _) => Source::Bundle(bundle),
            (_, _, Some(store)) => Source::Store(&**store),
            _ => Source::Upstream,
        };
        Ok(Shop { source, http: &self.http, progress: &*self.progress })
    }

    /// The image archives of the bundle: looked at before anything is changed.
    pub fn images(&self) -> Outcome<Vec<Archived>> {
        let Some(bundle) = &self.bundle else { return Ok(Vec::new()) };
        let images = bundle.archives()?;
        image_archive::agree(&images, &self.settings.images)?;
        steps::refuse_without_runtime(&self.host, &images)?;
        Ok(images)
    }

    /// The installation on this machine, or into the root folder, by what is there now.
    pub async fn job<'a>(&self, shop: &'a Shop<'a>, images: Vec<Archived>) -> Outcome<Job<'a>> {
        let runtime = steps::runtime(&self.host, &self.settings).await?;
        let components = steps::components(&self.host, &runtime)?;
        let artifacts = self.artifacts.iter().filter(|artifact| components.contains(&artifact.component));
        Ok(Job {
            host: self.host.clone(),
            settings: self.settings.clone(),
            versions: self.versions.clone(),
            arch: self.arch,
            images,
            artifacts: artifacts.cloned().collect(),
            runtime,
            replace: self.replace,
            ledger: RefCell::new(Ledger::read(&self.host)?),
            supply: shop,
            by: (env!("CARGO_PKG_VERSION").to_owned(), Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        })
    }
}

/// The node's store, when the files come from there.
fn store_of(
    global: &Global,
    settings: &InstallSettings,
    node: Option<Settings>,
) -> Outcome<Option<Rc<dyn StoreFiles>>> {
    if settings.source != Some(InstallSource::Store) {
        return Ok(None);
    }
    let Some(node) = node else {
        let why = "the configuration does not say which store: `cluster`, `role` and `store` are needed for that";
        return Err(Failure::new(Cause::Configuration, "install from the store", why));
    };
    Ok(Some(adapters::store_files(&node, &Opts::new(&global.root))))
}

/// `--from`.
fn source_of(text: &str) -> Outcome<Option<InstallSource>> {
    Ok(match text {
        "upstream" => None,
        "store" => Some(InstallSource::Store),
        _ if text.contains("://") => {
            source::mirror(text).map_err(|failure| failure.advise("correct --from"))?;
            Some(InstallSource::Mirror(text.to_owned()))
        }
        _ => Some(InstallSource::Bundle(PathBuf::from(text))),
    })
}

fn wanted(settings: &InstallSettings) -> Wanted {
    let versions = settings.versions.clone();
    Wanted {
        kubernetes: versions.kubernetes,
        containerd: versions.containerd,
        runc: versions.runc,
        cni_plugins: versions.cni_plugins,
        crictl: versions.crictl,
        ..Wanted::default()
    }
}

fn checksums(settings: &InstallSettings) -> Outcome<Checksums> {
    let mut checksums = Checksums::new();
    for (label, versions) in &settings.checksums {
        let Some(component) = Component::by_label(label) else { continue };
        for (version, arches) in versions {
            for (arch, sha256) in arches {
                checksums.configure(component, version, Arch::parse(arch)?, sha256)?;
            }
        }
    }
    Ok(checksums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_word_a_url_or_a_path() {
        assert_eq!(source_of("upstream"), Ok(None));
        assert_eq!(source_of("store"), Ok(Some(InstallSource::Store)));
        let mirror = "https://mirror.example.com/k8s";
        assert_eq!(source_of(mirror), Ok(Some(InstallSource::Mirror(mirror.into()))));
        assert_eq!(source_of("bundle.tar"), Ok(Some(InstallSource::Bundle("bundle.tar".into()))));
        assert!(source_of("ftp://mirror.example.com").is_err());
    }
}
