//! An S3 that answers as badly as it is told to, in front of a small bucket in memory. Signatures are not checked.
//! Path style (`/bucket/key`) and virtual hosts (`bucket.host`) both work.
//!
//! What moto does not do and this does: 403 for a missing key without ListBucket, 409 ConditionalRequestConflict,
//! lost answers, late writes, wrong region, bodies without an end.

mod bucket;

pub use bucket::Object;

use crate::files;
use crate::http::{Answer, Body, Handler, Request, date, decode, pause, respond};
use crate::script::seconds;
use bucket::{Bucket, escape};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Frame;
use hyper::header::HeaderValue;
use jiff::Timestamp;
use serde::Deserialize;
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// How the stub behaves; unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// The bucket that exists.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// Its owner: twelve digits; requests that expect another one are refused.
    pub owner: String,
    /// Whether the caller has ListBucket. Without it a missing key is 403, as with S3.
    pub list_allowed: bool,
    /// Rules of the bucket's lifecycle: id, prefix, days.
    pub lifecycle: Vec<(String, String, u32)>,
    /// Added to the clock of the Date header, in seconds.
    pub clock_skew: i64,
    /// Faults, looked at in order.
    pub faults: Vec<Fault>,
}

impl Default for Script {
    fn default() -> Self {
        Script {
            bucket: "bucket".to_owned(),
            region: "eu-central-1".to_owned(),
            owner: "123456789012".to_owned(),
            list_allowed: true,
            lifecycle: Vec::new(),
            clock_skew: 0,
            faults: Vec::new(),
        }
    }
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// 403 AccessDenied.
    AccessDenied,
    /// 400 ExpiredToken, with the caller's session token in the document, as S3 does it.
    ExpiredToken,
    /// 403 SignatureDoesNotMatch, with the caller's key id and all signed headers in the document, as S3 does it.
    SignatureDoesNotMatch,
    /// 404 NoSuchBucket.
    NoSuchBucket,
    /// 301 PermanentRedirect to another region.
    WrongRegion,
    /// 409 ConditionalRequestConflict; nothing is done.
    Conflict,
    /// 503 SlowDown; nothing is done.
    SlowDown,
    /// 500 InternalError; nothing is done.
    InternalError,
    /// 500 InternalError, after it was done.
    DoneButError,
    /// The connection is closed after it was done.
    LostAnswer,
    /// The connection is closed before anything was done.
    LostRequest,
    /// 500 InternalError now; it is done `seconds` later, when nobody expects it any more.
    LateWrite,
    /// It is done and answered `seconds` later.
    Slow,
    /// A body without an end.
    Endless,
    /// 200 with a body that is not what was stored.
    Garbage,
}

/// One fault.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The method; any when absent.
    #[serde(default)]
    pub method: Option<String>,
    /// What the key contains; any when empty.
    #[serde(default)]
    pub key: String,
    /// What happens.
    pub action: Action,
    /// How many times; for ever when absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// How many requests pass first.
    #[serde(default)]
    pub after: u32,
    /// For `slow` and `late_write`.
    #[serde(default)]
    pub seconds: f64,
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Method.
    pub method: String,
    /// Key; empty for the bucket itself.
    pub key: String,
    /// Query.
    pub query: String,
    /// `If-Match`.
    pub if_match: Option<String>,
    /// `If-None-Match`.
    pub if_none_match: Option<String>,
    /// Status of the answer; 0 for a closed connection.
    pub status: u16,
}

/// The stub. Clones share everything.
#[derive(Clone)]
pub struct S3Stub(Arc<Inner>);

struct Inner {
    script: Mutex<Script>,
    seen: Mutex<Vec<u32>>,
    bucket: Mutex<Bucket>,
    log: Mutex<Vec<Logged>>,
}

