//! Somebody who answers in the metadata service's place: a proxy, a rogue in the network of the pods, or a service that
//! lies. What it says becomes names, object keys, hosts and flags. More: `ec2.rs`.

use super::rogue::{Reply, Rogue};
use super::{Attacker, Case, Ends, Scene, Waits};

/// Against a worker on EC2.
pub const ATTACKER: Attacker =
    Attacker { who: "who answers in the metadata service's place", scene: Scene::worker, cases: CASES };

const DOCUMENT: &str = r#"{"accountId":"123456789012","architecture":"x86_64","availabilityZone":"eu-central-1b",
    "imageId":"ami-0abc","instanceId":"i-0123456789abcdef0","instanceType":"m7g.large","privateIp":"10.0.0.7",
    "region":"eu-central-1","version":"2017-09-30"}"#;

/// A good service but for one path.
fn good(request: &str) -> Reply {
    let body = match request.split(' ').nth(1).unwrap_or_default() {
        "/latest/api/token" => "a-token",
        "/latest/dynamic/instance-identity/document" => DOCUMENT,
        "/latest/meta-data/local-hostname" => "ip-10-0-0-7.eu-central-1.compute.internal",
        "/latest/meta-data/services/partition" => "aws",
        _ => return Reply::whole(404, "", ""),
    };
    Reply::whole(200, "", body)
}

/// The victim asks a service that answers this on that path.
fn answers(scene: &mut Scene, path: &'static str, bad: impl Fn() -> Reply + Send + Sync + 'static) {
    let imds = Rogue::start(move |request| if request.contains(path) { bad() } else { good(request) });
    let store = scene.world.path("store").display().to_string();
    let url = imds.url();
    scene.victim.write(
        "/etc/kubestrap/config.yaml",
        &format!(
            "cluster: prod\nrole: worker\nstore: file://{store}\nidentity: ec2\naws: {{ metadata_endpoint: '{url}', ecr_endpoint: 'http://127.0.0.1:9' }}\n"
        ),
    );
    scene.servers.push(imds);
}

/// The document with another value.
fn lies(scene: &mut Scene, from: &'static str, to: &'static str) {
    assert!(DOCUMENT.contains(from), "{from}");
    answers(scene, "instance-identity", move || Reply::whole(200, "", DOCUMENT.replace(from, to)));
}

/// A redirect to somebody who must not be asked.
fn redirects(scene: &mut Scene, path: &'static str, status: u16) {
    let elsewhere = Rogue::silent();
    let headers = format!("location: {}/latest/{path}\r\n", elsewhere.url());
    scene.forbidden.push(elsewhere);
    answers(scene, path, move || Reply::whole(status, &headers, ""));
}

/// A gzip of so many zeros that it fits into user-data.
fn bomb() -> Vec<u8> {
    let zeros = std::process::Command::new("sh").args(["-c", "head -c 15000000 /dev/zero | gzip -9"]).output();
    zeros.expect("gzip").stdout
}

macro_rules! lie {
    ($what:literal, $from:literal, $to:literal, $said:expr) => {
        Case {
            name: $what,
            prepare: |scene| lies(scene, $from, $to),
            answer: Ends(12),
            cause: "metadata-unavailable",
            says: &["dynamic/instance-identity/document", $said],
        }
    };
}
macro_rules! bad {
    ($what:literal, $prepare:expr, $answer:expr, $($says:expr),+) => {
        Case { name: $what, prepare: $prepare, answer: $answer, cause: "metadata-unavailable", says: &[$($says),+] }
    };
}

