use kubestrap_testkit::http::Background;
use kubestrap_testkit::imds::{Config, Imds};
use kubestrap_testkit::s3stub::{S3Stub, Script};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One request on a connection of its own: status (0: closed without an answer), headers, body.
fn ask(address: SocketAddr, line: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("connect");
    let mut text =
        format!("{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    write!(stream, "{text}\r\n{body}").expect("send");
    let mut answer = Vec::new();
    // A reset is how an aborted answer ends.
    let _ = Read::by_ref(&mut stream).take(1 << 20).read_to_end(&mut answer);
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return (0, String::new(), Vec::new()) };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, head, answer[end + 4..].to_vec())
}

fn imds(config: &str) -> (Arc<Imds>, SocketAddr) {
    let config: Config = serde_saphyr::from_str(config).expect("config");
    let service = Arc::new(Imds::new(config));
    let server = Background::start(SocketAddr::from(([127, 0, 0, 1], 0)), service.clone()).expect("server");
    (service, server.address)
}

fn token(address: SocketAddr, ttl: &str) -> (u16, String) {
    let (status, _, body) = ask(address, "PUT /latest/api/token", &[("x-aws-ec2-metadata-token-ttl-seconds", ttl)], "");
    (status, String::from_utf8_lossy(&body).into_owned())
}

const INSTANCE: &str = "{instance_id: i-1, account: '123456789012', region: eu-central-1, user_data: hello, role: {name: r, \
                        access_key_id: A, secret_access_key: S, token: T, expiration: '2099-01-01T00:00:00Z'}}";