/// A thread that died while it held a lock leaves plain data behind: it is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl S3Stub {
    /// A stub with an empty bucket.
    pub fn new(script: Script) -> Self {
        let seen = Mutex::new(vec![0; script.faults.len()]);
        let inner = Inner { script: Mutex::new(script), seen, bucket: Mutex::default(), log: Mutex::default() };
        S3Stub(Arc::new(inner))
    }

    /// Replaces the faults; their counters begin anew.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        *lock(&self.0.seen) = vec![0; faults.len()];
        lock(&self.0.script).faults = faults;
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Logged> {
        lock(&self.0.log).clone()
    }

    /// What is stored under a key.
    pub fn object(&self, key: &str) -> Option<Object> {
        lock(&self.0.bucket).objects.get(key).cloned()
    }

    /// The keys of everything that is stored, in ascending order.
    pub fn keys(&self) -> Vec<String> {
        lock(&self.0.bucket).objects.keys().cloned().collect()
    }

    /// Stores behind everybody's back.
    pub fn store(&self, key: &str, body: impl Into<Bytes>) {
        lock(&self.0.bucket).store(key, body.into());
    }

    /// Stores with an age: Last-Modified lies that long ago.
    pub fn store_aged(&self, key: &str, body: impl Into<Bytes>, age: std::time::Duration) {
        let mut bucket = lock(&self.0.bucket);
        bucket.store(key, body.into());
        if let Some(object) = bucket.objects.get_mut(key) {
            object.modified = Timestamp::now() - age;
        }
    }

    /// Removes behind everybody's back.
    pub fn remove(&self, key: &str) {
        lock(&self.0.bucket).objects.remove(key);
    }

    fn take_fault(&self, method: &str, key: &str) -> Option<Fault> {
        let script = lock(&self.0.script);
        let mut seen = lock(&self.0.seen);
        let mut taken = None;
        for (fault, seen) in script.faults.iter().zip(seen.iter_mut()) {
            if fault.method.as_deref().is_some_and(|m| m != method) || !key.contains(&fault.key) {
                continue;
            }
            let turn = *seen;
            let due = turn >= fault.after && fault.times.is_none_or(|times| turn - fault.after < times);
            if taken.is_none() {
                *seen += 1;
                if due {
                    taken = Some(fault.clone());
                }
            }
        }
        taken
    }

    fn target(&self, request: &Request) -> (String, String) {
        let bucket = lock(&self.0.script).bucket.clone();
        let host = request.header("host").unwrap_or_default();
        let path = request.path.trim_start_matches('/');
        if host.strip_prefix(&bucket).is_some_and(|rest| rest.starts_with('.')) {
            return (bucket, decode(path));
        }
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        (bucket.to_owned(), decode(key))
    }

    fn work(&self, request: &Request, bucket: &str, key: &str) -> Response<Body> {
        let script = lock(&self.0.script).clone();
        if bucket != script.bucket {
            return error(404, "NoSuchBucket", "The specified bucket does not exist");
        }
        let owner = request.header("x-amz-expected-bucket-owner");
        if owner.is_some_and(|owner| owner != script.owner) {
            return error(403, "AccessDenied", "Access Denied");
        }
        lock(&self.0.bucket).answer(request, key, &script)
    }
}

impl Handler for S3Stub {
    async fn handle(&self, request: Request) -> Answer {
        let (bucket, key) = self.target(&request);
        let fault = self.take_fault(&request.method, &key);
        let answer = self.with_fault(&request, &bucket, &key, fault).await;
        let (skew, region) = {
            let script = lock(&self.0.script);
            (script.clock_skew, script.region.clone())
        };
        let (status, answer) = match answer {
            None => (0, Answer::Close),
            Some(mut response) => {
                let headers = response.headers_mut();
                let now = Timestamp::now() + jiff::SignedDuration::from_secs(skew);
                for (name, value) in
                    [("date", date(now)), ("x-amz-request-id", "STUB".to_owned()), ("x-amz-bucket-region", region)]
                {
                    if let Ok(value) = HeaderValue::from_str(&value) {
                        headers.entry(name).or_insert(value);
                    }
                }
                (response.status().as_u16(), Answer::Response(Box::new(response)))
            }
        };
        let header = |name: &str| request.header(name).map(ToOwned::to_owned);
        let (if_match, if_none_match) = (header("if-match"), header("if-none-match"));
        let logged = Logged {
            method: request.method.clone(),
            key,
            query: request.query.clone(),
            if_match,
            if_none_match,
            status,
        };
        lock(&self.0.log).push(logged);
        answer
    }
}

