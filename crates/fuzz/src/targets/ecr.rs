//! What the kubelet's plugin for ECR reads: the kubelet's request, an image, ECR's token, the cache; and the kubelet's
//! configuration that people wrote.

use super::{is_readable, text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use kubestrap_core::config::{Layer, load};
use kubestrap_core::ecr::cache::{Entry, Key, Way, way};
use kubestrap_core::ecr::host::{Api, Registry};
use kubestrap_core::ecr::image::registry_of;
use kubestrap_core::ecr::plugin::{self, Mirrors};
use kubestrap_core::ecr::provider_config::{self, Provider, Rest};
use kubestrap_core::ecr::token::{LONGEST_LIFE, Login};
use kubestrap_core::model::secret::Secret;
use kubestrap_core::ports::{RegistryToken, TokenRequest};
use serde_json::Value;

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
/// The one host outside ECR that gets a login.
const MIRROR: &str = "mirror.example:5000";
/// The domains that registries lie in (the list of facts, not that of the code).
const SUFFIXES: &[&str] = &[
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "on.aws",
    "on.amazonwebservices.com.cn",
    "sc2s.sgov.gov",
    "c2s.ic.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
];

fn now() -> Timestamp {
    Timestamp::from_second(1_795_219_200).expect("a time")
}

fn mirrors() -> Mirrors {
    let mut mirrors = Mirrors::default();
    mirrors.add(MIRROR, HOST).expect("a mirror");
    mirrors
}

/// Whether a host is one of ECR's, judged label by label, which the product does not.
fn is_ecr(host: &str) -> bool {
    if ["public.ecr.aws", "ecr-public.aws.com"].contains(&host) {
        return true;
    }
    let labels: Vec<&str> = host.split('.').collect();
    let (account, rest) = match labels.as_slice() {
        [account, "dkr", "ecr" | "ecr-fips", rest @ ..] | [account, "dkr-ecr" | "dkr-ecr-fips", rest @ ..] => {
            (account, rest)
        }
        _ => return false,
    };
    let [region, suffix @ ..] = rest else { return false };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    account.len() == 12
        && account.chars().all(|c| c.is_ascii_digit())
        && !region.is_empty()
        && region.chars().all(plain)
        && SUFFIXES.contains(&suffix.join(".").as_str())
}

/// The host that a login is for is the host of the image, and ECR's or listed.
fn is_deserved(image: &str, host: &str) {
    assert!(is_ecr(host) || host == MIRROR, "{image:?} gets a login for {host:?}");
    let behind = image.strip_prefix(host).unwrap_or_else(|| panic!("{image:?} is not at {host:?}"));
    assert!(behind.starts_with('/') || behind.starts_with(":443/"), "{image:?} is not at {host:?}");
}

/// A request of the kubelet: refused with words, or answered with one document that has a login for one host.
pub(super) fn request(bytes: &[u8]) {
    let request = match plugin::decode(bytes) {
        Err(failure) => return is_readable(&failure),
        Ok(request) => request,
    };
    let document: Value = serde_json::from_slice(bytes).expect("it was taken for JSON");
    assert_eq!(document["image"], request.image, "another image than the one in the request");
    if let Some(account) = &request.account {
        assert_eq!(document["serviceAccountToken"], account.token.expose());
        if let Err(failure) = plugin::subject(&account.token) {
            is_readable(&failure);
        }
    }
    match plugin::wanted(&request, &mirrors(), Some("arn:aws:iam::123456789012:role/default")) {
        Err(failure) => is_readable(&failure),
        Ok(wanted) => {
            is_deserved(&request.image, &wanted.host);
            let login = Login { username: "AWS".into(), password: Secret::new("p\"\\"), expires_at: now() };
            let response = plugin::response(&wanted.host, &login, now(), None);
            let response: Value = serde_json::from_str(response.expose()).expect("a response is JSON");
            let hosts: Vec<&String> = response["auth"].as_object().expect("a map").keys().collect();
            assert_eq!((hosts, &response["cacheDuration"]), (vec![&wanted.host], &"0s".into()));
        }
    }
}

/// An image, or a host: what is taken for ECR's is ECR's, letter by letter.
pub(super) fn image(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(found) = registry_of(&text) {
        let behind = text.strip_prefix(found.whole).unwrap_or_else(|| panic!("{text:?}: {found:?}"));
        assert!(behind.starts_with('/') && behind.len() > 1, "{text:?}: {found:?}");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-:".contains(c);
        assert!(found.whole.chars().all(plain), "{found:?}");
    }
    for host in [&text[..], text.split('/').next().unwrap_or_default()] {
        let Some(registry) = Registry::parse(host) else { continue };
        assert!(is_ecr(host) && registry.host() == host, "{host:?}");
        if let (Some(account), Api::Private { region, .. }) = (registry.account(), registry.api()) {
            assert!(host.starts_with(account) && host.contains(&format!(".{region}.")), "{host:?}");
            let usual = Registry::private(account, region).unwrap_or_else(|| panic!("{host:?} has no usual host"));
            assert_eq!(usual.region(), region, "{host:?}");
        }
    }
    let request = plugin::Request { image: text.clone(), account: None };
    match plugin::wanted(&request, &mirrors(), None) {
        Err(failure) => is_readable(&failure),
        Ok(wanted) => is_deserved(&text, &wanted.host),
    }
}

/// Authorization data of ECR, as it stands and as what a token hides.
pub(super) fn token(bytes: &[u8]) {
    let plain = STANDARD.encode(bytes);
    for (authorization, expires_at) in [(text(bytes), None), (plain, Some(Timestamp::MAX))] {
        let given = RegistryToken { authorization: Secret::new(authorization.clone()), expires_at };
        match Login::read(&given, now()) {
            Err(failure) => {
                is_readable(&failure);
                let said = failure.to_string();
                assert!(authorization.len() < 24 || !said.contains(&authorization), "an error with the token");
            }
            Ok(login) => {
                let basic = login.basic();
                let hidden = STANDARD.decode(basic.expose().strip_prefix("Basic ").expect("basic")).expect("base64");
                assert_eq!(hidden, STANDARD.decode(&authorization).expect("base64"), "another login than ECR's");
                assert!(!hidden.iter().any(u8::is_ascii_control), "a header of two lines");
                assert!(login.expires_at <= now() + LONGEST_LIFE, "it lives until {}", login.expires_at);
            }
        }
    }
}

/// A file of the cache: ours, whole and of this key, or as good as absent.
pub(super) fn cache(bytes: &[u8]) {
    let request = TokenRequest { api: Registry::parse(HOST).expect("a host").api().clone(), role: None };
    let key = Key::of(&request, &[]).expect("a key");
    let Some(entry) = Entry::read(bytes, &key) else { return };
    if let Some((failure, _)) = &entry.failure {
        is_readable(failure);
    }
    let back = Entry::read(entry.render(&key).expose().as_bytes(), &key).expect("what we write we can read");
    assert_eq!(back.login, entry.login);
    match way(Some(&entry), now(), now()) {
        Way::Answer(login) => {
            let just_got = entry.login.as_ref().is_some_and(|(_, got_at)| *got_at == now());
            assert!(just_got || !login.life(now()).is_zero(), "a dead login is handed out");
        }
        Way::Spare(login, _) => assert!(!login.life(now()).is_zero(), "a dead login is handed out"),
        Way::Share(_) | Way::Ask => {}
    }
    if let Some(login) = entry.living(now()) {
        let most = LONGEST_LIFE + SignedDuration::from_mins(10);
        assert!(login.expires_at <= now() + most, "a login that lives until {}", login.expires_at);
    }
}

/// The kubelet's configuration of its plugins: our entry goes in and out, and everything else stays.
pub(super) fn provider_config(bytes: &[u8]) {
    const PATH: &str = "/etc/kubernetes/credential-providers.yaml";
    const NAME: &str = "kubestrap";
    let Ok(existing) = std::str::from_utf8(bytes) else { return };
    let minimal = "cluster: prod\nrole: worker\nstore: s3://acme/k8s\necr: { enabled: true }\n";
    let settings = load(vec![Layer::document("a test", minimal.to_owned())]).expect("a configuration").settings;
    let provider = Provider::new(NAME, &settings);
    let merged = match provider_config::merge(PATH, Some(existing), &provider) {
        Err(failure) => return is_readable(&failure),
        Ok(merged) => merged,
    };
    assert_eq!(provider_config::has(PATH, &merged.text, NAME), Ok(true), "{}", merged.text);
    let again = provider_config::merge(PATH, Some(&merged.text), &provider).expect("what we wrote");
    assert_eq!(again, merged, "the second time it is another file");
    match provider_config::remove(PATH, &merged.text, NAME).expect("what we wrote") {
        Rest::Untouched => panic!("our entry stays"),
        Rest::Nothing => {}
        Rest::Text(rest) => assert_eq!(provider_config::has(PATH, &rest, NAME), Ok(false), "{rest}"),
    }
}
