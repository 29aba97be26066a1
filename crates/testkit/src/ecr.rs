//! A stand-in for ECR before a real registry: an API whose tokens die soon, a registry that lets in exactly the living
//! ones, and the place where its blobs lie, on another host, as ECR's lie in S3.
//!
//! Every request is noted, one JSON object a line: `at` (`api`, `registry`, `blobs`), `method`, `path`, `login` (`none`,
//! `alive`, `dead`, `unknown`: never the login itself), `status`.

use crate::files;
use crate::http::{Answer, Handler, Request, respond};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The only action of the API (botocore's ECR model, `targetPrefix`).
const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
/// Headers of one connection, which a proxy does not pass on.
const OWN: &[&str] = &["connection", "transfer-encoding", "content-length"];

/// What all listeners share.
pub struct Ecr {
    /// How long a token lives.
    pub life: Duration,
    /// The registry's name.
    pub host: String,
    /// The name of the host with the blobs.
    pub blobs: String,
    /// The registry that is served, without authentication.
    pub backend: SocketAddr,
    /// Where requests are noted.
    pub log: PathBuf,
    /// Every login there was, with its end in seconds since 1970.
    issued: Mutex<Vec<(String, i64)>>,
}

/// Which of its servers a listener is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// ECR's API.
    Api,
    /// The registry.
    Registry,
    /// Where blobs lie.
    Blobs,
}

/// A listener's handler.
pub struct Server {
    /// What all share.
    pub ecr: Arc<Ecr>,
    /// Which this is.
    pub part: Part,
}

impl Ecr {
    /// An ECR that has given no token yet.
    pub fn new(life: Duration, host: String, blobs: String, backend: SocketAddr, log: PathBuf) -> Ecr {
        Ecr { life, host, blobs, backend, log, issued: Mutex::default() }
    }

    fn issue(&self) -> io::Result<(String, i64)> {
        let password = files::hex(&files::random_bytes::<24>()?);
        let token = STANDARD.encode(format!("AWS:{password}"));
        let ends = jiff::Timestamp::now().as_second() + i64::try_from(self.life.as_secs()).unwrap_or_default();
        self.issued.lock().unwrap_or_else(PoisonError::into_inner).push((token.clone(), ends));
        Ok((token, ends))
    }

