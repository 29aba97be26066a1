//! Making a bundle of verified files.

use super::index::{INDEX, Image, Index, Listed, SCHEMA, check_image_name};
use crate::catalog::Arch;
use crate::download::{Fetched, broken, digest, hex};
use crate::source::key;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// An image archive that belongs into a bundle.
#[derive(Debug, Clone)]
pub struct ImageArchive {
    /// The names of the images in it.
    pub references: Vec<String>,
    /// Where it is now; its file name becomes the one below `images/`.
    pub path: PathBuf,
}

/// Writes a bundle to `to`: one file when its name ends in `.tar`, else a folder, which may hold an earlier bundle.
/// A `.tar` replaces the one before in one go; in a folder the index comes last. The same input gives the same bytes.
///
/// Returns the SHA-256 of the index, which [`super::Bundle::open`] can be given on the other side.
pub fn write(to: &Path, arch: Arch, fetched: &[Fetched], images: &[ImageArchive]) -> Outcome<String> {
    let attempted = format!("write the bundle {}", to.display());
    let (index, members) = describe(arch, fetched, images)?;
    let text = serde_json::to_vec_pretty(&index);
    let text = text.map_err(|error| Failure::new(Cause::Internal, &attempted, error.to_string()))?;
    let written = if to.extension().is_some_and(|extension| extension == "tar") {
        refuse_foreign(to, &attempted)?;
        write_tar(to, &text, &members)
    } else {
        write_folder(to, &text, &members)
    };
    written.map_err(|error| broken(attempted, &error))?;
    Ok(hex(&Sha256::digest(&text)))
}

/// A member's name and the file with its content.
type Member = (String, PathBuf);

/// The index, and what belongs beside it. The files are hashed once more: what is listed is what is there now.
fn describe(arch: Arch, fetched: &[Fetched], images: &[ImageArchive]) -> Outcome<(Index, Vec<Member>)> {
    let (mut files, mut archives, mut members) = (Vec::new(), Vec::new(), Vec::new());
    for Fetched { artifact, path } in fetched {
        let read = digest(path).map_err(|error| broken(format!("read {}", path.display()), &error));
        let (sha256, bytes) = read?;
        if sha256 != artifact.sha256 {
            return Err(crate::download::mismatch(artifact, &sha256, bytes));
        }
        let (component, version, file) = (artifact.component, artifact.version.clone(), artifact.file.clone());
        members.push((key(artifact), path.clone()));
        files.push(Listed { component, version, file, sha256, bytes });
    }
    for ImageArchive { references, path } in images {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if archives.iter().any(|other: &Image| other.file == file) {
            let why = format!("another archive is called {file} too");
            let failure = Failure::new(Cause::Usage, format!("put {} into a bundle", path.display()), why);
            return Err(failure.advise("rename one of them"));
        }
        check_image_name(&file)
            .map_err(|why| Failure::new(Cause::Configuration, format!("put {} into a bundle", path.display()), why))?;
        let read = digest(path).map_err(|error| broken(format!("read {}", path.display()), &error));
        let (sha256, bytes) = read?;
        members.push((format!("images/{file}"), path.clone()));
        archives.push(Image { references: references.clone(), file, sha256, bytes });
    }
    let kubestrap = env!("CARGO_PKG_VERSION").to_owned();
    Ok((Index { schema: SCHEMA, kubestrap, arch, files, images: archives }, members))
}

/// A file of a person that happens to have this name is not replaced.
fn refuse_foreign(to: &Path, attempted: &str) -> Outcome<()> {
    if std::fs::symlink_metadata(to).is_err() || super::Bundle::open(to, None).is_ok() {
        return Ok(());
    }
    let why = "something else is there: it is no bundle, or a damaged one";
    Err(Failure::new(Cause::Usage, attempted, why).advise("name another file, or remove it"))
}

fn header(length: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(length);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn write_tar(to: &Path, index: &[u8], members: &[Member]) -> std::io::Result<()> {
    let part = to.with_extension("tar.part");
    let result = (|| {
        let mut tar = tar::Builder::new(File::create(&part)?);
        tar.append_data(&mut header(index.len() as u64), INDEX, index)?;
        for (name, path) in members {
            let file = File::open(path)?;
            tar.append_data(&mut header(file.metadata()?.len()), name, file)?;
        }
        tar.into_inner()?.sync_all()?;
        std::fs::rename(&part, to)
    })();
    if result.is_err() {
        // What is left of it is of no use.
        let _ = std::fs::remove_file(&part);
    }
    result
}

fn write_folder(to: &Path, index: &[u8], members: &[Member]) -> std::io::Result<()> {
    for (name, path) in members {
        let place = to.join(name);
        let same = || Ok::<_, std::io::Error>(digest(&place)? == digest(path)?);
        if !same().unwrap_or(false) {
            replace(&place, &mut File::open(path)?)?;
        }
    }
    replace(&to.join(INDEX), &mut &index[..])
}

fn replace(place: &Path, content: &mut dyn std::io::Read) -> std::io::Result<()> {
    let folder = place.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let part = folder.join(format!("{}.part", place.file_name().unwrap_or_default().to_string_lossy()));
    let result = (|| {
        let mut file = File::create(&part)?;
        std::io::copy(content, &mut file)?;
        file.flush()?;
        file.sync_all()?;
        std::fs::rename(&part, place)
    })();
    if result.is_err() {
        // What is left of it is of no use.
        let _ = std::fs::remove_file(&part);
    }
    result
}
