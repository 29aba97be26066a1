//! The instance metadata service, version 2 only: token kept and renewed, patient at boot.
//!
//! Metadata and credentials can be late at boot (nodeadm retries 60 times; facts: aws.md). Version 1 is never used: an
//! instance that answers without a token is asked with one all the same.

use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::secret::Secret;
use crate::ports::{Metadata, MetadataAnswer, Time};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// The longest life of a session token (AWS: 21,600 s).
const TOKEN_TTL: Duration = Duration::from_secs(21_600);
/// A token is renewed this long before it dies.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);
/// How long a late service is waited for (facts: reliability.md).
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Between two attempts; doubled up to the second. No rate limit is published, so it is kept slow.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// An answer may be this long in an error text.
const SHOWN: usize = 60;

/// Whether a 404 is an answer or a sign that the service is not ready yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    IsAnAnswer,
    IsTooEarly,
}

/// Asks the metadata service. Nothing is asked before the first call.
pub struct Imds {
    metadata: Rc<dyn Metadata>,
    time: Rc<dyn Time>,
    token: RefCell<Option<(Secret, Duration)>>,
    tell: Option<Tell>,
    told: RefCell<String>,
}

/// Who is told why the service is asked again.
pub type Tell = Rc<dyn Fn(&Failure)>;

impl Imds {
    /// A client of the service behind this port.
    pub fn new(metadata: Rc<dyn Metadata>, time: Rc<dyn Time>) -> Self {
        Imds { metadata, time, token: RefCell::new(None), tell: None, told: RefCell::default() }
    }

    /// Tells why it has to ask again, once for each reason: a wait of minutes must not be a silent one.
    #[must_use]
    pub fn telling(self, tell: Tell) -> Self {
        Imds { tell: Some(tell), ..self }
    }

    fn complain(&self, failure: &Failure) {
        let text = failure.to_string();
        if let Some(tell) = &self.tell
            && *self.told.borrow() != text
        {
            tell(failure);
            self.told.replace(text);
        }
    }

    /// The user-data, as it was given (it may be gzip); empty when there is none.
    pub async fn user_data(&self) -> Outcome<Vec<u8>> {
        Ok(self.fetch("user-data", Missing::IsAnAnswer).await?.unwrap_or_default())
    }

    /// The instance's tags; `None` when tags in metadata are not enabled.
    pub async fn tags(&self) -> Outcome<Option<BTreeMap<String, String>>> {
        let Some(names) = self.optional("meta-data/tags/instance/").await? else { return Ok(None) };
        let mut tags = BTreeMap::new();
        for name in names.lines().map(str::trim).filter(|name| !name.is_empty()) {
            let path = format!("meta-data/tags/instance/{}", crate::kube::encode_segment(name));
            if let Some(value) = self.optional(&path).await? {
                tags.insert(name.to_owned(), value);
            }
        }
        Ok(Some(tags))
    }

    /// A text that may be missing.
    pub async fn optional(&self, path: &str) -> Outcome<Option<String>> {
        self.fetch(path, Missing::IsAnAnswer).await?.map(|body| text(path, body)).transpose()
    }

    /// A text that every instance has; one that is missing yet is waited for.
    pub async fn required(&self, path: &str) -> Outcome<String> {
        let body = self.fetch(path, Missing::IsTooEarly).await?;
        text(path, body.unwrap_or_default())
    }

    /// A text that may be missing, without patience, for whoever asks again soon by himself. A session that the service
    /// no longer knows is replaced at once.
    pub async fn glance(&self, path: &str) -> Outcome<Option<String>> {
        let answer = match self.attempt(path, Missing::IsAnAnswer).await {
            Err(failure) if failure.is_transient() && self.token.borrow().is_none() => {
                self.attempt(path, Missing::IsAnAnswer).await
            }
            answer => answer,
        };
        answer?.map(|body| text(path, body)).transpose()
    }

