//! One GET at a time, and what the answers mean: which are final, which are worth another attempt, where redirects
//! lead.

use async_trait::async_trait;
use bytes::Bytes;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use url::Url;

/// Redirects that are followed. GitHub's releases need one, some mirrors two.
const MAX_REDIRECTS: usize = 5;

/// An answer whose body has not been read.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The Location header, as it was sent.
    pub location: Option<String>,
    /// Content-Length.
    pub length: Option<u64>,
    /// The body.
    pub body: Box<dyn Body>,
}

/// Bytes that come in pieces.
#[async_trait(?Send)]
pub trait Body {
    /// The next piece; `None` at the end. A connection that breaks before is an error.
    async fn next(&mut self) -> Outcome<Option<Bytes>>;
}

/// The way to servers. The binary implements it with its own resolver, the system's roots and the environment's
/// proxies.
#[async_trait(?Send)]
pub trait Http {
    /// One GET. Redirects are answers like others, and are not followed; nothing is repeated. It ends when the head of
    /// the answer is there. Its caller sees to deadlines.
    async fn get(&self, url: &Url) -> Outcome<Answer>;
}

/// Why an attempt brought nothing.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The next attempt may do better.
    Passing(Failure),
    /// It cannot.
    Final(Failure),
}

impl From<Failure> for Trouble {
    /// By the table of failures, except for what says that a file or a permission is missing.
    fn from(failure: Failure) -> Trouble {
        if failure.is_transient() { Trouble::Passing(failure) } else { Trouble::Final(failure) }
    }
}

/// A GET that follows redirects, up to a status that means content.
pub(crate) async fn get(http: &dyn Http, url: &Url) -> Result<Answer, Trouble> {
    let mut trail = vec![url.clone()];
    loop {
        let current = trail.last().unwrap_or(url).clone();
        let answer = http.get(&current).await?;
        if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
            return check_status(&current, answer);
        }
        let next = redirected(&current, answer.location.as_deref()).map_err(|why| rejected(url, &why))?;
        if trail.contains(&next) {
            return Err(rejected(url, &format!("redirects lead in a circle: {}", told(&trail, &next))));
        }
        if trail.len() > MAX_REDIRECTS {
            return Err(rejected(url, &format!("more than {MAX_REDIRECTS} redirects: {}", told(&trail, &next))));
        }
        trail.push(next);
    }
}

fn told(trail: &[Url], next: &Url) -> String {
    let mut steps: Vec<String> = trail.iter().map(shown).collect();
    steps.push(shown(next));
    steps.join(" -> ")
}

/// A URL without what may be secret: the query of a presigned one, the password of a mirror.
pub(crate) fn shown(url: &Url) -> String {
    let mut plain = url.clone();
    plain.set_query(None);
    plain.set_fragment(None);
    // Neither fails for a URL with a host.
    let _ = plain.set_password(None);
    let _ = plain.set_username("");
    plain.to_string()
}

fn rejected(url: &Url, why: &str) -> Trouble {
    Trouble::Final(Failure::new(Cause::DownloadRejected, format!("download {}", shown(url)), why))
}

/// Where a redirect leads, or why it is not followed.
fn redirected(from: &Url, location: Option<&str>) -> Result<Url, String> {
    let location = location.ok_or("a redirect without a Location")?;
    let next = from.join(location).map_err(|error| format!("a redirect that leads nowhere: {error}"))?;
    match (from.scheme(), next.scheme()) {
        (_, "https") | ("http", "http") => Ok(next),
        ("https", "http") => Err(format!("a redirect from https to http ({}) is not followed", shown(&next))),
        (_, other) => Err(format!("a redirect to {other}: is not followed")),
    }
}

fn check_status(url: &Url, answer: Answer) -> Result<Answer, Trouble> {
    let failure = |cause, why: String| Failure::new(cause, format!("download {}", shown(url)), why);
    let status = answer.status;
    match status {
        200 => Ok(answer),
        404 | 410 => {
            Err(Trouble::Final(failure(Cause::DownloadMissing, format!("the server has no such file ({status})"))))
        }
        401 | 403 | 407 => {
            let refused = failure(Cause::AccessDenied, format!("the server refuses to give it ({status})"));
            Err(Trouble::Final(refused.advise("check the permissions of the mirror, and the proxy between")))
        }
        408 | 429 | 500..=599 => {
            Err(Trouble::Passing(failure(Cause::DownloadUnavailable, format!("the server answers {status}"))))
        }
        _ => Err(Trouble::Final(failure(Cause::DownloadRejected, format!("the server answers {status}")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_go_to_http_and_https_only_and_never_down() {
        let from = |text: &str| Url::parse(text).expect("url");
        let lead = |start: &str, location| redirected(&from(start), location).map(|url| url.to_string());
        assert_eq!(lead("https://a/x/y", Some("../z")), Ok("https://a/z".into()));
        assert_eq!(lead("http://a/x", Some("https://b/c")), Ok("https://b/c".into()));
        assert_eq!(lead("http://a/x", Some("//b/c")), Ok("http://b/c".into()));
        assert!(lead("https://a/x", Some("http://a/x")).expect_err("down").contains("from https to http"));
        for (location, word) in [("file:///etc/shadow", "file"), ("ftp://a/b", "ftp"), ("http://", "nowhere")] {
            assert!(lead("http://a/x", Some(location)).expect_err(location).contains(word));
        }
        assert!(lead("http://a/x", None).expect_err("none").contains("without"));
    }

    #[test]
    fn what_may_be_secret_in_a_url_is_not_shown() {
        let url = Url::parse("https://user:word@mirror/x?X-Amz-Signature=abc#frag").expect("url");
        assert_eq!(shown(&url), "https://mirror/x");
    }
}
