//! Bundles that are whole, and that are bad in one way at a time.

use super::*;
use crate::catalog::{Arch, Artifact, Component, Wanted};
use crate::download::{Fetched, fetch_within};
use crate::image_archive::{of_file, tests::saved_bytes};
use crate::lock::{ChecksumFrom, Checksums};
use crate::progress::Quiet;
use crate::source::{Source, key};
use crate::testing::{Plain, component, quick, sha256};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

struct Made {
    folder: tempfile::TempDir,
    artifacts: Vec<Artifact>,
    index_sha256: String,
    path: PathBuf,
}

/// A kubelet, a runc and an image archive.
fn made(name: &str) -> Made {
    let folder = tempfile::tempdir().expect("folder");
    let mut artifacts = Vec::new();
    let mut fetched = Vec::new();
    for (part, version, content) in [(Component::Kubelet, "1.36.4", "kubelet"), (Component::Runc, "1.4.3", "runc")] {
        let path = folder.path().join(content);
        fs::write(&path, content).expect("file");
        let artifact = component(part, version, content.as_bytes());
        artifacts.push(artifact.clone());
        fetched.push(Fetched { artifact, path });
    }
    let image = folder.path().join("pause.tar");
    fs::write(&image, "an image").expect("image");
    let images = [ImageArchive { references: vec!["registry.k8s.io/pause:3.10".into()], path: image }];
    let path = folder.path().join(name);
    let index_sha256 = write(&path, Arch::Amd64, &fetched, &images).expect("bundle");
    assert_eq!(write(&path, Arch::Amd64, &fetched, &images).as_ref(), Ok(&index_sha256), "written over itself");
    Made { folder, artifacts, index_sha256, path }
}

impl Made {
    async fn fetch(&self, artifacts: &[Artifact]) -> Outcome<Vec<Fetched>> {
        let bundle = Bundle::open(&self.path, None)?;
        let cache = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().expect("cache");
        // Nobody listens there, and nobody is asked.
        let http = Plain { port: 1 };
        fetch_within(&quick(), artifacts, &Source::Bundle(&bundle), cache.path(), &http, &Quiet).await.inspect(
            |fetched| {
                for Fetched { artifact, path } in fetched {
                    assert_eq!(sha256(&fs::read(path).expect("file")), artifact.sha256);
                }
            },
        )
    }

    fn index(&self) -> Index {
        Bundle::open(&self.path, None).expect("bundle").index().clone()
    }

    /// Replaces the index of a folder.
    fn tamper(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.path.join("index.json");
        let mut index = serde_json::from_slice(&fs::read(&path).expect("index")).expect("json");
        change(&mut index);
        fs::write(path, serde_json::to_vec(&index).expect("json")).expect("index");
    }

    fn refused(&self) -> Failure {
        let why = Bundle::open(&self.path, None).expect_err("tampered");
        assert_eq!(why.cause, Cause::DownloadRejected);
        why
    }
}

#[tokio::test]
async fn a_folder_and_a_tar_give_what_was_put_in() {
    for name in ["bundle", "bundle.tar"] {
        let made = made(name);
        let fetched = made.fetch(&made.artifacts).await.expect("fetched");
        assert_eq!(fetched.len(), 2, "{name}");
        let bundle = Bundle::open(&made.path, Some(&made.index_sha256)).expect("pinned");
        let images = bundle.images(&["pause.tar"], made.folder.path()).expect("images");
        assert_eq!(fs::read(&images[0]).expect("image"), b"an image");
        assert_eq!(bundle.images(&["other.tar"], made.folder.path()), Ok(vec![]));
        let leftovers = |path: &Path| path.to_string_lossy().ends_with(".part");
        assert!(
            !fs::read_dir(made.folder.path()).expect("folder").any(|entry| leftovers(&entry.expect("entry").path()))
        );
        let mut wanted = Wanted::default();
        bundle.fill(&mut wanted);
        assert_eq!((wanted.kubernetes.as_deref(), wanted.runc.as_deref()), (Some("1.36.4"), Some("1.4.3")));
        assert_eq!(wanted.containerd, None);
    }
}

