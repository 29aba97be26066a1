//! The bucket: objects with ETag and Last-Modified, conditions, listing.

use super::{Script, error};
use crate::files;
use crate::http::{Body, Request, date, respond};
use bytes::Bytes;
use hyper::Response;
use hyper::header::HeaderValue;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its content.
    pub body: Bytes,
    /// With its quotes; equal content has an equal ETag, as in S3.
    pub etag: String,
    /// Last-Modified.
    pub modified: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub objects: BTreeMap<String, Object>,
}

impl Bucket {
    pub fn store(&mut self, key: &str, body: Bytes) -> String {
        let etag = format!("\"{}\"", &files::hex(&Sha256::digest(&body))[..32]);
        self.objects.insert(key.to_owned(), Object { body, etag: etag.clone(), modified: Timestamp::now() });
        etag
    }

    pub fn answer(&mut self, request: &Request, key: &str, script: &Script) -> Response<Body> {
        match (request.method.as_str(), key) {
            ("HEAD", "") => respond(200, "application/xml", ""),
            ("GET", "") if request.query.split('&').any(|q| q.starts_with("lifecycle")) => lifecycle(script),
            ("GET", "") => self.list(request, script),
            ("GET" | "HEAD", _) => self.get(request, key, script),
            ("PUT", _) => self.put(request, key),
            ("DELETE", _) => self.delete(request, key),
            _ => error(405, "MethodNotAllowed", "The specified method is not allowed against this resource."),
        }
    }

    fn get(&self, request: &Request, key: &str, script: &Script) -> Response<Body> {
        let Some(object) = self.objects.get(key) else {
            return if script.list_allowed {
                error(404, "NoSuchKey", "The specified key does not exist.")
            } else {
                error(403, "AccessDenied", "Access Denied")
            };
        };
        let unchanged = request.header("if-none-match").is_some_and(|known| known == object.etag);
        let changed = request.header("if-match").is_some_and(|known| known != object.etag);
        let mut response = match (unchanged, changed) {
            (true, _) => respond(304, "application/json", ""),
            (_, true) => return precondition_failed(),
            _ => respond(200, "application/json", object.body.clone()),
        };
        set(&mut response, "etag", &object.etag);
        set(&mut response, "last-modified", &date(object.modified));
        response
    }

    fn put(&mut self, request: &Request, key: &str) -> Response<Body> {
        let current = self.objects.get(key).map(|object| object.etag.as_str());
        if request.header("if-none-match") == Some("*") && current.is_some() {
            return precondition_failed();
        }
        match (request.header("if-match"), current) {
            (Some(_), None) => return error(404, "NoSuchKey", "The specified key does not exist."),
            (Some(wanted), Some(current)) if wanted != current => return precondition_failed(),
            _ => {}
        }
        let etag = self.store(key, payload(request));
        let mut response = respond(200, "application/xml", "");
        set(&mut response, "etag", &etag);
        response
    }

    fn delete(&mut self, request: &Request, key: &str) -> Response<Body> {
        let current = self.objects.get(key).map(|object| object.etag.as_str());
        match (request.header("if-match"), current) {
            (Some(_), None) => return error(404, "NoSuchKey", "The specified key does not exist."),
            (Some(wanted), Some(current)) if wanted != "*" && wanted != current => return precondition_failed(),
            _ => {}
        }
        self.objects.remove(key);
        respond(204, "application/xml", "")
    }

    fn list(&self, request: &Request, script: &Script) -> Response<Body> {
        if !script.list_allowed {
            return error(403, "AccessDenied", "Access Denied");
        }
        let parameter = |name: &str| request.parameter(name).unwrap_or_default();
        let (prefix, token, after) = (parameter("prefix"), parameter("continuation-token"), parameter("start-after"));
        let after = if token.is_empty() { after } else { token };
        let limit = parameter("max-keys").parse().unwrap_or(1000).min(1000);
        let mut keys = self.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let page: Vec<_> = keys.by_ref().take(limit).collect();
        let more = keys.next().is_some();
        let contents: String = page
            .iter()
            .map(|(key, object)| {
                format!(
                    "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size>\
                     <StorageClass>STANDARD</StorageClass></Contents>",
                    escape(key),
                    object.modified.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                    escape(&object.etag),
                    object.body.len()
                )
            })
            .collect();
        let next = page
            .last()
            .filter(|_| more)
            .map(|(key, _)| format!("<NextContinuationToken>{}</NextContinuationToken>", escape(key)));
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult \
             xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>{}</Name><Prefix>{}</Prefix>\
             <KeyCount>{}</KeyCount><MaxKeys>{limit}</MaxKeys><IsTruncated>{more}</IsTruncated>{}{contents}\
             </ListBucketResult>",
            escape(&script.bucket),
            escape(&prefix),
            page.len(),
            next.unwrap_or_default()
        );
        respond(200, "application/xml", body)
    }
}

fn precondition_failed() -> Response<Body> {
    error(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
}

fn lifecycle(script: &Script) -> Response<Body> {
    if script.lifecycle.is_empty() {
        return error(404, "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist");
    }
    let rule = |(id, prefix, days): &(String, String, u32)| {
        format!(
            "<Rule><ID>{}</ID><Filter><Prefix>{}</Prefix></Filter><Status>Enabled</Status>\
             <Expiration><Days>{days}</Days></Expiration></Rule>",
            escape(id),
            escape(prefix)
        )
    };
    let rules: String = script.lifecycle.iter().map(rule).collect();
    respond(200, "application/xml", format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>"))
}

/// The body without the framing of `aws-chunked` uploads.
fn payload(request: &Request) -> Bytes {
    if request.header("x-amz-decoded-content-length").is_none() {
        return request.body.clone();
    }
    let (mut out, mut rest) = (Vec::new(), &request.body[..]);
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let line = String::from_utf8_lossy(&rest[..end]);
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16).unwrap_or_default();
        let chunk = rest.get(end + 2..end + 2 + size).unwrap_or_default();
        if chunk.is_empty() {
            break;
        }
        out.extend_from_slice(chunk);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
    Bytes::from(out)
}

fn set(response: &mut Response<Body>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// XML escapes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
