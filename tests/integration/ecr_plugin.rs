//! The kubelet's plugin for ECR: the real program over standard input and output, with a peer that plays ECR and STS.

use crate::peer::{Peer, Reply};
use crate::process::KUBESTRAP;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const PRIVATE: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
const PUBLIC: &str = "SpencerFrontendService.GetAuthorizationToken";

/// ECR and STS, and what they were sent.
struct Aws {
    peer: Peer,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Aws {
    fn start(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Aws {
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = requests.clone();
        let peer = Peer::start(move |request| {
            seen.lock().expect("lock").push(request.to_owned());
            answer(request)
        });
        Aws { peer, requests }
    }

    /// The requests so far that contain this text.
    fn with(&self, text: &str) -> Vec<String> {
        self.requests.lock().expect("lock").iter().filter(|request| request.contains(text)).cloned().collect()
    }
}

fn json_reply(status: &str, body: &Value) -> Reply {
    Reply::whole(status, "content-type: application/x-amz-json-1.1\r\n", &body.to_string())
}

/// Authorization data with a password that lives for so long.
fn data(password: &str, seconds: i64) -> Value {
    let expires = (Timestamp::now() + SignedDuration::from_secs(seconds)).as_second();
    json!({ "authorizationToken": STANDARD.encode(format!("AWS:{password}")), "expiresAt": expires })
}

fn well(request: &str) -> Reply {
    if request.contains(PUBLIC) {
        return json_reply("200 OK", &json!({ "authorizationData": data("public-password", 43_200) }));
    }
    assert!(request.contains(PRIVATE), "{request}");
    json_reply("200 OK", &json!({ "authorizationData": [data("private-password", 43_200)] }))
}

fn throttled(_: &str) -> Reply {
    json_reply("400 Bad Request", &json!({ "__type": "ThrottlingException", "message": "Rate exceeded" }))
}

/// A node's plugin: its cache, and the address of AWS.
struct Plugin {
    home: tempfile::TempDir,
    url: String,
}

struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Plugin {
    fn of(aws: &Aws) -> Plugin {
        Plugin { home: tempfile::tempdir().expect("folder"), url: aws.peer.url() }
    }

    fn cache(&self) -> PathBuf {
        self.home.path().join("run/ecr")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(KUBESTRAP);
        command.args(arguments).arg("--cache-dir").arg(self.cache()).env_clear().env("HOME", self.home.path());
        command.env("AWS_ENDPOINT_URL", &self.url).env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "hunter2");
        command
    }

    fn ask(&self, request: &str) -> Answer {
        finish(start(&mut self.command(&["ecr-credential-provider"]), request))
    }

    /// The only entry of the cache.
    fn entry(&self) -> PathBuf {
        let names = std::fs::read_dir(self.cache()).expect("a cache").map(|entry| entry.expect("entry").path());
        let entries: Vec<PathBuf> = names.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries[0].clone()
    }

    /// Makes the entry so many hours older.
    fn age(&self, hours: i64) {
        let path = self.entry();
        let mut entry: Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
        for time in ["got_at", "expires_at"] {
            let at: Timestamp = entry["login"][time].as_str().expect("a time").parse().expect("a time");
            entry["login"][time] = json!(at - SignedDuration::from_hours(hours));
        }
        std::fs::write(&path, entry.to_string()).expect("write");
    }
}

fn start(command: &mut Command, request: &str) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    // Whoever refuses its input may have ended before it was read.
    let _ = child.stdin.take().expect("stdin").write_all(request.as_bytes());
    child
}