#[tokio::test]
async fn the_same_files_make_the_same_bytes() {
    let (one, two) = (made("a.tar"), made("b.tar"));
    assert_eq!(fs::read(&one.path).expect("one"), fs::read(&two.path).expect("two"));
}

#[tokio::test]
async fn another_architecture_or_version_is_refused_before_anything_is_read() {
    let made = made("bundle");
    let arm = Artifact { arch: Arch::Arm64, ..made.artifacts[0].clone() };
    let why = made.fetch(&[arm]).await.expect_err("arm64");
    assert!(why.detail.contains("for amd64 machines, and this one is arm64"), "{why}");
    let newer = component(Component::Kubelet, "1.36.5", b"kubelet");
    let why = made.fetch(&[newer]).await.expect_err("1.36.5");
    assert!(why.detail.contains("kubelet 1.36.5 is wanted, and it has 1.36.4"), "{why}");
    let why = made.fetch(&[component(Component::Crictl, "1.36.0", b"crictl")]).await.expect_err("no crictl");
    assert!(why.detail.contains("crictl 1.36.0 is wanted, and it has no version of it"), "{why}");
    assert_eq!(why.cause, Cause::DownloadRejected);
}

#[tokio::test]
async fn an_index_that_says_something_else_is_not_believed() {
    let made = made("bundle");
    // The file and the index were both changed, and agree.
    fs::write(made.path.join(key(&made.artifacts[0])), b"EVILlet").expect("tamper");
    made.tamper(|index| index["files"][0]["sha256"] = sha256(b"EVILlet").into());
    let why = made.fetch(&made.artifacts).await.expect_err("evil");
    assert!(why.detail.contains("its index says") && why.detail.contains("`install.checksums` says"), "{why}");
    // Only the file was changed.
    let made = self::made("bundle");
    fs::write(made.path.join(key(&made.artifacts[0])), b"EVILlet").expect("tamper");
    let why = made.fetch(&made.artifacts).await.expect_err("evil");
    assert_eq!(why.cause, Cause::DownloadRejected);
    assert!(why.detail.contains(&sha256(b"EVILlet")), "{why}");
}

#[test]
fn the_index_counts_only_when_it_was_pinned_itself() {
    let made = made("bundle.tar");
    let known = |pin: Option<&str>| {
        let mut checksums = Checksums::new();
        Bundle::open(&made.path, pin).expect("bundle").add_checksums(&mut checksums).expect("checksums");
        let get = |part, version| checksums.get(part, version, Arch::Amd64).expect("lock").map(|known| known.1);
        (get(Component::Kubelet, "1.36.4"), get(Component::Kubelet, "1.36.99"))
    };
    assert_eq!(known(None), (Some(ChecksumFrom::Lock), None));
    assert_eq!(known(Some(&made.index_sha256)), (Some(ChecksumFrom::Lock), None));
    let why = Bundle::open(&made.path, Some(&"0".repeat(64))).expect_err("another index");
    assert_eq!(why.cause, Cause::DownloadRejected);
    assert!(why.detail.contains(&made.index_sha256), "{why}");
    let why = Bundle::open(&made.path, Some("abc")).expect_err("no digest");
    assert_eq!(why.cause, Cause::Configuration);
}

#[test]
fn a_pinned_index_tells_what_nobody_else_knows() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("kubelet");
    fs::write(&path, "kubelet").expect("file");
    let fetched = [Fetched { artifact: component(Component::Kubelet, "1.36.99", b"kubelet"), path }];
    let bundle = folder.path().join("bundle");
    let digest = write(&bundle, Arch::Amd64, &fetched, &[]).expect("bundle");
    for (pin, expected) in [(None, None), (Some(digest.as_str()), Some((sha256(b"kubelet"), ChecksumFrom::Bundle)))] {
        let mut checksums = Checksums::new();
        Bundle::open(&bundle, pin).expect("bundle").add_checksums(&mut checksums).expect("checksums");
        assert_eq!(checksums.get(Component::Kubelet, "1.36.99", Arch::Amd64).expect("lock"), expected);
    }
}

