//! Downloads from a server that is bad in one way at a time.

use super::*;
use crate::catalog::{Arch, Component, Versions, Wanted};
use crate::lock::{Checksums, trust_releases};
use crate::progress::Quiet;
use crate::source::{self, StoreFiles};
use crate::testing::{Plain, Say, Server, artifact, component, quick, sha256};
use async_trait::async_trait;
use bytes::Bytes;
use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const PATH: &str = "/dl.k8s.io/release/v1.36.4/bin/linux/amd64/kubeadm";
const CONTENT: &[u8] = b"kubeadm, as it was released";

struct Run {
    server: Server,
    cache: tempfile::TempDir,
    limits: Limits,
}

impl Run {
    fn new(script: Vec<(&str, Vec<Say>)>) -> Run {
        Run { server: Server::start(script), cache: cache(), limits: quick() }
    }

    async fn fetch(&self, artifacts: &[Artifact]) -> Outcome<Vec<Fetched>> {
        let http = Plain { port: self.server.port };
        fetch_within(&self.limits, artifacts, &Source::Upstream, self.cache.path(), &http, &Quiet).await
    }

    /// What is in the cache, without the file that shows whose it is.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cache.path()).expect("cache");
        let names = entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name != ".owner").collect()
    }
}

fn cache() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().expect("cache")
}