fn finish(child: Child) -> Answer {
    let output = child.wait_with_output().expect("output");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Answer { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn request(image: &str) -> Value {
    json!({ "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderRequest", "image": image })
}

impl Answer {
    #[track_caller]
    fn document(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        serde_json::from_str(&self.stdout).expect("exactly one document")
    }

    /// Nothing for the kubelet, and the reason for people.
    #[track_caller]
    fn refused(&self, code: i32, why: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{}", self.stderr);
        assert!(self.stderr.contains(why), "{}", self.stderr);
    }
}

#[test]
fn a_pull_from_ecr_gets_a_login_and_the_next_one_the_same_without_asking() {
    let aws = Aws::start(well);
    let plugin = Plugin::of(&aws);
    let asked = request(&format!("{HOST}/team/app:v1")).to_string();
    let answer = plugin.ask(&asked);
    assert_eq!(
        answer.document(),
        json!({
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderResponse",
            "cacheKeyType": "Registry", "cacheDuration": answer.document()["cacheDuration"],
            "auth": { HOST: { "username": "AWS", "password": "private-password" } },
        })
    );
    let kept = answer.document()["cacheDuration"].as_str().expect("a duration").to_owned();
    assert!(kept.starts_with("5h59m") || kept == "6h0m0s", "{kept}");
    assert!(aws.with("/eu-west-1/ecr/aws4_request")[0].contains(PRIVATE), "signed for the region of the host");
    // Neither AWS nor credentials are needed now, and another account's registry there has the same login.
    let other = request("210987654321.dkr.ecr.eu-west-1.amazonaws.com/x").to_string();
    let mut alone = plugin.command(&["ecr-credential-provider"]);
    alone.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let answer = finish(start(&mut alone, &other)).document();
    assert_eq!(answer["auth"]["210987654321.dkr.ecr.eu-west-1.amazonaws.com"]["password"], "private-password");
    assert_eq!(aws.peer.requests(), 1);
    let mode = |path: &Path| std::fs::metadata(path).expect("stat").mode() & 0o777;
    assert_eq!((mode(&plugin.entry()), mode(&plugin.cache())), (0o600, 0o700));
}

#[test]
fn a_hundred_pods_at_once_are_one_call() {
    let aws = Aws::start(well);
    let plugin = Plugin::of(&aws);
    let asked = request(&format!("{HOST}/app")).to_string();
    let all: Vec<Child> = (0..100).map(|_| start(&mut plugin.command(&["ecr-credential-provider"]), &asked)).collect();
    for child in all {
        assert_eq!(finish(child).document()["auth"][HOST]["password"], "private-password");
    }
    assert_eq!(aws.peer.requests(), 1);
}

/// The failure of one is the answer to all that waited for it: a service in trouble is not asked a hundred times.
#[test]
fn a_refusal_is_shared_by_those_who_waited() {
    let denied = |_: &str| {
        std::thread::sleep(Duration::from_secs(2));
        json_reply("400 Bad Request", &json!({ "__type": "AccessDeniedException", "message": "not you" }))
    };
    let aws = Aws::start(denied);
    let plugin = Plugin::of(&aws);
    let asked = request(&format!("{HOST}/app")).to_string();
    let all: Vec<Child> = (0..10).map(|_| start(&mut plugin.command(&["ecr-credential-provider"]), &asked)).collect();
    for child in all {
        finish(child).refused(14, "grant ecr:GetAuthorizationToken");
    }
    assert_eq!(aws.peer.requests(), 1);
}

#[test]
fn a_login_that_lives_outlasts_an_outage() {
    let trouble = Arc::new(Mutex::new(false));
    let is_down = trouble.clone();
    let aws =
        Aws::start(move |request| if *is_down.lock().expect("lock") { throttled(request) } else { well(request) });
    let plugin = Plugin::of(&aws);
    let asked = request(&format!("{HOST}/app")).to_string();
    plugin.ask(&asked).document();
    *trouble.lock().expect("lock") = true;
    // Half of its life is over: it is due, and ECR does not give another.
    plugin.age(8);
    let answer = plugin.ask(&asked);
    assert_eq!(answer.document()["auth"][HOST]["password"], "private-password");
    assert_eq!(answer.document()["cacheDuration"], "1m0s", "the kubelet asks again soon");
    assert!(answer.stderr.contains("Rate exceeded"), "{}", answer.stderr);
    let before = aws.peer.requests();
    assert!(before > 2, "a throttled call is repeated");
    assert_eq!(plugin.ask(&asked).document()["auth"][HOST]["password"], "private-password");
    assert_eq!(aws.peer.requests(), before, "ECR is spared for a while");
    // And when it is dead nobody gets it.
    plugin.age(4);
    let answer = plugin.ask(&asked);
    answer.refused(12, "Rate exceeded");
    *trouble.lock().expect("lock") = false;
    assert!(plugin.ask(&asked).document()["cacheDuration"].as_str().is_some_and(|kept| kept.contains('h')));
}

#[test]
fn a_pod_pulls_by_the_role_of_its_service_account() {
    let aws = Aws::start(|request| {
        if !request.contains("Action=AssumeRoleWithWebIdentity") {
            return well(request);
        }
        let body = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
            <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>AKIAPOD</AccessKeyId>\
            <SecretAccessKey>podsecret</SecretAccessKey><SessionToken>podsession</SessionToken>\
            <Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
            </AssumeRoleWithWebIdentityResponse>";
        Reply::whole("200 OK", "content-type: text/xml\r\n", body)
    });
    let plugin = Plugin::of(&aws);
    let ask = |account: &str| {
        let claims = json!({ "iss": "https://cluster", "sub": format!("system:serviceaccount:team:{account}") });
        let token = format!("eyJhbGciOiJub25lIn0.{}.signature", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut asked = request(&format!("{HOST}/app"));
        asked["serviceAccountToken"] = json!(token);
        asked["serviceAccountAnnotations"] = json!({ "eks.amazonaws.com/ecr-role-arn": "arn:aws:iam::1:role/pull" });
        let answer = plugin.ask(&asked.to_string());
        assert_eq!(answer.document()["auth"][HOST]["password"], "private-password");
        assert!(!answer.stderr.contains(&token));
        token
    };
    let token = ask("one");
    let assumed = aws.with("Action=AssumeRoleWithWebIdentity");
    assert!(assumed[0].contains(&format!("WebIdentityToken={token}")), "{}", assumed[0]);
    assert!(assumed[0].contains("RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fpull"), "{}", assumed[0]);
    assert!(aws.with("Credential=AKIAPOD/")[0].contains(PRIVATE), "ECR is asked as the role");
    ask("one");
    assert_eq!(aws.peer.requests(), 2, "the same account has its login");
    ask("two");
    assert_eq!(aws.peer.requests(), 4, "another account that names the role must show its own token");
}

#[test]
fn public_images_are_pulled_with_a_login_or_anonymously() {
    let aws = Aws::start(well);
    let asked = request("public.ecr.aws/docker/library/busybox").to_string();
    let document = Plugin::of(&aws).ask(&asked).document();
    assert_eq!(document["auth"]["public.ecr.aws"]["password"], "public-password");
    assert!(aws.with(PUBLIC)[0].contains("/us-east-1/ecr-public/aws4_request"));
    let denied = json!({ "__type": "AccessDeniedException", "message": "not you" });
    let aws = Aws::start(move |_| json_reply("400 Bad Request", &denied));
    let answer = Plugin::of(&aws).ask(&asked);
    assert_eq!((&answer.document()["auth"], &answer.document()["cacheDuration"]), (&json!({}), &json!("10m0s")));
    assert!(answer.stderr.contains("sts:GetServiceBearerToken") || answer.stderr.contains("anonymously"));
}

#[test]
fn a_mirror_gets_the_login_of_its_registry_under_its_own_name() {
    let aws = Aws::start(well);
    let plugin = Plugin::of(&aws);
    let mirror = format!("mirror.corp.example:5000={HOST}");
    let ask = |arguments: &[&str], image: &str| {
        finish(start(
            &mut plugin.command(&[&["ecr-credential-provider"], arguments].concat()),
            &request(image).to_string(),
        ))
    };
    let document = ask(&["--mirror", &mirror], "mirror.corp.example:5000/app").document();
    assert_eq!(document["auth"]["mirror.corp.example:5000"]["password"], "private-password");
    ask(&["--mirror", &mirror], "mirror.corp.example/app").refused(2, "ecr.mirrors");
    ask(&[], "mirror.corp.example:5000/app").refused(2, "ecr.mirrors");
    ask(&["--mirror", "mirror.corp.example"], "mirror.corp.example/app").refused(2, "HOST=ECR-HOST");
    assert_eq!(aws.peer.requests(), 1, "and nothing was asked for the others");
}

#[test]
fn it_is_the_plugin_under_the_plugins_name() {
    let aws = Aws::start(well);
    let plugin = Plugin::of(&aws);
    let link = plugin.home.path().join("ecr-credential-provider");
    symlink(KUBESTRAP, &link).expect("link");
    let command = plugin.command(&[]);
    let mut named = Command::new(&link);
    named.args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        named.env(name, value.expect("a value"));
    }
    let answer = finish(start(&mut named, &request(&format!("{HOST}/app")).to_string()));
    assert_eq!(answer.document()["auth"][HOST]["username"], "AWS");
}

#[test]
fn a_person_sees_the_password_only_when_it_is_asked_for() {
    let aws = Aws::start(well);
    let plugin = Plugin::of(&aws);
    let token =
        |more: &[&str]| finish(start(&mut plugin.command(&[&["ecr", "token", "--registry", HOST], more].concat()), ""));
    let first = token(&[]);
    assert!(first.stdout.contains("ECR in eu-west-1") && first.stdout.contains("from       ECR"), "{}", first.stdout);
    let second = token(&["-o", "json"]);
    assert_eq!((&second.document()["from"], &second.document()["username"]), (&json!("the cache"), &json!("AWS")));
    for answer in [&first, &second] {
        assert!(!format!("{}{}", answer.stdout, answer.stderr).contains("private-password"));
    }
    assert_eq!(token(&["--show"]).stdout, "private-password\n");
    finish(start(&mut plugin.command(&["ecr", "token", "--registry", "evil.example"]), ""))
        .refused(2, "no registry of ECR");
}

/// The kubelet kills a plugin after a minute and then knows nothing of why.
#[test]
fn it_ends_by_itself_when_nobody_answers() {
    let aws = Aws::start(|_| {
        std::thread::sleep(Duration::from_secs(60));
        throttled("")
    });
    let plugin = Plugin::of(&aws);
    let mut mute = plugin.command(&["ecr-credential-provider"]);
    let mut mute = mute.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    let stdin = mute.stdin.take();
    plugin.ask(&request(&format!("{HOST}/app")).to_string()).refused(12, "no answer within 9 s");
    finish(mute).refused(12, "did not end within 20 s");
    drop(stdin);
}
