//! `images`: what containers are made of is in the machine before it needs it: pulled by digest, or imported out of a
//! bundle.

use super::{Item, Job, State, Step, imports};
use async_trait::async_trait;
use kubestrap_core::image::containerd::PINNED;
use kubestrap_core::model::cause::Outcome;
use std::time::Duration;

/// Asking containerd's data base.
pub(super) const ASK: Duration = Duration::from_secs(60);
/// An image of some GiB over a slow network. What was fetched until then stays.
pub(super) const PULL: Duration = Duration::from_secs(20 * 60);
/// Where the kubelet's images are.
pub(super) const NAMESPACE: &str = "k8s.io";
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";
/// Where containerd's documentation has its hosts.
const CERTS_DIR: &str = "/etc/containerd/certs.d";

/// Imports and pulls images.
pub struct Images;

#[async_trait(?Send)]
impl Step for Images {
    fn name(&self) -> &'static str {
        "images"
    }

    fn describe(&self) -> &'static str {
        "images that are imported out of the bundle, or pulled by digest"
    }

    async fn check(&self, job: &Job<'_>) -> Outcome<Vec<Item>> {
        let wanted: Vec<Pinned> = job.settings.images.iter().filter_map(|text| Pinned::of(text)).collect();
        if wanted.is_empty() && job.images.is_empty() {
            return Ok(vec![Item::done("images", "none are in a bundle, or asked for (`install.images`)")]);
        }
        let is_running = job.host.is_live() && job.host.exists(SOCKET)?;
        let listed = if is_running { Some(list(job).await?) } else { None };
        let mut items = imports::check(job, listed.as_deref()).await?;
        items.extend(wanted.into_iter().map(|image| match &listed {
            Some(listed) => image.judge(listed),
            None => Item::note(image.text, "containerd does not run here, so nothing is pulled"),
        }));
        Ok(items)
    }

    async fn apply(&self, job: &Job<'_>) -> Outcome<()> {
        let certs = job.settings.certs_dir.as_ref().map_or(CERTS_DIR.to_owned(), |path| path.display().to_string());
        if imports::is_wanted(job, &self.check(job).await?) {
            imports::apply(job).await?;
        }
        // What was imported need not be pulled.
        for item in self.check(job).await?.iter().filter(|item| item.state == State::Wanted) {
            let Some(image) = Pinned::of(&item.what) else { continue };
            let by_digest = image.by_digest();
            let ctr = ["ctr", "--namespace", NAMESPACE, "images"];
            let pull = [&ctr[..], &["pull", "--hosts-dir", &certs, &by_digest]].concat();
            job.host.run(&pull, PULL).await?.well(&format!("pull the image {by_digest}"))?;
            if let Some(name) = image.by_tag() {
                let tag = [&ctr[..], &["tag", "--force", &by_digest, &name]].concat();
                job.host.run(&tag, ASK).await?.well(&format!("name the image {name}"))?;
            }
        }
        Ok(())
    }
}

/// The table of containerd's images.
pub(super) async fn list(job: &Job<'_>) -> Outcome<String> {
    let listed = job.host.run(&["ctr", "--namespace", NAMESPACE, "images", "list"], ASK).await?;
    listed.well("ask containerd for its images")
}

/// A row of `ctr images list`: REF, TYPE, DIGEST, SIZE, PLATFORMS, LABELS.
pub(super) struct Listed<'a> {
    pub digest: &'a str,
    pub is_pinned: bool,
}

/// The row of the image with this name.
pub(super) fn row_of<'a>(listed: &'a str, name: &str) -> Option<Listed<'a>> {
    let words = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let words = words.into_iter().find(|words| words.first() == Some(&name))?;
    let labels = words.last().copied().unwrap_or_default();
    Some(Listed { digest: words.get(2).copied()?, is_pinned: labels.split(',').any(|label| label == PINNED) })
}

/// The images that are there, of those that are asked for.
pub(super) async fn present(job: &Job<'_>) -> Outcome<Vec<String>> {
    let found = Images.check(job).await?;
    let is_there = |image: &&String| found.iter().any(|item| item.what == **image && item.state == State::Done);
    Ok(job.settings.images.iter().filter(is_there).cloned().collect())
}

/// An image with its digest, and perhaps a tag.
struct Pinned<'a> {
    text: &'a str,
    name: &'a str,
    tag: Option<&'a str>,
    digest: &'a str,
}

impl<'a> Pinned<'a> {
    /// `None` without a digest; the configuration has been checked for that.
    fn of(text: &'a str) -> Option<Pinned<'a>> {
        let (rest, digest) = text.split_once('@')?;
        let path = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[path..].find(':') {
            Some(at) => (&rest[..path + at], Some(&rest[path + at + 1..])),
            None => (rest, None),
        };
        Some(Pinned { text, name, tag, digest })
    }

    fn by_digest(&self) -> String {
        format!("{}@{}", self.name, self.digest)
    }

    fn by_tag(&self) -> Option<String> {
        self.tag.map(|tag| format!("{}:{tag}", self.name))
    }

    /// By the table of `ctr images list`: the name that pods use must have this digest.
    fn judge(&self, listed: &str) -> Item {
        let name = self.by_tag().unwrap_or_else(|| self.by_digest());
        match row_of(listed, &name) {
            Some(row) if row.digest == self.digest => Item::done(self.text, "pulled"),
            Some(_) => Item::wanted(self.text, "another image has its name"),
            None => Item::wanted(self.text, "it is not pulled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_there_when_its_name_has_its_digest() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let text = format!("registry.example.com:5000/pause:3.10@{digest}");
        let image = Pinned::of(&text).expect("pinned");
        assert_eq!(image.by_digest(), format!("registry.example.com:5000/pause@{digest}"));
        assert_eq!(image.by_tag().as_deref(), Some("registry.example.com:5000/pause:3.10"));
        let head = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n";
        let row =
            |digest: &str| format!("{head}registry.example.com:5000/pause:3.10 application/x {digest} 1.0 MiB - -\n");
        assert_eq!(image.judge(&row(&digest)).state, State::Done);
        assert_eq!(image.judge(&row("sha256:b")).state, State::Wanted);
        assert_eq!(image.judge(head).state, State::Wanted);
        let pinned = row(&digest).replace("- -", "- io.cri-containerd.image=managed,io.cri-containerd.pinned=pinned");
        let is_pinned = |table: &str| row_of(table, "registry.example.com:5000/pause:3.10").map(|row| row.is_pinned);
        assert_eq!((is_pinned(&pinned), is_pinned(&row(&digest)), is_pinned(head)), (Some(true), Some(false), None));
        assert!(Pinned::of("registry.example.com/pause:3.10").is_none());
        let bare = format!("registry.example.com:5000/pause@{digest}");
        assert_eq!(Pinned::of(&bare).and_then(|image| image.by_tag()), None);
    }
}
