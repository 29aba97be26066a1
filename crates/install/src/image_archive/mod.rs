//! Archives of container images, as `ctr images export`, `docker save` and Kubernetes' releases make them: what is in one,
//! without unpacking it.
//!
//! An image is known by its name and its ID, the SHA-256 of its configuration, which pins every layer: both forms have it, and
//! containerd can be asked for it. (The digest of a registry is not in what `docker save` made of it.)

mod contents;
mod members;
#[cfg(test)]
pub(crate) mod tests;

pub use contents::Contained;
pub(crate) use contents::{Leads, leads};
pub(crate) use members::Slice;

use crate::bundle::ImageArchive;
use crate::catalog::Arch;
use crate::download::broken;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// What an archive may have.
#[derive(Debug, Clone, Copy)]
struct Limits {
    members: usize,
    /// Of an extended header, in bytes: it is read into memory.
    extension: u64,
    /// Of a JSON document, in bytes: it is read into memory.
    document: u64,
    images: usize,
}

/// An archive of everything that a cluster runs has some hundred images of some dozen layers.
const LIMITS: Limits = Limits { members: 100_000, extension: 64 * 1024, document: 4 * 1024 * 1024, images: 2000 };

/// An archive of a bundle, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// Its name below `images/`.
    pub file: String,
    /// SHA-256 of the archive, 64 lower-case hex digits.
    pub sha256: String,
    /// The images in it.
    pub images: Vec<Contained>,
}

/// The images of an archive. Refused are: one that is truncated, has a name or a link that leads out of it, a device, two
/// members of one name, an image without a name, without one of its layers, whose JSON has another digest than its name says, or that
/// is for another architecture. Layers are not read: whoever has the SHA-256 of the archive compares that.
pub(crate) fn read(place: &str, file: Slice, arch: Arch) -> Outcome<Vec<Contained>> {
    read_within(LIMITS, file, arch).map_err(|why| {
        let failure = Failure::new(Cause::DownloadRejected, format!("read the image archive {place}"), why);
        failure.advise(format!(
            "make it again, for {arch}: `ctr images export --platform linux/{arch} FILE.tar NAME` or `docker save`"
        ))
    })
}

fn read_within(limits: Limits, file: Slice, arch: Arch) -> Result<Vec<Contained>, String> {
    contents::read(limits, members::Members::scan(limits, file)?, arch)
}

/// An archive of a person, for a bundle.
pub fn of_file(path: &Path, arch: Arch) -> Outcome<ImageArchive> {
    let shown = path.display().to_string();
    let failed = |error: std::io::Error| broken(format!("read the image archive {shown}"), &error);
    let file = File::open(path).map_err(failed)?;
    let data = file.metadata().map_err(failed)?;
    if !data.is_file() {
        let why = "it is not a regular file";
        return Err(Failure::new(Cause::Usage, format!("read the image archive {shown}"), why));
    }
    let images = read(&shown, Slice::new(file, 0, data.len()), arch)?;
    Ok(ImageArchive { references: images.into_iter().map(|image| image.name).collect(), path: path.to_owned() })
}

/// Refuses what no run could settle: one name for two images, and an image that `install.images` pins to another digest than the
/// archive has.
pub fn agree(archives: &[Archived], pins: &[String]) -> Outcome<()> {
    let refuse = |file: &str, why: String, advice: &str| {
        let failure = Failure::new(Cause::Configuration, format!("import images/{file} of the bundle"), why);
        Err(failure.advise(advice))
    };
    let mut seen: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for archived in archives {
        for Contained { name, id, digest } in &archived.images {
            let file = archived.file.as_str();
            if let Some((other, before)) = seen.insert(name, (file, id))
                && before != id
            {
                let why = format!("{name} is {id} in it, and {before} in images/{other}");
                return refuse(file, why, "make the bundle with one of them");
            }
            let pinned = pins.iter().filter_map(|pin| pin.split_once('@')).find(|(pinned, _)| pinned == name);
            match (pinned, digest) {
                (Some((_, wanted)), Some(digest)) if wanted != digest => {
                    let why = format!("{name} has the digest {digest} in it, and `install.images` says {wanted}");
                    return refuse(file, why, "correct one of them");
                }
                (Some((_, wanted)), None) => {
                    let why = format!(
                        "`install.images` pins {name} to {wanted}, and an archive of `docker save` does not have that digest"
                    );
                    return refuse(file, why, "export it with `ctr images export`, or remove it from `install.images`");
                }
                _ => {}
            }
        }
    }
    Ok(())
}
