//! What ECR gave: a login that lives for hours.

use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::secret::Secret;
use crate::ports::RegistryToken;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long ECR's tokens live; an expiry that is further away is not believed.
pub const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(12);
/// A login that ends sooner is as good as dead: a pull takes time, and clocks differ.
pub const NEARLY_DEAD: SignedDuration = SignedDuration::from_secs(60);
/// More than ECR ever gives (some 2 to 3 KiB).
const MAX_TOKEN: usize = 64 * 1024;

/// User and password for registries, until they expire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// `AWS`.
    pub username: String,
    /// The password.
    pub password: Secret,
    /// When it ends; the moment it was read when ECR did not say.
    pub expires_at: Timestamp,
}

impl Login {
    /// Reads the authorization data of an answer that was received `now`.
    ///
    /// # Errors
    /// `CloudUnavailable`, without any part of the token, when it is not base64 of a user and a password.
    pub fn read(token: &RegistryToken, now: Timestamp) -> Outcome<Login> {
        let bad = |why: &str| Err(Failure::new(Cause::CloudUnavailable, "read the authorization token of ECR", why));
        let encoded = token.authorization.expose();
        if encoded.is_empty() || encoded.len() > MAX_TOKEN {
            return bad("it is empty or too long");
        }
        let Ok(bytes) = STANDARD.decode(encoded).map(Zeroizing::new) else { return bad("it is not base64") };
        let Ok(text) = std::str::from_utf8(&bytes) else { return bad("it is not text") };
        let Some((username, password)) = text.split_once(':') else { return bad("it is no user and password") };
        if username.is_empty() || password.is_empty() || text.chars().any(char::is_control) {
            return bad("it is no user and password");
        }
        let latest = now.saturating_add(LONGEST_LIFE).unwrap_or(Timestamp::MAX);
        let expires_at = token.expires_at.unwrap_or(now).min(latest);
        Ok(Login { username: username.to_owned(), password: Secret::new(password), expires_at })
    }

    /// The value of an `Authorization` header (RFC 7617).
    pub fn basic(&self) -> Secret {
        let plain = Zeroizing::new(format!("{}:{}", self.username, self.password.expose()));
        Secret::new(format!("Basic {}", STANDARD.encode(plain.as_bytes())))
    }

    /// How long it is good for pulls; zero when it is dead or nearly dead.
    pub fn life(&self, now: Timestamp) -> Duration {
        let left = self.expires_at.duration_since(now);
        if left <= NEARLY_DEAD { Duration::ZERO } else { left.unsigned_abs() }
    }

    /// When a new one is due: at half of the life that remains now, for what was taken over at its end is dead before
    /// it is used.
    pub fn refresh_at(&self, now: Timestamp) -> Timestamp {
        let half = SignedDuration::try_from(self.life(now) / 2).unwrap_or_default();
        now.saturating_add(half).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn given(authorization: &str, expires_at: Option<i64>) -> RegistryToken {
        RegistryToken { authorization: Secret::new(authorization), expires_at: expires_at.map(at) }
    }

    #[test]
    fn a_token_is_user_and_password() {
        let login = Login::read(&given(&STANDARD.encode("AWS:pass:word"), Some(7200)), at(0)).expect("a login");
        assert_eq!((login.username.as_str(), login.password.expose()), ("AWS", "pass:word"));
        assert_eq!(login.basic().expose(), format!("Basic {}", STANDARD.encode("AWS:pass:word")));
        assert_eq!(login.life(at(0)), Duration::from_secs(7200));
        assert_eq!(login.refresh_at(at(0)), at(3600));
        assert_eq!(login.refresh_at(at(3600)), at(5400));
        assert_eq!((login.life(at(7140)), login.refresh_at(at(7140))), (Duration::ZERO, at(7140)));
        assert_eq!(login.life(at(9000)), Duration::ZERO);
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        let cases = ["", "%%%", &STANDARD.encode("hunter2"), &STANDARD.encode(":hunter2"), &STANDARD.encode("AWS:")];
        let more = [STANDARD.encode([0xff, 0xfe]), STANDARD.encode("AWS:hunter2\r\nX: y"), "a".repeat(MAX_TOKEN + 1)];
        for text in cases.into_iter().chain(more.iter().map(String::as_str)) {
            let failure = Login::read(&given(text, Some(10)), at(0)).expect_err("refused");
            assert_eq!(failure.cause, Cause::CloudUnavailable);
            let said = format!("{failure}");
            assert!(!said.contains("hunter2") && (text.is_empty() || !said.contains(text)), "{said}");
        }
    }

    #[test]
    fn an_expiry_is_believed_only_as_far_as_ecr_goes() {
        let read = |expiry| Login::read(&given(&STANDARD.encode("AWS:p"), expiry), at(1000)).expect("a login");
        assert_eq!(read(None).life(at(1000)), Duration::ZERO, "missing");
        assert_eq!(read(Some(0)).life(at(1000)), Duration::ZERO, "past");
        assert_eq!(read(Some(253_402_207_000)).life(at(1000)), Duration::from_secs(12 * 3600), "absurd");
    }
}
