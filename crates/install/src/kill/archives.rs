//! Images out of a bundle's archives: imported when they are not there, or others are; the sandbox image is pinned.

use super::machine::put;
use super::steps::block;
use super::tests::{Release, Way, machine, nothing};
use super::{End, until};
use crate::catalog::Artifact;
use crate::image_archive::{Archived, Contained};
use crate::progress::Quiet;
use crate::source::Source;
use crate::steps::{Job, Row, Staged, Supply, carry_out};
use crate::supply::Shop;
use async_trait::async_trait;
use kubestrap_core::image::containerd::PINNED;
use kubestrap_core::model::cause::Outcome;
use std::fs::{read_to_string, write};
use std::path::{Path, PathBuf};

const SANDBOX: &str = "registry.example.com/pause:1";
const PROXY: &str = "registry.example.com/proxy:1";

fn digest(of: char) -> String {
    format!("sha256:{}", String::from(of).repeat(64))
}

/// As the simulated containerd imports it: name, digest, and the manifest that names the image's ID.
fn line(name: &str, at: char, id: char) -> String {
    let manifest = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":1}},"layers":[]}}"#, digest(id));
    format!("{name} {} {manifest}\n", digest(at))
}

/// Programs come from the release, archives from here.
struct Bundle<'a>(&'a Shop<'a>);

#[async_trait(?Send)]
impl Supply for Bundle<'_> {
    fn check(&self, artifacts: &[Artifact]) -> Outcome<()> {
        self.0.check(artifacts)
    }

    async fn stage(&self, artifacts: &[Artifact], folder: &Path) -> Outcome<Vec<Staged>> {
        self.0.stage(artifacts, folder).await
    }

    fn stage_archives(&self, files: &[&str], folder: &Path) -> Outcome<Vec<PathBuf>> {
        let stage = |file: &&str| {
            let text = if *file == "pause.tar" { line(SANDBOX, 'b', 'c') } else { line(PROXY, 'd', 'e') };
            let path = folder.join(file);
            write(&path, text).expect("write");
            path
        };
        Ok(files.iter().map(stage).collect())
    }

    fn origin(&self, artifact: &Artifact) -> String {
        self.0.origin(artifact)
    }
}

fn archived(file: &str, name: &str, id: char) -> Archived {
    let images = vec![Contained { name: name.to_owned(), id: digest(id), digest: None }];
    Archived { file: file.to_owned(), sha256: "f".repeat(64), images }
}

/// Installs; which archives were imported.
fn imported(root: &Path) -> Vec<String> {
    let release = Release::new(1);
    let (http, quiet) = (crate::testing::Plain { port: 0 }, Quiet);
    let shop = Shop { source: Source::Store(&release), http: &http, progress: &quiet };
    let bundle = Bundle(&shop);
    let (rows, passed) = until(End::Never, false, || {
        block(async {
            let job = Way::default().job(root, &release, &shop).await.expect("job");
            let images = vec![archived("pause.tar", SANDBOX, 'c'), archived("proxy.tar", PROXY, 'e')];
            carry_out(&Job { supply: &bundle, images, ..job }, &mut |_: &Row| {}).await
        })
    });
    rows.expect("nobody kills it").expect("install");
    let of =
        |what: String| what.split(" images import ").nth(1).map(|path| path.rsplit('/').next().unwrap().to_owned());
    passed.into_iter().filter_map(|one| of(one.what)).collect()
}

fn row(root: &Path, name: &str) -> String {
    let listed = read_to_string(root.join("sim/images")).expect("images");
    listed.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default().to_owned()
}

#[test]
fn what_is_not_there_or_is_another_image_is_imported_and_the_sandbox_image_is_pinned() {
    let folder = machine(&nothing);
    let root = folder.path();
    put(root, "run/containerd/containerd.sock", "");
    assert_eq!(imported(root), ["pause.tar", "proxy.tar"]);
    assert!(
        row(root, SANDBOX).contains(&digest('b')) && row(root, SANDBOX).ends_with(PINNED),
        "{}",
        row(root, SANDBOX)
    );
    assert!(row(root, PROXY).contains(&digest('d')) && !row(root, PROXY).ends_with(PINNED), "{}", row(root, PROXY));
    assert!(imported(root).is_empty(), "everything is there");

    // Another image has the name, and one of which containerd has lost a part.
    put(root, &format!("sim/content/{}", digest('d')), line("x", 'x', '0').splitn(3, ' ').nth(2).expect("manifest"));
    assert_eq!(imported(root), ["proxy.tar"]);
    std::fs::remove_file(root.join("sim/content").join(digest('b'))).expect("remove");
    assert_eq!(imported(root), ["pause.tar"]);
    // Only the pin is gone: it is pinned again, and nothing is imported.
    let listed = read_to_string(root.join("sim/images")).expect("images");
    put(root, "sim/images", &listed.replace(PINNED, "-"));
    assert!(imported(root).is_empty());
    assert!(row(root, SANDBOX).ends_with(PINNED));
}
