//! `install`: what a machine or an image needs before it can become a node.

mod prepare;
mod show;

use super::{Form, Global, Output, print, print_json, trust};
use clap::Args;
use kubestrap_core::model::cause::{Cause, ExitCode, Failure, Outcome};
use kubestrap_install::bundle;
use kubestrap_install::download::fetch;
use kubestrap_install::image_archive;
use kubestrap_install::progress;
use kubestrap_install::steps::{self, CACHE};
use prepare::{Asked, Prepared};
use std::path::{Path, PathBuf};

/// Install containerd, runc, the CNI plugins, crictl, kubeadm, kubelet and kubectl, and set the machine up for them.
///
/// For bare machines and for building images. Every file is pinned by its SHA-256. A second run changes nothing, and files that
/// kubestrap did not put there are kept. What was installed is written to /usr/lib/kubestrap/manifest.json.
#[derive(Args)]
#[command(after_help = "Examples:
  kubestrap plan install                             what it would change; changes nothing
  kubestrap install
  kubestrap install --from https://mirror.example.com/k8s
  kubestrap install --download-only bundle.tar       on a machine with a network; prints the SHA-256 of its index
  kubestrap install --download-only bundle.tar --image-archive images/*.tar
  kubestrap install --from bundle.tar --index-sha256 HEX
  kubestrap --root /mnt/image install                into an image; nothing of this machine is changed or started")]
pub struct Install {
    /// Fetch and verify the files, write them to this bundle (a .tar, else a folder), and install nothing.
    #[arg(long, value_name = "PATH")]
    download_only: Option<PathBuf>,
    /// The architecture to download for: amd64 or arm64.
    #[arg(long, value_name = "ARCH", requires = "download_only")]
    arch: Option<String>,
    /// Archives of container images for the bundle (`ctr images export`, `docker save`), which `install` imports from there:
    /// for machines that reach no registry.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "download_only")]
    image_archive: Vec<PathBuf>,
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    output: Output,
}

impl Install {
    /// Carries it out, and prints what was changed.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        if let Some(to) = &self.download_only {
            return download(global, &self.asked, self.arch.as_deref(), &self.image_archive, to).await;
        }
        refuse_without_root(global)?;
        let prepared = Prepared::of(global, &self.asked, None).await?;
        let shop = prepared.shop()?;
        let images = prepared.images()?;
        // Before anything of the machine is read: what another installation did meanwhile would be news to this one.
        let _alone = prepared.host.lock()?;
        let job = prepared.job(&shop, images).await?;
        let human = self.output.output == Form::Human;
        let mut tell = |row: &steps::Row| {
            if human {
                let _ = print(&show::row(row, "changed"));
            }
        };
        let rows = steps::carry_out(&job, &mut tell).await?;
        let content = show::content(&job.host)?;
        match self.output.output {
            Form::Human => print(&show::end(&rows, content.as_deref()))?,
            Form::Json => print_json(&show::json(&rows, content.as_deref()))?,
        }
        Ok(ExitCode::Done)
    }
}

/// `plan install`: what `install` would change, and why. Changes nothing, fetches nothing.
#[derive(Args)]
#[command(after_help = "Examples:
  kubestrap plan install
  kubestrap plan install -o json | jq '.steps[].items[] | select(.state == \"wanted\")'")]
pub struct PlanInstall {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    output: Output,
}

impl PlanInstall {
    /// Prints the plan; exit code 0 whatever it says.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        let prepared = Prepared::of(global, &self.asked, None).await?;
        let shop = prepared.shop()?;
        let job = prepared.job(&shop, prepared.images()?).await?;
        let rows = steps::plan(&job).await;
        match self.output.output {
            Form::Human => {
                let rows: Vec<String> = rows.iter().map(|row| show::row(row, "wanted")).collect();
                print(&rows.concat())?;
            }
            Form::Json => print_json(&show::json(&rows, show::content(&job.host)?.as_deref()))?,
        }
        Ok(ExitCode::Done)
    }
}

/// Below a folder the files belong to whoever runs this; the machine itself needs root.
fn refuse_without_root(global: &Global) -> Outcome<()> {
    let uid = trust::own_uid();
    if uid == 0 || global.root != Path::new("/") {
        return Ok(());
    }
    let why = format!("it changes /usr/local, /etc and the kernel's settings, and runs as user {uid}");
    Err(Failure::new(Cause::FileAccess, "install on this machine", why).advise(
        "run it as root (sudo); `kubestrap plan install` and `kubestrap install --download-only` do without, and --root DIR \
         installs into a folder",
    ))
}

async fn download(
    global: &Global,
    asked: &Asked,
    arch: Option<&str>,
    archives: &[PathBuf],
    to: &Path,
) -> Outcome<ExitCode> {
    let prepared = Prepared::of(global, asked, arch).await?;
    // Before anything is fetched: what is wrong with them, nobody waits for.
    let images =
        archives.iter().map(|path| image_archive::of_file(path, prepared.arch)).collect::<Outcome<Vec<_>>>()?;
    let shop = prepared.shop()?;
    let cache = download_cache(to)?;
    let told = progress::on_stderr();
    let fetched = fetch(&prepared.artifacts, &shop.source, &cache, shop.http, &*told).await?;
    let index = bundle::write(to, prepared.arch, &fetched, &images)?;
    let removed = std::fs::remove_dir_all(&cache);
    removed
        .map_err(|error| Failure::new(Cause::FileAccess, format!("remove {}", cache.display()), error.to_string()))?;
    let with: usize = images.iter().map(|archive| archive.references.len()).sum();
    let with = if with == 0 { String::new() } else { format!(" and {with} images in {} archives", images.len()) };
    print(&format!("{} files{with} are in {}\nindex sha256:{index}\n", fetched.len(), to.display()))?;
    Ok(ExitCode::Done)
}

/// Beside the bundle, where there is room for it: a download that was interrupted goes on there.
fn download_cache(to: &Path) -> Outcome<PathBuf> {
    let name = to.file_name().ok_or_else(|| {
        Failure::new(
            Cause::Usage,
            format!("write the bundle {}", to.display()),
            "it is not the name of a file or folder",
        )
    })?;
    let mut cache = name.to_owned();
    cache.push(format!(".{}", Path::new(CACHE).file_name().unwrap_or_default().display()));
    Ok(to.with_file_name(cache))
}
