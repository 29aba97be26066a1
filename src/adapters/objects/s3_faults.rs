//! Answers of S3 that moto does not give, from a server that says what it is told to.

use super::install::InBucket;
use super::s3::S3Store;
use crate::adapters::aws::Aws;
use crate::adapters::net::Names;
use kubestrap_core::config::settings::S3Settings;
use kubestrap_core::model::cause::{Cause, Failure};
use kubestrap_core::ports::{Condition, Deleted, ETag, Fetched, Objects, Written};
use kubestrap_install::source::StoreFiles;
use std::cell::RefCell;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// What the server does with one request.
enum Say {
    /// Answers with these bytes and closes.
    Answer(String),
    /// Reads the request and closes without an answer.
    Nothing,
    /// Answers 200 and a body without an end.
    Endless,
}

fn say(status: &str, headers: &str, code: &str) -> Say {
    let body = match code {
        "" => String::new(),
        code => format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>why</Message></Error>"),
    };
    let length = if status.starts_with("304") { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    Say::Answer(format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}{length}\r\n{body}"))
}

const DATE: &str = "date: Sat, 21 Nov 2026 12:00:00 GMT\r\n";
const FOUND: &str =
    "date: Sat, 21 Nov 2026 12:00:00 GMT\r\netag: \"e\"\r\nlast-modified: Sat, 21 Nov 2026 11:00:00 GMT\r\n";

async fn one_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(head);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Runs `work` with a store on a server with this script; gives the heads of the requests it saw.
fn with<W: Future<Output = ()>>(script: Vec<Say>, work: impl FnOnce(S3Store) -> W) -> Vec<String> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let requests = seen.clone();
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let endpoint = format!("http://{}", listener.local_addr().expect("address"));
        tokio::task::spawn_local(async move {
            for step in script {
                let (mut stream, _) = listener.accept().await.expect("accept");
                let Some(head) = one_request(&mut stream).await else { continue };
                requests.borrow_mut().push(head);
                match step {
                    Say::Nothing => {}
                    Say::Answer(bytes) => stream.write_all(bytes.as_bytes()).await.expect("write"),
                    Say::Endless => {
                        let head = format!("HTTP/1.1 200 OK\r\n{FOUND}transfer-encoding: chunked\r\n\r\n");
                        let mut going = stream.write_all(head.as_bytes()).await;
                        while going.is_ok() {
                            going = stream.write_all(format!("1000\r\n{}\r\n", "x".repeat(0x1000)).as_bytes()).await;
                        }
                    }
                }
            }
        });
        let aws = Rc::new(Aws::with_credentials(&Names::default(), "us-east-1"));
        let settings = S3Settings {
            endpoint: Some(endpoint),
            path_style: true,
            expected_bucket_owner: Some("123456789012".to_owned()),
            kms_key_id: Some("alias/k".to_owned()),
            ..S3Settings::default()
        };
        work(S3Store::new(aws, "acme".to_owned(), "k8s".to_owned(), settings)).await;
    });
    Rc::try_unwrap(seen).map(RefCell::into_inner).unwrap_or_default()
}

async fn get(store: &S3Store) -> Result<Fetched, Failure> {
    store.get("a", None).await.map(|reading| reading.fetched)
}

async fn create(store: &S3Store) -> Result<Written, Failure> {
    store.put("a", b"x".to_vec(), Condition::Absent).await
}

#[test]
fn reads_tell_absent_from_denied_and_from_trouble() {
    let table = [
        (say("404 Not Found", "", "NoSuchKey"), Ok(Fetched::Absent)),
        (say("404 Not Found", "", "NoSuchBucket"), Err(Cause::BucketMissing)),
        (say("404 Not Found", "", ""), Err(Cause::StoreUnavailable)),
        (say("403 Forbidden", "", "AccessDenied"), Err(Cause::AccessDenied)),
        (say("403 Forbidden", "", "InvalidAccessKeyId"), Err(Cause::BadCredentials)),
        (say("403 Forbidden", "", "RequestTimeTooSkewed"), Err(Cause::ClockSkew)),
        (say("503 Slow Down", "", "SlowDown"), Err(Cause::Throttled)),
        (say("500 Oh", "", ""), Err(Cause::StoreUnavailable)),
        (Say::Answer("garbage\r\n\r\n".to_owned()), Err(Cause::StoreUnavailable)),
        (Say::Nothing, Err(Cause::StoreUnavailable)),
        (Say::Endless, Err(Cause::ObjectRejected)),
    ];
    for (answer, expected) in table {
        let expectation = expected.clone();
        with(vec![answer], |store| async move {
            assert_eq!(get(&store).await.map_err(|failure| failure.cause), expectation);
        });
    }
}

