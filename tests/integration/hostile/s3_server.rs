//! An S3 server that lies: a rogue one that a name leads to, or one that is broken. Requests to it carry a session token, so
//! they must not go where it points. More: `s3.rs` and the adapters' own tests.

use super::rogue::{Reply, Rogue};
use super::{Attacker, Case, Ends, Scene, Waits};

/// Against a worker, and against a master where writing or listing is what is attacked.
pub const ATTACKER: Attacker = Attacker { who: "who runs the S3 server", scene: Scene::worker, cases: CASES };

/// The victim's store is a server that answers this to everything.
fn answers(scene: &mut Scene, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) {
    let server = Rogue::start(answer);
    let url = server.url();
    let text = scene.victim.read("/etc/kubestrap/config.yaml");
    let lines = text.lines().filter(|line| !line.starts_with("store:"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let store = format!("store: s3://bucket/k8s\ns3: {{ endpoint: '{url}', region: eu-central-1 }}\n");
    scene.victim.write("/etc/kubestrap/config.yaml", &format!("{text}\n{store}"));
    scene.environment("AWS_ACCESS_KEY_ID", "AKIATEST");
    scene.environment("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00");
    scene.environment("AWS_EC2_METADATA_DISABLED", "true");
    scene.servers.push(server);
}

/// The bundle is answered with this; everything else is absent.
fn bundle(scene: &mut Scene, answer: impl Fn() -> Reply + Send + Sync + 'static) {
    let register = scene.world.register().to_string();
    answers(scene, move |request| match request.strip_prefix("GET ") {
        Some(path) if path.contains("worker.json") => answer(),
        Some(path) if path.contains("cluster.json") => Reply::whole(200, ETAG, &register),
        _ => absent(),
    });
}

fn absent() -> Reply {
    error(404, "NoSuchKey", "The specified key does not exist.")
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    Reply::whole(status, "content-type: application/xml\r\n", body)
}

/// A redirect to somebody who must not be asked.
fn redirects(scene: &mut Scene, status: u16, more: &'static str) {
    let elsewhere = Rogue::silent();
    let headers = format!("location: {}/bucket/k8s/prod/join/worker.json\r\n{more}", elsewhere.url());
    scene.forbidden.push(elsewhere);
    bundle(scene, move || Reply::whole(status, &headers, ""));
}

/// A master instead; conditions hold on the one object that tests them, and lists are what the case says.
fn lists(scene: &mut Scene, list: impl Fn(&str) -> Reply + Send + Sync + 'static) {
    let role = scene.world.master("m2").read("/etc/kubestrap/config.yaml");
    scene.victim.write("/etc/kubestrap/config.yaml", &role.replace("name: m2", "name: w1"));
    answers(scene, move |request| if request.contains("list-type=2") { list(request) } else { absent() });
}

/// A page of keys that goes on behind `start-after`.
fn page(request: &str) -> Reply {
    let after = request.split("start-after=").nth(1).and_then(|rest| rest.split(['&', ' ']).next()).unwrap_or_default();
    let number: u64 =
        after.rsplit("fake-").next().and_then(|text| text.split("%2F").next()?.parse().ok()).unwrap_or_default();
    let prefix = request.split("prefix=").nth(1).and_then(|rest| rest.split(['&', ' ']).next()).unwrap_or_default();
    let prefix = prefix.replace("%2F", "/");
    let keys =
        (1..=1000).map(|n| format!("<Contents><Key>{prefix}fake-{:09}/report.json</Key></Contents>", number + n));
    list_of(true, &keys.collect::<String>())
}

fn list_of(more: bool, contents: &str) -> Reply {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <IsTruncated>{more}</IsTruncated>{contents}</ListBucketResult>"
    );
    Reply::whole(200, "content-type: application/xml\r\n", body)
}

const ETAG: &str = "etag: \"x\"\r\n";
const KEY: &str = "s3://bucket/k8s/prod/join/worker.json";

macro_rules! case {
    ($what:literal, $prepare:expr, $answer:expr, $cause:literal, $($says:expr),+) => {
        Case { name: $what, prepare: $prepare, answer: $answer, cause: $cause, says: &[$($says),+] }
    };
}

const CASES: &[Case] = &[
    case!(
        "a redirect to somebody else",
        |scene| redirects(scene, 307, ""),
        Ends(10),
        "configuration",
        KEY,
        "307",
        "s3.endpoint"
    ),
    case!("a moved bucket", |scene| redirects(scene, 301, ""), Ends(10), "configuration", KEY, "301", "s3.region"),
    case!(
        "a region that is another host",
        |scene| redirects(scene, 301, "x-amz-bucket-region: evil.example.com/\r\n"),
        Ends(10),
        "configuration",
        KEY,
        "301"
    ),
    case!(
        "an error without an end",
        |scene| bundle(scene, || Reply::endless(500, "")),
        Waits,
        "store-unavailable",
        KEY,
        "length limit exceeded"
    ),
    case!(
        "an object without an ETag",
        |scene| bundle(scene, || Reply::whole(200, "", "{}")),
        Waits,
        "store-unavailable",
        KEY,
        "has no ETag"
    ),
    case!(
        "an object that is shorter than it says",
        |scene| bundle(scene, || Reply::Bytes(
            format!("HTTP/1.1 200 X\r\n{ETAG}content-length: 500\r\n\r\n{{").into_bytes()
        )),
        Waits,
        "store-unavailable",
        KEY
    ),
    case!(
        "an object that says it is huge",
        |scene| bundle(scene, || Reply::Bytes(
            format!("HTTP/1.1 200 X\r\n{ETAG}content-length: 99999999999\r\n\r\n{{").into_bytes()
        )),
        Waits,
        "object-rejected",
        KEY,
        "larger than 65536 bytes"
    ),
    case!(
        "a page of a proxy for an object",
        |scene| bundle(scene, || Reply::whole(200, ETAG, "<html>Please log in</html>")),
        Waits,
        "object-rejected",
        "join/worker.json",
        "not JSON"
    ),
    case!(
        "a page of a proxy that says 404",
        |scene| bundle(scene, || Reply::whole(404, "", "<html>not found</html>")),
        Waits,
        "store-unavailable",
        KEY,
        "404"
    ),
    case!(
        "no HTTP at all",
        |scene| bundle(scene, || Reply::Bytes(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec())),
        Waits,
        "store-unavailable",
        KEY
    ),
    case!(
        "an error whose XML grows when it is read",
        |scene| bundle(scene, || {
            let lol = |n: u32| format!("<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10));
            let entities: String = (1..10).map(lol).collect();
            let body = format!(
                "<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY l0 \"lol\">{entities}]><Error><Code>&l9;</Code></Error>"
            );
            Reply::whole(403, "content-type: application/xml\r\n", body)
        }),
        Waits,
        "access-denied",
        KEY
    ),
    case!(
        "an error that writes to the terminal",
        |scene| bundle(scene, || error(400, "Bad\u{9b}31m", "\u{202e}all is well")),
        Ends(10),
        "configuration",
        KEY,
        "all is well"
    ),
    case!(
        "a list without an end",
        |scene| lists(scene, |_| Reply::endless(200, "content-type: application/xml\r\n")),
        Waits,
        "store-unavailable",
        "list s3://bucket/k8s/prod/",
        "length limit exceeded"
    ),
    case!(
        "pages without an end",
        |scene| lists(scene, page),
        Waits,
        "object-rejected",
        "list prod/",
        "more than 200000 objects"
    ),
    case!(
        "a list that promises more and gives nothing",
        |scene| lists(scene, |_| list_of(true, "")),
        Waits,
        "store-unavailable",
        "list prod/",
        "more keys and does not give them"
    ),
];

#[test]
fn an_agent_withstands_it() {
    super::withstands(&ATTACKER);
}

/// Writes that are stored whatever their condition: two masters would make two clusters.
#[test]
fn a_server_that_ignores_conditions_is_refused_before_init() {
    let mut scene = Scene::master();
    answers(&mut scene, |request| match request.split(' ').next() {
        Some("PUT") => Reply::whole(200, ETAG, ""),
        _ if request.contains("list-type=2") => list_of(false, ""),
        _ => absent(),
    });
    let said = crate::process::finish(&mut scene.command()).expect(11).says(&["store-unconditional"]).said();
    assert!(said.contains("If-None-Match"), "{said}");
    assert_eq!(scene.victim.begun("init"), 0);
}
