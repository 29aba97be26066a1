//! What every store must do, run against the folder store and, when `KUBESTRAP_TEST_S3` names a server, against S3.

use super::folder::FolderStore;
use super::s3::S3Store;
use crate::adapters::aws::Aws;
use crate::adapters::net::Names;
use kubestrap_core::config::settings::S3Settings;
use kubestrap_core::model::cause::Cause;
use kubestrap_core::ports::{Condition, Deleted, ETag, Fetched, MAX_OBJECT, Object, Objects, Written};
use std::rc::Rc;

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(work);
}

async fn create(store: &dyn Objects, key: &str, body: &[u8]) -> Written {
    store.put(key, body.to_vec(), Condition::Absent).await.expect("an answer")
}

fn stored(written: Written) -> ETag {
    match written {
        Written::Stored(etag) => etag,
        other => panic!("not stored: {other:?}"),
    }
}

async fn read(store: &dyn Objects, key: &str) -> Option<Object> {
    match store.get(key, None).await.expect("an answer").fetched {
        Fetched::Found(object) => Some(object),
        Fetched::Absent => None,
        Fetched::Unchanged => panic!("nothing was known"),
    }
}

async fn suite(store: &dyn Objects) {
    creates_once(store).await;
    replaces_what_it_knows(store).await;
    deletes_what_it_knows(store).await;
    lists_in_order_and_pages(store).await;
    keeps_to_its_limits(store).await;
}

async fn creates_once(store: &dyn Objects) {
    let key = "create/cluster.json";
    assert_eq!(read(store, key).await, None);
    let etag = stored(create(store, key, b"one").await);
    assert_eq!(create(store, key, b"two").await, Written::Refused);
    let object = read(store, key).await.expect("there");
    assert_eq!((object.body.as_slice(), &object.etag), (&b"one"[..], &etag));
    assert!(object.modified.is_some());
    let again = store.get(key, Some(&etag)).await.expect("an answer");
    assert_eq!(again.fetched, Fetched::Unchanged);
    let other = store.get(key, Some(&ETag("\"0\"".to_owned()))).await.expect("an answer");
    assert!(matches!(other.fetched, Fetched::Found(_)));
}

async fn replaces_what_it_knows(store: &dyn Objects) {
    let key = "replace/object";
    let never = ETag("\"d41d8cd98f00b204e9800998ecf8427e\"".to_owned());
    let early = store.put(key, b"x".to_vec(), Condition::Matches(never)).await.expect("an answer");
    assert_eq!(early, Written::Refused, "there is nothing to replace");
    let first = stored(create(store, key, b"one").await);
    let second = stored(store.put(key, b"two".to_vec(), Condition::Matches(first.clone())).await.expect("an answer"));
    assert_ne!(first, second);
    let stale = store.put(key, b"three".to_vec(), Condition::Matches(first)).await.expect("an answer");
    assert_eq!(stale, Written::Refused);
    assert_eq!(read(store, key).await.map(|object| object.body), Some(b"two".to_vec()));
}

async fn deletes_what_it_knows(store: &dyn Objects) {
    let key = "delete/lock";
    let first = stored(create(store, key, b"one").await);
    let second = stored(store.put(key, b"two".to_vec(), Condition::Matches(first.clone())).await.expect("an answer"));
    assert_eq!(store.delete(key, &first).await, Ok(Deleted::Refused));
    assert_eq!(store.delete(key, &second).await, Ok(Deleted::Done));
    assert_eq!(read(store, key).await, None);
    stored(create(store, key, b"again").await);
}

async fn lists_in_order_and_pages(store: &dyn Objects) {
    let names: Vec<String> = (0..1005).map(|n| format!("list/a{n:04}")).collect();
    for name in &names {
        stored(create(store, name, b"").await);
    }
    stored(create(store, "list/a/deep", b"").await);
    stored(create(store, "list-not/this", b"").await);
    let first = store.list("list/", None).await.expect("a page");
    assert!(first.more);
    assert_eq!((first.keys.len(), first.keys[0].as_str(), first.keys[1].as_str()), (1000, "list/a/deep", "list/a0000"));
    let rest = store.list("list/", first.keys.last().map(String::as_str)).await.expect("a page");
    assert!(!rest.more);
    assert_eq!(rest.keys, names[999..]);
    let some = store.list("list/a100", None).await.expect("a page");
    assert_eq!(some.keys, names[1000..]);
    assert!(store.list("none/", None).await.expect("a page").keys.is_empty());
}

async fn keeps_to_its_limits(store: &dyn Objects) {
    stored(create(store, "limits/full", &[b'x'; MAX_OBJECT]).await);
    assert_eq!(read(store, "limits/full").await.map(|object| object.body.len()), Some(MAX_OBJECT));
    let big = store.put("limits/big", vec![0; MAX_OBJECT + 1], Condition::Absent).await;
    assert_eq!(big.map_err(|failure| failure.cause), Err(Cause::Internal));
    for key in ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", ".kubestrap.lock", "a/.hidden", "a b", "a\n"] {
        let answer = store.get(key, None).await;
        assert_eq!(answer.map_err(|failure| failure.cause), Err(Cause::Internal), "{key:?}");
    }
    // The key of a report carries an instance ARN.
    stored(create(store, "nodes/arn:aws:ec2:eu-west-1:123456789012:instance/i-0abc/report.json", b"{}").await);
}

