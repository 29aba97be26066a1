//! The kubelet's contract for credential providers (`credentialprovider.kubelet.k8s.io/v1`, k8s.io/kubelet
//! `pkg/apis/credentialprovider/v1/types.go`): one request in, one response out, decoded strictly on both sides.

use super::host::Registry;
use super::image::registry_of;
use super::token::Login;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::secret::Secret;
use crate::ports::{TokenRequest, WebIdentity};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The largest request that is read, in bytes: annotations are at most 256 KiB, a token some 2 KiB.
pub const MAX_REQUEST: usize = 512 * 1024;
const API_VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";
/// The verb of our program that is the plugin, and the name under which it is nothing else.
pub const VERB: &str = "ecr-credential-provider";
/// The annotation of a service account with the role that its pods pull by; the upstream plugin's.
pub const ROLE_ANNOTATION: &str = "eks.amazonaws.com/ecr-role-arn";
/// How long the kubelet need not ask again where it pulls anonymously.
const ANONYMOUS_FOR: Duration = Duration::from_secs(10 * 60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RequestDocument {
    api_version: String,
    kind: String,
    image: String,
    service_account_token: Option<String>,
    service_account_annotations: Option<BTreeMap<String, String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseDocument<'a> {
    api_version: &'static str,
    kind: &'static str,
    cache_key_type: &'static str,
    cache_duration: String,
    auth: BTreeMap<&'a str, Auth<'a>>,
}

#[derive(Serialize)]
struct Auth<'a> {
    username: &'a str,
    password: &'a str,
}

/// What the kubelet wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The image that is pulled.
    pub image: String,
    /// The pod's service account, when it pulls by itself.
    pub account: Option<ServiceAccount>,
}

/// The service account of the pod that the image is pulled for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its token, made by the kubelet for this purpose.
    pub token: Secret,
    /// The role its annotation asks for.
    pub role: Option<String>,
}

/// Reads a request.
///
/// # Errors
/// `Usage`, when it is not exactly one document of the right kind; no value of it is repeated but the kind.
pub fn decode(input: &[u8]) -> Outcome<Request> {
    let bad = |why: String| {
        Failure::new(Cause::Usage, "read the kubelet's request on standard input", why)
            .advise("the kubelet starts this program; by hand use `kubestrap ecr token --registry HOST`")
    };
    if input.is_empty() {
        return Err(bad("there is none".to_owned()));
    }
    if input.len() > MAX_REQUEST {
        return Err(bad(format!("it has more than {MAX_REQUEST} bytes")));
    }
    // serde names unknown fields, and the texts of values of a wrong type; those may be a token.
    let document: RequestDocument = serde_json::from_slice(input).map_err(|error| {
        bad(format!("it is no CredentialProviderRequest (line {}, column {})", error.line(), error.column()))
    })?;
    if document.api_version != API_VERSION || document.kind != "CredentialProviderRequest" {
        let shown = |text: &str| text.chars().take(64).collect::<String>();
        let (version, kind) = (shown(&document.api_version), shown(&document.kind));
        return Err(bad(format!("it is a {kind:?} of {version:?}, not a CredentialProviderRequest of {API_VERSION}")));
    }
    let role = document.service_account_annotations.and_then(|mut all| all.remove(ROLE_ANNOTATION));
    let role = role.filter(|role| !role.is_empty());
    let token = document.service_account_token.filter(|token| !token.is_empty());
    let account = token.map(|token| ServiceAccount { token: Secret::new(token), role });
    Ok(Request { image: document.image, account })
}

/// Hosts outside ECR that take the login of one of its registries: mirrors and pull-through caches, as a person has
/// listed them (`HOST=ECR-HOST`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirrors(BTreeMap<String, Registry>);

impl Mirrors {
    /// Adds one.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub fn add(&mut self, host: &str, registry: &str) -> Result<(), String> {
        let reference = format!("{host}/x");
        let found = registry_of(&reference).map_err(|why| format!("{host:?} is no registry: {why}"))?;
        if found.whole != host {
            return Err(format!("{host:?} is no registry: it has a path, and the login is for the whole host"));
        }
        if Registry::parse(host).is_some() {
            return Err(format!("{host} is a registry of ECR itself, which needs no mirror"));
        }
        let found = Registry::parse(registry).ok_or_else(|| format!("{registry:?} is no registry of ECR"))?;
        self.0.insert(host.to_owned(), found);
        Ok(())
    }
}

/// What is asked of ECR for an image, and the host that the answer is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The key of the answer: the host as the image names it, with its port for a mirror.
    pub host: String,
    /// The request.
    pub request: TokenRequest,
}