    async fn fetch(&self, path: &str, missing: Missing) -> Outcome<Option<Vec<u8>>> {
        let began = self.time.uptime();
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self.attempt(path, missing).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let waited = self.time.uptime().saturating_sub(began);
            if !failure.is_transient() {
                return Err(failure);
            }
            if waited >= PATIENCE {
                return Err(failure.exhausted(waited));
            }
            self.complain(&failure);
            self.time.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, path: &str, missing: Missing) -> Outcome<Option<Vec<u8>>> {
        let token = self.session().await?;
        let answer = self.metadata.get(path, &token).await?;
        match answer.status {
            200 if missing == Missing::IsTooEarly && answer.body.trim_ascii().is_empty() => {
                let attempted = format!("read {path} of the metadata service");
                Err(Failure::new(Cause::MetadataUnavailable, attempted, "the answer is empty"))
            }
            200 => Ok(Some(answer.body)),
            404 if missing == Missing::IsAnAnswer => Ok(None),
            401 => {
                // The token died with a stopped instance, or never was one: the next attempt asks for another.
                *self.token.borrow_mut() = None;
                Err(unexpected(path, &answer))
            }
            _ => Err(unexpected(path, &answer)),
        }
    }

    async fn session(&self) -> Outcome<Secret> {
        let now = self.time.uptime();
        if let Some((token, until)) = &*self.token.borrow()
            && now < *until
        {
            return Ok(token.clone());
        }
        let answer = self.metadata.token(TOKEN_TTL).await?;
        let wrong = || unexpected("api/token", &answer);
        if answer.status != 200 {
            return Err(wrong());
        }
        let printable = |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
        let text = std::str::from_utf8(&answer.body).ok().map(str::trim).filter(printable);
        let token = text.map(Secret::new).ok_or_else(|| {
            Failure::new(Cause::MetadataUnavailable, "get a session token of the metadata service", "it is not a token")
        })?;
        *self.token.borrow_mut() = Some((token.clone(), now + TOKEN_TTL - TOKEN_MARGIN));
        Ok(token)
    }
}

fn text(path: &str, body: Vec<u8>) -> Outcome<String> {
    String::from_utf8(body).map(|text| text.trim().to_owned()).map_err(|_| {
        Failure::new(Cause::MetadataUnavailable, format!("read {path} of the metadata service"), "it is not UTF-8 text")
    })
}