impl S3Stub {
    async fn with_fault(
        &self,
        request: &Request,
        bucket: &str,
        key: &str,
        fault: Option<Fault>,
    ) -> Option<Response<Body>> {
        let Some(fault) = fault else { return Some(self.work(request, bucket, key)) };
        let internal = || error(500, "InternalError", "We encountered an internal error. Please try again.");
        match fault.action {
            Action::AccessDenied => Some(error(403, "AccessDenied", "Access Denied")),
            Action::ExpiredToken | Action::SignatureDoesNotMatch => Some(telltale(request, fault.action)),
            Action::NoSuchBucket => Some(error(404, "NoSuchBucket", "The specified bucket does not exist")),
            Action::WrongRegion => {
                let message = "The bucket you are attempting to access must be addressed using the specified endpoint.";
                let mut response = error(301, "PermanentRedirect", message);
                response.headers_mut().insert("x-amz-bucket-region", HeaderValue::from_static("ap-southeast-2"));
                Some(response)
            }
            Action::Conflict => Some(error(
                409,
                "ConditionalRequestConflict",
                "The conditional request cannot succeed due to a conflicting operation against this resource.",
            )),
            Action::SlowDown => Some(error(503, "SlowDown", "Please reduce your request rate.")),
            Action::InternalError => Some(internal()),
            Action::DoneButError => {
                self.work(request, bucket, key);
                Some(internal())
            }
            Action::LostAnswer => {
                self.work(request, bucket, key);
                None
            }
            Action::LostRequest => None,
            Action::LateWrite => {
                let (stub, request, bucket, key) = (self.clone(), request.clone(), bucket.to_owned(), key.to_owned());
                tokio::spawn(async move {
                    pause(seconds(fault.seconds)).await;
                    stub.work(&request, &bucket, &key);
                });
                Some(internal())
            }
            Action::Slow => {
                pause(seconds(fault.seconds)).await;
                Some(self.work(request, bucket, key))
            }
            Action::Endless => {
                let mut response = Response::new(Endless.boxed());
                response.headers_mut().insert("etag", HeaderValue::from_static("\"endless\""));
                Some(response)
            }
            Action::Garbage => {
                let mut response = respond(200, "application/octet-stream", vec![0_u8, 0xff, b'{', b'<']);
                response.headers_mut().insert("etag", HeaderValue::from_static("\"garbage\""));
                Some(response)
            }
        }
    }
}

/// A refusal of the caller's credentials: the document repeats what came with the request.
fn telltale(request: &Request, action: Action) -> Response<Body> {
    let header = |name: &str| escape(request.header(name).unwrap_or_default());
    let token = header("x-amz-security-token");
    let (status, body) = match action {
        Action::ExpiredToken => {
            let message = "The provided token has expired.";
            (400, format!("<Code>ExpiredToken</Code><Message>{message}</Message><Token-0>{token}</Token-0>"))
        }
        _ => {
            let message = "The request signature we calculated does not match the signature you provided. Check your \
                           key and signing method.";
            let signed = format!("{}\n{}\nx-amz-security-token:{token}", request.method, escape(&request.path));
            let given = header("authorization");
            let code = "SignatureDoesNotMatch";
            let more =
                format!("<SignatureProvided>{given}</SignatureProvided><CanonicalRequest>{signed}</CanonicalRequest>");
            (403, format!("<Code>{code}</Code><Message>{message}</Message>{more}"))
        }
    };
    respond(status, "application/xml", format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>{body}</Error>"))
}

/// An error document of S3.
fn error(status: u16, code: &str, message: &str) -> Response<Body> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{}</Message>\
         <RequestId>STUB</RequestId></Error>",
        escape(message)
    );
    respond(status, "application/xml", body)
}

/// Never ends: 64 KiB again and again.
struct Endless;

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 65536])))))
    }
}

/// Reads a script file.
///
/// # Errors
/// When it can not be read or has unknown keys.
pub fn load(path: &Path) -> io::Result<Script> {
    serde_saphyr::from_str(&files::read_text(path)?).map_err(|e| io::Error::other(format!("{}: {e}", path.display())))
}