/// Which login an image needs. `default_role` is the role of service accounts without an annotation.
///
/// # Errors
/// `Usage`, when the image is not in a registry that may see a login, or no reference at all.
pub fn wanted(request: &Request, mirrors: &Mirrors, default_role: Option<&str>) -> Outcome<Wanted> {
    let refused = |why: String| {
        let shown: String = request.image.chars().take(256).collect();
        Failure::new(Cause::Usage, format!("find the registry of the image {shown:?}"), why)
    };
    let host = registry_of(&request.image).map_err(refused)?;
    // Port 443 is the one that TLS has anyway; at another port of such a host is nothing that we know.
    let ecr = Registry::parse(host.name).filter(|_| host.port.is_none_or(|port| port == "443"));
    let (key, registry) = match (ecr, mirrors.0.get(host.whole)) {
        (Some(registry), _) => (host.name, registry),
        (None, Some(registry)) => (host.whole, registry.clone()),
        (None, None) => {
            let advice = "only ECR's own hosts get its login; list others in the setting `ecr.mirrors`";
            return Err(refused(format!("{} is no registry of ECR", host.whole)).advise(advice));
        }
    };
    let identity = request.account.as_ref().and_then(|account| {
        let role = account.role.as_deref().or(default_role).filter(|role| !role.is_empty())?;
        Some(WebIdentity { role: role.to_owned(), token: account.token.clone() })
    });
    let request = TokenRequest { api: registry.api().clone(), role: identity };
    Ok(Wanted { host: key.to_owned(), request })
}

/// Who a token was made for (`system:serviceaccount:namespace:name` at its issuer): pods of one service account share
/// a login, others never do. It is not verified here: STS does that, and the kubelet asked for it itself.
///
/// # Errors
/// `BadCredentials`, when it is no such token.
pub fn subject(token: &Secret) -> Outcome<String> {
    #[derive(Deserialize)]
    struct Claims {
        iss: String,
        sub: String,
    }
    let bad = || {
        let why = "it is not a JSON web token with issuer and subject";
        Failure::new(Cause::BadCredentials, "read the service account token of the kubelet's request", why)
    };
    let claims = token.expose().split('.').nth(1).ok_or_else(bad)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| bad())?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| bad())?;
    Ok(format!("{} at {}", claims.sub, claims.iss))
}

/// The response with a login for a host. The kubelet keeps it for half of the life that is left, and at most
/// `at_most`; one that is dead or nearly dead is not kept.
pub fn response(host: &str, login: &Login, now: Timestamp, at_most: Option<Duration>) -> Secret {
    let half = login.life(now) / 2;
    let kept = at_most.map_or(half, |most| half.min(most));
    let auth = Auth { username: &login.username, password: login.password.expose() };
    render(kept, BTreeMap::from([(host, auth)]))
}

/// The response that says: pull without a login.
pub fn anonymous() -> Secret {
    render(ANONYMOUS_FOR, BTreeMap::new())
}

fn render(kept: Duration, auth: BTreeMap<&str, Auth<'_>>) -> Secret {
    let document = ResponseDocument {
        api_version: API_VERSION,
        kind: "CredentialProviderResponse",
        cache_key_type: "Registry",
        cache_duration: go_duration(kept),
        auth,
    };
    Secret::new(serde_json::to_string(&document).unwrap_or_default())
}