#[test]
fn metadata_needs_a_token_that_lives() {
    let (service, address) = imds(&format!("instances: [{INSTANCE}]"));
    assert_eq!(ask(address, "GET /latest/meta-data/instance-id", &[], "").0, 401, "version 1 is refused");
    assert_eq!((token(address, "0").0, token(address, "21601").0, token(address, "x").0), (400, 400, 400));
    let (status, token) = token(address, "1");
    assert_eq!(status, 200);
    let get = |path: &str| {
        let (status, _, body) =
            ask(address, &format!("GET /latest/{path}"), &[("x-aws-ec2-metadata-token", &token)], "");
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    assert_eq!(get("meta-data/instance-id"), (200, "i-1".to_owned()));
    assert_eq!(get("user-data"), (200, "hello".to_owned()));
    assert_eq!(get("meta-data/tags/instance").0, 404, "tags are not enabled");
    assert_eq!(get("meta-data/iam/security-credentials/"), (200, "r".to_owned()));
    let document: serde_json::Value = serde_json::from_str(&get("dynamic/instance-identity/document").1).expect("JSON");
    assert_eq!(document["accountId"], "123456789012");
    let began = Instant::now();
    while get("meta-data/instance-id").0 == 200 {
        assert!(began.elapsed() < Duration::from_secs(5), "the token does not die");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(get("meta-data/instance-id").0, 401);
    assert_eq!(service.count("user-data"), 1);
}

#[test]
fn instances_are_told_apart_and_faults_come_and_go() {
    let (_, address) = imds(
        "instances: [{source: 127.0.0.9, instance_id: i-9}, {source: 127.0.0.1, instance_id: i-1}]\n\
         faults: [{path: instance-id, status: 500, times: 2}, {path: ami-id, garbage: true}]",
    );
    let (_, token) = token(address, "60");
    let get = |path: &str| {
        ask(address, &format!("GET /latest/meta-data/{path}"), &[("x-aws-ec2-metadata-token", &token)], "")
    };
    assert_eq!((get("instance-id").0, get("instance-id").0, get("instance-id").0), (500, 500, 200));
    assert_eq!(get("instance-id").2, b"i-1");
    assert!(String::from_utf8(get("ami-id").2).is_err());
    let (_, late) = imds("instances: []\nlate_seconds: 60");
    assert_eq!(ask(late, "GET /latest/user-data", &[], "").0, 0, "nobody is there yet");
    assert!(serde_saphyr::from_str::<Config>("instances: []\nfault: []").is_err());
}

fn stub(script: &str) -> (S3Stub, SocketAddr) {
    let stub = S3Stub::new(serde_saphyr::from_str::<Script>(script).expect("script"));
    let server = Background::start(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::new(stub.clone())).expect("server");
    (stub, server.address)
}

#[test]
fn conditions_hold_in_the_bucket() {
    let (stub, address) = stub("{}");
    let put = |condition: (&str, &str), body: &str| ask(address, "PUT /bucket/p/a", &[condition], body).0;
    assert_eq!(put(("if-none-match", "*"), "one"), 200);
    assert_eq!(put(("if-none-match", "*"), "two"), 412);
    let etag = stub.object("p/a").expect("stored").etag;
    assert_eq!(put(("if-match", "\"other\""), "two"), 412);
    assert_eq!(ask(address, "PUT /bucket/p/b", &[("if-match", &etag)], "x").0, 404);
    let (status, head, _) = ask(address, "GET /bucket/p/a", &[("if-none-match", &etag)], "");
    assert!(status == 304 && head.contains("etag:") && head.contains("date:"), "{head}");
    assert_eq!(put(("if-match", &etag), "two"), 200);
    let (_, head, body) = ask(address, "GET /bucket/p/a", &[], "");
    assert!(head.contains("last-modified:") && body == b"two");
    let (_, _, list) = ask(address, "GET /bucket?list-type=2&prefix=p%2F", &[], "");
    assert!(String::from_utf8_lossy(&list).contains("<Key>p/a</Key>"));
    assert_eq!(ask(address, "DELETE /bucket/p/a", &[("if-match", &etag)], "").0, 412);
    assert_eq!(ask(address, "DELETE /bucket/p/a", &[], "").0, 204);
    assert_eq!(ask(address, "GET /bucket/p/a", &[], "").0, 404);
    assert_eq!(ask(address, "GET /other/p/a", &[], "").0, 404);
    assert_eq!(ask(address, "GET /bucket/p/a", &[("x-amz-expected-bucket-owner", "000000000000")], "").0, 403);
    assert_eq!(stub.requests()[0].if_none_match.as_deref(), Some("*"));
}

#[test]
fn the_bucket_misbehaves_as_it_is_told() {
    let (stub, address) = stub(
        "list_allowed: false\nfaults:\n- {method: PUT, key: conflict, action: conflict, times: 1}\n\
         - {method: PUT, key: slow, action: slow_down}\n- {method: PUT, key: lost, action: lost_answer}\n\
         - {method: PUT, key: request, action: lost_request}\n- {method: PUT, key: late, action: late_write, seconds: 0.2}\n\
         - {key: region, action: wrong_region}\n- {key: gone, action: no_such_bucket}\n- {key: big, action: endless}\n\
         - {key: garbage, action: garbage}\n- {method: PUT, key: done, action: done_but_error, after: 1, times: 1}\n",
    );
    let put = |key: &str| ask(address, &format!("PUT /bucket/{key}"), &[("if-none-match", "*")], "x").0;
    assert_eq!(ask(address, "GET /bucket/missing", &[], "").0, 403, "without ListBucket a missing key is forbidden");
    assert_eq!((put("conflict"), put("conflict")), (409, 200));
    assert_eq!((put("slow"), stub.object("slow").is_some()), (503, false));
    assert_eq!((put("lost"), stub.object("lost").is_some()), (0, true));
    assert_eq!((put("request"), stub.object("request").is_some()), (0, false));
    assert_eq!((put("late"), stub.object("late").is_some()), (500, false));
    crate::machine::eventually("the late write lands", || stub.object("late").is_some());
    let (status, head, _) = ask(address, "GET /bucket/region", &[], "");
    assert!(status == 301 && head.contains("x-amz-bucket-region: ap-southeast-2"), "{head}");
    assert_eq!(put("gone"), 404);
    let (status, _, body) = ask(address, "GET /bucket/big", &[], "");
    assert!(status == 200 && body.len() > 900_000, "it goes on and on");
    assert!(String::from_utf8(ask(address, "GET /bucket/garbage", &[], "").2).is_err());
    assert_eq!((put("done1"), put("done2"), put("done3")), (200, 500, 200));
    assert!(stub.object("done2").is_some());
}
