//! The kubelet's plugin for ECR among people who want its login, feed it, or spoil its cache: the real program over
//! standard input and output, and a peer that counts who was asked. What it does when all is well is in `ecr_plugin.rs`.
//!
//! Each refusal shows: nothing on standard output, a reason for people, no secret in it, and that nobody was asked.

mod answers;
mod cache;
mod hosts;
mod requests;

use crate::peer::{Peer, Reply};
use crate::process::KUBESTRAP;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A registry of ECR.
const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
/// The password of every login, which goes to ECR's own hosts alone.
const PASSWORD: &str = "ecrPasswordMARKERecrPasswordMARKER";
/// The key that requests are signed with.
const SECRET_KEY: &str = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00";

/// A plugin with a cache of its own.
struct Plugin {
    home: tempfile::TempDir,
    url: String,
}

/// What it did.
struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Plugin {
    fn of(peer: &Peer) -> Plugin {
        Plugin { home: tempfile::tempdir().expect("folder"), url: peer.url() }
    }

    fn cache(&self) -> PathBuf {
        self.home.path().join("ecr")
    }

    /// The plugin with this cache.
    fn command_with(&self, cache: &std::path::Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(KUBESTRAP);
        command.arg("ecr-credential-provider").args(arguments).arg("--cache-dir").arg(cache);
        command.env_clear().env("HOME", self.home.path()).env("AWS_EC2_METADATA_DISABLED", "true");
        // Whatever service it may think of asking.
        command.env("AWS_ENDPOINT_URL", &self.url).env("AWS_ENDPOINT_URL_ECR", &self.url);
        command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command
    }

    fn asked_with(&self, arguments: &[&str], image: &str) -> Answer {
        answer(&mut self.command_with(&self.cache(), arguments), request(image).to_string().as_bytes())
    }

    fn asked_for(&self, image: &str) -> Answer {
        self.asked_with(&[], image)
    }

    /// The files of the cache that end so.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.cache()).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|found| found == ending)).collect()
    }
}

/// Runs it to its end with this on standard input.
fn answer(command: &mut Command, input: &[u8]) -> Answer {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    // Whoever refuses its input may have ended before it was read.
    let _ = child.stdin.take().expect("stdin").write_all(input);
    Answer::of(child.wait_with_output().expect("output"))
}

impl Answer {
    fn of(output: std::process::Output) -> Answer {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Answer { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Nothing for the kubelet; a reason and a fix for people, without a secret or anything a terminal obeys.
    fn refused(&self, code: i32, why: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{}", self.stderr);
        assert!(self.stderr.contains(why), "{why:?} was not said: {}", self.stderr);
        assert!(self.stderr.contains("fix:") && self.stderr.len() < 8192, "{}", self.stderr);
        self.is_discreet();
    }

    fn is_discreet(&self) {
        for secret in [PASSWORD, SECRET_KEY, &STANDARD.encode(format!("AWS:{PASSWORD}"))] {
            assert!(!self.stderr.contains(secret), "{}", self.stderr);
        }
        let obeyed = |c: char| c.is_control() && c != '\n';
        assert!(!self.stderr.contains(obeyed) && !self.stderr.contains('\u{202e}'), "{:?}", self.stderr);
    }

    /// Exactly one document, with the login for this host and for nobody else; how long the kubelet keeps it.
    fn login_for(&self, host: &str) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        let document: Value = serde_json::from_str(&self.stdout).expect("exactly one document");
        assert_eq!(document["auth"], json!({ host: { "username": "AWS", "password": PASSWORD } }));
        self.is_discreet();
        document["cacheDuration"].as_str().expect("a duration").to_owned()
    }
}

fn request(image: &str) -> Value {
    json!({ "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderRequest", "image": image })
}

fn replies(body: &str) -> Reply {
    Reply::whole("200 OK", "content-type: application/x-amz-json-1.1\r\n", body)
}

/// Authorization data as ECR gives it, with this token and expiry.
fn data(token: &Value, expires: &Value) -> String {
    json!({ "authorizationData": [{ "authorizationToken": token, "expiresAt": expires }] }).to_string()
}

/// A login for twelve hours.
fn well(_: &str) -> Reply {
    let expires = (Timestamp::now() + SignedDuration::from_hours(12)).as_second();
    replies(&data(&token(), &json!(expires)))
}

fn token() -> Value {
    json!(STANDARD.encode(format!("AWS:{PASSWORD}")))
}

/// Carries a table out, so many lines at a time; tells all that failed, each with its own panic above.
fn each<T: Sync>(at_a_time: usize, table: &[T], name: fn(&T) -> String, check: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let mut failed = Vec::new();
            while let Some(row) = table.get(next.fetch_add(1, Ordering::Relaxed)) {
                let thread = std::thread::Builder::new().name(name(row));
                let outcome = thread.spawn_scoped(scope, || check(row)).expect("thread").join();
                failed.extend(outcome.is_err().then(|| name(row)));
            }
            failed
        };
        let workers: Vec<_> = (0..at_a_time).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("worker")).collect()
    });
    assert!(failed.is_empty(), "{} of {} cases: {failed:#?}", failed.len(), table.len());
}

/// The list of all cases, for people.
#[test]
fn cases() {
    let mut page = String::new();
    page.push_str("no login, and nobody is asked\n");
    hosts::LOOK_ALIKES.iter().for_each(|(name, image)| page.push_str(&format!("  {name}: {}\n", image.escape_debug())));
    page.push_str("a mirror that is refused\n");
    hosts::MIRRORS.iter().for_each(|(name, _)| page.push_str(&format!("  {name}\n")));
    page.push_str("a request that is refused\n");
    requests::CASES.iter().for_each(|case| page.push_str(&format!("  {}\n", case.name)));
    page.push_str("an answer of ECR that is refused\n");
    answers::REFUSED.iter().for_each(|(name, _)| page.push_str(&format!("  {name}\n")));
    page.push_str("an expiry that is not believed\n");
    answers::EXPIRIES.iter().for_each(|(name, ..)| page.push_str(&format!("  {name}\n")));
    page.push_str("a cache that is not used, or not by us\n");
    cache::ENTRIES.iter().for_each(|(name, _)| page.push_str(&format!("  {name}\n")));
    cache::FOLDERS.iter().for_each(|(name, _)| page.push_str(&format!("  {name}\n")));
    insta::assert_snapshot!(page);
}