#[test]
fn a_newer_schema_a_missing_member_and_a_wrong_length_are_refused() {
    let made = made("bundle");
    made.tamper(|index| index["schema"] = 2.into());
    assert!(made.refused().detail.contains("its schema is 2, and this kubestrap reads 1"));
    made.tamper(|index| index["schema"] = 1.into());
    fs::write(made.path.join("images/pause.tar"), "an imag").expect("truncate");
    assert!(made.refused().detail.contains("images/pause.tar has 7 bytes, and its index says 8"));
    fs::remove_file(made.path.join(key(&made.artifacts[1]))).expect("remove");
    assert!(made.refused().detail.contains("files/runc/1.4.3/amd64/runc.amd64 is missing"));
    std::os::unix::fs::symlink("/etc/hostname", made.path.join(key(&made.artifacts[1]))).expect("link");
    assert!(made.refused().detail.contains("is not a regular file"));
    fs::remove_file(made.path.join("index.json")).expect("remove");
    assert!(made.refused().detail.contains("index.json is missing"));
}

#[test]
fn an_index_cannot_name_other_places() {
    let made = made("bundle");
    let index = made.index();
    assert_eq!((index.schema, index.arch, index.files.len()), (SCHEMA, Arch::Amd64, 2));
    let cases: [(&str, &str, serde_json::Value, &str); 6] = [
        ("files", "version", "../../../etc".into(), "not a released version"),
        ("files", "file", "../../../../etc/shadow".into(), "is not in a file"),
        ("files", "sha256", "abc".into(), "not a SHA-256"),
        ("images", "file", "../x.tar".into(), "not a name for an image archive"),
        ("images", "file", ".x.tar".into(), "not a name for an image archive"),
        ("files", "component", "backdoor".into(), "damaged"),
    ];
    for (list, field, value, told) in cases {
        let made = self::made("bundle");
        made.tamper(|index| index[list][0][field] = value);
        let why = made.refused();
        assert!(why.detail.contains(told), "{why}");
    }
    made.tamper(|index| index["files"][1] = index["files"][0].clone());
    assert!(made.refused().detail.contains("in it twice"));
}

#[test]
fn damaged_tars_are_refused() {
    let made = made("bundle.tar");
    let whole = fs::read(&made.path).expect("tar");
    let with = |bytes: &[u8]| {
        fs::write(&made.path, bytes).expect("tar");
        made.refused()
    };
    // The image is the last member: 512 bytes of content and 1024 of end.
    let why = with(&whole[..whole.len() - 1024 - 510]);
    assert!(why.detail.contains("in the middle of images/pause.tar"), "{why}");
    assert!(with(b"").detail.contains("index.json is missing"));
    assert!(with(&[b'x'; 2000]).detail.contains("no tar archive"));
    let mut twice = whole[..whole.len() - 1024].to_vec();
    twice.extend_from_slice(&whole);
    assert!(with(&twice).detail.contains("index.json is in it twice"));
    let mut link = tar::Header::new_ustar();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_path("index.json").expect("name");
    link.set_link_name("/etc/passwd").expect("target");
    link.set_size(0);
    link.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&link, std::io::empty()).expect("member");
    assert!(with(&builder.into_inner().expect("tar")).detail.contains("of the kind Symlink"));
}

#[test]
fn an_image_archive_that_was_changed_is_refused() {
    let made = made("bundle");
    fs::write(made.path.join("images/pause.tar"), "an IMAGE").expect("tamper");
    let out = tempfile::tempdir().expect("folder");
    let why = Bundle::open(&made.path, None).expect("bundle").images(&["pause.tar"], out.path()).expect_err("changed");
    assert!(why.detail.contains(&sha256(b"an IMAGE")), "{why}");
    assert_eq!(fs::read_dir(out.path()).expect("out").count(), 0);
}