    /// What a login is worth.
    fn judge(&self, authorization: Option<&str>) -> &'static str {
        let Some(authorization) = authorization else { return "none" };
        let token = authorization.strip_prefix("Basic ").unwrap_or_default();
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        match issued.iter().find(|(known, _)| known == token) {
            None => "unknown",
            Some((_, ends)) if *ends <= jiff::Timestamp::now().as_second() => "dead",
            Some(_) => "alive",
        }
    }

    fn api(&self, request: &Request) -> io::Result<Answer> {
        let refuse = |kind: &str| {
            let body = json!({"__type": kind}).to_string();
            Ok(Answer::Response(Box::new(respond(400, "application/x-amz-json-1.1", body))))
        };
        let signed = request.header("authorization").is_some_and(|text| text.starts_with("AWS4-HMAC-SHA256 "));
        if request.method != "POST" || request.header("x-amz-target") != Some(TARGET) {
            return refuse("UnknownOperationException");
        }
        if !signed {
            return refuse("MissingAuthenticationTokenException");
        }
        let (token, ends) = self.issue()?;
        let data = json!({"authorizationData": [{
            "authorizationToken": token, "expiresAt": ends, "proxyEndpoint": format!("https://{}", self.host),
        }]});
        Ok(Answer::Response(Box::new(respond(200, "application/x-amz-json-1.1", data.to_string()))))
    }

    async fn registry(&self, request: &Request, login: &str) -> io::Result<Answer> {
        if login != "alive" {
            // ECR's words.
            let mut response = respond(401, "text/plain; charset=utf-8", "Not Authorized\n");
            let realm = format!("Basic realm=\"https://{}/\",service=\"ecr.amazonaws.com\"", self.host);
            response.headers_mut().insert("www-authenticate", HeaderValue::from_str(&realm).map_err(io::Error::other)?);
            return Ok(Answer::Response(Box::new(response)));
        }
        if request.method == "GET" && request.path.contains("/blobs/") {
            let mut response = respond(307, "text/plain", "");
            let place = format!("https://{}{}", self.blobs, request.path);
            response.headers_mut().insert("location", HeaderValue::from_str(&place).map_err(io::Error::other)?);
            return Ok(Answer::Response(Box::new(response)));
        }
        self.forward(request).await
    }

    async fn blobs(&self, request: &Request, login: &str) -> io::Result<Answer> {
        // S3 refuses a request that is signed in its address and has a header besides.
        if login != "none" {
            return Ok(Answer::Response(Box::new(respond(400, "text/plain", "only one auth mechanism allowed"))));
        }
        self.forward(request).await
    }

    /// Asks the registry behind, and gives its answer.
    async fn forward(&self, request: &Request) -> io::Result<Answer> {
        let stream = tokio::net::TcpStream::connect(self.backend).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
        let mut asked = hyper::Request::builder()
            .method(request.method.as_str())
            .uri(format!("{}{query}", request.path))
            .header(HOST, self.backend.to_string())
            .body(Full::new(request.body.clone()))
            .map_err(io::Error::other)?;
        for accept in request.headers.get_all("accept") {
            asked.headers_mut().append("accept", accept.clone());
        }
        let answer = sender.send_request(asked).await.map_err(io::Error::other)?;
        let (parts, body) = answer.into_parts();
        let bytes: Bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
        driver.abort();
        let mut response = respond(parts.status.as_u16(), "application/octet-stream", bytes);
        let passed = |name: &HeaderName| !OWN.contains(&name.as_str()) || request.method == "HEAD";
        for (name, value) in parts.headers.iter().filter(|(name, _)| passed(name)) {
            response.headers_mut().insert(name, value.clone());
        }
        Ok(Answer::Response(Box::new(response)))
    }

    fn note(&self, part: Part, request: &Request, login: &str, status: u16) -> io::Result<()> {
        let at = format!("{part:?}").to_lowercase();
        let (method, path) = (&request.method, &request.path);
        let line = json!({"at": at, "method": method, "path": path, "login": login, "status": status});
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        log.write_all(format!("{line}\n").as_bytes())
    }
}

impl Handler for Server {
    async fn handle(&self, request: Request) -> Answer {
        let login = self.ecr.judge(request.header("authorization"));
        let answer = match self.part {
            Part::Api => self.ecr.api(&request),
            Part::Registry => self.ecr.registry(&request, login).await,
            Part::Blobs => self.ecr.blobs(&request, login).await,
        };
        let answer = answer.unwrap_or_else(|error| {
            eprintln!("ecr-standin: {} {}: {error}", request.method, request.path);
            Answer::Response(Box::new(respond(502, "text/plain", format!("{error}\n"))))
        });
        let status = match &answer {
            Answer::Response(response) => response.status().as_u16(),
            Answer::Close => 0,
        };
        if let Err(error) = self.ecr.note(self.part, &request, login, status) {
            // A test that cannot count must not go on.
            eprintln!("ecr-standin: {}: {error}", self.ecr.log.display());
            return Answer::Close;
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_worth_what_its_token_is() {
        let backend = SocketAddr::from(([127, 0, 0, 1], 1));
        let ecr = |life| Ecr::new(Duration::from_secs(life), "h".into(), "b".into(), backend, "/dev/null".into());
        let (living, dead) = (ecr(60), ecr(0));
        let token = |ecr: &Ecr| format!("Basic {}", ecr.issue().expect("token").0);
        let (one, two) = (token(&living), token(&dead));
        assert_eq!((living.judge(Some(&one)), dead.judge(Some(&two))), ("alive", "dead"));
        assert_eq!(
            (living.judge(Some(&two)), living.judge(None), living.judge(Some("Basic"))),
            ("unknown", "none", "unknown")
        );
        assert_ne!(token(&living), one, "every token is another one");
    }
}