const CASES: &[Case] = &[
    bad!("a redirect of the token", |scene| redirects(scene, "api/token", 307), Waits, "api/token", "307"),
    bad!(
        "a redirect of the document",
        |scene| redirects(scene, "instance-identity", 302),
        Waits,
        "instance-identity",
        "302"
    ),
    bad!("a redirect of the user-data", |scene| redirects(scene, "user-data", 301), Waits, "user-data", "301"),
    bad!(
        "a token of a megabyte",
        |scene| answers(scene, "api/token", || Reply::whole(200, "", "x".repeat(1 << 20))),
        Waits,
        "api/token",
        "larger than 65536 bytes"
    ),
    bad!(
        "a token that adds a header",
        |scene| answers(scene, "api/token", || Reply::whole(200, "", "a\r\nx-forwarded-for: evil")),
        Waits,
        "token"
    ),
    bad!(
        "a document without an end",
        |scene| answers(scene, "instance-identity", || Reply::endless(200, "")),
        Waits,
        "instance-identity",
        "larger than 65536 bytes"
    ),
    bad!(
        "user-data without an end",
        |scene| answers(scene, "user-data", || Reply::endless(200, "")),
        Waits,
        "user-data",
        "larger than 65536 bytes"
    ),
    bad!(
        "a page of a proxy for the document",
        |scene| answers(scene, "instance-identity", || Reply::whole(200, "", "<html>Please log in</html>")),
        Ends(12),
        "dynamic/instance-identity/document"
    ),
    bad!(
        "a page of a proxy for the name",
        |scene| answers(scene, "local-hostname", || Reply::whole(200, "", "<html>Please log in</html>")),
        Ends(12),
        "meta-data/local-hostname",
        "is not a DNS name",
        "find out who answers at the metadata address"
    ),
    bad!(
        "a name that climbs",
        |scene| answers(scene, "local-hostname", || Reply::whole(200, "", "../../etc/passwd")),
        Ends(12),
        "meta-data/local-hostname",
        "is not a DNS name"
    ),
    bad!(
        "a name that writes to the terminal",
        |scene| answers(scene, "local-hostname", || Reply::whole(200, "", "w1\u{1b}[2J\u{202e}x")),
        Ends(12),
        "meta-data/local-hostname",
        "is not a DNS name"
    ),
    lie!(
        "a region that is another host",
        "\"region\":\"eu-central-1\"",
        "\"region\":\"eu-west-1.evil.example.com\"",
        "region is"
    ),
    lie!("a region with a path", "\"region\":\"eu-central-1\"", "\"region\":\"x/../../evil\"", "region is"),
    lie!("an instance id that climbs", "i-0123456789abcdef0", "i-../../../cluster.json", "instanceId is"),
    lie!("an instance id that is no id", "i-0123456789abcdef0", "bastion", "instanceId is"),
    lie!("an account that is none", "123456789012", "1234*6789012", "accountId is"),
    lie!("a zone that adds a flag", "eu-central-1b", "eu-central-1b --v=9", "availabilityZone is"),
    lie!("an instance type that adds labels", "m7g.large", "m7g.large,node-role.kubernetes.io/x=y", "instanceType is"),
    lie!("an image that is none", "ami-0abc", "ami-0abc' || reboot", "imageId is"),
    bad!(
        "an address that is none",
        |scene| lies(scene, "10.0.0.7", "10.0.0.7; reboot"),
        Ends(12),
        "find this machine's address",
        "is not an address"
    ),
    Case {
        name: "user-data of 15 KiB that would unpack to 15 MB",
        prepare: |scene| {
            answers(scene, "user-data", || Reply::whole(200, "", bomb()));
            // All that is configured would come from it.
            let text = scene.victim.read("/etc/kubestrap/config.yaml");
            let early = text.lines().filter(|line| line.starts_with("identity") || line.starts_with("aws"));
            let early = early.collect::<Vec<_>>().join("\n");
            scene.victim.write("/etc/kubestrap/config.yaml", &format!("{early}\n"));
        },
        answer: Ends(10),
        cause: "configuration",
        says: &["`cluster`", "the user-data is not kubestrap's", "cannot be decompressed to at most 1 MiB"],
    },
];

#[test]
fn a_worker_withstands_it() {
    super::withstands(&ATTACKER);
}