#[tokio::test]
async fn a_file_is_verified_private_and_fetched_once() {
    let run = Run::new(vec![(PATH, vec![Say::Content(CONTENT.to_vec())])]);
    for _ in 0..2 {
        let fetched = run.fetch(&[artifact(CONTENT)]).await.expect("fetched");
        assert_eq!(fs::read(&fetched[0].path).expect("file"), CONTENT);
        assert_eq!(fs::metadata(&fetched[0].path).expect("file").permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(run.server.asked(), [PATH]);
    assert_eq!(run.names(), [format!("{}-kubeadm", sha256(CONTENT))]);
}

#[tokio::test]
async fn another_content_is_refused_at_once_and_nothing_of_it_stays() {
    let run = Run::new(vec![(PATH, vec![Say::Content(b"something else".to_vec())])]);
    let why = run.fetch(&[artifact(CONTENT)]).await.expect_err("mismatch");
    assert_eq!(why.cause, Cause::DownloadRejected);
    assert!(why.detail.contains(&sha256(CONTENT)) && why.detail.contains(&sha256(b"something else")), "{why}");
    assert!(why.attempted.contains("kubeadm 1.36.4 (amd64)"), "{why}");
    assert_eq!(run.server.asked().len(), 1, "a mismatch is not tried again");
    assert!(run.names().is_empty(), "{:?}", run.names());
}

#[tokio::test]
async fn a_file_of_the_cache_that_was_damaged_is_fetched_again() {
    let run = Run::new(vec![(PATH, vec![Say::Content(CONTENT.to_vec())])]);
    let path = run.fetch(&[artifact(CONTENT)]).await.expect("fetched").remove(0).path;
    fs::write(&path, b"kubeadm, as it was released by somebody else").expect("damage");
    assert_eq!(run.fetch(&[artifact(CONTENT)]).await.expect("fetched")[0].path, path);
    assert_eq!(fs::read(&path).expect("file"), CONTENT);
    assert_eq!(run.server.asked().len(), 2);
}

#[tokio::test]
async fn a_download_that_breaks_off_is_begun_again_and_given_up_in_the_end() {
    let cut = || Say::Cut(CONTENT.to_vec(), 9);
    let run = Run::new(vec![(PATH, vec![cut(), cut(), Say::Content(CONTENT.to_vec())])]);
    let fetched = run.fetch(&[artifact(CONTENT)]).await.expect("the third attempt");
    assert_eq!(fs::read(&fetched[0].path).expect("file"), CONTENT);

    let run = Run::new(vec![(PATH, vec![cut()])]);
    let why = run.fetch(&[artifact(CONTENT)]).await.expect_err("truncated");
    assert_eq!((why.cause, run.server.asked().len()), (Cause::DownloadUnavailable, 3));
    assert!(why.detail.contains("after 9 of 27 bytes") && why.detail.contains("after 3 attempts"), "{why}");
    assert!(run.names().is_empty(), "{:?}", run.names());
}

#[tokio::test]
async fn what_is_not_there_or_not_for_us_is_not_asked_for_again() {
    for (status, cause) in [(404, Cause::DownloadMissing), (410, Cause::DownloadMissing), (403, Cause::AccessDenied)] {
        let run = Run::new(vec![(PATH, vec![Say::Status(status)])]);
        let why = run.fetch(&[artifact(CONTENT)]).await.expect_err("no file");
        assert_eq!((why.cause, run.server.asked().len()), (cause, 1), "{status}");
        assert!(why.attempted.contains("https://dl.k8s.io/release/v1.36.4/bin/linux/amd64/kubeadm"), "{why}");
        assert!(why.detail.contains(&status.to_string()) && run.names().is_empty(), "{why}");
    }
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again() {
    for status in [503, 500, 429] {
        let run = Run::new(vec![(PATH, vec![Say::Status(status), Say::Content(CONTENT.to_vec())])]);
        assert!(run.fetch(&[artifact(CONTENT)]).await.is_ok(), "{status}");
        assert_eq!(run.server.asked().len(), 2);
    }
    let run = Run::new(vec![(PATH, vec![Say::Status(503)])]);
    let why = run.fetch(&[artifact(CONTENT)]).await.expect_err("always 503");
    assert_eq!((why.cause, run.server.asked().len()), (Cause::DownloadUnavailable, 3));
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left() {
    let mut run = Run::new(vec![(PATH, vec![Say::Silence])]);
    run.limits.stall = Duration::from_millis(20);
    let why = run.fetch(&[artifact(CONTENT)]).await.expect_err("silence");
    assert_eq!((why.cause, run.server.asked().len()), (Cause::DownloadUnavailable, 3));
    run.limits.whole = Duration::from_millis(5);
    let why = run.fetch(&[artifact(CONTENT)]).await.expect_err("silence");
    assert_eq!(why.cause, Cause::Deadline);
}

#[tokio::test]
async fn redirects_are_followed_but_not_in_a_circle_for_ever_or_to_plain_http() {
    let other = |to: &str| vec![Say::To(to.to_owned())];
    let run = Run::new(vec![
        (PATH, other("https://cdn/a")),
        ("/cdn/a", other("b")),
        ("/cdn/b", vec![Say::Content(CONTENT.to_vec())]),
    ]);
    assert!(run.fetch(&[artifact(CONTENT)]).await.is_ok());
    assert_eq!(run.server.asked(), [PATH, "/cdn/a", "/cdn/b"]);

    let circle = vec![
        (PATH, other("https://cdn/a?secret=1")),
        ("/cdn/a", other("https://cdn/b")),
        ("/cdn/b", other("https://cdn/a?secret=1")),
    ];
    let steps = ["https://x/1", "https://x/2", "https://x/3", "https://x/4", "https://x/5", "https://x/6"];
    let mut many = vec![(PATH, other(steps[0]))];
    let paths = ["/x/1", "/x/2", "/x/3", "/x/4", "/x/5"];
    many.extend(paths.iter().zip(&steps[1..]).map(|(path, to)| (*path, other(to))));
    let down = vec![(PATH, other("http://cdn/a")), ("/cdn/a", vec![Say::Content(CONTENT.to_vec())])];
    let cases = [
        (
            circle,
            "in a circle: https://dl.k8s.io/release/v1.36.4/bin/linux/amd64/kubeadm -> https://cdn/a -> https://cdn/b -> https://cdn/a",
            3,
        ),
        (many, "more than 5 redirects", 6),
        (down, "from https to http (http://cdn/a)", 1),
    ];
    for (script, told, requests) in cases {
        let run = Run::new(script);
        let why = run.fetch(&[artifact(CONTENT)]).await.expect_err(told);
        assert_eq!(why.cause, Cause::DownloadRejected);
        assert!(why.detail.contains(told) && !why.to_string().contains("secret"), "{why}");
        assert_eq!(run.server.asked().len(), requests, "{told}");
    }
}

#[tokio::test]
async fn a_file_that_is_too_large_is_not_read_to_its_end() {
    let limit = quick().bytes;
    for says in [Say::Claim(limit + 1), Say::Endless(2 * 1024 * 1024)] {
        let run = Run::new(vec![(PATH, vec![says])]);
        let why = run.fetch(&[artifact(CONTENT)]).await.expect_err("too large");
        assert_eq!((why.cause, run.server.asked().len()), (Cause::DownloadRejected, 1));
        assert!(why.detail.contains("1048576 are allowed") && run.names().is_empty(), "{why}");
    }
}

#[tokio::test]
async fn what_a_killed_run_left_is_written_anew_and_what_it_finished_is_kept() {
    let runc = component(Component::Runc, "1.4.3", b"runc");
    let runc_path = "/github.com/opencontainers/runc/releases/download/v1.4.3/runc.amd64";
    let run = Run::new(vec![
        (PATH, vec![Say::Content(CONTENT.to_vec())]),
        (runc_path, vec![Say::Cut(b"runc".to_vec(), 2), Say::Content(b"runc".to_vec())]),
    ]);
    // Dropping the future is kill -9: here in the pause after the first attempt at runc, with two bytes written.
    let mut killed = Run { limits: quick(), ..run };
    killed.limits.pause = Duration::from_secs(3600);
    {
        let files = [artifact(CONTENT), runc.clone()];
        let fetching = killed.fetch(&files);
        tokio::pin!(fetching);
        while killed.names().len() < 2 || killed.server.asked().len() < 2 {
            let step = timeout(Duration::from_millis(1), &mut fetching).await;
            assert!(step.is_err(), "{step:?}");
        }
    }
    let part = killed.cache.path().join(format!("{}-runc.amd64.part", runc.sha256));
    assert!(part.exists(), "{:?}", killed.names());
    fs::write(&part, b"more than runc has, of which nothing may remain").expect("leftover");
    killed.limits = quick();
    let fetched = killed.fetch(&[artifact(CONTENT), runc]).await.expect("the next run");
    assert_eq!(fs::read(&fetched[1].path).expect("runc"), b"runc");
    assert_eq!(killed.server.asked(), [PATH, runc_path, runc_path], "kubeadm was not fetched again");
    assert!(!part.exists());
}

#[tokio::test]
async fn of_two_runs_in_one_cache_one_downloads_and_both_have_the_file() {
    let run = Run::new(vec![(PATH, vec![Say::Status(503), Say::Content(CONTENT.to_vec())])]);
    let files = [artifact(CONTENT)];
    let (first, second) = tokio::join!(run.fetch(&files), run.fetch(&files));
    let (first, second) = (first.expect("first"), second.expect("second"));
    assert_eq!(first, second);
    assert_eq!(fs::read(&first[0].path).expect("file"), CONTENT);
    assert_eq!(run.server.asked().len(), 2, "one failure and one download for both");
    assert_eq!(run.names().len(), 1);
}

#[tokio::test]
async fn a_cache_that_others_may_enter_is_refused() {
    let run = Run::new(vec![(PATH, vec![Say::Content(CONTENT.to_vec())])]);
    for mode in [0o755, 0o770, 0o701] {
        fs::set_permissions(run.cache.path(), fs::Permissions::from_mode(mode)).expect("chmod");
        let why = run.fetch(&[artifact(CONTENT)]).await.expect_err("open to others");
        assert_eq!(why.cause, Cause::UnsafeFile, "{mode:o}");
    }
    assert!(run.server.asked().is_empty());
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_no_half_file() {
    let root = std::os::unix::fs::MetadataExt::uid(&fs::metadata(cache().path()).expect("ours")) == 0;
    if !root {
        // Without root there is no file system to fill; the name of the cause is then all that can be seen.
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(broken("write it", &full).cause, Cause::DiskFull);
        return;
    }
    let content = vec![7; 600 * 1024];
    let run = Run::new(vec![(PATH, vec![Say::Content(content.clone())])]);
    let flags = nix::mount::MsFlags::empty();
    let mounted = nix::mount::mount(Some("tmpfs"), run.cache.path(), Some("tmpfs"), flags, Some("size=256k,mode=0700"));
    mounted.expect("a small tmpfs");
    let result = run.fetch(&[artifact(&content)]).await;
    let names = run.names();
    nix::mount::umount(run.cache.path()).expect("unmount");
    let why = result.expect_err("full");
    assert_eq!(why.cause, Cause::DiskFull);
    assert!(why.attempted.contains(".part") && names.is_empty(), "{why} {names:?}");
    assert_eq!(run.server.asked().len(), 1);
}

struct Shelf(RefCell<Vec<String>>);

struct Once(Option<Bytes>);

#[async_trait(?Send)]
impl Body for Once {
    async fn next(&mut self) -> Outcome<Option<Bytes>> {
        Ok(self.0.take())
    }
}

#[async_trait(?Send)]
impl StoreFiles for Shelf {
    async fn open(&self, key: &str) -> Outcome<Option<Opened>> {
        self.0.borrow_mut().push(key.to_owned());
        let opened = Opened { length: None, body: Box::new(Once(Some(Bytes::from_static(CONTENT)))) };
        Ok((key == "files/kubeadm/1.36.4/amd64/kubeadm").then_some(opened))
    }

    fn place(&self) -> String {
        "s3://acme/k8s/install/".to_owned()
    }
}

#[tokio::test]
async fn mirrors_and_stores_have_their_own_layouts_and_are_believed_no_more() {
    let path = "/mirror.example/files/dl.k8s.io/release/v1.36.4/bin/linux/amd64/kubeadm";
    let server = Server::start(vec![(path, vec![Say::Content(CONTENT.to_vec())])]);
    let http = Plain { port: server.port };
    let mirror = Source::Mirror(source::mirror("http://mirror.example/files").expect("mirror"));
    let shelf = Shelf(RefCell::default());
    let store = Source::Store(&shelf);
    for source in [&mirror, &store] {
        let (good, bad) = (cache(), cache());
        let fetch = |artifact, cache: &tempfile::TempDir| {
            let cache = cache.path().to_owned();
            let http = &http;
            async move { fetch_within(&quick(), &[artifact], source, &cache, http, &Quiet).await }
        };
        assert!(fetch(artifact(CONTENT), &good).await.is_ok());
        assert_eq!(fetch(artifact(b"other"), &bad).await.expect_err("other").cause, Cause::DownloadRejected);
        let missing = fetch(component(Component::Kubelet, "1.36.4", CONTENT), &good).await.expect_err("absent");
        assert_eq!(missing.cause, Cause::DownloadMissing);
    }
    assert_eq!(server.asked()[0], path);
    assert_eq!(shelf.0.borrow()[0], "files/kubeadm/1.36.4/amd64/kubeadm");
}

#[tokio::test]
async fn checksums_of_releases_are_asked_of_the_projects_and_only_when_unknown() {
    let wanted = Wanted { kubernetes: Some("1.36.99".into()), ..Wanted::default() };
    let versions = Versions::resolve(&wanted).expect("versions");
    let base = "/dl.k8s.io/release/v1.36.99/bin/linux/amd64";
    let paths = ["kubeadm", "kubelet", "kubectl"].map(|name| format!("{base}/{name}.sha256"));
    let digest = |n: usize| Say::Content(n.to_string().repeat(64).into_bytes());
    let script = paths.iter().enumerate().map(|(n, path)| (path.as_str(), vec![digest(n)])).collect();
    let server = Server::start(script);
    let mut checksums = Checksums::new();
    let http = Plain { port: server.port };
    trust_releases(&versions, Arch::Amd64, &mut checksums, &http).await.expect("learned");
    let kubelet = checksums.get(Component::Kubelet, "1.36.99", Arch::Amd64).expect("lock");
    assert_eq!(kubelet, Some(("1".repeat(64), crate::lock::ChecksumFrom::Release)));
    assert_eq!(server.asked(), paths);

    let error = Server::start(vec![(&paths[0], vec![Say::Content(b"<html>no</html>".to_vec())])]);
    let http = Plain { port: error.port };
    let why = trust_releases(&versions, Arch::Amd64, &mut Checksums::new(), &http).await.expect_err("no digest");
    assert_eq!(why.cause, Cause::DownloadRejected);
}