#[test]
fn a_folder_is_a_store() {
    let folder = tempfile::tempdir().expect("tempdir");
    block_on(suite(&FolderStore::new(folder.path())));
    let modes = std::process::Command::new("find").arg(folder.path()).args(["-type", "f", "-perm", "/077"]).output();
    assert!(modes.expect("find").stdout.is_empty(), "a file can be read by others");
    let left = std::process::Command::new("find").arg(folder.path()).args(["-name", ".kubestrap-*"]).output();
    assert!(left.expect("find").stdout.is_empty(), "a temporary file is left");
}

#[test]
fn a_folder_that_is_not_there_is_not_an_empty_store() {
    block_on(async {
        let store = FolderStore::new("/nonexistent/store");
        assert_eq!(store.get("a", None).await.map_err(|f| f.cause), Err(Cause::BucketMissing));
        assert_eq!(store.list("", None).await.map_err(|f| f.cause), Err(Cause::BucketMissing));
        let made = store.put("a", Vec::new(), Condition::Absent).await;
        assert_eq!(made.map_err(|f| f.cause), Err(Cause::BucketMissing));
    });
}

#[test]
fn what_is_foreign_in_a_folder_is_refused_or_unseen() {
    let folder = tempfile::tempdir().expect("tempdir");
    let store = FolderStore::new(folder.path());
    std::fs::write(folder.path().join("huge"), vec![0; MAX_OBJECT + 1]).expect("write");
    std::fs::write(folder.path().join(".kubestrap-1-2-3"), "half").expect("write");
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).expect("symlink");
    std::fs::create_dir(folder.path().join("folder")).expect("mkdir");
    block_on(async {
        assert_eq!(store.list("", None).await.map(|page| page.keys), Ok(vec!["huge".to_owned()]));
        assert_eq!(store.get("huge", None).await.map_err(|f| f.cause), Err(Cause::ObjectRejected));
        assert!(store.get("link", None).await.is_err(), "a link leads out of the store");
        assert_eq!(store.get("folder", None).await.map_err(|f| f.cause), Err(Cause::ObjectRejected));
    });
}

/// Every thread has its own store and its own file descriptors, as processes have: flock belongs to the open file.
#[test]
fn of_concurrent_writers_exactly_one_wins() {
    let folder = tempfile::tempdir().expect("tempdir");
    for round in 0..20 {
        let key = &format!("race/{round}");
        let race = |condition: &Condition| {
            let wins = std::thread::scope(|scope| {
                let writer = |n: u8| {
                    let store = FolderStore::new(folder.path());
                    let condition = condition.clone();
                    scope.spawn(move || {
                        let mut won = false;
                        block_on(async {
                            won = matches!(store.put(key, vec![n], condition).await, Ok(Written::Stored(_)))
                        });
                        won
                    })
                };
                let writers: Vec<_> = (0..8).map(writer).collect();
                writers.into_iter().map(|writer| writer.join().expect("no panic")).filter(|won| *won).count()
            });
            assert_eq!(wins, 1, "{condition:?}");
        };
        race(&Condition::Absent);
        // A writer of the content that is there would not change the version; so it is one that nobody writes.
        let mut etag = None;
        std::fs::write(folder.path().join(key), [99]).expect("write");
        block_on(async { etag = read(&FolderStore::new(folder.path()), key).await.map(|object| object.etag) });
        race(&Condition::Matches(etag.expect("there")));
    }
}

#[test]
fn a_bucket_is_a_store() {
    let Some(endpoint) = std::env::var("KUBESTRAP_TEST_S3").ok().filter(|url| !url.is_empty()) else {
        println!("skipped: KUBESTRAP_TEST_S3 is not set (cargo xtask test sets it)");
        return;
    };
    block_on(async {
        let aws = Rc::new(Aws::with_credentials(&Names::default(), "us-east-1"));
        let config = aws_sdk_s3::config::Builder::from(aws.config().await.expect("config"))
            .endpoint_url(&endpoint)
            .force_path_style(true)
            .build();
        let bucket = format!("kubestrap-{}", std::process::id());
        aws_sdk_s3::Client::from_conf(config).create_bucket().bucket(&bucket).send().await.expect("a bucket");
        let settings = S3Settings { endpoint: Some(endpoint), path_style: true, ..S3Settings::default() };
        for prefix in ["", "acme/k8s"] {
            let store = S3Store::new(aws.clone(), bucket.clone(), prefix.to_owned(), settings.clone());
            suite(&store).await;
            assert!(store.get("create/cluster.json", None).await.expect("an answer").served_at.is_some());
            assert_eq!(store.expiry_rules().await, Ok(Vec::new()));
        }
        let none = S3Store::new(aws, "kubestrap-no-such-bucket".to_owned(), String::new(), settings);
        assert_eq!(none.get("a", None).await.map_err(|f| f.cause), Err(Cause::BucketMissing));
        let written = none.put("a", Vec::new(), Condition::Absent).await;
        assert_eq!(written.map_err(|f| f.cause), Err(Cause::BucketMissing));
    });
}
