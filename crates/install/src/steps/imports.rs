//! Images out of a bundle, for machines that reach no registry.

use super::images::{ASK, NAMESPACE, PULL, SOCKET, list, row_of};
use super::{CACHE, Item, Job, State, containerd};
use crate::baked::ImportedImage;
use crate::host::Host;
use crate::image_archive::{Archived, Contained, Leads, leads};
use kubestrap_core::image::containerd::PINNED;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::collections::BTreeSet;

/// From an index to its manifest to the configuration.
const STEPS: u32 = 4;

/// Below a folder no containerd runs, and nothing would import the archives later: they are not left there in the hope of it.
pub fn refuse_without_runtime(host: &Host, images: &[Archived]) -> Outcome<()> {
    if host.is_live() || images.is_empty() {
        return Ok(());
    }
    let why = "it has image archives, which containerd imports while it runs, and in an image none runs";
    let failure = Failure::new(Cause::Usage, format!("install a bundle below {}", host.root().display()), why);
    Err(failure.advise("use a bundle without --image-archive, or install on the booted machine, as packer/ does"))
}

/// What is there of the bundle's images. `listed` is the table of `ctr images list`; `None` while containerd does not run.
pub(super) async fn check(job: &Job<'_>, listed: Option<&str>) -> Outcome<Vec<Item>> {
    refuse_without_runtime(&job.host, &job.images)?;
    let (mut items, mut seen) = (Vec::new(), BTreeSet::new());
    for (archived, image) in each(job) {
        if seen.insert(&image.name) {
            items.push(judge(job, listed, archived, image).await?);
        }
    }
    Ok(items)
}

fn each<'a>(job: &'a Job<'_>) -> impl Iterator<Item = (&'a Archived, &'a Contained)> {
    job.images.iter().flat_map(|archived| archived.images.iter().map(move |image| (archived, image)))
}

async fn judge(job: &Job<'_>, listed: Option<&str>, archived: &Archived, image: &Contained) -> Outcome<Item> {
    let wanted = |why: &str| Ok(Item::wanted(&image.name, format!("{why}; images/{} has it", archived.file)));
    let Some(listed) = listed else { return wanted("containerd does not run yet") };
    let Some(row) = row_of(listed, &image.name) else { return wanted("it is not there") };
    match id_of(job, row.digest).await? {
        Some(id) if id == image.id && image.name == containerd::sandbox(job) && !row.is_pinned => {
            Ok(Item::wanted(&image.name, "the kubelet's garbage collection may take it, for it is not pinned"))
        }
        Some(id) if id == image.id => Ok(Item::done(&image.name, format!("is {id}"))),
        Some(_) => wanted("another image has its name"),
        None => wanted("it is there in part"),
    }
}

/// The ID of the image with this digest, by containerd's own store; `None` when something is missing there.
async fn id_of(job: &Job<'_>, digest: &str) -> Outcome<Option<String>> {
    let mut digest = digest.to_owned();
    for _ in 0..STEPS {
        let said = job.host.run(&["ctr", "--namespace", NAMESPACE, "content", "get", &digest], ASK).await?;
        digest = match leads(&said.stdout, job.arch).filter(|_| said.is_well()) {
            Some(Leads::Image(id)) => return Ok(Some(id)),
            Some(Leads::Manifest(Some(next))) => next,
            _ => return Ok(None),
        };
    }
    Ok(None)
}

/// Imports what is not there, and pins the sandbox image. All archives are verified before the first is imported.
pub(super) async fn apply(job: &Job<'_>) -> Outcome<()> {
    if job.images.is_empty() {
        return Ok(());
    }
    if !job.host.exists(SOCKET)? {
        let why = format!("containerd does not run: there is no {SOCKET}");
        let failure = Failure::new(Cause::ToolFailed, "import the images of the bundle", why);
        return Err(failure.advise("start it, and run `kubestrap install` again: it goes on there"));
    }
    let listed = list(job).await?;
    let mut files = BTreeSet::new();
    for (archived, image) in each(job) {
        let is_there = match row_of(&listed, &image.name) {
            Some(row) => id_of(job, row.digest).await?.as_deref() == Some(&image.id),
            None => false,
        };
        if !is_there {
            files.insert(archived.file.as_str());
        }
    }
    let place = format!("{CACHE}/images");
    let folder = job.host.make_private_folder(CACHE).and_then(|_| job.host.make_private_folder(&place))?;
    let files: Vec<&str> = files.into_iter().collect();
    for path in job.supply.stage_archives(&files, &folder)? {
        let path = path.display().to_string();
        let import = ["ctr", "--namespace", NAMESPACE, "images", "import", &path];
        job.host.run(&import, PULL).await?.well(&format!("import the image archive {path}"))?;
    }
    job.host.remove_folder(&place)?;
    pin(job).await
}

/// An import takes the label away that an image had.
async fn pin(job: &Job<'_>) -> Outcome<()> {
    let sandbox = containerd::sandbox(job);
    let listed = list(job).await?;
    if !each(job).any(|(_, image)| image.name == sandbox) || row_of(&listed, &sandbox).is_none_or(|row| row.is_pinned) {
        return Ok(());
    }
    let label = ["ctr", "--namespace", NAMESPACE, "images", "label", &sandbox, PINNED];
    job.host.run(&label, ASK).await?.well(&format!("pin the image {sandbox}")).map(drop)
}

/// The images of this bundle, and those of earlier ones that are still there, for the bake manifest.
pub(super) async fn present(job: &Job<'_>, before: &[ImportedImage]) -> Outcome<Vec<ImportedImage>> {
    let mut known: Vec<ImportedImage> = Vec::new();
    let now = each(job).map(|(archived, image)| ImportedImage {
        name: image.name.clone(),
        id: image.id.clone(),
        digest: image.digest.clone(),
        archive: archived.file.clone(),
        archive_sha256: archived.sha256.clone(),
    });
    for image in now.chain(before.iter().cloned()) {
        if !known.iter().any(|other| other.name == image.name) {
            known.push(image);
        }
    }
    if known.is_empty() || !job.host.is_live() || !job.host.exists(SOCKET)? {
        return Ok(before.to_vec());
    }
    let (listed, mut there) = (list(job).await?, Vec::new());
    for image in known {
        if let Some(row) = row_of(&listed, &image.name)
            && id_of(job, row.digest).await?.as_deref() == Some(&image.id)
        {
            there.push(image);
        }
    }
    there.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(there)
}

/// Whether anything of this is to be done.
pub(super) fn is_wanted(job: &Job<'_>, items: &[Item]) -> bool {
    items.iter().any(|item| item.state == State::Wanted && each(job).any(|(_, image)| image.name == item.what))
}