/// Whole seconds as Go writes durations: `5h59m30s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecr::host::Api;
    use serde_json::{Value, json};

    const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn document(image: &str) -> Value {
        json!({ "apiVersion": API_VERSION, "kind": "CredentialProviderRequest", "image": image })
    }

    fn with(key: &str, value: Value) -> Vec<u8> {
        let mut document = document("a.b/c");
        document[key] = value;
        document.to_string().into_bytes()
    }

    #[test]
    fn a_request_is_one_document_of_the_right_kind() {
        let request = decode(&with("image", json!(format!("{HOST}/app:1")))).expect("a request");
        assert_eq!(request, Request { image: format!("{HOST}/app:1"), account: None });
        let two = format!("{}{}", document("a.b/c"), document("a.b/c"));
        let twice = r#"{"apiVersion":"x","apiVersion":"y","kind":"z","image":"a"}"#;
        let huge = vec![b' '; MAX_REQUEST + 1];
        let cases: [(Vec<u8>, &str); 11] = [
            (Vec::new(), "there is none"),
            (b"{".to_vec(), "no CredentialProviderRequest (line 1"),
            (b"[]".to_vec(), "no CredentialProviderRequest"),
            (with("kind", json!("CredentialProviderResponse")), "it is a \"CredentialProviderResponse\""),
            (with("apiVersion", json!("credentialprovider.kubelet.k8s.io/v1beta1")), "v1beta1"),
            (with("extra", json!(1)), "no CredentialProviderRequest"),
            (with("image", json!(7)), "no CredentialProviderRequest"),
            (with("serviceAccountToken", json!({ "secret": "hunter2" })), "no CredentialProviderRequest"),
            (two.into_bytes(), "no CredentialProviderRequest"),
            (twice.as_bytes().to_vec(), "no CredentialProviderRequest"),
            (huge, "more than"),
        ];
        for (input, why) in cases {
            let failure = decode(&input).expect_err(why);
            assert!(failure.cause == Cause::Usage && failure.detail.contains(why), "{failure}");
            assert!(!failure.to_string().contains("hunter2"), "{failure}");
        }
    }

    fn asked(image: &str, mirrors: &Mirrors) -> Outcome<Wanted> {
        wanted(&Request { image: image.to_owned(), account: None }, mirrors, None)
    }

    #[test]
    fn a_host_gets_a_login_when_it_is_ecrs_or_listed() {
        let mut mirrors = Mirrors::default();
        mirrors.add("mirror.corp:5000", HOST).expect("a mirror");
        let api = Api::Private { region: "eu-west-1".into(), fips: false, dual_stack: false };
        let expected =
            |host: &str| Wanted { host: host.to_owned(), request: TokenRequest { api: api.clone(), role: None } };
        assert_eq!(asked(&format!("{HOST}/app"), &mirrors), Ok(expected(HOST)));
        assert_eq!(asked(&format!("{HOST}:443/app"), &mirrors), Ok(expected(HOST)));
        assert_eq!(asked("mirror.corp:5000/app", &mirrors), Ok(expected("mirror.corp:5000")));
        for other in ["mirror.corp/app", "mirror.corp:5001/app", "evil.example/app", &format!("{HOST}:5000/app")] {
            let failure = asked(other, &mirrors).expect_err(other);
            assert!(failure.detail.contains("no registry of ECR"), "{failure}");
        }
        assert!(mirrors.add("https://x.y", HOST).is_err());
        assert!(mirrors.add("x.y/team", HOST).expect_err("a path").contains("path"));
        assert!(mirrors.add("x.y", "x.z").is_err());
        assert!(mirrors.add("public.ecr.aws", HOST).expect_err("itself").contains("itself"));
    }

    #[test]
    fn a_service_account_pulls_by_its_role_or_as_the_node() {
        let token = Secret::new("a.b.c");
        let request = |role: Option<&str>| Request {
            image: format!("{HOST}/app"),
            account: Some(ServiceAccount { token: token.clone(), role: role.map(str::to_owned) }),
        };
        let role = |request: &Request, default| {
            wanted(request, &Mirrors::default(), default).expect("wanted").request.role.map(|identity| identity.role)
        };
        assert_eq!(role(&request(Some("arn:own")), Some("arn:default")).as_deref(), Some("arn:own"));
        assert_eq!(role(&request(None), Some("arn:default")).as_deref(), Some("arn:default"));
        assert_eq!(role(&request(None), None), None);
        let mut document = document(&format!("{HOST}/app"));
        document["serviceAccountToken"] = json!("a.b.c");
        document["serviceAccountAnnotations"] = json!({ ROLE_ANNOTATION: "arn:own", "other": "x" });
        assert_eq!(decode(document.to_string().as_bytes()), Ok(request(Some("arn:own"))));
    }

    #[test]
    fn pods_of_one_service_account_share_and_others_do_not() {
        let token = |sub: &str| {
            let claims = json!({ "iss": "https://k", "sub": sub, "exp": 1 }).to_string();
            Secret::new(format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims)))
        };
        assert_eq!(
            subject(&token("system:serviceaccount:a:b")).as_deref(),
            Ok("system:serviceaccount:a:b at https://k")
        );
        assert_ne!(subject(&token("a")), subject(&token("b")));
        for bad in ["", "abc", "a.%.c", "a.e30.c"] {
            assert_eq!(
                subject(&Secret::new(bad)).map_err(|failure| failure.cause),
                Err(Cause::BadCredentials),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_response_is_kept_for_half_of_the_life_and_a_dead_one_not_at_all() {
        let login = Login { username: "AWS".into(), password: Secret::new("p\"w"), expires_at: at(43_200) };
        let kept = |now: i64, most: Option<u64>| {
            let text = response(HOST, &login, at(now), most.map(Duration::from_secs));
            let value: Value = serde_json::from_str(text.expose()).expect("JSON");
            assert_eq!(value["auth"][HOST], json!({ "username": "AWS", "password": "p\"w" }));
            assert_eq!(
                (&value["kind"], &value["cacheKeyType"]),
                (&json!("CredentialProviderResponse"), &json!("Registry"))
            );
            assert_eq!(value.as_object().map(|fields| fields.len()), Some(5), "the kubelet refuses unknown fields");
            value["cacheDuration"].as_str().map(str::to_owned).expect("a duration")
        };
        assert_eq!(kept(0, None), "6h0m0s");
        assert_eq!(kept(41_001, None), "18m19s");
        assert_eq!(kept(0, Some(90)), "1m30s");
        assert_eq!(kept(43_100, None), "50s");
        assert_eq!(kept(43_150, None), "0s");
        assert_eq!(kept(50_000, Some(90)), "0s");
        let value: Value = serde_json::from_str(anonymous().expose()).expect("JSON");
        assert_eq!((&value["auth"], &value["cacheDuration"]), (&json!({}), &json!("10m0s")));
    }
}
