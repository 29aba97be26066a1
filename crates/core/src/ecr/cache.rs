//! Logins that many invocations of the plugin share: what an entry says, and what may be done with it.
//!
//! An entry belongs to an API and to whoever asks, not to an access key: the keys of an instance's role change every
//! few hours, and the login they got lives on. What cannot be read is as good as absent and is written anew.

use super::plugin;
use super::token::{LONGEST_LIFE, Login, NEARLY_DEAD};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::secret::Secret;
use crate::ports::TokenRequest;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The largest entry that is read, in bytes.
pub const MAX_ENTRY: u64 = 128 * 1024;
const SCHEMA: u32 = 1;
/// After a failure a login that still lives is handed out this long before ECR is asked again.
const SPARED: SignedDuration = SignedDuration::from_secs(30);
/// The clock may be set by this much without making entries of the future.
const CLOCK_STEP: SignedDuration = SignedDuration::from_secs(300);

/// What an entry is kept under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The key of a request. `surroundings` is what else decides who is asked and as whom: endpoints and the profile
    /// or role of the environment; never an access key.
    ///
    /// # Errors
    /// `BadCredentials`, when the service account's token says nothing of its owner.
    pub fn of(request: &TokenRequest, surroundings: &[(String, String)]) -> Outcome<Key> {
        let who = match &request.role {
            // The role alone will not do: any pod can name a role in its annotation, and only STS knows whose it is.
            Some(identity) => format!("{} as {}", plugin::subject(&identity.token)?, identity.role),
            None => "node".to_owned(),
        };
        let more: String = surroundings.iter().map(|(name, value)| format!("\n{name}={value}")).collect();
        Ok(Key(format!("{:?}\n{who}{more}", request.api)))
    }

    /// A file name of lower case letters and digits.
    pub fn file_name(&self) -> String {
        Sha256::digest(self.0.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The login, when one was ever got, and when.
    pub login: Option<(Login, Timestamp)>,
    /// The last failure to get one, when nothing was got since.
    pub failure: Option<(Failure, Timestamp)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    schema: u32,
    key: String,
    login: Option<LoginPart>,
    failure: Option<FailurePart>,
}

#[derive(Serialize, Deserialize)]
struct LoginPart {
    username: String,
    password: String,
    expires_at: Timestamp,
    got_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct FailurePart {
    cause: String,
    attempted: String,
    detail: String,
    advice: Option<String>,
    at: Timestamp,
}

impl Entry {
    /// Reads an entry; `None` for anything that is not one of this key and version.
    pub fn read(body: &[u8], key: &Key) -> Option<Entry> {
        let document: Document = serde_json::from_slice(body).ok()?;
        if document.schema != SCHEMA || document.key != key.0 {
            return None;
        }
        let login = document.login.map(|part| {
            let LoginPart { username, password, expires_at, got_at } = part;
            (Login { username, password: Secret::new(password), expires_at }, got_at)
        });
        let failure = document.failure.and_then(|part| {
            let cause = Cause::by_label(&part.cause)?;
            // Not taken over as they stand: a terminal shows them.
            let failure = Failure::new(cause, part.attempted, part.detail);
            let failure = match part.advice {
                Some(advice) => failure.advise(advice),
                None => failure,
            };
            Some((failure, part.at))
        });
        Some(Entry { login, failure })
    }

    /// The text of the file.
    pub fn render(&self, key: &Key) -> Secret {
        let login = self.login.as_ref().map(|(login, got_at)| LoginPart {
            username: login.username.clone(),
            password: login.password.expose().to_owned(),
            expires_at: login.expires_at,
            got_at: *got_at,
        });
        let failure = self.failure.as_ref().map(|(failure, at)| FailurePart {
            cause: failure.cause.row().label.to_owned(),
            attempted: failure.attempted.clone(),
            detail: failure.detail.clone(),
            advice: failure.advice.clone(),
            at: *at,
        });
        let document = Document { schema: SCHEMA, key: key.0.clone(), login, failure };
        Secret::new(serde_json::to_string(&document).unwrap_or_default())
    }

    /// The entry after an attempt to get a login: a failure does not take away what still lives.
    pub fn after(before: Option<Entry>, result: &Outcome<Login>, now: Timestamp) -> Entry {
        match result {
            Ok(login) => Entry { login: Some((login.clone(), now)), failure: None },
            Err(failure) => {
                Entry { login: before.and_then(|entry| entry.login), failure: Some((failure.clone(), now)) }
            }
        }
    }

    /// The login, when it lives. One that was got in the future, or for longer than ECR gives, is not believed.
    fn alive(&self, now: Timestamp) -> Option<&(Login, Timestamp)> {
        self.login.as_ref().filter(|(login, got_at)| {
            let in_the_future = got_at.duration_since(now) > CLOCK_STEP;
            let absurd = login.expires_at.duration_since(*got_at) > LONGEST_LIFE + CLOCK_STEP;
            !in_the_future && !absurd && login.expires_at.duration_since(now) > NEARLY_DEAD
        })
    }

    /// A login that lives, whatever its age.
    pub fn living(&self, now: Timestamp) -> Option<&Login> {
        self.alive(now).map(|(login, _)| login)
    }
}

/// What to do with what the cache has.
#[derive(Debug, PartialEq, Eq)]
pub enum Way<'a> {
    /// Answer with it.
    Answer(&'a Login),
    /// Answer with it, for ECR could not be asked just now; the failure says why.
    Spare(&'a Login, &'a Failure),
    /// Fail as an invocation did that asked while this one waited.
    Share(&'a Failure),
    /// Ask ECR.
    Ask,
}

/// Decides. `began` is when this invocation began: whoever waited for another's answer takes it, also a failure, or a
/// login that ECR gave nearly dead, for N pods at boot must not ask one after the other.
pub fn way(entry: Option<&Entry>, began: Timestamp, now: Timestamp) -> Way<'_> {
    let Some(entry) = entry else { return Way::Ask };
    let failure = entry.failure.as_ref().filter(|(_, at)| at.duration_since(now) <= CLOCK_STEP);
    let just_got = |(_, got_at): &&(Login, Timestamp)| *got_at >= began && *got_at <= now;
    if let Some((login, _)) = entry.login.as_ref().filter(just_got) {
        return Way::Answer(login);
    }
    match (entry.alive(now), failure) {
        (Some((login, got_at)), _) if now < login.refresh_at(*got_at) => Way::Answer(login),
        (Some((login, _)), Some((failure, at))) if now.duration_since(*at) < SPARED => Way::Spare(login, failure),
        (None, Some((failure, at))) if *at >= began => Way::Share(failure),
        _ => Way::Ask,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecr::host::Registry;
    use crate::ports::WebIdentity;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn request(host: &str, pod: Option<&str>) -> TokenRequest {
        let role = pod.map(|pod| {
            let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"iss":"i","sub":"{pod}"}}"#));
            WebIdentity { role: "arn:r".into(), token: Secret::new(format!("h.{claims}.s")) }
        });
        TokenRequest { api: Registry::parse(host).expect("a host").api().clone(), role }
    }

    fn key(host: &str, pod: Option<&str>) -> Key {
        Key::of(&request(host, pod), &[]).expect("a key")
    }

    const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

    #[test]
    fn accounts_of_a_region_share_and_nobody_else_does() {
        let names: Vec<String> = [
            key(HOST, None),
            key("123456789012.dkr.ecr.us-east-1.amazonaws.com", None),
            key("123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com", None),
            key("public.ecr.aws", None),
            key(HOST, Some("system:serviceaccount:a:b")),
            key(HOST, Some("system:serviceaccount:a:c")),
            Key::of(&request(HOST, None), &[("AWS_PROFILE".into(), "x".into())]).expect("a key"),
        ]
        .iter()
        .map(Key::file_name)
        .collect();
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
        assert_eq!(key("210987654321.dkr.ecr.eu-west-1.amazonaws.com", None), key(HOST, None));
        let role = Key::of(
            &TokenRequest {
                role: Some(WebIdentity { role: "r".into(), token: Secret::new("x") }),
                ..request(HOST, None)
            },
            &[],
        );
        assert_eq!(role.map_err(|failure| failure.cause), Err(Cause::BadCredentials));
    }

    fn entry(got: i64, expires: i64, failed: Option<i64>) -> Entry {
        let login = Login { username: "AWS".into(), password: Secret::new("p"), expires_at: at(expires) };
        let failure = failed.map(|second| (Failure::new(Cause::Throttled, "ask", "slow down"), at(second)));
        Entry { login: Some((login, at(got))), failure }
    }

    #[test]
    fn an_entry_comes_back_and_anything_else_is_absent() {
        let (ours, other) = (key(HOST, None), key("public.ecr.aws", None));
        let whole = entry(0, 43_200, Some(5));
        let text = whole.render(&ours);
        let bytes = text.expose().as_bytes();
        assert_eq!(Entry::read(bytes, &ours), Some(whole));
        assert_eq!(Entry::read(bytes, &other), None, "of another key");
        for cut in 0..bytes.len() {
            assert_eq!(Entry::read(&bytes[..cut], &ours), None, "cut at {cut}");
        }
        let newer = text.expose().replace("\"schema\":1", "\"schema\":2");
        assert_eq!(Entry::read(newer.as_bytes(), &ours), None);
    }

    #[test]
    fn an_entry_is_used_refreshed_spared_or_shared() {
        let name = |entry: Option<&Entry>, began: i64, now: i64| match way(entry, at(began), at(now)) {
            Way::Answer(_) => "answer",
            Way::Spare(..) => "spare",
            Way::Share(_) => "share",
            Way::Ask => "ask",
        };
        let (fine, failed) = (entry(0, 43_200, None), entry(0, 43_200, Some(30_000)));
        assert_eq!(name(None, 0, 0), "ask");
        assert_eq!(name(Some(&fine), 0, 0), "answer");
        assert_eq!(name(Some(&fine), 21_000, 21_000), "answer");
        assert_eq!(name(Some(&fine), 21_600, 21_600), "ask", "half of its life is over");
        assert_eq!(name(Some(&failed), 30_010, 30_010), "spare");
        assert_eq!(name(Some(&failed), 30_031, 30_031), "ask", "ECR may be well again");
        assert_eq!(name(Some(&entry(0, 43_200, Some(43_190))), 43_180, 43_195), "share", "nearly dead");
        assert_eq!(name(Some(&entry(0, 43_200, Some(43_190))), 43_191, 43_195), "ask", "it failed before we began");
        assert_eq!(name(Some(&entry(50, 60, None)), 40, 55), "answer", "nearly dead, and just got");
        assert_eq!(name(Some(&entry(50, 60, None)), 51, 55), "ask", "nearly dead");
        assert_eq!(name(Some(&entry(10_000, 43_200, None)), 0, 0), "ask", "got in the future");
        assert_eq!(name(Some(&entry(0, 90_000, None)), 5, 5), "ask", "no login lives for 25 hours");
        assert_eq!(name(Some(&entry(0, 43_200, Some(99_000))), 30_000, 30_000), "ask", "it failed in the future");
    }

    #[test]
    fn a_failure_keeps_what_lives() {
        let failure = Failure::new(Cause::Throttled, "ask", "x");
        let kept = Entry::after(Some(entry(0, 43_200, None)), &Err(failure.clone()), at(30_000));
        assert_eq!(kept.living(at(30_000)).map(|login| login.expires_at), Some(at(43_200)));
        assert_eq!(kept.failure, Some((failure, at(30_000))));
        let login = Login { username: "AWS".into(), password: Secret::new("q"), expires_at: at(80_000) };
        assert_eq!(
            Entry::after(Some(kept), &Ok(login.clone()), at(40_000)),
            Entry { login: Some((login, at(40_000))), failure: None }
        );
    }
}
