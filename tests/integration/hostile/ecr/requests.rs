//! Requests that the kubelet does not send.

use super::{Answer, HOST, PASSWORD, Plugin, answer, each, request, well};
use crate::peer::Peer;
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// A request, and how it is refused.
pub struct Case {
    /// What is wrong.
    pub name: &'static str,
    /// What is sent.
    input: fn() -> Vec<u8>,
    /// What is said.
    why: &'static str,
}

/// The good request with something else in it; a secret that must not be repeated is planted beside.
fn with(name: &str, value: Value) -> Vec<u8> {
    let mut document = request(&format!("{HOST}/app"));
    document["serviceAccountToken"] = json!(format!("h.{PASSWORD}.s"));
    document[name] = value;
    document.to_string().into_bytes()
}

fn without(name: &str) -> Vec<u8> {
    let mut document = request(&format!("{HOST}/app"));
    document.as_object_mut().expect("an object").remove(name);
    document.to_string().into_bytes()
}

fn good() -> Vec<u8> {
    request(&format!("{HOST}/app")).to_string().into_bytes()
}

const NO_REQUEST: &str = "it is no CredentialProviderRequest";
const TOO_LONG: &str = "it has more than 524288 bytes";

macro_rules! case {
    ($name:literal, $why:expr, $input:expr) => {
        Case { name: $name, input: || $input, why: $why }
    };
}

/// Each ends with exit code 2.
pub const CASES: &[Case] = &[
    case!("nothing", "there is none", Vec::new()),
    case!("white space", NO_REQUEST, b" \n ".to_vec()),
    case!("another kind", "CredentialProviderResponse", with("kind", json!("CredentialProviderResponse"))),
    case!("an empty kind", "it is a \"\"", with("kind", json!(""))),
    case!("no kind", NO_REQUEST, without("kind")),
    case!("a kind in another case", "credentialproviderrequest", with("kind", json!("credentialproviderrequest"))),
    case!("a kind that commands a terminal", "it is a", with("kind", json!("\u{1b}]0;x\u{7}\u{202e}"))),
    case!("an older apiVersion", "v1beta1", with("apiVersion", json!("credentialprovider.kubelet.k8s.io/v1beta1"))),
    case!("a newer apiVersion", "/v2", with("apiVersion", json!("credentialprovider.kubelet.k8s.io/v2"))),
    case!("no apiVersion", NO_REQUEST, without("apiVersion")),
    case!("an unknown field", NO_REQUEST, with("registry", json!("evil.example"))),
    case!("a field in another case", NO_REQUEST, with("Image", json!("evil.example/app"))),
    case!("no image", NO_REQUEST, without("image")),
    case!("an image that is null", NO_REQUEST, with("image", Value::Null)),
    case!("an image that is a number", NO_REQUEST, with("image", json!(7))),
    case!("an image that is a list", NO_REQUEST, with("image", json!([format!("{HOST}/app")]))),
    case!("an empty image", "it is empty", with("image", json!(""))),
    case!(
        "an image of 100 KB",
        "a reference has at most 1024",
        with("image", json!(format!("{HOST}/{}", "a".repeat(100_000))))
    ),
    case!(
        "a service account token that is an object",
        NO_REQUEST,
        with("serviceAccountToken", json!({ "a": PASSWORD }))
    ),
    case!("annotations that are a list", NO_REQUEST, with("serviceAccountAnnotations", json!([PASSWORD]))),
    case!("an annotation that is a number", NO_REQUEST, with("serviceAccountAnnotations", json!({ "a": 1 }))),
    case!("two documents", NO_REQUEST, [good(), good()].concat()),
    case!("two documents on two lines", NO_REQUEST, [good(), b"\n".to_vec(), good()].concat()),
    case!("something behind the document", NO_REQUEST, [good(), b"x".to_vec()].concat()),
    case!("a list of documents", NO_REQUEST, [b"[".to_vec(), good(), b"]".to_vec()].concat()),
    case!("a document that is cut off", NO_REQUEST, good()[..good().len() - 1].to_vec()),
    case!("a field twice", NO_REQUEST, {
        let good = String::from_utf8(good()).expect("UTF-8");
        good.replace("\"image\":", "\"image\":\"evil.example/app\",\"image\":").into_bytes()
    }),
    case!(
        "YAML",
        NO_REQUEST,
        b"apiVersion: credentialprovider.kubelet.k8s.io/v1\nkind: CredentialProviderRequest\n".to_vec()
    ),
    case!("a byte order mark", NO_REQUEST, [b"\xef\xbb\xbf".to_vec(), good()].concat()),
    case!(
        "UTF-16",
        NO_REQUEST,
        String::from_utf8(good()).expect("UTF-8").encode_utf16().flat_map(u16::to_le_bytes).collect()
    ),
    case!(
        "bytes that are no UTF-8",
        NO_REQUEST,
        with("image", json!("MARK")).iter().map(|byte| if *byte == b'M' { 0xff } else { *byte }).collect()
    ),
    case!("a hundred thousand brackets", NO_REQUEST, vec![b'['; 100_000]),
    case!(
        "half a surrogate pair",
        NO_REQUEST,
        good().strip_suffix(b"}").map(|head| [head, b",\"image\":\"\\ud800\"}"].concat()).expect("a brace")
    ),
    case!("10 MB of an image", TOO_LONG, with("image", json!("a".repeat(10_000_000)))),
    case!("10 MB of white space before it", TOO_LONG, [vec![b' '; 10_000_000], good()].concat()),
    case!("10 MB of white space behind it", TOO_LONG, [good(), vec![b' '; 10_000_000]].concat()),
    case!("10 MB of nothing", TOO_LONG, vec![0; 10_000_000]),
];

#[test]
fn what_the_kubelet_does_not_send_is_refused() {
    let aws = Peer::start(well);
    let plugin = Plugin::of(&aws);
    each(
        4,
        CASES,
        |case| case.name.to_owned(),
        |case| {
            answer(&mut plugin.command_with(&plugin.cache(), &[]), &(case.input)()).refused(2, case.why);
        },
    );
    assert_eq!((aws.requests(), plugin.cache().exists()), (0, false));
}

/// Standard streams that are closed, folders, or full.
#[test]
fn strange_streams_end_it_and_nobody_is_asked_for_nothing() {
    let aws = Peer::start(well);
    let plugin = Plugin::of(&aws);
    let through = |script: &str| {
        let own = plugin.command_with(&plugin.cache(), &[]);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script, "sh"]).arg(own.get_program()).args(own.get_args()).env_clear();
        own.get_envs().for_each(|(name, value)| {
            shell.env(name, value.expect("a value"));
        });
        shell.env("REQUEST", request(&format!("{HOST}/app")).to_string()).stdin(Stdio::null());
        Answer::of(shell.output().expect("sh"))
    };
    through("exec \"$@\" <&-").refused(2, "there is none");
    through("exec \"$@\" </dev/null").refused(2, "there is none");
    let folder = through("exec \"$@\" </");
    assert!(folder.code.is_some_and(|code| code != 0) && folder.stdout.is_empty(), "{}", folder.stderr);
    assert_eq!(aws.requests(), 0);
    // A response that does not get through is a failure, for the kubelet must not take a part of it.
    let full = through("printf %s \"$REQUEST\" | \"$@\" >/dev/full");
    assert!(full.code.is_some_and(|code| code != 0), "{}", full.stderr);
    full.is_discreet();
    // Nobody listens to the reasons: the answer is the same.
    let mute = through("printf %s \"$REQUEST\" | \"$@\" 2>&-");
    mute.login_for(HOST);
}