#[test]
fn a_denied_read_names_the_right_that_is_missing() {
    with(vec![say("403 Forbidden", "", "AccessDenied")], |store| async move {
        let failure = get(&store).await.expect_err("denied");
        assert_eq!(failure.attempted, "read s3://acme/k8s/a");
        assert!(failure.fix().contains("s3:GetObject on arn:aws:s3:::acme/k8s/a"), "{failure}");
        assert!(failure.fix().contains("s3:ListBucket"), "{failure}");
    });
}

#[test]
fn a_read_has_the_stores_time_even_when_nothing_changed() {
    let script = vec![say("304 Not Modified", DATE, ""), say("200 OK", FOUND, "")];
    let requests = with(script, |store| async move {
        let reading = store.get("a", Some(&ETag("\"e\"".to_owned()))).await.expect("unchanged");
        assert_eq!(reading.fetched, Fetched::Unchanged);
        assert_eq!(reading.served_at.map(|at| at.to_string()).as_deref(), Some("2026-11-21T12:00:00Z"));
        let reading = store.get("a", None).await.expect("found");
        let Fetched::Found(object) = reading.fetched else { panic!("not found") };
        assert_eq!(object.modified.map(|at| at.to_string()).as_deref(), Some("2026-11-21T11:00:00Z"));
        assert_eq!(object.etag, ETag("\"e\"".to_owned()));
    });
    assert!(requests[0].contains("if-none-match: \"e\""), "{}", requests[0]);
    assert!(requests[0].contains("x-amz-expected-bucket-owner: 123456789012"), "{}", requests[0]);
}

#[test]
fn a_server_without_conditional_reads_is_told_by_the_version_it_sends() {
    let other = FOUND.replace("\"e\"", "\"f\"");
    let requests = with(vec![say("200 OK", FOUND, ""), say("200 OK", &other, "")], |store| async move {
        let known = ETag("\"e\"".to_owned());
        assert_eq!(store.get("a", Some(&known)).await.expect("the same").fetched, Fetched::Unchanged);
        let reading = store.get("a", Some(&known)).await.expect("another");
        assert!(matches!(reading.fetched, Fetched::Found(object) if object.etag == ETag("\"f\"".to_owned())));
    });
    assert_eq!(requests.len(), 2);
}

#[test]
fn writes_are_stored_refused_or_unknown_and_never_lost_by_mistake() {
    let unknown = |cause| Ok::<_, Cause>(Err(cause));
    let table = [
        (say("200 OK", FOUND, ""), Ok(Ok(true))),
        (say("412 Precondition Failed", "", "PreconditionFailed"), Ok(Ok(false))),
        (say("409 Conflict", "", "ConditionalRequestConflict"), unknown(Cause::StoreUnavailable)),
        (say("503 Slow Down", "", "SlowDown"), unknown(Cause::Throttled)),
        (say("500 Oh", "", "InternalError"), unknown(Cause::StoreUnavailable)),
        (say("400 Bad Request", "", "RequestTimeout"), unknown(Cause::StoreUnavailable)),
        (Say::Nothing, unknown(Cause::StoreUnavailable)),
        (say("403 Forbidden", "", "AccessDenied"), Err(Cause::AccessDenied)),
        (say("404 Not Found", "", "NoSuchBucket"), Err(Cause::BucketMissing)),
        (say("501 Not Implemented", "", "NotImplemented"), Err(Cause::StoreUnconditional)),
    ];
    for (answer, expected) in table {
        with(vec![answer], |store| async move {
            let got = create(&store).await.map_err(|failure| failure.cause).map(|written| match written {
                Written::Stored(_) => Ok(true),
                Written::Refused => Ok(false),
                Written::Unknown(failure) => Err(failure.cause),
            });
            assert_eq!(got, expected);
        });
    }
}

#[test]
fn a_server_that_knows_no_lifecycle_rules_has_none() {
    for (status, code) in [("404 Not Found", "NoSuchLifecycleConfiguration"), ("501 Not Implemented", "NotImplemented")]
    {
        with(vec![say(status, "", code)], |store| async move {
            assert_eq!(store.expiry_rules().await, Ok(Vec::new()));
        });
    }
    with(vec![say("403 Forbidden", "", "AccessDenied")], |store| async move {
        assert_eq!(store.expiry_rules().await.map_err(|failure| failure.cause), Err(Cause::AccessDenied));
    });
}

