//! `bake-manifest`: what is on the machine now, for drift and for whoever asks later.

use super::{CACHE, Item, Job, Step, Text, containerd, images, imports, kernel, programs, units};
use crate::baked::{Baked, BakedFile, MANIFEST};
use crate::host::Seen;
use async_trait::async_trait;
use kubestrap_core::drift::manifest::Manifest;
use kubestrap_core::model::cause::Outcome;

/// Writes the bake manifest, last of all.
pub struct Written;

#[async_trait(?Send)]
impl Step for Written {
    fn name(&self) -> &'static str {
        "bake-manifest"
    }

    fn describe(&self) -> &'static str {
        "what was installed, with digests and origins, for `kubestrap drift`"
    }

    async fn check(&self, job: &Job<'_>) -> Outcome<Vec<Item>> {
        let now = baked(job).await?;
        let ledger = job.ledger.borrow();
        Ok(vec![match ledger.baked() {
            None => Item::wanted(MANIFEST, "it is not there"),
            Some(before) if !before.says_the_same(&now) => Item::wanted(MANIFEST, "it does not say what is there now"),
            Some(_) if ledger.is_begun() => Item::wanted(MANIFEST, "an installation was interrupted"),
            Some(_) if job.host.exists(CACHE)? => {
                Item::wanted(MANIFEST, format!("it is right; {CACHE} is still there"))
            }
            Some(_) => Item::done(MANIFEST, "says what is there"),
        }])
    }

    async fn apply(&self, job: &Job<'_>) -> Outcome<()> {
        let mut now = baked(job).await?;
        let is_new = !job.ledger.borrow().baked().is_some_and(|before| before.says_the_same(&now));
        if is_new {
            let text = now.render()?;
            // What drift could not read would be found on every node.
            Manifest::parse(text.as_bytes())?;
            job.host.write(MANIFEST, &text, 0o644)?;
        } else if let Some(before) = job.ledger.borrow().baked() {
            now = before.clone();
        }
        job.ledger.borrow_mut().settle(&job.host, now)?;
        job.host.remove_folder(CACHE)
    }
}

/// The manifest of what is there now. Entries of somebody else stay.
async fn baked(job: &Job<'_>) -> Outcome<Baked> {
    let (components, kept) = programs::baked(job)?;
    let mut texts = [containerd::texts(job), units::texts(job)].concat();
    texts.extend([kernel::modules_text(job), kernel::sysctls_text(job)]);
    let before = job.ledger.borrow().baked().cloned().unwrap_or_default();
    let mut baked = Baked {
        schema: 1,
        kubestrap: job.by.0.clone(),
        baked_at: job.by.1.clone(),
        arch: job.arch.label().to_owned(),
        components,
        files: texts.iter().map(|text| file(job, text)).collect::<Outcome<Vec<_>>>()?.into_iter().flatten().collect(),
        images: images::present(job).await?,
        imported: imports::present(job, &before.imported).await?,
        kept,
        more: before.more,
    };
    let taken: Vec<String> = baked
        .components
        .iter()
        .map(|one| one.path.clone())
        .chain(baked.files.iter().map(|one| one.path.clone()))
        .collect();
    baked
        .components
        .extend(before.components.into_iter().filter(|one| one.placed.is_none() && !taken.contains(&one.path)));
    baked.files.extend(before.files.into_iter().filter(|one| one.placed.is_none() && !taken.contains(&one.path)));
    Ok(baked)
}

/// A file that has our text; somebody else's is not the image's.
fn file(job: &Job<'_>, text: &Text) -> Outcome<Option<BakedFile>> {
    let Seen::File { sha256, mode } = job.host.look(&text.path)? else { return Ok(None) };
    Ok((sha256 == text.sha256()).then(|| BakedFile {
        path: text.path.clone(),
        sha256,
        mode: Some(format!("{mode:04o}")),
        placed: Some(true),
        more: Default::default(),
    }))
}