#[test]
fn what_is_no_bundle_is_not_replaced() {
    let made = made("bundle");
    let notes = made.folder.path().join("notes.tar");
    fs::write(&notes, "my notes").expect("notes");
    let why = write(&notes, Arch::Amd64, &[], &[]).expect_err("foreign");
    assert_eq!((why.cause, fs::read(&notes).expect("notes")), (Cause::Usage, b"my notes".to_vec()));
    let lost = Fetched { artifact: made.artifacts[0].clone(), path: notes };
    let why = write(&made.folder.path().join("new.tar"), Arch::Amd64, &[lost], &[]).expect_err("not what was fetched");
    assert_eq!(why.cause, Cause::DownloadRejected);
}

/// A bundle with two good archives; the SHA-256 of its index.
fn with_archives(path: &Path, folder: &Path) -> Outcome<String> {
    let archive = |name: &str| {
        let place = folder.join(format!("{name}.tar"));
        fs::write(&place, saved_bytes(&format!("registry.k8s.io/{name}:1"), "amd64")).expect("archive");
        of_file(&place, Arch::Amd64).expect(name)
    };
    write(path, Arch::Amd64, &[], &[archive("etcd"), archive("pause")])
}

#[test]
fn image_archives_come_out_of_a_pinned_bundle_alone() {
    for name in ["bundle", "bundle.tar"] {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join(name);
        let digest = with_archives(&path, folder.path()).expect("bundle");
        let bundle = Bundle::open(&path, Some(&digest)).expect("bundle");
        let archives = bundle.archives().expect("archives");
        let names: Vec<&str> = archives.iter().map(|one| one.images[0].name.as_str()).collect();
        assert_eq!(names, ["registry.k8s.io/etcd:1", "registry.k8s.io/pause:1"], "{name}");
        assert_eq!(bundle.index().images[1].references, ["registry.k8s.io/pause:1"]);
        let why = Bundle::open(&path, None).expect("bundle").archives().expect_err("not pinned");
        assert!(why.to_string().contains("nothing says that they are the right ones"), "{why}");
        assert!(why.fix().contains("--index-sha256"), "{}", why.fix());
    }
}

#[test]
fn one_bad_archive_and_none_is_handed_on() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("bundle");
    let digest = with_archives(&path, folder.path()).expect("bundle");
    let changed = path.join("images/pause.tar");
    let mut bytes = fs::read(&changed).expect("archive");
    // In the layer: by the tables it is as good as before.
    bytes[2500] ^= 1;
    fs::write(&changed, bytes).expect("tamper");
    let bundle = Bundle::open(&path, Some(&digest)).expect("bundle");
    assert_eq!(bundle.archives().expect("archives").len(), 2);
    let out = tempfile::tempdir().expect("folder");
    let why = bundle.images(&["etcd.tar", "pause.tar"], out.path()).expect_err("changed");
    assert_eq!(why.cause, Cause::DownloadRejected);
    assert!(why.detail.contains("images/pause.tar has the SHA-256"), "{why}");
    assert!(!out.path().join("pause.tar").exists() && !out.path().join("pause.tar.part").exists());
}

#[test]
fn what_is_bad_comes_into_no_bundle() {
    let folder = tempfile::tempdir().expect("folder");
    let place = folder.path().join("pause.tar");
    let bad = |bytes: &[u8], told: &str| {
        fs::write(&place, bytes).expect("archive");
        let why = of_file(&place, Arch::Amd64).expect_err(told);
        assert!(why.to_string().contains("pause.tar") && why.detail.contains(told), "{why}");
    };
    bad(&saved_bytes("registry.k8s.io/pause:1", "arm64"), "linux/arm64");
    bad(&saved_bytes("registry.k8s.io/pause:1", "amd64")[..3000], "in the middle of");
    bad(b"", "neither oci-layout nor manifest.json");
    assert!(of_file(folder.path(), Arch::Amd64).expect_err("a folder").detail.contains("regular file"));
    fs::write(&place, saved_bytes("registry.k8s.io/pause:1", "amd64")).expect("archive");
    let one = of_file(&place, Arch::Amd64).expect("good");
    let why = write(&folder.path().join("bundle"), Arch::Amd64, &[], &[one.clone(), one]).expect_err("twice");
    assert!(why.detail.contains("pause.tar too"), "{why}");
}
