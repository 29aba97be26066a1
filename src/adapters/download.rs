//! Downloads of released files, with the resolver, the roots and the proxies that all requests of this program have.

use crate::adapters::net::{self, Names};
use async_trait::async_trait;
use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, USER_AGENT};
use http_body_util::BodyExt;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_install::download::{Answer, Body, Http};
use url::Url;

/// One GET at a time. Nothing is read or connected before the first.
pub struct Downloads(SharedHttpConnector);

impl Downloads {
    /// Names are looked up in `names`.
    pub fn new(names: &Names) -> Downloads {
        Downloads(net::streaming(names))
    }
}

/// The URL without its query, which is a signature in redirects to object stores, and without credentials.
fn attempted(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("download {}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

fn lost(attempted: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    let answer = net::explain(error);
    Failure::new(answer.cause.unwrap_or(Cause::Network), attempted, answer.detail)
}

#[async_trait(?Send)]
impl Http for Downloads {
    async fn get(&self, url: &Url) -> Outcome<Answer> {
        let attempted = attempted(url);
        let defect = |error: String| Failure::new(Cause::Internal, &attempted, error);
        let request = http::Request::get(url.as_str())
            .header(USER_AGENT, concat!("kubestrap/", env!("CARGO_PKG_VERSION")))
            // The digest is that of the file as it was released.
            .header(ACCEPT_ENCODING, "identity")
            .body(SdkBody::empty())
            .map_err(|error| defect(error.to_string()))?;
        let request = HttpRequest::try_from(request).map_err(|error| defect(error.to_string()))?;
        let answer = self.0.call(request).await.map_err(|error| lost(&attempted, &error))?;
        let header = |name: &str| answer.headers().get(name).map(str::to_owned);
        let (location, length) = (header("location"), header("content-length").and_then(|text| text.parse().ok()));
        let status = answer.status().as_u16();
        Ok(Answer { status, location, length, body: Box::new(Pieces { body: answer.into_body(), attempted }) })
    }
}

struct Pieces {
    body: SdkBody,
    attempted: String,
}

#[async_trait(?Send)]
impl Body for Pieces {
    async fn next(&mut self) -> Outcome<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| lost(&self.attempted, &*error))?;
            // Trailers say nothing about the content.
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    /// Answers one request with these bytes, then closes the connection; gives back the request's head.
    fn serve(answer: Vec<u8>) -> (u16, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("address").port();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let lines = BufReader::new(stream.try_clone().expect("clone")).lines();
            let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            // A client that has seen enough goes away.
            let _ = stream.write_all(&answer);
            head.join("\n")
        });
        (port, served)
    }

    async fn get(url: &str) -> Outcome<Answer> {
        Downloads::new(&Names::default()).get(&Url::parse(url).expect("url")).await
    }

    #[tokio::test]
    async fn a_body_of_any_length_comes_in_pieces() {
        // More than the answers of the SDKs may have.
        let content = vec![b'k'; 5 * 1024 * 1024];
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", content.len());
        let (port, served) = serve([head.as_bytes(), &content].concat());
        let mut answer = get(&format!("http://127.0.0.1:{port}/release/kubeadm?a=b")).await.expect("answer");
        assert_eq!((answer.status, answer.length), (200, Some(content.len() as u64)));
        let (mut pieces, mut bytes) = (0, 0);
        while let Some(piece) = answer.body.next().await.expect("piece") {
            (pieces, bytes) = (pieces + 1, bytes + piece.len());
        }
        assert!(bytes == content.len() && pieces > 1, "{bytes} bytes in {pieces} pieces");
        let head = served.join().expect("served").to_lowercase();
        assert!(head.starts_with("get /release/kubeadm?a=b http/1.1"), "{head}");
        assert!(head.contains("accept-encoding: identity") && head.contains("user-agent: kubestrap/"), "{head}");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_a_body_that_breaks_off_an_error() {
        let (port, _) =
            serve(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/x\r\ncontent-length: 0\r\n\r\n".to_vec());
        let answer = get(&format!("http://127.0.0.1:{port}/")).await.expect("answer");
        assert_eq!((answer.status, answer.location.as_deref()), (302, Some("http://127.0.0.1:1/x")));

        let (port, _) = serve(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_vec());
        let mut answer = get(&format!("http://127.0.0.1:{port}/secret?signature=abc")).await.expect("answer");
        let mut failure = None;
        while failure.is_none() {
            match answer.body.next().await {
                Ok(Some(piece)) => assert_eq!(piece, &b"abc"[..]),
                Ok(None) => panic!("the end, as if it were whole"),
                Err(error) => failure = Some(error),
            }
        }
        let failure = failure.expect("an error");
        assert!(failure.is_transient() && !failure.to_string().contains("signature"), "{failure}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_and_one_that_speaks_no_tls_are_named() {
        let free = TcpListener::bind("127.0.0.1:0").expect("listen").local_addr().expect("address").port();
        let Err(failure) = get(&format!("http://127.0.0.1:{free}/x")).await else { panic!("an answer") };
        assert_eq!(failure.cause, Cause::Network);
        assert_eq!(failure.attempted, format!("download http://127.0.0.1:{free}/x"));
        let (port, _) = serve(b"HTTP/1.1 400 no\r\n\r\n".to_vec());
        let Err(failure) = get(&format!("https://127.0.0.1:{port}/x")).await else { panic!("an answer") };
        assert_eq!(failure.cause, Cause::Tls, "{failure}");
    }
}