fn unexpected(path: &str, answer: &MetadataAnswer) -> Failure {
    let attempted = format!("read {path} of the metadata service");
    if answer.status == 403 {
        // AWS: 403 means that the service is switched off for this instance; waiting does not switch it on.
        let why = "403: the metadata service is switched off for this instance";
        return Failure::new(Cause::MetadataUnavailable, attempted, why)
            .advise("enable it (modify-instance-metadata-options --http-endpoint enabled), or set `identity: host`")
            .exhausted(Duration::ZERO);
    }
    // A session token is never in an error answer, but user-data might be: only the beginning of a line is shown.
    let shown: String =
        String::from_utf8_lossy(&answer.body).lines().next().unwrap_or_default().chars().take(SHOWN).collect();
    Failure::new(Cause::MetadataUnavailable, attempted, format!("{} {shown}", answer.status).trim().to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use async_trait::async_trait;
    use futures_util::FutureExt;
    use jiff::Timestamp;
    use std::cell::Cell;
    use std::collections::VecDeque;

    /// Virtual time: a sleep is over at once.
    #[derive(Default)]
    pub struct Clock(Cell<Duration>);

    #[async_trait(?Send)]
    impl Time for Clock {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
        fn uptime(&self) -> Duration {
            self.0.get()
        }
        async fn sleep(&self, duration: Duration) {
            self.0.set(self.0.get() + duration);
        }
        fn random(&self, buffer: &mut [u8]) {
            buffer.fill(7);
        }
    }

    type Script = BTreeMap<&'static str, VecDeque<(u16, &'static str)>>;

    /// Answers as it is told; the last answer of a path is repeated, a path without one is 404.
    #[derive(Default)]
    pub struct Scripted {
        answers: RefCell<Script>,
        pub tokens: Cell<u32>,
        token_status: Cell<u16>,
    }

    impl Scripted {
        pub fn new(answers: &[(&'static str, &[(u16, &'static str)])]) -> Rc<Self> {
            let answers = answers.iter().map(|(path, list)| (*path, list.iter().copied().collect())).collect();
            Rc::new(Scripted { answers: RefCell::new(answers), tokens: Cell::new(0), token_status: Cell::new(200) })
        }
    }

    #[async_trait(?Send)]
    impl Metadata for Scripted {
        async fn token(&self, ttl: Duration) -> Outcome<MetadataAnswer> {
            assert!(ttl <= TOKEN_TTL);
            self.tokens.set(self.tokens.get() + 1);
            Ok(MetadataAnswer { status: self.token_status.get(), body: b"AQAEA-token==".to_vec() })
        }

        async fn get(&self, path: &str, token: &Secret) -> Outcome<MetadataAnswer> {
            assert_eq!(token.expose(), "AQAEA-token==");
            let mut answers = self.answers.borrow_mut();
            let Some(list) = answers.get_mut(path) else { return Ok(MetadataAnswer { status: 404, body: Vec::new() }) };
            let (status, body) =
                if list.len() > 1 { list.pop_front() } else { list.front().copied() }.expect("answers");
            Ok(MetadataAnswer { status, body: body.as_bytes().to_vec() })
        }
    }

    pub fn imds(metadata: &Rc<Scripted>) -> (Imds, Rc<Clock>) {
        let clock = Rc::new(Clock::default());
        (Imds::new(metadata.clone(), clock.clone()), clock)
    }

    pub fn now<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().expect("virtual time never blocks")
    }

    #[test]
    fn a_late_or_failing_service_is_waited_for_and_then_named() {
        let late = Scripted::new(&[("meta-data/mac", &[(404, ""), (500, "oops"), (503, ""), (200, "0a:00\n")])]);
        let (client, clock) = imds(&late);
        assert_eq!(now(client.required("meta-data/mac")), Ok("0a:00".to_owned()));
        assert!(clock.uptime() < Duration::from_secs(5));
        let (client, clock) = imds(&Scripted::new(&[("meta-data/mac", &[(500, "oops")])]));
        let failure = now(client.required("meta-data/mac")).expect_err("never");
        assert_eq!((failure.cause, failure.is_transient()), (Cause::MetadataUnavailable, false));
        assert!(failure.to_string().contains("meta-data/mac") && failure.to_string().contains("500 oops"), "{failure}");
        assert!(clock.uptime() >= PATIENCE && clock.uptime() < PATIENCE + Duration::from_secs(5));
    }

    #[test]
    fn what_may_be_missing_is_not_waited_for() {
        let (client, clock) = imds(&Scripted::new(&[]));
        assert_eq!(now(client.user_data()), Ok(Vec::new()));
        assert_eq!(now(client.tags()), Ok(None));
        assert_eq!(clock.uptime(), Duration::ZERO);
    }

    #[test]
    fn tokens_are_kept_renewed_and_replaced_when_refused() {
        let metadata = Scripted::new(&[("meta-data/mac", &[(200, "a"), (401, ""), (200, "b")])]);
        let (client, clock) = imds(&metadata);
        assert_eq!(now(client.required("meta-data/mac")), Ok("a".to_owned()));
        assert_eq!(metadata.tokens.get(), 1);
        assert_eq!(now(client.required("meta-data/mac")), Ok("b".to_owned()));
        assert_eq!(metadata.tokens.get(), 2);
        now(clock.sleep(TOKEN_TTL));
        assert_eq!(now(client.required("meta-data/mac")), Ok("b".to_owned()));
        assert_eq!(metadata.tokens.get(), 3);
    }

    #[test]
    fn a_glance_asks_once_and_again_only_with_a_new_session() {
        let metadata =
            Scripted::new(&[("meta-data/mac", &[(200, "a"), (401, ""), (200, "b"), (500, "oops"), (200, "c")])]);
        let (client, clock) = imds(&metadata);
        assert_eq!(now(client.glance("meta-data/nothing")), Ok(None));
        assert_eq!(now(client.glance("meta-data/mac")), Ok(Some("a".to_owned())));
        assert_eq!(metadata.tokens.get(), 1);
        assert_eq!(now(client.glance("meta-data/mac")), Ok(Some("b".to_owned())));
        assert_eq!(metadata.tokens.get(), 2);
        assert_eq!(
            now(client.glance("meta-data/mac")).map_err(|failure| failure.cause),
            Err(Cause::MetadataUnavailable)
        );
        assert_eq!(now(client.glance("meta-data/mac")), Ok(Some("c".to_owned())));
        assert_eq!((metadata.tokens.get(), clock.uptime()), (2, Duration::ZERO));
        metadata.token_status.set(500);
        now(clock.sleep(TOKEN_TTL));
        assert!(now(client.glance("meta-data/mac")).is_err());
        assert!(metadata.tokens.get() <= 4, "it insists");
    }

    #[test]
    fn a_service_that_is_switched_off_is_said_at_once() {
        let metadata = Scripted::new(&[]);
        metadata.token_status.set(403);
        let (client, clock) = imds(&metadata);
        let failure = now(client.required("meta-data/mac")).expect_err("off");
        assert!(failure.to_string().contains("switched off"), "{failure}");
        assert_eq!(clock.uptime(), Duration::ZERO);
    }

    /// A service whose tokens or answers go wrong in ways that a script of texts cannot say.
    struct Broken {
        token: fn() -> Outcome<MetadataAnswer>,
        get: fn() -> Outcome<MetadataAnswer>,
    }

    #[async_trait(?Send)]
    impl Metadata for Broken {
        async fn token(&self, _ttl: Duration) -> Outcome<MetadataAnswer> {
            (self.token)()
        }
        async fn get(&self, _path: &str, _token: &Secret) -> Outcome<MetadataAnswer> {
            (self.get)()
        }
    }

    fn answer(status: u16, body: &[u8]) -> Outcome<MetadataAnswer> {
        Ok(MetadataAnswer { status, body: body.to_vec() })
    }

    #[test]
    fn what_never_gets_better_is_named_after_the_patience_and_version_1_is_not_tried() {
        let unasked = || panic!("a request without a token is version 1");
        let late = || Err(Failure::new(Cause::Deadline, "call metadata.get", "no answer within 3 s"));
        let oversized =
            || Err(Failure::new(Cause::MetadataUnavailable, "get", "the answer is larger than 65536 bytes"));
        type Asked = fn() -> Outcome<MetadataAnswer>;
        let good: Asked = || answer(200, b"token");
        let cases: &[(Asked, Asked, &str)] = &[
            (|| answer(404, b""), unasked, "404"),
            (|| answer(500, b"oops"), unasked, "500 oops"),
            (|| answer(200, b""), unasked, "not a token"),
            (|| answer(200, b"two words"), unasked, "not a token"),
            (|| answer(200, b"\xff\xfe"), unasked, "not a token"),
            (late, unasked, "no answer within 3 s"),
            (good, late, "no answer within 3 s"),
            (good, oversized, "larger than 65536 bytes"),
            (good, || answer(401, b""), "401"),
            (good, || answer(302, b""), "302"),
            (good, || answer(200, b"\n"), "the answer is empty"),
        ];
        for (token, get, words) in cases {
            let clock = Rc::new(Clock::default());
            let client = Imds::new(Rc::new(Broken { token: *token, get: *get }), clock.clone());
            let failure = now(client.required("meta-data/mac")).expect_err(words);
            assert!(failure.to_string().contains(words), "{failure}");
            assert!(clock.uptime() >= PATIENCE && clock.uptime() < PATIENCE + Duration::from_secs(5), "{words}");
        }
    }

    #[test]
    fn an_answer_that_is_no_text_is_refused_but_user_data_may_be_anything() {
        let broken = || Broken { token: || answer(200, b"token"), get: || answer(200, b"\x1f\x8b\xff") };
        let clock = Rc::new(Clock::default());
        let client = Imds::new(Rc::new(broken()), clock);
        let failure = now(client.required("meta-data/mac")).expect_err("binary");
        assert!(failure.detail.contains("UTF-8"), "{failure}");
        assert_eq!(now(client.user_data()), Ok(b"\x1f\x8b\xff".to_vec()));
    }

    #[test]
    fn tags_are_read_by_name() {
        let metadata = Scripted::new(&[
            ("meta-data/tags/instance/", &[(200, "Name\nteam a\n")]),
            ("meta-data/tags/instance/Name", &[(200, "w1")]),
            ("meta-data/tags/instance/team%20a", &[(200, "web")]),
        ]);
        let tags = now(imds(&metadata).0.tags()).expect("tags").expect("enabled");
        assert_eq!(tags.get("team a").map(String::as_str), Some("web"));
    }
}