#[test]
fn a_write_carries_its_conditions_and_a_plain_body() {
    let script =
        vec![say("200 OK", FOUND, ""), say("404 Not Found", "", "NoSuchKey"), say("412 No", "", "PreconditionFailed")];
    let requests = with(script, |store| async move {
        assert!(matches!(create(&store).await, Ok(Written::Stored(_))));
        let etag = ETag("\"e\"".to_owned());
        let replaced = store.put("a", b"x".to_vec(), Condition::Matches(etag.clone())).await;
        assert_eq!(replaced, Ok(Written::Refused), "404 on a replace: it was deleted meanwhile");
        assert_eq!(store.delete("a", &etag).await, Ok(Deleted::Refused));
    });
    assert!(requests[0].starts_with("put /acme/k8s/a"), "{}", requests[0]);
    for header in ["if-none-match: *", "x-amz-server-side-encryption: aws:kms", "content-length: 1"] {
        assert!(requests[0].contains(header), "{header} is not in {}", requests[0]);
    }
    assert!(!requests[0].contains("aws-chunked"), "{}", requests[0]);
    assert!(requests[1].contains("if-match: \"e\""), "{}", requests[1]);
    assert!(requests[2].contains("if-match: \"e\""), "{}", requests[2]);
}

#[test]
fn a_bucket_elsewhere_is_followed_once() {
    let elsewhere = || say("301 Moved", "x-amz-bucket-region: eu-west-1\r\n", "PermanentRedirect");
    let requests = with(vec![elsewhere(), say("200 OK", FOUND, ""), elsewhere()], |store| async move {
        assert!(matches!(get(&store).await, Ok(Fetched::Found(_))));
        let failure = get(&store).await.expect_err("the same region again is no news");
        assert_eq!(failure.cause, Cause::Configuration);
        assert!(failure.fix().contains("s3.region"), "{failure}");
    });
    assert!(requests[0].contains("/us-east-1/s3/"), "{}", requests[0]);
    assert!(requests[1].contains("/eu-west-1/s3/"), "{}", requests[1]);
}

#[test]
fn without_a_connection_a_write_certainly_did_not_happen() {
    with(Vec::new(), |store| async move {
        // The script is empty, so nobody listens any more once the server task has run.
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(create(&store).await.map_err(|failure| failure.cause), Err(Cause::Network));
    });
}

fn part_of(range: &str, content: &str) -> Say {
    let length = content.len();
    let headers = format!("{FOUND}content-range: bytes {range}\r\ncontent-length: {length}\r\n");
    Say::Answer(format!("HTTP/1.1 206 Partial Content\r\nconnection: close\r\n{headers}\r\n{content}"))
}

#[test]
fn a_large_object_comes_in_parts_of_one_version() {
    const PART: usize = 2 * 1024 * 1024;
    let (first, rest) = ("k".repeat(PART), "rest");
    let total = PART + rest.len();
    let script = vec![
        part_of(&format!("0-{}/{total}", PART - 1), &first),
        part_of(&format!("{PART}-{}/{total}", total - 1), rest),
        say("404 Not Found", "", "NoSuchKey"),
        part_of("0-2/3", "ab"),
        part_of("0-2097151/9000000", &first),
        say("412 Precondition Failed", "", "PreconditionFailed"),
        say("403 Forbidden", "", "AccessDenied"),
    ];
    let seen = with(script, async |store| {
        let files = InBucket(Rc::new(store));
        assert_eq!(files.place(), "s3://acme/k8s/install/");
        let mut opened = files.open("files/kubelet").await.expect("answer").expect("there");
        assert_eq!(opened.length, Some(total as u64));
        let mut read = 0;
        while let Some(bytes) = opened.body.next().await.expect("part") {
            read += bytes.len();
        }
        assert_eq!(read, total);
        assert!(files.open("files/absent").await.expect("answer").is_none());
        let Err(short) = files.open("files/short").await else { panic!("two bytes of three") };
        assert_eq!(short.cause, Cause::StoreUnavailable);
        let mut opened = files.open("files/replaced").await.expect("answer").expect("there");
        assert!(opened.body.next().await.is_ok());
        let replaced = opened.body.next().await.expect_err("another version");
        assert!(replaced.is_transient() && replaced.detail.contains("replaced"), "{replaced}");
        let Err(denied) = files.open("files/denied").await else { panic!("denied") };
        assert_eq!(denied.cause, Cause::AccessDenied);
        assert!(denied.fix().contains("arn:aws:s3:::acme/k8s/install/files/denied"), "{denied}");
    });
    assert!(seen[0].starts_with("get /acme/k8s/install/files/kubelet") && seen[0].contains("range: bytes=0-2097151"));
    assert!(seen[1].contains("range: bytes=2097152-4194303") && seen[1].contains("if-match: \"e\""), "{}", seen[1]);
}
