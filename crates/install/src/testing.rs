//! For tests: a server that says what it is told to, a plain client, and artifacts of any content.

use crate::catalog::{Arch, Artifact, Component};
use crate::download::{Answer, Body, Http, Limits, hex};
use crate::lock::ChecksumFrom;
use async_trait::async_trait;
use bytes::Bytes;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use url::Url;

pub(crate) fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// A kubeadm whose content must be this.
pub(crate) fn artifact(content: &[u8]) -> Artifact {
    component(Component::Kubeadm, "1.36.4", content)
}

pub(crate) fn component(component: Component, version: &str, content: &[u8]) -> Artifact {
    Artifact::new(component, version, Arch::Amd64, sha256(content), ChecksumFrom::Configuration)
}

/// Without long pauses, one file at a time.
pub(crate) fn quick() -> Limits {
    Limits {
        parallel: 1,
        attempts: 3,
        pause: Duration::from_millis(1),
        stall: Duration::from_secs(20),
        whole: Duration::from_secs(60),
        bytes: 1024 * 1024,
    }
}

/// What the server says to a request.
#[derive(Clone)]
pub(crate) enum Say {
    Status(u16),
    To(String),
    Content(Vec<u8>),
    /// So many bytes of the content, and then the connection ends.
    Cut(Vec<u8>, usize),
    /// A Content-Length that is not kept, and nothing after it.
    Claim(u64),
    /// A body without a Content-Length, until the connection ends.
    Endless(usize),
    /// Nothing, until the client goes away.
    Silence,
}

/// Answers each path with its script, the last word for ever; counts requests.
pub(crate) struct Server {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn start(script: Vec<(&str, Vec<Say>)>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("address").port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = asked.clone();
        let script: HashMap<String, Vec<Say>> =
            script.into_iter().map(|(path, says)| (path.to_owned(), says)).collect();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (script, seen) = (script.clone(), seen.clone());
                std::thread::spawn(move || {
                    // A client that goes away in the middle is what some tests are about.
                    let _ = answer(stream, &script, &seen);
                });
            }
        });
        Server { port, asked }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("lock").clone()
    }
}

fn answer(stream: TcpStream, script: &HashMap<String, Vec<Say>>, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let times = {
        let mut seen = seen.lock().expect("lock");
        seen.push(path.clone());
        seen.iter().filter(|other| **other == path).count()
    };
    let says = script.get(&path).cloned().unwrap_or_else(|| vec![Say::Status(404)]);
    let mut out = stream;
    match &says[(times - 1).min(says.len() - 1)] {
        Say::Status(status) => write!(out, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"),
        Say::To(to) => write!(out, "HTTP/1.1 302 X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"),
        Say::Content(content) => {
            write!(out, "HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n", content.len())?;
            out.write_all(content)
        }
        Say::Cut(content, bytes) => {
            write!(out, "HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n", content.len())?;
            out.write_all(&content[..*bytes])
        }
        Say::Claim(length) => write!(out, "HTTP/1.1 200 X\r\ncontent-length: {length}\r\n\r\n"),
        Say::Endless(bytes) => {
            write!(out, "HTTP/1.1 200 X\r\n\r\n")?;
            out.write_all(&vec![b'x'; *bytes])
        }
        Say::Silence => {
            let _ = std::io::copy(&mut out.try_clone()?, &mut std::io::sink());
            Ok(())
        }
    }
}

/// Speaks plain HTTP to one port, whatever the URL says; the host is the first folder of the path that is asked for.
pub(crate) struct Plain {
    pub(crate) port: u16,
}

fn lost(error: &std::io::Error) -> Failure {
    Failure::new(Cause::Network, "download", error.to_string())
}

#[async_trait(?Send)]
impl Http for Plain {
    async fn get(&self, url: &Url) -> Outcome<Answer> {
        let connected = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await;
        let mut stream = connected.map_err(|error| lost(&error))?;
        let path = format!("/{}{}", url.host_str().unwrap_or_default(), url.path());
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|error| lost(&error))?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.map_err(|error| lost(&error))?);
        }
        let head = String::from_utf8(head).expect("a head");
        let field =
            |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        let length = field("content-length:").map(|length| length.parse().expect("a length"));
        Ok(Answer { status, location: field("location:"), length, body: Box::new(Rest(stream)) })
    }
}

struct Rest(tokio::net::TcpStream);

#[async_trait(?Send)]
impl Body for Rest {
    async fn next(&mut self) -> Outcome<Option<Bytes>> {
        let mut piece = vec![0; 8 * 1024];
        let read = self.0.read(&mut piece).await.map_err(|error| lost(&error))?;
        piece.truncate(read);
        Ok((read > 0).then(|| Bytes::from(piece)))
    }
}
